"""All engines train a network with BatchNorm as PyTorch does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.system import project_root
from tests.end_to_end.test_command import command, result_files
from tests.frameworks import HERE

SUITE = """
name = "twins"
[[grid]]
dataset = "photos"
train_images = 20
val_images = 18
test_images = 18
backbones = ["{backbone}"]
policies = ["{policy}"]
px = {px}
epochs = 2
batch_size = 8
optimizer = "{optimizer}"
learning_rate = 0.001
weight_decay = 0.01
augmentation = "crop_flip"
precision = "{precision}"
"""


def run(
    folder: Path,
    cache: Path,
    policy: str,
    optimizer: str,
    precision: str,
    px: int = 32,
    backends: str = "torch,keras-tensorflow",
    backbone: str = "efficientnet_lite0",
) -> Path:
    suite = folder / "twins.toml"
    asked = {"policy": policy, "optimizer": optimizer, "precision": precision, "px": px}
    suite.write_text(SUITE.format(backbone=backbone, **asked))
    arguments = ("--suite", str(suite), "--backends", backends, "--out", str(folder / "out"))
    command("run", *arguments, cache=cache)
    return folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "optimizer", "backbone", "state_values"),
    [
        ("keras-tensorflow", "sgd", "efficientnet_lite0", 42_016),
        ("keras-tensorflow", "adamw", "efficientnet_lite0", 42_016),
        ("keras-torch", "sgd", "efficientnet_lite0", 42_016),
        ("keras-jax", "sgd", "squeezenet1_1", 0),
    ],
)
def test_in_float64_they_are_the_same(
    tmp_path: Path, shared_cache: Path, backend: str, optimizer: str, backbone: str,
    state_values: int,
) -> None:  # fmt: skip
    """Train with SGD on every engine; tests/parity proves AdamW on all of them, and BatchNorm on
    JAX, which takes a minute to compile the larger network."""
    where = {"backends": f"torch,{backend}", "backbone": backbone}
    out = run(tmp_path, shared_cache, "fine_tune_all", optimizer, "fp64", **where)
    found = result_files(out, "fine-tune-all")
    torch, keras = found["torch"], found[backend]
    losses = torch["train_loss_by_epoch"]
    assert losses[1] < losses[0], "a network that does not move proves nothing"
    assert losses == pytest.approx(keras["train_loss_by_epoch"], rel=1e-10)
    # Inference uses the running statistics, so they must be the same, too.
    assert torch["test_loss"] == pytest.approx(keras["test_loss"], rel=1e-9)
    assert torch["initial_state_sha256"] == keras["initial_state_sha256"]
    assert torch["state_values"] == keras["state_values"] == state_values
    assert keras["knobs"]["engine"] == backend.removeprefix("keras-")
    if backend == "keras-jax":
        assert (keras["knobs"]["x64"], keras["knobs"]["tf32"]) == (True, False)
        # 20 training images are batches of 8, 8 and 4; 18 others are 8, 8 and 2.
        assert keras["knobs"]["compiled_for_batch_sizes"] == [2, 4, 8]


def test_in_float32_the_fused_batch_norm_is_pytorchs(tmp_path: Path, shared_cache: Path) -> None:
    """Check the fused operation, which float64 lacks; biased variances would be off by 1/72."""
    out = run(tmp_path, shared_cache, "fine_tune_all", "sgd", "fp32", px=96)
    found = result_files(out, "fine-tune-all")
    torch, keras = found["torch"], found["keras-tensorflow"]
    assert keras["knobs"]["batch_norm_in_training"] == ["fused"]
    assert torch["train_loss_by_epoch"] == pytest.approx(keras["train_loss_by_epoch"], rel=1e-4)
    assert torch["test_loss"] == pytest.approx(keras["test_loss"], rel=1e-4)


def test_mixed_precision_trains_batch_norm(tmp_path: Path, shared_cache: Path) -> None:
    out = run(tmp_path, shared_cache, "fine_tune_last", "adamw", "bf16")
    for result in result_files(out, "fine-tune-last").values():
        assert result["status"] == "ok", result["failure"]
        assert result["train_loss_by_epoch"][1] < result["train_loss_by_epoch"][0]


@pytest.mark.parametrize(
    ("backend", "foreign"),
    [
        ("torch", {"keras", "tensorflow", "jax"}),
        # Keras imports an installed jax for its Orbax callback, but computes nothing with it.
        ("keras-tensorflow", {"torch"}),
        ("keras-torch", {"tensorflow"}),
        ("keras-jax", {"tensorflow", "torch"}),
    ],
)
def test_a_worker_holds_one_framework(backend: str, foreign: set[str]) -> None:
    code = (
        "import os, sys\n"
        "from bench.catalog.backends import BACKENDS\n"
        "os.environ.update(BACKENDS[sys.argv[1]].variables)\n"
        "from backends.worker import load_adapter\n"
        "load_adapter(sys.argv[1], BACKENDS[sys.argv[1]].adapter)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [str(HERE.of(backend)), "-c", code, backend],
        capture_output=True,
        text=True,
        check=True,
        cwd=project_root(),
    )
    held = set(done.stdout.split())
    assert not held & foreign
    assert backend.removeprefix("keras-") in held
