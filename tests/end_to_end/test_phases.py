"""Policies in phases: the same in both frameworks, with and without prefix cache; as two runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.system import project_root
from tests.end_to_end.phases_by_hand import EPOCHS, HEAD_EPOCHS
from tests.end_to_end.test_command import command, rows, stored

GRID = """
[[grid]]
dataset = "photos"
train_images = 32
val_images = 18
test_images = 36
backbones = ["squeezenet1_1"]
px = 32
batch_size = 16
learning_rate = 0.01
precision = "fp64"
"""
PROBE, GRADUAL = "linear_probe_then_fine_tune", "gradual_unfreeze"
BACKENDS = ("torch", "keras-tensorflow")
WHOLE = "in every step"


@pytest.mark.slow
def test_both_frameworks_thaw_alike(tmp_path: Path, shared_cache: Path) -> None:
    alone = f'{GRID}epochs = {HEAD_EPOCHS}\npolicies = ["freeze_all"]\n'
    probing = f'{GRID}epochs = 4\npolicies = ["{PROBE}"]\n'
    gradual = f'{GRID}epochs = 3\npolicies = ["{GRADUAL}"]\n'
    suite, out = tmp_path / "thawed.toml", tmp_path / "out"
    suite.write_text(f'name = "thawed"\n{alone}{probing}{gradual}{probing}prefix_cache = "off"\n')
    command("run", "--suite", str(suite), "--out", str(out), cache=shared_cache)
    once: dict[tuple[str, str], dict[str, Any]] = {}
    for spec, result, _ in stored(out):
        policy = WHOLE if "prefix_cache" in spec["recipe"] else spec["policy"]["name"]
        once[spec["backend"], policy] = result
    for policy in (PROBE, GRADUAL):
        torch, keras = (once[backend, policy] for backend in BACKENDS)
        losses = torch["train_loss_by_epoch"]
        assert len(losses) == {PROBE: 4, GRADUAL: 3}[policy]
        assert losses[-1] < losses[0], "a network that does not move proves nothing"
        assert keras["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-10)
        assert keras["val_top1_by_epoch"] == torch["val_top1_by_epoch"]
        assert keras["test_loss"] == pytest.approx(torch["test_loss"], rel=1e-9)
        for field in ("batches_sha256", "initial_state_sha256", "frozen_state_sha256",
                      "blueprint_sha256", "trainable_parameters", "predicted_saving"):  # fmt: skip
            assert keras[field] == torch[field], field
        alike = ("boundary", "epochs", "trainable_parameters")
        assert [[p[name] for name in alike] for p in keras["phases"]] == [
            [p[name] for name in alike] for p in torch["phases"]
        ]
        assert torch["train_images_per_s"] is torch["compute_images_per_s"] is None
    thawed = [p["boundary"] for p in once["torch", GRADUAL]["phases"]]
    assert (len(thawed), thawed[0], thawed[-1]) == (3, "head", "all")
    for backend in BACKENDS:
        probe, whole = once[backend, PROBE], once[backend, WHOLE]
        # The head's phase equals a run of freeze_all, and reuses its cached values.
        first = once[backend, "freeze_all"]["train_loss_by_epoch"]
        assert probe["train_loss_by_epoch"][:HEAD_EPOCHS] == pytest.approx(first, rel=1e-12)
        assert [p["prefix_values"] for p in probe["phases"]] == ["reused", None]
        assert [p["prefix_values"] for p in whole["phases"]] == [None, None]
        losses = whole["train_loss_by_epoch"]
        assert probe["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-10)
        assert probe["batches_sha256"] == whole["batches_sha256"]
        assert (
            probe["phases"][0]["frozen_state_sha256"]
            == (once[backend, "freeze_all"]["frozen_state_sha256"])
        )
    found = {row["policy"]: row for row in rows(out, shared_cache)}
    assert [p["epochs"] for p in found[PROBE]["phases"]] == [2, 2]
    assert found["freeze_all"]["phases"] == []
    page = (out / "report.html").read_text()
    assert "phases: the network is unfrozen step by step by" in page
    assert "(6 of 8 runs)" in page


def test_two_phases_equal_two_runs_in_a_row(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "tests.end_to_end.phases_by_hand"],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(project_root())},
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    losses = found["by_hand"][:EPOCHS]
    assert losses[HEAD_EPOCHS] != pytest.approx(losses[HEAD_EPOCHS - 1], rel=1e-3)
    assert found["loop"] == pytest.approx(found["by_hand"], rel=1e-12)
