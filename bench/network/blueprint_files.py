"""Blueprints in the cache: their folders, writing, and checks that they are complete."""

from __future__ import annotations

import json
from pathlib import Path

from bench.network.blueprint import Blueprint, Network
from bench.storage.atomic import build_folder
from bench.storage.cache import cached_folder
from bench.storage.checksums import crc32_of_file

FILES = ("blueprint.json", "tensors.safetensors")
CHECKSUMS = "checksums.json"
"""File with the CRC-32 of each of ``FILES``."""


def blueprint_path(key: str, cache: Path | None = None) -> Path:
    """Return the folder of a Blueprint with tensors."""
    return cached_folder("blueprints", key, cache)


def architecture_path(key: str, cache: Path | None = None) -> Path:
    """Return the folder of a Blueprint without tensors."""
    return cached_folder("architectures", key, cache)


def save_blueprint(network: Network, key: str) -> None:
    """Write a network into the cache unless it is there."""

    def write(content: Path) -> None:
        network.save(content)
        write_checksums(content)

    build_folder(blueprint_path(key), write, is_whole)


def save_architecture(blueprint: Blueprint, key: str) -> None:
    """Write a Blueprint without tensors into the cache unless it is there."""
    build_folder(architecture_path(key), blueprint.save, is_readable)


def is_readable(folder: Path) -> bool:
    """Return True if a folder holds a Blueprint."""
    try:
        Blueprint.load(folder)
    except (OSError, ValueError):
        return False
    return True


def is_whole(folder: Path) -> bool:
    """Return True if a folder holds a Blueprint and tensors that match their checksums."""
    try:
        written = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        return is_readable(folder) and written == _checksums(folder)
    except (OSError, ValueError):
        return False


def write_checksums(folder: Path) -> None:
    """Record the checksums of a Blueprint's files, for ``is_whole``."""
    (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder)) + "\n", encoding="utf-8")


def _checksums(folder: Path) -> dict[str, int]:
    return {name: crc32_of_file(folder / name) for name in FILES}
