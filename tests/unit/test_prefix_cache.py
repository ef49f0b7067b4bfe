"""Values of a frozen prefix: computed once, kept whole or not at all, never wrong; and the form
that computes them, chosen by the amount of work."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.network.blueprint import Array
from bench.network.cost import multiply_adds
from bench.network.freezing import plan_training
from bench.network.frozen_prefix import boundary_of
from bench.system import project_root
from bench.training import prefix_cache
from bench.training.prefix_cache import (
    FOLDER,
    FORMS,
    CachedPrefix,
    MakeBatches,
    NoRoom,
    PrefixRequest,
    Threshold,
    choose_form,
    load_or_compute,
)
from tests.parity.small_networks import small_network

IMAGES = np.random.default_rng(0).integers(0, 256, (13, 4, 4, 3), np.uint8)
SHAPES = {"train": (10, 2), "val": (3, 2)}


class Trainer:
    """A prefix whose values are the mean and the maximum of each image."""

    def __init__(self) -> None:
        self.computed = 0
        self.spoil = False

    def prefix(self, images: npt.NDArray[np.uint8]) -> Array:
        self.computed += len(images)
        flat = images.reshape(len(images), -1).astype(np.float32)
        return np.stack([flat.mean(1), flat.max(1)], 1)[: 1 if self.spoil else None]

    def values(self, handles: list[Array]) -> Array:
        return np.concatenate(handles)

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def synchronise(self) -> None:
        pass

    def prefix_form(self) -> str:
        return "folded"


def _batches(first: int, last: int) -> MakeBatches:
    return lambda threads, allocate: (
        IMAGES[at : min(at + 4, last)] for at in range(first, last, 4)
    )


def _request(dtype: str = "float32", **shapes: tuple[int, ...]) -> PrefixRequest:
    images = {"train": _batches(0, 10), "val": _batches(10, 13)}
    return PrefixRequest(images, {**SHAPES, **shapes}, dtype)


def _cached(trainer: Trainer, root: Path, key: str = "key", **more: Any) -> CachedPrefix:
    return load_or_compute(lambda: trainer, _request(), root, key, **more)


EXPECTED = Trainer().prefix(IMAGES)


def _right(found: CachedPrefix) -> bool:
    return np.array_equal(found.train, EXPECTED[:10]) and np.array_equal(found.val, EXPECTED[10:])


@pytest.fixture(params=["in memory", "mapped"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "mapped":
        monkeypatch.setattr(prefix_cache, "machine_bytes", lambda: 8)
    name: str = request.param
    return name


def test_what_compiling_them_took_is_kept_with_them(tmp_path: Path) -> None:
    """An effective rate is without compilation, in later runs too."""

    class Compiling(Trainer):
        def prefix(self, images: npt.NDArray[np.uint8]) -> Array:
            if self.computed == 0:
                time.sleep(0.2)
            return super().prefix(images)

    trainer = Compiling()
    first, again = (_cached(trainer, tmp_path) for _ in range(2))
    assert (first.is_reused, again.is_reused) == (False, True)
    assert 0.15 < first.compile_s < first.seconds
    assert again.compile_s == pytest.approx(first.compile_s)


def test_they_are_computed_once(tmp_path: Path, memory: str) -> None:
    trainer, shares = Trainer(), []
    first = _cached(trainer, tmp_path, on_share=shares.append)
    again = _cached(trainer, tmp_path)
    assert trainer.computed == 13
    assert _right(first)
    assert _right(again)
    assert (first.is_reused, again.is_reused) == (False, True)
    assert (first.note, again.note) == (None, None)
    assert again.seconds == pytest.approx(first.seconds, abs=0.5)
    assert again.spent_s < again.seconds + 0.5
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    is_mapped = isinstance(again.train, np.memmap)
    assert is_mapped == (memory == "mapped")


def test_what_is_kept_needs_no_network_and_says_how_it_was_made(tmp_path: Path) -> None:
    first = _cached(Trainer(), tmp_path)
    again = load_or_compute(
        lambda: pytest.fail("nothing is to be computed"), _request(), tmp_path, "key"
    )
    assert (first.form, again.form) == ("folded", "folded")


def test_another_key_is_computed_anew(tmp_path: Path) -> None:
    trainer = Trainer()
    _cached(trainer, tmp_path)
    assert not _cached(trainer, tmp_path, "other").is_reused
    assert trainer.computed == 26


def test_what_was_kept_says_what_it_cost(tmp_path: Path) -> None:
    """The cost does not depend on how fast it is read: figures must not depend on the cache."""
    _cached(Trainer(), tmp_path)
    meta = tmp_path / FOLDER / "key" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "seconds": 77.0}))
    again = _cached(Trainer(), tmp_path)
    assert (again.seconds, again.is_reused) == (77.0, True)
    assert again.spent_s < 5.0


@pytest.mark.parametrize("byte", range(0, 128, 3))
def test_a_bit_of_a_header_is_damage_too(tmp_path: Path, byte: int) -> None:
    _cached(Trainer(), tmp_path)
    file = tmp_path / FOLDER / "key" / "train.npy"
    content = bytearray(file.read_bytes())
    content[byte] ^= 4
    file.write_bytes(content)
    assert _right(_cached(Trainer(), tmp_path))


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "meta", "shape", "dtype", "pickle"])
def test_what_is_damaged_is_computed_anew(tmp_path: Path, memory: str, damage: str) -> None:
    trainer = Trainer()
    _cached(trainer, tmp_path)
    folder = tmp_path / FOLDER / "key"
    file = folder / "train.npy"
    if damage == "bit":
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "gone":
        file.unlink()
    elif damage == "meta":
        (folder / "meta.json").write_text("{")
    elif damage == "shape":
        np.save(file, EXPECTED)
    elif damage == "dtype":
        np.save(file, EXPECTED[:10].astype(np.float64))
    else:
        np.save(file, np.array([{}] * 10), allow_pickle=True)
    found = _cached(trainer, tmp_path)
    assert _right(found)
    assert not found.is_reused
    assert _cached(trainer, tmp_path).is_reused, "and it is whole again"


def test_a_disk_that_is_full_at_the_end_costs_no_second_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prefix_cache.np, "save", full)
    trainer = Trainer()
    found = _cached(trainer, tmp_path)
    assert trainer.computed == 13
    assert _right(found)
    assert "No space left" in (found.note or "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(prefix_cache, "build_folder", full)
    found = _cached(Trainer(), tmp_path)
    assert _right(found)
    assert found.note is not None
    assert "not kept for later runs" in found.note
    assert not (tmp_path / FOLDER / "key").exists()


def test_more_than_the_cache_may_hold_is_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "limit_bytes", lambda: 10)
    found = _cached(Trainer(), tmp_path)
    assert _right(found)
    assert "the cache may hold" in (found.note or "")


def test_what_fits_nowhere_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "limit_bytes", lambda: 10)
    monkeypatch.setattr(prefix_cache, "machine_bytes", lambda: 8)
    with pytest.raises(NoRoom, match="the cache may hold"):
        _cached(Trainer(), tmp_path)


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, age in (("old", 100), ("new", 10)):
        _cached(Trainer(), tmp_path, name)
        folder = tmp_path / FOLDER / name
        os.utime(folder, (folder.stat().st_atime - age, folder.stat().st_mtime - age))
    packed = tmp_path / "packed" / "data"
    packed.mkdir(parents=True)
    (packed / "x").write_bytes(b"x" * 1000)
    held = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    monkeypatch.setattr(prefix_cache, "limit_bytes", lambda: held)
    _cached(Trainer(), tmp_path, "third")
    assert {f.name for f in (tmp_path / FOLDER).iterdir()} == {"new", "third"}
    assert packed.is_dir(), "what a run needs to begin stays"


def test_several_writers_do_no_harm(tmp_path: Path) -> None:
    found: list[CachedPrefix] = []
    threads = [
        threading.Thread(target=lambda: found.append(_cached(Trainer(), tmp_path)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(_right(each) for each in found)
    assert [f.name for f in (tmp_path / FOLDER).iterdir()] == ["key"]


def test_values_of_another_shape_are_not_spread(tmp_path: Path) -> None:
    """NumPy would broadcast the one value to all images of the batch: a plausible accuracy."""
    trainer = Trainer()
    trainer.spoil = True
    with pytest.raises(ValueError, match="for 4 images"):
        _cached(trainer, tmp_path)
    assert not (tmp_path / FOLDER / "key").exists()


def test_nothing_is_left_of_what_was_interrupted(tmp_path: Path) -> None:
    def interrupted(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _cached(Trainer(), tmp_path, on_share=interrupted)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_the_meta_file_is_json(tmp_path: Path) -> None:
    _cached(Trainer(), tmp_path)
    meta = json.loads((tmp_path / FOLDER / "key" / "meta.json").read_text())
    assert set(meta["checksums"]) == {"train", "val"}
    assert meta["seconds"] > 0


def test_what_a_killed_worker_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """The remains may be as large as the cache."""
    code = (
        "import os, sys; from pathlib import Path; from bench.storage.atomic import build_folder\n"
        "def write(into): (into / 'x').write_text('x'); os._exit(9)\n"
        "build_folder(Path(sys.argv[1]), write, lambda path: True)\n"
    )
    target = tmp_path / FOLDER / "killed"
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=project_root())
    assert done.returncode == 9
    assert len(list((tmp_path / FOLDER).glob(".writing-*"))) == 1
    _cached(Trainer(), tmp_path)
    assert [f.name for f in (tmp_path / FOLDER).iterdir()] == ["key"]


BLUEPRINT = small_network().blueprint
BOUNDARY = boundary_of(BLUEPRINT, plan_training(BLUEPRINT, POLICIES["freeze_all"]))
PLAIN = small_network("plain").blueprint


def _form(images: int, device: str = "cpu", backend: str = "torch") -> str:
    assert BOUNDARY is not None
    return choose_form(BLUEPRINT, BOUNDARY, images, backend, device)


def test_every_backend_has_a_form_for_the_least_work_and_more_for_more() -> None:
    assert {backend for backend, _ in FORMS} == set(BACKENDS)
    for backend, device in FORMS:
        table = FORMS[backend, device]
        assert table[0].multiply_adds == 0.0
        assert sorted(table, key=lambda f: f.multiply_adds) == list(table)
        assert _form(1, f"{device}:0" if device == "cuda" else device, backend) == table[0].form


def test_where_there_is_nothing_to_fold_the_network_stays_as_it_is() -> None:
    """In Keras a copy of VGG16 took 2 s longer than the 25 s of VGG16 itself."""
    boundary = boundary_of(PLAIN, plan_training(PLAIN, POLICIES["freeze_all"]))
    assert boundary is not None
    for backend in BACKENDS:
        assert choose_form(PLAIN, boundary, 10**9, backend, "cuda:0") == "plain"
    assert choose_form(PLAIN, boundary, 1, "torch", "cpu") == "plain"


@pytest.mark.parametrize(("device", "cores", "factor"), [("cpu", 1, 1), ("cpu", 3, 3),
                                                         ("cuda:1", 3, 1)])  # fmt: skip
def test_more_work_takes_another_form(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, factor: int
) -> None:
    """The work is that of the frozen prefix over all images; a CPU with more cores does more of it
    in the time that building a form takes."""
    one = sum(multiply_adds(o, BLUEPRINT) for o in BLUEPRINT.operations if o.stage != "head")
    table = (
        Threshold("plain", 0.0),
        Threshold("folded", 10.0 * one),
        Threshold("compiled", 100.0 * one),
    )
    monkeypatch.setitem(FORMS, ("torch", device.partition(":")[0]), table)
    monkeypatch.setattr(prefix_cache, "cores", lambda: cores)
    found = [_form(images * factor, device) for images in (9, 10, 99, 100)]
    assert found == ["plain", "folded", "folded", "compiled"]
