"""The tables of a report besides that of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bench.analysis.contests import Contest, Entry, Standing
from bench.analysis.findings import BackendPair, Findings
from bench.analysis.groups import SeedGroup, policy_variant, question_of
from bench.analysis.rows import UNSTEADY, Row, grouped
from bench.analysis.speed import EQUAL, LEAST_PAIRS, fit_ratio
from bench.catalog.policies import PRESCRIBED
from bench.errors import number_of
from bench.report.answer import relative_times
from bench.report.format import chance, listed, margin_words, megabytes, points, share, times
from bench.report.labels import settings
from bench.report.tables.model import (
    EDGE_NOTE,
    INTERVALS,
    Column,
    Table,
    TableCell,
    accuracy_cell,
    at_edge,
    count_column,
    data_cell,
    estimated,
    figure,
    group_columns,
    number,
    speed_column,
    table_of,
    text,
)

UNSTEADY_NOTE = (
    f"unsteady: slow steps took over {UNSTEADY:g} times the median one, or the fit or inference "
    "that much longer than in another run, or other processes took the cores. No speed is compared."
)
WORDS = (
    "best: the only policy that may be the best. ruled out: shown not to be the best (range test "
    "over the policies of the row, 5 %). as good as the best: within the margin with 95 % chance. "
    "open: may be the best."
)


def standard_set(found: Findings) -> list[Table]:
    """Return the standard tables that have rows."""
    made = (average_table, cases_table, policies_table, backends_table, problems_table)
    return [table for make in made if (table := make(found)).rows]


def standing_columns(found: Findings) -> list[Column[Any]]:
    """Return the columns of a policy's verdict, its ``Standing``; None: it is not compared."""
    near = f"chance to be within {margin_words(found.margin)}"
    return [
        Column("behind", "behind the leader", _behind, True),
        Column("verdict", "verdict", lambda s: text(s.word if s else None)),
        Column(
            "chance",
            near,
            lambda s: number(s.chance if s and s.is_sure else None, chance),
            True,
            if_any=True,
        ),
    ]


def _behind(standing: Standing | None) -> TableCell:
    if standing is None:
        return text(None)
    return figure("leads", 0.0) if standing.behind is None else estimated(standing.behind, points)


def average_table(found: Findings) -> Table:
    """Return the policies on average over all tests; it has no rows with fewer than two tests."""
    overall = found.overall
    if overall is None or len(overall.contests) < 2:
        return Table("average", "", "", (), ())
    spent, tests = relative_times(overall), len(overall.contests)

    def ruled_out(standing: Standing) -> TableCell:
        count = overall.ruled_out(standing.name)
        return figure(f"{count} of {tests}", count)

    def top1(standing: Standing) -> TableCell:
        entries = (e for c in overall.contests for e in c.entries if e.name == standing.name)
        groups = [group for entry in entries for group in entry.groups]
        return at_edge(number(standing.top1, "{:.1%}".format), groups)

    columns: list[Column[Standing]] = [
        Column("policy", "policy", lambda s: text(s.name)),
        Column("test_top1", "mean test top-1", top1, True),
        *standing_columns(found),
        Column("ruled_out", "ruled out in", ruled_out, True),
        Column("relative_time", "training time", lambda s: number(spent.get(s.name), share), True),
    ]
    return table_of(
        overall.standings, columns, "average", f"Policies on average over {tests} tests",
        f"The policies that all {tests} tests have; training time relative to the leader's, "
        "without compilation.",
        {EDGE_NOTE: _has_edge(found)},
        legend=(INTERVALS, WORDS),
    )  # fmt: skip


def cases_table(found: Findings) -> Table:
    """Return a row for each case, network and backends: the article's policy beside the leader."""
    contests = [c for c in found.joint if c.row.spec.case.number is not None]
    lost = grouped((row for row in found.rows if not row.is_ok), question_of)

    def ours(contest: Contest) -> Standing | None:
        return contest.standing(contest.prescribed) if contest.is_compared else None

    def leader(contest: Contest) -> Standing | None:
        return contest.standings[0] if contest.is_compared else None

    def top1(entry: Entry | None) -> TableCell:
        if entry is None or len(entry.groups) == 1:
            return accuracy_cell(found, entry.groups[0] if entry else None)
        return at_edge(number(entry.scores.mean, "{:.1%}".format), entry.groups)

    behind, _, chances = standing_columns(found)
    columns: list[Column[Contest]] = [
        Column("case", "case", lambda c: number(c.row.spec.case.number), True),
        Column("data", "data, training images", lambda c: data_cell(c.row)),
        Column("backbone", "backbone", lambda c: text(c.row.spec.backbone)),
        Column("backends", "backends", lambda c: text(listed(c.backends))),
        Column("prescribed", "article's", lambda c: text(_prescribed(c))),
        Column("verdict", "verdict", lambda c: text(
            s.word if (s := ours(c)) else _why_not(c, lost.get(question_of(c.row), [])))),
        Column("prescribed_top1", "article's top-1", lambda c: top1(c.prescribed), True),
        behind.of(ours),
        chances.of(ours),
        Column("leader", "leader", lambda c: text(s.name if (s := leader(c)) else None)),
        Column("leader_top1", "leader's top-1", lambda c: top1(
            s.entry if (s := leader(c)) else None), True),
    ]  # fmt: skip
    return table_of(
        contests, columns, "cases", "The four cases",
        "The article's policy for each case beside the leader of these runs.",
        {EDGE_NOTE: _has_edge(found), **_left_out(contests)},
        settings([c.all_entries[0].groups[0] for c in contests], by_policy=False),
        (INTERVALS, WORDS),
    )  # fmt: skip


def _has_edge(found: Findings) -> bool:
    return any(row.is_at_edge for group in found.groups for row in group.rows)


def _prescribed(contest: Contest) -> str:
    return PRESCRIBED[contest.row.spec.case.number or 1]


def _why_not(contest: Contest, lost: Sequence[Row]) -> str:
    """Return why nothing is said of the article's policy; ``lost`` are runs that are not ok."""
    name = _prescribed(contest)
    if contest.prescribed is None:
        groups = [*contest.unpretrained, *(g for e in contest.all_entries for g in e.groups)]
        if any(group.row.spec.policy.name == name for group in groups):
            return "run with random weights"
        failed = dict.fromkeys(r.result.status for r in lost if r.spec.policy.name == name)
        return f"failed: {', '.join(failed)}" if failed else "not run"
    if contest.shows_nothing:
        return f"{contest.shows_nothing}: meaningless"
    reasons = [why for entry, why in contest.apart if entry is contest.prescribed]
    reasons += [why for _, why in contest.apart]
    return f"not compared: {reasons[0]}" if reasons else "no other policy was run"


def _left_out(contests: Sequence[Contest]) -> dict[str, object]:
    """Return notes on seed groups that do not compete."""
    random = sum(len(c.unpretrained) for c in contests)
    beside = sum(c.passed_over for c in contests)
    return {
        f"{number_of(random, 'experiment')} with random instead of pretrained weights did not "
        "compete.": random,
        f"{number_of(beside, 'further setting')} of the same policies (such as learning rates) did "
        "not compete. Each policy is represented by its setting of best validation accuracy.":
            beside,
    }  # fmt: skip


def policies_table(found: Findings) -> Table:
    """Return the table of every policy in every backend."""
    standings, reasons = dict[SeedGroup, Standing | None](), dict[SeedGroup, str]()
    for contest in found.contests:
        if contest.is_compared:
            standings |= {e.groups[0]: contest.standing(e) for e in contest.entries}
        reasons |= {entry.groups[0]: f"not compared: {why}" for entry, why in contest.apart}
    best = _fronts(found.groups)
    behind, verdict, chances = (column.of(standings.get) for column in standing_columns(found))

    def word(group: SeedGroup) -> TableCell:
        return text(reasons[group]) if group in reasons else verdict.cell(group)

    columns: list[Column[SeedGroup]] = [
        *group_columns(),
        Column("seeds", "seeds", _seeds, True),
        Column("test_top1", "test top-1", partial(accuracy_cell, found), True),
        behind,
        Column("verdict", "verdict", word),
        chances,
        Column("learning_rate_chosen", "learning rate", _rate, True, if_any=True),
        speed_column("train_images_per_s", "train images/s"),
        speed_column("effective_images_per_s", "effective images/s", if_any=True),
        speed_column("infer_images_per_s", "infer images/s", if_any=True),
        speed_column("fit_s", "fit", "s"),
        speed_column("tune_s", "tuning", "s", if_any=True),
        Column("peak_bytes", "peak memory", lambda g: number(_peak(g), megabytes), True, True),
        count_column("total_parameters", "parameters"),
        count_column("trainable_parameters", "trainable"),
        Column("front", "front", lambda g: text("on the front" if g in best else None),
               if_any=True),
    ]  # fmt: skip
    return table_of(
        found.groups, columns, "policies", "Policy × backend",
        "Accuracy, speed (geometric means) and parameters of every policy in every backend.",
        {
            "on the front: on this data set, machine and backend no other choice was both more "
            "accurate and quicker to train. Differences within the intervals may be luck.": best,
            UNSTEADY_NOTE: any(g.is_unsteady for g in found.groups),
            EDGE_NOTE: _has_edge(found),
            **_left_out(found.contests),
        },
        settings(found.groups),
        (
            INTERVALS,
            WORDS,
            "train images/s: whole steps. effective images/s: images of all epochs over all "
            "training, where a frozen part was computed once or the policy has phases; the two are "
            "never compared.",
        ),
    )  # fmt: skip


def _seeds(group: SeedGroup) -> TableCell:
    count = len(group.seeds)
    return figure(f"{count} of {count + group.lost}" if group.lost else str(count), count)


def _rate(group: SeedGroup) -> TableCell:
    """Return the learning rates that validation chose."""
    chosen = [rate for row in group.rows if (rate := row.result.learning_rate) is not None]
    if len(chosen) < len(group.rows):
        return text(None)
    shown = ", ".join(dict.fromkeys(f"{rate:.2g}" for rate in chosen))
    return at_edge(figure(shown, min(chosen)), [group])


def _peak(group: SeedGroup) -> int | None:
    """Return the largest peak memory of the runs, of the device or of a worker on a CPU, in
    bytes."""
    place = "host" if group.row.spec.device == "cpu" else "device"
    return max((b for row in group.rows if (b := row[f"peak_{place}_bytes"])), default=None)


def _fronts(groups: Sequence[SeedGroup]) -> set[SeedGroup]:
    """Return the seed groups that no other beats in both accuracy and time, for each data set,
    machine and backend; none if there is one backbone."""
    if len({group.row.spec.backbone for group in groups}) < 2:
        return set()
    timed = [g for g in groups if g.row.result.fit_s and not g.is_unsteady]
    by_data = grouped(timed, lambda g: (g.test_set, g.machine, g.row.spec.backend))
    return {
        g
        for same in by_data.values()
        for g in same
        if not any(
            other.scores.mean > g.scores.mean and (fit_ratio(g, other) or 2.0) <= 1.0
            for other in same
        )
    }


def backends_table(found: Findings) -> Table:
    """Return the comparisons of two backends in the same experiment on the same machine."""
    pairs, within = found.pairs, margin_words(found.margin)

    def verdict(p: BackendPair) -> str:
        if p.why_not:
            return f"not compared: {p.why_not}"
        return f"equal within {within}" if p.verdict == "equal" else p.verdict

    columns: list[Column[BackendPair]] = [
        Column("data", "data, training images", lambda p: data_cell(p.a.row)),
        Column("backbone", "backbone", lambda p: text(p.a.row.spec.backbone)),
        Column("policy", "policy", lambda p: text(policy_variant(p.a))),
        Column("backends", "difference",
               lambda p: text(f"{p.b.row.spec.backend} − {p.a.row.spec.backend}")),
        Column("seeds", "seeds", lambda p: number(len(set(p.a.seeds) & set(p.b.seeds))), True),
        Column("top1_difference", "test top-1", lambda p: at_edge(
            estimated(p.top1, points), (p.a, p.b)), True),
        Column("verdict", "accuracy", lambda p: text(verdict(p))),
        Column("speed_ratio", "speed, first / second",
               lambda p: estimated(p.speed.ratio if p.speed else None, times), True),
        Column("speed_verdict", "speed", lambda p: text(_speed(p))),
        Column("speed_of", "measured by", lambda p: text(
            f"{p.speed.of}, {number_of(p.speed.pairs, 'pair')}" if p.speed else None)),
        Column("parity", "parity", lambda p: text(_parity(p))),
    ]  # fmt: skip
    return table_of(
        pairs, columns, "backends", "Keras against PyTorch",
        "The same experiment in two backends on one machine, compared image by image. Speed above "
        "1: the backend named first is faster.",
        {
            UNSTEADY_NOTE: any(g.is_unsteady for p in pairs for g in (p.a, p.b)),
            EDGE_NOTE: _has_edge(found),
        },
        _settings_of_pairs(pairs),
        (
            INTERVALS,
            f"differ: significant after Holm's correction for {number_of(len(pairs), 'pair')}. "
            f"equal: the 90 % interval lies within {within}.",
            "whole steps: pairs of runs, pooled over all experiments with the same step; from "
            f"{LEAST_PAIRS} pairs on by Wilcoxon's signed ranks. whole fits: without compilation, "
            "where a frozen part was computed once.",
        ),
    )  # fmt: skip


def _speed(pair: BackendPair) -> str | None:
    if pair.speed is None:
        return "unsteady" if pair.a.is_unsteady or pair.b.is_unsteady else None
    quicker = {"faster": pair.b, "slower": pair.a}.get(pair.speed.verdict)
    if quicker is not None:
        return f"{quicker.row.spec.backend} is faster"
    return f"equal within {EQUAL:.0%}" if pair.speed.verdict == "equal" else "open"


def _parity(pair: BackendPair) -> str | None:
    """Return the mark of a pair: proved, or the weaker mark of its two sides."""
    marks = [group.row.pairing for group in (pair.a, pair.b)]
    order = ("differs", "not_shown", "other_rate", "paired", "proved")
    known = [mark for mark in marks if mark is not None]
    return "proved" if pair.is_proved else min(known, key=order.index, default=None)


def _settings_of_pairs(pairs: Sequence[BackendPair]) -> list[str]:
    """Return the settings of each pair, with those of the second backend if they differ."""
    both = zip(settings([p.a for p in pairs]), settings([p.b for p in pairs]), pairs, strict=True)
    return [
        one if one == other
        else "; ".join(filter(None, (one, other and f"{pair.b.row.spec.backend}: {other}")))
        for one, other, pair in both
    ]  # fmt: skip


def problems_table(found: Findings) -> Table:
    """Return the table of runs that failed or were unavailable, with a row for each reason."""
    fields = ("status", "backbone", "policy", "backend", "kind", "reason")

    def problem(row: Row) -> tuple[str, ...]:
        failure = row.failure or {"kind": "", "message": ""}
        return *(row[field] for field in fields[:4]), failure["kind"], failure["message"]

    def field(place: int) -> Column[tuple[Mapping[int, str], Sequence[Row]]]:
        return Column(fields[place], fields[place], lambda p: text(p[0][place]))

    problems = grouped((row for row in found.rows if not row.is_ok), problem)
    columns: list[Column[tuple[Mapping[int, str], Sequence[Row]]]] = [
        *map(field, range(4)),
        Column("runs", "runs", lambda p: number(len(p[1])), True),
        *map(field, (4, 5)),
        Column("run_id", "first run", lambda p: text(p[1][0]["run_id"])),
    ]
    return table_of(
        list(problems.items()), columns, "failed", "Failed and unavailable",
        "Runs without a result, and why.",
    )  # fmt: skip
