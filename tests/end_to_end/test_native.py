"""Native runs of both frameworks: counts, frozen parts, table of differences, Keras's files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.backends import BACKENDS
from bench.native.applications import APPLICATIONS
from bench.native.differences import KNOBS, native_differences
from bench.report.tables.runs import DISTINGUISHING
from bench.system import project_root
from tests.end_to_end.test_command import command
from tests.frameworks import HERE

SUITE = """
name = "native"
[[grid]]
dataset = "photos"
train_images = 19
val_images = 18
test_images = 18
backbones = ["mobilenet_v2"]
policies = ["freeze_all", "fine_tune_last", "fine_tune_all"]
weights = "random"
px = 32
epochs = 2
batch_size = 9
optimizer = "sgd"
"""
HEAD = 1280 * 18 + 18


def _keras(code: str, **variables: str) -> str:
    """Run code in a fresh interpreter with Keras on TensorFlow and return its last line."""
    done = subprocess.run(
        [str(HERE.of("keras-tensorflow")), "-c", code],
        capture_output=True,
        text=True,
        cwd=project_root(),
        env={**os.environ, **BACKENDS["keras-tensorflow"].variables, **variables},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def _results(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return results by policy and backend."""
    found = {}
    for path in out.glob("runs/*/*/result.json"):
        spec = json.loads((path.parent / "spec.json").read_text())
        assert spec["mode"] == "native"
        found[spec["policy"]["name"], spec["backend"]] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("native")
    suite = folder / "native.toml"
    suite.write_text(SUITE)
    said = command(
        "run", "--suite", str(suite), "--mode", "native", "--out", str(folder), cache=shared_cache
    ).stdout
    assert DISTINGUISHING["mode"] in said.splitlines()[0].split()
    table = (folder / "tables" / "table.md").read_text()
    assert "native: each framework's own weights" in table
    assert "NOT THE SAME" not in said
    joined = [
        any("joined to the batch before it" in note for note in result["notes"])
        for (policy, _), result in _results(folder).items()
        if policy == "fine_tune_all"
    ]
    assert joined == [True, True], "one image alone: PyTorch refuses it, and Keras goes on"
    return folder


def test_every_policy_trains_what_it_says(native: Path) -> None:
    found = _results(native)
    assert len(found) == 6
    for backend in ("torch", "keras-tensorflow"):
        results = {p: found[p, backend] for p in ("freeze_all", "fine_tune_last", "fine_tune_all")}
        for result in results.values():
            assert result["status"] == "ok", result["failure"]
            assert result["total_parameters"] == 2_223_872 + HEAD
            assert result["state_values"] == 34_112
            assert result["blueprint_sha256"] is None
        assert results["freeze_all"]["trainable_parameters"] == HEAD
        # From features.14 in torchvision, from block_13 in keras.applications.
        assert results["fine_tune_last"]["trainable_parameters"] == 1_681_344 + HEAD
        assert results["fine_tune_all"]["trainable_parameters"] == 2_223_872 + HEAD
        # The loop fails a run in which training changed a frozen tensor.
        hashes = {r["frozen_state_sha256"] for r in results.values()}
        assert len(hashes) == 3
        # The head alone on random features is a convex problem, whose loss must fall.
        losses = results["freeze_all"]["train_loss_by_epoch"]
        assert losses[1] < losses[0]


def test_each_result_holds_its_native_settings(native: Path) -> None:
    for (policy, backend), result in _results(native).items():
        knobs = result["knobs"]
        assert KNOBS.keys() <= knobs.keys()
        assert knobs["resize_filter"] == {"torch": "antialias"}.get(backend, "bilinear")
        assert (knobs["frozen_part"] == "none") == (policy == "fine_tune_all")
        words = {"torch": "multiplies", "keras-tensorflow": "inside"}
        assert words[backend] in knobs["update_rule"]
        one_rate = policy == "freeze_all"
        assert ("0.1 times the rate" not in knobs["learning_rates"]) == one_rate
    keras = _results(native)["fine_tune_last", "keras-tensorflow"]["knobs"]
    assert keras["first_trained"] == "block_13_expand"
    assert keras["jit_compile"] is False  # Keras's own choice where there is no GPU
    torch = _results(native)["fine_tune_last", "torch"]["knobs"]
    assert torch["first_trained"] == "features.14"
    assert torch["frozen_part"].endswith("layers in inference mode: eval()")


def test_the_differences_of_resnet50(tmp_path: Path) -> None:
    (table,) = native_differences(
        ["resnet50"], ["torch", "keras-tensorflow"], HERE, tmp_path, px=32
    )
    assert table["unavailable"] == {}
    rows = {row["knob"]: row for row in table["rows"]}
    assert rows.keys() == KNOBS.keys()
    expected = {
        "channels": ("RGB", "BGR"),
        "strided_convolutions": (
            "3 of 1×1 by 2; 3 of 3×3 by 2; 1 of 7×7 by 2",
            "6 of 1×1 by 2; 1 of 7×7 by 2",
        ),
        "convolution_biases": ("0 of 53", "53 of 53"),
        "batch_norm_epsilon": ("1e-05", "1.001e-05"),
        "batch_norm_momentum": ("0.1", "0.99"),
        "batch_norm_new_share": ("0.1", "0.01"),
        "running_variance": ("unbiased", "biased"),
        "resize_filter": ("antialias", "bilinear"),
        "update_rule": (
            "the learning rate multiplies the velocity",
            "the learning rate is inside the velocity",
        ),
        "weight_decay_rule": (
            "coupled: added to the gradient",
            "decoupled from the gradient, times the learning rate",
        ),
        "head_initialiser": ("Linear.reset_parameters", "GlorotUniform"),
        "layout": ("channels_first", "channels_last"),
        "compilation": ("eager", "jit_compile=False, run_eagerly=False"),
    }
    for knob, values in expected.items():
        assert rows[knob]["differs"]
        assert tuple(rows[knob]["values"].values()) == values
    assert not rows["batch_norm_layers"]["differs"]


def test_the_differences_of_a_network_that_keras_lacks(tmp_path: Path) -> None:
    (table,) = native_differences(
        ["squeezenet1_1"], ["torch", "keras-tensorflow"], HERE, tmp_path, px=32, optimizer="adamw"
    )
    assert "keras.applications has no squeezenet1_1" in table["unavailable"]["keras-tensorflow"]
    rows = {row["knob"]: row["values"] for row in table["rows"]}
    assert rows["update_rule"] == {"torch": "epsilon is added to the corrected root"}


WRITE = """
import h5py, keras
from keras.src.legacy.saving import legacy_h5_format
from bench.network.blueprint import hash_tensors
model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
with h5py.File(PATH, "w") as file:
    legacy_h5_format.save_weights_to_hdf5_group(file, model)
print(hash_tensors({v.path: v.numpy() for v in model.weights}))
"""


def _run_keras(tmp_path: Path, cache: Path, *more: str, code: int = 0, **variables: str) -> Any:
    suite = tmp_path / "pretrained.toml"
    suite.write_text(SUITE.replace('weights = "random"', 'weights = "pretrained"'))
    return command(
        "run", "--suite", str(suite), "--policies", "freeze_all", "--backends", "keras-tensorflow",
        "--mode", "native", "--epochs", "1", "--out", str(tmp_path / "out"), *more,
        cache=cache, code=code, **variables,
    )  # fmt: skip


def test_keras_own_file_is_loaded_from_keras_own_cache(tmp_path: Path, shared_cache: Path) -> None:
    """keras.applications has no hash of MobileNetV2's file, so that a test can write one."""
    models = tmp_path / "keras" / "models"
    models.mkdir(parents=True)
    path = models / APPLICATIONS["mobilenet_v2"].file_name(32)
    written = _keras(WRITE.replace("PATH", repr(str(path))))
    home = {"KERAS_HOME": str(tmp_path / "keras")}
    _run_keras(tmp_path, shared_cache, **home)
    ((_, result),) = _results(tmp_path / "out").items()
    assert result["frozen_state_sha256"] == written
    assert result["knobs"]["weights_file"] == path.name
    # A truncated file gives a message, no traceback and no row that looks pretrained.
    path.write_bytes(path.read_bytes()[:100_000])
    said = _run_keras(tmp_path, shared_cache, "--fresh", code=2, **home).stderr
    assert "does not fit keras.applications.MobileNetV2" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_table_of_files_is_the_installed_keras_own() -> None:
    """Compare with name, address and hash that each constructor gives keras.utils.get_file.

    Layers are not called, since building 39 networks takes a minute.
    """
    constructors = {name: a.constructor for name, a in APPLICATIONS.items()}
    code = f"""
import json, warnings
import keras
from keras.src.utils import file_utils
warnings.simplefilter("ignore")
class Asked(Exception): pass
def get_file(name, origin, file_hash=None, **more):
    assert more["cache_subdir"] == "models"
    raise Asked(name, origin, file_hash)
file_utils.get_file = get_file
keras.layers.Layer.__call__ = lambda self, x, *_, **__: x[0] if isinstance(x, list) else x
found = {{}}
for key, constructor in {constructors!r}.items():
    try:
        getattr(keras.applications, constructor)(
            include_top=False, weights="imagenet", input_shape=(96, 96, 3))
    except Asked as asked:
        found[key] = asked.args
print(json.dumps(found))
"""
    found = json.loads(_keras(code))
    assert {name: tuple(asked) for name, asked in found.items()} == {
        name: (a.file_name(96), a.location(96), a.digest) for name, a in APPLICATIONS.items()
    }
