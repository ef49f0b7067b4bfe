"""What only a GPU can show. Without one these tests are left out; `tools/gpu_check.py` measures."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_command import command

HAS_GPU = (
    shutil.which("nvidia-smi") is not None
    and subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0
)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_GPU, reason="nvidia-smi finds no GPU"),
]
SMALL = ("--datasets", "photos", "--backbones", "squeezenet1_1", "--weights", "random",
         "--px", "64", "--epochs", "2", "--policies", "fine_tune_all,freeze_all")  # fmt: skip
BACKENDS = "torch,keras-torch"


@pytest.fixture(autouse=True)
def _with_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _rows(out: Path, cache: Path, *options: str) -> list[dict[str, Any]]:
    answer = command(
        "run", *SMALL, "--backends", BACKENDS, "--device", "cuda:0", "--out", str(out), "--json",
        *options, cache=cache,
    )  # fmt: skip
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["rows"]
    return rows


def test_the_self_check_passes(shared_cache: Path) -> None:
    document = json.loads(command("doctor", "--json", cache=shared_cache, code=None).stdout)
    on_gpu = [f for f in document["findings"] if f["what"].endswith(" on cuda:0")]
    assert [f["what"] for f in on_gpu if not f["ok"]] == []
    assert any(f["what"] == "torch on cuda:0" for f in on_gpu)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_runs_are_ok_in_every_precision(tmp_path: Path, shared_cache: Path, precision: str) -> None:
    found = _rows(tmp_path, shared_cache, "--precision", precision)
    assert {row["status"] for row in found} == {"ok"}
    assert all(row["device_model"] not in ("absent", "") for row in found)
    whole = [row for row in found if row["policy"] == "fine_tune_all"]
    for row in whole:
        assert row["peak_device_bytes"] > 0
        assert row["reserved_device_bytes"] >= row["peak_device_bytes"]
        assert row["queue_s"] > 0
        assert row["device_step_s"] > 0


def test_both_backends_are_the_same_experiment(tmp_path: Path, shared_cache: Path) -> None:
    found = _rows(tmp_path, shared_cache, "--precision", "fp32")
    for policy in ("fine_tune_all", "freeze_all"):
        hashes = {
            (row["initial_state_sha256"], row["batches_sha256"])
            for row in found
            if row["policy"] == policy
        }
        assert len(hashes) == 1


def test_a_proof_on_the_gpu(shared_cache: Path) -> None:
    command(
        "parity", "squeezenet1_1", "--policy", "fine_tune_all", "--optimizer", "sgd", "--px", "64",
        "--backends", BACKENDS, "--device", "cuda:0", cache=shared_cache,
    )  # fmt: skip
