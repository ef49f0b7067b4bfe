"""Tests of perturbations, the fall of the loss and the search for a learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pytest

from bench.catalog.policies import POLICIES
from bench.network.blueprint import Array, Network
from bench.parity.exchange import write
from bench.parity.inputs import Perturbed
from bench.parity.model import PARTS
from bench.parity.probe import (
    ATTEMPT,
    FIRST_BATCH_AGAIN,
    Probe,
    Record,
    _find_learning_rate,
    loss_fall,
    losses_are_quiet,
)
from bench.parity.tolerances import FIRST_RATE, LEARNING_RATES, PERTURBATIONS, STEPS
from bench.spec.plain import plain_recipe
from bench.spec.run import OptimizerName
from bench.workers.tasks import ProbeItem

QUIET, CHAOTIC = 1e-15, 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_perturbation_moves_every_number_by_one_last_bit(dtype: Any) -> None:
    random = np.random.default_rng(0)
    tensors = {
        "kernel": random.normal(size=(16, 16)).astype(dtype),
        "zeros": np.zeros(50, dtype),
        "large": np.full(50, 1e6, dtype),
    }
    moved = Perturbed(tensors, 0)
    assert moved.keys() == tensors.keys()
    assert len(moved) == 3
    for name, old in tensors.items():
        up = np.nextafter(old, dtype(np.inf))
        down = np.nextafter(old, dtype(-np.inf))
        went_up = moved[name] == up
        assert moved[name].dtype == dtype
        assert (went_up | (moved[name] == down)).all()
        assert went_up.any()
        assert not went_up.all()


def test_perturbations_are_seeded_and_differ_by_their_number() -> None:
    tensors = {"a": np.ones(100), "b": np.ones(100)}
    first, again, other = Perturbed(tensors, 0), Perturbed(tensors, 0), Perturbed(tensors, 1)
    assert all(np.array_equal(first[n], again[n]) for n in tensors)
    assert not all(np.array_equal(first[n], other[n]) for n in tensors)
    assert not np.array_equal(first["a"], first["b"])
    backwards = Perturbed(dict(reversed(tensors.items())), 0)
    assert all(np.array_equal(first[n], backwards[n]) for n in tensors)
    assert (tensors["a"] == 1.0).all()


def named(losses: Sequence[float]) -> dict[str, Array]:
    """Name the losses of the steps, and last that of the first batch again."""
    *steps, again = losses
    each = {f"step {number}": np.array([loss]) for number, loss in enumerate(steps, start=1)}
    return {**each, FIRST_BATCH_AGAIN: np.array([again])}


def fall_of(losses: Sequence[float], folder: Path) -> float:
    write(folder, "losses", named(losses))
    return loss_fall(folder)


@pytest.mark.parametrize(
    ("losses", "fall"),
    [
        ([2.0, 5.0, 1.0], 0.5),
        ([2.0, 2.5], -0.25),
        ([2.0, 1.0, 2.0], 0.0),  # the masks of step 2 lower its loss, training did not
    ],
)
def test_the_fall_is_of_the_first_batch_again(
    losses: list[float], fall: float, tmp_path: Path
) -> None:
    assert fall_of(losses, tmp_path) == fall


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_the_fall_of_a_lost_loss_is_not_finite(last: float, tmp_path: Path) -> None:
    assert not math.isfinite(fall_of([2.0, last], tmp_path))


def test_floors_of_steps_count_below_a_tenth_of_the_tolerance() -> None:
    assert losses_are_quiet({"losses": 9e-12, "state_after_one_step": 9e-11}, "fp64")
    assert not losses_are_quiet({"losses": 1.1e-11}, "fp64")
    assert not losses_are_quiet({"losses": math.inf}, "fp64")
    assert losses_are_quiet({"losses": 9e-5}, "fp32")
    assert losses_are_quiet({"gradients": 1.0}, "fp64")  # not a loss


class Trainer:
    """A trainer that knows whether perturbed tensors were restored."""

    def __init__(self, start: dict[str, Array]) -> None:
        self.start = start
        self.restore(start)

    def restore(self, tensors: Mapping[str, Array]) -> None:
        self.is_perturbed = any(not np.array_equal(t, self.start[n]) for n, t in tensors.items())


Behaviour = Callable[[float], tuple[float, float]]
"""Learning rate → fall of the loss, relative change of the losses under a perturbation."""


class Steps:
    """A probe whose steps follow a given behaviour."""

    def __init__(self, network: Network, optimizer: OptimizerName, behaviour: Behaviour) -> None:
        recipe = plain_recipe("original").model_copy(
            update={
                "optimizer": optimizer,
                "learning_rate": FIRST_RATE[optimizer],
                "precision": "fp64",
            }
        )
        self.item = ProbeItem(
            key="x",
            blueprint="x",
            policy=POLICIES["retrain_all"],
            recipe=recipe,
            parts=PARTS,
            perturbations=PERTURBATIONS,
        )
        self.blueprint = network.blueprint
        self.start = dict(network.tensors)
        self.trainer = Trainer(self.start)
        self.behaviour = behaviour
        self.tried: list[float] = []
        self.perturbations = 0

    def steps(self, rate: float, take: Record) -> None:
        if not self.tried or self.tried[-1] != rate:
            self.tried.append(rate)
        fall, floor = self.behaviour(rate)
        losses = 2.0 * np.linspace(1.0, 1.0 - fall, STEPS + 1)
        self.perturbations += self.trainer.is_perturbed
        take("losses", named(list(losses * (1.0 + floor * self.trainer.is_perturbed))))

    def measure(self, parts: tuple[str, ...], rate: float, take: Record) -> None:
        assert parts == ("steps",)
        self.steps(rate, take)

    def search(self) -> Any:
        """Search, and check that only the files of the rate that was found are left."""
        with TemporaryDirectory() as folder:
            out = Path(folder)
            found = _find_learning_rate(cast(Probe, self), out)
            found.keep(out)
            assert [path.name for path in out.iterdir()] == ["losses.npz"]
            fall, _ = self.behaviour(found.rate)
            assert loss_fall(out) == pytest.approx(fall, nan_ok=True)
            assert found.folder.name == f"{ATTEMPT}{found.rate:g}"
        return found


OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adamw")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_first_rate_that_does_is_kept(network: Network, optimizer: OptimizerName) -> None:
    steps = Steps(network, optimizer, lambda rate: (0.1, QUIET))
    found = steps.search()
    assert steps.tried == [found.rate] == [FIRST_RATE[optimizer]]
    assert steps.perturbations == PERTURBATIONS
    assert 0.0 < found.floors["losses"] < 2 * QUIET


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_chaos_sends_the_search_down(network: Network, optimizer: OptimizerName) -> None:
    first = FIRST_RATE[optimizer]
    steps = Steps(network, optimizer, lambda rate: (0.4, CHAOTIC if rate > first / 5 else QUIET))
    found = steps.search()
    assert found.rate == max(r for r in LEARNING_RATES[optimizer] if r <= first / 5)
    assert steps.tried == sorted(steps.tried, reverse=True)
    # At a chaotic rate one perturbation is enough.
    assert steps.perturbations == len(steps.tried) - 1 + PERTURBATIONS


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rest_sends_the_search_up(network: Network, optimizer: OptimizerName) -> None:
    first = FIRST_RATE[optimizer]
    steps = Steps(network, optimizer, lambda rate: (0.1 if rate > first * 20 else 0.01, QUIET))
    found = steps.search()
    assert found.rate == min(r for r in LEARNING_RATES[optimizer] if r > first * 20)
    assert steps.tried == sorted(steps.tried)
    assert steps.perturbations == PERTURBATIONS  # steps that change nothing need no noise floor


@pytest.mark.parametrize("fall", [math.nan, -3.0])
def test_a_lost_loss_sends_the_search_down(network: Network, fall: float) -> None:
    steps = Steps(network, "sgd", lambda rate: (fall if rate > 1e-4 else 0.1, QUIET))
    assert steps.search().rate == 1e-4


@pytest.mark.parametrize("fall", [0.3, 0.0])
def test_where_no_rate_does_the_first_is_measured(network: Network, fall: float) -> None:
    steps = Steps(network, "sgd", lambda rate: (fall, CHAOTIC))
    found = steps.search()
    assert found.rate == FIRST_RATE["sgd"]
    assert found.floors["losses"] == pytest.approx(CHAOTIC)
    assert not found.conclusive
    assert not steps.trainer.is_perturbed


def test_between_rest_and_chaos_the_search_ends(network: Network) -> None:
    """If no rate is both learning and quiet, the search does not try all of them."""
    steps = Steps(network, "sgd", lambda rate: (0.2, CHAOTIC) if rate > 1e-4 else (0.0, QUIET))
    assert steps.search().rate == FIRST_RATE["sgd"]
    assert min(steps.tried) == 1e-4
