"""The table of the article's four cases: its policy beside the best one here."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.groups import Contest, policy_variant, question_of
from bench.analysis.rows import Row, grouped
from bench.catalog.policies import PRESCRIBED
from bench.report.format import listed, points
from bench.report.labels import settings
from bench.report.tables import model
from bench.report.tables.model import Line, Table, TableCell, TableColumn, figure, text

MOST_NAMES = 2
"""Most tied policies that a cell names; of more, it names the policies that are worse."""


def cases_table(contests: Sequence[Contest], rows: Sequence[Row]) -> Table:
    """Return a row for each case, network and backend; those without any successful run last."""
    in_cases = [c for c in contests if c.row.spec.case.number is not None]
    lost = grouped(
        (row for row in rows if not row.is_ok and row.spec.case.number is not None), question_of
    )
    answered = {question_of(c.row) for c in in_cases}
    missing = [failed for question, failed in lost.items() if question not in answered]
    names = settings([contest.groups[0] for contest in in_cases], by_policy=False)
    compared = sum(bool(c.comparisons) for c in in_cases)
    return model.table_of(
        [
            *(_line(c.row, lost.get(question_of(c.row), []), c) for c in in_cases),
            *(_line(failed[0], failed, None) for failed in missing),
        ],
        "cases",
        "The four cases",
        "The article's policy for each case beside the best one in these runs. ± and ranges in "
        "brackets are 95 % intervals.",
        {
            "The best policy was chosen on these same test images, so its accuracy is slightly too "
            "high. Several names mean a tie. A tie does not mean equal.": True,
            model.SCOPE: True,
            f"Each verdict is corrected for the comparisons of its own row, not for all {compared} "
            "rows that compare policies. Even if no policies differ, up to one row in twenty may "
            "name a better one.": compared > 1,
            **model.passed_over(contests),
        },
        [*names, *([""] * len(missing))],
    )


def _line(row: Row, lost: Sequence[Row], contest: Contest | None) -> Line:
    """Return the row of a question, given one of its runs, those that are not ok, and its contest:
    None if no run is ok."""
    case = row.spec.case.number
    prescribed = PRESCRIBED.get(case or 0)
    statuses = (r.result.status for r in lost if r.spec.policy.name == prescribed)
    failed = ", ".join(dict.fromkeys(statuses))
    absent = f"failed: {failed}" if failed else "not run"
    difference, verdict = text(None), "no run is ok"
    if contest:
        took_part = (*contest.groups, *contest.unpretrained)
        if any(c.row.spec.policy.name == prescribed for c in took_part):
            absent = "run with random weights"
        difference, verdict = _judged(contest, absent)
    ours = contest.prescribed if contest else None
    return {
        TableColumn("case", "case", True): figure(str(case), case),
        **model.common(row),
        TableColumn("backend", "backend"): text(row.spec.backend),
        TableColumn("prescribed", "article's"): text(prescribed),
        TableColumn("prescribed_top1", "its top-1", True):
            model.accuracy_of(ours) if ours else text(absent),
        TableColumn("verdict", "verdict"): text(verdict),
        TableColumn("best", "best here"): text(_named(contest) if contest else None),
        TableColumn("best_top1", "its top-1", True):
            model.accuracy_of(contest.groups[0] if contest else None),
        TableColumn("difference", "best − article's", True): difference,
    }  # fmt: skip


def _named(contest: Contest) -> str:
    """Return the name of the best policy, or of all that may be the best."""
    if contest.comparisons and not contest.is_decided:
        return f"{policy_variant(contest.groups[0])} is highest, not compared with all"
    names = [policy_variant(c) for c in contest.leaders]
    beaten = [policy_variant(c) for c in contest.groups if c not in contest.leaders]
    if len(names) <= MOST_NAMES or len(beaten) > MOST_NAMES:
        return " = ".join(names)
    tie = f"all tie but {listed(beaten)}" if beaten else f"all {len(names)} tie"
    return f"{tie}; highest: {names[0]}"


def _judged(contest: Contest, absent: str) -> tuple[TableCell, str]:
    """Return the difference between the best policy and the article's, and the verdict; ``absent``
    says why the article's may be absent."""
    best, ours, none = contest.groups[0], contest.prescribed, text(None)
    if ours is None:
        return none, f"the article's policy: {absent}"
    if not contest.comparisons:
        return none, "no other policy was run"
    if contest.shows_nothing:
        return none, f"{contest.shows_nothing}: meaningless"
    better = contest.better_than(ours)
    if not contest.is_decided and not better:
        return none, f"not comparable: {', '.join(contest.why_not)}"
    if ours is best:
        if contest.is_won:
            second = contest.groups[1]
            by = contest.between(best, second).over(second)
            more = f", {points(by)} over {policy_variant(second)}" if by else ""
            return none, f"the article's is best{more}"
        verdicts = [contest.between(best, c).verdict for c in contest.leaders[1:]]
        return none, "tie" if "tie" in verdicts else "tie after correction"
    found = contest.between(best, ours)
    e, words = found.over(ours), str(found.verdict)
    if better and better[0] is best:
        words = "another is better"
    elif better:
        by = contest.between(better[0], ours).over(ours)
        words = f"{policy_variant(better[0])} is better" + (f", {points(by)}" if by else "")
    return model.estimated(e), words
