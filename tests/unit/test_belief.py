"""Belief about candidates: no winner's curse, intervals that hold, ties and differences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from scipy.special import expit, logit

from bench.advise.belief import Belief, believe
from bench.advise.candidate import Candidate, candidate
from bench.advise.experience import (
    Arm,
    Experience,
    KindExperience,
    NetworkKind,
    shipped_experience,
)

IMAGES, NETWORK = 200, "squeezenet1_1"
POLICIES = ("freeze_all", "fine_tune_all", "retrain_all", "fine_tune_last")
SEED_DEVIATIONS = (0.057, 0.175, 0.175, 0.122)
DEVIATION = 0.4
"""Standard deviation of the gain of each policy but freeze_all, in log odds."""
EXPERIENCE = Experience(
    arms=tuple(Arm(policy=policy, rate_factor=1.0) for policy in POLICIES),
    kinds={
        "plain": KindExperience(
            gain=(0.0, 0.3, 0.0, 0.2),
            covariance=tuple(map(tuple, np.diag([0.0, *[DEVIATION**2] * 3]).tolist())),
            slope=(0.0,) * 4, slope_variance=(0.0,) * 4, head_gain=0.0, head_variance=0.04,
            seed_deviation=SEED_DEVIATIONS,
        )
    },
    images_per_class=20.0, least_images_per_class=10.0, most_images_per_class=40.0,
    pooled=0.0, shared=0.5, probe_slope=(-0.35, 0.25), whole_slope=(-0.35, 0.25), source="made",
)  # fmt: skip
KINDS: dict[str, NetworkKind] = {NETWORK: "plain"}


def _candidates() -> list[Candidate]:
    return [candidate(NETWORK, policy, "linear", 10) for policy in POLICIES]


def _answers(
    accuracies: npt.NDArray[np.float64], random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return right and wrong answers, alike for hard and easy images as those of networks are."""
    hard = random.normal(size=IMAGES)
    own = random.normal(size=(len(accuracies), IMAGES))
    right = 0.8 * hard + 0.6 * own < stats.norm.ppf(accuracies)[:, None]
    return right.astype(float)


def _with_luck(
    truth: npt.NDArray[np.float64], random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return accuracies of trainings with some seed."""
    lucky: npt.NDArray[np.float64] = expit(logit(truth) + random.normal(size=4) * SEED_DEVIATIONS)
    return lucky


def _world(random: np.random.Generator) -> tuple[npt.NDArray[np.float64], Belief]:
    """Return the true mean accuracies over seeds on one data set, and what is believed after a
    trial of each policy."""
    every = _candidates()
    gain, covariance = EXPERIENCE.prior(every, KINDS, 20.0)
    base = random.normal(1.2, 0.5)
    truth = expit(base + random.multivariate_normal(gain, covariance))
    answers = _answers(np.array([expit(base), *_with_luck(truth, random)]), random)
    trials = dict(zip(every, answers[1:], strict=True))
    folds = dict.fromkeys(every, 1)
    return truth, believe(EXPERIENCE, 20.0, every, KINDS, {NETWORK: answers[0]}, trials, folds)


@pytest.fixture(scope="module")
def worlds() -> list[tuple[npt.NDArray[np.float64], Belief]]:
    random = np.random.default_rng(0)
    return [_world(random) for _ in range(300)]


def test_the_expected_accuracy_has_no_winners_curse(
    worlds: list[tuple[npt.NDArray[np.float64], Belief]],
) -> None:
    errors = []
    for truth, belief in worlds:
        best = int(belief.expected.argmax())
        errors.append(belief.expected[best] - truth[best])
    assert abs(np.mean(errors)) < 0.006


def test_intervals_hold_the_accuracy_of_other_images(
    worlds: list[tuple[npt.NDArray[np.float64], Belief]],
) -> None:
    random, held = np.random.default_rng(1), []
    for truth, belief in worlds:
        full_runs = _with_luck(truth, random)
        for one, accuracy in zip(belief.candidates, full_runs, strict=True):
            low, high = belief.interval(one, test_images=150)
            held.append(low <= random.binomial(150, accuracy) / 150 <= high)
    assert 0.88 <= np.mean(held) <= 0.94


def test_those_within_the_margin_of_the_best_are_called_as_good(
    worlds: list[tuple[npt.NDArray[np.float64], Belief]],
) -> None:
    called = [
        chance >= 0.05
        for truth, belief in worlds
        for chance, accuracy in zip(belief.chance_within(0.01), truth, strict=True)
        if accuracy >= truth.max() - 0.01
    ]
    assert np.mean(called) >= 0.95


def test_the_expected_shortfall_is_what_the_choice_loses(
    worlds: list[tuple[npt.NDArray[np.float64], Belief]],
) -> None:
    lost, expected = [], []
    for truth, belief in worlds:
        best = int(belief.shortfall.argmin())
        lost.append(truth.max() - truth[best])
        expected.append(belief.shortfall[best])
    assert np.mean(expected) == pytest.approx(np.mean(lost), abs=0.003)


def test_what_is_far_behind_is_not_called_as_good() -> None:
    random, every = np.random.default_rng(2), _candidates()
    answers = _answers(np.array([0.8, 0.8, 0.9, 0.6, 0.8]), random)
    trials = dict(zip(every, answers[1:], strict=True))
    belief = believe(
        EXPERIENCE, 20.0, every, KINDS, {NETWORK: answers[0]}, trials, dict.fromkeys(every, 1)
    )
    near = dict(zip(POLICIES, belief.chance_within(0.01), strict=True))
    assert near["retrain_all"] < 0.01
    assert near["fine_tune_all"] > 0.9
    assert belief.chance_of_best.sum() == pytest.approx(1.0)


def test_probes_alone_give_what_experience_adds() -> None:
    probe = np.array([1.0] * 160 + [0.0] * 40)
    belief = believe(EXPERIENCE, 20.0, _candidates(), KINDS, {NETWORK: probe}, {}, {})
    expected = logit(belief.expected) - logit(0.8)
    assert expected == pytest.approx([0.0, 0.3, 0.0, 0.2], abs=0.08)
    assert belief.expected.argmax() == 1


def test_images_of_a_group_count_once() -> None:
    """Crops of ten photographs say less than a hundred photographs do."""
    every, groups = _candidates(), np.repeat(np.arange(10), 10)
    probe = np.repeat([1.0, 1, 1, 1, 1, 1, 1, 0, 0, 0], 10)
    alone = believe(EXPERIENCE, 20.0, every, KINDS, {NETWORK: probe}, {}, {})
    together = believe(EXPERIENCE, 20.0, every, KINDS, {NETWORK: probe}, {}, {}, groups)
    assert together.draws[:, 0].std() > 2 * alone.draws[:, 0].std()


def test_a_trial_in_some_folds_counts_by_its_images() -> None:
    every, answers = _candidates(), np.array([1.0, 1, 1, 0] * 50)
    half = np.where(np.arange(200) < 100, answers, np.nan)
    spread = []
    for own in (half, answers):
        belief = believe(
            EXPERIENCE, 20.0, every, KINDS, {NETWORK: answers}, {every[1]: own}, {every[1]: 1}
        )
        spread.append(belief.draws[:, 1].std())
    assert spread[1] < spread[0]


def test_all_right_is_no_certainty() -> None:
    every, right = _candidates(), np.ones(30)
    belief = believe(
        EXPERIENCE, 20.0, every, KINDS, {NETWORK: right}, {every[0]: right}, {every[0]: 1}
    )
    low, high = belief.interval(every[0], test_images=1000)
    assert low < 0.97
    assert high == 1.0


def test_the_shipped_experience_knows_every_policy_at_every_rate() -> None:
    experience = shipped_experience()
    for policy in ("freeze_all", "fine_tune_all", "discriminative_lr"):
        for factor in (1 / 3, 1.0, 3.0):
            one = candidate(NETWORK, policy, "linear", 10).at_rate(factor)
            arm = experience.arms[experience.index_of(one)]
            assert (arm.policy, arm.rate_factor) == (policy, pytest.approx(factor))
    with pytest.raises(ValueError, match="no experience with policy bitfit"):
        experience.index_of(Candidate(NETWORK, "bitfit", "linear", 0.001, 10))
    for own in experience.kinds.values():
        assert np.linalg.eigvalsh(np.array(own.covariance)).min() > -1e-9


def test_experience_is_that_of_the_networks_kind() -> None:
    """A gain of 1 with normalising networks and -1 with plain ones, at sizes that were seen."""
    own = EXPERIENCE.kinds["plain"]
    kinds = {
        kind: own.model_copy(update={"gain": (0.0, gain, 0.0, 0.0), "head_gain": gain / 2})
        for kind, gain in (("normalised", 1.0), ("plain", -1.0))
    }
    experience = EXPERIENCE.model_copy(update={"kinds": kinds})
    networks = ("efficientnet_lite0", NETWORK)
    every = [candidate(name, p, "linear", 10) for name in networks for p in POLICIES]
    of: dict[str, NetworkKind] = {networks[0]: "normalised", networks[1]: "plain"}
    gain, covariance = experience.prior(every, of, 20.0)
    assert gain == pytest.approx([0.5, 1.5, 0.5, 0.5, -0.5, -1.5, -0.5, -0.5])
    within = DEVIATION**2 + own.head_variance
    assert covariance[1, 1] == covariance[5, 5] == pytest.approx(within)
    assert covariance[1, 5] == covariance[5, 1] == pytest.approx(0.5 * DEVIATION**2)
    assert covariance[1, 6] == 0.0


def test_the_seed_of_the_full_run_is_part_of_its_interval() -> None:
    """An accuracy of 80 %, known exactly, still varies by 0.16 × the deviation of its log odds."""
    every = _candidates()
    deviations = EXPERIENCE.seed_deviations(every, KINDS)
    belief = Belief(tuple(every), np.full((4000, len(every)), 0.8), deviations)
    for one, deviation in ((every[0], 0.057), (every[1], 0.175)):
        low, high = belief.interval(one, test_images=10**7)
        assert high - low == pytest.approx(2 * 1.645 * 0.16 * deviation, rel=0.1)


def test_gains_are_not_carried_on_far_beyond_the_sizes_that_were_seen() -> None:
    """A gain that grows by 1 where there are e times as many images, seen up to 40 of a class: it
    is that of 160 with 4,000, and less sure."""
    own = EXPERIENCE.kinds["plain"].model_copy(
        update={"slope": (0.0, 1.0, 0.0, 0.0), "slope_variance": (0.0, 0.01, 0.0, 0.0)}
    )
    experience = EXPERIENCE.model_copy(update={"kinds": {"plain": own}})
    found = {n: experience.prior(_candidates(), KINDS, n) for n in (20.0, 160.0, 4000.0)}
    assert found[20.0][0][1] == pytest.approx(0.3)
    assert found[160.0][0][1] == found[4000.0][0][1] == pytest.approx(0.3 + np.log(8))
    deviation = {n: covariance[1, 1] ** 0.5 for n, (_, covariance) in found.items()}
    assert deviation[4000.0] > deviation[160.0] > deviation[20.0]


@pytest.mark.parametrize(("pooled", "behind"), [(0.0, 0.2), (0.5, 0.1), (1.0, 0.0)])
def test_what_is_expected_of_a_network_rests_on_all_probes_as_far_as_experience_says(
    pooled: float, behind: float
) -> None:
    """Probe two networks of one kind: one is right about 80 % of the images, the other 60 %."""
    names = ("squeezenet1_1", "alexnet")
    every = [candidate(name, "freeze_all", "linear", 10) for name in names]
    experience = EXPERIENCE.model_copy(update={"pooled": pooled})
    images = np.arange(2000) / 2000
    probes = {
        name: (images < top1).astype(float) for name, top1 in zip(names, (0.8, 0.6), strict=True)
    }
    kinds: dict[str, NetworkKind] = dict.fromkeys(names, "plain")
    belief = believe(experience, 20.0, every, kinds, probes, {}, {})
    assert belief.expected[0] - belief.expected[1] == pytest.approx(behind, abs=0.02)
