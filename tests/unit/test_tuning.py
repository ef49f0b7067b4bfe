"""The learning rate is chosen on validation images, with the same budget everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.rows import rows_of
from bench.catalog.policies import TUNE_FACTORS
from bench.data import Packed, Split
from bench.report.notes import footnotes
from bench.report.tables.runs import standard_table
from bench.spec.result import Trial
from bench.spec.run import Recipe, RunSpec
from bench.storage.results import StoredRun
from bench.training.run import Run
from bench.training.tuning import EDGE_STEP, choose_rate, next_rate
from tests.unit.test_training_run import NumpyTrainer, network, only_phase, packed, spec


class Restorable(NumpyTrainer):
    """A trainer that counts how often it was restored."""

    restored = 0

    def restore(self, tensors: Any) -> None:
        self.restored += 1
        self.weights = {name: array.copy() for name, array in tensors.items()}


def _run(grid: tuple[float, ...], data: Packed | None = None) -> tuple[dict[str, Any], Restorable]:
    what = spec()
    recipe = what.recipe.model_copy(update={"learning_rate_grid": grid})
    what = what.model_copy(update={"recipe": recipe})
    trainer = Restorable(network())
    loop = Run(what, trainer.net, data or packed(), only_phase(what, trainer), lambda event: None)
    return loop(time.perf_counter()).fields, trainer


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ([(0.1, 0.5, 1.0), (0.2, 0.7, 1.0), (0.3, 0.6, 0.1)], 0.2),
        ([(0.1, 0.7, 1.0), (0.2, 0.7, 0.9)], 0.2),  # as accurate, lower loss
        ([(0.2, 0.7, 1.0), (0.1, 0.7, 1.0)], 0.1),  # a tie: the smaller rate
        ([(0.1, 0.2, 3.0), (0.2, None, None)], 0.1),
        ([(0.2, None, None), (0.1, None, None)], 0.1),
        ([(0.1, 0.7, None), (0.2, 0.7, 5.0)], 0.2),
    ],
)
def test_the_best_on_validation_is_chosen(
    trials: list[tuple[float, float | None, float | None]], chosen: float
) -> None:
    assert choose_rate([
        Trial(learning_rate=r, val_top1=a, val_loss=loss) for r, a, loss in trials
    ]) == chosen  # fmt: skip


GRID = (0.3, 1.0, 3.0)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({0.3: 0.5, 1.0: 0.7, 3.0: 0.6}, None),  # inside
        ({0.3: 0.5, 1.0: 0.6, 3.0: 0.7}, 9.0),
        ({0.3: 0.5, 1.0: 0.6, 3.0: 0.7, 9.0: 0.8}, 27.0),
        ({0.3: 0.5, 1.0: 0.6, 3.0: 0.7, 9.0: 0.8, 27.0: 0.9}, None),  # at most two further ones
        ({0.3: 0.5, 1.0: 0.6, 3.0: 0.7, 9.0: 0.6}, None),
        ({0.3: 0.7, 1.0: 0.6, 3.0: 0.5}, 0.1),
        ({0.3: 0.7, 1.0: 0.6, 3.0: 0.5, 0.1: 0.8}, 0.1 / 3),
        ({0.3: 0.7, 1.0: 0.6, 3.0: 0.5, 0.1: 0.8, 0.1 / 3: 0.9}, None),
        ({0.3: None, 1.0: None, 3.0: None}, 0.1),  # all diverged
    ],
)
def test_the_search_goes_on_beyond_the_edge_of_the_grid(
    accuracies: dict[float, float | None], expected: float | None
) -> None:
    trials = [Trial(learning_rate=rate, val_top1=top1) for rate, top1 in accuracies.items()]
    found = next_rate(trials, GRID)
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_single_rate_is_no_grid() -> None:
    assert next_rate([Trial(learning_rate=0.1, val_top1=0.9)], (0.1,)) is None


def test_a_run_tries_further_rates_until_the_best_is_inside() -> None:
    """At the rates of this grid the network hardly learns, so that the best one is the highest."""
    grid = (1e-5, 1e-4)
    fields, trainer = _run(grid)
    rates = [trial.learning_rate for trial in fields["tuning"]]
    beyond = [1e-4 * EDGE_STEP, 1e-4 * EDGE_STEP**2]
    assert rates == [*grid, *map(pytest.approx, beyond[: len(rates) - 2])]
    assert len(rates) > 2
    assert trainer.restored == len(rates) + 1


def test_the_fit_is_that_of_the_chosen_rate_alone() -> None:
    grid = (1e-4, 0.1, 0.3)
    fields, trainer = _run(grid)
    assert [trial.learning_rate for trial in fields["tuning"]][:3] == list(grid)
    assert trainer.restored == len(fields["tuning"]) + 1, "before each trial, and before the run"
    chosen = fields["learning_rate"]
    assert chosen == choose_rate(fields["tuning"])
    assert chosen != 1e-4, "at that rate the network learns nothing"
    plain = spec().recipe.model_copy(update={"learning_rate": chosen})
    alone = Restorable(network())
    what = spec().model_copy(update={"recipe": plain})
    first = only_phase(what, alone)
    expected = Run(what, alone.net, packed(), first, lambda event: None)(0.0).fields
    for field in ("train_loss_by_epoch", "val_top1_by_epoch", "test_top1", "test_loss",
                  "batches_sha256", "initial_state_sha256", "frozen_state_sha256"):  # fmt: skip
        assert fields[field] == expected[field], field
    trial = next(t for t in fields["tuning"] if t.learning_rate == chosen)
    assert trial.val_top1 == fields["val_top1_by_epoch"][-1]
    assert fields["tune_s"] > 0


def test_the_test_images_have_no_say() -> None:
    """The test images are used once, after the choice."""
    data = packed()
    wrong = Split(data.test.images, (data.test.labels + 1) % 3)
    other = Packed(data.classes, data.train, data.val, wrong, Path("nowhere"))
    fields, trainer = _run((0.03, 0.3))
    spoiled, _ = _run((0.03, 0.3), other)
    assert spoiled["tuning"] == fields["tuning"]
    assert spoiled["learning_rate"] == fields["learning_rate"]
    trials = len(fields["tuning"])
    assert trainer.inferred == trials * 9 + 3 * 9 + 12


def test_a_rate_that_diverges_is_not_chosen() -> None:
    with np.errstate(all="ignore"):
        fields, _ = _run((0.1, 1e308))
    first, second, *_ = fields["tuning"]
    assert first.val_top1 is not None
    assert (second.val_top1, second.val_loss) == (None, None)
    assert fields["learning_rate"] <= 0.1


def test_where_nothing_is_tuned_the_spec_is_as_it_was(make_spec: Callable[..., RunSpec]) -> None:
    recipe = make_spec().recipe.model_dump(mode="json")
    assert {"learning_rate_grid", "views", "prefix_cache"}.isdisjoint(recipe)
    tuned = make_spec(recipe={"learning_rate_grid": [0.1, 0.2]})
    assert tuned.run_id != make_spec().run_id
    assert Recipe.model_validate(tuned.recipe.model_dump(mode="json")) == tuned.recipe


def test_tables_say_that_rates_were_chosen(make_run: Callable[..., StoredRun]) -> None:
    grid = {"learning_rate_grid": [0.1, 0.2]}
    chosen = {"learning_rate": 0.2, "tuning": [{"learning_rate": 0.2, "val_top1": 0.5}]}
    rows = rows_of([make_run(recipe=grid, result=chosen), make_run()])
    assert sorted(row["tune"] or "" for row in rows) == ["", "lr"]
    assert "tuned" in standard_table(rows).columns
    assert any(note.startswith("tuned: in 1 of 2 runs") for note in footnotes(rows))


def test_the_grid_is_around_the_policys_own_rate() -> None:
    assert 1.0 in TUNE_FACTORS
    assert min(TUNE_FACTORS) < 1.0 < max(TUNE_FACTORS)
