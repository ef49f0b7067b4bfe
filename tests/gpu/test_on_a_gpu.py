"""Check what only a GPU can show. Without one these tests are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.system.gpu import has_signs_of_a_gpu, installed
from tests.end_to_end.test_command import command

HAS_GPU = bool(installed()) or has_signs_of_a_gpu()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_GPU, reason="there is no GPU"),
]
SMALL = ("--datasets", "photos", "--backbones", "squeezenet1_1", "--weights", "random",
         "--px", "64", "--epochs", "2", "--policies", "fine_tune_all,freeze_all")  # fmt: skip
BACKENDS = "torch,keras-torch"


@pytest.fixture(autouse=True)
def _with_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _rows(out: Path, cache: Path, *options: str) -> list[dict[str, Any]]:
    chosen = () if "--backends" in options else ("--backends", BACKENDS)
    answer = command(
        "run", *SMALL, *chosen, "--device", "cuda:0", "--out", str(out), "--json", *options,
        cache=cache,
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


def test_a_batch_that_does_not_fit_is_a_result_and_the_next_run_goes_on(
    tmp_path: Path, shared_cache: Path
) -> None:
    """ResNet152 at 512 px keeps about a gigabyte of values for each image."""
    answer = command(
        "run", "--datasets", "photos", "--backbones", "resnet152,squeezenet1_1", "--weights",
        "random", "--policies", "fine_tune_all", "--px", "512", "--batch-size", "1024",
        "--train-images", "1024", "--epochs", "1", "--backends", "torch", "--device", "cuda:0",
        "--out", str(tmp_path), "--json", cache=shared_cache, code=None,
    )  # fmt: skip
    statuses = {row["backbone"]: row["status"] for row in json.loads(answer.stdout)["rows"]}
    assert statuses["resnet152"] == "oom"
    assert "squeezenet1_1" in statuses


@pytest.mark.parametrize("backend", ["torch", "keras-torch", "keras-tensorflow", "keras-jax"])
def test_every_backend_trains_compiled(tmp_path: Path, shared_cache: Path, backend: str) -> None:
    found = _rows(tmp_path, shared_cache, "--backends", backend, "--compile", "compiled",
                  "--precision", "tf32")  # fmt: skip
    assert {(row["status"], row["compile"]) for row in found} == {("ok", "compiled")}
