"""What the options of ``run`` mean where runs are chosen among results."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bench.backbones import check_name, public_name, weights_choice
from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS
from bench.catalog.cases import CASES
from bench.catalog.policies import POLICIES
from bench.data.catalogue import EMBEDDED
from bench.errors import UserError
from bench.head import hidden_units
from bench.report.twins import Row
from bench.spec import Mode, Precision, PrefixCache, Status, TuneName

PATHS = ("folder", "rvl_cdip")
"""Kinds of data sets that have a path, of which results hold the base name."""
WEIGHTS = ("pretrained", "random")


def _as_it_is(value: Any, rows: Sequence[Row]) -> Any:
    return value


def _never(value: Any) -> bool:
    return False


@dataclass(frozen=True)
class Option:
    """An option."""

    field: str
    """Of a row."""
    word: str
    """What a value of it is called."""
    names: Sequence[str] = ()
    """Those that Thawbench knows."""
    is_another: Callable[[Any], bool] = _never
    """Whether something that is not among the names can be meant all the same."""
    stored: Callable[[Any, Sequence[Row]], Any] = _as_it_is
    """A value of the command line as results have it."""

    def is_known(self, value: Any) -> bool:
        """Whether ``run`` would take it."""
        return str(value) in self.names or self.is_another(value)

    def matches(self, row: Row, wanted: Any) -> bool:
        """Whether a row has a value."""
        return bool(wanted == row[self.field] or wanted is ANY)

    def lets_through(self, row: Row, wanted: Sequence[Any]) -> bool:
        """Whether a row has one of several values."""
        return any(self.matches(row, value) for value in wanted)


ANY = object()
"""Any value."""


@dataclass(frozen=True)
class Weights(Option):
    """``[BACKBONE=]pretrained``, random or a file, as (backbone or '', weights)."""

    def matches(self, row: Row, wanted: Any) -> bool:
        backbone, weights = wanted
        if backbone not in ("", row["backbone"]):
            return False
        is_file = str(row["weights"]).startswith(f"file {Path(weights).name} ")
        return bool(is_file or row["weights"] == weights)

    def lets_through(self, row: Row, wanted: Sequence[Any]) -> bool:
        """What is said of one backbone leaves the others as they are, and goes before what is said
        of all."""
        own = [want for want in wanted if want[0] == row["backbone"]]
        mine = own or [want for want in wanted if not want[0]]
        return not mine or any(self.matches(row, want) for want in mine)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_head(head: str) -> bool:
    try:
        hidden_units(head)
    except UserError:
        return False
    return True


def _is_backbone(name: str) -> bool:
    try:
        check_name("backbone", name)
    except UserError:
        return False
    return True


def _dataset(name: str, rows: Sequence[Row]) -> str:
    kind, colon, path = name.partition(":")
    if kind not in PATHS or not colon:
        return name
    base = os.path.basename(os.path.abspath(os.path.expanduser(path)))
    return f"{kind}:{base or 'root'}"


def _device(name: str, rows: Sequence[Row]) -> Any:
    """``auto`` is the first GPU, or else the CPU; ``all`` is all."""
    if name == "all":
        return ANY
    if name != "auto":
        return name
    gpus = [str(row["device"]) for row in rows if row["device"] != "cpu"]
    return min(gpus, key=lambda gpu: (len(gpu), gpu), default="cpu")


def _weights(text: str, rows: Sequence[Row]) -> tuple[str, str]:
    backbone, weights = weights_choice(text)
    return public_name(backbone), weights


def _is_path(wanted: tuple[str, str]) -> bool:
    weights = wanted[1]
    return weights in WEIGHTS or "." in weights or os.sep in weights


OPTIONS: dict[str, Option] = {
    "cases": Option("case", "case", [str(case) for case in CASES]),
    "datasets": Option(
        "dataset", "data set", EMBEDDED, lambda name: name.partition(":")[0] in PATHS, _dataset
    ),
    "backbones": Option(
        "backbone", "backbone", list(BACKBONES), _is_backbone, lambda name, _: public_name(name)
    ),
    "policies": Option("policy", "policy", list(POLICIES)),
    "backends": Option("backend", "backend", list(BACKENDS)),
    "seeds": Option("seed", "seed", (), _is_number),
    "head": Option("head", "head", ("original", "linear"), _is_head),
    "precision": Option("precision", "precision", get_args(Precision)),
    "mode": Option("mode", "mode", get_args(Mode)),
    "px": Option("px", "px", (), _is_number),
    "epochs": Option("epochs", "number of epochs", (), _is_number),
    "batch_size": Option("batch_size", "batch size", (), _is_number),
    "weights": Weights("weights", "weights", WEIGHTS, _is_path, _weights),
    "learning_rates": Option("learning_rate", "learning rate", (), _is_number),
    "weight_decays": Option("weight_decay", "weight decay", (), _is_number),
    "prefix_cache": Option("prefix_cache", "prefix cache", get_args(PrefixCache)),
    "tune": Option("tune", "tuning", get_args(TuneName)),
    "device": Option(
        "device", "device", ("cpu", "auto", "all"),
        lambda name: bool(re.fullmatch(r"cuda:\d+", str(name))), _device,
    ),
    "status": Option("status", "status", get_args(Status)),
}  # fmt: skip
"""Option of ``report``, as a field of ``Filters`` → what it means."""
