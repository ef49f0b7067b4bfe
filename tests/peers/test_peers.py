"""Tests of the peers and their comparison at the smallest size; ``make peers`` measures.

The fastai program is not tested: it needs an environment that only ``make peers`` builds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import SplitSizes, open_dataset
from bench.errors import UserError
from bench.spec.run import Recipe
from bench.system import project_root
from bench.training.schedule import learning_rate
from tests.peers import answer, programs
from tests.peers.compare import main
from tests.peers.figures import frozen_summary, paired_interval, render, whole_summary
from tests.peers.photos_folder import JPEG_PX, write_folder
from tests.peers.programs import PEERS, Experiment

TORCH = next(peer for peer in PEERS if peer.name == "torch")


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four noisy images per class, red or blue, and split."""
    root = tmp_path_factory.mktemp("two")
    random = np.random.default_rng(0)
    for split in answer.SPLITS:
        for name, channel in (("blue", 2), ("red", 0)):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(0, 60, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 180
                Image.fromarray(pixels).save(root / split / name / f"{number}.jpg")
    return root


def _experiment(folder: Path, whole: bool = False) -> Experiment:
    return Experiment(folder, px=32, epochs=1, batch_size=4, whole=whole, timeout_s=120)


def test_the_folder_holds_what_was_asked_for_and_no_image_twice(tmp_path: Path) -> None:
    write_folder(tmp_path, SplitSizes(54, 36, 20))
    assert answer.count_images(tmp_path) == {"train": 54, "val": 36, "test": 20}
    assert len(answer.class_names(tmp_path)) == 18
    with Image.open(next(tmp_path.glob("train/*/*.jpg"))) as image:
        assert (image.size, image.format) == ((JPEG_PX, JPEG_PX), "JPEG")
    dataset = open_dataset(
        f"folder:{tmp_path}", SplitSizes(), cache_dir=tmp_path
    )  # refuses duplicates
    assert (dataset.train_images, dataset.val_images, dataset.test_images) == (54, 36, 20)


def test_the_tutorial_in_torch(two_classes: Path) -> None:
    experiment = _experiment(two_classes)
    found = programs.run_peer(TORCH, "efficientnet_lite0", experiment, Path(sys.executable))
    assert found["test_top1"] == sum(found["correct"]) / 8
    assert found["weights"].startswith("efficientnet-lite0")
    files = sorted(path.parts[-2:] for path in two_classes.glob("test/*/*"))
    assert found["test_order_sha256"] == answer.order_sha256(files)
    assert found["images"] == {"train": 8, "val": 8, "test": 8}
    assert 0 < found["fit_s"] < found["fit_s"] + found["start_s"] < found["whole_s"]


STOCK = """
import json
from tests.peers.keras_lite0 import lite0
from tests.peers.keras_flow import build
from argparse import Namespace
network = lite0(32)
asked = Namespace(backbone="efficientnet_lite0", px=32, head="pool", whole=False)
print(json.dumps({
    "trainable": sum(v.value.shape.num_elements() for v in network.trainable_variables),
    "state": sum(v.value.shape.num_elements() for v in network.non_trainable_variables),
    "map": list(network.output.shape),
    "frozen": [list(v.shape) for v in build(asked, 18).trainable_variables],
}))
"""


def test_lite0_of_stock_keras_layers_is_the_catalogues() -> None:
    """Published: 4,652,008 parameters with 1,000 classes, and 42,016 running statistics."""
    done = subprocess.run(
        [sys.executable, "-c", STOCK], capture_output=True, text=True, cwd=project_root(),
        timeout=900, check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["trainable"] == 4_652_008 - 1281 * 1000
    assert found["state"] == 42_016
    assert found["map"] == [None, 1, 1, 1280]
    assert found["frozen"] == [[1280, 18], [18]]


def test_peers_follow_the_schedule_of_thawbench(tmp_path: Path) -> None:
    fields = programs.recipe_of(_experiment(tmp_path))
    recipe = Recipe.model_validate({**fields, "momentum": 0.9})
    for steps in (5, 20, 313):
        factors = [answer.rate_factor(s, steps, recipe.warmup_fraction) for s in range(steps)]
        rates = [learning_rate(recipe, step, steps) for step in range(steps)]
        assert np.multiply(factors, recipe.learning_rate) == pytest.approx(rates)


def test_another_recipe_than_the_peers_is_refused(tmp_path: Path) -> None:
    experiment = _experiment(tmp_path)
    fields = {**programs.recipe_of(experiment), "momentum": 0.9}
    programs._check_recipe(Recipe.model_validate(fields), experiment)
    with pytest.raises(UserError, match="weight_decay"):
        programs._check_recipe(Recipe.model_validate({**fields, "weight_decay": 0.5}), experiment)


def test_answers_are_put_into_the_order_of_class_and_file() -> None:
    files = ["x/a-b/1.jpg", "x/a/2.jpg", "x/a/10.jpg"]
    found = answer.in_path_order(files, [False, False, True])
    assert found["correct"] == [1, 0, 0]  # a/10, a/2, a-b/1
    assert found["test_top1"] == pytest.approx(1 / 3)


def test_the_stopwatch_leaves_out_warm_up_and_wants_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(np.cumsum([0.0, 9.0, 9.0, 9.0, 0.05, 0.05, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]))
    monkeypatch.setattr(answer.time, "perf_counter", lambda: float(next(now)))
    watch = answer.Stopwatch()
    watch.open()
    for _ in range(3):  # compilation
        watch.step(8)
    watch.step(8)
    watch.step(8)
    assert watch.fields()["train_images_per_s"] is None
    watch.step(8)
    assert watch.rates_per_s[0] == pytest.approx(16 / 0.1)


def test_paired_interval_against_the_normal_one() -> None:
    """Differences of mean d and standard deviation s over n images: d ± 1.96 s / sqrt(n)."""
    random = np.random.default_rng(1)
    one, other = random.random((2, 2000)) < [[0.8], [0.7]]
    difference, low, high = paired_interval(list(one), list(other))
    differences = one.astype(float) - other
    half = 1.96 * differences.std() / np.sqrt(2000)
    assert difference == pytest.approx(differences.mean())
    assert (low, high) == pytest.approx((difference - half, difference + half), abs=0.1 * half)
    assert paired_interval([1, 0, 1], [1, 0, 1]) == (0, 0, 0)


def _measured(**fields: Any) -> dict[str, Any]:
    return {"backbone": "vgg16", "weights": "random", **fields}


def test_ratios_are_taken_within_a_round() -> None:
    """Round 2 is twice as slow for both, which does not change the ratio within the round."""
    measured = [
        part
        for number, slow in enumerate((1.0, 2.0, 1.0))
        for part in (
            _measured(round=number, program="keras", fit_s=80 * slow, whole_s=90 * slow),
            _measured(round=number, program="Thawbench torch", fit_s=8 * slow, whole_s=15 * slow,
                      fit_and_packing_s=10 * slow, warm_whole_s=9 * slow),
        )
    ]  # fmt: skip
    summary = frozen_summary(measured)
    (ratio,) = summary["ratios"]
    assert (ratio["peer"], ratio["beside"], ratio["rounds"]) == ("keras", "Thawbench torch", 3)
    assert [ratio[k] for k in ("fit", "command, cold", "command, warm")] == [8, 6, 10]
    assert summary["accuracy"] == []
    assert summary["medians"][0]["fit_s"] == 80
    json.dumps(summary, allow_nan=False)
    assert "Thawbench torch" in render(summary)


def test_accuracies_on_other_images_are_not_compared() -> None:
    common = {"round": 0, "weights": "packaged", "fit_s": 1.0, "whole_s": 1.0,
              "fit_and_packing_s": 1.0, "warm_whole_s": 1.0, "test_top1": 0.5}  # fmt: skip
    own = _measured(program="Thawbench torch", correct=[1, 0], test_order_sha256="a", **common)
    peer = _measured(program="torch", correct=[1, 0], test_order_sha256="a", **common)
    row = frozen_summary([peer, own])["accuracy"][0]
    assert (row["difference"], row["low"], row["high"], row["within"]) == (0, 0, 0, True)
    with pytest.raises(ValueError, match="other images"):
        frozen_summary([{**peer, "test_order_sha256": "b"}, own])


def test_rates_of_full_fine_tuning_are_thawbenchs_over_the_peers() -> None:
    peer = _measured(round=0, program="torch", train_images_per_s=10.0)
    own = _measured(round=0, program="Thawbench torch", train_images_per_s=13.0)
    (ratio,) = whole_summary([peer, own])["ratios"]
    assert ratio["images/s, Thawbench over peer"] == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--python", "torch=/nowhere/python"], "'/nowhere/python' is no interpreter"),
        (["--python", "troch=/python"], "Did you mean 'torch'?"),
        (["--peers", "troch"], "Did you mean 'torch'?"),
        (["--backbones", "vgg17"], "Did you mean 'vgg16'?"),
    ],
)
def test_a_wrong_question_ends_with_2(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", "--peers", "torch", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_an_environment_that_is_missing_is_named_with_the_command_that_makes_it() -> None:
    with pytest.raises(UserError, match="make .venv-peers/nobody/.installed"):
        programs.interpreter("nobody", {})


def test_a_program_that_takes_too_long_ends_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(UserError, match="--timeout 2,"):
        programs._run(["sh", "-c", f"sleep 60 & echo $! > {note}; wait"], timeout_s=1.0)
    state = Path(f"/proc/{note.read_text().strip()}/stat")

    def lives() -> bool:
        try:
            return state.read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    deadline = time.monotonic() + 20  # a killed process lives until it is scheduled
    while lives() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives()


def test_a_program_that_fails_is_named_with_its_last_lines() -> None:
    with pytest.raises(UserError, match=r"Exit code 3 of: sh -c .*\nno such thing"):
        programs._run(["sh", "-c", "echo no such thing >&2; exit 3"], timeout_s=30)
