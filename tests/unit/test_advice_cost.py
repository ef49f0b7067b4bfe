"""The time of trials: predicted from what trials took."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.advise import cost
from bench.advise.candidate import TrialPlan, candidate
from bench.advise.cost import Amount, CostModel, full_run_s
from bench.cli.options import duration_s
from bench.errors import UserError
from tests.unit.test_advice_page import CHEAP

AMOUNT = Amount(train=1000, watched=10, test=100)


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> CostModel:
    """Return the costs of networks of which each image takes a million multiply-adds."""
    monkeypatch.setattr(cost, "inference_work", lambda folder: 1e6)
    monkeypatch.setattr(cost, "work_per_image", lambda *about: 3e7)
    return CostModel(Path, classes=4)


def _plan(backbone: str, policy: str) -> TrialPlan:
    return TrialPlan(candidate(backbone, policy, "linear", 10), "torch", 0, 10)


def test_a_wrong_pace_of_one_network_does_not_mislead_about_another(costs: CostModel) -> None:
    """The pass of the first network was slowed tenfold by other work, so that its trials take a
    tenth of what is predicted. The second one's pace is right, and its own trials say so."""
    costs.note_inference("slowed", 1000, 1.0)
    costs.note_inference("right", 1000, 0.1)
    true_s = 1e-10 * (1000 * 3e7 + 200 * 1e6) + cost.SET_UP_S
    costs.note_trial(_plan("right", "retrain_all"), AMOUNT, 1.3 * true_s)
    for _ in range(4):
        costs.note_trial(_plan("slowed", "fine_tune_all"), AMOUNT, true_s)
    found_s = costs.work_s(_plan("right", "fine_tune_all"), AMOUNT)
    assert found_s == pytest.approx(1.3 * true_s, rel=0.05)
    found_s = costs.work_s(_plan("slowed", "retrain_all"), AMOUNT)
    assert found_s == pytest.approx(true_s, rel=0.05)


def test_a_head_says_nothing_of_the_time_of_a_whole_network(costs: CostModel) -> None:
    """A head took a tenth of what was predicted, as its set-up was short."""
    costs.note_inference("a", 1000, 0.1)
    before_s = costs.work_s(_plan("a", "retrain_all"), AMOUNT)
    costs.note_trial(_plan("a", "freeze_all"), AMOUNT, 0.1 * before_s)
    assert costs.work_s(_plan("a", "retrain_all"), AMOUNT) == before_s
    assert costs.work_s(_plan("b", "freeze_all"), AMOUNT) < 0.2 * before_s


def test_a_full_run_takes_the_time_of_its_start_and_saving_too() -> None:
    assert CHEAP.train_s == 4.0
    assert full_run_s(CHEAP) == pytest.approx(4.0 + cost.FULL_RUN_S["torch"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5m", 90), ("1m30s", 90), ("2h", 7200), ("1h1s", 3601)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert duration_s("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0m", "-5m", "30s1m", "ten minutes", "1m 30s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no time"):
        duration_s("--budget", text)


def test_learning_rates_are_round_numbers() -> None:
    one = candidate("squeezenet1_1", "fine_tune_all", "linear", 10)
    assert one.at_rate(3.0).learning_rate == pytest.approx(3 * one.learning_rate)
    assert len(repr(one.at_rate(3.0).learning_rate)) < 10
    assert one.at_rate(1 / 3).rate_factor == pytest.approx(1 / 3, rel=1e-5)
