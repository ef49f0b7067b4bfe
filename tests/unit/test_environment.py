"""The environment of a run, read without a framework; and the cache."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from bench.catalog.backends import BACKENDS
from bench.errors import UserError, WorkerFailed
from bench.spec.run import Environment
from bench.storage import cache
from bench.storage.code_digest import adapter_digest, shared_digest
from bench.system import gpu as gpu_module
from bench.system.gpu import Gpu, gpus, installed, visible
from bench.workers import environment, process
from bench.workers.environment import environment_here
from bench.workers.process import Interpreters, environment_of


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what the driver said in other tests, and show its GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for function in (gpus, installed):
        function.cache_clear()
    yield
    for function in (gpus, installed):
        function.cache_clear()


def _nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo 'NVIDIA H100 80GB HBM3, 570.1, 81559, GPU-aa1, 700.00, Enabled, Disabled'; "
            "echo 'NVIDIA A100, 570.1, 40960, GPU-ab2, 250.00, Disabled, [N/A]'",
            (
                Gpu(
                    "NVIDIA H100 80GB HBM3",
                    "570.1",
                    81559 * 2**20,
                    "GPU-aa1",
                    {"power_limit_w": "700.00", "ecc": "Enabled", "mig": "Disabled"},
                ),
                Gpu(
                    "NVIDIA A100",
                    "570.1",
                    40960 * 2**20,
                    "GPU-ab2",
                    {"power_limit_w": "250.00", "ecc": "Disabled"},
                ),
            ),
        ),
        ("echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9", ()),
        ("echo 'No devices were found'", ()),
        (
            "echo 'NVIDIA GB10, 580.95, [N/A], GPU-cc, [N/A], [N/A], [N/A]'",
            (Gpu("NVIDIA GB10", "580.95", None, "GPU-cc"),),
        ),
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
    assert gpus() == expected


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


SLICED = """
case "$*" in
  -L) echo 'GPU 0: NVIDIA H100 (UUID: GPU-aa1)'
      echo '  MIG 1g.10gb     Device  0: (UUID: MIG-11aa)'
      echo '  MIG 3g.40gb     Device  1: (UUID: MIG-5c89852c-1)'
      echo 'GPU 1: NVIDIA A100 (UUID: GPU-ab2)'
      echo '  MIG 1g.10gb     Device  0: (UUID: MIG-77bb)';;
  *) echo 'NVIDIA H100, 570.1, 81559, GPU-aa1, 700.00, Enabled, Enabled'
     echo 'NVIDIA A100, 570.1, 40960, GPU-ab2, 400.00, Enabled, Enabled';;
esac
"""


def test_a_slice_of_a_gpu_is_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(tmp_path, monkeypatch, SLICED)
    for chosen, name in (
        ("MIG-5c89852c", "MIG slice 3g.40gb of NVIDIA H100"),
        ("MIG-77", "MIG slice 1g.10gb of NVIDIA A100"),
        (None, "MIG slice 1g.10gb of NVIDIA H100"),  # CUDA takes the first slice of a card
        ("0", "MIG slice 1g.10gb of NVIDIA H100"),
        ("MIG-zz", "MIG slice of unknown size of NVIDIA H100"),
    ):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        gpus.cache_clear()
        found = gpus()[0]
        assert (found.name, found.memory_bytes) == (name, None)
        assert found.settings["mig"] == "Enabled"


def test_a_slice_that_nobody_lists_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_module, "DRIVER", tmp_path / "driver")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5c89852c")
    assert gpus() == ()


def test_without_nvidia_smi_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_module, "DRIVER", tmp_path / "driver")
    assert gpus() == ()


DRIVER_VERSION = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
"""
INFORMATION = """Model: \t\t NVIDIA {model}
IRQ:   \t\t 0
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.89.00.01
Bus Location: \t {bus}
"""


def test_without_nvidia_smi_the_drivers_files_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers without the driver's tools ('utility') have the files, and device files."""
    monkeypatch.setenv("PATH", str(tmp_path))
    driver = tmp_path / "driver"
    for bus, model, uuid in (
        ("0000:9a:00.0", "A100-SXM4-40GB", "GPU-b"),
        ("0000:1b:00.0", "H100 80GB HBM3", "GPU-a"),
    ):
        folder = driver / "gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text(INFORMATION.format(model=model, uuid=uuid, bus=bus))
    (driver / "version").write_text(DRIVER_VERSION)
    monkeypatch.setattr(gpu_module, "DRIVER", driver)
    assert gpus() == (
        Gpu("NVIDIA H100 80GB HBM3", "570.133.20", None, "GPU-a"),
        Gpu("NVIDIA A100-SXM4-40GB", "570.133.20", None, "GPU-b"),
    )
    monkeypatch.setattr(environment, "gpus", gpus)
    models = [_here("torch", device) for device in ("cuda:0", "cuda:1")]
    assert len({found.environment_id for found in models}) == 2, "two cards are two environments"
    assert models[0].driver == "570.133.20"


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl", "dxg"])
def test_device_files_are_signs_of_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(gpu_module, "DEVICE_FILES", tmp_path)
    assert not gpu_module.has_signs_of_a_gpu()
    (tmp_path / name).write_text("")
    assert gpu_module.has_signs_of_a_gpu()


TWO = (
    "echo 'NVIDIA H100, 570.1, 81559, GPU-aa1, 700.00, Enabled, Disabled'; "
    "echo 'NVIDIA H100, 570.1, 81559, GPU-ab2, 700.00, Enabled, Disabled'"
)


@pytest.mark.parametrize(
    ("variable", "left", "reason", "is_mistake"),
    [
        (None, 2, None, None),
        ("1", 1, None, None),
        ("", 0, "hides every GPU", False),
        ("-1", 0, "hides every GPU", False),
        ("7", 0, "names '7', but this machine has 2 GPUs (0 to 1)", True),
        ("0,7", 1, "names '7', but this machine has 2 GPUs (0 to 1); it hides what follows", True),
        ("GPU-zz", 0, "names 'GPU-zz'", True),
    ],
)
def test_a_variable_that_hides_gpus_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, left: int,
    reason: str | None, is_mistake: bool | None,
) -> None:  # fmt: skip
    _nvidia_smi(tmp_path, monkeypatch, TWO)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert len(gpus()) == left
    found = gpu_module.hidden_reason()
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found[0]
        assert found[1] is is_mistake


STATE = """
case "$*" in
  *query-compute-apps*) echo 4242; echo 77;;
  *clocks_event_reasons.active*) {new};;
  *query-gpu=clocks*) echo '1755, 2619, 612.30, 66, 98, 61234, 81559, 0x0000000000000044';;
  *) echo 'NVIDIA H100, 570.1, 81559, GPU-aa1, 700.00, Enabled, Disabled';;
esac
"""


@pytest.mark.parametrize(
    "new",
    ["echo '1755, 2619, 612.30, 66, 98, 61234, 81559, 0x0000000000000044'", "exit 2"],
    ids=["new driver", "old driver"],
)
def test_the_state_of_a_gpu_has_clocks_power_and_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: str
) -> None:
    _nvidia_smi(tmp_path, monkeypatch, STATE.format(new=new))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = gpu_module.state(0, ours=[77])
    assert found is not None
    assert (found.sm_clock_mhz, found.power_w, found.temperature_c) == (1755, 612.3, 66)
    assert (found.memory_used_mib, found.memory_total_mib) == (61234, 81559)
    assert found.throttled_by == ("power cap", "hardware thermal")
    assert found.other_processes == 1
    alone = gpu_module.state(0, ours=[1])  # a container does not know its processes' outer ids
    assert alone is not None
    assert alone.other_processes == 1
    assert gpu_module.state(1) is None


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


def test_settings_of_a_card_are_part_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card with another power limit, or with a cuDNN of the system, is another environment."""
    card = Gpu("NVIDIA H100", "570.1", 81559 * 2**20, "GPU-a", {"power_limit_w": "700.00"})
    monkeypatch.setattr(environment, "gpus", lambda: (card,))
    monkeypatch.setattr(environment, "_system_cudnn", lambda: "92400")
    found = _here("torch", "cuda:0")
    own = {"power_limit_w": "700.00", "memory_mib": "81559"}
    assert found.device_settings == own, "its cuDNN is a package"
    without = environment_here("torch", BACKENDS["torch"].adapter, (), "cuda:0")
    assert without.device_settings == {**own, "cudnn": "92400"}
    assert found.model_dump(mode="json")["device_settings"] == dict(found.device_settings)
    capped = replace(card, settings={"power_limit_w": "350.00"})
    monkeypatch.setattr(environment, "gpus", lambda: (capped,))
    assert _here("torch", "cuda:0").environment_id != found.environment_id


def test_an_environment_without_such_settings_keeps_its_id() -> None:
    found = _here("torch", "cpu")
    stored = found.model_dump(mode="json")
    assert "device_settings" not in stored
    assert Environment.model_validate(stored).environment_id == found.environment_id


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
        ("CUDA_LAUNCH_BLOCKING", True),
        ("CUDA_DEVICE_MAX_CONNECTIONS", True),
        ("CUDA_MODULE_LOADING", True),
        ("PYTORCH_CUDA_ALLOC_CONF", True),
        ("PYTORCH_ALLOC_CONF", True),
        ("PYTORCH_NO_CUDA_MEMORY_CACHING", True),
        ("TORCH_CUDNN_V8_API_DISABLED", True),
        ("TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT", True),
        ("TF_GPU_ALLOCATOR", True),
        ("TF_GPU_THREAD_MODE", True),
        ("TF_FORCE_GPU_ALLOW_GROWTH", True),
        ("XLA_CLIENT_MEM_FRACTION", True),
        ("XLA_PYTHON_CLIENT_ALLOCATOR", True),
        ("JAX_PLATFORMS", True),
        ("JAX_DEFAULT_MATMUL_PRECISION", True),
        ("KERAS_TORCH_DEVICE", True),
        ("NVIDIA_TF32_OVERRIDE", True),
        ("JAX_COMPILATION_CACHE_DIR", False),
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
