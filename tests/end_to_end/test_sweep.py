"""Linear heads that are trained at once equal heads that are trained one by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.test_command import command, stored

SUITE = """
name = "sweep"
backends = [{backends}]
seeds = [0, 1]
"""
GRID = """
[[grid]]
dataset = "photos"
train_images = 40
val_images = 18
test_images = 36
backbones = ["squeezenet1_1"]
policies = ["freeze_all"]
px = 32
epochs = 3
batch_size = 16
precision = "{precision}"
optimizer = "{optimizer}"
learning_rate = {rates}
weight_decay = {decays}
"""
RATES, DECAYS = (0.02, 0.003), (0.0, 0.3)
Key = tuple[bool, str, int, float, float]
Found = dict[Key, dict[str, Any]]


def _run(
    folder: Path, cache: Path, grids: list[tuple[Any, Any]], code: int = 0, **asked: str
) -> Found:
    """Run a suite; return results, with the test logits as 'logits', by swept, backend, seed, rate
    and decay.

    Args:
        folder: Folder for suite and results.
        cache: Root of the cache.
        grids: Rates and decays of each grid, one value or a list.
        code: Expected exit code.
        asked: Values for the placeholders of the suite.
    """
    suite = SUITE.format(**asked)
    suite += "".join(GRID.format(rates=r, decays=d, **asked) for r, d in grids)
    (folder / "sweep.toml").write_text(suite)
    out = folder / "out"
    suite_file = str(folder / "sweep.toml")
    command("run", "--suite", suite_file, "--out", str(out), cache=cache, code=code)
    found = {}
    for spec, result, _ in stored(out):
        recipe = spec["recipe"]
        place = spec["backend"], spec["seed"], recipe["learning_rate"], recipe["weight_decay"]
        found[recipe.get("sweep", False), *place] = result
    return found


OWN = (
    "initial_state_sha256",
    "frozen_state_sha256",
    "batches_sha256",
    "blueprint_sha256",
    "total_parameters",
    "trainable_parameters",
    "state_values",
    "forward_multiply_adds",
    "predicted_saving",
)
"""Fields of a result that are the same whether a run is swept or not."""


@pytest.mark.slow
def test_heads_at_once_are_heads_one_by_one(tmp_path: Path, shared_cache: Path) -> None:
    """Compare in both frameworks; tests/parity/test_heads.py covers each optimizer and engine."""
    backends = ["torch", "keras-tensorflow"]
    listed = ", ".join(f'"{name}"' for name in backends)
    asked = {"backends": listed, "optimizer": "adamw", "precision": "fp64"}
    grids = [(list(RATES), list(DECAYS)), (0.02, 0.0), (0.003, 0.3)]
    found = _run(tmp_path, shared_cache, grids, **asked)
    swept = {key[1:]: result for key, result in found.items() if key[0]}
    alone = {key[1:]: result for key, result in found.items() if not key[0]}
    assert (len(swept), len(alone)) == (8 * len(backends), 4 * len(backends))
    for key, one in alone.items():
        many = swept[key]
        assert (many["sweep_runs"], one["sweep_runs"]) == (8, None)
        losses = one["train_loss_by_epoch"]
        assert abs(losses[-1] / losses[0] - 1.0) > 0.01, "a head that does not move proves nothing"
        assert many["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-10)
        assert many["val_top1_by_epoch"] == one["val_top1_by_epoch"]
        np.testing.assert_allclose(many["logits"], one["logits"], rtol=1e-5)  # stored in float32
        assert many["test_loss"] == pytest.approx(one["test_loss"], rel=1e-9)
        assert many["test_top1"] == one["test_top1"]
        assert {f: many[f] for f in OWN} == {f: one[f] for f in OWN}
        timed = ("fit_s", "effective_images_per_s", "train_images_per_s", "infer_images_per_s",
                 "setup_s")  # fmt: skip
        assert [f for f in timed if many[f] is not None] == []
        assert many["sweep_s"] > 0.0
    assert len({tuple(r["train_loss_by_epoch"]) for r in swept.values()}) >= 8, "all differ"


def test_what_is_missing_of_a_sweep_is_trained_again(tmp_path: Path, shared_cache: Path) -> None:
    """Cover seeds with different numbers of heads, and a head that diverges beside good ones."""
    asked = {"backends": '"torch"', "optimizer": "sgd", "precision": "fp32"}
    grids = [([0.02, 1e30], [0.0, 0.3])]
    whole = _run(tmp_path, shared_cache, grids, code=1, **asked)
    assert len(whole) == 8
    for (_, _, _, rate, decay), result in whole.items():
        diverges = rate == 1e30 and decay > 0.0
        assert result["status"] == ("diverged" if diverges else "ok")
    for path in list((tmp_path / "out" / "runs").iterdir()):
        (file,) = path.glob("*/spec.json")
        spec = json.loads(file.read_text())
        if spec["seed"] == 0 or spec["recipe"]["weight_decay"] == 0.0:
            shutil.rmtree(path)
    again = _run(tmp_path, shared_cache, grids, code=1, **asked)
    assert again.keys() == whole.keys()
    for key, result in again.items():
        assert result["status"] == whole[key]["status"]
        assert result["failure"] == whole[key]["failure"]
        assert result["batches_sha256"] == whole[key]["batches_sha256"]
        if key[3] == 0.02:
            losses = whole[key]["train_loss_by_epoch"]
            assert result["train_loss_by_epoch"] == pytest.approx(losses, rel=1e-5)
    assert sorted(r["sweep_runs"] for r in again.values()) == [6] * 6 + [8] * 2
