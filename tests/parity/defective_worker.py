"""Measure one backend without defects, then with one planted defect after another.

Run as ``python -P -m tests.parity.defective_worker BACKEND FOLDER``. The folder holds the Blueprint
and the images. Values are written into BACKEND-sound/ITEM and BACKEND/DEFECT, and after the last
defect, from the sound adapter again, into BACKEND-afterwards/ITEM. A line "sound" on standard
output reports that the sound values are complete. A defect that raises an exception leaves it in
its folder as error.txt.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.parity.inputs import load_split
from bench.parity.probe import probe
from bench.training.adapter import Adapter
from tests.parity.defects import DEFECTS, QUESTIONS, item
from tests.parity.plants import Plant

MODULES = {
    "torch": "tests.parity.plants_torch",
    "keras-tensorflow": "tests.parity.plants_keras",
}
"""Backend → module that defines its ``PLANTS``."""
FLOORS_FROM = "keras-tensorflow"
SOUND = Plant()
"""The adapter without a defect."""
RATES = "rates.json"


def main(backend: str, folder: Path) -> None:
    """Measure all items and defects."""
    adapter = load_adapter(backend, BACKENDS[backend].adapter)
    plants: dict[str, Plant] = importlib.import_module(MODULES[backend]).PLANTS
    split = load_split(folder / "data.npz")
    blueprint = "blueprint"
    floors = backend == FLOORS_FROM
    rates = {} if floors else json.loads((folder / RATES).read_text())

    def measure(adapter: Adapter, key: str, out: str, plant: Plant = SOUND) -> float:
        probed = item(key, blueprint).model_copy(update={"learning_rate": rates.get(key)})
        with plant.planted(adapter) as planted:
            facts = probe(planted, probed, split, "cpu", folder / out, not rates, plant.batches)
        gc.collect()
        rate: float = facts["learning_rate"]
        return rate

    found = {key: measure(adapter, key, f"{backend}-sound/{key}") for key in QUESTIONS}
    if floors:
        (folder / RATES).write_text(json.dumps(found))
        rates = found
    print("sound", flush=True)
    for name, defect in DEFECTS.items():
        try:
            measure(adapter, defect.item, f"{backend}/{name}", plants[name])
        except Exception:
            out = folder / backend / name
            out.mkdir(parents=True, exist_ok=True)
            (out / "error.txt").write_text(traceback.format_exc())
    for key in QUESTIONS:
        measure(adapter, key, f"{backend}-afterwards/{key}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.flush()
    # Skip the interpreter's teardown, in which frameworks crash at times.
    os._exit(0)
