"""The command that repeats a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from bench.catalog.cases import SIZE_BOUNDS, size_of
from bench.catalog.policies import POLICIES
from bench.report.format import applicable
from bench.runner.suite import Grid
from bench.spec.run import RECIPE_OPTIONS, RunSpec

END = "THAWBENCH"


def repeat_command(
    spec: RunSpec, swept: Sequence[RunSpec] = (), options: Sequence[str] = ()
) -> str:
    """Return shell commands that write a suite of just this run, and run it.

    A spec holds no paths of the machine that it ran on, so the reader has to complete the path of
    a folder of images, a weights file or a user's own network.

    Args:
        swept: Specs of the runs trained at once in one sweep, this one among them.
        options: Options that decided which files were used.
    """
    kind = spec.case.dataset.name.partition(":")[0]
    comments = {
        "# dataset: complete the path of the folder": kind == "folder",
        "# dataset: complete the path of the folder that holds images/ and labels/":
            kind == "rvl_cdip",
        "# backbones: complete the path, module:PATH/FILE.py:FUNCTION": spec.code_sha256,
        "# weights: complete the path of the file": spec.weights.kind == "file",
    }  # fmt: skip
    suite = {"name": "repeat", "backends": [spec.backend], "seeds": [spec.seed]}
    grid = {
        key: value
        for key, value in _grid(spec, swept).items()
        if value is not None and value != Grid.model_fields[key].default
    }
    text = "\n".join([*applicable(comments), *_toml(suite), "", "[[grid]]", *_toml(grid)])
    more = "".join(f" {shlex.join(option.split())}" for option in options)
    return (
        f"cat > repeat.toml <<'{END}'\n{text}\n{END}\n"
        f"python run_bench.py run --suite repeat.toml --device {shlex.quote(spec.device)}{more}"
    )


def _toml(table: dict[str, Any]) -> list[str]:
    """Return a line of TOML for each key. Strings, numbers and lists are written as in JSON, but
    letters beyond ASCII as they are, since TOML has no surrogates; and DEL, which TOML forbids, as
    an escape."""
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for key, value in table.items()
    ]


def _grid(spec: RunSpec, swept: Sequence[RunSpec]) -> dict[str, Any]:
    recipe, data, policy = spec.recipe, spec.case.dataset, spec.policy
    known = POLICIES.get(policy.name, policy)
    weights = {"file": spec.weights.source, "random": "random"}.get(spec.weights.kind)
    rates = {s.recipe.learning_rate / known.learning_rate_scale for s in (spec, *swept)}
    decays = {s.recipe.weight_decay for s in (spec, *swept)}
    return {
        "case": spec.case.number,
        "dataset": data.name,
        **{f"{part}_images": getattr(data, f"{part}_images") for part in ("train", "val", "test")},
        "size_bounds": _bounds(spec),
        "similarity": spec.case.similarity if data.name.startswith("folder:") else None,
        "backbones": [spec.backbone],
        "policies": [policy.name],
        "boundary": policy.boundary if policy.boundary != known.boundary else None,
        "weights": None if known.initialisation == "random" else weights,
        **{name: getattr(recipe, name) for name in RECIPE_OPTIONS},
        "learning_rate": sorted(rates) if len(rates) > 1 else min(rates),
        "weight_decay": sorted(decays) if len(decays) > 1 else min(decays),
        "tune": "lr" if recipe.learning_rate_grid else None,
        "mode": [spec.mode] if spec.mode != "matched" else None,
    }  # fmt: skip


def _bounds(spec: RunSpec) -> list[int] | None:
    """Return bounds that give the data the size in the spec; None if they have it by default."""
    images, size = spec.case.dataset.train_images, spec.case.size
    if not spec.case.dataset.name.startswith("folder:") or size_of(images, SIZE_BOUNDS) == size:
        return None
    return {"small": [images, images + 1], "medium": [images - 1, images], "large": [1, 2]}[size]
