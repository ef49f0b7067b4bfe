"""The suite of a single run plans exactly that run."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.catalog.cases import size_of
from bench.report.document import document
from bench.runner.planner import Planner
from bench.runner.repeat import SUITE_FILE, suite_text
from bench.runner.suite import load_suite
from bench.spec.run import RunSpec
from bench.storage.results import StoredRun
from bench.training.sweep import sweep_key
from bench.workers.process import Interpreters
from tests.unit.made_runs import Make, found


def specs_of(path: Path) -> list[RunSpec]:
    preparation = Planner(Interpreters({}), {}, "cpu", download=False)
    return [run.spec for run in preparation.plan(load_suite(str(path)))]


SUITE = """
name = "any"
backends = ["torch"]
seeds = [3]
[[grid]]
case = 1
dataset = "photos"
train_images = 216
policies = ["freeze_all", "fine_tune_all", "from_scratch", "gradual_unfreeze"]
px = 64
epochs = 4
tune = "lr"
[[grid]]
dataset = "mnist5k"
train_images = 100
test_images = 50
backbones = ["squeezenet1_1"]
policies = ["fine_tune_last"]
boundary = "features.9"
head = "dense:32,16"
optimizer = "sgd"
learning_rate = 0.003
momentum = 0.5
weight_decay = 0.0
schedule = "constant"
warmup_fraction = 0.0
augmentation = "crop"
views = 2
prefix_cache = "off"
precision = "bf16"
batch_size = 8
weights = "random"
[[grid]]
dataset = "photos"
train_images = 36
policies = ["freeze_all"]
learning_rate = [0.001, 0.01]
weight_decay = [0.0, 0.1]
"""


def test_each_run_of_a_suite_can_be_repeated_by_itself(tmp_path: Path) -> None:
    (tmp_path / "any.toml").write_text(SUITE)
    specs = specs_of(tmp_path / "any.toml")
    assert len(specs) == 9
    for spec in specs:
        key = sweep_key(spec)
        swept = [other for other in specs if key is not None and sweep_key(other) == key]
        (tmp_path / "repeat.toml").write_text(suite_text(spec, swept))
        assert spec.run_id in {again.run_id for again in specs_of(tmp_path / "repeat.toml")}


HOSTILE = ["folder:it's; rm -rf $(x) `y`", 'folder:a\n"""\n[[grid]]\nb']


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_a_name(make_spec: object, name: str) -> None:
    spec = make_spec(case={"number": None, "dataset": {"name": name}})  # type: ignore[operator]
    suite = tomllib.loads(suite_text(spec))
    assert [grid["dataset"] for grid in suite["grid"]] == [name]


def test_the_command_names_the_suite_beside_the_result(make: Make) -> None:
    options = ["--skip-unreadable", "--test-from train:15%", "--group-by a b"]
    run = make(0.9, result={"data_options": options})
    details = _details(run)
    assert details["repeat"] == (
        "python run_bench.py run --suite suite.toml --device cpu --skip-unreadable "
        "--test-from train:15% --group-by 'a b'"
    )
    (run.folder / SUITE_FILE).write_text(suite_text(run.spec, dataset="photos"))
    kept = _details(run)
    suite = os.path.relpath(run.folder / SUITE_FILE)
    assert kept["repeat"].startswith(f"python run_bench.py run --suite {suite} --device cpu ")


def test_the_page_holds_no_path_of_the_machine(make: Make) -> None:
    run = make(0.9, case={"number": None, "dataset": {"name": "folder:flowers"}})
    own = suite_text(run.spec, dataset="folder:/home/me/flowers")
    (run.folder / SUITE_FILE).write_text(own)
    details = _details(run)
    assert "/home/me" not in str(details)
    assert 'dataset = "folder:flowers"' in details["suite"]


def test_the_size_that_a_suite_gave_is_repeated(make_spec: Callable[..., RunSpec]) -> None:
    for name, images, size in (
        ("debian:fashion-mnist", 1020, "large"), ("debian:openclipart", 400, "medium"),
        ("photos", 200, "medium"), ("folder:x", 5000, "small"),
    ):  # fmt: skip
        data = {"name": name, "train_images": images}
        spec = make_spec(case={"number": None, "size": size, "dataset": data})
        (grid,) = tomllib.loads(suite_text(spec))["grid"]
        assert size_of(images, tuple(grid["size_bounds"])) == size
    usual = {"name": "photos", "train_images": 400}  # medium by the bounds of a stand-in
    spec = make_spec(case={"number": None, "size": "medium", "dataset": usual})
    assert "size_bounds" not in suite_text(spec)


def test_the_run_of_a_fold_repeats_all_folds_of_the_same_images(
    make_spec: Callable[..., RunSpec],
) -> None:
    fold = {"number": 2, "of": 5, "images_sha256": "ab" * 32}
    data = {"name": "folder:x", "train_images": 161, "test_images": 40, "fold": fold}
    (grid,) = tomllib.loads(suite_text(make_spec(case={"number": None, "dataset": data})))["grid"]
    assert not [key for key in grid if key.endswith("_images")]


def test_a_hostile_device_stays_one_word(make: Make) -> None:
    assert _details(make(0.9, device="cpu; touch x"))["repeat"].endswith("--device 'cpu; touch x'")


@pytest.mark.parametrize(
    "backbones", ['["module:evil.py:build"]', '["efficientnet_lite0", "module:evil.py:build"]']
)
def test_a_suite_of_others_that_runs_something_else_is_not_offered(
    make: Make, backbones: str
) -> None:
    run = make(0.9)
    evil = f'name = "x"\n[[grid]]\ndataset = "photos"\nbackbones = {backbones}\n'
    (run.folder / SUITE_FILE).write_text(evil)
    details = _details(run)
    assert "evil" not in details["suite"]
    assert str(run.folder) not in details["repeat"]


def _details(run: StoredRun) -> dict[str, str]:
    (details,) = document(found(run), (), ())["runs"].values()
    return details
