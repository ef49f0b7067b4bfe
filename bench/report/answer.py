"""The question that the runs ask, and the answer as far as the numbers allow one."""

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
from bench.report.labels import question_name, settings
from bench.report.tables.speeds import faster, speed_verdict

MODELS_ONLY = " With fewer than three seeds, this is about these trained models, not the recipes."


def asked(rows: Sequence[Row]) -> str:
    """Return a sentence that says what was run, and where."""

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
        f"{number_of(len(rows), 'run')} of {names('backbone')} on {names('dataset_label')}, with "
        f"{each}. Policies: {names('policy', 9)}. Backends: {names('backend')}. "
        f"Machine: {listed(machines)}."
    )


def answer(found: Findings) -> list[str]:
    """Return up to three paragraphs: on policies, on backends, and on cheaper policies."""
    if not found.groups:
        if any(row.is_ok for row in found.rows):
            return ["No successful run has an accuracy, so there is no answer."]
        return ["No run is ok, so there is no answer. See below what failed."]
    contests = [c for c in found.contests if c.comparisons]
    telling = [c for c in contests if c.is_telling or _is_beaten(c)]
    undecided = sum(not c.is_decided and c not in telling for c in contests)
    three = [_policies(telling, undecided), _backends(found.pairs), _price(telling)]
    paragraphs = _once([paragraph for paragraph in three if paragraph is not None])
    return paragraphs or [_why_not(found, contests)]


def _is_beaten(contest: Contest) -> bool:
    """Return True if some policy is significantly better than the article's, even if others could
    not be compared."""
    ours = contest.prescribed
    return contest.shows_nothing is None and ours is not None and bool(contest.better_than(ours))


def _once(paragraphs: list[str]) -> list[str]:
    """Keep ``MODELS_ONLY`` in the last paragraph that has it, and drop it from the others."""
    last = max((n for n, text in enumerate(paragraphs) if MODELS_ONLY in text), default=None)
    return [p if n == last else p.replace(MODELS_ONLY, "") for n, p in enumerate(paragraphs)]


def _why_not(found: Findings, contests: Sequence[Contest]) -> str:
    nothing = sorted({why for c in contests if c.is_decided and (why := c.shows_nothing)})
    if nothing:
        return (
            f"These results name no best policy: with {listed(nothing)}, accuracy is meaningless."
        )
    compared = [*(c for contest in contests for c in contest.comparisons),
                *(pair.top1 for pair in found.pairs)]  # fmt: skip
    reasons = sorted({REASONS[reason] for c in compared if (reason := c.why_not)})
    if reasons and all(c.why_not for c in compared):
        return f"Nothing can be compared image by image: {listed(reasons)}."
    if reasons:
        return f"The best policy could not be compared with all others: {listed(reasons)}."
    if len(found.groups) > 1:
        return (
            "There is nothing to compare: no two experiments differ in the policy alone, or in "
            "the backend alone on one machine."
        )
    only = found.groups[0]
    return (
        f"There is one experiment, so nothing to compare. {policy_variant(only)} classifies "
        f"{percent(only.top1)} of the test images correctly."
    )


REASONS = {
    "other seeds": "the experiments were run with different seeds",
    "seeds failed": "seeds failed, and the remaining ones may be the lucky ones",
    "answers missing": "some runs have no readable predictions (predictions.npz)",
    "other test images": "the test images differ",
}
"""Reason why two seed groups cannot be compared → its words."""


def _policies(contests: Sequence[Contest], undecided: int) -> str | None:
    if not contests:
        return None
    in_cases = [c for c in contests if c.prescribed is not None]
    text = _cases(in_cases) if in_cases else _best(contests)
    without = len(contests) - len(in_cases)
    if in_cases and without:
        text += f" {number_of(without, 'further question')} without the article's policy."
    if undecided:
        text += f" {number_of(undecided, 'further question')} could not be decided."
    return text + _models_only(group for c in contests for group in c.groups)


def _models_only(groups: Iterable[SeedGroup]) -> str:
    return MODELS_ONLY if any(len(group.rows) < LEAST_SEEDS for group in groups) else ""


def _cases(contests: Sequence[Contest]) -> str:
    """Return sentences on how often the article's policy is best."""
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
    text = (
        f"Of {number_of(len(contests), 'question')} (a case, network and backend each), the "
        f"article's policy is {listed(parts)}."
        + (" Each question is corrected for its own comparisons." if contests[1:] else "")
    )
    alone_with = sum(
        {c.row.spec.policy.name for c in contest.groups if c is not contest.prescribed} == {CONTROL}
        for contest in contests
    )
    if alone_with:
        where = "In all of them" if alone_with == len(contests) else f"In {alone_with} of them"
        text += f" {where} its only rival was {CONTROL}, the control."
    if tied:
        text += _power([c for c in contests if not c.is_won and c.prescribed in c.leaders])
    if beaten:
        contest, best, ours = max(beaten, key=lambda b: b[1].top1.value - b[2].top1.value)
        e = contest.between(best, ours).over(ours)
        assert e is not None
        more = f"{policy_variant(best)} gets {points(e)} more than {policy_variant(ours)}"
        text += f" It loses most on {_where(contest)}: {more}."
    return text


CONTROL = "from_scratch"


def _power(contests: Sequence[Contest]) -> str:
    """Return sentences on what a tie is worth: the smallest difference that these runs detect, and
    how often even the control ties, which nobody expects to be as good."""
    pretrained = [
        d
        for contest in contests
        for c in contest.comparisons
        if CONTROL not in (c.a.row.spec.policy.name, c.b.row.spec.policy.name)
        if (d := c.detectable) is not None
    ]
    text = ""
    if pretrained:
        which = "half of these comparisons" if pretrained[1:] else "this comparison"
        least = 100 * median(pretrained)
        detects = (
            "cannot detect any difference"
            if least >= 100.0
            else f"can only detect differences above {max(least, 0.1):.2g} points"
        )
        text = f" A tie does not mean equal: {which} {detects}."
    control = sum(
        any(c.row.spec.policy.name == CONTROL for c in contest.leaders) for contest in contests
    )
    return text + (f" {CONTROL}, the control, is tied as well in {control}." if control else "")


def _best(contests: Sequence[Contest]) -> str:
    """Return the best policy of the question with most rivals, where no question is a case."""
    contest = max(contests, key=lambda c: len(c.groups))
    best, second, *_ = contest.groups
    more = f" {number_of(len(contests) - 1, 'further question')} below." if contests[1:] else ""
    if contest.is_won:
        e = contest.between(best, second).over(second)
        assert e is not None
        return (
            f"On {_where(contest)}, {policy_variant(best)} is best: it gets {percent(best.top1)} "
            f"of the test images right. {policy_variant(second)} is second, and the difference "
            f"is {points(e)}.{more}"
        )
    ties = listed([policy_variant(c) for c in contest.leaders])
    return (
        f"On {_where(contest)}, there is no single best policy: {ties} are tied. "
        f"The first gets {percent(best.top1)} of the test images right.{_power([contest])}{more}"
    )


def _where(contest: Contest) -> str:
    row = contest.row
    case = f"case {row.spec.case.number}: " if row.spec.case.number else ""
    return f"{case}{question_name(row)}, {row.spec.backend}"


def _backends(pairs: Sequence[BackendPair]) -> str | None:
    """Return sentences on how backends differ in accuracy and speed; None if none are paired."""
    compared = [p for p in pairs if p.top1.top1 is not None]
    if not compared:
        return None
    differ = [p for p in compared if p.top1.verdict == "real"]
    many = ", after correction for their number" if compared[1:] else ""
    verb = (
        f"differ in accuracy in {len(differ)} of" if differ else "show no difference in accuracy in"
    )
    names = sorted({c.row.spec.backend for p in compared for c in (p.a, p.b)})
    most = max(differ or compared, key=lambda p: abs(_gap(p).value))
    largest = (
        f"The largest {'real ' if differ else ''}difference, {most.b.row.spec.backend} − "
        f"{most.a.row.spec.backend}, is {points(_gap(most))} on {_experiment(most, pairs)}."
    )
    widest = max(compared, key=lambda p: _gap(p).half_width or 0.0)
    if not differ and widest is not most:
        largest += (
            f" The widest interval is {points(_gap(widest))} on {_experiment(widest, pairs)}."
        )
    return (
        f"{listed(names)} {verb} {number_of(len(compared), 'paired experiment')}{many}. "
        f"{largest}{_speeds(pairs)}{_models_only(c for p in compared for c in (p.a, p.b))}"
    )


def _gap(pair: BackendPair) -> Estimate:
    assert pair.top1.top1 is not None
    return pair.top1.top1


def _experiment(pair: BackendPair, pairs: Sequence[BackendPair]) -> str:
    """Return a name that distinguishes a pair from the others."""
    setting = settings([p.a for p in pairs])[[p.a for p in pairs].index(pair.a)]
    return ", ".join(filter(None, (question_name(pair.a.row), policy_variant(pair.a), setting)))


def _speeds(pairs: Sequence[BackendPair]) -> str:
    """Return sentences on how often each backend is faster, and where most."""
    known = [p for p in pairs if p.speed.p is not None]
    if not known:
        return ""
    wins = Counter(
        speed_verdict(p.speed, p.a.row.spec.backend, p.b.row.spec.backend)
        if p.speed.is_real
        else None
        for p in known
    )
    counts = [
        f"no difference is shown in {count}" if name is None else f"{name} in {count}"
        for name, count in wins.most_common()
    ]
    real = [p for p in known if p.speed.is_real]
    without = len(pairs) - len(known)
    text = f" Of {number_of(len(known), 'speed comparison')}, {listed(counts)}."
    if without:
        text += f" {without} more are unsteady or without an interval."
    if not real:
        return text
    most = max(real, key=lambda p: p.speed.size)
    names = most.a.row.spec.backend, most.b.row.spec.backend
    return f"{text} Most: {faster(most.speed, names)}, on {_experiment(most, pairs)}."


MARGIN = 0.03
"""Most accuracy (fraction of 1) that a recommended quicker policy may lose, by its interval."""


def _price(contests: Sequence[Contest]) -> str | None:
    """Return sentences on a policy that is quicker than the best and loses at most ``MARGIN``, by
    intervals that hold jointly for all pairs examined; None if there is none."""
    pairs = [
        (contest, contest.groups[0], group)
        for contest in contests
        for group in contest.groups[1:]
        if not is_unsteady(contest.groups[0]) and not is_unsteady(group)
    ]
    found = []
    for contest, best, group in pairs:
        e, ratio = contest.between(best, group).over(best), fit_ratio(best, group)
        if e is None or ratio is None:
            continue
        e, ratio = widened(e, len(pairs)), widened(ratio, len(pairs))
        close = e.low is not None and e.low >= -MARGIN
        if close and ratio.low is not None and ratio.low > 1.0:
            found.append((ratio, e, contest, best, group))
    if not found:
        return None
    questions = len({id(contest) for _, _, contest, _, _ in found})
    many = f" Intervals are corrected for {len(pairs)} pairs." if len(pairs) > 1 else ""
    ratio, e, contest, best, group = max(found, key=lambda item: item[0].low or 0.0)
    span = f"{seconds(_fit_s(group))} instead of {seconds(_fit_s(best))}"
    return (
        f"In {questions} of {number_of(len(contests), 'question')}, a quicker policy loses at most "
        f"{100 * MARGIN:.0f} points to the most accurate one.{many} The largest saving is on "
        f"{_where(contest)}. There {policy_variant(group)} trains in {span} for "
        f"{policy_variant(best)}: {times(ratio)} as fast. Accuracy changes by {points(e)}."
        f"{_models_only((best, group))}"
    )


def _fit_s(group: SeedGroup) -> float:
    return mean_rate([row.result.fit_s or 0.0 for row in group.rows]).value
