"""Backbones without a catalogue entry: described by workers, cached or refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.backbones import BACKBONES
from bench.errors import Unavailable, UserError
from bench.network import backbones as asking
from bench.network import weights
from bench.network.backbones import (
    backbone,
    check_name,
    check_px,
    folder_name,
    public_name,
    weights_choice,
)
from bench.network.weights import pretrained_weights, published_weights
from bench.spec.backbone import BackboneEntry, WeightsSource
from bench.workers.process import Interpreters
from bench.workers.tasks import DescribeAnswer, DescribeTask

HERE = Interpreters({})
HUB = WeightsSource(
    kind="hub", distribution="timm", sha256="", licence="Apache-2.0",
    location="https://huggingface.co/timm/tiny.a1/resolve/main/model.safetensors",
    preprocessing=BACKBONES["vgg16"].preprocessing,
)  # fmt: skip
ENTRY = BACKBONES["vgg16"].model_copy(update={"library": "timm", "sources": (HUB,)})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Return a list that collects the names each worker describes, always with ``ENTRY``."""
    jobs: list[list[str]] = []

    def ask(backend: str, task: DescribeTask, *_: Any) -> DescribeAnswer:
        jobs.append(list(task.backbones))
        return DescribeAnswer(entries=tuple(ENTRY for _ in task.backbones))

    monkeypatch.setattr(asking, "ask", ask)
    monkeypatch.setattr(asking, "_described", {})
    return jobs


def test_a_network_is_asked_for_once_and_kept_on_disk(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = asking.backbones(["vgg16", "timm:a", "timm:b", "timm:a"], HERE, tmp_path)
    assert found["vgg16"] == BACKBONES["vgg16"]
    assert found["timm:a"] == ENTRY
    monkeypatch.setattr(asking, "_described", {})
    assert backbone("timm:b", HERE, tmp_path) == ENTRY
    assert asked == [["timm:a", "timm:b"]]


def test_a_users_own_network_is_asked_for_in_each_command(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.py"
    file.write_text("")
    for _ in range(2):
        backbone(f"module:{file}:build", HERE, tmp_path)
        backbone(f"module:{file}:build", HERE, tmp_path)
        monkeypatch.setattr(asking, "_described", {})
    assert asked == [[f"module:{file}:build"]] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg116", "Did you mean 'vgg16'"),
        ("torchvison:vgg16", "Did you mean 'torchvision'"),
        ("timm:", "names no network"),
        ("module:net.py", "module:FILE.py:FUNCTION"),
        ("module:net.txt:build", "module:FILE.py:FUNCTION"),
    ],
)
def test_wrong_names_are_refused_without_a_worker(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_name("backbone", name)


def test_no_folder_of_this_machine_is_in_a_name() -> None:
    assert public_name("module:/home/me/net.py:build") == "module:net.py:build"
    assert folder_name("module:/home/me/net.py:build") == "module-net.py-build"


@pytest.mark.parametrize("px", [32, 96, 288])
def test_a_network_of_one_size_takes_that_only(px: int) -> None:
    entry = ENTRY.model_copy(update={"min_px": 224, "fixed_px": True})
    check_px("x", entry, 224)
    with pytest.raises(UserError, match="224"):
        check_px("x", entry, px)


def test_weights_of_a_name_with_colons_and_folders() -> None:
    said = ["torchvision:resnet18=/a/b.pth", "module:a/net.py:build=random"]
    assert dict(map(weights_choice, said)) == {
        "torchvision:resnet18": "/a/b.pth",
        "module:a/net.py:build": "random",
    }


def _cached(home: Path, data: bytes, commit: str, blob: str | None = None) -> Path:
    """Write a file in the layout of huggingface_hub's cache and return its path."""
    folder = home / "hub" / "models--timm--tiny.a1"
    target = folder / "blobs" / (blob or hashlib.sha256(data).hexdigest())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    link = folder / "snapshots" / commit / "model.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("..") / ".." / "blobs" / target.name)
    return link


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hf"


def _found() -> weights.Weights:
    return pretrained_weights("timm:tiny", ENTRY, download=False)


def test_the_hubs_cache_is_read_and_the_file_is_named_by_its_hash(home: Path) -> None:
    _cached(home, b"old", "aaa")
    link = _cached(home, b"new", "000")
    refs = home / "hub" / "models--timm--tiny.a1" / "refs"
    refs.mkdir()
    (refs / "main").write_text("000")
    found = _found()
    assert found.path == link
    assert found.ref.sha256 == hashlib.sha256(b"new").hexdigest()
    assert (found.ref.kind, found.ref.source) == ("pretrained", "timm/tiny.a1")


def test_a_damaged_blob_is_reported(home: Path) -> None:
    _cached(home, b"cut", "aaa", blob=hashlib.sha256(b"whole").hexdigest())
    with pytest.raises(Unavailable, match="is damaged"):
        _found()


def test_missing_weights_are_reported_with_ways_to_get_them(home: Path) -> None:
    with pytest.raises(Unavailable, match="hf download timm/tiny.a1 model.safetensors"):
        _found()
    none: BackboneEntry = ENTRY.model_copy(update={"sources": ()})
    with pytest.raises(Unavailable, match="timm publishes none"):
        pretrained_weights("timm:tiny", none, download=False)
    assert published_weights(none).ref.sha256 is None


def test_a_file_of_the_users_is_not_taken_for_weights_of_unknown_hash(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes(b"x")
    with pytest.raises(UserError, match="is not one of"):
        weights.weights_from_file(ENTRY, file)
