"""``python -m tools.learning_rates DIR``: which learning rate suits each policy.

Reads the results of ``tools/learning_rates.toml`` and writes docs/learning-rates.md: the validation
accuracy of each policy by the multiple of the base rate, and what each multiple loses to the best
one of its setting, on average over settings. ``make learning-rates`` does the runs first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from bench.catalog.policies import BASE_LEARNING_RATE, POLICIES, rate_factor
from bench.storage.results import Store, StoredRun
from bench.system import project_root

PAGE = project_root() / "docs" / "learning-rates.md"
SETTING = ["optimizer", "data", "images", "epochs", "batch", "head", "network"]
"""Columns that a policy's rates are compared within."""
HEAD = """# Learning rates

The default learning rate of a policy is the optimizer's base rate (0.001 for AdamW, 0.02 for SGD)
times a factor of the policy's own. The factors were calibrated: six policies were trained with
AdamW at multiples of the base rate, over batch sizes, epochs, two networks and both embedded data
sets, with a linear head, in one backend and with one seed. The multiple was taken that loses least
on average to the best one of each setting. Four policies were tried with SGD, too, where the base
rate stays: no other multiple is better by a point on average. Validation images decided; the test
images had no say. `make learning-rates` does the runs again and writes this page; `--tune lr`
chooses the rate for your own data.

"""


SCALING = """## Does the rate depend on batch, epochs or network?

Points that the default rates of AdamW lose to the best multiple of each setting. The defaults are
not scaled by any of them: there is no common trend, except that trainings of very few steps want
higher rates (fine_tune_all in three epochs loses most). Where a policy loses much in a row, use
`--tune lr`.

"""


def table_of(runs: list[StoredRun]) -> pd.DataFrame:
    """Return a row for each run: its setting, policy, multiple of the base rate and validation
    accuracy after the last epoch, 0 if it diverged."""
    lines = []
    for run in runs:
        recipe, data = run.spec.recipe, run.spec.case.dataset
        curve = run.result.val_top1_by_epoch
        is_ok = run.result.status == "ok" and curve and curve[-1] is not None
        lines.append({
            "optimizer": recipe.optimizer, "data": data.name, "images": data.train_images,
            "epochs": recipe.epochs, "batch": recipe.batch_size, "head": recipe.head,
            "network": run.spec.backbone, "policy": run.spec.policy.name,
            "multiple": round(recipe.learning_rate / BASE_LEARNING_RATE[recipe.optimizer], 2),
            "top1": curve[-1] if is_ok else 0.0,
        })  # fmt: skip
    found = pd.DataFrame(lines)
    # Without a second multiple there is nothing to lose.
    return found[found.groupby([*SETTING, "policy"])["multiple"].transform("nunique") > 1]


def losses_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what each multiple loses to the best one of its setting, in points: optimizer and
    policy × multiple, the mean over settings."""
    wide = runs.pivot_table(index=[*SETTING, "policy"], columns="multiple", values="top1")
    lost = 100 * wide.sub(wide.max(axis=1), axis=0)
    return lost.groupby(["optimizer", "policy"], sort=False).mean()


def at_default(runs: pd.DataFrame, field: str) -> pd.DataFrame:
    """Return what the default rates of AdamW lose to the best multiple of each setting, in points:
    policy × the values of one field of the setting."""
    here = runs[runs["optimizer"] == "adamw"]
    wide = here.pivot_table(index=[*SETTING, "policy"], columns="multiple", values="top1")
    lost = 100 * wide.sub(wide.max(axis=1), axis=0)
    chosen = pd.Series(
        [lost.loc[place].get(rate_factor(str(place[-1]), "adamw")) for place in lost.index],
        index=lost.index, name="lost",
    )  # fmt: skip
    return chosen.reset_index().pivot_table(index="policy", columns=field, values="lost")


def page_of(runs: pd.DataFrame) -> str:
    """Return the text of docs/learning-rates.md."""
    lost = losses_of(runs)
    order = [name for name in POLICIES if name in set(runs["policy"])]
    parts = [HEAD]
    for optimizer in dict.fromkeys(runs["optimizer"]):
        here = lost.loc[optimizer].reindex(order).dropna(how="all").dropna(axis=1, how="all")
        shown = here.map(_points)
        shown.insert(0, "default", [f"{rate_factor(name, optimizer):g}" for name in shown.index])
        shown.columns = [str(c) if isinstance(c, str) else f"{c:g} ×" for c in shown.columns]
        parts.append(
            f"## {optimizer}: points below the best multiple, mean over settings\n\n"
            f"{shown.to_markdown(disable_numparse=True)}\n\n"
        )
    parts.append(SCALING)
    for field in ("batch", "epochs", "network"):
        shown = at_default(runs, field).reindex(order).dropna(how="all").map(_points)
        shown.columns = [f"{field} {column}" for column in shown.columns]
        parts.append(f"{shown.to_markdown(disable_numparse=True)}\n\n")
    wide = runs.pivot_table(index=[*SETTING, "policy"], columns="multiple", values="top1")
    shown = wide.map(lambda value: "–" if pd.isna(value) else f"{100 * value:.1f}").reset_index()
    shown.columns = [str(c) if isinstance(c, str) else f"{c:g} ×" for c in shown.columns]
    parts.append(
        "## Every setting: validation accuracy in percent\n\n"
        f"{shown.to_markdown(index=False, disable_numparse=True)}\n"
    )
    return "".join(parts)


def _points(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:z.1f}".replace("-", "−")


def main(folder: Path) -> None:
    """Read a results folder, and write the page."""
    runs, problems = Store(folder).load()
    for problem in problems:
        print(problem, file=sys.stderr)
    PAGE.write_text(page_of(table_of(runs)), encoding="utf-8")
    print(losses_of(table_of(runs)).round(1).to_string())
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else sys.exit("usage: … DIR")))
