"""The question that the runs ask, and the answer as far as the numbers allow one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from statistics import median

from bench.analysis.findings import BackendPair, Findings
from bench.analysis.groups import Contest, SeedGroup, experiment_of, policy_variant
from bench.analysis.intervals import LEAST_SEEDS, mean_rate, widened
from bench.analysis.rows import Row
from bench.analysis.speed import fit_ratio, is_unsteady
from bench.catalog.policies import CONTROL
from bench.errors import number_of
from bench.report.format import listed, percent, points, seconds, some_of, times
from bench.report.labels import question_name, settings, values_of
from bench.report.tables.speeds import faster, speed_verdict

MODELS_ONLY = " With fewer than three seeds, this is about these trained models, not the recipes."
REASONS = {
    "other seeds": "the experiments were run with different seeds",
    "seeds failed": "seeds failed, and the remaining ones may be the lucky ones",
    "answers missing": "some runs have no readable predictions (predictions.npz)",
    "other test images": "the test images differ",
    "not the same experiment": "the backends did not do the same, see the notes",
}
"""Reason why two seed groups cannot be compared → its words."""
MARGIN = 0.03
"""Most accuracy (fraction of 1) that a recommended quicker policy may lose, by its interval."""
Paragraph = tuple[str, Sequence[SeedGroup]]
"""Sentences, and the seed groups that they are about."""


def asked(rows: Sequence[Row]) -> str:
    """Return a sentence that says what was run, and where."""

    def names(field: str, most: int = 6) -> str:
        found = values_of(rows, field)
        return some_of(found, most) if len(found) > most else listed(found)

    seeds = Counter(experiment_of(row) for row in rows).values()
    each = number_of(max(seeds), "seed") + (" each" if max(seeds) > 1 else "")
    each = f"{min(seeds)} to {each}" if min(seeds) < max(seeds) else each
    machines = dict.fromkeys(
        e.device_model if e.device != "cpu" else f"{number_of(e.cores, 'core')} of {e.processor}"
        for e in (row.environment for row in rows)
    )
    return (
        f"{number_of(len(rows), 'run')} of {names('backbone')} on {names('dataset_label')}, with "
        f"{each}. Policies: {names('policy', 9)}. Backends: {names('backend')}. "
        f"Machine: {listed(list(machines))}."
    )


def answer(found: Findings) -> list[str]:
    """Return up to three paragraphs: on policies, on backends, and on cheaper policies."""
    if not found.groups:
        if any(row.is_ok for row in found.rows):
            return ["No successful run has an accuracy, so there is no answer."]
        return ["No run is ok, so there is no answer. See below what failed."]
    contests = [c for c in found.contests if c.comparisons]
    # A policy may be better than the article's even if others could not be compared.
    telling = [
        c
        for c in contests
        if c.is_telling or (not c.shows_nothing and c.prescribed and c.better_than(c.prescribed))
    ]
    undecided = sum(not c.is_decided and c not in telling for c in contests)
    three = (_policies(telling, undecided), _backends(found.pairs), _price(telling))
    paragraphs = [paragraph for paragraph in three if paragraph]
    few_seeds = [any(len(g.rows) < LEAST_SEEDS for g in groups) for _, groups in paragraphs]
    last = max((n for n, few in enumerate(few_seeds) if few), default=None)
    texts = [text + (MODELS_ONLY if n == last else "") for n, (text, _) in enumerate(paragraphs)]
    return texts or [_why_not(found, contests)]


def _why_not(found: Findings, contests: Sequence[Contest]) -> str:
    why = sorted({why for c in contests if c.is_decided and (why := c.shows_nothing)})
    if why:
        return f"These results name no best policy: with {listed(why)}, accuracy is meaningless."
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


def _policies(contests: Sequence[Contest], undecided: int) -> Paragraph | None:
    if not contests:
        return None
    in_cases = [c for c in contests if c.prescribed is not None]
    text = _cases(in_cases) if in_cases else _best(contests)
    if in_cases and (without := len(contests) - len(in_cases)):
        text += f" {number_of(without, 'further question')} without the article's policy."
    if undecided:
        text += f" {number_of(undecided, 'further question')} could not be decided."
    return text, [group for c in contests for group in c.groups]


def _cases(contests: Sequence[Contest]) -> str:
    """Return sentences on how often the article's policy is best."""
    beaten = [
        (contest, better[0], ours)
        for contest in contests
        if (ours := contest.prescribed) and (better := contest.better_than(ours))
    ]
    alone = sum(c.is_won and c.groups[0] is c.prescribed for c in contests)
    tied = len(contests) - len(beaten) - alone
    counts = {"best in": alone, "tied with the best in": tied, "beaten in": len(beaten)}
    parts = [f"{words} {count}" for words, count in counts.items() if count]
    text = (
        f"Of {number_of(len(contests), 'question')} (a case, network and backend each), the "
        f"article's policy is {listed(parts)}."
    )
    if contests[1:]:
        text += " Each question is corrected for its own comparisons."
    rivals = [{g.row.spec.policy.name for g in c.groups if g is not c.prescribed} for c in contests]
    if control := rivals.count({CONTROL}):
        where = "In all of them" if control == len(contests) else f"In {control} of them"
        text += f" {where} its only rival was {CONTROL}, the control."
    if tied:
        text += _power([c for c in contests if not c.is_won and c.prescribed in c.leaders])
    if beaten:
        contest, best, ours = max(beaten, key=lambda b: b[1].top1.value - b[2].top1.value)
        text += (
            f" It loses most on {_where(contest)}: {policy_variant(best)} gets "
            f"{_gain(contest, best, ours)} more than {policy_variant(ours)}."
        )
    return text


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
        detects = f"can only detect differences above {max(least, 0.1):.2g} points"
        if least >= 100.0:
            detects = "cannot detect any difference"
        text = f" A tie does not mean equal: {which} {detects}."
    control = sum(CONTROL in {g.row.spec.policy.name for g in c.leaders} for c in contests)
    return text + (f" {CONTROL}, the control, is tied as well in {control}." if control else "")


def _best(contests: Sequence[Contest]) -> str:
    """Return the best policy of the question with most rivals, where no question is a case."""
    contest = max(contests, key=lambda c: len(c.groups))
    best, second, *_ = contest.groups
    more = f" {number_of(len(contests) - 1, 'further question')} below." if contests[1:] else ""
    gets = f"gets {percent(best.top1)} of the test images right."
    if contest.is_won:
        return (
            f"On {_where(contest)}, {policy_variant(best)} is best: it {gets} "
            f"{policy_variant(second)} is second, and the difference is "
            f"{_gain(contest, best, second)}.{more}"
        )
    ties = listed([policy_variant(c) for c in contest.leaders])
    return (
        f"On {_where(contest)}, there is no single best policy: {ties} are tied. "
        f"The first {gets}{_power([contest])}{more}"
    )


def _gain(contest: Contest, best: SeedGroup, other: SeedGroup) -> str:
    """Return the accuracy of ``best`` − that of another group that it was compared with."""
    e = contest.between(best, other).over(other)
    assert e is not None
    return points(e)


def _where(contest: Contest) -> str:
    row = contest.row
    case = f"case {row.spec.case.number}: " if row.spec.case.number else ""
    return f"{case}{question_name(row)}, {row.spec.backend}"


def _backends(pairs: Sequence[BackendPair]) -> Paragraph | None:
    """Return sentences on how backends differ in accuracy and speed, if any are paired."""
    gaps = [(p, p.top1.top1) for p in pairs if p.top1.top1 is not None]
    if not gaps:
        return None
    differ = [(p, gap) for p, gap in gaps if p.top1.verdict == "real"]
    names = listed(sorted({c.row.spec.backend for p, _ in gaps for c in (p.a, p.b)}))
    verb = (
        f"differ in accuracy in {len(differ)} of" if differ else "show no difference in accuracy in"
    )
    many = ", after correction for their number" if gaps[1:] else ""
    most, gap = max(differ or gaps, key=lambda pair: abs(pair[1].value))
    text = (
        f"{names} {verb} {number_of(len(gaps), 'paired experiment')}{many}. The largest "
        f"{'real ' if differ else ''}difference, {most.b.row.spec.backend} − "
        f"{most.a.row.spec.backend}, is {points(gap)} on {_experiment(most, pairs)}."
    )
    widest, gap = max(gaps, key=lambda pair: pair[1].half_width or 0.0)
    if not differ and widest is not most:
        text += f" The widest interval is {points(gap)} on {_experiment(widest, pairs)}."
    return text + _speeds(pairs), [group for p, _ in gaps for group in (p.a, p.b)]


def _experiment(pair: BackendPair, pairs: Sequence[BackendPair]) -> str:
    """Return a name that distinguishes a pair from the others."""
    setting = settings([p.a for p in pairs])[pairs.index(pair)]
    return ", ".join(filter(None, (question_name(pair.a.row), policy_variant(pair.a), setting)))


def _speeds(pairs: Sequence[BackendPair]) -> str:
    """Return sentences on how often each backend is faster, and where most."""
    known = [p for p in pairs if p.speed.p is not None]
    if not known:
        return ""
    real = [p for p in known if p.speed.is_real]
    wins = Counter(speed_verdict(p) if p.speed.is_real else None for p in known)
    counts = [
        f"no difference is shown in {count}" if name is None else f"{name} in {count}"
        for name, count in wins.most_common()
    ]
    text = f" Of {number_of(len(known), 'speed comparison')}, {listed(counts)}."
    if without := len(pairs) - len(known):
        text += f" {without} more are unsteady or without an interval."
    if real:
        most = max(real, key=lambda p: p.speed.size)
        text += f" Most: {faster(most)}, on {_experiment(most, pairs)}."
    return text


def _price(contests: Sequence[Contest]) -> Paragraph | None:
    """Return sentences on a policy that is quicker than the best and loses at most ``MARGIN``, by
    intervals that hold jointly for all pairs examined, if there is one."""
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
        is_close = e.low is not None and e.low >= -MARGIN
        if is_close and ratio.low is not None and ratio.low > 1.0:
            found.append((ratio.low, ratio, e, contest, best, group))
    if not found:
        return None
    questions = len({id(contest) for _, _, _, contest, _, _ in found})
    many = f" Intervals are corrected for {len(pairs)} pairs." if len(pairs) > 1 else ""
    _, ratio, e, contest, best, group = max(found, key=itemgetter(0))
    quick, usual = (
        seconds(mean_rate([row.result.fit_s or 0.0 for row in c.rows]).value) for c in (group, best)
    )
    text = (
        f"In {questions} of {number_of(len(contests), 'question')}, a quicker policy loses at most "
        f"{100 * MARGIN:.0f} points to the most accurate one.{many} The largest saving is on "
        f"{_where(contest)}. There {policy_variant(group)} trains in {quick} instead of {usual} "
        f"for {policy_variant(best)}: {times(ratio)} as fast. Accuracy changes by {points(e)}."
    )
    return text, (best, group)
