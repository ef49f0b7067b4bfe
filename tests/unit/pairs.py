"""Pairs, levels and recorded values of proofs, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.network.blueprint import Network
from bench.parity.exchange import RecordedValues
from bench.parity.model import Level, PairProof
from bench.parity.tolerances import LEVELS, NEED_LOW_FLOOR
from bench.storage.code_digest import digest_of_rooms


def level(name: str = "logits", **changes: Any) -> Level:
    """Return a level in float64 that passed, with changes."""
    fields: dict[str, Any] = {
        "name": name,
        "value": 0.0,
        "tolerance": LEVELS[name]["fp64"],
        "floor": None,
        "passed": True,
    }
    return Level.model_validate({**fields, **changes})


BROKEN = level(value=1e-3, passed=False, detail="logits")
"""A level that shows a difference."""
INCONCLUSIVE = level("losses", value=1e-9, floor=1e-9, passed=False)
"""An inconclusive level: its noise floor explains the difference."""


QUIET = dict.fromkeys(("logits", "activations", "gradients", *NEED_LOW_FLOOR), 1e-16)
"""Noise floors far below every tolerance."""


def level_values(network: Network) -> dict[str, RecordedValues]:
    """Return values of every level, as one backend records them."""
    random = np.random.default_rng(0)
    blueprint = network.blueprint
    prefix = random.normal(size=(4, 8, 8, 4))
    return {
        "pixels": {"pixels": random.normal(size=(2, 3, 8, 8))},
        "initial_head": {"classifier.1.weight": random.normal(size=(10, 6))},
        "logits": {"logits": random.normal(size=(4, 10))},
        "activations": {o.name: random.normal(size=(2, *o.shape)) for o in blueprint.operations},
        "gradients": {n: random.normal(size=s) for n, s in blueprint.shapes.items()},
        "state_after_one_step": {n: random.normal(size=s) for n, s in blueprint.shapes.items()},
        "losses": {"losses": np.linspace(2.0, 1.0, 10)},
        "logits_after_steps": {"logits": random.normal(size=(4, 10))},
        "epoch_losses": {"losses": np.array([2.0, 1.5, 1.2, 1.0])},
        "logits_after_epochs": {"logits": random.normal(size=(4, 10))},
        "restored_losses": {"losses": np.array([2.0, 1.5])},
        "resumed": {"plain": prefix, "folded": prefix.copy(), "activation": prefix[:2].copy(),
                    "losses": np.array([2.0, 1.5])},
        "frozen": {"changed": np.zeros(3)},
        "metrics": {"metrics": np.array([0.5, 1.25, 1.25])},
    }  # fmt: skip


def pair(**changes: Any) -> PairProof:
    """Return a pair that passed, with changes."""
    fields: dict[str, Any] = {
        "backbone": "squeezenet1_1",
        "network_digest": "n" * 12,
        "policy_digest": "p" * 12,
        "policy": "retrain_all",
        "boundary": "all",
        "optimizer": "sgd",
        "backends": ("torch", "keras-tensorflow"),
        "dtype": "float64",
        "passed": True,
        "levels": tuple(level(n, floor=1e-15 if n in NEED_LOW_FLOOR else None) for n in LEVELS),
        "first_difference": None,
        "loss_fall": 0.2,
        "learning_rate": 1e-3,
        "px": 64,
        "batch_size": 4,
        "head": "original",
        "weights": "pretrained",
        "environments": ("torch-1", "keras-1"),
        "reason": None,
        "harness": digest_of_rooms("proof"),
    }
    return PairProof.model_validate({**fields, **changes})
