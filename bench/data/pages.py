"""Generated pages of sixteen kinds, in RVL-CDIP's layout, for whoever has not got the real ones."""

from __future__ import annotations

import json
from pathlib import Path

from bench.data.atomic import build_folder
from bench.data.page_drawing import KINDS, draw_page
from bench.errors import UserError

# Raise it when any page changes: it names the folder, so old pages are left alone.
PAGES_REVISION = 1
# RVL-CDIP's classes in its order: the position is the label.
PAGE_CLASSES = tuple(KINDS)
# Pages of each class.
_PER_CLASS = {"train": 50, "val": 10, "test": 65}
_MANIFEST = "manifest.json"


def generated_pages(cache_dir: Path) -> Path:
    """Return the folder with the generated pages, made now if the cache has none.

    Raises:
        UserError: If the cache cannot be written.
    """
    final = cache_dir / "synthetic_rvl_cdip" / str(PAGES_REVISION)
    if not _is_good(final):
        try:
            build_folder(final, _write, _is_good)
        except OSError as error:
            raise UserError(
                f"Cannot write the generated pages under {cache_dir}: {error.strerror or error}",
                "Set THAWBENCH_CACHE to a folder that can be written to.",
            ) from error
    return final


def _write(folder: Path) -> None:
    file_bytes: dict[str, int] = {}
    (folder / "labels").mkdir()
    first = 0
    for split, count in _PER_CLASS.items():
        lines: list[str] = []
        for number in range(first, first + count):
            for label, kind in enumerate(PAGE_CLASSES):
                relative = f"images/{split}/{label:02d}/{number:03d}.tif"
                path = folder / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                draw_page(kind, number).save(path, compression="tiff_lzw")
                file_bytes[relative] = path.stat().st_size
                lines.append(f"{relative.removeprefix('images/')} {label}\n")
        labels = folder / "labels" / f"{split}.txt"
        labels.write_text("".join(lines), encoding="utf-8")
        file_bytes[f"labels/{split}.txt"] = labels.stat().st_size
        first += count
    (folder / _MANIFEST).write_text(json.dumps(file_bytes), encoding="utf-8")


def _is_good(folder: Path) -> bool:
    """Tell whether every file is there with the size that it was written with."""
    try:
        file_bytes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in file_bytes.items())
    except (OSError, ValueError, AttributeError):
        return False
