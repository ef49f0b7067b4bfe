"""Planted bias: circumstances that make B, or some launches, slower although the code is the same.

None of them may end in ``slower``. A bias changes where B is launched, or what happens around the
launches of a block.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from bench.gate.run import Launcher
from bench.speed.cases import TimedCase
from bench.speed.launch import Launch, Place
from bench.storage.code_digest import shared_digest
from bench.system import cores, project_root
from tools.planted_worker import GROWTH_VARIABLE, SHARE_VARIABLE

Sides = Sequence[tuple[Sequence[TimedCase], Place]]
MARK = "THAWBENCH_SIDE_B"
"""Variable without meaning by which B's place is known to a launcher."""
DRIFT, POSITION = 0.2, 0.1
"""Extra work, as fractions of a step: at the end of a drift, at one position."""
DRIFT_BLOCKS = 5
"""Blocks over which the machine becomes slower."""
DRIFT_STEPS = 60
"""Steps over which it becomes slower once more in each launch: most of a case."""


@dataclass(frozen=True)
class Bias:
    """A planted bias."""

    name: str
    words: str
    """Description for the report."""
    place: Callable[[Place], Place] = field(default=lambda place: place)
    """Changes the place of B."""
    launcher: Callable[[Launcher], Launcher] = field(default=lambda launcher: launcher)
    """Changes what happens around launches."""


def _with(variables: Mapping[str, str]) -> Callable[[Place], Place]:
    return lambda place: replace(place, variables={**place.variables, **variables})


def _before(*command: str) -> Callable[[Place], Place]:
    return lambda place: replace(place, site=replace(place.site, command_prefix=command))


def _marked(place: Place) -> Place:
    return _with({MARK: "1"})(place)


def _is_b(place: Place) -> bool:
    return MARK in place.variables


def _at_long_path(place: Place) -> Place:
    folder = place.cache / "null" / ("long-name-" * 20)
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "code"
    if not link.exists():
        link.symlink_to(project_root(), target_is_directory=True)
    return replace(place, site=replace(place.site, root=link))


def _in_memory(place: Place) -> Place:
    """Copy the code to a file system in memory."""
    copy = Path(f"/dev/shm/thawbench-code-{shared_digest()}")
    if not copy.is_dir():
        for package in ("bench", "backends", "tools"):
            shutil.copytree(project_root() / package, copy / package)
    return replace(place, site=replace(place.site, root=copy))


def _slowed(place: Place, share: float, growth_steps: int = 0) -> Place:
    """Return a place whose steps do extra work."""
    variables = {**place.variables, SHARE_VARIABLE: f"{share:.4f}"}
    if growth_steps:
        variables[GROWTH_VARIABLE] = str(growth_steps)
    site = replace(place.site, module="tools.planted_worker")
    return replace(place, variables=variables, site=site)


def _drift(inner: Launcher) -> Launcher:
    """Let every block be slower than the one before, and every launch slow down meanwhile."""
    number = itertools.count(1)

    def launch(sides: Sides, random: Random) -> list[Launch]:
        share = DRIFT * min(next(number) / DRIFT_BLOCKS, 1.0)
        slowed = [(cases, _slowed(place, share, DRIFT_STEPS)) for cases, place in sides]
        return inner(slowed, random)

    return launch


def _first_launch(inner: Launcher) -> Launcher:
    """Let the first launch of each block be slower: its machine was idle before."""

    def launch(sides: Sides, random: Random) -> list[Launch]:
        (cases, place), *rest = sides
        return inner([(cases, _slowed(place, POSITION)), *rest], random)

    return launch


def _busy(count: int) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "while True: pass"]
    return [subprocess.Popen(command) for _ in range(count)]


@contextlib.contextmanager
def _neighbours(count: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    running = _busy(count)
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def _neighbour_of_some(inner: Launcher) -> Launcher:
    """Let a neighbour keep the cores busy during every third block."""
    number = itertools.count()

    def launch(sides: Sides, random: Random) -> list[Launch]:
        with _neighbours(cores() if next(number) % 3 == 0 else 0):
            return inner(sides, random)

    return launch


def _cold_files(inner: Launcher) -> Launcher:
    """Drop the framework's files from the file cache before each block and start B first, so that B
    reads them from the disk."""

    def launch(sides: Sides, random: Random) -> list[Launch]:
        for path in sys.path:
            for file in Path(path).glob("torch/lib/*.so"):
                descriptor = os.open(file, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
        ordered = sorted(sides, key=lambda side: not _is_b(side[1]))
        found = dict(zip(map(id, ordered), inner(ordered, random), strict=True))
        return [found[id(side)] for side in sides]

    return launch


def _fixed_order(inner: Launcher) -> Launcher:
    """Launch A, N and B one after the other, always in this order, without turns."""

    def launch(sides: Sides, random: Random) -> list[Launch]:
        ordered = sorted(sides, key=lambda side: (_is_b(side[1]), side[1].padding_bytes))
        found = {id(side): inner([side], random)[0] for side in ordered}
        return [found[id(side)] for side in sides]

    return launch


BIASES = (
    Bias("fixed-order", "A, N and B are launched one after the other, in this order", _marked,
         _fixed_order),
    Bias("first-launch", "the first launch of each block is 10 % slower", launcher=_first_launch),
    Bias("drift", "the machine becomes 20 % slower, over the blocks and in each launch",
         launcher=_drift),
    Bias("long-path", "B's code lies at a path of 200 letters more", _at_long_path),
    Bias("environment", "B's environment is 60 KiB larger",
         lambda place: replace(place, padding_bytes=(61440, 61441))),
    Bias("memory-disk", "B's code lies on a file system in memory", _in_memory),
    Bias("cold-files", "B's libraries are read from the disk", _marked, _cold_files),
    Bias("affinity", "B may use one core", _before("taskset", "-c", "0")),
    Bias("niceness", "B gives way to others (nice 10)", _before("nice", "-n", "10")),
    Bias("neighbour", "a process beside B computes whenever B is launched",
         _before(sys.executable, "-m", "tools.calibration.beside")),
    Bias("neighbour-at-times", "other processes keep the cores busy in every third block",
         launcher=_neighbour_of_some),
    Bias("allocator", "the C library of B returns memory at once",
         _with({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=0:glibc.malloc.mmap_threshold=4096",
                "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "4096"})),
    Bias("large-pages", "B's memory lies in large pages",
         _with({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})),
    Bias("threads", "B has one thread", _with({"OMP_NUM_THREADS": "1"})),
    Bias("hash-seed", "B's hashes of strings are fixed", _with({"PYTHONHASHSEED": "0"})),
    Bias("no-bytecode", "B compiles its Python files anew",
         _with({"PYTHONPYCACHEPREFIX": "/dev/shm/nothing", "PYTHONDONTWRITEBYTECODE": "1"})),
    Bias("unbuffered-log", "B writes debugging output", _with({"PYTHONVERBOSE": "1"})),
)  # fmt: skip
