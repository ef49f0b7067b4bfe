"""What was asked, and the answer in three sentences, as far as the numbers go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from bench.analysis.findings import BackendPair, Findings
from bench.analysis.groups import Contest, SeedGroup, experiment_of, policy_variant
from bench.analysis.intervals import LEAST_SEEDS, Estimate, mean_rate, widened
from bench.analysis.rows import Row
from bench.analysis.speed import fit_ratio, is_unsteady
from bench.report.format import listed, number_of, percent, points, seconds, times
from bench.report.labels import settings
from bench.report.tables.speeds import faster, speed_verdict

MODELS_ONLY = "with fewer than three seeds this speaks of these trained models, not of the recipes"


def asked(rows: Sequence[Row]) -> str:
    """What was run, and where."""

    def names(field: str, most: int = 6) -> str:
        found = list(dict.fromkeys(str(row[field]) for row in rows))
        if len(found) > most:
            return f"{', '.join(found[:most])} and {len(found) - most} more"
        return listed(found)

    seeds = Counter(experiment_of(row) for row in rows).values()
    each = number_of(max(seeds), "seed") + (" each" if max(seeds) > 1 else "")
    if min(seeds) < max(seeds):
        each = f"{min(seeds)} to {max(seeds)} seeds each"
    places = {row.result.environment_id: row.environment for row in rows}
    machines = list(dict.fromkeys(
        e.device_model if e.device != "cpu" else f"{number_of(e.cores, 'core')} of {e.processor}"
        for e in places.values()
    ))  # fmt: skip
    return (
        f"{number_of(len(rows), 'run')} of {names('backbone')} on {names('dataset_label')}, "
        f"trained as {names('policy', 9)}, by {names('backend')}, with "
        f"{each}, on {listed(machines)}."
    )


def answer(found: Findings) -> list[str]:
    """Up to three sentences: the policy, the framework, the price."""
    if not found.groups:
        if any(row.is_ok for row in found.rows):
            return ["No run that is ok states an accuracy, so there is no answer."]
        return ["No run is ok, so there is no answer; what failed stands below."]
    contests = [c for c in found.contests if c.comparisons]
    telling = [c for c in contests if c.is_telling or _is_beaten(c)]
    undecided = sum(not c.is_decided and c not in telling for c in contests)
    three = [_policies(telling, undecided), _backends(found.pairs), _price(telling)]
    sentences = _once([sentence for sentence in three if sentence is not None])
    return sentences or [_why_not(found, contests)]


def _is_beaten(contest: Contest) -> bool:
    """Whether the article's policy is, whatever another might be that could not be compared."""
    ours = contest.prescribed
    return contest.shows_nothing is None and ours is not None and bool(contest.better_than(ours))


def _once(sentences: list[str]) -> list[str]:
    """With ``MODELS_ONLY`` in the last sentence of those that have it alone."""
    said = f" ({MODELS_ONLY})"
    last = max((n for n, sentence in enumerate(sentences) if said in sentence), default=None)
    return [s if n == last else s.replace(said, "") for n, s in enumerate(sentences)]


def _why_not(found: Findings, contests: Sequence[Contest]) -> str:
    nothing = sorted({why for c in contests if c.is_decided and (why := c.shows_nothing)})
    if nothing:
        return f"These results name no best policy: with {listed(nothing)}, accuracy shows nothing."
    compared = [*(c for contest in contests for c in contest.comparisons),
                *(pair.top1 for pair in found.pairs)]  # fmt: skip
    reasons = sorted({REASONS[reason] for c in compared if (reason := c.why_not)})
    if reasons and all(c.why_not for c in compared):
        return f"Nothing can be compared image by image here: {listed(reasons)}."
    if reasons:
        return f"The best could not be compared with all others: {listed(reasons)}."
    if len(found.groups) > 1:
        return (
            "No two of these experiments differ in the policy alone, or in the backend alone on "
            "one machine and with the same versions of the rest, so there is nothing to compare."
        )
    only = found.groups[0]
    return (
        f"One experiment, so there is nothing to compare: {policy_variant(only)} reaches "
        f"{percent(only.top1)} of the test images."
    )


REASONS = {
    "other seeds": "what differs in policy or backend alone was run with other seeds",
    "seeds failed": "seeds failed, and those that are left may be the lucky ones",
    "answers missing": "some runs have no answers to the test images (predictions.npz) that can "
    "be read",
    "other test images": "the test images are not the same",
}
"""In words."""


def _policies(contests: Sequence[Contest], undecided: int) -> str | None:
    if not contests:
        return None
    in_cases = [c for c in contests if c.prescribed is not None]
    sentence = _cases(in_cases) if in_cases else _best(contests)
    without = len(contests) - len(in_cases)
    if in_cases and without:
        sentence += f"; {number_of(without, 'further question')} without the article's policy"
    if undecided:
        sentence += f"; {number_of(undecided, 'further question')} could not be decided"
    return f"{sentence}{_models_only(cell for c in contests for cell in c.groups)}."


def _models_only(cells: Iterable[SeedGroup]) -> str:
    return f" ({MODELS_ONLY})" if any(len(cell.rows) < LEAST_SEEDS for cell in cells) else ""


def _cases(contests: Sequence[Contest]) -> str:
    """Whether the article's prescriptions hold."""
    beaten = []
    for contest in contests:
        ours = contest.prescribed
        assert ours is not None
        if better := contest.better_than(ours):
            beaten.append((contest, better[0], ours))
    alone = sum(c.is_won and c.groups[0] is c.prescribed for c in contests)
    tied = len(contests) - len(beaten) - alone
    counts = {"best in": alone, "tied with the best in": tied, "beaten in": len(beaten)}
    parts = [f"{words} {count}" for words, count in counts.items() if count]
    sentence = (
        f"Of {number_of(len(contests), 'question')} (a case, network and backend each) the "
        f"article's policy is {listed(parts)}"
        + (", each question corrected for its own comparisons" if contests[1:] else "")
    )
    alone_with = sum(
        {c.row.spec.policy.name for c in contest.groups if c is not contest.prescribed} == {CONTROL}
        for contest in contests
    )
    if alone_with:
        where = "in all of them" if alone_with == len(contests) else f"in {alone_with} of them"
        sentence += f"; {where} its only rival was {CONTROL}, the control"
    if tied:
        sentence += _power([c for c in contests if not c.is_won and c.prescribed in c.leaders])
    if beaten:
        contest, best, ours = max(beaten, key=lambda b: b[1].top1.value - b[2].top1.value)
        e = contest.between(best, ours).over(ours)
        assert e is not None
        more = f"{policy_variant(best)} gets {points(e)} more than {policy_variant(ours)}"
        sentence += f", most on {_where(contest)}, where {more}"
    return sentence


CONTROL = "from_scratch"


def _power(contests: Sequence[Contest]) -> str:
    """What a tie is worth: how large a difference would have been seen, and whether the control,
    of which nobody thinks that it is as good, ties too."""
    pretrained = [
        d
        for contest in contests
        for c in contest.comparisons
        if CONTROL not in (c.a.row.spec.policy.name, c.b.row.spec.policy.name)
        if (d := c.detectable) is not None
    ]
    told = ""
    if pretrained:
        which = "half of the comparisons" if pretrained[1:] else "the comparison"
        least = 100 * median(pretrained)
        could = (
            "could not have shown any difference"
            if least >= 100.0
            else f"could only have shown a difference of over {max(least, 0.1):.2g} points"
        )
        told = f"; tied is not equal: {which} {could}"
    control = sum(
        any(c.row.spec.policy.name == CONTROL for c in contest.leaders) for contest in contests
    )
    return told + (f", and {CONTROL}, the control, is tied too in {control}" if control else "")


def _best(contests: Sequence[Contest]) -> str:
    """Without cases: the best policy of the question with most rivals."""
    contest = max(contests, key=lambda c: len(c.groups))
    best, second, *_ = contest.groups
    more = f"; {number_of(len(contests) - 1, 'further question')} below" if contests[1:] else ""
    if contest.is_won:
        e = contest.between(best, second).over(second)
        assert e is not None
        return (
            f"On {_where(contest)} {policy_variant(best)} is best: {percent(best.top1)} of the "
            f"test images, {points(e)} more than {policy_variant(second)}{more}"
        )
    ties = listed([policy_variant(c) for c in contest.leaders])
    return (
        f"On {_where(contest)} there is no single best policy: {ties} cannot be told apart "
        f"(the first has {percent(best.top1)} of the test images){_power([contest])}{more}"
    )


def _where(contest: Contest) -> str:
    row = contest.row
    case = f"case {row.spec.case.number}: " if row.spec.case.number else ""
    return f"{case}{_data(row)}, {row.spec.backbone}, {row.spec.backend}"


def _data(row: Row) -> str:
    return f"{row.dataset.label}, {row.dataset.train_images:,} images"


def _backends(pairs: Sequence[BackendPair]) -> str | None:
    """Whether the frameworks differ in accuracy and in speed."""
    compared = [p for p in pairs if p.top1.top1 is not None]
    if not compared:
        return None
    differ = [p for p in compared if p.top1.verdict == "real"]
    many = ", after correction for their number" if compared[1:] else ""
    told = (
        f"differ in accuracy in {len(differ)} of" if differ else "show no difference in accuracy in"
    )
    names = sorted({c.row.spec.backend for p in compared for c in (p.a, p.b)})
    most = max(differ or compared, key=lambda p: abs(_gap(p).value))
    largest = (
        f"largest {'that is real' if differ else 'difference'} {points(_gap(most))}, "
        f"{most.b.row.spec.backend} less {most.a.row.spec.backend}, {_experiment(most, pairs)}"
    )
    widest = max(compared, key=lambda p: _gap(p).half_width or 0.0)
    if not differ and widest is not most:
        largest += f"; the widest interval: {points(_gap(widest))}, {_experiment(widest, pairs)}"
    return (
        f"{listed(names)} {told} {number_of(len(compared), 'paired experiment')}{many} "
        f"({largest}){_speeds(pairs)}{_models_only(c for p in compared for c in (p.a, p.b))}."
    )


def _gap(pair: BackendPair) -> Estimate:
    assert pair.top1.top1 is not None
    return pair.top1.top1


def _experiment(pair: BackendPair, pairs: Sequence[BackendPair]) -> str:
    """Which it is, among the others."""
    row = pair.a.row
    told = settings([p.a for p in pairs])[[p.a for p in pairs].index(pair.a)]
    return ", ".join(filter(None, (_data(row), row.spec.backbone, policy_variant(pair.a), told)))


def _speeds(pairs: Sequence[BackendPair]) -> str:
    """How often each backend is faster, and where most."""
    known = [p for p in pairs if p.speed.p is not None]
    if not known:
        return ""
    wins = Counter(
        speed_verdict(p.speed, p.a.row.spec.backend, p.b.row.spec.backend)
        if p.speed.is_real
        else None
        for p in known
    )
    told = [
        f"no difference is shown in {count}" if name is None else f"{name} in {count}"
        for name, count in wins.most_common()
    ]
    real = [p for p in known if p.speed.is_real]
    without = len(pairs) - len(known)
    more = f" ({without} more are unsteady or without an interval)" if without else ""
    sentence = f"; of {number_of(len(known), 'speed')} compared{more}, {listed(told)}"
    if not real:
        return sentence
    most = max(real, key=lambda p: p.speed.size)
    names = most.a.row.spec.backend, most.b.row.spec.backend
    return f"{sentence} (most: {faster(most.speed, names)}, {_experiment(most, pairs)})"


MARGIN = 0.03
"""Of accuracy, that a cheaper policy may lose at most, by its interval, to be recommended."""


def _price(contests: Sequence[Contest]) -> str | None:
    """A policy that is quicker than the best and loses next to nothing, by both intervals, which
    hold together for all pairs that were looked at."""
    pairs = [
        (contest, contest.groups[0], cell)
        for contest in contests
        for cell in contest.groups[1:]
        if not is_unsteady(contest.groups[0]) and not is_unsteady(cell)
    ]
    found = []
    for contest, best, cell in pairs:
        e, ratio = contest.between(best, cell).over(best), fit_ratio(best, cell)
        if e is None or ratio is None:
            continue
        e, ratio = widened(e, len(pairs)), widened(ratio, len(pairs))
        close = e.low is not None and e.low >= -MARGIN
        if close and ratio.low is not None and ratio.low > 1.0:
            found.append((ratio, e, contest, best, cell))
    if not found:
        return None
    questions = len({id(contest) for _, _, contest, _, _ in found})
    many = f" (intervals corrected for {len(pairs)} pairs)" if len(pairs) > 1 else ""
    ratio, e, contest, best, cell = max(found, key=lambda item: item[0].low or 0.0)
    span = f"{seconds(_fit_s(cell))} against {seconds(_fit_s(best))}"
    return (
        f"In {questions} of {number_of(len(contests), 'question')} a quicker policy loses at most "
        f"{100 * MARGIN:.0f} points to the highest{many}; most is saved on {_where(contest)}: "
        f"{policy_variant(cell)} fits in {span} of {policy_variant(best)}, {times(ratio)} as fast, "
        f"at {points(e)}{_models_only((best, cell))}."
    )


def _fit_s(cell: SeedGroup) -> float:
    return mean_rate([row.result.fit_s or 0.0 for row in cell.rows]).value
