"""Other work on the machine is noticed from the clocks of its cores, and marks a run's speed."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time

import pytest

from bench.analysis.rows import rows_of
from bench.system import ALL_BUSY, OTHERS_DISTURB, CoreTimes, OtherWork, core_times, cores
from bench.training.measurements import other_work_fields
from tests.unit.made_runs import Make


def test_the_share_of_others_is_what_is_busy_without_our_own() -> None:
    before = CoreTimes(at_s=10.0, busy_s=100.0, own_s=5.0)
    later = CoreTimes(at_s=10.0 + 2.0, busy_s=100.0 + 3.0 * cores() / 2, own_s=5.0 + cores() / 2)
    found = before.others(later)
    assert found.others == pytest.approx(0.5)
    assert found.busy == pytest.approx(0.75)
    assert not found.disturbs, "there were idle cores"
    assert before.others(CoreTimes(12.0, 100.0, 9.0)).others == 0.0, "ticks are coarse"


@pytest.mark.parametrize(
    ("others", "busy", "disturbs"), [(0.5, 1.0, True), (0.5, 0.6, False), (0.04, 1.0, False)]
)
def test_others_disturb_where_no_core_is_idle(others: float, busy: float, disturbs: bool) -> None:
    assert OtherWork(others, busy).disturbs is disturbs


def _burn(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.skipif(core_times() is None, reason="the system tells nothing of its cores")
def test_a_busy_process_is_seen_and_our_own_work_is_not() -> None:
    before = core_times()
    _burn(0.5)
    middle = core_times()
    process = multiprocessing.get_context("fork").Process(target=_burn, args=(1.0,))
    process.start()
    time.sleep(0.8)
    after = core_times()
    process.join()
    assert before is not None
    assert middle is not None
    assert after is not None
    assert middle.own_s - before.own_s > 0.2
    seen = middle.others(after)
    # A child counts as another process until it is waited for.
    assert seen.others * cores() > 0.3


def test_the_cores_are_those_of_the_reading() -> None:
    """A file of a machine with 64 cores, read on one with two, says the same."""
    before, later = CoreTimes(0.0, 0.0, 0.0, 64), CoreTimes(1.0, 32.0, 16.0, 64)
    assert before.others(later) == OtherWork(others=0.25, busy=0.5)


CHILD = r"""
import os, subprocess, sys, time
from bench.system import core_times
busy = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
alone, both = core_times(), core_times(with_children=True)
started = subprocess.Popen([sys.executable, "-c", nested])
seen = 0.0
while started.poll() is None:
    seen = max(seen, core_times(with_children=True).own_s - both.own_s)
    time.sleep(0.02)
print(seen, core_times(with_children=True).own_s - both.own_s, core_times().own_s - alone.own_s)
"""


@pytest.mark.skipif(core_times() is None, reason="the system tells nothing of its cores")
def test_the_work_of_children_is_counted_where_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    meanwhile, after, own = map(float, done.stdout.split())
    assert meanwhile > 0.3, "of a child's child, while it lives"
    assert after > 0.45, "and when it has ended"
    assert own < 0.3


def test_the_median_epoch_counts() -> None:
    busy, idle = OtherWork(0.4, 1.0), OtherWork(0.4, ALL_BUSY - 0.1)
    notes: list[str] = []
    assert other_work_fields([busy, idle, busy], notes) == {"other_work_fraction": 0.4}
    assert len(notes) == 1
    assert "--fresh" in notes[0]
    assert other_work_fields([idle, busy, idle], notes) == {"other_work_fraction": 0.0}
    assert other_work_fields([], notes) == {"other_work_fraction": None}
    assert len(notes) == 1


def test_a_run_beside_other_work_is_unsteady(make: Make) -> None:
    for share, is_unsteady in ((None, False), (OTHERS_DISTURB / 2, False), (0.4, True)):
        (row,) = rows_of([make(0.9, result={"other_work_fraction": share})])
        assert row.unsteady is is_unsteady
