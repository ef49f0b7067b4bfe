"""Thawbench: the same transfer-learning experiment through PyTorch and Keras.

Nothing in this package imports a deep-learning framework; those live in ``backends`` and run in
worker processes of their own.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from bench.system import VERSION

if TYPE_CHECKING:
    import pandas as pd

__version__ = VERSION


def __getattr__(name: str) -> ModuleType:
    """``bench.report`` without an import of its own."""
    if name == "report":
        return import_module("bench.report")
    raise AttributeError(f"module 'bench' has no attribute '{name}'")


def results(*folders: str | Path) -> pd.DataFrame:
    """The runs of results folders as a pandas frame: one row a run, units in the columns' names.

    Fractions, not percent; what could not be measured is missing. ``attrs["columns"]`` says what
    each column is, ``attrs["environments"]`` where the runs were made, ``attrs["problems"]`` which
    folders could not be read.

    Args:
        folders: Such as ``results/runs/quick``.

    Raises:
        UserError: A folder does not exist, or there is no run in any.
    """
    from bench.analysis import frame

    return frame.results(*folders)


def curves(*folders: str | Path) -> pd.DataFrame:
    """The epochs of these runs: run_id, environment_id, epoch, train_loss and val_top1.

    Args:
        folders: Such as ``results/runs/quick``.

    Raises:
        UserError: A folder does not exist, or there is no run in any.
    """
    from bench.analysis import frame

    return frame.curves(*folders)
