"""The table of the article's four cases: its policy beside the best one here."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from bench.analysis.groups import Contest, SeedGroup, policy_variant, question_of
from bench.analysis.rows import Row
from bench.catalog.policies import PRESCRIBED
from bench.report.format import listed, points
from bench.report.tables.model import (
    COMMON,
    SCOPE,
    Table,
    TableCell,
    TableColumn,
    accuracy_of,
    common,
    estimated,
    figure,
    passed_over,
    setting_place,
    text,
    with_settings,
)

MOST_NAMES = 2
"""Most tied policies that a cell names; of more, it names the policies that are worse."""
BEST = (
    "The best policy was chosen on these same test images, so its accuracy is slightly too high. "
    "Several names mean a tie. A tie does not mean equal."
)
Lost = dict[tuple[Hashable, ...], list[Row]]
"""Question → its runs that are not ok."""


def cases_table(contests: Sequence[Contest], rows: Sequence[Row]) -> Table:
    """Return a row for each case, network and backend; those without any successful run last."""
    lost: Lost = {}
    for row in rows:
        if not row.is_ok and row.spec.case.number is not None:
            lost.setdefault(question_of(row), []).append(row)
    in_cases = [c for c in contests if c.row.spec.case.number is not None]
    answered = {question_of(c.row) for c in in_cases}
    made = with_settings(
        Table(
            "cases",
            "The four cases",
            "The article's policy for each case beside the best one in these runs. ± and ranges in "
            "brackets are 95 % intervals.",
            (
                TableColumn("case", "case", True),
                *COMMON,
                TableColumn("backend", "backend"),
                TableColumn("prescribed", "article's"),
                TableColumn("prescribed_top1", "its top-1", True),
                TableColumn("verdict", "verdict"),
                TableColumn("best", "best here"),
                TableColumn("best_top1", "its top-1", True),
                TableColumn("difference", "best − article's", True),
            ),
            [_line(contest, lost) for contest in in_cases],
            (BEST, SCOPE, *_beyond(in_cases), *passed_over(contests)),
        ),
        [contest.groups[0] for contest in in_cases],
        by_policy=False,
    )
    missing = [_empty(group) for key, group in lost.items() if key not in answered]
    if any(column.name == "setting" for column in made.columns):
        place = setting_place(made.columns)
        missing = [[*line[:place], text(None), *line[place:]] for line in missing]
    return Table(
        made.name, made.title, made.caption, made.columns, [*made.rows, *missing], made.notes
    )


def _beyond(contests: Sequence[Contest]) -> list[str]:
    """Return a note on what the correction for multiple comparisons does not cover."""
    compared = [c for c in contests if c.comparisons]
    if len(compared) < 2:
        return []
    return [
        "Each verdict is corrected for the comparisons of its own row, not for all "
        f"{len(compared)} rows that compare policies. Even if no policies differ, up to one row in "
        "twenty may name a better one."
    ]


def _line(contest: Contest, lost: Lost) -> list[TableCell]:
    best, ours = contest.groups[0], contest.prescribed
    failed = _failed(lost.get(question_of(contest.row), []))
    absent = f"failed: {failed}" if failed else "not run"
    if any(
        c.row.spec.policy.name == _prescribed(c.row)
        for c in (*contest.groups, *contest.unpretrained)
    ):
        absent = "run with random weights"
    difference, verdict = _judged(contest, best, ours, absent)
    return [
        *_head(contest.row),
        text(absent) if ours is None else accuracy_of(ours),
        verdict,
        text(_named(contest)),
        accuracy_of(best),
        difference,
    ]


def _named(contest: Contest) -> str:
    """Return the name of the best policy, or of all that may be the best."""
    if contest.comparisons and not contest.is_decided:
        return f"{policy_variant(contest.groups[0])} is highest, not compared with all"
    names = [policy_variant(c) for c in contest.leaders]
    if len(names) <= MOST_NAMES:
        return " = ".join(names)
    beaten = [policy_variant(c) for c in contest.groups if c not in contest.leaders]
    if not beaten:
        return f"all {len(names)} tie; highest: {names[0]}"
    if len(beaten) <= MOST_NAMES:
        return f"all tie but {listed(beaten)}; highest: {names[0]}"
    return " = ".join(names)


def _head(row: Row) -> list[TableCell]:
    case = row.spec.case.number
    start = [figure(str(case), case), *common(row)]
    return [*start, text(row.spec.backend), text(_prescribed(row))]


def _prescribed(row: Row) -> str | None:
    """Return the article's policy for a row's case; None if it is of no case."""
    return PRESCRIBED.get(row.spec.case.number or 0)


def _failed(rows: Sequence[Row]) -> str:
    """Return the statuses of failed runs of the article's policy; empty if there are none."""
    statuses = (row.result.status for row in rows if row.spec.policy.name == _prescribed(row))
    return ", ".join(dict.fromkeys(statuses))


def _empty(rows: Sequence[Row]) -> list[TableCell]:
    """Return the row of a question without a successful run."""
    row = rows[0]
    failed = _failed(rows)
    line = [*_head(row), text(f"failed: {failed}" if failed else "not run")]
    ends = [text("no run is ok"), text(None), text(None), text(None)]
    return [*line, *ends]


def _judged(
    contest: Contest, best: SeedGroup, ours: SeedGroup | None, absent: str
) -> list[TableCell]:
    if ours is None:
        return [text(None), text(f"the article's policy: {absent}")]
    if not contest.comparisons:
        return [text(None), text("no other policy was run")]
    if contest.shows_nothing:
        return [text(None), text(f"{contest.shows_nothing}: meaningless")]
    better = contest.better_than(ours)
    if not contest.is_decided and not better:
        return [text(None), text(f"not comparable: {', '.join(contest.why_not)}")]
    if ours is best:
        if contest.is_won:
            second = contest.groups[1]
            by = contest.between(best, second).over(second)
            more = f", {points(by)} over {policy_variant(second)}" if by else ""
            return [text(None), text(f"the article's is best{more}")]
        verdicts = [contest.between(best, c).verdict for c in contest.leaders[1:]]
        return [text(None), text("tie" if "tie" in verdicts else "tie after correction")]
    found = contest.between(best, ours)
    e = found.over(ours)
    words: str = found.verdict
    if better:
        words = "another is better"
        if better[0] is not best:
            by = contest.between(better[0], ours).over(ours)
            words = f"{policy_variant(better[0])} is better" + (f", {points(by)}" if by else "")
    return [text(None) if e is None else estimated(points(e), e), text(words)]
