"""``run`` with both frameworks on a small suite: same experiment, files, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.system import project_root

SUITE = """
name = "small"
[[grid]]
case = 1
dataset = "photos"
train_images = 36
val_images = 18
test_images = 36
backbones = ["squeezenet1_1"]
policies = ["fine_tune_last", "freeze_all"]
head = "original"
px = 64
epochs = 2
batch_size = 16
learning_rate = 0.01
augmentation = "crop_flip"
precision = "fp64"
"""


def command(
    *arguments: str, cache: Path, code: int | None = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    answer = subprocess.run(
        [sys.executable, str(project_root() / "run_bench.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "THAWBENCH_CACHE": str(cache), **variables},
    )
    assert code is None or answer.returncode == code, answer.stderr
    return answer


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("small")
    suite = folder / "small.toml"
    suite.write_text(SUITE)
    out = folder / "out"
    command("run", "--suite", str(suite), "--out", str(out), cache=shared_cache)
    return out


def rows(out: Path, cache: Path) -> list[dict[str, Any]]:
    document = json.loads(command("report", str(out), "--json", cache=cache).stdout)
    assert document["schema_version"] == 1
    found: list[dict[str, Any]] = document["rows"]
    return found


def result_files(out: Path, policy: str) -> dict[str, dict[str, Any]]:
    found = {}
    for path in out.glob(f"runs/*{policy}*/*/result.json"):
        spec = json.loads((path.parent / "spec.json").read_text())
        found[spec["backend"]] = json.loads(path.read_text())
    return found


def stored(out: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any], Path]]:
    """Yield spec, result (with the test logits as 'logits') and folder of each run."""
    for path in out.glob("runs/*/*/result.json"):
        folder = path.parent
        spec = json.loads((folder / "spec.json").read_text())
        result = json.loads(path.read_text())
        if (folder / "predictions.npz").is_file():  # a diverged run has none
            result["logits"] = np.load(folder / "predictions.npz")["logits"]
        yield spec, result, folder


def test_every_run_is_there_and_ok(results: Path, shared_cache: Path) -> None:
    found = rows(results, shared_cache)
    assert {(r["policy"], r["backend"], r["status"]) for r in found} == {
        (policy, backend, "ok")
        for policy in ("fine_tune_last", "freeze_all")
        for backend in ("torch", "keras-tensorflow")
    }
    assert all(r["size"] == "small" and r["train_images"] == 36 for r in found)
    assert all(r["dataset"] == "photos" and "stand-in" in r["dataset_label"] for r in found)


@pytest.mark.parametrize("policy", ["fine-tune-last", "freeze-all"])
def test_both_frameworks_ran_the_same_experiment(results: Path, policy: str) -> None:
    found = result_files(results, policy)
    torch, keras = found["torch"], found["keras-tensorflow"]
    for field in ("initial_state_sha256", "batches_sha256", "blueprint_sha256"):
        assert torch[field] == keras[field]
    for field in ("total_parameters", "trainable_parameters", "state_values", "test_top1"):
        assert torch[field] == keras[field]
    # In float64, with dropout and augmentation on, only the order of summation differs.
    assert torch["train_loss_by_epoch"] == pytest.approx(keras["train_loss_by_epoch"], rel=1e-9)
    assert torch["test_loss"] == pytest.approx(keras["test_loss"], rel=1e-9)


def test_the_files_of_a_run(results: Path) -> None:
    for folder in results.glob("runs/*/*"):
        assert {p.name for p in folder.iterdir()} == {
            "spec.json",
            "environment.json",
            "result.json",
            "predictions.npz",
            "log.txt",
            "suite.toml",
        }
        with np.load(folder / "predictions.npz") as stored:
            assert stored["logits"].shape == (36, 18)
            assert stored["labels"].shape == (36,)
        knobs = json.loads((folder / "result.json").read_text())["knobs"]
        assert knobs["layout"] == "channels_last"
    assert (results / "tables" / "table.md").is_file()
    assert (results / "tables" / "table.csv").is_file()
    assert (results / "report.html").is_file()


def test_the_second_call_runs_nothing(results: Path, shared_cache: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in results.glob("runs/*/*/result.json")}
    suite = results.parent / "small.toml"
    answer = command("run", "--suite", str(suite), "--out", str(results), cache=shared_cache)
    assert "to do" not in answer.stderr
    assert {p: p.stat().st_mtime_ns for p in results.glob("runs/*/*/result.json")} == before


def test_bf16_runs_on_a_cpu_and_fp16_is_unavailable(shared_cache: Path, tmp_path: Path) -> None:
    suite = tmp_path / "mixed.toml"
    text = SUITE.replace('precision = "fp64"', 'precision = ["bf16", "fp16"]')
    suite.write_text(text.replace('"fine_tune_last", ', "").replace("epochs = 2", "epochs = 1"))
    answer = command(
        "run", "--suite", str(suite), "--out", str(tmp_path / "out"), "--device", "cpu", "--json",
        cache=shared_cache, code=1,
    )  # fmt: skip
    found = json.loads(answer.stdout)["rows"]
    status = {(r["precision"], r["backend"]): r["status"] for r in found}
    assert status == {
        ("bf16", "torch"): "ok",
        ("bf16", "keras-tensorflow"): "ok",
        ("fp16", "torch"): "unavailable",
        ("fp16", "keras-tensorflow"): "unavailable",
    }
    assert all("GPU" in r["failure"]["message"] for r in found if r["precision"] == "fp16")


def test_no_network_means_unavailable_rows(shared_cache: Path, tmp_path: Path) -> None:
    answer = command(
        "run", "--datasets", "photos", "--backbones", "resnet50", "--policies", "freeze_all",
        "--out", str(tmp_path), "--json", cache=shared_cache, code=1,
        TORCH_HOME=str(tmp_path / "torch"), https_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    found = json.loads(answer.stdout)["rows"]
    assert {r["status"] for r in found} == {"unavailable"}
    assert all("resnet50-0676ba61.pth" in r["failure"]["message"] for r in found)
    assert all(r["weights"] == "pretrained" for r in found)


def test_a_run_that_takes_too_long(shared_cache: Path, tmp_path: Path) -> None:
    answer = command(
        "run", "--datasets", "photos", "--backbones", "squeezenet1_1", "--policies", "freeze_all",
        "--backends", "torch", "--timeout", "0.5", "--out", str(tmp_path), "--json",
        cache=shared_cache, code=1,
    )  # fmt: skip
    (row,) = json.loads(answer.stdout)["rows"]
    assert row["status"] == "timeout"
    assert row["test_top1"] is None
