"""Compute the values of frozen parts in each form with one backend.

Run as ``python -m tests.parity.forms_worker BACKEND FORM…``; prints one line of JSON: "form network
policy precision" → comparison with the plain form.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from backends.worker import load_adapter
from bench.catalog import backends as catalogue
from bench.catalog.policies import POLICIES
from bench.network.freezing import plan_training
from bench.network.frozen_prefix import boundary_of
from bench.spec.plain import plain_recipe
from bench.spec.run import Precision
from bench.training.adapter import Prefix
from bench.training.prefix_cache import Form, build_prefix
from tests.frameworks import BACKENDS
from tests.parity.small_networks import BATCH_SIZE, PX, small_network

IMAGES = np.random.default_rng(2).integers(0, 256, (2 * BATCH_SIZE + 1, PX, PX, 3), dtype=np.uint8)
"""Two full batches and one of a single image."""
CASES = (
    "residual freeze_all fp64",
    "residual fine_tune_last bf16",
    "separable freeze_all fp64",
    "plain fine_tune_last fp64",
)


def values(prefix: Prefix) -> Any:
    """Return the values (N, …) of all images, computed batch by batch."""
    parts = [IMAGES[i : i + BATCH_SIZE] for i in range(0, len(IMAGES), BATCH_SIZE)]
    return prefix.values([prefix.prefix(part) for part in parts])


def measure(
    backend: str, name: str, policy: str, form: Form, precision: Precision
) -> dict[str, Any]:
    """Compare a form with the plain one on one network."""
    adapter = load_adapter(backend, catalogue.BACKENDS[backend].adapter)
    network = small_network(name)
    plan = plan_training(network.blueprint, POLICIES[policy])
    recipe = plain_recipe("original").model_copy(
        update={"precision": precision, "px": PX, "batch_size": BATCH_SIZE}
    )
    trainer = adapter.build(network, plan, recipe, "cpu")
    boundary = boundary_of(network.blueprint, plan)
    assert boundary is not None
    plain = values(trainer)
    made = build_prefix(form, adapter, trainer, network.blueprint, boundary, recipe, "cpu")
    found = values(made)
    return {
        "form": made.prefix_form(),
        "compile": trainer.knobs()["compile"] if backend == "torch" else None,
        "shape": [plain.shape == found.shape, plain.dtype == found.dtype],
        "dtype": str(found.dtype),
        "gap": float(np.abs(plain - found).max() / np.abs(plain).max()),
        "spread": float(np.abs(plain[0] - plain[1]).max() / np.abs(plain).max()),
    }


def main() -> None:
    """Measure all cases; with Keras on an engine besides TensorFlow only the first."""
    backend, *forms = sys.argv[1:]
    found = {}
    for key in CASES if backend in BACKENDS else CASES[:1]:
        name, policy, precision = key.split()
        for form in forms:
            found[f"{form} {key}"] = measure(backend, name, policy, form, precision)  # type: ignore[arg-type]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
