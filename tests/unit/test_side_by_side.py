"""Two results folders: matching runs, their differences, and the sentences on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.compare import match
from bench.analysis.groups import seed_groups_of
from bench.analysis.intervals import Estimate
from bench.analysis.measures import Compared
from bench.analysis.rows import rows_of
from bench.report.compare import FolderComparison, side_by_side, verdict
from bench.report.tables.model import Table
from bench.spec.run import Environment, RunSpec
from bench.storage.results import Store, StoredRun

IMAGES = 1_000
NAMES = ("before", "after")
NEW = {"packages": {"numpy": "2.0.0", "torch": "2.15.0"}}
MakeRun = Callable[..., StoredRun]
FAILED = {"status": "oom", "failure": {"kind": "SIGKILL", "message": "memory ran out"}}


class Folders:
    """Two results folders, filled run by run."""

    def __init__(
        self,
        root: Path,
        save: Callable[..., Path],
        make_spec: Callable[..., RunSpec],
        make_environment: Callable[..., Environment],
    ) -> None:
        self.stores = {name: Store(root / name) for name in NAMES}
        for store in self.stores.values():
            store.root.mkdir()
        self._save, self._make_spec, self._make_environment = save, make_spec, make_environment

    def add(
        self,
        name: str,
        right: np.ndarray[Any, Any] | None = None,
        environment: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        """Store a run that is right on the images of ``right``; None: without predictions."""
        made = self._make_spec(**spec)
        where = self._make_environment(backend=made.backend, **(environment or {}))
        share = {} if right is None else {"test_top1": float(right.mean())}
        folder = self._save(self.stores[name], made, where, **share, **(result or {}))
        if right is not None:
            labels = np.arange(len(right)) % 2
            logits = np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)]
            np.savez(folder / "predictions.npz", logits=logits, labels=labels)

    def compare(self, names: tuple[str, str] = NAMES) -> FolderComparison:
        a, b = (self.stores[name].load()[0] for name in NAMES)
        return side_by_side(a, b, names)


@pytest.fixture
def folders(
    tmp_path: Path,
    save_run: Callable[..., Path],
    make_spec: Callable[..., RunSpec],
    make_environment: Callable[..., Environment],
) -> Folders:
    return Folders(tmp_path, save_run, make_spec, make_environment)


def _right(share: float, seed: int = 0, count: int = IMAGES) -> np.ndarray[Any, Any]:
    """Return (count,) bool with about this share right; harder images stay wrong within a seed."""
    return np.random.default_rng(seed).random(count) < share


def _table(found: FolderComparison, name: str) -> Table:
    return next(table for table in found.tables if table.name == f"side_by_side_{name}")


def _column(found: FolderComparison, table: str, heading: str) -> list[str]:
    shown = _table(found, table)
    place = [c.heading for c in shown.columns].index(heading)
    return [row[place].text for row in shown.rows]


def _said(found: FolderComparison, beginning: str) -> str:
    (said,) = [s for s in found.sentences if s.startswith(beginning)]
    return said


def test_a_real_difference_is_named_with_its_interval_and_its_direction(folders: Folders) -> None:
    folders.add("before", _right(0.70))
    folders.add("after", _right(0.80), environment=NEW)
    found = folders.compare()
    (row,) = _table(found, "top1").rows
    cell = next(cell for cell in row if cell.text.startswith("+"))
    apart = _right(0.80).mean() - _right(0.70).mean()
    assert cell.raw == pytest.approx(apart)
    assert cell.estimate is not None
    low, high = cell.estimate.low, cell.estimate.high
    assert low is not None
    assert high is not None
    assert (low + high) / 2 == pytest.approx(apart)
    # 10 % of 1,000 images have a standard error of 0.95 points; one seed adds its usual spread.
    assert 0.0186 < (high - low) / 2 < 0.05
    assert _column(found, "top1", "verdict") == ["significant: after is better"]
    said = _said(found, "Test top-1")
    assert f"'after' is better in 1 of 1 comparison ({cell.text} for photos (stand-in)" in said


def test_the_other_way_round_it_is_worse(folders: Folders) -> None:
    folders.add("before", _right(0.80))
    folders.add("after", _right(0.70), environment=NEW)
    assert _column(folders.compare(), "top1", "verdict") == ["significant: after is worse"]


def test_where_the_interval_holds_none_no_difference_is_shown(folders: Folders) -> None:
    folders.add("before", _right(0.8, seed=1))
    folders.add("after", _right(0.8, seed=2), environment=NEW)
    found = folders.compare()
    assert _column(found, "top1", "verdict") == ["no difference shown"]
    assert _said(found, "Test top-1") == (
        "Test top-1: no difference is shown in 1 of 1 comparison."
    )
    assert not any("better" in s or "worse" in s for s in found.sentences)


def test_images_are_paired_one_by_one(folders: Folders) -> None:
    """With equal accuracies, correlated answers have a narrower interval than independent ones."""

    def width(after: np.ndarray) -> float:
        folders.add("before", _right(0.60))
        folders.add("after", after, environment=NEW)
        (row,) = _table(folders.compare(), "top1").rows
        (cell,) = (cell for cell in row if "points" in cell.text)
        assert cell.estimate is not None
        return cell.estimate.half_width or 0.0

    better = _right(0.60).copy()
    better[np.flatnonzero(~better)[:12]] = True
    assert width(better) < 0.95 * width(np.random.default_rng(5).permutation(better))


def test_three_seeds_speak_of_the_recipes(folders: Folders) -> None:
    for seed in range(3):
        folders.add("before", _right(0.70, seed), seed=seed)
        folders.add("after", _right(0.80, seed), environment=NEW, seed=seed)
    found = folders.compare()
    assert _column(found, "top1", "seeds") == ["3"]
    assert _column(found, "top1", "verdict") == ["significant: after is better"]
    assert found.sentences[0] == (
        "'before' and 'after' were compared in 3 runs of 1 experiment, of the same spec."
    )


def test_many_comparisons_are_corrected_for_their_number(folders: Folders) -> None:
    """One comparison of 40 differs by an amount that would be significant alone."""
    base = _right(0.80)
    better = base.copy()
    better[np.flatnonzero(~base)[:60]] = True
    folders.add("before", base)
    folders.add("after", better, environment=NEW)
    assert _column(folders.compare(), "top1", "verdict") == ["significant: after is better"]
    for number in range(1, 40):
        change = {"recipe": {"batch_size": 32 + number}}
        folders.add("before", base, **change)
        folders.add("after", base, environment=NEW, **change)
    verdicts = _column(folders.compare(), "top1", "verdict")
    assert sorted(set(verdicts)) == ["no difference shown", "no difference shown after correction"]
    assert "real" not in "".join(verdicts)


def test_without_the_answers_there_is_no_interval_and_no_verdict(folders: Folders) -> None:
    folders.add("before", _right(0.70))
    folders.add("after", result={"test_top1": 0.9}, environment=NEW)
    found = folders.compare()
    assert _column(found, "top1", "verdict") == ["no interval"]
    assert "no interval in 1 of 1 comparison" in _said(found, "Test top-1")
    assert any("predictions.npz" in note for note in _table(found, "top1").notes)


def _rate(rate: float) -> dict[str, Any]:
    return {"train_images_per_s": rate}


def test_speed_is_a_ratio_of_runs(folders: Folders) -> None:
    for seed in range(3):
        for backend, after in (("torch", 200.0), ("keras-torch", 50.0), ("keras-jax", 104.0)):
            folders.add("before", result=_rate(100.0), seed=seed, backend=backend)
            folders.add("after", result=_rate(after), environment=NEW, seed=seed, backend=backend)
    found = folders.compare()
    by_backend = dict(
        zip(
            _column(found, "images_per_s", "backend"),
            _column(found, "images_per_s", "verdict"),
            strict=True,
        )
    )
    assert by_backend == {
        "torch": "significant: after is faster",
        "keras-torch": "significant: after is slower",
        "keras-jax": "no difference shown",
    }
    ratios = _column(found, "images_per_s", "ratio, after / before")
    assert ratios[0].startswith("2.00 × (")
    said = _said(found, "Train images/s")
    assert "'after' is faster in 1 of 3 comparisons (2.00" in said
    assert "'after' is slower in 1 of 3 comparisons (0.50" in said
    assert "No difference is shown in 1 of 3 comparisons" in said


def test_the_greatest_difference_is_the_one_that_is_named(folders: Folders) -> None:
    for backend, times in (("torch", 3.0), ("keras-torch", 4.5), ("keras-jax", 4.0)):
        folders.add("before", result=_rate(100.0), backend=backend)
        folders.add("after", result=_rate(100.0 * times), environment=NEW, backend=backend)
    said = _said(folders.compare(), "Train images/s")
    assert "'after' is faster in 3 of 3 comparisons (most: 4.5" in said
    assert said.endswith("freeze_all, keras-torch).")


def test_a_small_p_value_alone_makes_no_difference_real(folders: Folders) -> None:
    """The interval and the p value of a bootstrap may disagree at the boundary."""
    folders.add("before", _right(0.7))
    folders.add("after", _right(0.8), environment=NEW)
    (a,), (b,) = (
        seed_groups_of(rows_of(runs)) for runs in (s.load()[0] for s in folders.stores.values())
    )
    edge = Estimate(0.02, 0.0, 0.04)
    assert verdict(Compared("top1", a, b, edge, 0.01), NAMES) == "no difference shown"
    clear = replace(edge, low=0.001)
    assert verdict(Compared("top1", a, b, clear, 0.01), NAMES) == "significant: after is better"
    corrected = Compared("top1", a, b, clear, 0.06)
    assert verdict(corrected, NAMES) == "no difference shown after correction"


def test_whole_steps_and_effective_rates_are_never_compared(folders: Folders) -> None:
    effective = {"train_images_per_s": None, "effective_images_per_s": 900.0}
    folders.add("before", result=_rate(100.0))
    folders.add("after", result=effective, environment=NEW)
    found = folders.compare()
    assert "side_by_side_images_per_s" not in [table.name for table in found.tables]
    folders.add("before", result={**effective, "effective_images_per_s": 300.0})
    found = folders.compare()
    (ratio,) = _column(found, "images_per_s", "ratio, after / before")
    assert ratio.startswith("3.00 × (")
    assert _column(found, "images_per_s", "before") == ["300 †"]


def test_fit_times_are_compared_by_runs(folders: Folders) -> None:
    for seed in range(3):
        folders.add("before", result={"fit_s": 10.0 + seed}, seed=seed)
        folders.add("after", result={"fit_s": 5.0 + 0.5 * seed}, environment=NEW, seed=seed)
    assert _column(folders.compare(), "fit_s", "verdict") == ["significant: after takes less time"]
    assert _said(folders.compare(), "Fit time").startswith(
        "Fit time: 'after' takes less time in 1 of 1 comparison (0.50"
    )


def test_what_differs_around_the_runs(folders: Folders) -> None:
    old = {"variables": {"OMP_NUM_THREADS": "2"}, "thawbench": "0.1.0+aa"}
    new = {**NEW, "thawbench": "0.1.0+bb", "driver": "560.1", "processor": "B"}
    for backend in ("torch", "keras-torch"):
        folders.add("before", environment=old, result={"knobs": {"xla": False}}, backend=backend)
        folders.add("after", environment=new, result={"knobs": {"xla": True}}, backend=backend)
    found = folders.compare()
    assert [[cell.text for cell in row] for row in _table(found, "environments").rows] == [
        ["processor", "A CPU", "B", "torch, keras-torch"],
        ["driver", "–", "560.1", "torch, keras-torch"],
        ["Thawbench and its code", "0.1.0+aa", "0.1.0+bb", "torch, keras-torch"],
        ["package torch", "2.14.1", "2.15.0", "torch, keras-torch"],
        ["variable OMP_NUM_THREADS", "2", "–", "torch, keras-torch"],
        ["in force: xla", "false", "true", "torch, keras-torch"],
    ]
    assert "driver (– → 560.1), " in _said(found, "Differences in the environment")


def test_a_run_and_its_repetition(folders: Folders) -> None:
    folders.add("before", _right(0.7))
    folders.add("after", _right(0.8))
    found = folders.compare()
    assert _column(found, "top1", "verdict") == ["significant: after is better"]
    assert "this is one experiment and its repetition" in found.sentences[1]
    assert "side_by_side_environments" not in [table.name for table in found.tables]


def test_runs_of_one_folder_and_failures_are_counted_and_named(
    folders: Folders, make_spec: Callable[..., RunSpec]
) -> None:
    folders.add("before", seed=0)
    folders.add("after", seed=0)
    folders.add("before", seed=1)
    folders.add("after", seed=2, device="cuda:0")
    folders.add("before", seed=3)
    folders.add("after", seed=3, result=FAILED)
    folders.add("before", seed=4, result=FAILED)
    folders.add("after", seed=4)
    folders.add("before", seed=5, result=FAILED)
    folders.add("after", seed=5, result=FAILED)
    found = folders.compare()
    assert found.sentences[0] == (
        "'before' and 'after' were compared in 1 run of 1 experiment, of the same spec. "
        "Not compared: 1 run only in 'before', 1 run only in 'after', "
        "1 run ok in 'before' and not in 'after', "
        "1 run ok in 'after' and not in 'before', 1 run in both folders, but ok in "
        "neither or in several environments."
    )
    rows = {r[0].text: [c.text for c in r[1:]] for r in _table(found, "not_compared").rows}
    assert rows == {
        make_spec(seed=1).run_id: ["ok", "–", "not in both folders"],
        make_spec(seed=2, device="cuda:0").run_id: ["–", "ok", "not in both folders"],
        make_spec(seed=3).run_id: ["ok", "oom", "not ok in both folders"],
        make_spec(seed=4).run_id: ["oom", "ok", "not ok in both folders"],
        make_spec(seed=5).run_id: ["oom", "oom", "not ok in both folders"],
    }


def test_nothing_in_common_is_said(folders: Folders) -> None:
    folders.add("before", seed=1)
    folders.add("after", seed=2)
    found = folders.compare()
    assert found.sentences == [
        "Nothing was compared: 'before' and 'after' share no spec of which both have a successful "
        "run. Not compared: 1 run only in 'before', 1 run only in 'after'.",
        "The folders differ in seed (1 in 'before', 2 in 'after').",
        "No difference in the environment was recorded.",
    ]
    assert [table.name for table in found.tables] == ["side_by_side_not_compared"]
    assert side_by_side([], [], NAMES).tables == []


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("1", "2", ["12"]),
        ("1", "1", ["11"]),
        ("1", "12", ["12"]),  # the folder was copied, then the run was repeated in the copy
        ("12", "1", ["21"]),
        ("12", "13", ["23"]),
        ("12", "12", ["11", "22"]),
        ("12", "3", []),
        ("1", "23", []),
    ],
)
def test_of_several_environments_the_new_one_is_compared(
    make_run: MakeRun, a: str, b: str, expected: list[str]
) -> None:
    def runs(versions: str) -> list[StoredRun]:
        return [make_run(environment={"thawbench": v}) for v in versions]

    pairs, left = match(runs(a), runs(b))
    assert [x.environment.thawbench + y.environment.thawbench for x, y in pairs] == expected
    assert [u.reason[:23] for u in left] == ([] if expected else ["in several environments"])


def test_nothing_is_taken_together_over_environments(folders: Folders) -> None:
    for seed, version in enumerate(("2.15.0", "2.15.0", "2.16.0")):
        folders.add("before", _right(0.7, seed), seed=seed)
        where = {"packages": {"torch": version}}
        folders.add("after", _right(0.8, seed), environment=where, seed=seed)
    found = folders.compare()
    assert sorted(_column(found, "top1", "seeds")) == ["1", "2"]
    looks = [tuple(c.text for c in row[:-6]) for row in _table(found, "top1").rows]
    assert len(set(looks)) == 2


def test_experiments_that_differ_look_different(folders: Folders) -> None:
    for changes in ({}, {"recipe": {"px": 64}}, {"policy": {"learning_rate_scale": 0.5}}):
        for name in NAMES:
            folders.add(name, _right(0.7), **changes)
    found = folders.compare()
    columns = [c.name for c in _table(found, "top1").columns]
    assert columns[4:6] == ["px", "seeds"], "the edited policy is named by its definition"
    looks = [tuple(c.text for c in row[:6]) for row in _table(found, "top1").rows]
    assert len(set(looks)) == 3


def test_folders_of_one_name_are_told_apart_and_names_stay_as_they_are(folders: Folders) -> None:
    folders.add("before", _right(0.7))
    folders.add("after", _right(0.8))
    found = folders.compare(("<b>x|y", "<b>x|y"))
    headings = [c.heading for c in _table(found, "top1").columns]
    assert headings[5:7] == ["<b>x|y (first)", "<b>x|y (second)"]
    assert found.as_json()["sentences"][0].startswith("'<b>x|y (first)' and '<b>x|y (second)'")
    assert {"tables", "sentences"} == set(found.as_json())
