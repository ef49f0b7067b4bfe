"""Logits of networks with their own classifiers, by one backend, in inference form.

``python -m tests.parity.logits_worker BACKEND PRECISION FOLDER``. The folder's ``items.json`` holds
name → folder of the Blueprint; ``NAME-images.npy`` holds its uint8 images (N, px, px, 3), and
``NAME-BACKEND.npy`` gets its logits (N, classes).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.network.blueprint import Network
from bench.network.freezing import plan_training
from bench.spec.plain import plain_recipe


def main(backend: str, precision: str, folder: Path) -> None:
    """Write the logits of every item."""
    adapter = load_adapter(backend, BACKENDS[backend].adapter)
    for name, blueprint in json.loads((folder / "items.json").read_text()).items():
        network = Network.load(Path(blueprint))
        changes = {"px": network.blueprint.px, "precision": precision}
        recipe = plain_recipe("original").model_copy(update=changes)
        plan = plan_training(network.blueprint, POLICIES["freeze_all"])
        trainer = adapter.build(network, plan, recipe, "cpu")
        handle = trainer.infer(np.load(folder / f"{name}-images.npy"))
        np.save(folder / f"{name}-{backend}.npy", trainer.logits([handle]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    sys.stdout.flush()
    # Not through the interpreter's teardown: frameworks crash there at times, after the work.
    os._exit(0)
