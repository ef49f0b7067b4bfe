"""Tests of ``prove``: from the workers' files to verdicts, also if a worker dies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import Unavailable, UserError
from bench.network.blueprint import Network
from bench.network.weights import Weights
from bench.parity import plan
from bench.parity import run as module
from bench.parity.exchange import RecordedValues, write, write_facts
from bench.parity.model import PairProof
from bench.parity.plan import Question, Subject, subject_of
from bench.parity.run import FLOORS_FROM, prove, worker_variables
from bench.parity.tolerances import LEVELS
from bench.workers.events import Probed
from bench.workers.process import Finished, Interpreters
from bench.workers.tasks import ProveAnswer, ProveTask
from tests.unit.pairs import QUIET, level_values

BACKENDS = ("torch", "keras-tensorflow", "keras-jax")
Change = Callable[[dict[str, RecordedValues]], None]


@dataclass
class Workers:
    """Replaces ``run_task``: all backends record the same values, apart from ``changes``."""

    values: dict[str, RecordedValues]
    changes: dict[str, Change] = field(default_factory=dict)
    ends: dict[str, Finished[ProveAnswer]] = field(default_factory=dict)
    fall: float = 0.3
    tasks: list[tuple[str, ProveTask]] = field(default_factory=list)

    def run_task(
        self, backend: str, task: ProveTask, log: Path, _: Any, on_event: Any, **__: Any
    ) -> Finished[ProveAnswer]:
        self.tasks.append((backend, task))
        if backend in self.ends:
            return self.ends[backend]
        for item in task.items:
            values = {level: dict(arrays) for level, arrays in self.values.items()}
            self.changes.get(backend, lambda _: None)(values)
            out = Path(task.out) / item.key
            for level, arrays in values.items():
                write(out, level, arrays)
            floors = QUIET if task.floors else {}
            write_facts(out, {"floors": floors, "learning_rate": 1e-4, "loss_fall": self.fall})
            on_event(Probed(key=item.key))
        rates = {item.key: 1e-4 for item in task.items}
        return Finished(ProveAnswer(learning_rates=rates))


class Silent:
    """A watcher that displays nothing."""

    def measuring(self, subject: Subject, backend: str) -> None:
        pass

    def measured(self) -> None:
        pass


@pytest.fixture
def workers(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    folder = tmp_path / "blueprint"
    folder.mkdir()
    network.save(folder)

    def absent(*_: Any, **__: Any) -> Weights:
        raise Unavailable("not here")

    made = Workers(level_values(network))
    monkeypatch.setattr(plan, "blueprint_folder", lambda *_, **__: folder)
    monkeypatch.setattr(plan, "pretrained_weights", absent)
    monkeypatch.setattr(module, "run_task", made.run_task)
    return made


@pytest.fixture
def proved(workers: Workers, tmp_path: Path) -> Callable[[], dict[str, PairProof]]:
    """Return a function that proves a question: compared backend → its pair."""

    def proved() -> dict[str, PairProof]:
        question = Question(
            backbones=["squeezenet1_1"],
            policies=["retrain_all"],
            optimizers=["sgd"],
            precisions=["fp64"],
            backends=BACKENDS,
            head="original",
            px=None,
            device="cpu",
            interpreters=Interpreters({}),
            cache=tmp_path / "cache",
        )
        pairs = prove(subject_of("squeezenet1_1", "fp64", question), question, Silent())
        assert list((tmp_path / "cache" / "exchange").iterdir()) == []
        return {pair.backends[1]: pair for pair in pairs}

    return proved


def test_alike_passes_with_every_level(workers: Workers, proved: Any) -> None:
    pairs = proved()
    assert list(pairs) == ["keras-tensorflow", "keras-jax"]
    for pair in pairs.values():
        assert pair.passed
        assert pair.reason is None
        assert pair.backends[0] == "torch"
        assert [level.name for level in pair.levels] == list(LEVELS)
        assert pair.first_difference is None
        assert (pair.loss_fall, pair.learning_rate) == (0.3, 1e-4)
    # One backend finds the rate and the floors; the other backends use that rate.
    asked = {backend: (task.floors, task.items[0].learning_rate) for backend, task in
             workers.tasks}  # fmt: skip
    assert asked[FLOORS_FROM] == (True, None)
    assert asked["keras-tensorflow"] == asked["keras-jax"] == (False, 1e-4)


@pytest.mark.parametrize("defective", ["keras-tensorflow", "keras-jax"])
def test_who_differs_fails_alone_and_the_operation_is_named(
    workers: Workers, proved: Any, defective: str
) -> None:
    def change(values: dict[str, RecordedValues]) -> None:
        values["activations"] = {
            **values["activations"], "sum": values["activations"]["sum"] + 1e-6
        }  # fmt: skip
        values["losses"] = {"losses": values["losses"]["losses"] * (1 + 1e-6)}

    workers.changes[defective] = change
    pairs = proved()
    assert {backend: pair.passed for backend, pair in pairs.items()} == {
        backend: backend != defective for backend in BACKENDS[1:]
    }
    bad = pairs[defective]
    assert {level.name for level in bad.levels if not level.passed} == {"activations", "losses"}
    assert bad.first_difference is not None
    assert (bad.first_difference.operation, bad.first_difference.module_path) == (
        "sum", "layer1.0",
    )  # fmt: skip
    assert bad.reason is not None
    assert bad.reason.startswith("differs: activations")


def test_a_reference_that_differs_fails_with_all(workers: Workers, proved: Any) -> None:
    workers.changes["torch"] = lambda values: values.update(
        logits={"logits": values["logits"]["logits"] * 1.01}
    )
    assert not any(pair.passed for pair in proved().values())


def test_a_worker_that_died_shows_nothing_of_its_own(workers: Workers, proved: Any) -> None:
    workers.ends["keras-jax"] = Finished(None, "crashed", "SIGSEGV", "by signal SIGSEGV")
    pairs = proved()
    assert pairs["keras-tensorflow"].passed
    assert not pairs["keras-jax"].passed
    assert pairs["keras-jax"].levels == ()
    assert pairs["keras-jax"].reason == "keras-jax crashed: by signal SIGSEGV"


def test_without_floors_nothing_is_shown(workers: Workers, proved: Any) -> None:
    workers.ends[FLOORS_FROM] = Finished(None, "oom", "SIGKILL", "out of memory")
    pairs = proved()
    assert {pair.reason for pair in pairs.values()} == {f"{FLOORS_FROM} oom: out of memory"}
    assert [backend for backend, _ in workers.tasks] == [FLOORS_FROM]


@pytest.mark.parametrize(("fall", "kept"), [(0.01, 0.01), (math.nan, None), (-0.5, -0.5)])
def test_steps_that_move_nothing_show_nothing(
    workers: Workers, proved: Any, fall: float, kept: float | None
) -> None:
    workers.fall = fall
    for pair in proved().values():
        assert not pair.passed
        assert pair.loss_fall == kept
        assert pair.reason is not None
        assert pair.reason.startswith("inconclusive: the training loss fell by")


def test_a_network_that_ignores_its_images_is_inconclusive(workers: Workers, proved: Any) -> None:
    workers.values["logits"] = {"logits": np.tile(np.arange(10.0), (4, 1))}
    assert {pair.reason for pair in proved().values()} == {
        "inconclusive: the network gives the same logits for every image"
    }


@pytest.mark.parametrize(
    ("status", "error"), [("bad_input", UserError), ("unavailable", Unavailable)]
)
def test_a_wrong_question_is_handed_on(
    workers: Workers, proved: Any, status: str, error: type[Exception]
) -> None:
    workers.ends["keras-tensorflow"] = Finished(None, status, "x", "cannot")
    with pytest.raises(error, match="cannot"):
        proved()


def test_threads_are_set_for_every_framework() -> None:
    assert "OMP_NUM_THREADS" not in worker_variables(None)
    variables = worker_variables(3)
    assert {variables[name] for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")} == {
        "3"
    }
