"""The speed suite's definitions, and what is timed of a trainer."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.catalog.backbones import BACKBONES
from bench.catalog.policies import POLICIES
from bench.network.blueprint import Network
from bench.network.freezing import plan_training
from bench.spec.plain import plain_recipe
from bench.speed.cases import MEASURES, SMALLEST, USUAL_CPU, USUAL_GPU, cases, suite_size
from bench.speed.timing import time_training
from bench.training.adapter import Batch
from bench.training.clocks import QUEUED_STEPS, WARMUP_STEPS
from bench.workers.tasks import SpeedTask


def test_there_is_a_case_for_each_combination_backends_side_by_side() -> None:
    found = cases(USUAL_GPU, ["torch", "keras-tensorflow"])
    assert len({str(case) for case in found}) == len(found) == 3 * 3 * 2 * 2 * 2
    assert [case.backend for case in found[:2]] == ["torch", "keras-tensorflow"]
    assert found[0].policy == found[1].policy


def test_a_backend_that_always_compiles_has_no_plain_case() -> None:
    found = cases(SMALLEST, ["torch", "keras-jax"], ["plain", "compiled"])
    rungs = {(case.backend, case.compile) for case in found}
    assert rungs == {("torch", "plain"), ("torch", "compiled"), ("keras-jax", "compiled")}
    assert len(found) == len(SMALLEST.policies) * 3


def test_sizes_name_what_there_is() -> None:
    for size in (SMALLEST, USUAL_CPU, USUAL_GPU):
        assert set(size.backbones) <= set(BACKBONES)
        assert set(size.policies) <= set(POLICIES)
    assert suite_size("smallest", "cuda:0") == SMALLEST
    assert suite_size("usual", "cpu") == USUAL_CPU
    assert suite_size("usual", "cuda:0") == USUAL_GPU
    assert (USUAL_GPU.px, USUAL_GPU.precisions) == (224, ("tf32", "bf16"))
    assert USUAL_GPU.batch_sizes == (64, 256)
    assert USUAL_GPU.launches > 1, "kernels are chosen once a worker"


class _Trainer:
    """A device that queues steps of 10 ms (the first 100 ms) and inferences of 20 ms."""

    waits_for_steps = False

    def __init__(self) -> None:
        self.trained: list[int] = []
        self.inferred = 0
        self.queued_s = 0.0
        self.peak = 70
        """Bytes; the search for kernels in the first step needs ten times as much."""

    def to_device(self, batch: Batch) -> Batch:
        return batch

    def train_step(self, prepared: Batch, learning_rate: float) -> int:
        self.queued_s += 0.01 if self.trained else 0.1
        self.trained.append(len(prepared.labels))
        return len(self.trained)

    def step_in_phases(self, prepared: Batch, learning_rate: float, after: Any) -> int:
        done = self.train_step(prepared, learning_rate)
        after("forward")
        self.queued_s += 0.005
        after("backward")
        return done

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def events(self) -> None:
        return None

    def reset_peak(self) -> None:
        self.peak = 7

    def reserved_device_bytes(self) -> int:
        return 9

    def losses(self, handles: list[int]) -> list[float]:
        self.synchronise()
        return [0.0] * len(handles)

    def infer(self, images: Any) -> Any:
        self.inferred += 1
        self.queued_s += 0.02
        return images

    def logits(self, handles: list[Any]) -> Any:
        self.synchronise()
        return handles

    def synchronise(self) -> None:
        time.sleep(self.queued_s)
        self.queued_s = 0.0

    def knobs(self) -> dict[str, Any]:
        return {"toy": True}

    def peak_device_bytes(self) -> int:
        return self.peak


def test_durations_are_of_work_that_is_done(network: Network) -> None:
    trainer = _Trainer()

    class Adapter:
        def build(self, *_: Any) -> _Trainer:
            return trainer

    policy = POLICIES["fine_tune_all"]
    task = SpeedTask(
        blueprint="key", policy=policy, recipe=plain_recipe("original", 8, 4), classes=10,
        device="cpu", rounds=5, epochs=2, epoch_steps=3, stretches=3,
    )  # fmt: skip
    plan = plan_training(network.blueprint, policy)
    found = time_training(Adapter(), network, plan, task)  # type: ignore[arg-type]
    assert [len(found.seconds(m)) for m in MEASURES] == [3, 2, 3]
    assert len(found.waited_step_s) == 5
    assert min(found.waited_step_s) >= 0.01
    assert min(found.seconds("train_step")) >= 0.01, "it waits for the device"
    assert min(found.seconds("train_epoch")) >= 0.03
    assert min(found.seconds("inference")) >= 0.02
    assert found.compile_s > 0.05
    assert found.images == {"train_step": 4, "train_epoch": 12, "inference": 4}
    waited, stretches, phases, epochs = 5, 3 * 5, 5, 2 * 3
    steps = 1 + WARMUP_STEPS + waited + QUEUED_STEPS + stretches + phases + epochs
    assert trainer.trained == [4] * steps
    assert found.queue_s is not None
    assert found.queue_s < 0.005, "queueing does not wait"
    assert found.phases_s["forward"] >= 0.01
    assert found.phases_s["backward"] >= 0.005
    assert (found.warmup_device_bytes, found.reserved_device_bytes) == (70, 9)
    assert trainer.inferred == 1 + 3 * 5, "the first inference warms up"
    assert (found.peak_device_bytes, found.knobs) == (7, {"toy": True})
    assert np.isfinite(found.setup_s)
