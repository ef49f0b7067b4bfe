"""Which policies may be the best: values of the reference implementation, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.analysis import ranking, seed_spread
from bench.analysis.ranking import NODES, RANGE, average, critical, rank
from bench.analysis.scores import Kind, Scores
from bench.analysis.seed_spread import Experience, experience, spread_of

KINDS: tuple[tuple[float, Kind], ...] = (
    (2.0, "all"), (1.8, "part"), (1.2, "head"), (-0.5, "scratch"),
)  # fmt: skip


def drawn(seeds: int, images: int = 200) -> list[np.ndarray]:
    random = np.random.default_rng([7, seeds, 0])
    hard, answers = random.normal(0, 2, images), []
    for mean, _ in KINDS:
        own, luck = random.normal(0, 0.8, images), random.normal(0, 0.3, (seeds, 1))
        share = 1 / (1 + np.exp(-(mean + hard + own + luck)))
        answers.append(random.random((seeds, images)) < share)
    return answers


def made(answers: list[np.ndarray], groups: np.ndarray | None = None) -> list[Scores]:
    return [
        Scores.of_answers(f"policy {n}", kind, right, None, groups)
        for n, (right, (_, kind)) in enumerate(zip(answers, KINDS, strict=True))
    ]


REFERENCE = {
    (1, False): ((-0.171091, 0.071091), (-0.615310, -0.194690), (0.661, 0.456, 0.330, 0.005)),
    (1, True): ((-0.168135, 0.068135), (-0.615497, -0.194503), (0.658, 0.443, 0.349, 0.005)),
    (2, False): ((-0.164355, 0.059355), (-0.455558, -0.109442), (0.768, 0.388, 0.250, 0.004)),
    (2, True): ((-0.164304, 0.059304), (-0.455744, -0.109256), (0.777, 0.381, 0.239, 0.004)),
    (3, False): ((-0.119279, 0.085946), (-0.407329, -0.196004), (0.392, 0.295, 0.772, 0.000)),
    (3, True): ((-0.119139, 0.085805), (-0.406968, -0.196365), (0.409, 0.299, 0.756, 0.000)),
    (5, False): ((-0.048422, 0.036422), (-0.378077, -0.249923), (0.784, 0.577, 0.007, 0.000)),
    (5, True): ((-0.050296, 0.038296), (-0.375482, -0.252518), (0.757, 0.605, 0.015, 0.000)),
}
"""(seeds, grouped) → intervals of policies 1 − 0 and 3 − 0 and the chances to be within a point, by
an independent implementation of the same method (which drops experience at 95 %)."""


@pytest.mark.parametrize(("seeds", "is_grouped"), REFERENCE)
def test_intervals_and_chances_are_those_of_the_reference(
    seeds: int, is_grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread: dict[Kind, float] = {"head": 0.06, "part": 0.11, "all": 0.17, "scratch": 0.32}
    monkeypatch.setattr(seed_spread, "GATE", 0.95)
    monkeypatch.setattr(seed_spread, "experience", lambda: Experience(spread, 0.35, "reference"))
    policies = made(drawn(seeds), np.arange(200) // 10 if is_grouped else None)
    found = rank(policies, spread_of([policies]))
    first, last, chances = REFERENCE[seeds, is_grouped]
    for place, expected in ((1, first), (3, last)):
        e = found.difference(0, place)
        assert (e.low, e.high) == pytest.approx(expected, abs=2e-6)
    monkeypatch.setattr(ranking, "OUTER", 4000)  # fewer leave an error of 0.02
    ranking._normal_draws.cache_clear()
    assert found.chances() == pytest.approx(chances, abs=0.02)
    ranking._normal_draws.cache_clear()
    assert found.ruled_out == [False, False, seeds == 5, True]


def test_with_one_reference_and_no_image_noise_it_is_a_moderated_t() -> None:
    """All images alike: the seeds alone decide, 4 degrees of experience and S − 1 of their own."""
    a = np.repeat([[0.50], [0.54], [0.52]], 400, axis=1)
    b = np.repeat([[0.60], [0.58], [0.62]], 400, axis=1)
    policies = [Scores.of_answers(n, "all", x) for n, x in (("a", a), ("b", b))]
    e = rank(policies).difference(0, 1)
    expected = [
        (experience().spread["all"] * p.slope) ** 2 + float(p.rest or 0.0) / p.images
        for p in policies
    ]
    own = np.var([0.1, 0.04, 0.1], ddof=1)
    variance = (4 * sum(expected) + 2 * own) / 6 / 3
    half = stats.t.ppf(0.975, 6) * variance**0.5
    assert e.high - e.low == pytest.approx(2 * half, rel=0.01)  # type: ignore[operator]


def test_policies_that_agree_on_every_image_keep_a_width() -> None:
    right = np.ones((3, 1080), bool)
    policies = [Scores.of_answers(n, "head", right) for n in "ab"]
    e = rank(policies, spread_of([policies])).difference(0, 1)
    assert e.value == 0.0
    assert 0.001 < (e.half_width or 0.0) < 0.01
    assert not any(rank(policies).ruled_out)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_right_or_all_wrong_has_an_answer(share: float) -> None:
    policies = [Scores.of_answers(n, "all", np.full((1, 38), share)) for n in "abc"]
    found = rank(policies, spread_of([policies]))
    assert found.chances() == pytest.approx(1.0, abs=0.5)
    assert not any(found.ruled_out)


def test_seeds_that_differ_are_not_paired() -> None:
    """Welch's degrees of freedom; the same runs in the same seeds are compared more closely if a
    seed does the same to both."""
    luck = np.array([[-0.08], [0.0], [0.08]])
    a, b = np.tile(0.6 + luck, 300), np.tile(0.65 + luck, 300)
    paired = rank([Scores.of_answers("a", "all", a), Scores.of_answers("b", "all", b)])
    apart = rank([Scores.of_answers("a", "all", a),
                  Scores.of_answers("b", "all", b, seeds=(3, 4, 5))])  # fmt: skip
    few = rank([Scores.of_answers("a", "all", a), Scores.of_answers("b", "all", b[:2])])
    assert paired.difference(0, 1).half_width < apart.difference(0, 1).half_width  # type: ignore[operator]
    assert few.difference(0, 1).half_width > paired.difference(0, 1).half_width  # type: ignore[operator]
    assert apart.seed_degrees[0, 1] == pytest.approx(12.0, rel=0.01)


def test_groups_widen_what_images_alone_would_say() -> None:
    random = np.random.default_rng(1)
    shift = np.repeat(random.normal(0, 0.2, 18), 60)
    a = np.full((1, 1080), 0.8)
    b = np.clip(a + shift, 0, 1)
    groups = np.repeat(np.arange(18), 60)
    alone, together = (
        rank([Scores.of_answers("a", "all", a, None, g), Scores.of_answers("b", "all", b, None, g)])
        for g in (None, groups)
    )
    assert together.image_pairs[0, 1] > 20 * alone.image_pairs[0, 1]
    assert together.image_degrees == 17.0


def test_without_single_answers_an_assumed_share_stands_in() -> None:
    known = [Scores("a", "all", (0,), np.array([0.9]), 1000),
             Scores("b", "all", (0,), np.array([0.7]), 1000)]  # fmt: skip
    found = rank(known)
    assert found.image_pairs[0, 1] == pytest.approx(
        experience().image_share * sum(p.slope for p in known) / 1000
    )
    assert found.ruled_out == [False, True]


def test_the_order_of_policies_decides_nothing() -> None:
    policies = made(drawn(3))
    there, back = rank(policies), rank(policies[::-1])
    assert there.ruled_out == back.ruled_out[::-1]
    assert there.difference(0, 3).low == pytest.approx(-(back.difference(0, 3).high or 0.0))


def test_other_numbers_of_images_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="differ"):
        rank([Scores.of_answers("a", "all", np.ones((1, n))) for n in (3, 4)])
    with pytest.raises(ValueError, match="no answers"):
        Scores.of_answers("a", "all", np.ones((0, 3)))


def test_an_average_over_tests_is_narrower_where_their_images_differ() -> None:
    policies = made(drawn(3))
    one = rank(policies)
    same, other = average([one, one], ["x", "x"]), average([one, one], ["x", "y"])
    assert same.difference(0, 1).value == pytest.approx(one.difference(0, 1).value)
    assert same.image_pairs == pytest.approx(one.image_pairs)  # as if fully dependent
    assert other.image_pairs == pytest.approx(one.image_pairs / 2)
    assert same.seed_pairs == pytest.approx(one.seed_pairs / 2)
    alone = average([one], ["x"])
    assert alone.difference(0, 3).low == pytest.approx(one.difference(0, 3).low, rel=1e-6)


def test_a_better_policy_has_a_better_chance() -> None:
    policies = made(drawn(5))
    chances = rank(policies, spread_of([policies])).chances()
    clear = [0, 2, 3]  # the first two are nearly alike
    assert [policies[n].mean for n in clear] == sorted(
        (p.mean for p in (policies[0], *policies[2:])), reverse=True
    )
    assert chances[0] > chances[2] > chances[3]
    wide, narrow = (rank(policies).chances(margin) for margin in (0.05, 0.001))
    assert (wide >= narrow).all()


@pytest.mark.parametrize(
    ("count", "degrees"), [(3, 6.0), (4, 12.0), (6, 5.0), (10, 8.0), (6, 40.0)]
)
def test_the_table_of_the_studentised_range_is_scipys(count: int, degrees: float) -> None:
    found = float(critical(count, degrees))
    assert stats.studentized_range.cdf(found * 2**0.5, count, degrees) == pytest.approx(
        0.95, abs=1e-3
    )


def test_of_two_or_very_many_policies_t_decides() -> None:
    assert float(critical(2, 7.0)) == pytest.approx(stats.t.ppf(0.975, 7))
    assert float(critical(12, 20.0)) == pytest.approx(stats.t.ppf(1 - 0.05 / 2 / 66, 20), rel=1e-6)
    assert all(len(values) == len(NODES) for values in RANGE.values())


def test_experience_is_dropped_where_the_runs_contradict_it() -> None:
    """It never speaks louder than the data."""

    def answers(luck: float) -> list[Scores]:
        random = np.random.default_rng(3)
        shares = 0.7 + luck * random.standard_normal((6, 8, 1)) / 3
        return [
            Scores.of_answers(f"p{n}", "all", random.random((8, 4000)) < share)
            for n, share in enumerate(shares)
        ]

    usual = experience().spread["all"]
    calm, restless = (spread_of([answers(luck)]) for luck in (0.1, 1.0))
    measured = np.mean([s.by_seed.std(ddof=1) / s.slope for s in answers(1.0)])
    assert restless.by_policy["p0"] > 0.7 * measured > 3 * usual
    assert restless.factor > 3.0
    assert calm.by_policy["p0"] < 1.3 * usual
    nothing = spread_of([[Scores.of_answers("p", "head", np.ones((1, 10)))]])
    assert nothing.by_policy["p"] == pytest.approx(experience().spread["head"])
    assert nothing.factor == 1.0


def test_the_experience_that_is_shipped_says_from_what_it_comes() -> None:
    assert isinstance(experience(), Experience)
    assert "runs" in experience().source
    spread = experience().spread
    assert 0.0 < spread["head"] < spread["part"] < spread["all"] < spread["scratch"] < 1.0
