"""Downloads from a server on this machine: whole files, damage, and hosts that do not answer."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.errors import Unavailable
from bench.storage import download
from bench.storage.download import PATIENCE_S, download_file

CONTENT = b"good weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Serves ``CONTENT``; '/short' ends before the promised length, and '/absent' is a 404."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/absent" else 200)
        promised = len(CONTENT) + 5 * (self.path == "/short")
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *args: Any) -> None:
        """Write no log."""


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_problems", {})
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server() -> Iterator[str]:
    """Start a server without HEAD, like some real ones; return its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "net.pth"


@pytest.mark.parametrize(
    ("digest", "algorithm"), [(SHA256, "sha256"), (SHA256[:8], "sha256"), (MD5, "md5"), ("", "md5")]
)
def test_a_file_is_checked_and_put_in_place(
    server: str, target: Path, digest: str, algorithm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert download_file(f"{server}/net", target, digest, algorithm) == target
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o044 == 0o044, "others may read a shared cache"
    assert capfd.readouterr() == ("", f"downloading {server}/net\n")


@pytest.mark.parametrize(
    ("path", "digest", "message"),
    [
        ("net", "0" * 64, r"net is damaged: its SHA-256 is not 00000000…"),
        ("short", "", r"short could not be saved as .*net.pth: .*12 bytes read, 5 more expected"),
        ("absent", "", "404 Client Error: Not Found"),
    ],
)
def test_a_failed_download_leaves_what_was_there(
    server: str, target: Path, path: str, digest: str, message: str
) -> None:
    for before in ([], [target]):
        with pytest.raises(Unavailable, match=message):
            download_file(f"{server}/{path}", target, digest)
        assert list(target.parent.iterdir()) == before
        target.write_bytes(b"older")
    assert download_file(f"{server}/net", target).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="could not be saved"):
        download_file(f"{server}/net", tmp_path / "file" / "net.pth")


def test_a_host_that_was_not_reached_is_not_asked_again(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"http://127.0.0.1:{port}/net"
    with pytest.raises(Unavailable, match=rf"127.0.0.1:{port} cannot be reached \(.*refused"):
        download_file(address, target)
    with (
        ThreadingHTTPServer(("127.0.0.1", port), _Handler),
        pytest.raises(Unavailable, match="refused"),
    ):
        download_file(address, target)
    assert not target.parent.exists()


@pytest.mark.parametrize("silent", ["host", "name server"])
def test_a_network_that_hangs_is_given_up(
    target: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    assert PATIENCE_S < 5  # two hosts within 10 s
    monkeypatch.setattr(download, "PATIENCE_S", 0.2)
    over = threading.Event()

    def hang(*args: Any, **more: Any) -> list[Any]:
        over.wait(30)
        return []

    with socket.create_server(("127.0.0.1", 0)) as listening:
        if silent == "name server":
            monkeypatch.setattr(socket, "getaddrinfo", hang)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="cannot be reached"):
            download_file(f"http://127.0.0.1:{listening.getsockname()[1]}/net", target)
        assert time.monotonic() - began < 1
        over.set()
