"""``module:FILE:FUNCTION``: description of users' networks, and refusals, all in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_architecture import ROOT

NETWORKS = ROOT / "tests" / "own_networks.py"
SCRIPT = """
import json, sys
from backends.torch_adapter.export import describe as d, user_code
from backends.torch_adapter.training_form import check_training_form
from bench.spec.backbone import OwnCode
from bench.errors import UserError

def guarded(work):
    try:
        return work()
    except UserError as error:
        return {"message": error.message, "hint": error.hint}

def describe(name):
    return d.describe(name, check_training_form).model_dump(mode="json")

def built(name):
    code = OwnCode.model_validate(describe(name)["code"])
    def hashes():
        own_state = user_code.state_sha256(user_code.build(code))
        seeds = [user_code.state_sha256(user_code.build_random(code, s)) for s in (0, 0, 1)]
        return {"own": own_state == code.state_sha256, "random": seeds, "first": own_state}
    return hashes()

request = json.loads(sys.stdin.read())
print(json.dumps({
    "described": {n: guarded(lambda: describe(n)) for n in request["describe"]},
    "built": {n: guarded(lambda: built(n)) for n in request["build"]},
}))
"""
GOOD = ("tutorial", "tokens", "one_row", "lazy", "halves")
REFUSED = {
    "mean_without_std": "attribute 'std' must be three numbers",
    "mean_as_tensor": "attribute 'mean' must be three numbers",
    "std_of_zero": "std is (1, 0, 1); it must be above 0",
    "wrong_px": "input_px is '64'",
    "classifier_only": "one with no trainable stage",
    "twice": "module '0' is called more than once",
    "maps": "for 2 images of 224 px it returns maps of shape (2, 4, 220, 220), not logits",
    "a_pair": "it returns a tuple of 2, not logits",
    "not_224": "own_networks.py:not_224 cannot take 224 px: mat1 and mat2",
    "a_class": "returns a type, not a torch.nn.Module",
    "needs": "cannot be called without arguments: missing a required argument: 'width'",
    "raises": "line 150: AttributeError: 'Linear' object has no attribute 'no_such_method'",
    "absent": "own_networks.py has no function 'absent'",
}
FILES = {
    "syntax": ("def build(:\n    pass\n", "syntax.py, line 1: SyntaxError"),
    "raising": ("x = 1\n1 / 0\n", "raising.py, line 2: ZeroDivisionError: division by zero"),
    "leaving": ("import sys\nsys.exit('no')\n", "SystemExit: no"),
    "absent_import": ("import not_installed_at_all\n", "No module named 'not_installed_at_all'"),
}
WITH_NEIGHBOUR = "from layers_beside import net\n\ndef build():\n    return net()\n"
NEIGHBOUR = "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), \
nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))\n"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("own")
    for name, (text, _) in FILES.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "neighbour.py").write_text(WITH_NEIGHBOUR)
    (folder / "layers_beside.py").write_text(NEIGHBOUR)
    own = [f"module:{NETWORKS}:{name}" for name in (*GOOD, *REFUSED)]
    others = [f"module:{folder}/{name}.py:build" for name in (*FILES, "neighbour")]
    build = [f"module:{NETWORKS}:{name}" for name in ("tutorial", "tokens", "unseeded")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps({"describe": [*own, *others], "build": build}),
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    short = {
        kind: {
            Path(n.split(":")[1]).stem + ":" + n.split(":")[2]: v for n, v in found[kind].items()
        }
        for kind in found
    }
    return {
        kind: {n.removeprefix("own_networks:").removesuffix(":build"): v for n, v in some.items()}
        for kind, some in short.items()
    }


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        (
            "tutorial",
            [["stage1", ["conv1"]], ["stage2", ["conv2"]], ["head", ["fc1", "fc2", "fc3"]]],
        ),
        (
            "tokens",
            [
                ["stem", ["patches"]],
                ["stage1", ["layers.0", "layers.1"]],
                ["stage2", ["layers.2"]],
                ["stage3", ["layers.3"]],
                ["stage4", ["layers.4", "layers.5", "norm"]],
                ["head", ["out"]],
            ],
        ),
        (
            "one_row",
            [
                ["stem", ["0", "1"]],
                ["stage1", ["2", "3", "4"]],
                ["stage2", ["5", "6"]],
                ["head", ["7", "8", "9", "10"]],
            ],
        ),
        ("lazy", [["stage1", ["0"]], ["head", ["1", "2"]]]),
    ],
)  # fmt: skip
def test_stages_of_users_networks(answers: dict[str, Any], name: str, stages: list[Any]) -> None:
    assert answers["described"][name]["stages"] == stages


def test_the_input_sizes_are_tried(answers: dict[str, Any]) -> None:
    found = answers["described"]
    assert (found["tutorial"]["native_px"], found["tutorial"]["min_px"]) == (32, 32)
    assert found["tutorial"]["fixed_px"]
    assert (found["one_row"]["native_px"], found["one_row"]["min_px"]) == (224, 32)
    assert not found["one_row"]["fixed_px"]


def test_preprocessing_is_read_from_attributes(answers: dict[str, Any]) -> None:
    entry = answers["described"]["halves"]
    assert entry["native_px"] == 48
    assert entry["preprocessing"]["mean"] == [127.5] * 3
    assert entry["preprocessing"]["scale"] == [1 / 127.5, 1 / 127.5, 1 / 255]
    from bench.spec.backbone import IMAGENET

    default = answers["described"]["tutorial"]["preprocessing"]
    assert default == IMAGENET.model_dump(mode="json")


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_networks_are_refused(answers: dict[str, Any], name: str) -> None:
    assert REFUSED[name] in answers["described"][name]["message"]


@pytest.mark.parametrize("name", FILES)
def test_a_failing_file_is_reported_with_its_line(answers: dict[str, Any], name: str) -> None:
    message = answers["described"][name]["message"]
    assert FILES[name][1] in message
    assert "\n" not in message


def test_the_modules_beside_the_file_belong_to_it(answers: dict[str, Any]) -> None:
    assert set(answers["described"]["neighbour"]["code"]["files"]) == {
        "neighbour.py",
        "layers_beside.py",
    }


def test_own_weights_are_the_same_each_time_and_random_ones_follow_the_seed(
    answers: dict[str, Any],
) -> None:
    built = answers["built"]["tutorial"]
    assert built["own"]
    first, again, other = built["random"]
    assert first == again
    assert len({first, other, built["first"]}) >= 2
    assert first != other


def test_weights_that_cannot_be_redrawn_or_repeated_are_refused(answers: dict[str, Any]) -> None:
    assert (
        "cannot start from random weights: module '' (Tokens)"
        in (answers["built"]["tokens"]["message"])
    )
    assert "returns different weights each time" in answers["built"]["unseeded"]["message"]
