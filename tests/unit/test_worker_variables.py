"""The environment variables of workers: what a backend sets, and what a user may set instead."""

from __future__ import annotations

import pytest

from bench.catalog.backends import ALLOCATOR, BACKENDS, NEIGHBOUR
from bench.workers.environment import environment_here
from bench.workers.process import device_of
from bench.workers.tasks import DevicesTask, SelfCheckTask


@pytest.mark.parametrize("backend", ["torch", "keras-torch"])
def test_torch_leaves_its_neighbours_the_cores(backend: str) -> None:
    made = BACKENDS[backend].environment({"HOME": "/h"}, "cpu")
    assert made["GOMP_SPINCOUNT"] == NEIGHBOUR["GOMP_SPINCOUNT"]
    assert made["HOME"] == "/h"
    assert made.items() >= ALLOCATOR.items()
    own = BACKENDS[backend].environment({"GOMP_SPINCOUNT": "7"}, "cpu")
    assert own["GOMP_SPINCOUNT"] == "7", "a user's choice counts"


def test_jax_takes_what_a_gpu_has_and_no_gpu_for_a_cpu() -> None:
    user = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5", "JAX_COMPILATION_CACHE_DIR": "/c",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "true"}  # fmt: skip
    on_gpu = BACKENDS["keras-jax"].environment(user, "cuda:0")
    assert on_gpu["XLA_CLIENT_MEM_FRACTION"] == "0.95"
    assert on_gpu["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false", "it would take every card's memory"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in on_gpu, "JAX refuses to start with both"
    assert "JAX_COMPILATION_CACHE_DIR" not in on_gpu, "figures would depend on its content"
    assert "JAX_PLATFORMS" not in on_gpu
    assert BACKENDS["keras-jax"].environment({}, "cpu")["JAX_PLATFORMS"] == "cpu"
    assert "JAX_PLATFORMS" not in BACKENDS["keras-jax"].environment({}, "")
    hidden = BACKENDS["keras-jax"].environment({"CUDA_VISIBLE_DEVICES": ""}, "")
    assert hidden["JAX_PLATFORMS"] == "cpu", "its plugin fails where every GPU is hidden"


def test_half_precision_on_tensorflow_keeps_channels_last() -> None:
    made = BACKENDS["keras-tensorflow"].environment({}, "cuda:0")
    assert made["TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT"] == "1"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_all_that_a_backend_sets_is_in_its_environment(
    monkeypatch: pytest.MonkeyPatch, backend: str, device: str
) -> None:
    entry = BACKENDS[backend]
    made = entry.environment({}, device)
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    found = environment_here(backend, entry.adapter, (), "cpu", entry.own_variables())
    assert found.variables.items() >= made.items()


def test_the_device_of_a_task_is_that_of_its_worker() -> None:
    assert device_of(SelfCheckTask(device="cuda:1")) == "cuda:1"
    assert device_of(DevicesTask()) is None
