"""Pairs for tests, as a proof leaves them."""

from __future__ import annotations

from typing import Any

from bench.catalog.tolerances import LEVELS
from bench.parity.model import Level, Pair
from bench.parity.proofs import harness


def level(name: str = "logits", **changes: Any) -> Level:
    """A level in float64 that passed."""
    fields: dict[str, Any] = {
        "name": name,
        "value": 0.0,
        "tolerance": LEVELS[name]["fp64"],
        "floor": None,
        "passed": True,
    }
    return Level.model_validate({**fields, **changes})


BROKEN = level(value=1e-3, passed=False, detail="logits")
"""It shows a difference."""
BLUNT = level("losses", value=1e-9, floor=1e-9, passed=False)
"""It says nothing: one backend moves as far by itself."""


def pair(**changes: Any) -> Pair:
    """A pair that passed."""
    fields: dict[str, Any] = {
        "backbone": "squeezenet1_1",
        "policy": "retrain_all",
        "boundary": "all",
        "optimizer": "sgd",
        "backends": ("torch", "keras-tensorflow"),
        "dtype": "float64",
        "passed": True,
        "levels": tuple(level(name) for name in LEVELS),
        "first_difference": None,
        "loss_fall": 0.2,
        "learning_rate": 1e-3,
        "px": 64,
        "batch_size": 4,
        "head": "original",
        "weights": "pretrained",
        "environments": ("torch-1", "keras-1"),
        "reason": None,
        "harness": harness(),
    }
    return Pair.model_validate({**fields, **changes})
