"""The command to repeat a run plans exactly that run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from bench.report.repeat import END, repeat_command
from bench.runner.planner import Planner
from bench.runner.suite import load_suite
from bench.spec.run import RunSpec
from bench.training.sweep import sweep_key
from bench.workers.process import Interpreters


def suite_in(command: str) -> str:
    """Return the suite that the command writes."""
    _, _, rest = command.partition(f"<<'{END}'\n")
    return rest.partition(f"\n{END}\n")[0]


def specs_of(path: Path) -> list[RunSpec]:
    preparation = Planner(Interpreters({}), {}, "cpu", False, download=False)
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
        (tmp_path / "repeat.toml").write_text(suite_in(repeat_command(spec, swept)))
        assert spec.run_id in {again.run_id for again in specs_of(tmp_path / "repeat.toml")}


@pytest.mark.parametrize("name", ["folder:it's; rm -rf $(x) `y`", f"folder:a\n{END}\nb"])
def test_a_hostile_name_stays_a_name(make_spec: object, name: str) -> None:
    spec = make_spec(case={"number": None, "dataset": {"name": name}})  # type: ignore[operator]
    command = repeat_command(spec)
    lines = command.split("\n")
    assert lines.count(END) == 1
    assert shlex.split(lines[-1])[:3] == ["python", "run_bench.py", "run"]
