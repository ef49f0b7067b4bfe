"""Packing: a data set is decoded once into uint8 pixels on disk, which runs map into memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from bench.data.decode import quiet_pillow
from bench.data.model import SPLITS, Dataset, Packed, Resize, Split, SplitName, UnreadableImageError
from bench.data.threads import thread_pool
from bench.errors import UserError
from bench.storage.arrays import mapped_array
from bench.storage.atomic import build_folder
from bench.storage.cache import cached_folder
from bench.storage.checksums import crc32_of_file, sha256_of_texts
from bench.storage.code_digest import data_digest

PILLOW = PIL.__version__

_META = "meta.json"
_CHUNK = 256
"""Images handed to the threads at a time; an interruption waits for these only."""
_MOST_NAMED = 5
"""Unreadable files that a message names."""


class BrokenPackError(Exception):
    """A packed folder is missing or incomplete, or differs from its ``meta.json``."""


def pack(dataset: Dataset, px: int, cache_dir: Path, resize: Resize = "antialias") -> Packed:
    """Decode a data set, unless that was done before, and return it memory-mapped.

    Args:
        dataset: The data set, from ``open_dataset``.
        px: Height and width of the packed images, in pixels.
        cache_dir: Root of the cache; created if need be.
        resize: Filter for making images smaller.

    Raises:
        UserError: Images cannot be read, or the cache cannot be written or has no room.
    """
    if px < 1:
        raise UserError(f"Images of {px} px were requested; at least 1 px is needed.")
    final = packed_path(pack_key(dataset, px, resize), cache_dir)
    try:
        return _load_sound(final)
    except BrokenPackError:
        pass
    try:
        build_folder(final, lambda folder: _write(dataset, px, resize, folder), _is_good)
    except OSError as error:
        raise UserError(
            f"Cannot write the packed images under {cache_dir}: {error.strerror or error}",
            "Set THAWBENCH_CACHE to a folder that can be written to.",
        ) from error
    return load_packed(final)


def packed_path(key: str, cache: Path | None = None) -> Path:
    """Return the folder of packed images; see ``cached_folder``."""
    return cached_folder("packed", key, cache)


def load_packed(path: Path) -> Packed:
    """Open a packed folder.

    Args:
        path: The folder, ``Packed.path``.

    Raises:
        BrokenPackError: A file is missing, unreadable or of the wrong size. Checksums are not
            compared, because ``pack`` did that.
    """
    try:
        meta = json.loads((path / _META).read_text(encoding="utf-8"))
        if meta["key"] != path.name:
            raise BrokenPackError(f"{path} is not the pack that its name says")
        for name, size in meta["file_bytes"].items():
            if (path / name).stat().st_size != size:
                raise BrokenPackError(f"{path / name} has the wrong size")
        splits = {split: _load_split(path, split) for split in SPLITS}
        for split in SPLITS:
            if splits[split].images.shape != (meta["images"][split], meta["px"], meta["px"], 3):
                raise BrokenPackError(f"{path} does not hold as many images as its meta.json says")
        return Packed(classes=tuple(meta["classes"]), path=path, **splits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise BrokenPackError(f"{path} is not a complete packed data set: {error}") from error


def _load_sound(path: Path) -> Packed:
    """Open a packed folder and compare the checksums of its files.

    Raises:
        BrokenPackError: As for ``load_packed``, or a file was changed.
    """
    packed = load_packed(path)
    try:
        meta = json.loads((path / _META).read_text(encoding="utf-8"))
        written = meta["checksums"]
        changed = [name for name in written if crc32_of_file(path / name) != written[name]]
        if changed or set(written) != set(meta["file_bytes"]):
            raise BrokenPackError(f"{path} was changed after it was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenPackError(f"{path} is not a complete packed data set: {error}") from error
    return packed


def _is_good(path: Path) -> bool:
    try:
        _load_sound(path)
    except BrokenPackError:
        return False
    return True


def pack_key(dataset: Dataset, px: int, resize: Resize = "antialias") -> str:
    """Return the key of a packed data set: the name of its folder in the cache."""
    return sha256_of_texts([dataset.content_hash, str(px), resize, data_digest(), PILLOW])[:32]


def unreadable_error(failures: list[str]) -> UserError:
    """Return the error for images that cannot be decoded.

    Args:
        failures: 'FILE: reason' for each image; the message holds the first few.
    """
    named = "".join(f"\n  {failure}" for failure in failures[:_MOST_NAMED])
    more = f"\n  … and {len(failures) - _MOST_NAMED} more" if len(failures) > _MOST_NAMED else ""
    count = "1 image" if len(failures) == 1 else f"{len(failures)} images"
    return UserError(
        f"{count} cannot be read:{named}{more}",
        "Remove them, or leave them out with --skip-unreadable.",
    )


def _load_split(path: Path, split: SplitName) -> Split:
    images = np.load(path / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(path / f"{split}_labels.npy", allow_pickle=False)
    if images.dtype != np.uint8 or labels.dtype != np.int64 or len(images) != len(labels):
        raise BrokenPackError(f"{path} holds arrays of the wrong kind")
    labels.flags.writeable = False
    return Split(images=images, labels=labels)


def _write(dataset: Dataset, px: int, resize: Resize, folder: Path) -> None:
    labels = {split: dataset.source.labels(split) for split in SPLITS}
    _check_room(folder, sum(map(len, labels.values())) * px * px * 3)
    failures: list[str] = []
    with quiet_pillow(), thread_pool() as pool:
        for split in SPLITS:
            np.save(folder / f"{split}_labels.npy", labels[split])
            shape = (len(labels[split]), px, px, 3)
            images = mapped_array(folder / f"{split}_images.npy", np.uint8, shape)
            failures.extend(_decode_split(dataset, split, px, resize, images, pool))
            images.flush()
    if failures:
        raise unreadable_error(failures)
    _write_meta(dataset, px, resize, folder)


def _decode_split(
    dataset: Dataset,
    split: SplitName,
    px: int,
    resize: Resize,
    images: npt.NDArray[np.uint8],
    pool: ThreadPoolExecutor,
) -> Iterator[str]:
    """Decode one split into its file; yield 'FILE: reason' for each unreadable image."""

    def decode(index: int) -> str | None:
        try:
            images[index] = dataset.source.read(split, index, px, resize)
        except UnreadableImageError as error:
            return f"{dataset.source.where(split, index)}: {error}"
        return None

    for start in range(0, len(images), _CHUNK):
        chunk = range(start, min(start + _CHUNK, len(images)))
        yield from (failure for failure in pool.map(decode, chunk) if failure is not None)


def _write_meta(dataset: Dataset, px: int, resize: Resize, folder: Path) -> None:
    arrays = sorted(folder.glob("*.npy"))
    meta = {
        "key": pack_key(dataset, px, resize),
        "name": dataset.name,
        "content_hash": dataset.content_hash,
        "px": px,
        "resize": resize,
        "classes": list(dataset.classes),
        "images": {
            "train": dataset.train_images,
            "val": dataset.val_images,
            "test": dataset.test_images,
        },
        "file_bytes": {path.name: path.stat().st_size for path in arrays},
        "checksums": {path.name: crc32_of_file(path) for path in arrays},
        "pillow": PILLOW,
    }
    (folder / _META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _check_room(folder: Path, needed_bytes: int) -> None:
    """Raise UserError before anything is decoded if the disk has too little room."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"Packing needs {needed_bytes / 1e9:.2f} GB under {folder.parent}; "
            f"{free_bytes / 1e9:.2f} GB are free.",
            "Make room, set THAWBENCH_CACHE to another disk, take fewer images or a smaller --px.",
        )
