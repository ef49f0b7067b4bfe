"""The answer that the runs give: a headline, three choices, and what the picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from bench.analysis.contests import Contest, Overall, Standing
from bench.analysis.findings import Findings
from bench.analysis.groups import SeedGroup, kind_of
from bench.analysis.intervals import geometric_mean
from bench.analysis.rows import Row, grouped
from bench.analysis.scores import Kind
from bench.analysis.speed import fit_ratio
from bench.errors import number_of
from bench.report.format import chance, listed, margin_words, percent, share, some_of
from bench.report.labels import values_of
from bench.report.notes import most_frequent_failure
from bench.report.questions import (
    FEW_IMAGES,
    Note,
    data_name,
    gap,
    gap_with_interval,
    notes_of,
)

MANY_NETWORKS = 3
"""Networks from which on the picture is accuracy against speed."""
FAST = 0.8
"""Most training time, relative to the leader's, of a policy that is worth naming for its speed."""
CLOSE = 0.03
"""Most accuracy (fraction of 1) that a quick choice among many networks may lose."""
Tone = Literal["good", "neutral", "bad"]
Shape = Literal["policies", "few images", "networks", "alone", "none"]
DO: dict[Kind, str] = {
    "head": "Freeze the network and train a new head.",
    "part": "Fine-tune the last stage.",
    "all": "Fine-tune the whole network.",
    "scratch": "Train from random weights.",
}
"""What a policy trains → the recommendation."""
COSTS: dict[Kind, str] = {
    "head": "Freezing all of it costs",
    "part": "Freezing all but the last stage costs",
    "all": "Training all of it costs",
    "scratch": "Training from scratch costs",
}
"""What a policy trains → the beginning of a sentence on what it loses."""


@dataclass(frozen=True)
class Box:
    """A choice below the headline."""

    title: str
    text: str
    tone: Tone


@dataclass(frozen=True)
class Answer:
    """Content of the first screen of a report."""

    headline: str
    subline: str
    boxes: Sequence[Box] = ()
    notes: Sequence[Note] = ()
    shape: Shape = "policies"
    standings: Sequence[Standing] = field(default=(), repr=False)
    """Policies of the picture, the leader first."""
    overall: Overall | None = field(default=None, repr=False)
    """Averages in the picture; None without policies that can be compared."""


def answer(found: Findings) -> Answer:
    """Return the answer that fits what was run."""
    said, failed = _answer(found), sum(not row.is_ok for row in found.rows)
    if found.groups and 2 * failed > len(found.rows):
        headline = (
            f"{failed} of {number_of(len(found.rows), 'run')} gave no result. {said.headline}"
        )
        return replace(said, headline=headline)
    return said


def _answer(found: Findings) -> Answer:
    subline = asked(found.rows)
    if not found.groups:
        return _no_answer(found, subline)
    notes, contests = notes_of(found), found.tests
    meaningless = sorted({c.shows_nothing for c in found.joint if c.shows_nothing})
    if len({group.row.spec.backbone for group in found.groups}) >= MANY_NETWORKS:
        if meaningless and not contests:
            return replace(_alone(found, subline, notes, meaningless), shape="networks")
        return _networks(found, subline, notes)
    if not contests:
        return _alone(found, subline, notes, meaningless)
    overall = found.overall or _largest(contests)
    standings = overall.standings
    most = max(contest.entries[0].scores.images for contest in overall.contests)
    is_settled = all(s.word in ("best", "ruled out") for s in standings)
    if most < FEW_IMAGES and not is_settled:
        headline = f"{_too_few(most)} to choose: one image is {100 / most:.1f} points."
        few = Note("What they show", _few(overall))
        return Answer(headline, subline, (), [few, *notes], "few images", standings, overall)
    boxes = _boxes(overall)
    if found.overall is None and len(found.groups) > sum(
        len(e.groups) for e in overall.contests[0].entries
    ):
        row = overall.contests[0].row
        subline = (
            f"This answer is about {data_name(row)} with {row.spec.backbone} alone, where most "
            f"policies can be compared. {subline}"
        )
    return Answer(_headline(overall), subline, boxes, notes, "policies", standings, overall)


def _too_few(images: int) -> str:
    return f"{number_of(images, 'test image')} {'is' if images == 1 else 'are'} too few"


def asked(rows: Sequence[Row]) -> str:
    """Return a sentence that says what was run, and where."""
    policies, data = values_of(rows, "policy"), values_of(rows, "dataset")
    networks, backends = values_of(rows, "backbone"), values_of(rows, "backend")
    machines = dict.fromkeys(
        e.device_model if e.device != "cpu" else f"{number_of(e.cores, 'core')} of {e.processor}"
        for e in (row.environment for row in rows)
    )
    seeds = len({row.spec.seed for row in rows})
    folds = max((row.dataset.fold.of for row in rows if row.dataset.fold), default=0)
    crossed = f", {folds} folds" if folds else ""
    return (
        f"{number_of(len(rows), 'run')}: {some_of(policies, 6)} on {some_of(data, 4)} with "
        f"{some_of(networks, 3)} in {listed(backends)}, "
        f"{number_of(seeds, 'seed')}{crossed}. Machine: {listed(list(machines))}."
    )


def _no_answer(found: Findings, subline: str) -> Answer:
    why = most_frequent_failure(found.rows)
    if why is None:
        return Answer("No run has an accuracy, so there is no answer.", subline, shape="none")
    headline = f"No run finished: {number_of(len(found.rows), 'run')} ended without a result."
    return Answer(headline, f"Most frequent reason: {why}", shape="none")


def _alone(
    found: Findings, subline: str, notes: Sequence[Note], meaningless: Sequence[str]
) -> Answer:
    """Return the answer where no two policies can be compared; ``meaningless`` are the reasons why
    accuracies mean nothing."""
    if meaningless:
        headline = f"These accuracies say nothing about policies: {listed(meaningless)}."
        return Answer(headline, subline, (), notes, "alone")
    reasons = sorted({why for contest in found.joint for _, why in contest.apart})
    if reasons and any(len(contest.all_entries) > 1 for contest in found.joint):
        headline = f"The policies cannot be compared: {listed(reasons)}."
        return Answer(headline, subline, (), notes, "alone")
    first = max(found.groups, key=lambda group: found.top1(group).value)
    most = " at best" if len({g.scores.mean for g in found.groups}) > 1 else ""
    name = first.row.spec.policy.name
    headline = (
        f"{name} gets {percent(found.top1(first))} of the test images right{most}; no other "
        "policy was run on the same data, network and backend."
    )
    place = f"On {data_name(first.row)} with {first.row.spec.backbone}."
    return Answer(headline, f"{place} {subline}", (), notes, "alone")


def _largest(contests: Sequence[Contest]) -> Overall:
    """Return the contest with most policies alone, where the contests have no two in common."""
    contest = max(contests, key=lambda c: len(c.entries))
    names = tuple(entry.name for entry in contest.entries)
    return Overall((contest,), names, contest.ranking, contest.margin)


def _kind(overall: Overall, standing: Standing) -> Kind:
    """Return how much of the network a policy trains."""
    entries = overall.contests[0].all_entries
    return kind_of(next(entry for entry in entries if entry.name == standing.name).row)


def _headline(overall: Overall) -> str:
    """Return what to do, and what the cheapest policy that is ruled out loses."""
    leader, *others = overall.standings
    out = [s for s in others if s.word == "ruled out"]
    pretrained = [s for s in out if _kind(overall, s) != "scratch"]
    leads = _kind(overall, leader)
    if pretrained:
        cheapest = min(pretrained, key=lambda s: ("head", "part", "all").index(_kind(overall, s)))
        kind = _kind(overall, cheapest)
        cost = f"{COSTS[kind]} {gap(cheapest)} points."
        if any(_kind(overall, s) == kind for s in overall.standings if s not in out):
            cost = f"{cheapest.name} is {gap(cheapest)} points behind {leader.name}."
        return f"{DO[leads]} {cost}"
    if out and leads != "scratch":
        where = data_name(overall.contests[0].row)
        rest = (
            f"No other policy was run on {where}." if not others[1:] else "Others may be as good."
        )
        return (
            f"Pretraining pays: {leader.name} beats training from scratch by {gap(out[0])} points. "
            f"{rest}"
        )
    alike = [s.name for s in overall.standings if s.word == "as good as the best"]
    if len(alike) > 1:
        return f"{listed(alike)} are equally good here, within {margin_words(overall.margin)}."
    width = float(np.median([s.behind.half_width or 0.0 for s in others if s.behind]))
    return f"No policy stands out: differences below {100 * width:.1f} points cannot be shown."


def _boxes(overall: Overall) -> list[Box]:
    """Return what to take for accuracy and for speed, and what not to do."""
    boxes = [_for_accuracy(overall), _for_speed(overall), _not_at_all(overall)]
    return [box for box in boxes if box is not None]


def _for_accuracy(overall: Overall) -> Box:
    leader, *others = overall.standings
    on_average = " on average" if len(overall.contests) > 1 else ""
    text = f"It leads{on_average}; how likely it is the best is not known."
    if leader.is_sure:
        text = (
            f"{chance(leader.chance)} likely to be within {margin_words(overall.margin)} "
            f"of the best{on_average}."
        )
    if leader.word == "best":
        text = f"The best{on_average}: all others are ruled out."
        if len(others) == 1:
            text = f"Better than {others[0].name}, the only other policy here."
    close = [s for s in others if s.word != "ruled out" and s.is_sure and s.chance >= 0.05][:2]
    if close:
        alike = [s for s in close if s.word == "as good as the best"]
        for words, some in (
            ("As good", alike),
            ("May be as good", [s for s in close if s not in alike]),
        ):
            if some:
                text += f" {words}: {listed([f'{s.name} ({chance(s.chance)})' for s in some])}."
    return Box(f"For accuracy: {leader.name}", text, "good")


def _for_speed(overall: Overall) -> Box | None:
    """Return the quickest policy that may be as good as the leader, or what speed costs; None
    without times."""
    leader, *others = overall.standings
    times = relative_times(overall)
    quick = [s for s in others if times.get(s.name, 1.0) <= FAST]
    if leader.name not in times:
        return None
    allowed = [s for s in quick if s.word != "ruled out"]
    if allowed:
        best = min(allowed, key=lambda s: times[s.name])
        text = f"{share(times[best.name])} of the training time. {_loses(best)}"
        return Box(f"For speed: {best.name}", text, "neutral")
    text = f"No other policy needs at most {share(FAST)} of its training time."
    if quick:
        text = f"Every policy that needs at most {share(FAST)} of its training time is ruled out."
    if quick:
        best = min(quick, key=lambda s: times[s.name])
        text += (
            f" {best.name} takes {share(times[best.name])} of the time, and is "
            f"{gap_with_interval(best)}."
        )
    return Box(f"For speed: {leader.name} too", text, "neutral")


def _not_at_all(overall: Overall) -> Box | None:
    """Return the policy that loses most, if one is ruled out."""
    out = [s for s in overall.standings if s.word == "ruled out"]
    if not out:
        return None
    *more, worst = out
    text, tests = gap_with_interval(worst), len(overall.contests)
    if tests > 1:
        ruled = overall.ruled_out(worst.name)
        where = f"all {tests}" if ruled == tests else f"{ruled} of {tests}"
        text += f" on average, and ruled out in {where} tests"
    also = f" Also ruled out: {listed([s.name for s in more])}." if more else ""
    return Box(f"Not: {worst.name}", f"{text}.{also}", "bad")


def _loses(standing: Standing) -> str:
    """Return a sentence on how far a policy is behind, with the interval in words."""
    e = standing.behind
    if e is None or e.low is None or e.high is None or e.low >= 0.0:
        return f"It is {gap_with_interval(standing)}."
    return (
        f"It is {gap(standing)} points behind, between {-100 * e.low:.1f} ahead and "
        f"{100 * e.high:.1f} behind."
    )


def relative_times(overall: Overall) -> dict[str, float]:
    """Return each policy's time of the fit relative to the leader's, the geometric mean over
    contests and backends; without policies of which fewer than half of the times are known."""
    leader, found = overall.standings[0].name, dict[str, float]()
    for name in overall.names:
        ratios: list[float | None] = []
        for contest in overall.contests:
            entries = {entry.name: entry for entry in contest.entries}
            for base, own in zip(entries[leader].groups, entries[name].groups, strict=True):
                ratios.append(fit_ratio(base, own))
        known = [r for r in ratios if r is not None]
        if len(known) * 2 >= len(ratios):
            found[name] = geometric_mean(known)
    return found


def _few(overall: Overall) -> list[str]:
    """Return sentences where single images decide, about the test with most images."""
    contest = max(overall.contests, key=lambda c: c.entries[0].scores.images)
    standings, images = contest.standings, contest.entries[0].scores.images
    halves = [s.behind.half_width or 0.0 for s in standings if s.behind]
    seeds = len(contest.entries[0].scores.seeds)
    said = [
        f"Right of {images} test images: "
        f"{some_of([f'{s.name} {s.top1 * images:.0f}' for s in standings], 4)}.",
        f"With {number_of(seeds, 'seed')}, only differences above about "
        f"{100 * float(np.median(halves)):.1f} points can be shown.",
    ]
    data = contest.row.dataset
    if data.fold is None and data.name.startswith("folder:"):
        total = data.train_images + data.val_images + data.test_images
        said.append(
            f"Cross-validate (run --folds 5): all {total:,} images are tested once, each by a "
            "model that has not seen it."
        )
    times = relative_times(overall)
    quick = min(times, key=lambda name: times[name], default=None)
    if quick and times[quick] <= FAST and _word(overall, quick) != "ruled out":
        said.append(f"{quick} trains in {share(times[quick])} of the leader's time: begin there.")
    return said


def _word(overall: Overall, name: str) -> str:
    return next(s.word for s in overall.standings if s.name == name)


def _networks(found: Findings, subline: str, notes: Sequence[Note]) -> Answer:
    """Return the answer where many networks were tried: the most accurate choice, and a quick one
    that comes close."""
    by_data = grouped(found.groups, lambda g: (g.test_set, g.row.spec.recipe.px, g.machine))
    same = max(by_data.values(), key=len)
    best = max(same, key=lambda g: g.scores.mean)
    images, networks = best.scores.images, {g.row.spec.backbone for g in same}
    if images < FEW_IMAGES:
        headline = f"{_too_few(images)} to choose among {len(networks)} networks."
        return Answer(headline, subline, (), notes, "networks")
    headline = f"{_choice(best)} is most accurate: {percent(found.top1(best))}."
    times = {g: r for g in same if (r := fit_ratio(best, g)) is not None}
    quick = [g for g, r in times.items()
             if r <= FAST and best.scores.mean - g.scores.mean <= CLOSE]  # fmt: skip
    if quick:
        group = min(quick, key=lambda g: times[g])
        lost = 100 * (best.scores.mean - group.scores.mean)
        headline += (
            f" {_choice(group)} comes within {lost:.1f} points in {share(times[group])} of the "
            "time."
        )
    half = found.top1(best).half_width or 0.0
    sure = (
        f"Only differences above {100 * half * 2**0.5:.1f} points between networks are certain, "
        f"with {number_of(len(best.seeds), 'seed')} and {images:,} test images."
    )
    return Answer(headline, subline, (), [Note("How sure is that?", [sure]), *notes], "networks")


def _choice(group: SeedGroup) -> str:
    return f"{group.row.spec.backbone} with {group.row.spec.policy.name}"
