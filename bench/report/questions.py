"""The reader's questions on the first screen: is the article right, which framework, what limits
it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.analysis.contests import Contest, Standing
from bench.analysis.findings import BackendPair, Findings
from bench.analysis.groups import SeedGroup
from bench.analysis.ranking import average
from bench.analysis.rows import Row, grouped
from bench.analysis.seed_spread import RESTLESS, collapsed
from bench.catalog.policies import CONTROL
from bench.data.registry import GENERATED, STAND_IN, qualifier_of
from bench.errors import number_of
from bench.report.format import ends, listed, margin_words, ratio, seconds, some_of
from bench.report.labels import values_of
from bench.report.notes import chosen_at_edge, most_frequent_failure

FEW_IMAGES = 100
"""Test images below which single images decide, and the first screen says so."""
MORE_SEEDS = 10
"""Seeds of which the page says what they would show."""
TIMES = ("start_s", "setup_s", "tune_s", "fit_s", "test_s")
"""Parts of a run's time."""
MOST_SENTENCES = 3
"""Most sentences of an answer on the first screen; further cautions stand among the notes."""


@dataclass(frozen=True)
class Note:
    """A question of the reader, and its answer in sentences."""

    title: str
    sentences: Sequence[str]


def notes_of(found: Findings) -> list[Note]:
    """Return the questions that these runs answer."""
    answers = {
        "Is the article right?": _article(found),
        "Keras or PyTorch?": _backends(found),
        "Before you rely on it": cautions(found),
    }
    return [Note(title, said[:MOST_SENTENCES]) for title, said in answers.items() if said]


def data_name(row: Row) -> str:
    """Return the name of a data set with its number of training images."""
    name = row.dataset.name.partition(":")[2] or row.dataset.name
    if row.dataset.fold is not None:
        return f"{name} (cross-validated)"
    return f"{name} ({row.dataset.train_images:,} images)"


def _where(contest: Contest, contests: Sequence[Contest]) -> str:
    """Return the data of a contest, and its network and backends if the contests differ in them."""
    text = f"on {data_name(contest.row)}"
    if len(values_of([c.row for c in contests], "backbone")) > 1:
        text += f" with {contest.row.spec.backbone}"
    if len({tuple(c.backends) for c in contests}) > 1:
        text += f" in {listed(contest.backends)}"
    return text


def _article(found: Findings) -> list[str]:
    """Return sentences on how the article's choice of policy fares against others that start from
    pretrained weights."""
    tests = []
    for contest in found.tests:
        ours = contest.prescribed
        standing = contest.standing(ours)
        rivals = {e.policy for e in contest.entries} - {CONTROL, ours.policy if ours else ""}
        if standing is not None and rivals:
            tests.append((contest, standing))
    if not tests:
        return []
    contests = [contest for contest, _ in tests]
    good = [c for c, s in tests if s.word in ("best", "as good as the best")]
    out = [(c, s, s.behind.value) for c, s in tests if s.word == "ruled out" and s.behind]
    unknown = [(c, s.behind) for c, s in tests if s.word == "open"]
    counts = {"yes": len(good), "no": len(out), "open": len(unknown)}
    parts = [f"{word} in {count}" for word, count in counts.items() if count]
    said = [f"Of {number_of(len(tests), 'test')}: {listed(parts)}."]
    if len(parts) == 1:
        where = f"all {len(tests)} tests" if len(tests) > 1 else "the only test"
        said = [f"{parts[0].partition(' ')[0].capitalize()} in {where}."]
    if out:
        contest, worst, _ = max(out, key=lambda each: each[2])
        said.append(
            f"The clearest exception is {_where(contest, contests)}: {worst.name} is "
            f"{gap_with_interval(worst)}."
        )
    elif good:
        said.append(f"The article is right {some_of([_where(c, contests) for c in good], 2)}.")
    if unknown:
        widths = [e.half_width or 0.0 for _, e in unknown if e]
        said += _more_seeds(found.rows, [c for c, _ in unknown], widths)
    return said


def gap(standing: Standing) -> str:
    """Return the points that a policy is behind the leader, without the unit."""
    value = 100 * standing.behind.value if standing.behind else 0.0
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def gap_with_interval(standing: Standing) -> str:
    """Return how far a policy is behind the leader: ``2.6 points behind (0.9 to 4.3)``."""
    e = standing.behind
    return f"{gap(standing)} points behind {ends(e) if e else ''}".rstrip()


def _more_seeds(
    rows: Sequence[Row], contests: Sequence[Contest], half_widths: Sequence[float]
) -> list[str]:
    """Return a sentence on what more seeds would show, and their time; none if there are as many
    already."""
    seeds = max(len(entry.scores.seeds) for contest in contests for entry in contest.entries)
    if seeds >= MORE_SEEDS or not half_widths:
        return []
    narrower = []
    for r in (contest.ranking for contest in contests):
        now, images = r.seed_pairs[0, 1:] + r.image_pairs[0, 1:], r.image_pairs[0, 1:]
        narrower += list(np.sqrt((r.seed_pairs[0, 1:] * seeds / MORE_SEEDS + images) / now))
    spent = sum(row[part] or 0.0 for row in rows for part in TIMES)
    half = 100 * float(np.median(half_widths))
    return [
        f"{MORE_SEEDS} seeds instead of {seeds} (about {seconds(spent * (MORE_SEEDS / seeds - 1))} "
        f"more) would narrow ± {half:.1f} points to ± {half * float(np.median(narrower)):.1f}."
    ]


def _backends(found: Findings) -> list[str]:
    """Return sentences on how backends differ in accuracy and speed."""
    said = []
    kinds = grouped(found.pairs, lambda p: (p.a.row.spec.backend, p.b.row.spec.backend))
    for (first, second), same in kinds.items():
        known = [(p, p.ranking) for p in same if p.ranking is not None]
        if known:
            e = average([r for _, r in known], [p.a.test_set for p, _ in known]).difference(0, 1)
            words = Counter(p.verdict for p, _ in known)
            gap = f"{100 * abs(e.value):.1f} points {'better' if e.value > 0 else 'worse'} than"
            gap += f" {first} {ends(e if e.value > 0 else e.reversed)}"
            if e.is_within(found.margin):
                text = f"{second} is as accurate as {first} within {margin_words(found.margin)}"
            elif e.excludes_neutral:
                text = f"{second} is {gap}"
            else:
                text = f"These runs do not show which is more accurate: {second} is {gap}"
            counts = [f"{count} {verdict}" for verdict, count in sorted(words.items())]
            said.append(f"{text}. Of {number_of(len(known), 'pair')}: {listed(counts)}.")
        said += _speeds(same, first, second)
    return said


def _speeds(pairs: Sequence[BackendPair], first: str, second: str) -> list[str]:
    """Return a sentence on the speed of steps with each of at most two networks."""
    whole = [p for p in pairs if p.speed and p.speed.of == "whole steps"]
    by_network = grouped(whole, lambda p: p.a.row.spec.backbone)
    said = []
    fits = [p.speed for p in pairs if p.speed and p.speed.of == "whole fits"]
    if fits and not whole:
        verdicts = Counter(speed.verdict for speed in fits)
        faster = {second: verdicts["faster"], first: verdicts["slower"]}
        counts = [f"{name} is faster in {n}" for name, n in faster.items() if n]
        said.append(
            f"Whole fits: of {number_of(len(fits), 'pair')}, {listed(counts) or 'none is faster'}."
        )
    for network, same in list(by_network.items())[:2]:
        best = max((p.speed for p in same if p.speed), key=lambda speed: speed.pairs)
        e = best.ratio if best.ratio.value >= 1 else best.ratio.reversed
        quick, slow = (second, first) if best.ratio.value >= 1 else (first, second)
        where = f" with {network}" if len(by_network) > 1 else ""
        figures = f"{ratio(e.value)} times as fast as {slow} {ends(e, 1.0, 1.0, 2)}"
        if best.verdict == "open":
            said.append(f"Speed is open{where}: {quick} trains {figures}.")
        elif best.verdict == "equal":
            said.append(f"They train{where} at the same speed within 5 %.")
        else:
            said.append(f"{quick} trains{where} {figures}.")
    return said


def cautions(found: Findings) -> list[str]:
    """Return sentences on what limits these results, the most important ones first."""
    rows, groups = found.rows, found.groups
    failed = sum(not row.is_ok for row in rows)
    lost = list(dict.fromkeys(g.row.spec.policy.name for g in groups if g.lost))
    restless = {
        c.row.spec.backbone: c.spread.factor for c in found.joint if c.spread.factor > RESTLESS
    }
    edge, contests = chosen_at_edge(groups), found.tests
    tuned = sum(bool(row.tried_rates) for group in groups for row in group.rows)
    sets = {contest.entries[0].groups[0].test_set for contest in contests}
    unsteady, said = sum(group.is_unsteady for group in groups), []
    elsewhere = sum(c.is_compared and c.place != contests[0].place for c in found.joint)
    not_paired = Counter(p.why_not for p in found.pairs if p.why_not)
    small = [c for c in contests if c.entries[0].scores.images < FEW_IMAGES]
    if failed:
        said.append(
            f"{failed} of {number_of(len(rows), 'run')} gave no result. "
            f"{most_frequent_failure(rows)}"
        )
    if elsewhere:
        said.append(
            "The answer covers one machine and version. The tables also hold "
            f"{number_of(elsewhere, 'test')} of other machines or versions."
        )
    if 0 < len(small) < len(contests):
        names = list(dict.fromkeys(c.row.dataset.name for c in small))
        fewest = min(c.entries[0].scores.images for c in small)
        said.append(f"{some_of(names, 3)}: only {fewest} test images, so single ones decide.")
    if lost:
        said.append(
            f"{some_of(lost, 3)}: a seed failed, so not ranked: the others may be the lucky ones."
        )
    if groups and max(len(group.seeds) for group in groups) == 1:
        said.append("One seed: how far seeds spread is taken from earlier runs, not measured here.")
    said += [
        f"Seeds of {network} spread {factor:.1f} times as much as usual: intervals may be too "
        "narrow."
        for network, factor in restless.items()
    ]
    fallen = {g.row.spec.policy.name: n for g in groups if (n := collapsed(g.scores))}
    if fallen:
        said.append(
            f"Single runs collapsed ({some_of(list(fallen), 3)}): far below the other seeds. No "
            "interval covers that; run more seeds."
        )
    if edge:
        most = sorted(edge, key=lambda name: -edge[name][0] / edge[name][1])
        said.append(
            f"In {sum(n for n, _ in edge.values())} of {tuned} tuned "
            "runs the highest or lowest learning rate tried was the best: "
            f"{some_of(most, 3)} may do better."
        )
    said += _about_images(rows, groups)
    if 0 < len(sets) < len(contests):
        said.append(
            f"The {len(contests)} tests share {number_of(len(sets), 'set')} of test images."
        )
    if not_paired:
        (reason, _), *_ = not_paired.most_common(1)
        said.append(
            f"Not compared: {number_of(not_paired.total(), 'pair')} of backends. Most frequent "
            f"reason: {reason}."
        )
    if unsteady:
        said.append(
            f"Other work slowed {unsteady} of {number_of(len(groups), 'experiment')}: their speeds "
            "are not compared."
        )
    return said


def _about_images(rows: Sequence[Row], groups: Sequence[SeedGroup]) -> list[str]:
    """Return sentences on what the test images of the data sets stand for."""
    names, said = values_of(rows, "dataset"), []
    for name in names:
        if qualifier_of(name) == GENERATED:
            said.append(f"{name}: generated images, so accuracies say nothing of real ones.")
        numbers = [g.scores.groups for g in groups if g.row.dataset.name == name]
        known = [int(n.max()) + 1 for n in numbers if n is not None]
        if known:
            what = "photographs" if name == "photos" else "groups of images"
            said.append(
                f"{name}: test images come from {max(known)} {what}, each counted as one draw."
            )
    stand_ins = [name for name in names if qualifier_of(name) == STAND_IN]
    if stand_ins:
        are = (
            "is a small stand-in, and says"
            if len(stand_ins) == 1
            else "are small stand-ins, and say"
        )
        said.append(f"{listed(stand_ins)} {are} little about your own images.")
    return said
