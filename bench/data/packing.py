"""Packing: a data set is decoded once into uint8 pixels on disk, which runs map into memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL

from bench.data.decode import UnreadableImageError, decoding_threads
from bench.data.image_files import unreadable_error
from bench.data.model import SPLITS, Dataset, Packed, Pixels, Resize, Split, SplitName
from bench.errors import UserError
from bench.storage.arrays import mapped_array
from bench.storage.cache import cached_folder, ensure_folder
from bench.storage.checksums import crc32_of_file, sha256_of_texts
from bench.storage.code_digest import digest_of_rooms

_META = "meta.json"
_SAMPLED = 64
"""About how many images of a split enter its hash."""
_CHUNK = 256
"""Images handed to the threads at a time; an interruption waits for these only."""


class BrokenPackError(Exception):
    """A packed folder is missing or incomplete, or differs from its ``meta.json``."""


def pack(dataset: Dataset, px: int, cache_dir: Path, resize: Resize = "antialias") -> Packed:
    """Decode a data set, unless that was done before, and return it memory-mapped.

    Args:
        px: Height and width of the packed images, in pixels.
        cache_dir: Root of the cache; created if need be.
        resize: Filter for making images smaller.

    Raises:
        UserError: Images cannot be read, or the cache cannot be written or has no room.
    """
    if px < 1:
        raise UserError(f"Images of {px} px were requested; at least 1 px is needed.")
    final = packed_path(pack_key(dataset, px, resize), cache_dir)
    ensure_folder(
        final, lambda folder: _write(dataset, px, resize, folder), _is_good, "packed images"
    )
    return load_packed(final)


def pack_key(dataset: Dataset, px: int, resize: Resize = "antialias") -> str:
    """Return the key of a packed data set: the name of its folder in the cache."""
    texts = [dataset.content_hash, str(px), resize, digest_of_rooms("pixels"), PIL.__version__]
    return sha256_of_texts(texts)[:32]


def packed_path(key: str, cache: Path | None = None) -> Path:
    """Return the folder of packed images; see ``cached_folder``."""
    return cached_folder("packed", key, cache)


def data_sha256(packed: Packed) -> str:
    """Return a hash of the pixels and labels of all splits: of the checksums that the files were
    compared with, and of labels and a sample of images as this process reads them."""
    meta = json.loads((packed.path / _META).read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps(meta["checksums"], sort_keys=True).encode())
    for split in (packed.train, packed.val, packed.test):
        step = max(1, len(split.labels) // _SAMPLED)
        digest.update(np.ascontiguousarray(split.labels).data)
        digest.update(np.ascontiguousarray(split.images[::step]).data)
    return digest.hexdigest()


def load_packed(path: Path, *, compare_checksums: bool = False) -> Packed:
    """Open a packed folder, ``Packed.path``; raise BrokenPackError if a file is missing,
    unreadable, changed or of the wrong size. With ``compare_checksums`` every file is read, to find
    changes that keep its size; ``pack`` did so."""
    try:
        meta = json.loads((path / _META).read_text(encoding="utf-8"))
        if meta["key"] != path.name:
            raise BrokenPackError(f"{path} is not the pack that its name says")
        for name, size in meta["file_bytes"].items():
            if (path / name).stat().st_size != size:
                raise BrokenPackError(f"{path / name} has the wrong size")
        splits: dict[SplitName, Split] = {}
        for split in SPLITS:
            images = np.load(path / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(path / f"{split}_labels.npy", allow_pickle=False)
            if images.dtype != np.uint8 or labels.dtype != np.int64 or len(images) != len(labels):
                raise BrokenPackError(f"{path} holds arrays of the wrong kind")
            if images.shape != (meta["images"][split], meta["px"], meta["px"], 3):
                raise BrokenPackError(f"{path} does not hold as many images as its meta.json says")
            labels.flags.writeable = False
            groups = None
            if (name := f"{split}_groups.npy") in meta["file_bytes"]:
                groups = np.load(path / name, allow_pickle=False)
                if groups.dtype != np.int64 or groups.shape != labels.shape:
                    raise BrokenPackError(f"{path} holds groups of the wrong kind")
            splits[split] = Split(images, labels, groups)
        if compare_checksums:
            found = {name: crc32_of_file(path / name) for name in meta["file_bytes"]}
            if found != meta["checksums"]:
                raise BrokenPackError(f"{path} was changed after it was written")
        return Packed(classes=tuple(meta["classes"]), path=path, **splits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise BrokenPackError(f"{path} is not a complete packed data set: {error}") from error


def _is_good(path: Path) -> bool:
    try:
        load_packed(path, compare_checksums=True)
    except BrokenPackError:
        return False
    return True


def _write(dataset: Dataset, px: int, resize: Resize, folder: Path) -> None:
    labels = {split: dataset.source.labels(split) for split in SPLITS}
    needed_bytes = sum(map(len, labels.values())) * px * px * 3
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:  # said before anything is decoded
        raise UserError(
            f"Packing needs {needed_bytes / 1e6:,.1f} MB under {folder.parent}; "
            f"{free_bytes / 1e6:,.1f} MB are free.",
            "Make room, set THAWBENCH_CACHE to another disk, take fewer images or a smaller --px.",
        )
    failures: list[str] = []
    with decoding_threads() as pool:
        for split in SPLITS:
            np.save(folder / f"{split}_labels.npy", labels[split])
            groups = dataset.source.groups(split) if split == "test" else None
            if groups is not None:
                np.save(folder / f"{split}_groups.npy", groups)
            shape = (len(labels[split]), px, px, 3)
            images = mapped_array(folder / f"{split}_images.npy", np.uint8, shape)
            failures += _decode(dataset, split, resize, images, pool)
            images.flush()
    if failures:
        raise unreadable_error(failures)
    arrays = sorted(folder.glob("*.npy"))
    meta = {
        "key": pack_key(dataset, px, resize),
        "name": dataset.name,
        "content_hash": dataset.content_hash,
        "px": px,
        "resize": resize,
        "classes": list(dataset.classes),
        "images": {split: len(labels[split]) for split in SPLITS},
        "file_bytes": {path.name: path.stat().st_size for path in arrays},
        "checksums": {path.name: crc32_of_file(path) for path in arrays},
        "pillow": PIL.__version__,
    }
    (folder / _META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _decode(
    dataset: Dataset, split: SplitName, resize: Resize, images: Pixels, pool: ThreadPoolExecutor
) -> Iterator[str]:
    """Decode one split into its file; yield 'FILE: reason' for each unreadable image."""

    def decode(index: int) -> str | None:
        try:
            images[index] = dataset.source.read(split, index, images.shape[1], resize)
        except UnreadableImageError as error:
            return f"{dataset.source.where(split, index)}: {error}"
        return None

    for start in range(0, len(images), _CHUNK):
        chunk = range(start, min(start + _CHUNK, len(images)))
        yield from filter(None, pool.map(decode, chunk))
