"""Each class of an adapter has the methods of the Protocol that it claims to satisfy.

mypy checks the same with types; this test also runs where mypy does not.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from bench.catalog.backends import BACKENDS
from bench.system import project_root
from tests.frameworks import HERE

CHECK = """
import importlib, inspect, json, sys
from bench.training import adapter as protocols

def parameters(function):
    return [p.name for p in inspect.signature(function).parameters.values()]

missing = []
for module, name, protocol in json.loads(sys.argv[1]):
    given = getattr(importlib.import_module(module), name)
    wanted = getattr(protocols, protocol)
    for method in dir(wanted):
        if method[0] != "_" and inspect.isfunction(getattr(wanted, method)):
            found = getattr(given, method, None)
            if found is None or parameters(found) != parameters(getattr(wanted, method)):
                missing.append(f"{name}.{method}")
print(json.dumps(missing))
"""
CLAIMS = {
    "torch": [
        ["backends.torch_adapter", "TorchAdapter", "Adapter"],
        ["backends.torch_adapter.trainer", "TorchTrainer", "MatchedTrainer"],
        ["backends.torch_adapter.native.trainer", "NativeTorchTrainer", "Trainer"],
        ["backends.torch_adapter.prefix", "TorchPrefix", "Prefix"],
        ["backends.torch_adapter.heads", "TorchHeads", "HeadsTrainer"],
    ],
    "keras-torch": [
        ["backends.keras_adapter", "KerasAdapter", "Adapter"],
        ["backends.keras_adapter.trainer", "KerasTrainer", "MatchedTrainer"],
        ["backends.keras_adapter.native.trainer", "NativeKerasTrainer", "Trainer"],
        ["backends.keras_adapter.prefix", "KerasPrefix", "Prefix"],
        ["backends.keras_adapter.heads", "KerasHeads", "HeadsTrainer"],
    ],
}
"""Backend → module, class and the Protocol that it claims to satisfy."""


@pytest.mark.parametrize("backend", CLAIMS)
def test_every_class_satisfies_its_protocol(backend: str) -> None:
    done = subprocess.run(
        [str(HERE.of(backend)), "-c", CHECK, json.dumps(CLAIMS[backend])],
        env=BACKENDS[backend].environment(os.environ, "cpu"),
        capture_output=True, text=True, timeout=900, cwd=project_root(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []
