"""Other work on the machine is noticed from the clocks of its cores, and marks a run's speed."""

from __future__ import annotations

import multiprocessing
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
