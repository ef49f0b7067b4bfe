"""Small values for tests: a spec, an environment, a result, a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from bench.network.blueprint import Blueprint, Network
from bench.parity.run import THREADS
from bench.parity.scheduler import threads_per_worker
from bench.spec.result import RunResult
from bench.spec.run import Environment, RunSpec
from bench.storage.results import Store, StoredRun

if shared := threads_per_worker(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))):
    # Set before a framework is imported. Two test processes with two threads each: a test of
    # keras-torch in float64 takes 63 s; with one thread each 20 s; alone with two threads 25 s.
    os.environ |= dict.fromkeys(THREADS, str(shared))
settings.register_profile("unhurried", deadline=None)  # a busy machine would exceed a deadline
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/speed."""
    group = parser.getgroup("speed")
    group.addoption("--speed-size", choices=["smallest", "usual"], default="smallest")
    group.addoption("--speed-backends", default="torch,keras-tensorflow")
    group.addoption("--speed-compile", default="plain", help="plain, compiled or plain,compiled")
    group.addoption("--speed-device", default="cpu", help="cpu or cuda:N")


SPEC: dict[str, Any] = {
    "case": {
        "number": 1,
        "dataset": {
            "name": "photos",
            "label": "photos (stand-in)",
            "content_hash": "ab" * 32,
            "classes": ["cat", "coffee"],
            "train_images": 216,
            "val_images": 90,
            "test_images": 1080,
        },
        "size": "small",
        "similarity": "similar",
    },
    "backbone": "efficientnet_lite0",
    "weights": {"kind": "pretrained", "source": "some-package", "sha256": "cd" * 32},
    "policy": {
        "name": "freeze_all",
        "boundary": "head",
        "initialisation": "pretrained",
        "learning_rate_scale": 1.0,
        "backbone_scale": 1.0,
    },
    "recipe": {
        "head": "linear",
        "px": 96,
        "epochs": 12,
        "batch_size": 32,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup_fraction": 0.1,
        "augmentation": "none",
        "precision": "fp32",
    },
    "backend": "torch",
    "device": "cpu",
    "seed": 0,
}

ENVIRONMENT: dict[str, Any] = {
    "backend": "torch",
    "python": "3.11.9",
    "packages": {"numpy": "2.0.0", "torch": "2.14.1"},
    "thawbench": "0.1.0",
    "system": "Linux x86_64",
    "processor": "A CPU",
    "cores": 2,
    "device": "cpu",
    "device_model": "A CPU",
    "driver": None,
    "variables": {},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``, merged key by key in nested dictionaries."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        out[key] = merged(base[key], value) if both and key != "packages" else value
    return out


def _spec(**changes: Any) -> RunSpec:
    return RunSpec.model_validate(merged(SPEC, changes))


def _environment(**changes: Any) -> Environment:
    return Environment.model_validate(merged(ENVIRONMENT, changes))


def _result(spec: RunSpec, environment: Environment, **changes: Any) -> RunResult:
    fields: dict[str, Any] = {
        "run_id": spec.run_id,
        "environment_id": environment.environment_id,
        "status": "ok",
        "test_top1": 0.7512,
        "total_parameters": 3_000_000,
        "trainable_parameters": 20_000,
        "train_images_per_s": 123.4,
        "infer_images_per_s": 300.0,
        "fit_s": 12.34,
    }
    return RunResult.model_validate({**fields, **changes})


def _save(
    store: Store,
    spec: RunSpec | None = None,
    environment: Environment | None = None,
    **result: Any,
) -> Path:
    """Store a run and return its folder."""
    spec = spec or _spec()
    environment = environment or _environment(backend=spec.backend)
    partial = store.partial_folder()
    return store.save(spec, environment, _result(spec, environment, **result), partial)


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., RunSpec]:
    """Make a valid spec with changes: ``make_spec(seed=1, recipe={"px": 64})``."""
    return _spec


@pytest.fixture(scope="session")
def make_environment() -> Callable[..., Environment]:
    """Make a valid environment with changes."""
    return _environment


@pytest.fixture(scope="session")
def make_result() -> Callable[..., RunResult]:
    """Make the result of a spec in an environment: ok, unless changed."""
    return _result


@pytest.fixture(scope="session")
def save_run() -> Callable[..., Path]:
    """Put a run into a store: ``save_run(store, spec, environment, status=…)``."""
    return _save


@pytest.fixture
def make_run(
    make_spec: Callable[..., Any],
    make_environment: Callable[..., Any],
    make_result: Callable[..., RunResult],
) -> Callable[..., StoredRun]:
    """Make a stored run: ``make_run(result={…}, environment={…}, **spec)``."""

    def make(
        result: dict[str, Any] | None = None,
        environment: dict[str, Any] | None = None,
        **changes: Any,
    ) -> StoredRun:
        spec = make_spec(**changes)
        where = make_environment(**{"backend": spec.backend, **(environment or {})})
        return StoredRun(spec, where, make_result(spec, where, **(result or {})), Path("x"))

    return make


# name, kind, inputs, shape, module path, stage, tensors (role → shape)
_BN = ("weight", "bias", "running_mean", "running_var")
_OPERATIONS: tuple[tuple[Any, ...], ...] = (
    ("conv", "conv2d", ["pixels"], (4, 8, 8), "conv1", "stem", {"weight": (4, 3, 3, 3)}),
    ("bn", "batch_norm", ["conv"], (4, 8, 8), "bn1", "stem", dict.fromkeys(_BN, (4,))),
    ("relu", "relu", ["bn"], (4, 8, 8), "relu", "stem", {}),
    ("a", "conv2d", ["relu"], (4, 8, 8), "layer1.0.conv", "stage1",
     {"weight": (4, 4, 3, 3), "bias": (4,)}),
    ("sum", "add", ["a", "relu"], (4, 8, 8), "layer1.0", "stage1", {}),
    ("b", "conv2d", ["sum"], (6, 4, 4), "layer2.0.conv", "stage2", {"weight": (6, 4, 3, 3)}),
    ("bn2", "batch_norm", ["b"], (6, 4, 4), "layer2.0.bn", "stage2", dict.fromkeys(_BN, (6,))),
    ("drop", "dropout", ["bn2"], (6, 4, 4), "layer2.1", "stage2", {}),
    ("pool", "adaptive_avg_pool2d", ["drop"], (6, 1, 1), "avgpool", "head", {}),
    ("flat", "flatten", ["pool"], (6,), "", "head", {}),
    ("drop2", "dropout", ["flat"], (6,), "classifier.0", "head", {}),
    ("fc", "linear", ["drop2"], (10,), "classifier.1", "head",
     {"weight": (10, 6), "bias": (10,)}),
)  # fmt: skip


@pytest.fixture(scope="session")
def network() -> Network:
    """Make a small network of three stages and a head for 10 classes."""
    random = np.random.default_rng(0)
    operations, tensors = [], {}
    for name, kind, inputs, shape, path, stage, roles in _OPERATIONS:
        names = {role: f"{path}.{role}" for role in roles}
        tensors |= {
            names[role]: random.standard_normal(size).astype(np.float32)
            for role, size in roles.items()
        }
        attributes = {"rate": 0.25} if kind == "dropout" else {}
        operations.append(
            {
                "name": name,
                "kind": kind,
                "inputs": inputs,
                "shape": shape,
                "module_path": path,
                "stage": stage,
                "tensors": names,
                "attributes": attributes,
            }
        )
    blueprint = Blueprint.model_validate(
        {
            "backbone": "tiny",
            "px": 8,
            "preprocessing": {"channels": "RGB", "mean": [127.0] * 3, "scale": [1 / 128] * 3},
            "stages": ["stem", "stage1", "stage2", "head"],
            "operations": operations,
            "shapes": {name: array.shape for name, array in tensors.items()},
        }
    )
    return Network(blueprint, tensors)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of Blueprints and packed data that the tests of the frameworks share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True, scope="session")
def _on_the_cpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hide GPUs, whose sums in no fixed order would move digits that tests compare; tests/gpu and
    benchmarks of a GPU use them."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--speed-device") == "cpu":
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests from reading and filling the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THAWBENCH_CACHE", str(tmp_path_factory.mktemp("thawbench")))
        yield
