"""``doctor``: needed and optional findings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS
from bench.cli import doctor
from bench.cli.doctor import Finding
from bench.cli.options import DoctorOptions
from bench.system import OtherWork
from bench.system.gpu import gpus, installed
from bench.workers.process import Interpreters
from bench.workers.tasks import DevicesAnswer, DevicesTask, SelfCheckAnswer, SelfCheckTask
from tests.conftest import _environment


def test_an_optional_finding_does_not_read_like_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Finding("torch", True, True, "sees cpu"),
        Finding("weights vgg16", False, False, "not on this machine", "downloaded at need"),
    ]
    monkeypatch.setattr(doctor, "findings", lambda _: found)
    assert doctor.doctor_command(DoctorOptions())
    said = capsys.readouterr().out
    assert "optional weights vgg16: not on this machine" in said
    assert "to have it: downloaded at need" in said
    assert "FAIL" not in said
    assert "The default suite can run" in said
    found.append(Finding("keras-tensorflow", False, True, "missing", "pip install tensorflow"))
    assert not doctor.doctor_command(DoctorOptions())
    said = capsys.readouterr().out
    assert "FAIL     keras-tensorflow: missing" in said
    assert "mend: pip install tensorflow" in said


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_default_pair_is_needed(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    bare = _environment(backend=backend, packages={"numpy": "2.0.0"})
    monkeypatch.setattr(doctor, "worker_environment", lambda *_: bare)
    (finding,) = doctor._backend(backend, Interpreters({}))
    assert not finding.ok
    assert finding.needed == (backend in DEFAULT_BACKENDS)
    assert finding.mend is not None
    assert finding.mend.endswith(" ".join(BACKENDS[backend].packages))


def test_another_backends_bad_interpreter_is_not_held_against_a_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Keras run also needs the exporter's interpreter, but its own finding is of its own."""
    monkeypatch.setattr(doctor, "_answer_or_reason", lambda *_: "asked")
    interpreters = Interpreters({"torch": Path("/bin/false")})
    (keras,) = doctor._backend("keras-tensorflow", interpreters)
    assert keras.detail.endswith("does not start: asked")
    (torch,) = doctor._backend("torch", interpreters)
    assert "'/bin/false' for torch cannot run Thawbench" in torch.detail


def test_an_interpreter_that_is_killed_is_a_finding(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    (finding,) = doctor._backend("torch", Interpreters({"torch": python}))
    assert not finding.ok
    assert "SIGKILL" in finding.detail
    assert finding.mend is not None
    assert finding.mend.startswith(str(python))


def test_a_clock_that_does_not_wait_is_a_fault_on_a_cpu_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JAX that did not wait took 0.142 s, and 0.668 s until the loss was there."""
    backend = DEFAULT_BACKENDS[0]
    installed = _environment(
        backend=backend, packages=dict.fromkeys(BACKENDS[backend].packages, "1")
    )
    monkeypatch.setattr(doctor, "worker_environment", lambda *_: installed)
    for fetched_s, is_ok in ((0.15, True), (0.668, False)):
        check = SelfCheckAnswer(
            queued_s=0.1, synchronised_s=0.142, fetched_s=fetched_s, flop_per_s=1e10,
            peak_flop_per_s=2e10, peak_device_bytes=None, parameter_bytes=10,
            fp32_error=1e-6,
            stretch_s=0.1,
        )  # fmt: skip
        answers = {DevicesTask: DevicesAnswer(devices=["cpu"]), SelfCheckTask: check}
        monkeypatch.setattr(
            doctor, "_answer_or_reason", lambda _, task, __, known=answers: known[type(task)]
        )
        seen, clock = doctor._backend(backend, Interpreters({}))
        assert (seen.ok, clock.ok, clock.needed) == (True, is_ok, True)
        assert clock.what == f"{backend} on cpu"
        assert ("it does not wait" in clock.detail) is not is_ok


SMI = """#!/bin/sh
case "$*" in
  *query-compute-apps*) echo 4242;;
  *clocks_event_reasons.active*) echo '1755, 2619, 612.30, 66, 98, 61234, 81559, 0x4';;
  *) echo 'NVIDIA H100, 570.1, 81559, GPU-aa1, 700.00, Enabled, Disabled';;
esac
"""


@pytest.fixture
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a machine with one GPU, on which another process computes."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for function in (gpus, installed):
        function.cache_clear()
    yield
    for function in (gpus, installed):
        function.cache_clear()


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_and_who_else_uses_it() -> None:
    card, shared = doctor._gpus()
    assert card.what == "gpu cuda:0"
    assert card.detail == (
        "NVIDIA H100, 86 GB, driver 570.1, power_limit_w 700.00, ecc Enabled, mig Disabled"
    )
    assert (shared.what, shared.ok, shared.needed) == ("gpu cuda:0 is free", False, False)
    assert shared.detail == (
        "another process computes on it; 59.8 GiB of its memory are in use; its clocks are held "
        "down: power cap"
    )


@pytest.mark.usefixtures("one_gpu")
def test_a_variable_that_names_no_gpu_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    gpus.cache_clear()
    (finding,) = doctor._gpus()
    assert (finding.what, finding.ok) == ("CUDA_VISIBLE_DEVICES", False)
    assert finding.mend == "unset CUDA_VISIBLE_DEVICES"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpus.cache_clear()
    (finding,) = doctor._gpus()
    assert (finding.ok, finding.mend) == (True, None), "that may be meant"


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    ("backend", "mend"),
    [
        ("torch", "-e '.[torch]'"),
        ("keras-torch", "-e '.[torch,keras]'"),
        ("keras-jax", "-e '.[jax-gpu]'"),
        ("keras-tensorflow", "make .venv-tensorflow/.installed"),
    ],
)
def test_a_backend_without_cuda_names_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, backend: str, mend: str
) -> None:
    """Never the packages for a CPU, and never TensorFlow beside PyTorch."""
    installed_here = _environment(
        backend=backend, packages=dict.fromkeys(BACKENDS[backend].packages, "1")
    )
    monkeypatch.setattr(doctor, "worker_environment", lambda *_: installed_here)
    blind = DevicesAnswer(devices=("cpu",), blind_because="built without CUDA")
    monkeypatch.setattr(
        doctor, "_answer_or_reason",
        lambda _, task, __: blind if isinstance(task, DevicesTask) else "not asked",
    )  # fmt: skip
    found = next(iter(doctor._backend(backend, Interpreters({}))))
    assert not found.ok
    assert found.detail.endswith("sees cpu: built without CUDA")
    assert found.mend is not None
    assert found.mend.endswith(mend)


@pytest.mark.parametrize(("others", "is_idle"), [(0.05, True), (0.6, False)])
def test_a_busy_machine_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, others: float, is_idle: bool
) -> None:
    monkeypatch.setattr(doctor, "other_work", lambda: OtherWork(others, 0.95))
    found = {finding.what: finding for finding in doctor._machine()}
    assert found["processor is idle"].ok is is_idle
    assert found["processor is idle"].needed is False
