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
    """Import ``bench.report`` when it is first used."""
    if name == "report":
        return import_module("bench.report")
    raise AttributeError(f"module 'bench' has no attribute '{name}'")


def results(*folders: str | Path) -> pd.DataFrame:
    """Return the runs of results folders, such as ``results/runs/quick``, as a pandas frame.

    It has one row a run and units in column names. Shares are fractions, not percent; values that
    could not be measured are missing.
    ``attrs["columns"]`` describes each column, ``attrs["environments"]`` the machines and versions,
    ``attrs["problems"]`` the folders that could not be read.

    Raises:
        UserError: A folder does not exist, or none holds a run.
    """
    from bench.analysis import frame

    return frame.results(*folders)


def curves(*folders: str | Path) -> pd.DataFrame:
    """Return one row an epoch: run_id, environment_id, epoch, train_loss and val_top1.

    Folders and errors are those of ``results``.
    """
    from bench.analysis import frame

    return frame.curves(*folders)
