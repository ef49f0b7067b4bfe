"""Compiled steps compute what plain ones do, in every backend that can run both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.system import project_root
from tests.end_to_end.test_command import command

BACKENDS = ("torch", "keras-tensorflow", "keras-torch")
SUITE = f"""
name = "rungs"
backends = {list(BACKENDS)}
[[grid]]
dataset = "photos"
train_images = 36
val_images = 18
test_images = 36
backbones = ["module:{project_root() / "examples" / "my_net.py"}:build"]
policies = ["fine_tune_all"]
px = 32
epochs = 2
batch_size = 16
optimizer = "sgd"
learning_rate = 0.01
precision = "fp64"
compile = ["plain", "compiled"]
"""


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (backend, rung) → result of one experiment."""
    folder = tmp_path_factory.mktemp("rungs")
    (folder / "rungs.toml").write_text(SUITE)
    command("run", "--suite", str(folder / "rungs.toml"), "--out", str(folder / "out"),
            cache=shared_cache)  # fmt: skip
    found = {}
    for path in (folder / "out").glob("runs/*/*/result.json"):
        spec = json.loads((path.parent / "spec.json").read_text())
        rung = spec["recipe"].get("compile", "plain")
        found[spec["backend"], rung] = json.loads(path.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_they_agree_to_ten_digits(
    results: dict[tuple[str, str], dict[str, Any]], backend: str
) -> None:
    plain, compiled = results[backend, "plain"], results[backend, "compiled"]
    assert (plain["status"], compiled["status"]) == ("ok", "ok")
    losses = plain["train_loss_by_epoch"]
    assert losses[1] != losses[0]
    assert compiled["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-10)
    assert compiled["test_loss"] == pytest.approx(plain["test_loss"], rel=1e-9)


@pytest.mark.slow
def test_knobs_say_what_ran(results: dict[tuple[str, str], dict[str, Any]]) -> None:
    for backend, knob in (("torch", "compile"), ("keras-torch", "compile"),
                          ("keras-tensorflow", "xla")):  # fmt: skip
        assert results[backend, "plain"]["knobs"][knob] is False
        assert results[backend, "compiled"]["knobs"][knob] is True
        assert results[backend, "compiled"]["compile_s"] > results[backend, "plain"]["compile_s"]
