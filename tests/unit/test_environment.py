"""The environment of a run, read without a framework; and the cache."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from bench.catalog.backends import BACKENDS
from bench.errors import UserError, WorkerFailed
from bench.spec.run import Environment
from bench.storage import cache
from bench.storage.code_digest import adapter_digest, shared_digest
from bench.system import Gpu, gpus, visible
from bench.workers import environment, process
from bench.workers.environment import environment_here
from bench.workers.process import Interpreters, environment_of


def _nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo 'NVIDIA H100 80GB HBM3, 570.1, 81559, GPU-aa1'; "
            "echo 'NVIDIA A100, 570.1, 40960, GPU-ab2'",
            (
                Gpu("NVIDIA H100 80GB HBM3", "570.1", 81559 * 2**20),
                Gpu("NVIDIA A100", "570.1", 40960 * 2**20),
            ),
        ),
        ("echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9", ()),
        ("echo 'No devices were found'", ()),
        ("echo 'NVIDIA GB10, 580.95, [N/A], GPU-cc'", (Gpu("NVIDIA GB10", "580.95", None),)),
    ],
    ids=["two", "broken driver", "none", "unified memory"],
)
def test_gpus_are_what_nvidia_smi_tells(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    expected: tuple[Gpu, ...],
) -> None:
    _nvidia_smi(tmp_path, monkeypatch, script)
    assert gpus.__wrapped__() == expected


@pytest.mark.parametrize(
    ("variable", "left"),
    [
        (None, ["GPU-aa1", "GPU-ab2", "GPU-ac3"]),
        ("", []),
        ("-1", []),
        ("2,0", ["GPU-ac3", "GPU-aa1"]),
        ("1,9,0", ["GPU-ab2"]),
        ("GPU-ac", ["GPU-ac3"]),
        ("GPU-a", []),
        ("MIG-5c89852c,1", ["MIG-5c89852c", "GPU-ab2"]),
        ("MIG-GPU-aa1/1/0", ["MIG-GPU-aa1/1/0"]),
    ],
)
def test_cuda_visible_devices_chooses(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, left: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible(["GPU-aa1", "GPU-ab2", "GPU-ac3"]) == left


def test_a_slice_of_a_gpu_is_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA H100 80GB HBM3, 570.1, 81559, GPU-aa1'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5c89852c")
    assert gpus.__wrapped__() == (Gpu("MIG slice", "570.1", None),)


def test_without_nvidia_smi_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.__wrapped__() == ()


def _here(backend: str, device: str) -> Environment:
    """Return the environment of a worker that ran in this process."""
    entry = BACKENDS[backend]
    return environment_here(backend, entry.adapter, (*entry.packages, *entry.also), device)


def test_the_environment_names_versions_device_and_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: (Gpu("A", "1.2", 1), Gpu("B", "1.2", 1)))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = _here("torch", "cuda:1")
    assert (found.device_model, found.driver) == ("B", "1.2")
    assert found.variables["OMP_NUM_THREADS"] == "3"
    assert found.python == platform.python_version()
    for name in ("torch", "numpy", "pillow", "scipy", "scikit-learn"):
        assert found.packages[name] == metadata.version(name)
    assert found.cores >= 1
    assert _here("torch", "cpu").driver is None
    assert _here("torch", "cuda:7").device_model == "absent"


def test_a_secret_of_the_user_is_in_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    assert "hunter2" not in _here("torch", "cpu").model_dump_json()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("OMP_NUM_THREADS", True),
        ("ONEDNN_DEFAULT_FPMATH_MODE", True),
        ("ATEN_CPU_CAPABILITY", True),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", True),
        ("TF_ENABLE_ONEDNN_OPTS", True),
        ("JAX_ENABLE_X64", True),
        ("LD_PRELOAD", True),
        ("TORCH_HOME", False),
        ("CUDA_VERSION", False),
        ("TF_VAR_database", False),
        ("TORCH_TOKEN", False),
        ("HOME", False),
    ],
)
def test_variables_that_can_change_a_number_count_and_no_others(
    monkeypatch: pytest.MonkeyPatch, name: str, counts: bool
) -> None:
    monkeypatch.setenv(name, "")
    assert (name in _here("torch", "cpu").variables) == counts


def test_a_worker_that_is_killed_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nkill -9 $$\n")
    other.chmod(0o755)
    with pytest.raises(WorkerFailed, match="SIGKILL"):
        environment_of("torch", "cpu", Interpreters({"torch": other}))


def test_the_version_names_the_code_that_decides_numbers() -> None:
    found = _here("torch", "cpu").thawbench
    assert re.fullmatch(r"[0-9a-f]{12}\.[0-9a-f]{12}", found)
    assert found == f"{shared_digest()}.{adapter_digest('torch', BACKENDS['torch'].adapter)}"


def test_the_environment_is_the_workers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's variables are those of its parent and some of its own."""
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = environment_of("torch", "cpu", Interpreters({}))
    assert found.variables["OMP_NUM_THREADS"] == "3"
    assert found.variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    again = environment_of("torch", "cpu", Interpreters({}))
    assert again.variables["OMP_NUM_THREADS"] == "2"
    assert again.environment_id != found.environment_id


def test_the_exporters_and_packers_versions_count_where_they_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Networks and random weights come from torch, and pixels from the process that plans."""
    usual = environment_of("keras-tensorflow", "cpu", Interpreters({}))
    torch = environment_of("torch", "cpu", Interpreters({})).packages
    for name in ("torch", "torchvision", "timm"):
        assert usual.packages[f"{name} (export)"] == torch[name]
    assert not any(" (" in name for name in torch), "the exporter is the worker's own"
    monkeypatch.setattr(process, "package_version", lambda name: "0.0.1")
    other = environment_of("torch", "cpu", Interpreters({}))
    assert other.packages["pillow (packing)"] == "0.0.1"
    assert other.packages["scikit-learn (metrics)"] == "0.0.1"
    assert (
        other.environment_id
        != environment_of("torch", "cpu", Interpreters({}))
        .model_copy(update={"packages": torch})
        .environment_id
    )


def test_another_interpreter_is_asked(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    interpreters = Interpreters({"torch": other})
    here = environment_of("torch", "cpu", Interpreters({}))
    assert environment_of("torch", "cpu", interpreters) == here


def test_an_interpreter_is_asked_without_the_current_folder(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text('#!/bin/sh\necho "asked with $1 $2" >&2\nexit 1\n')
    other.chmod(0o755)
    with pytest.raises(UserError, match="asked with -P -m"):
        environment_of("torch", "cpu", Interpreters({"torch": other}))


@pytest.mark.parametrize("script", ["echo no module >&2; exit 1", "echo '{}'", "echo nothing"])
def test_an_interpreter_that_cannot_run_thawbench_is_named(tmp_path: Path, script: str) -> None:
    other = tmp_path / "python"
    other.write_text(f"#!/bin/sh\n{script}\n")
    other.chmod(0o755)
    with pytest.raises(UserError, match="cannot run Thawbench") as error:
        environment_of("torch", "cpu", Interpreters({"torch": other}))
    assert str(other) in str(error.value)


# The cache


def _folder(root: Path, name: str, size: int, age: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(b"x" * size)
    os.utime(folder, (10_000 - age, 10_000 - age))
    return folder


def test_pruning_takes_the_oldest_until_the_rest_fits(tmp_path: Path) -> None:
    old = _folder(tmp_path, "packed/old", 100, 30)
    kept = _folder(tmp_path, "blueprints/older-but-needed", 100, 40)
    new = _folder(tmp_path, "blueprints/new", 100, 10)
    building = _folder(tmp_path, "packed/.building", 100, 50)
    assert cache.prune(tmp_path, {kept}, 250) == [old]
    assert [f.is_dir() for f in (old, kept, new, building)] == [False, True, True, True]
    assert cache.prune(tmp_path, {kept}, 250) == []


def test_what_was_used_is_young(tmp_path: Path) -> None:
    a, b = (_folder(tmp_path, f"packed/{n}", 100, age) for n, age in (("a", 50), ("b", 10)))
    cache.mark_used(a)
    assert cache.prune(tmp_path, set(), 100) == [b]
    cache.mark_used(tmp_path / "absent")


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAWBENCH_CACHE", "/somewhere")
    assert cache.cache_root() == Path("/somewhere")
    monkeypatch.delenv("THAWBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_root() == Path("/x/thawbench")
    monkeypatch.setenv("THAWBENCH_CACHE_GB", "1.5")
    assert cache.limit_bytes() == 1_500_000_000
    monkeypatch.delenv("THAWBENCH_CACHE_GB")
    assert cache.limit_bytes() == 20_000_000_000
