"""The self-check of a device notices a synchronise that does not wait and unmeasured memory."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.network.blueprint import Network
from bench.speed.selfcheck import MOST_FLOP_PER_S, STEPS, judge, measure, summary
from bench.workers.tasks import SelfCheckAnswer

GOOD = SelfCheckAnswer(
    queued_s=0.01,
    synchronised_s=0.1,
    fetched_s=0.1,
    flop_per_s=1e13,
    peak_flop_per_s=4e13,
    peak_device_bytes=10**9,
    parameter_bytes=10**6,
    fp32_error=1e-6,
    stretch_s=0.1,
    events_s=0.1,
    recognises_full_memory=True,
)


def test_a_device_that_can_be_believed() -> None:
    assert judge(GOOD) == []
    assert "TFLOP/s" in summary(GOOD)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"synchronised_s": 0.01}, "does not wait"),
        ({"flop_per_s": MOST_FLOP_PER_S * 1.1, "peak_flop_per_s": 2e15}, "impossible"),
        ({"peak_flop_per_s": MOST_FLOP_PER_S * 2}, "impossible"),
        ({"flop_per_s": 4.1 * GOOD.peak_flop_per_s}, "implausible"),
        ({"peak_device_bytes": 10}, "not measured"),
        ({"fp32_error": 3e-4}, "not IEEE float32"),
        ({"fp32_error": float("nan")}, "not IEEE float32"),
        ({"events_s": 0.05}, "the GPU's own clock"),
        ({"recognises_full_memory": False}, "would be a crash"),
    ],
)
def test_what_cannot_be_believed(change: dict[str, Any], word: str) -> None:
    (problem,) = judge(GOOD.model_copy(update=change))
    assert word in problem


class Device:
    """A device that queues steps of 2 ms; ``synchronise`` waits for them, unless it is broken. Its
    network has the numbers that it was built with."""

    waits_for_steps = False

    def __init__(self, waits: bool, rounds_to: Any = np.float64) -> None:
        self.waits, self.rounds_to = waits, rounds_to
        self.until = 0.0

    def build(self, network: Network, *_: Any) -> Device:
        self.network = network
        return self

    def to_device(self, batch: Any) -> Any:
        return batch

    def train_step(self, prepared: Any, learning_rate: float) -> float:
        self.until = max(self.until, time.perf_counter()) + 0.002
        return 0.0

    def losses(self, handles: list[float]) -> list[float]:
        time.sleep(max(self.until - time.perf_counter(), 0.0))
        return handles

    def synchronise(self) -> None:
        if self.waits:
            self.losses([])

    def events(self) -> None:
        return None

    def tensors(self) -> dict[str, Any]:
        return self.network.tensors

    def infer(self, images: Any) -> Any:
        """Convolve with torch, in float64 or with factors rounded to 11 bits, as TF32 does."""
        rule = self.network.blueprint.preprocessing
        x = torch.from_numpy(rule.apply(images, np.float64)).permute(0, 3, 1, 2)
        for name in ("conv0.weight", "conv1.weight", "conv2.weight", "conv3.weight"):
            weight = torch.from_numpy(self.network.tensors[name]).double()
            x, weight = self._rounded(x), self._rounded(weight)
            x = F.relu(F.conv2d(x, weight, padding=1))
        return x.mean((2, 3))

    def _rounded(self, x: Any) -> Any:
        return torch.from_numpy(x.numpy().astype(self.rounds_to).astype(np.float64))

    def logits(self, handles: list[Any]) -> Any:
        return handles[0].numpy()

    def peak_device_bytes(self) -> int:
        return 2**30

    def matrix_product(self, side: int) -> Any:
        if side > 2**16:
            raise MemoryError
        return lambda: self.train_step(None, 0.0)

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError)


@pytest.mark.parametrize(("rounds_to", "problems"), [(np.float64, 0), (np.float32, 0),
                                                      (np.float16, 1)])  # fmt: skip
def test_products_in_tf32_are_noticed(rounds_to: Any, problems: int) -> None:
    """TF32 and float16 both have 11 significant bits."""
    device = Device(True, rounds_to)
    check = measure(device, "cuda:0", px=16, width=4)  # type: ignore[arg-type]
    assert len(judge(check)) == problems
    assert check.recognises_full_memory


def test_it_measures_the_device_s_own_time() -> None:
    check = measure(Device(waits=True), "cuda:0", px=16, width=4)  # type: ignore[arg-type]
    assert check.synchronised_s >= STEPS * 0.002 * 0.9
    assert check.queued_s < check.synchronised_s
    assert judge(check) == []
    # The first convolution has two passes, the other three have three: 2 FLOP a multiply-add.
    pixels = 16 * 16 * 9 * 4
    flop = 2 * pixels * (2 * 3 + 3 * 3 * 4)
    assert check.flop_per_s * check.synchronised_s == pytest.approx(STEPS * 32 * flop)
    assert np.isfinite(check.flop_per_s)


def test_it_notices_a_synchronise_that_does_nothing() -> None:
    check = measure(Device(waits=False), "cuda:0", px=16, width=4)  # type: ignore[arg-type]
    assert any("does not wait" in problem for problem in judge(check))
