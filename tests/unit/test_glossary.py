"""The glossary has an entry if and only if the page shows its quantity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.rows import rows_of
from bench.parity.tolerances import LEVELS
from bench.report import make_report
from bench.report.compare import side_by_side
from bench.report.glossary import entries as all_entries
from bench.report.glossary import glossary
from bench.report.tables.runs import runs_table
from bench.report.tables.standard import standard_set
from bench.storage.results import StoredRun
from tests.unit.made_runs import Make, found

Runs = list[StoredRun]
FIELDS: dict[str, tuple[str, Any]] = {
    "test top-1": ("test_top1", 0.5),
    "balanced accuracy": ("test_balanced_accuracy", 0.5),
    "macro F1": ("test_macro_f1", 0.5),
    "calibration error": ("test_calibration_error", 0.1),
    "log loss": ("test_loss", 0.7),
    "fit s, fit": ("fit_s", 12.3),
    "train images/s": ("train_images_per_s", 100.0),
    "effective images/s": ("effective_images_per_s", 100.0),
    "infer images/s": ("infer_images_per_s", 100.0),
    "multiply-adds": ("forward_multiply_adds", 1_000),
    "trainable parameters": ("trainable_parameters", 20),
}
"""Entry → field of a result, and a value of it."""
FAILED = {"status": "oom", "failure": {"kind": "SIGKILL", "message": "memory ran out"}}
STILL: dict[str, Any] = {"train_images_per_s": None, "fit_s": None}
"""Without rates or times."""


def entries(runs: Runs) -> dict[str, str]:
    """Return name → text of the glossary of a report."""
    rows = rows_of(runs)
    shown = glossary([*standard_set(found(*runs)), runs_table(rows)], rows)
    return {entry["name"]: entry["text"] for entry in shown}


@pytest.mark.parametrize("name", FIELDS)
def test_a_figure_that_was_measured_is_defined_and_one_that_was_not_is_not(
    make_run: Callable[..., StoredRun], name: str
) -> None:
    field, value = FIELDS[name]
    assert name in entries([make_run({field: value})])
    assert name not in entries([make_run({field: None})])


def seeds(make: Make, many: int, policy: str = "freeze_all", share: float = 0.7) -> Runs:
    return [make(share, policy, seed) for seed in range(many)]


def alike(make: Make, luck: float = 0.0) -> Runs:
    """Return runs of two policies that are right on the same images, or almost, with luck."""
    return [make(0.7, policy, luck=luck) for policy in ("freeze_all", "fine_tune_all")]


def still(make: Make, many: int) -> Runs:
    return [make(0.7, seed=seed, result=STILL) for seed in range(many)]


def windows(make: Make, many: int) -> Runs:
    result = {"train_images_per_s_windows": [100.0, 101.0, 99.0, 100.0, 102.0][:many]}
    return [make(0.7, result=result)]


MADE: dict[str, tuple[Callable[[Make], Runs], Callable[[Make], Runs]]] = {
    "points": (alike, lambda make: seeds(make, 3)),
    "peak memory": (lambda make: seeds(make, 1), lambda make: [make(0.7, result={
        **FAILED, "test_top1": None})]),
    "interval, 3 seeds or more": (lambda make: seeds(make, 3), lambda make: seeds(make, 2)),
    "interval, fewer than 3 seeds": (lambda make: seeds(make, 2), lambda make: seeds(make, 3)),
    "interval, both sides agree": (alike, lambda make: alike(make, 0.02)),
    "interval of a speed, 3 runs or more": (lambda make: seeds(make, 3),
                                            lambda make: still(make, 3)),
    "interval of a speed, fewer than 3 runs": (lambda make: windows(make, 5),
                                               lambda make: windows(make, 4)),
    "verdict": (alike, lambda make: seeds(make, 3)),
    "tie, no difference shown": (alike, lambda make: [
        *seeds(make, 1), *seeds(make, 1, "fine_tune_all", 0.95)]),
    "parity": (lambda make: [make(0.7), make(0.7, backend="keras-tensorflow")],
               lambda make: seeds(make, 3)),
}  # fmt: skip
"""Entry → runs whose page shows its quantity, and runs whose page does not."""


@pytest.mark.parametrize("name", MADE)
def test_what_comes_of_several_runs_is_defined_where_it_is_shown(make: Make, name: str) -> None:
    with_it, without = MADE[name]
    assert name in entries(with_it(make))
    assert name not in entries(without(make))


def test_no_entry_is_left_out_above() -> None:
    names = [name for name, _, _ in all_entries([], [])]
    assert [name for name in names if name not in {*FIELDS, *MADE}] == []


def test_the_figures_of_two_folders_are_defined_too(make: Make, tmp_path: Path) -> None:
    before = seeds(make, 1)
    newer = {"python": "3.12.0"}
    after = [make(0.7, seed=0, environment=newer)]
    alone = make_report(before, tmp_path).page
    side = side_by_side(before, after, ("before", "after"))
    beside = make_report([*before, *after], tmp_path, side=side).page
    assert alone is not None
    assert beside is not None
    new = {entry["name"] for entry in beside["glossary"]}
    new -= {entry["name"] for entry in alone["glossary"]}
    assert new == {"points", "interval, both sides agree", "verdict",
                   "tie, no difference shown"}  # fmt: skip


def test_memory_that_is_not_told_is_counted_for_each_backend(
    make_run: Callable[..., StoredRun],
) -> None:
    keras = {"backend": "keras-tensorflow"}
    told, untold = {"peak_host_bytes": 10**9}, {"peak_host_bytes": None}
    runs = [make_run(told), make_run(told, **keras), make_run(untold, **keras, seed=1)]
    assert entries(runs)["peak memory"].endswith(
        "Here it is unknown in 1 of 2 runs by keras-tensorflow."
    )
    assert "Here" not in entries(runs[:2])["peak memory"]


def test_parity_is_told_by_the_tolerances_that_a_proof_has(make: Make) -> None:
    text = entries([make(0.7), make(0.7, backend="keras-tensorflow")])["parity"]
    for level in ("losses", "logits", "gradients"):
        assert f"{LEVELS[level]['fp64']:.0e}" in text
