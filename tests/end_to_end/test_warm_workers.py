"""A run in a reused worker equals the same run in a new worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.test_command import command, stored

SUITE = """
name = "warm"
backends = [{backends}]
[[grid]]
dataset = "photos"
train_images = 36
val_images = 18
test_images = 36
backbones = [{backbones}]
policies = ["fine_tune_all", "freeze_all"]
px = 32
epochs = 2
batch_size = 16
learning_rate = 0.01
augmentation = "crop_flip"
"""
Key = tuple[str, str, str, int]


def _run(folder: Path, cache: Path, out: str, *more: str) -> dict[Key, dict[str, Any]]:
    command("run", "--suite", str(folder / "warm.toml"), "--out", str(folder / out), *more,
            cache=cache)  # fmt: skip
    return {
        (spec["backend"], spec["backbone"], spec["policy"]["name"], spec["seed"]): {
            **result, "log": (run / "log.txt").read_text(),
        }
        for spec, result, run in stored(folder / out)
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "backbones"),
    [
        ("torch", ["squeezenet1_1", "efficientnet_lite0"]),
        ("keras-tensorflow", ["squeezenet1_1", "efficientnet_lite0"]),
        ("keras-jax", ["squeezenet1_1"]),
    ],
)
def test_what_ran_before_changes_nothing(
    tmp_path: Path, shared_cache: Path, backend: str, backbones: list[str]
) -> None:
    listed = ", ".join(f'"{name}"' for name in backbones)
    (tmp_path / "warm.toml").write_text(SUITE.format(backends=f'"{backend}"', backbones=listed))
    together = _run(tmp_path, shared_cache, "together")
    assert len(together) == 2 * len(backbones)
    cold = [key for key, result in together.items() if result["start_s"] is not None]
    assert len(cold) == 1, "one worker does them all"
    last = (backend, backbones[-1], "freeze_all", 0)
    assert together[last]["start_s"] is None
    alone = _run(
        tmp_path, shared_cache, "alone", "--backbones", backbones[-1], "--policies", "freeze_all"
    )
    (result,) = alone.values()
    assert result["start_s"] is not None
    for field in ("initial_state_sha256", "frozen_state_sha256", "batches_sha256", "knobs",
                  "test_top1", "val_top1_by_epoch", "trainable_parameters"):  # fmt: skip
        assert result[field] == together[last][field], field
    losses = result["train_loss_by_epoch"]
    assert together[last]["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-5)
    np.testing.assert_allclose(together[last]["logits"], result["logits"], rtol=1e-3, atol=1e-4)
    # Peak memory is the run's own, or unknown: earlier runs add at most a tenth.
    peak = together[last]["peak_host_bytes"]
    assert peak is None or 0 < peak < 1.2 * result["peak_host_bytes"]
    assert result["peak_host_bytes"] is not None
    assert "Traceback" not in together[last]["log"]
