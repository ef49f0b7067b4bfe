"""A GPU that the user named and that no backend sees ends the command before it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import UserError, WorkerFailed
from bench.runner import devices
from bench.runner.devices import check_gpu_visible, resolve_devices
from bench.workers.process import Interpreters
from bench.workers.tasks import DevicesAnswer, DevicesTask

SEEN = {"torch": ["cpu", "cuda:0"], "keras-tensorflow": ["cpu"], "keras-torch": None}
"""Backend → devices that it sees; None: it does not start."""
Cli = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that collects the backends whose workers are asked."""
    found: list[str] = []

    def ask(backend: str, task: DevicesTask, *_: Any, **__: Any) -> DevicesAnswer:
        found.append(backend)
        seen = SEEN[backend]
        if seen is None:
            raise WorkerFailed("no libcuda")
        return DevicesAnswer(devices=tuple(seen))

    monkeypatch.setattr(devices, "ask", ask)
    return found


def _runs(*backends: str, device: str = "cuda:0") -> Any:
    return [SimpleNamespace(backend=backend, device=device) for backend in backends]


def _check(device: str, runs: Any) -> None:
    check_gpu_visible(device, runs, Interpreters({}))


def test_it_is_enough_that_one_backend_sees_the_device(asked: list[str]) -> None:
    _check("cuda:0", _runs("keras-tensorflow", "torch", "keras-torch"))
    assert asked == ["keras-tensorflow", "torch"]


def test_where_none_does_the_message_says_what_each_sees(asked: list[str]) -> None:
    with pytest.raises(UserError) as error:
        _check("cuda:0", _runs("keras-tensorflow", "keras-torch", "keras-tensorflow"))
    assert error.value.message == (
        "There is no cuda:0 here: keras-tensorflow sees only cpu; "
        "keras-torch does not start (no libcuda)."
    )
    assert "doctor" in (error.value.hint or "")
    with pytest.raises(UserError, match="There is no cuda:1 here: torch sees only cpu, cuda:0"):
        _check("cuda:1", _runs("torch", device="cuda:1"))


@pytest.mark.parametrize(
    ("device", "runs"),
    [
        ("cpu", _runs("keras-tensorflow", device="cpu")),
        ("auto", _runs("keras-tensorflow")),  # nvidia-smi named it, not the user
        ("cuda:0", []),  # all runs have results, or rows say why they have none
    ],
)
def test_nobody_is_asked_where_nothing_hangs_on_it(
    asked: list[str], device: str, runs: Any
) -> None:
    _check(device, runs)
    assert asked == []


@pytest.mark.parametrize("device", ["cuda:0", "cuda", "cuda:7"])
def test_the_command_writes_nothing(
    here: Cli, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(devices, "gpus", tuple)
    monkeypatch.setattr(devices, "hidden_reason", lambda: None)
    monkeypatch.setattr(devices, "has_signs_of_a_gpu", lambda: True)
    done = here(
        "run", "--datasets", "photos", "--backends", "keras-tensorflow", "--weights", "random",
        "--device", device, "--out", str(tmp_path / "out"), "--json",
    )  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"] in done.stderr
    assert f"There is no {device if ':' in device else 'cuda:0'} here" in done.stderr
    assert asked == ["keras-tensorflow"]
    assert not (tmp_path / "out").exists()


def test_where_there_is_no_sign_of_a_gpu_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setattr(devices, "gpus", tuple)
    monkeypatch.setattr(devices, "hidden_reason", lambda: None)
    monkeypatch.setattr(devices, "has_signs_of_a_gpu", lambda: False)
    with pytest.raises(UserError, match="There is no cuda:0 here: neither nvidia-smi nor"):
        resolve_devices("cuda:0", Interpreters({}))
    assert asked == []


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a container that has a GPU's device files and no tool that tells of it."""
    monkeypatch.setattr(devices, "gpus", tuple)
    monkeypatch.setattr(devices, "hidden_reason", lambda: None)
    monkeypatch.setattr(devices, "has_signs_of_a_gpu", lambda: True)


@pytest.mark.usefixtures("blind")
def test_a_gpu_that_only_a_framework_sees_is_used(asked: list[str]) -> None:
    assert resolve_devices("auto", Interpreters({})) == (["cuda:0"], None)
    assert resolve_devices("all", Interpreters({})) == (["cpu", "cuda:0"], None)
    assert asked == ["torch", "torch"]


@pytest.mark.usefixtures("blind")
def test_a_gpu_that_no_framework_sees_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is too old for the wheels is one reason."""
    old = "The NVIDIA driver on your system is too old (found version 11040)."
    answer = DevicesAnswer(devices=("cpu",), blind_because=old)
    monkeypatch.setattr(devices, "ask", lambda *_, **__: answer)
    found, remark = resolve_devices("auto", Interpreters({}))
    assert found == ["cpu"]
    assert remark is not None
    assert remark.startswith(f"there are signs of a GPU, but torch sees none ({old})")
    assert "runs on the CPU" in remark


def test_hidden_gpus_are_told_and_a_wrong_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "gpus", tuple)
    empty = "CUDA_VISIBLE_DEVICES='' hides every GPU"
    monkeypatch.setattr(devices, "hidden_reason", lambda: (empty, False))
    assert resolve_devices("auto", Interpreters({})) == (["cpu"], f"{empty}: runs on the CPU")
    assert resolve_devices("cpu", Interpreters({})) == (["cpu"], None)
    with pytest.raises(UserError, match="There is no cuda:0 here: CUDA_VISIBLE_DEVICES=''"):
        resolve_devices("cuda:0", Interpreters({}))
    wrong = "CUDA_VISIBLE_DEVICES='7' names '7', but this machine has one GPU (0)"
    monkeypatch.setattr(devices, "hidden_reason", lambda: (wrong, True))
    with pytest.raises(UserError, match="names '7'") as error:
        resolve_devices("auto", Interpreters({}))
    assert "unset CUDA_VISIBLE_DEVICES" in (error.value.hint or "")
    assert resolve_devices("cpu", Interpreters({})) == (["cpu"], None)
