"""The tables of a report besides that of its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.analysis.contests import Contest, Standing
from bench.analysis.findings import BackendPair, Findings
from bench.analysis.groups import SeedGroup, policy_variant, question_of
from bench.analysis.rows import UNSTEADY, Row, grouped
from bench.analysis.speed import EQUAL, LEAST_PAIRS, fit_ratio, is_unsteady
from bench.catalog.policies import PRESCRIBED
from bench.errors import number_of
from bench.report.answer import relative_times
from bench.report.format import listed, margin_words, megabytes, points, share, times
from bench.report.labels import settings
from bench.report.notes import is_at_edge
from bench.report.tables.model import (
    INTERVALS,
    Column,
    Table,
    TableCell,
    accuracy_cell,
    data_cell,
    estimated,
    figure,
    group_columns,
    number,
    speed_cell,
    table_of,
    text,
)

UNSTEADY_NOTE = (
    f"unsteady: slow steps took over {UNSTEADY:g} times the median one, or the fit or inference "
    "that much longer than in another run. The machine was probably busy: no speed is compared."
)
EDGE_MARK = "edge of the rates tried"


def standard_set(found: Findings) -> list[Table]:
    """Return the standard tables that have rows."""
    tables = [
        average_table(found),
        cases_table(found),
        policies_table(found),
        backbones_table(found),
        backends_table(found),
        problems_table(found.rows),
    ]
    return [table for table in tables if table.rows]


def average_table(found: Findings) -> Table:
    """Return the policies on average over all tests; it has no rows with fewer than two tests."""
    overall = found.overall
    if overall is None or len(overall.contests) < 2:
        return Table("average", "", "", (), ())
    times, tests = relative_times(overall), len(overall.contests)

    def ruled_out(standing: Standing) -> TableCell:
        count = overall.ruled_out(standing.name)
        return figure(f"{count} of {tests}", count)

    columns: list[Column[Standing]] = [
        Column("policy", "policy", lambda s: text(s.name)),
        Column("test_top1", "mean test top-1", lambda s: number(s.top1, "{:.1%}".format), True),
        Column("behind", "behind the leader", _behind, True),
        Column("verdict", "verdict", lambda s: text(s.word)),
        Column("chance", f"chance to be within {margin_words(found.margin)}",
               lambda s: number(s.chance, share), True),
        Column("ruled_out", "ruled out in", ruled_out, True),
        Column("relative_time", "training time",
               lambda s: number(times.get(s.name), share), True),
    ]  # fmt: skip
    return table_of(
        overall.standings, columns, "average", f"Policies on average over {tests} tests",
        f"The policies that all {tests} tests have; training time relative to the leader's, "
        f"without compilation. {INTERVALS}",
        {WORDS: True},
    )  # fmt: skip


@dataclass(frozen=True)
class _Test:
    """A question of a case: its contest, or the runs of one of which none is ok."""

    row: Row
    contest: Contest | None
    lost: Sequence[Row]

    @property
    def prescribed(self) -> str:
        return PRESCRIBED[self.row.spec.case.number or 1]

    @property
    def article(self) -> Standing | None:
        c = self.contest
        return c.standing(c.prescribed) if c and c.is_compared and c.prescribed else None

    @property
    def leader(self) -> Standing | None:
        return self.contest.standings[0] if self.contest and self.contest.is_compared else None

    @property
    def verdict(self) -> str:
        """Return what the runs say of the article's policy, in words."""
        c = self.contest
        if c is None:
            return "no run is ok"
        if c.prescribed is None:
            return f"the article's policy: {self._absent(c)}"
        if c.shows_nothing:
            return f"{c.shows_nothing}: meaningless"
        apart = {id(entry): why for entry, why in c.apart}
        if (why := apart.get(id(c.prescribed))) is not None:
            return f"not compared: {why}"
        if self.article is None:
            return "no other policy was run" if not c.apart else f"not compared: {c.apart[0][1]}"
        return self.article.word

    def _absent(self, contest: Contest) -> str:
        statuses = [r.result.status for r in self.lost if r.spec.policy.name == self.prescribed]
        took_part = [*contest.unpretrained, *(g for e in contest.all_entries for g in e.groups)]
        if any(group.row.spec.policy.name == self.prescribed for group in took_part):
            return "run with random weights"
        return f"failed: {', '.join(dict.fromkeys(statuses))}" if statuses else "not run"


def cases_table(found: Findings) -> Table:
    """Return a row for each case, network and backends; those without any successful run last."""
    in_cases = [c for c in found.joint if c.row.spec.case.number is not None]
    lost = grouped(
        (r for r in found.rows if not r.is_ok and r.spec.case.number is not None), question_of
    )
    answered = {question_of(g.row) for c in in_cases for e in c.all_entries for g in e.groups}
    tests = [_Test(c.row, c, lost.get(question_of(c.row), [])) for c in in_cases]
    tests += [_Test(rows[0], None, rows) for key, rows in lost.items() if key not in answered]
    columns: list[Column[_Test]] = [
        Column("case", "case", lambda t: number(t.row.spec.case.number), True),
        Column("data", "data, training images", lambda t: data_cell(t.row)),
        Column("backbone", "backbone", lambda t: text(t.row.spec.backbone)),
        Column("backends", "backends", lambda t: text(
            listed(t.contest.backends) if t.contest else t.row.spec.backend)),
        Column("prescribed", "article's", lambda t: text(t.prescribed)),
        Column("verdict", "verdict", lambda t: text(t.verdict)),
        Column("prescribed_top1", "its top-1", lambda t: _top1(found, t.contest), True),
        Column("behind", "behind the leader", lambda t: _behind(t.article), True),
        Column("chance", f"chance to be within {margin_words(found.margin)}",
               lambda t: number(t.article.chance if t.article else None, share), True),
        Column("leader", "leader", lambda t: text(t.leader.name if t.leader else None)),
        Column("leader_top1", "its top-1",
               lambda t: number(t.leader.top1 if t.leader else None, "{:.1%}".format), True),
    ]  # fmt: skip
    firsts = [c.all_entries[0].groups[0] for c in in_cases]
    return table_of(
        tests, columns, "cases", "The four cases",
        "The article's policy for each case beside the leader of these runs. " + INTERVALS,
        {WORDS: any(t.article for t in tests), **_left_out(in_cases)},
        [*settings(firsts, by_policy=False), *([""] * (len(tests) - len(in_cases)))],
    )  # fmt: skip


WORDS = (
    "best: the only policy that may be the best. ruled out: shown not to be the best (range test "
    "over the policies of the row, 5 %). as good as the best: within the margin with 95 % chance. "
    "open: may be the best."
)


def _top1(found: Findings, contest: Contest | None) -> TableCell:
    """Return the accuracy of the article's policy, with the interval of its first backend."""
    entry = contest.prescribed if contest else None
    if entry is None:
        return text(None)
    if len(entry.groups) == 1:
        return accuracy_cell(found, entry.groups[0])
    return number(entry.scores.mean, "{:.1%}".format)


def _behind(standing: Standing | None) -> TableCell:
    if standing is None:
        return text(None)
    if standing.behind is None:
        return figure("leads", 0.0)
    return estimated(standing.behind, points)


def _left_out(contests: Sequence[Contest]) -> dict[str, object]:
    """Return notes on seed groups that do not compete."""
    random = sum(len(c.unpretrained) for c in contests)
    beside = sum(c.passed_over for c in contests)
    return {
        f"{number_of(random, 'experiment')} with random instead of pretrained weights did not "
        "compete.": random,
        f"{beside} further settings of the same policies (such as learning rates) do not compete. "
        "Each policy competes with its setting of best validation accuracy.": beside,
    }


def policies_table(found: Findings) -> Table:
    """Return the table of every policy in every backend."""
    standing_of = {
        entry.groups[0]: (contest.standing(entry), why)
        for contest in found.contests
        for entry, why in [*((e, None) for e in contest.entries), *contest.apart]
        if contest.is_compared or why
    }

    def beside(group: SeedGroup) -> Standing | None:
        return standing_of.get(group, (None, None))[0]

    def verdict(group: SeedGroup) -> TableCell:
        standing, why = standing_of.get(group, (None, None))
        if why:
            return text(f"not compared: {why}")
        return text(standing.word if standing else None)

    def seeds(group: SeedGroup) -> TableCell:
        count = len(group.seeds)
        some = f"{count} of {count + group.lost}" if group.lost else str(count)
        return figure(some, count)

    def rate(group: SeedGroup) -> TableCell:
        chosen = [row.result.learning_rate for row in group.rows]
        if None in chosen:
            return text(None)
        shown = ", ".join(dict.fromkeys(f"{r:.2g}" for r in chosen))
        at_edge = any(map(is_at_edge, group.rows))
        return figure(f"{shown} ({EDGE_MARK})" if at_edge else shown, min(r or 0.0 for r in chosen))

    columns: list[Column[SeedGroup]] = [
        *group_columns(),
        Column("seeds", "seeds", seeds, True),
        Column("test_top1", "test top-1", partial(accuracy_cell, found), True),
        Column("behind", "behind the leader", lambda g: _behind(beside(g)), True),
        Column("verdict", "verdict", verdict),
        Column("chance", f"chance to be within {margin_words(found.margin)}",
               lambda g: number(s.chance if (s := beside(g)) else None, share), True, True),
        Column("learning_rate_chosen", "learning rate", rate, True, True),
        Column("train_images_per_s", "train images/s",
               lambda g: speed_cell(g, "train_images_per_s"), True),
        Column("effective_images_per_s", "effective images/s",
               lambda g: speed_cell(g, "effective_images_per_s"), True, True),
        Column("fit_s", "fit", lambda g: speed_cell(g, "fit_s", "s"), True),
        Column("tune_s", "tuning", lambda g: speed_cell(g, "tune_s", "s"), True, True),
        Column("peak_bytes", "peak memory", lambda g: number(_peak(g), megabytes), True, True),
        Column("total_parameters", "parameters",
               lambda g: number(g.row["total_parameters"], "{:,}".format), True),
        Column("trainable_parameters", "trainable",
               lambda g: number(g.row["trainable_parameters"], "{:,}".format), True),
    ]  # fmt: skip
    return table_of(
        found.groups, columns, "policies", "Policy × backend",
        "Accuracy, speed and parameters of every policy in every backend. " + INTERVALS,
        {
            WORDS: bool(standing_of),
            "Speeds are geometric means over the runs. train images/s: whole steps. effective "
            "images/s: images of all epochs over all training, where a frozen part was computed "
            "once "
            "or the policy has phases; the two are never compared.": True,
            UNSTEADY_NOTE: any(map(is_unsteady, found.groups)),
            **_left_out(found.contests),
        },
        settings(found.groups),
    )  # fmt: skip


def _peak(group: SeedGroup) -> int | None:
    """Return the largest peak memory of the runs, of the device or of a worker on a CPU, in
    bytes."""
    place = "host" if group.row.spec.device == "cpu" else "device"
    return max((b for row in group.rows if (b := row[f"peak_{place}_bytes"])), default=None)


def front(groups: Sequence[SeedGroup]) -> set[SeedGroup]:
    """Return the seed groups of one data set that no other beats in both accuracy and time."""
    timed = [g for g in groups if g.row.result.fit_s and not is_unsteady(g)]
    return {
        g
        for g in timed
        if not any(
            other.scores.mean > g.scores.mean and (fit_ratio(g, other) or 2.0) <= 1.0
            for other in timed
        )
    }


def backbones_table(found: Findings) -> Table:
    """Return the choices of network and policy, the most accurate first; it has no rows if there is
    one backbone."""
    if len({group.row.spec.backbone for group in found.groups}) < 2:
        return Table("backbones", "", "", (), ())
    by_data = grouped(found.groups, lambda g: (g.test_set, g.machine, g.row.spec.backend))
    best = {g for same in by_data.values() for g in front(same)}
    ordered = sorted(
        found.groups, key=lambda g: (str(data_cell(g.row).sort), -g.scores.mean)
    )  # fmt: skip
    columns: list[Column[SeedGroup]] = [
        *group_columns(),
        Column("test_top1", "test top-1", partial(accuracy_cell, found), True),
        Column("fit_s", "fit", lambda g: speed_cell(g, "fit_s", "s"), True),
        Column("train_images_per_s", "train images/s",
               lambda g: speed_cell(g, "train_images_per_s"), True),
        Column("infer_images_per_s", "infer images/s",
               lambda g: speed_cell(g, "infer_images_per_s"), True),
        Column("total_parameters", "parameters",
               lambda g: number(g.row["total_parameters"], "{:,}".format), True),
        Column("front", "front", lambda g: text("on the front" if g in best else None)),
    ]  # fmt: skip
    return table_of(
        ordered, columns, "backbones", "Networks",
        "Networks and policies, the most accurate first for each data set. " + INTERVALS,
        {
            "on the front: on this data set, machine and backend no other choice was both more "
            "accurate and quicker to train. Differences within the intervals may be luck.": True,
        },
        settings(ordered),
    )  # fmt: skip


def backends_table(found: Findings) -> Table:
    """Return the comparisons of two backends in the same experiment on the same machine."""
    pairs = found.pairs

    def verdict(p: BackendPair) -> str:
        if p.why_not:
            return f"not compared: {p.why_not}"
        within = f"equal within {margin_words(p.margin)}"
        return within if p.verdict == "equal" else p.verdict

    def speed(p: BackendPair) -> str | None:
        if p.speed is None:
            return "unsteady" if is_unsteady(p.a) or is_unsteady(p.b) else None
        words = {"faster": f"{p.b.row.spec.backend} is faster",
                 "slower": f"{p.a.row.spec.backend} is faster",
                 "equal": f"equal within {EQUAL:.0%}", "open": "open"}  # fmt: skip
        return words[p.speed.verdict]

    columns: list[Column[BackendPair]] = [
        Column("data", "data, training images", lambda p: data_cell(p.a.row)),
        Column("backbone", "backbone", lambda p: text(p.a.row.spec.backbone)),
        Column("policy", "policy", lambda p: text(policy_variant(p.a))),
        Column("backends", "difference",
               lambda p: text(f"{p.b.row.spec.backend} − {p.a.row.spec.backend}")),
        Column("seeds", "seeds", lambda p: number(len(set(p.a.seeds) & set(p.b.seeds))), True),
        Column("top1_difference", "test top-1", lambda p: estimated(p.top1, points), True),
        Column("verdict", "accuracy", lambda p: text(verdict(p))),
        Column("speed_ratio", "speed, first / second",
               lambda p: estimated(p.speed.ratio if p.speed else None, times), True),
        Column("speed_verdict", "speed", lambda p: text(speed(p))),
        Column("speed_of", "measured by", lambda p: text(
            f"{p.speed.of}, {number_of(p.speed.pairs, 'pair')}" if p.speed else None)),
        Column("parity", "parity", lambda p: text(_parity(p))),
    ]  # fmt: skip
    return table_of(
        pairs, columns, "backends", "Keras against PyTorch",
        "The same experiment in two backends on one machine, compared image by image. " + INTERVALS,
        {
            f"differ: after correction for {number_of(len(pairs), 'pair')} (Holm). equal: the 90 % "
            f"interval lies within {margin_words(found.margin)}.": True,
            "speed above 1: the backend named first is faster. whole steps: pairs of runs, pooled "
            f"over all experiments with the same step; from {LEAST_PAIRS} pairs on by Wilcoxon's "
            "signed ranks. whole fits: without compilation, where a frozen part was computed once.":
                True,
            UNSTEADY_NOTE: any(is_unsteady(g) for p in pairs for g in (p.a, p.b)),
        },
        _settings_of_pairs(pairs),
    )  # fmt: skip


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


_Problem = tuple[tuple[str, ...], list[Row]]
"""What runs have in common that are not ok, and the runs."""


def problems_table(rows: Sequence[Row]) -> Table:
    """Return the table of runs that failed or were unavailable, with a row for each reason."""
    fields = ("status", "backbone", "policy", "backend")

    def problem(row: Row) -> tuple[str, ...]:
        failure = row.failure or {"kind": "", "message": ""}
        return *(row[field] for field in fields), failure["kind"], failure["message"]

    problems = list(grouped((row for row in rows if not row.is_ok), problem).items())

    def named(place: int) -> Callable[[_Problem], TableCell]:
        return lambda p: text(p[0][place])

    columns: list[Column[_Problem]] = [
        *(Column(name, name, named(place)) for place, name in enumerate(fields)),
        Column("runs", "runs", lambda p: number(len(p[1])), True),
        Column("kind", "kind", named(-2)),
        Column("reason", "reason", named(-1)),
        Column("run_id", "first run", lambda p: text(p[1][0]["run_id"])),
    ]
    return table_of(
        problems, columns, "failed", "Failed and unavailable", "Runs without a result, and why."
    )
