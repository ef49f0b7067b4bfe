"""Both frameworks choose the same learning rate, since they compute the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.test_command import command, result_files

SUITE = """
name = "tuned"
[[grid]]
dataset = "photos"
train_images = 36
val_images = 36
test_images = 18
backbones = ["squeezenet1_1"]
policies = ["freeze_all", "fine_tune_all"]
px = 32
epochs = 2
batch_size = 12
precision = "fp64"
"""


@pytest.mark.slow
def test_both_choose_the_same(tmp_path: Path, shared_cache: Path) -> None:
    (tmp_path / "tuned.toml").write_text(SUITE)
    arguments = ("--suite", str(tmp_path / "tuned.toml"), "--tune", "lr")
    command("run", *arguments, "--out", str(tmp_path / "out"), cache=shared_cache)
    for policy in ("freeze-all", "fine-tune-all"):
        found = result_files(tmp_path / "out", policy)
        torch, keras = found["torch"], found["keras-tensorflow"]
        assert torch["learning_rate"] == keras["learning_rate"]
        assert 3 <= len(torch["tuning"]) <= 5
        for one, other in zip(torch["tuning"], keras["tuning"], strict=True):
            assert one["learning_rate"] == other["learning_rate"]
            assert one["val_top1"] == other["val_top1"]
            assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-8)
        losses = keras["train_loss_by_epoch"]
        assert torch["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-9)
        chosen = next(t for t in torch["tuning"] if t["learning_rate"] == torch["learning_rate"])
        assert chosen["val_top1"] == max(t["val_top1"] for t in torch["tuning"])
        assert chosen["val_top1"] == torch["val_top1_by_epoch"][-1]
    document = json.loads(
        command("report", str(tmp_path / "out"), "--json", cache=shared_cache).stdout
    )
    assert {row["tune"] for row in document["rows"]} == {"lr"}


def test_native_mode_cannot_be_tuned(tmp_path: Path, shared_cache: Path) -> None:
    said = command(
        "run", "--datasets", "photos", "--backbones", "resnet50", "--mode", "native", "--tune",
        "lr", "--weights", "random", "--out", str(tmp_path / "out"), cache=shared_cache, code=2,
    ).stderr  # fmt: skip
    assert "works in matched mode only" in said
    assert "Traceback" not in said
