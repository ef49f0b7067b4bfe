"""The adviser's record: planted faults, published accuracies, and what is learned from runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFont
from scipy.special import expit, logit

from bench.advise.advice import Advice, Strategy
from bench.advise.candidate import candidate
from bench.advise.experience import Experience
from bench.advise.images import development
from bench.advise.learning_curve import Point
from bench.advise.signs.check import before_probes
from bench.catalog.policies import POLICIES
from bench.data import SplitSizes, pack
from bench.data.model import Dataset, SplitName
from bench.data.resplit import ImagePool, Indices, PoolSource, resplit
from tools.advice_record.cells import (
    FAMILIES,
    PLAIN,
    SIZES,
    VARIANTS,
    Cell,
    Family,
    is_copy,
    without_split,
)
from tools.advice_record.cells import (
    cells as every_cell,
)
from tools.advice_record.learn import learn
from tools.advice_record.made import LETTER_PX, MARGIN_PX, _drawn, _made
from tools.advice_record.measured import SHARES, Measured, outside, parts, time_of
from tools.advice_record.oracle import BACKBONES, FACTORS, KINDS, SEEDS, FullRun
from tools.advice_record.planted import FAULTS, with_fault
from tools.advice_record.published import published_regrets
from tools.advice_record.report import expected_largest
from tools.advice_record.rules import RULES, Evidence
from tools.advice_record.scores import data_wanted, regret_error, scores

TEST_IMAGES = 500
EMBEDDED = ("photos", "mnist5k", "rvl_cdip")
"""Data sets of the record that need no Debian package."""
GAINS = {"freeze_all": 0.0, "fine_tune_all": 0.8, "retrain_all": -0.5}


def _run(backbone: str, policy: str, factor: float, log_odds: float, luck: int) -> FullRun:
    right = np.random.default_rng(luck).permutation(TEST_IMAGES)
    count = round(TEST_IMAGES * float(expit(log_odds)))
    return FullRun(
        backbone, policy, factor, (0.5, 0.6), count / TEST_IMAGES, 2.0,
        tuple(sorted(right[:count].tolist())), TEST_IMAGES,
    )  # fmt: skip


def _measured(family: Family, size: int, number: int) -> Measured:
    """Return a cell whose policies gain what ``GAINS`` says, more at three times the rate."""
    random = np.random.default_rng(number)
    base, thaw = random.normal(1.0, 0.3), random.normal(0.0, 0.2)
    runs = [
        _run(name, policy, factor, base + 0.2 + GAINS.get(policy, 0.2)
             + (thaw if policy != "freeze_all" else 0.0) + 0.1 * np.log(factor) / np.log(3), number)
        for name in BACKBONES for policy in POLICIES for factor in FACTORS
    ]  # fmt: skip
    images = 1000
    right = (np.arange(images) < images * expit(base)).astype(float)
    cell = Cell(family, PLAIN, size)
    scores = dict.fromkeys(BACKBONES, 0.5)
    evidence = Evidence(cell, dict.fromkeys(BACKBONES, right), scores, scores)
    return Measured(cell, (runs,) * len(SEEDS), evidence, {}, None, (), {}, 10, size, ())


def _moved(one: Measured, gain: Callable[[FullRun], float], number: int) -> Measured:
    """Return a cell whose runs, with each seed, are more accurate by a gain in log odds."""
    return replace(one, seeds=tuple(
        [_run(*run.arm[:2], run.factor, float(logit(run.test_top1)) + gain(run), number)
         for run in runs]
        for runs in one.seeds
    ))  # fmt: skip


@pytest.fixture(scope="module")
def cells() -> list[Measured]:
    return [_measured(family, SIZES[0], 10 * i + j) for i, family in enumerate(FAMILIES)
            for j in range(8)]  # fmt: skip


def test_gains_over_a_trained_head_are_learned(cells: list[Measured]) -> None:
    found = learn(cells)
    index = found.index_of(candidate(BACKBONES[0], "fine_tune_all", "linear", 8))
    for own in found.kinds.values():
        gain = {(arm.policy, round(arm.rate_factor, 2)): value
                for arm, value in zip(found.arms, own.gain, strict=True)}  # fmt: skip
        assert gain["freeze_all", 1.0] == 0.0
        assert gain["fine_tune_all", 1.0] == pytest.approx(0.8, abs=0.1)
        assert gain["retrain_all", 3.0] == pytest.approx(-0.4, abs=0.1)
        assert own.head_gain == pytest.approx(0.2, abs=0.05)
        assert np.sqrt(own.covariance[index][index]) == pytest.approx(0.2, abs=0.06)
    assert set(found.kinds) == {"plain", "normalised"}
    assert found.shared == pytest.approx(0.99, abs=0.02), "both networks gain alike"
    assert "on 56 small data sets of 7 kinds" in found.source


def test_gains_that_grow_with_the_images_are_carried_on(cells: list[Measured]) -> None:
    """Fine-tuning gains 0.8 at four images a class and 1.2 at sixteen: 1.6 at sixty-four."""
    grown = [
        _moved(replace(one, train_images=4 * one.train_images),
               lambda run: 0.4 * (run.policy == "fine_tune_all"), number)
        for number, one in enumerate(cells)
    ]  # fmt: skip
    every = [candidate(BACKBONES[0], policy, "linear", 8) for policy in GAINS]
    gain, _ = learn([*cells, *grown]).prior(every, KINDS, 64.0)
    assert gain[1] - gain[0] == pytest.approx(1.6, abs=0.1)
    assert gain[2] - gain[0] == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("pooled", [0.0, 0.5, 1.0])
def test_how_far_heads_follow_the_probes_of_all_networks_is_learned(
    pooled: float, cells: list[Measured]
) -> None:
    """Let the probe of one network be better, and heads follow both probes by this weight."""
    changed = []
    for number, one in enumerate(cells):
        random = np.random.default_rng([7, number])
        levels = 0.5 + random.normal(0.0, 0.5, len(BACKBONES))
        heads = (1 - pooled) * levels + pooled * levels.mean()
        images = np.arange(10_000) / 10_000
        answers = {name: (images < expit(level)).astype(float)
                   for name, level in zip(BACKBONES, levels, strict=True)}  # fmt: skip
        thaw = random.normal(0.0, 0.2)
        runs = [
            _run(run.backbone, run.policy, run.factor, heads[BACKBONES.index(run.backbone)]
                 + (thaw if run.policy != "freeze_all" else 0.0), number)
            for run in one.seeds[0]
        ]  # fmt: skip
        evidence = replace(one.evidence, probe_answers=answers)
        changed.append(replace(one, seeds=(runs, runs), evidence=evidence))
    assert learn(changed).pooled == pytest.approx(pooled, abs=0.03)


def _deviations(found: Experience) -> dict[tuple[str, str, float], float]:
    """Return the standard deviation over seeds by kind, policy and rate."""
    return {
        (kind, arm.policy, round(arm.rate_factor, 2)): deviation
        for kind, own in found.kinds.items()
        for arm, deviation in zip(found.arms, own.seed_deviation, strict=True)
    }


def test_deviations_over_seeds_are_those_of_accuracies_on_many_images(
    cells: list[Measured],
) -> None:
    """Let accuracies move by a deviation of 0.4 in log odds from seed to seed when the second
    network is retrained at the highest rate, and not at all otherwise: nor do gains, which are
    those of means over seeds, vary more."""
    moving = (BACKBONES[1], "retrain_all", 3.0)
    changed = []
    for number, one in enumerate(cells):
        random = np.random.default_rng([3, number])
        first, again = (
            _moved(one, lambda run, z=z: 0.4 * z * (run.arm == moving), number).seeds[0]
            for z in random.normal(size=2)
        )
        changed.append(replace(one, seeds=(first, again)))
    found, without = learn(changed), learn(cells)
    deviations = _deviations(found)
    assert deviations.pop(("normalised", "retrain_all", 3.0)) == pytest.approx(0.4, abs=0.08)
    assert set(deviations.values()) == {0.05}
    index = found.index_of(candidate(BACKBONES[1], "retrain_all", "linear", 8).at_rate(3.0))
    variance, still = (one.kinds["normalised"].covariance[index][index] for one in (found, without))
    assert variance == pytest.approx(still, abs=0.06), (
        "with the seeds it would be 0.08 to 0.16 more"
    )


def test_images_that_two_seeds_get_right_by_chance_are_no_deviation(cells: list[Measured]) -> None:
    """Draw the right images of two runs independently, with one accuracy: their numbers differ as
    if seeds had a deviation of 0.1 in log odds."""
    changed = []
    for number, one in enumerate(cells):
        random = np.random.default_rng([5, number])
        seeds = tuple(
            [replace(run, right=tuple(np.flatnonzero(random.uniform(size=TEST_IMAGES) < 0.73)))
             for run in runs]
            for runs in one.seeds
        )  # fmt: skip
        changed.append(replace(one, seeds=seeds))
    squares = np.square(list(_deviations(learn(changed)).values()))
    assert squares.mean() < 0.06**2, "squares below the bound count as it"


def test_each_kind_of_network_has_gains_of_its_own(cells: list[Measured]) -> None:
    """Fine-tuning gains 0.8 in both; with the second network 0.7 more."""
    changed = [
        _moved(one, lambda run: 0.7 * (run.arm[:2] == (BACKBONES[1], "fine_tune_all")), number)
        for number, one in enumerate(cells)
    ]  # fmt: skip
    found = learn(changed)
    index = found.index_of(candidate(BACKBONES[0], "fine_tune_all", "linear", 8))
    assert found.kinds["plain"].gain[index] == pytest.approx(0.8, abs=0.1)
    assert found.kinds["normalised"].gain[index] == pytest.approx(1.5, abs=0.1)


def test_a_family_learns_from_the_others_alone(cells: list[Measured]) -> None:
    others = outside(cells, "digits")
    assert {one.family for one in others} == {f.name for f in FAMILIES} - {"digits"}
    assert len(others) == 8 * (len(FAMILIES) - 1)


@pytest.mark.parametrize("deviation", [0.0, 0.4])
def test_regret_owes_nothing_to_luck(deviation: float) -> None:
    """Draw equally good runs, whose accuracies differ by their test images and, with a deviation,
    by their seeds: the luckiest of them must not make the others look worse."""
    random, regrets = np.random.default_rng(0), []
    for _ in range(60):
        seeds = []
        for _ in SEEDS:
            top1 = expit(logit(0.8) + deviation * random.normal(size=(20, 1)))
            right = random.uniform(size=(20, TEST_IMAGES)) < top1
            seeds.append([
                FullRun(BACKBONES[0], "fine_tune_all", float(i), (0.5,), float(row.mean()), 1.0,
                        tuple(np.flatnonzero(row).tolist()), TEST_IMAGES)
                for i, row in enumerate(right)
            ])  # fmt: skip
        own = replace(_measured(FAMILIES[0], SIZES[0], 0), seeds=tuple(seeds))
        regrets.append(own.regret(own.top1(own.runs(BACKBONES[0], "fine_tune_all", 1.0))))
    assert np.mean(regrets) == pytest.approx(0.0, abs=0.015)


def test_a_run_that_diverged_with_one_seed_is_always_wrong_with_it(cells: list[Measured]) -> None:
    first, again = cells[0].seeds
    arm = (BACKBONES[0], "retrain_all", 3.0)
    one = replace(cells[0], seeds=(first, [run for run in again if run.arm != arm]))
    [left] = one.runs(*arm)
    assert one.top1([left]) == pytest.approx(left.test_top1 / 2)


def test_every_rule_chooses_one_of_the_runs(cells: list[Measured]) -> None:
    for name, rule in RULES.items():
        picked = rule(cells[0].seeds[0], cells[0].evidence)
        assert picked is not None, name
        assert picked.run in cells[0].seeds[0]
        assert 0 < picked.cost_s <= cells[0].whole_s


def test_published_accuracies_give_the_regrets_known_of_them() -> None:
    found = published_regrets()
    points = {name: round(100 * mean, 2) for name, (mean, _, _) in found.items()}
    assert points["highest LogME"] == pytest.approx(0.42, abs=0.01)
    assert points["most parameters"] == pytest.approx(0.84, abs=0.01)
    assert points["any"] == pytest.approx(2.31, abs=0.01)
    assert {count for name, (_, _, count) in found.items() if name != "highest NCE"} == {8}


def _stripes(label: int, number: int) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng([label, number])
    y, x = np.mgrid[:32, :32] / 32
    angle = np.pi * (label + 0.3 * random.uniform(-1, 1)) / 4
    waves = np.sin(2 * np.pi * (5 * (np.cos(angle) * x + np.sin(angle) * y) + random.uniform()))
    image = random.uniform(60, 200, 3) + random.uniform(20, 50) * waves[..., None]
    noisy: npt.NDArray[np.uint8] = np.clip(
        image + random.normal(0, 12, image.shape), 0, 255
    ).astype(np.uint8)
    return noisy


@pytest.fixture(scope="module")
def striped() -> Dataset:
    labels = np.arange(200) % 4
    images = np.stack([_stripes(label, number) for number, label in enumerate(labels)])
    pool = ImagePool(images, labels, None, tuple(map(str, range(200))))
    base = Dataset("folder:made", "0" * 64, tuple("abcd"), 0, 0, 0, PoolSource(pool, {}))
    parts: dict[SplitName, Indices] = {
        "train": np.arange(60), "val": np.arange(60, 120), "test": np.arange(120, 200),
    }  # fmt: skip
    return resplit(base, pool, parts)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("too few images", "too_few"), ("a dominant class", "dominant_class"),
     ("copies in the test", "copies"), ("one session", "shortcut")],
)  # fmt: skip
def test_planted_faults_of_images_are_found(
    striped: Dataset, fault: str, kind: str, tmp_path: Path
) -> None:
    changed = with_fault(striped, fault)
    data = development(changed, pack(changed, 32, tmp_path), is_val_own=True)
    assert kind in {sign.kind for sign in before_probes(data)}


def test_a_set_without_a_fault_is_left_alone(striped: Dataset, tmp_path: Path) -> None:
    data = development(striped, pack(striped, 32, tmp_path), is_val_own=True)
    assert before_probes(data) == []


def test_pictures_that_are_there_before_at_another_size_are_copies() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    images = images.repeat(2, axis=1).repeat(2, axis=2)  # 64 px, of blocks of 2
    noise = random.integers(-2, 3, images[1].shape)
    again = np.clip(images[1] + noise, 0, 255).astype(np.uint8)
    assert is_copy(np.concatenate([images, again[None]])).tolist() == [False] * 4 + [True]


def test_a_cell_without_a_split_has_as_many_validation_images_as_a_folder(
    striped: Dataset,
) -> None:
    """A folder keeps 15 % for validation beside 70 % for training: 13 beside 60."""
    folder = without_split(striped)
    assert (folder.train_images, folder.val_images, folder.test_images) == (60, 13, 80)
    assert set(np.unique(folder.source.labels("val"))) == {0, 1, 2, 3}


def test_what_belongs_together_is_in_one_split(tmp_path: Path) -> None:
    blank = Image.new("RGB", (8, 8))
    pictures = [(label, f"{label} {unit}", str(number), blank)
                for label in "ab" for unit in range(10) for number in range(3)]  # fmt: skip
    root = _made(tmp_path / "set", iter(pictures))
    splits: dict[str, set[str]] = {}
    for file in root.rglob("*.png"):
        splits.setdefault(file.name.split("--")[0], set()).add(file.parent.parent.name)
    assert len(splits) == 20
    assert all(len(own) == 1 for own in splits.values())
    counts = Counter(split for own in splits.values() for split in own)
    assert counts == {"train": 10, "val": 4, "test": 6}


@pytest.mark.parametrize("letter", ["B", "I", "J"])
def test_letters_lie_within_their_margins(letter: str, tmp_path: Path) -> None:
    own = ImageFont.load_default(20)  # the font that comes with Pillow
    assert isinstance(own, ImageFont.FreeTypeFont)
    assert isinstance(own.path, BytesIO)
    (tmp_path / "font.ttf").write_bytes(own.path.getvalue())
    ink = np.asarray(_drawn(tmp_path / "font.ttf", letter).convert("L")) < 128
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    for first, last in ((rows[0], rows[-1]), (columns[0], columns[-1])):
        assert first >= MARGIN_PX - 2
        assert last <= LETTER_PX - MARGIN_PX + 1
        assert abs(first + last - LETTER_PX) <= 3, "in the middle"
    assert rows[-1] - rows[0] >= LETTER_PX - 2 * MARGIN_PX - 4, "as large as it may be"


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_changes_a_copy_alone(striped: Dataset, fault: str) -> None:
    source = striped.source
    assert isinstance(source, PoolSource)
    images, labels = source.pool.images.copy(), source.pool.labels.copy()
    changed = with_fault(striped, fault)
    assert changed.content_hash != striped.content_hash
    assert np.array_equal(source.pool.images, images)
    assert np.array_equal(source.pool.labels, labels)


def test_a_refused_cell_teaches_nothing(cells: list[Measured]) -> None:
    """A refused cell may have the probe of one network alone."""
    first = cells[0]
    answers = {BACKBONES[0]: first.evidence.probe_answers[BACKBONES[0]]}
    evidence = replace(first.evidence, probe_answers=answers)
    refused = replace(first, evidence=evidence, signs=("labels",))
    assert learn([refused, *cells[1:]]) == learn(cells[1:])


def test_wrong_labels_do_not_make_heads_look_better_than_probes(cells: list[Measured]) -> None:
    noisy = next(variant for variant in VARIANTS if variant.noise)
    bad = np.array([1.0, 0.0] * 500)
    changed = [
        replace(one, cell=replace(one.cell, variant=noisy),
                evidence=replace(one.evidence, probe_answers=dict.fromkeys(BACKBONES, bad)))
        for one in cells[:4]
    ]  # fmt: skip
    with_wrong, without = learn([*changed, *cells[4:]]), learn(cells[4:])
    for kind, own in without.kinds.items():
        assert with_wrong.kinds[kind].head_gain == own.head_gain


def test_the_seed_that_took_less_time_counts() -> None:
    """Other work on the machine only slows."""
    seeds = [[replace(_run("a", "b", 1.0, 0.0, 0), fit_s=s) for s in own]
             for own in ([1.0, 9.0], [2.0, 3.0])]  # fmt: skip
    assert time_of(seeds) == 5.0


def test_no_cell_is_another_one_again() -> None:
    """Cells of images without colour have no grey variant: it would be the plain cell again."""
    names = [cell.name for cell in every_cell()]
    assert len(names) == len(set(names)) == 52
    assert {"photographs-grey-100", "drawings-grey-100", "figures-grey-100"} == {
        name for name in names if "-grey-" in name
    }


@pytest.mark.parametrize("family", [one for one in FAMILIES if one.dataset in EMBEDDED])
def test_families_say_whether_their_images_have_colour(family: Family, tmp_path: Path) -> None:
    few = SplitSizes(train=20, val=10, test=10)
    images = pack(family.open(few, tmp_path), 32, tmp_path).train.images
    assert family.is_grey == bool((images == images[..., :1]).all())


def _advised(one: Measured, log_odds: tuple[float, float], folds: int) -> Measured:
    """Return a cell whose adviser recommends fine_tune_all of the first network, with these
    accuracies with either seed, after spending 5 s."""
    arm = (BACKBONES[0], "fine_tune_all", 1.0)
    seeds = tuple(
        [_run(*arm, own, 0) if run.arm == arm else run for run in runs]
        for runs, own in zip(one.seeds, log_odds, strict=True)
    )
    chosen = candidate(BACKBONES[0], "fine_tune_all", "linear", 8)
    strategy = Strategy(
        policy=chosen.policy, backbone=chosen.backbone, backend="torch", head="linear",
        learning_rate=chosen.learning_rate, epochs=8, folds=folds,
    )  # fmt: skip
    advice = Advice(
        dataset="made", train_images=40, test_images=TEST_IMAGES, classes=10, case=None,
        similarity=None, size=None, recommendation=strategy, spent_s=5.0,
    )  # fmt: skip
    return replace(one, seeds=seeds, advice=dict.fromkeys(SHARES, advice))


@pytest.mark.parametrize(("folds", "training_s"), [(1, 0.0), (0, 2.0)])
def test_the_regret_of_advice_is_that_of_both_seeds_and_its_cost_includes_an_untried_training(
    folds: int, training_s: float, cells: list[Measured]
) -> None:
    low, high = float(logit(0.5)), float(logit(0.6))
    own = _advised(cells[0], (low, high), folds)
    others = [replace(one, advice=own.advice) for one in cells[8:24]]
    found = {score.name: score for score in scores([own, *others])}
    score = found["advise, 10% of the cost"]
    assert score.regrets[0] == pytest.approx(own.best_top1.mean() - 0.55, abs=1e-6)
    assert score.costs[0] == pytest.approx((5.0 + training_s) / own.whole_s)
    assert regret_error([own], 0.1) == pytest.approx(
        abs((own.best_top1[1] - 0.6) - (own.best_top1[0] - 0.5)) / 2
    )


def test_data_wanted_is_over_what_was_needed(cells: list[Measured]) -> None:
    one = cells[0]

    def with_curve(*points: Point) -> Measured:
        return replace(one, curve=points)

    law = with_curve(*(Point(n, 2.0 * n**-0.35, 0.002) for n in (50, 100, 200, 400)))
    flat = with_curve(*(Point(n, 0.5, 0.002) for n in (50, 100, 200)))
    found = data_wanted([law, flat, *cells[8:]])["probes"]
    assert found == [pytest.approx(1.0, rel=0.1)], "nothing was needed where nothing was gained"


def test_the_parts_of_test_images_do_not_follow_their_classes() -> None:
    """Classes in turns would make each tenth a class of its own."""
    found = parts(500, 10)
    assert np.bincount(found).tolist() == [50] * 10
    assert max(np.bincount(found[np.arange(500) % 10 == 3], minlength=10)) < 15


@pytest.mark.parametrize(("count", "largest"), [(2, 0.564), (10, 1.539), (50, 2.249)])
def test_the_largest_of_normal_numbers_is_that_of_tables(count: int, largest: float) -> None:
    """The values are those of Pearson and Hartley 1976, "Biometrika Tables for Statisticians"."""
    assert expected_largest(count) == pytest.approx(largest, rel=0.05)


def test_slopes_of_learning_curves_are_learned() -> None:
    """The odds of the whole network's errors fall by 0.8 for each unit of log images, those of the
    probe's by 0.5."""
    found = []
    for size in (40, 100, 240):
        runs = [_run(*arm, 0.8 * float(np.log(size / 40)), 0)
                for name in BACKBONES for policy in POLICIES for factor in FACTORS
                for arm in [(name, policy, factor)]]  # fmt: skip
        curve = [Point(n, float(expit(-0.5 * np.log(n / size))), 0.01) for n in (20, 40, 80)]
        one = _measured(FAMILIES[0], SIZES[0], size)
        found.append(replace(one, seeds=(runs, runs), train_images=size, curve=tuple(curve)))
    experience = learn(found)
    assert experience.whole_slope == (pytest.approx(-0.8, abs=0.02), 0.2)
    assert experience.probe_slope == (pytest.approx(-0.5), 0.2)
