"""Packing: once, whole or not at all, with several writers and with interruptions."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bench.data import BrokenPackError, Dataset, Packed, SplitSizes, load_packed, open_dataset, pack
from bench.data.decode import UnreadableImageError, decoding_threads
from bench.data.model import Resize, SplitName
from bench.errors import UserError
from bench.storage import atomic


@dataclass
class _Source:
    """Images whose every pixel is their index; counts the reads."""

    bad: frozenset[int] = frozenset()
    interrupt_at: int | None = None
    pause_s: float = 0.0
    reads: int = 0

    def groups(self, split: SplitName) -> None:
        return None

    def labels(self, split: SplitName) -> npt.NDArray[np.int64]:
        return np.arange({"train": 20, "val": 4, "test": 6}[split], dtype=np.int64) % 2

    def read(
        self, split: SplitName, index: int, px: int, resize: Resize = "antialias"
    ) -> npt.NDArray[np.uint8]:
        self.reads += 1
        time.sleep(self.pause_s)
        if split == "train" and index == self.interrupt_at:
            raise KeyboardInterrupt
        if split == "train" and index in self.bad:
            raise UnreadableImageError("broken")
        return np.full((px, px, 3), index, dtype=np.uint8)

    def where(self, split: SplitName, index: int) -> str:
        return f"{split}/{index}.png"


def _dataset(source: _Source, content: str = "one") -> Dataset:
    return Dataset("fake", content, ("a", "b"), 20, 4, 6, source)


def _leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "packed").iterdir())


def _check(packed: Packed) -> None:
    assert packed.train.images[:, 0, 0, 0].tolist() == list(range(20))
    assert packed.test.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert packed.classes == ("a", "b")


def test_packs_once_into_read_only_memory_maps(tmp_path: Path) -> None:
    source = _Source()
    _check(pack(_dataset(source), 4, tmp_path))
    packed = pack(_dataset(source), 4, tmp_path)
    assert source.reads == 30
    assert isinstance(packed.train.images, np.memmap)
    assert packed.train.images.dtype == np.uint8
    assert packed.train.labels.dtype == np.int64
    assert not packed.train.images.flags.writeable
    assert not packed.train.labels.flags.writeable
    _check(load_packed(packed.path))


def test_other_content_or_size_is_another_pack(tmp_path: Path) -> None:
    packs = {
        pack(_dataset(_Source(), content), px, tmp_path).path
        for content in ("one", "two")
        for px in (3, 4)
    }
    assert len(packs) == 4


@pytest.mark.parametrize("damage", ["missing", "short", "json", "stale", "file", "empty"])
def test_a_broken_pack_is_made_again(tmp_path: Path, damage: str) -> None:
    path = pack(_dataset(_Source()), 4, tmp_path).path
    images = path / "train_images.npy"
    if damage == "missing":
        images.unlink()
    elif damage == "short":
        images.write_bytes(images.read_bytes()[:-1])
    elif damage == "json":
        (path / "meta.json").write_text("{", encoding="utf-8")
    elif damage == "stale":
        (path / "meta.json").write_text("{}", encoding="utf-8")
    else:
        for part in path.iterdir():
            part.unlink()
        if damage == "file":
            path.rmdir()
            path.write_bytes(b"")
    with pytest.raises(BrokenPackError):
        load_packed(path)
    _check(pack(_dataset(_Source()), 4, tmp_path))
    assert _leftovers(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy"])
def test_a_pack_in_which_a_bit_has_changed_is_made_again(tmp_path: Path, name: str) -> None:
    path = pack(_dataset(_Source()), 4, tmp_path).path
    data = bytearray((path / name).read_bytes())
    data[-7] ^= 1
    (path / name).write_bytes(data)
    os.utime(path / name, ns=(0, 0))  # set another time, should the clock be coarse
    _check(pack(_dataset(_Source()), 4, tmp_path))
    source = _Source()
    pack(_dataset(source), 4, tmp_path)
    assert source.reads == 0, "the new one is good"


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack(_dataset(_Source(interrupt_at=7)), 4, tmp_path)
    assert _leftovers(tmp_path) == []
    _check(pack(_dataset(_Source()), 4, tmp_path))


def test_unreadable_images_are_named_and_counted(tmp_path: Path) -> None:
    source = _Source(bad=frozenset(range(7)))
    with pytest.raises(UserError) as caught:
        pack(_dataset(source), 4, tmp_path)
    assert "7 images cannot be read" in caught.value.message
    assert caught.value.message.count("broken") == 5
    assert "and 2 more" in caught.value.message
    assert "--skip-unreadable" in (caught.value.hint or "")
    assert _leftovers(tmp_path) == []


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("bench.data.packing.shutil.disk_usage", lambda path: Usage)
    with pytest.raises(UserError, match="MB are free"):
        pack(_dataset(_Source()), 4, tmp_path)


def test_a_disk_that_another_fills_meanwhile_is_met_before_the_first_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The free space looked large enough, or a quota does not show in it."""

    def full(*_: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("bench.storage.arrays.os.posix_fallocate", full)
    source = _Source()
    with pytest.raises(UserError, match="Cannot write the packed images.*quota exceeded"):
        pack(_dataset(source), 4, tmp_path)
    assert source.reads == 0
    assert _leftovers(tmp_path) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(UserError, match="Cannot write the packed images"):
        pack(_dataset(_Source()), 4, tmp_path / "cache")
    with pytest.raises(UserError, match="0 px"):
        pack(_dataset(_Source()), 0, tmp_path)


def _pack_slowly(cache: Path, pause_s: float, done: multiprocessing.Queue[str]) -> None:
    done.put(str(pack(_dataset(_Source(pause_s=pause_s)), 4, cache).path))


def test_two_processes_that_pack_at_once_both_end_well(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    writers = [context.Process(target=_pack_slowly, args=(tmp_path, 0.02, done)) for _ in "ab"]
    for writer in writers:
        writer.start()
    paths = {done.get(timeout=60) for _ in writers}
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(paths) == 1
    assert _leftovers(tmp_path) == [Path(paths.pop()).name]
    _check(pack(_dataset(_Source()), 4, tmp_path))


def test_a_killed_writer_leaves_no_pack_and_is_swept_up_by_the_next(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    writer = context.Process(target=_pack_slowly, args=(tmp_path, 60, done))
    writer.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("packed/.writing-*/content/*.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(60)
    [orphan] = (tmp_path / "packed").iterdir()
    # Processes of another machine are unknown here, so its folders go only after a day.
    elsewhere = orphan.rename(orphan.with_name(".writing-00000000-1-x"))
    path = pack(_dataset(_Source()), 4, tmp_path).path
    assert _leftovers(tmp_path) == sorted([elsewhere.name, path.name])
    for part in (elsewhere, *elsewhere.rglob("*")):
        os.utime(part, (0, 0))
    pack(_dataset(_Source(), "two"), 4, tmp_path)
    assert elsewhere.name not in _leftovers(tmp_path)


def test_what_a_killed_writer_of_this_machine_left_is_removed_at_once(tmp_path: Path) -> None:
    path = pack(_dataset(_Source()), 4, tmp_path).path
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = f".writing-{atomic._host()}-"
    (tmp_path / "packed" / f"{mine}{gone.pid}-x").mkdir()
    (tmp_path / "packed" / f"{mine}{os.getpid()}-x").mkdir()
    pack(_dataset(_Source(), "two"), 4, tmp_path)
    left = _leftovers(tmp_path)
    assert f"{mine}{gone.pid}-x" not in left
    assert f"{mine}{os.getpid()}-x" in left, "who writes it is alive"
    assert path.name in left


def test_the_embedded_photographs_pack(tmp_path: Path) -> None:
    packed = pack(open_dataset("photos", SplitSizes(18, 18, 18), cache_dir=tmp_path), 16, tmp_path)
    assert packed.train.labels.tolist() == list(range(18))
    assert float(packed.train.images.std()) > 20


def test_threads_are_no_more_than_the_cores_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {5, 7}, raising=False)
    with decoding_threads() as pool:
        assert pool._max_workers == 2
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    with decoding_threads() as pool:
        assert pool._max_workers == 16
