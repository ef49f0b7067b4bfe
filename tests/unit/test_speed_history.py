"""The history of benchmarks over stored baselines."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bench.errors import UserError
from bench.report.gate.history_plot import history_page
from bench.speed.baseline import Baseline, save_baseline
from bench.speed.history import change_points, histories, read_baselines
from tests.unit.made_launches import CASE, SOFTWARE, made_launch


def _stored(
    folder: Path, number: int, seconds: float, torch: str = "2.13", uuid: str | None = None
) -> None:
    random = np.random.default_rng(number)
    launches = [made_launch([seconds * math.exp(random.normal(0, 0.005))] * 3) for _ in range(5)]
    software = SOFTWARE.model_copy(update={"distributions": {"torch": torch}, "gpu_uuid": uuid})
    save_baseline(
        Baseline(
            name=f"day-{number:02}", recorded_at=f"2026-01-{number + 1:02}T00:00:00",
            commit=f"commit{number}", suite="small", device="cpu", software={"torch": software},
            shapes={CASE: {"px": 32}}, launches=tuple(launches),
        ),
        folder, force=False,
    )  # fmt: skip


def test_a_change_is_found_with_its_size_moment_and_versions(tmp_path: Path) -> None:
    for number in range(12):
        slow = number >= 7
        _stored(tmp_path, number, 0.011 if slow else 0.010, "2.14" if slow else "2.13")
    (one,) = histories(read_baselines(tmp_path))
    assert [point.baseline for point in one.points] == [f"day-{n:02}" for n in range(12)]
    (change,) = one.changes
    assert (change.after, change.at) == ("day-06", "day-07")
    assert change.ratio == pytest.approx(1.1, rel=0.01)
    assert change.differs == {"torch": ["2.13", "2.14"], "commit": ["commit6", "commit7"]}


def test_noise_is_no_change(tmp_path: Path) -> None:
    for number in range(12):
        _stored(tmp_path, number, 0.010)
    (one,) = histories(read_baselines(tmp_path))
    assert one.changes == ()


def test_two_changes_are_both_found() -> None:
    random = np.random.default_rng(0)
    levels = [0.0] * 8 + [0.1] * 8 + [0.02] * 8
    logs = [level + random.normal(0, 0.01) for level in levels]
    assert change_points(logs, [0.01] * 24) == [8, 16]


def test_false_changes_are_rare() -> None:
    random = np.random.default_rng(1)
    found = sum(
        bool(change_points(list(random.normal(0, 0.01, 20)), [0.01] * 20)) for _ in range(200)
    )
    assert found <= 10, "at most 5 %"


def test_a_single_step_between_two_baselines_is_found() -> None:
    assert change_points([0.0, 0.2], [0.01, 0.01]) == [1]
    assert change_points([0.0, 0.005], [0.01, 0.01]) == []
    assert change_points([0.0], [None]) == []


def test_another_card_is_another_history(tmp_path: Path) -> None:
    _stored(tmp_path, 0, 0.01, uuid="GPU-1")
    _stored(tmp_path, 1, 0.02, uuid="GPU-2")
    found = histories(read_baselines(tmp_path))
    assert [len(one.points) for one in found] == [1, 1]
    assert [one.changes for one in found] == [(), ()]


def test_one_baseline_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 0 baselines"):
        read_baselines(tmp_path)
    _stored(tmp_path, 0, 0.01)
    with pytest.raises(UserError, match="holds 1 baseline;"):
        read_baselines(tmp_path)


def test_the_page_needs_no_network_and_escapes_names(tmp_path: Path) -> None:
    for number in range(3):
        _stored(tmp_path, number, 0.010 + number)
    found = histories(read_baselines(tmp_path))
    hostile = found[0].model_copy(update={"name": "<script>alert(1)</script>"})
    page = history_page([hostile])
    assert "<script>alert(1)" not in page
    assert 'src="http' not in page
    assert "day-01" in page
