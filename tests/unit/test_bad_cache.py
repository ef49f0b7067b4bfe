"""A cache that is full, write-protected or damaged: clear messages, and no wrong results."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends import worker
from bench.catalog.backbones import BACKBONES
from bench.errors import UserError
from bench.network import export as blueprints
from bench.network.blueprint import Network
from bench.network.blueprint_files import (
    CHECKSUMS,
    FILES,
    is_whole,
    save_blueprint,
    write_checksums,
)
from bench.network.export import blueprint_folder
from bench.network.weights import random_weights
from bench.storage.cache import unwritable
from bench.storage.checksums import crc32_of_file
from bench.workers.process import Finished, Interpreters
from bench.workers.tasks import ExportTask, Nothing


def _flip(path: Path, place: int = -3) -> None:
    changed_ns = path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    # Modification times may have a resolution of milliseconds, so set a later one.
    os.utime(path, ns=(changed_ns, changed_ns + 10**9))


def test_a_checksum_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"123456789")
    assert crc32_of_file(path) == 0xCBF43926  # the check value of CRC-32
    _flip(path)
    assert crc32_of_file(path) != 0xCBF43926


@pytest.mark.parametrize("name", FILES)
def test_a_blueprint_in_which_a_bit_has_changed_is_not_whole(
    network: Network, tmp_path: Path, name: str
) -> None:
    network.save(tmp_path)
    assert not is_whole(tmp_path), "of another version, without checksums"
    write_checksums(tmp_path)
    assert is_whole(tmp_path)
    _flip(tmp_path / name)
    assert not is_whole(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"blueprint.json": 1}'])
def test_checksums_of_another_form_are_none(network: Network, tmp_path: Path, text: str) -> None:
    network.save(tmp_path)
    (tmp_path / CHECKSUMS).write_text(text)
    assert not is_whole(tmp_path)


def test_a_damaged_blueprint_is_exported_again(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[str] = []

    def ask(backend: str, task: ExportTask, *_: Any) -> Nothing:
        exported.append(task.key)
        save_blueprint(network, task.key)
        return Nothing()

    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(blueprints, "ask", ask)

    def folder() -> Path:
        weights = random_weights(BACKBONES["squeezenet1_1"])
        return blueprint_folder("squeezenet1_1", 32, weights, 0, tmp_path, Interpreters({}))

    assert folder() == folder()
    assert len(exported) == 1
    _flip(folder() / "tensors.safetensors")
    assert Network.load(folder()).sha256() == network.sha256()
    assert len(exported) == 2


def test_other_users_may_read_a_network(network: Network, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        network.save(tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_a_disk_that_is_full_while_a_network_is_written(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's error reaches the user as a clear message, through the worker that exports."""
    (tmp_path / "tensors.safetensors").symlink_to("/dev/full")
    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="No space left") as caught:
        network.save(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    event = worker._failed(caught.value)
    finished: Finished[Any] = Finished(None, event.status, event.kind, event.message, event.hint)
    with pytest.raises(UserError) as failure:
        finished.require("exporting x", tmp_path / "log.txt")
    assert failure.value.message == (
        f"Cannot write {tmp_path}/tensors.safetensors: {caught.value.strerror}."
    )
    assert "THAWBENCH_CACHE" in (failure.value.hint or "")


def test_other_errors_of_the_system_are_no_full_disk() -> None:
    assert unwritable(OSError(errno.EIO, "input/output error")) is None
    assert worker._failed(OSError(errno.EIO, "input/output error")).status == "crashed"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_mends_it_depends_on_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))

    def message(*where: str) -> str:
        error = unwritable(OSError(number, "not so", *where), "/results")
        return str(error)

    assert "THAWBENCH_CACHE" in message(str(tmp_path / "cache" / "packed" / "x"))
    verb = "read or write" if number == errno.EACCES else "write"
    assert message("/results/y").startswith(f"Cannot {verb} /results/y: not so.\nFinished runs are")
    assert message().startswith(f"Cannot {verb} /results: not so.\nFinished runs are kept")


def test_a_command_that_finds_the_cache_read_only_says_what_to_set(
    here: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cache" / "logs" / "describe.txt"

    def read_only(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system", str(place))

    monkeypatch.setattr("bench.cli.doctor.findings", read_only)
    done = here("doctor")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: Cannot write {place}: Read-only file system.")
    assert "set THAWBENCH_CACHE" in done.stderr
