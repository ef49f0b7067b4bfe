"""Runs that compute the frozen part once equal runs that compute it in every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.test_command import command, stored

SUITE = """
name = "prefix"
backends = [{backends}]
[[grid]]
dataset = "photos"
train_images = 32
val_images = 18
test_images = 36
backbones = [{backbones}]
policies = ["freeze_all", "fine_tune_last"]
px = 32
epochs = 4
batch_size = 16
learning_rate = {rate}
augmentation = "crop_flip"
views = 2
precision = "{precision}"
"""
BOTH = {"backends": '"torch", "keras-tensorflow"', "backbones": '"efficientnet_lite0"'}
Results = dict[tuple[str, str, str], dict[str, Any]]


def _run(folder: Path, cache: Path, name: str, *more: str, **suite: str) -> Results:
    """Return results, with the test logits as 'logits', by backend, backbone and policy."""
    path = folder / f"{name}.toml"
    path.write_text(SUITE.format(**suite))
    out = folder / name
    command("run", "--suite", str(path), "--out", str(out), "--fresh", *more, cache=cache)
    return {
        (spec["backend"], spec["backbone"], spec["policy"]["name"]): result
        for spec, result, _ in stored(out)
    }


def _same_experiment(one: dict[str, Any], other: dict[str, Any]) -> None:
    for field in ("batches_sha256", "initial_state_sha256", "frozen_state_sha256",
                  "blueprint_sha256", "trainable_parameters", "frozen_parameters"):  # fmt: skip
        assert one[field] == other[field], field


@pytest.mark.slow
def test_in_float64_losses_are_those_of_whole_steps(tmp_path: Path, shared_cache: Path) -> None:
    """Keras's other engines are compared by the level ``resumed`` in tests/parity."""
    asked = {**BOTH, "precision": "fp64", "rate": "0.01"}
    once = _run(tmp_path, shared_cache, "once", **asked)
    whole = _run(tmp_path, shared_cache, "whole", "--prefix-cache", "off", **asked)
    again = _run(tmp_path, shared_cache, "again", "--policies", "freeze_all", **asked)
    assert once.keys() == whole.keys()
    assert len(once) == 4
    for key, result in once.items():
        losses = result["train_loss_by_epoch"]
        assert losses[-1] < losses[0], "a network that does not move proves nothing"
        assert losses == pytest.approx(whole[key]["train_loss_by_epoch"], rel=1e-10)
        assert result["val_top1_by_epoch"] == whole[key]["val_top1_by_epoch"]
        assert result["test_loss"] == pytest.approx(whole[key]["test_loss"], rel=1e-9)
        _same_experiment(result, whole[key])
        assert (result["prefix_values"], whole[key]["prefix_values"]) == ("computed", None)
        assert result["train_images_per_s"] is result["compute_images_per_s"] is None
        rate = result["effective_images_per_s"]
        assert any("too short" in note for note in result["notes"]) == (rate is None)
        assert rate is None or rate > 0
        assert whole[key]["effective_images_per_s"] is None
        assert np.isfinite(result["logits"]).all()
    assert len(again) == 2
    for key, result in again.items():
        assert result["prefix_values"] == "reused"
        assert result["prefix_s"] == pytest.approx(once[key]["prefix_s"], abs=0.5)
        losses = once[key]["train_loss_by_epoch"]
        assert result["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-12)


def test_in_float32_they_agree(tmp_path: Path, shared_cache: Path) -> None:
    asked = {**BOTH, "precision": "fp32", "rate": "0.001"}
    once = _run(tmp_path, shared_cache, "once", **asked)
    whole = _run(tmp_path, shared_cache, "whole", "--prefix-cache", "off", **asked)
    assert len(once) == 4
    for key, result in once.items():
        losses = whole[key]["train_loss_by_epoch"]
        assert losses[-1] < 0.98 * losses[0], "a network that does not move proves nothing"
        assert result["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-3)
        assert result["test_top1"] == pytest.approx(whole[key]["test_top1"], abs=3 / 36)
        _same_experiment(result, whole[key])
