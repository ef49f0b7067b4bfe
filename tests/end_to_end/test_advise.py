"""``advise`` on real images: the answer, the budget, what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.system import project_root
from tests.unit.test_signs import _folder as stripes

FEW = ("--train-images", "36", "--backbones", "squeezenet1_1", "--frameworks", "torch")
SMALL = ("--px", "32", "--epochs", "3", "--backbones", "squeezenet1_1", "--frameworks", "torch")


def _run(folder: Path, cache: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(project_root() / "run_bench.py"), "advise", *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "THAWBENCH_CACHE": str(cache)},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_folder_of_images_gets_advice_within_its_budget(
    tmp_path: Path, shared_cache: Path
) -> None:
    name = stripes(tmp_path / "stripes")
    began = time.monotonic()
    code, out, err = _run(tmp_path, shared_cache, name, *SMALL, "--budget", "30s", "--json")
    seconds = time.monotonic() - began
    assert code == 0, err
    found = json.loads(out)
    assert seconds < 30 * 1.05 + 5, "five seconds for the interpreter"
    assert found["recommendation"]["backbone"] == "squeezenet1_1"
    assert found["recommendation"]["backend"] == "torch"
    assert found["recommendation"] in found["as_good"]
    low, high = found["interval"]
    assert 0 <= low <= found["expected_test_top1"] <= high <= 1
    assert found["spent_s"] <= found["budget_s"] == 30
    assert found["probes"]
    assert found["tried"]
    assert "First estimate, before any training" in err
    page = next((tmp_path / "results" / "advice").glob("*/advice.html"))
    assert "training time of the full run" in page.read_text()
    # The same command goes on: what was tried is there already.
    code, out, err = _run(tmp_path, shared_cache, name, *SMALL, "--budget", "20s", "--json")
    assert code == 0, err
    assert _tried(json.loads(out)) >= _tried(found)


def _tried(advice: dict[str, Any]) -> set[tuple[str, float]]:
    return {(one["policy"], one["learning_rate"]) for one in advice["tried"]}


@pytest.mark.parametrize("marker", ["planned:", "First estimate, before any training"])
def test_ctrl_c_gives_the_best_advice_so_far(
    marker: str, tmp_path: Path, shared_cache: Path
) -> None:
    name = stripes(tmp_path / "stripes")
    words = [name, *SMALL, "--budget", "5m", "--json"]
    with subprocess.Popen(
        [sys.executable, str(project_root() / "run_bench.py"), "advise", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "THAWBENCH_CACHE": str(shared_cache)},
        # A shell lets what it starts in the background ignore Ctrl-C, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if marker in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    found = json.loads(out)
    if "error" in found:
        assert marker == "planned:", "only before the first evidence there is no advice"
        assert found["error"]["message"] == "Interrupted before there was an answer."
        return
    assert found["recommendation"]["backbone"] == "squeezenet1_1"
    assert found["spent_s"] < 60
    assert "the same command goes on from here" in err


def test_the_ejected_script_trains_without_thawbench(tmp_path: Path, shared_cache: Path) -> None:
    name, project = stripes(tmp_path / "stripes"), tmp_path / "project"
    code, out, err = _run(
        tmp_path, shared_cache, name, *SMALL, "--budget", "25s", "--json", "--train",
        "--eject", str(project),
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert {path.name for path in project.iterdir()} >= {
        "README.md", "requirements.txt", "settings.json", "splits.csv", "train.py",
        "weights.safetensors", "result.json",
    }  # fmt: skip
    modes = {path.name: path.stat().st_mode for path in project.iterdir() if path.is_file()}
    assert len(set(modes.values())) == 1, f"one of them is not for other users: {modes}"
    script = (project / "train.py").read_text()
    assert not re.search(r"^\s*(import|from) (bench|backends|thawbench)", script, re.MULTILINE)
    for words in (["format", "--check"], ["check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--line-length", "100", str(project)], check=True
        )
    trained = found["trained"]
    low, high = found["interval"]
    assert low - 0.1 <= trained["test_top1"] <= high + 0.1
    assert trained["predicts_alike"]
    assert set(trained["saved"]) == {"model.safetensors", "model.pt2", "model.onnx"}
    code, _, err = _run(tmp_path, shared_cache, name, *SMALL, "--eject", str(project))
    assert code == 2
    assert "is there already" in err


def test_the_plan_is_shown_and_nothing_is_trained(tmp_path: Path, shared_cache: Path) -> None:
    name = stripes(tmp_path / "stripes")
    code, out, err = _run(tmp_path, shared_cache, name, *SMALL, "--dry-run")
    assert code == 0, err
    assert "probes of squeezenet1_1" in out
    assert "fine_tune_all of squeezenet1_1, a whole trial" in out
    assert not list((tmp_path / "results").rglob("result.json"))
    options = (*SMALL, "--epochs", "500", "--budget", "20s", "--dry-run")
    code, out, err = _run(tmp_path, shared_cache, name, *options)
    assert "within 0:20" in out, err
    marks = re.findall(r"\d +(yes|no)$", out, re.MULTILINE)
    assert marks == sorted(marks, reverse=True), "the budget ends once"
    assert {"yes", "no"} == set(marks), out


def test_shuffled_labels_get_no_advice(tmp_path: Path, shared_cache: Path) -> None:
    random = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "noise" / f"class{label}").mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "noise" / f"class{label}" / f"{number}.png")
    code, out, err = _run(tmp_path, shared_cache, f"folder:{tmp_path / 'noise'}", *SMALL)
    assert code == 1, err
    assert "cannot support advice" in out
    assert str(tmp_path / "noise") in out, "files that show it"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", *FEW, "--px", "4"], "squeezenet1_1 cannot take 4 px"),
        (["photos", *FEW, "--dry-run", "--max-parameters", "5"], "Nearest is squeezenet1_1 with"),
        (["photos", "--train-images", "36", "--backbones", "resnet50"], "weights for resnet50"),
    ],
)
def test_mistakes_that_need_the_network_are_told_in_words(
    words: list[str], message: str, tmp_path: Path, shared_cache: Path
) -> None:
    code, _, err = _run(tmp_path, shared_cache, *words)
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert "--weights" not in err, "advise has no such option"
