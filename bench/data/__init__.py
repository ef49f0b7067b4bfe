"""Data sets: from a name to memory-mapped uint8 pixels."""

from __future__ import annotations

from bench.data.model import Dataset, FileRules, Packed, Split, SplitSizes
from bench.data.packing import BrokenPackError, data_sha256, load_packed, pack, packed_path
from bench.data.registry import EMBEDDED, dataset_kinds, has_path, open_dataset

__all__ = [
    "EMBEDDED", "BrokenPackError", "Dataset", "FileRules", "Packed", "Split", "SplitSizes",
    "data_sha256", "dataset_kinds", "has_path", "load_packed", "open_dataset", "pack",
    "packed_path",
]  # fmt: skip
