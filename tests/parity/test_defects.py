"""A proof detects each planted defect of an adapter and names the levels that it affects."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.catalog.backends import BACKENDS
from bench.network.blueprint import Blueprint
from bench.network.head import attach_head
from bench.parity.compare import Side, compare_levels, failure_reason, first_difference
from bench.parity.inputs import proof_split, save_split
from bench.parity.model import PARTS, Level
from bench.parity.tolerances import CLASSES, LEVELS, SEED
from bench.system import project_root
from tests.frameworks import HERE
from tests.parity.defective_worker import FLOORS_FROM, MODULES
from tests.parity.defects import DEFECTS, QUESTIONS
from tests.parity.small_networks import BATCH_SIZE, PX, small_network

REFERENCE = "torch"
pytestmark = pytest.mark.slow


class Exchange:
    """The folder into which the workers write their values."""

    def __init__(self, root: Path) -> None:
        self._root = root
        network = small_network()
        (root / "blueprints" / "blueprint").mkdir(parents=True)
        network.save(root / "blueprints" / "blueprint")
        save_split(proof_split(PX, BATCH_SIZE * 2 - 1), root / "data.npz")
        self.blueprint: Blueprint = attach_head(network, "original", CLASSES, SEED).blueprint

    def side(self, *place: str) -> Side:
        folder = self._root.joinpath(*place)
        error = folder / "error.txt"
        assert not error.is_file(), error.read_text()
        return Side(dict.fromkeys(PARTS, folder))

    def levels(self, a: Side, b: Side, key: str) -> tuple[Level, ...]:
        noise = self.side(f"{FLOORS_FROM}-sound", key)
        return compare_levels(a, b, noise, self.blueprint, "fp64")

    def fall(self, key: str) -> float:
        """Return the fall of the loss in the backend that measured the noise floors."""
        fall: float = self.side(f"{FLOORS_FROM}-sound", key).facts("steps")["loss_fall"]
        return fall

    def pair(self, defective: str, name: str) -> tuple[Side, Side]:
        """Return the reference and the other backend, one of them with a defect."""
        key = DEFECTS[name].item
        bad = self.side(defective, name)
        if defective == REFERENCE:
            return bad, self.side(f"{FLOORS_FROM}-sound", key)
        return self.side(f"{REFERENCE}-sound", key), bad


class Worker:
    """A process that measures one backend."""

    def __init__(self, backend: str, root: Path) -> None:
        self._log = root / f"{backend}.txt"
        paths = [str(project_root()), os.environ.get("PYTHONPATH", "")]
        variables = {
            **os.environ,
            **BACKENDS[backend].variables,
            # Two workers run at a time, and the network is too small for more threads.
            "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in paths if p),
            "THAWBENCH_CACHE": str(root),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(HERE.of(backend)), "-P", "-m", "tests.parity.defective_worker", backend, root],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def wait_for_sound(self) -> None:
        """Wait until the sound values are written, or the process has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == b"sound":
                return

    def finish(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0, self._log.read_text()[-3000:]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    root = tmp_path_factory.mktemp("defects")
    found = Exchange(root)
    first = Worker(FLOORS_FROM, root)
    workers = [first]
    try:
        first.wait_for_sound()
        workers += [Worker(backend, root) for backend in MODULES if backend != FLOORS_FROM]
        for worker in workers:
            worker.finish()
        yield found
    finally:
        for worker in workers:
            worker.end()


@pytest.mark.parametrize("key", QUESTIONS)
def test_sound_adapters_agree(exchange: Exchange, key: str) -> None:
    """Otherwise the tests below would fail for another reason."""
    a, b = (exchange.side(f"{backend}-sound", key) for backend in (REFERENCE, FLOORS_FROM))
    levels = exchange.levels(a, b, key)
    assert [level.name for level in levels] == list(LEVELS)
    assert failure_reason(levels, exchange.fall(key)) is None
    assert all(level.passed for level in levels)
    assert exchange.fall(key) >= 0.05
    for level in levels:
        assert level.floor is None or 10 * level.floor < level.tolerance, level
    assert first_difference(a, b, exchange.blueprint, "fp64") is None


@pytest.mark.parametrize("name", DEFECTS)
@pytest.mark.parametrize("backend", MODULES)
def test_defect_is_named(exchange: Exchange, backend: str, name: str) -> None:
    defect = DEFECTS[name]
    a, b = exchange.pair(backend, name)
    levels = exchange.levels(a, b, defect.item)
    assert {level.name for level in levels if not level.passed} - defect.may == defect.levels
    assert {level.name for level in levels if level.differs} - defect.may == defect.levels
    reason = failure_reason(levels, exchange.fall(defect.item))
    assert reason is not None
    assert reason.startswith("differs: ")
    named = {part.split()[0] for part in reason.removeprefix("differs: ").split(", ")}
    assert named - defect.may == defect.levels
    first = first_difference(a, b, exchange.blueprint, "fp64")
    assert (first and first.operation) == defect.operation
    if first:
        paths = {o.name: o.module_path for o in exchange.blueprint.operations}
        assert first.module_path == paths[first.operation]


@pytest.mark.parametrize("backend", MODULES)
def test_no_defect_is_left_behind(exchange: Exchange, backend: str) -> None:
    """After the last defect the adapter computes the same as before the first."""
    for key in QUESTIONS:
        before, after = (exchange.side(f"{backend}-{w}", key) for w in ("sound", "afterwards"))
        assert all(level.passed for level in exchange.levels(before, after, key)), key
