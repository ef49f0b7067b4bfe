"""Stored baselines: their file, what they are compared with, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.storage.file import FileStorage

from bench.errors import UserError
from bench.gate.baseline import compare_baselines
from bench.speed.baseline import (
    Baseline,
    document,
    load_baseline,
    read_baseline,
    save_baseline,
)
from bench.speed.software import software_differences
from bench.workers.tasks import Software
from tests.unit.made_launches import CASE, SOFTWARE, made_launch, made_window

NAME = f"train_step {CASE}"
SHAPE = {"backbone": "net", "px": 32, "batch_size": 8, "precision": "fp32"}


def _baseline(
    name: str = "before", ratio: float = 1.0, count: int = 6, seed: int = 0, spread: float = 0.01,
    software: Software = SOFTWARE, **more: Any,
) -> Baseline:  # fmt: skip
    noise = np.random.default_rng(seed).normal(0, spread, count)
    found = [made_launch([0.01 * ratio * math.exp(x)] * 3) for x in noise]
    fields: Mapping[str, Any] = {
        "name": name, "recorded_at": f"2026-01-0{seed + 1}T00:00:00", "commit": "abc",
        "suite": "small", "device": "cpu", "software": {"torch": software},
        "shapes": {CASE: SHAPE}, "launches": tuple(found), **more,
    }  # fmt: skip
    return Baseline(**fields)


def test_a_baseline_survives_its_file(tmp_path: Path) -> None:
    baseline = _baseline()
    path = save_baseline(baseline, tmp_path, force=False)
    assert load_baseline(tmp_path, "before") == baseline
    assert load_baseline(tmp_path, str(path)) == baseline


def test_the_file_is_pytest_benchmarks_own(tmp_path: Path) -> None:
    path = save_baseline(_baseline(), tmp_path, force=False)

    class Logger:
        def warning(self, text: str, *_: Any) -> None:
            raise AssertionError(text)

    (one,) = FileStorage(tmp_path, Logger()).load_benchmarks(str(path))
    assert one["name"] == NAME
    assert one["rounds"] == 6
    assert one["median"] == pytest.approx(0.01, rel=0.02)
    assert one["extra_info"]["batch_size"] == 8
    assert one["extra_info"]["other"]["compile_s"] == [0.2] * 6


def test_every_window_is_stored_with_the_state_around_it(tmp_path: Path) -> None:
    stored = document(_baseline())["thawbench"]["launches"][0]["cases"][CASE]["windows"]
    assert len(stored) == 3
    assert {"measure", "seconds", "before", "after"} == set(stored[0])


def test_a_baseline_is_not_replaced_without_force(tmp_path: Path) -> None:
    save_baseline(_baseline(), tmp_path, force=False)
    before = (tmp_path / "before.json").read_bytes()
    with pytest.raises(UserError, match="already"):
        save_baseline(_baseline(ratio=2.0), tmp_path, force=False)
    assert (tmp_path / "before.json").read_bytes() == before
    save_baseline(_baseline(ratio=2.0), tmp_path, force=True)
    assert (tmp_path / "before.json").read_bytes() != before


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 200, "a b"])
def test_a_name_that_is_no_file_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be the name"):
        save_baseline(_baseline(name=name), tmp_path, force=False)


def test_a_missing_baseline_has_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no baseline 'x'") as caught:
        load_baseline(tmp_path, "x")
    assert "There are none yet" in str(caught.value.hint)
    save_baseline(_baseline(), tmp_path, force=False)
    with pytest.raises(UserError, match="Did you mean 'before'"):
        load_baseline(tmp_path, "befor")


def _edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        found = json.loads(text)
        change(found)
        return json.dumps(found)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:500], "no baseline"),
        (lambda text: "", "no baseline"),
        (lambda text: "[]", "has no key 'thawbench'"),
        (_edited(lambda d: d.pop("thawbench")), "has no key 'thawbench'"),
        (_edited(lambda d: d["thawbench"].update(schema_version=9)), "newer version"),
        (_edited(lambda d: d["thawbench"].pop("suite")), "damaged at 'suite'"),
        (
            lambda text: text.replace('"seconds": 0.0', '"seconds": NaN, "x": 0.0', 1),
            "damaged at 'launches.0.cases",
        ),
        (lambda text: "[" * 100_000, "no baseline"),
    ],
)
def test_a_damaged_file_is_refused(
    edit: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    path = save_baseline(_baseline(), tmp_path, force=False)
    path.write_text(edit(path.read_text()))
    with pytest.raises(UserError, match=message):
        read_baseline(path)


def test_the_same_speed_is_the_same() -> None:
    result = compare_baselines(_baseline(), _baseline("now", seed=1), 0.03)
    assert (result.verdict, result.is_suspicious) == ("same", False)
    assert result.benchmarks[0].verdict == "same"


def test_a_slowdown_is_a_suspicion_and_never_a_verdict() -> None:
    result = compare_baselines(_baseline(), _baseline("now", ratio=1.2, seed=1), 0.03)
    assert (result.verdict, result.is_suspicious) == ("cannot tell", True)
    (one,) = result.benchmarks
    assert one.verdict == "suspicion"
    assert one.ratio == pytest.approx(1.2, rel=0.02)
    assert one.interval is not None
    assert one.interval[0] > 1.1
    assert one.detectable is not None
    assert 0.03 < one.detectable < 0.1


def test_faster_is_faster_and_noise_tells_nothing() -> None:
    assert (
        compare_baselines(_baseline(), _baseline("now", ratio=0.8, seed=1), 0.03).verdict
        == "faster"
    )
    noisy = compare_baselines(_baseline(spread=0.2), _baseline("now", spread=0.2, seed=1), 0.03)
    assert noisy.verdict == "cannot tell"
    assert noisy.benchmarks[0].reason == "the launches vary too much"


GPU = SOFTWARE.model_copy(
    update={"device_model": "NVIDIA H200", "gpu_uuid": "GPU-1", "driver": "570"}
)
OTHER_MODEL = GPU.model_copy(update={"device_model": "NVIDIA B200"})


@pytest.mark.parametrize(
    ("before", "now", "field"),
    [
        ({}, {"suite": "usual"}, "suite"),
        ({}, {"device": "cuda:0"}, "device"),
        ({"software": GPU}, {"software": GPU.model_copy(update={"gpu_uuid": "GPU-2"})}, "gpu_uuid"),
        ({"software": GPU}, {"software": OTHER_MODEL}, "device_model"),
        ({}, {"software": SOFTWARE.model_copy(update={"processor": "other"})}, "processor"),
        ({}, {"shapes": {CASE: {**SHAPE, "batch_size": 16}}}, "batch_size of"),
        ({}, {"shapes": {CASE: {**SHAPE, "precision": "bf16"}}}, "precision of"),
        ({}, {"shapes": {CASE: {**SHAPE, "px": 64}}}, "px of"),
    ],
)  # fmt: skip
def test_what_must_agree_is_refused_by_name(
    before: dict[str, Any], now: dict[str, Any], field: str
) -> None:
    with pytest.raises(UserError, match=f"Not comparable .*: {field}"):
        compare_baselines(_baseline(**before), _baseline("now", seed=1, **now), 0.03)


def test_another_batch_is_another_name_and_refused_all_the_same() -> None:
    other = CASE.replace("batch8", "batch16")
    shape = {**SHAPE, "policy": "all", "batch_size": 16}
    launches = tuple(made_launch({other: [made_window(0.01 + 1e-5 * i)] * 3}) for i in range(6))
    now = _baseline("now", seed=1, shapes={other: shape}, launches=launches)
    with pytest.raises(UserError, match="batch_size of .* was 8, now it is 16"):
        compare_baselines(_baseline(shapes={CASE: {**SHAPE, "policy": "all"}}), now, 0.03)


def test_cases_without_anything_in_common_are_refused() -> None:
    now = _baseline("now", seed=1, shapes={"other": {"backbone": "x"}},
                    launches=(made_launch({"other": [made_window(0.01)] * 3}),) * 3)  # fmt: skip
    with pytest.raises(UserError, match="no case in common"):
        compare_baselines(_baseline(), now, 0.03)


def test_a_gpu_without_identity_is_refused() -> None:
    unknown = SOFTWARE.model_copy(update={"device_model": "absent"})
    sides = [_baseline(n, seed=i, software=unknown, device="cuda:0") for i, n in enumerate("ab")]
    with pytest.raises(UserError, match="does not know its GPU"):
        compare_baselines(*sides, 0.03)


def test_steps_of_other_numbers_of_images_are_refused() -> None:
    def side(name: str, images: int, seed: int) -> Baseline:
        found = []
        for launch in _baseline(name, seed=seed).launches:
            answer = launch.cases[CASE].model_copy(update={"images": {"train_step": images}})
            found.append(launch.model_copy(update={"cases": {CASE: answer}}))
        return _baseline(name, seed=seed, launches=tuple(found))

    with pytest.raises(UserError, match="images of train_step"):
        compare_baselines(side("a", 32, 0), side("b", 64, 1), 0.03)


def test_what_may_differ_is_a_suspect() -> None:
    other = GPU.model_copy(
        update={
            "driver": "580",
            "python": "3.12.0",
            "kernel": "6.9",
            "distributions": {"torch": "3"},
        }
    )
    result = compare_baselines(
        _baseline(software=GPU), _baseline("now", seed=1, software=other, commit="def"), 0.03
    )
    assert result.differs == {
        "commit": ["abc", "def"], "driver": ["570", "580"], "kernel": ["6.1", "6.9"],
        "python": ["3.11.7", "3.12.0"], "torch": ["2.14.1", "3"],
    }  # fmt: skip


def test_frameworks_come_before_other_distributions() -> None:
    own = {"absl-py": "1", "keras": "3", "torch": "2", "zipp": "1"}
    now = SOFTWARE.model_copy(update={"distributions": dict.fromkeys(own, "9")})
    before = SOFTWARE.model_copy(update={"distributions": own})
    assert list(software_differences(before, now)) == ["keras", "torch", "absl-py", "zipp"]


def test_cases_that_one_side_lacks_are_named_and_the_rest_is_compared() -> None:
    both = [made_launch({CASE: [made_window(0.01 + 1e-5 * i)] * 3, "old": [made_window(1.0)] * 3})
            for i in range(6)]  # fmt: skip
    before = _baseline(shapes={CASE: SHAPE, "old": {}}, launches=tuple(both))
    result = compare_baselines(before, _baseline("now", seed=1), 0.03)
    assert result.missing == ("train_step old",)
    assert result.added == ()
    assert [one.name for one in result.benchmarks] == [NAME]


@pytest.mark.parametrize("launches", [1, 2])
def test_too_few_launches_are_refused(launches: int) -> None:
    with pytest.raises(UserError, match=f"has {launches} launch"):
        compare_baselines(_baseline(count=launches), _baseline("now", seed=1), 0.03)


def test_identical_samples_tell_nothing() -> None:
    stuck = {"spread": 0.0}
    result = compare_baselines(_baseline(**stuck), _baseline("now", seed=1, **stuck), 0.03)
    assert result.verdict == "cannot tell"
    assert "clock stands still" in str(result.benchmarks[0].reason)


def test_disturbed_launches_are_left_out() -> None:
    calm = [made_launch([0.01 + 1e-5 * i] * 3) for i in range(5)]
    noisy = made_launch({CASE: [made_window(0.05, disturbed=True)] * 3})
    assert len(_baseline(launches=(*calm, noisy)).values()[NAME]) == 5
    disturbed = _baseline(launches=(noisy,) * 4)
    assert disturbed.values()[NAME] == []
    assert len(disturbed.all_values()[NAME]) == 4
    result = compare_baselines(disturbed, _baseline("now", seed=1), 0.03)
    assert result.verdict == "cannot tell"
    assert result.benchmarks[0].reason == "launches were disturbed: 4 of the baseline, 0 of now"


def test_ratios_are_given_in_cycles_too() -> None:
    def side(name: str, seconds: float, clock: float, seed: int) -> Baseline:
        windows = [[made_window(seconds * (1 + 0.001 * i), clock=clock)] * 3 for i in range(6)]
        launches = tuple(made_launch({CASE: own}) for own in windows)
        return _baseline(name, seed=seed, software=GPU, device="cuda:0", launches=launches)

    result = compare_baselines(side("a", 0.01, 2000.0, 0), side("b", 0.0125, 1600.0, 1), 0.03)
    assert result.benchmarks[0].ratio == pytest.approx(1.25)
    assert result.benchmarks[0].cycles_ratio == pytest.approx(1.0)
    assert result.differs["GPU clock in MHz"] == [2000, 1600]
