"""``run --folds --group-by --prove``: both frameworks test every image once, on proved pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.test_command import command


@pytest.mark.slow
def test_every_image_is_tested_once_in_both_frameworks(tmp_path: Path, shared_cache: Path) -> None:
    random = np.random.default_rng(0)
    for value in range(40):
        plant = value // 4
        kind = "rose" if plant % 2 else "tulip"
        path = tmp_path / "plants" / kind / f"plant{plant}_{value}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    out = tmp_path / "out"
    said = command(
        "run", "--datasets", f"folder:{tmp_path / 'plants'}", "--folds", "2", "--group-by",
        r"plant(\d+)", "--policies", "freeze_all", "--backbones", "squeezenet1_1", "--px", "32",
        "--epochs", "2", "--batch-size", "8", "--prove", "--out", str(out), cache=shared_cache,
    ).stdout  # fmt: skip
    assert "plants" in said
    rows = json.loads(command("report", str(out), "--json", cache=shared_cache).stdout)["rows"]
    assert len(rows) == 4
    assert {(row["fold"], row["backend"], row["pairing"]) for row in rows} == {
        (fold, backend, "proved") for fold in (1, 2) for backend in ("torch", "keras-tensorflow")
    }
    for backend in ("torch", "keras-tensorflow"):
        assert sum(row["test_images"] for row in rows if row["backend"] == backend) == 40
    results = [json.loads(path.read_text()) for path in out.glob("runs/*/*/result.json")]
    assert all(result["test_answers"]["groups"] for result in results)
    policies = (out / "tables" / "policies.md").read_text()
    assert "2 folds" in policies
