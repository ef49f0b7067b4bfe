"""The tables of a report besides that of its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from bench.analysis.findings import BackendPair, Findings
from bench.analysis.groups import Contest, SeedGroup, policy_variant, settings_of
from bench.analysis.rows import Row, grouped
from bench.analysis.speed import is_unsteady
from bench.errors import number_of
from bench.report.format import ABSENT, megabytes, places, times
from bench.report.labels import HASH_DIGITS, settings
from bench.report.notes import at_the_edge
from bench.report.tables import model, speeds
from bench.report.tables.cases import cases_table
from bench.report.tables.cost import cost_table
from bench.report.tables.model import INTERVALS, Table, TableCell, TableColumn, figure, text


def standard_set(found: Findings) -> list[Table]:
    """Return the standard tables that have rows."""
    tables = [
        cases_table(found.contests, found.rows),
        policies_table(found.groups, found.contests),
        backbones_table(found.groups),
        backends_table(found.pairs),
        cost_table(found.groups),
        problems_table(found.rows),
    ]
    return [table for table in tables if table.rows]


def policies_table(groups: Sequence[SeedGroup], contests: Sequence[Contest]) -> Table:
    """Return the table of every policy in every backend."""
    contest_of = {group: contest for contest in contests for group in contest.groups}
    lines = []
    for group in groups:
        seeds = len(group.rows)
        some = f"{seeds} of {seeds + group.lost}" if group.lost else str(seeds)
        beside, verdict = _beside_best(group, contest_of.get(group))
        whole, effective = speeds.rate_cells(group)
        peak = max((peak for peak in _peaks(group) if peak is not None), default=None)
        # Shares are rounded as the accuracy is: their uncertainty is similar.
        half = group.top1.half_width
        share = f"{{:.{places(100 * half) if half else 1}%}}"
        lines.append(
            {
                **model.common(group.row),
                **model.policy_and_backend(group),
                TableColumn("seeds", "seeds", True): figure(some, seeds),
                TableColumn("test_top1", "test top-1", True): model.accuracy_of(group),
                TableColumn("beside_best", "beside the best policy"): beside,
                TableColumn("beside_best_verdict", "verdict"): text(verdict),
                **{
                    TableColumn(field, heading, True): model.number(group.mean(field), form.format)
                    for field, heading, form in (
                        ("test_balanced_accuracy", "balanced accuracy", share),
                        ("test_macro_f1", "macro F1", share),
                        ("test_calibration_error", "calibration error", "{:.1%}"),
                        ("test_loss", "log loss", "{:.3f}"),
                    )
                },
                TableColumn("train_images_per_s", "train images/s", True): whole,
                TableColumn("effective_images_per_s", "effective images/s", True): effective,
                TableColumn("fit_s", "fit", True): speeds.fit_cell(group),
                TableColumn("peak_bytes", "peak memory", True): model.number(peak, megabytes),
                TableColumn("total_parameters", "parameters", True):
                    model.number(group.row["total_parameters"], "{:,}".format),
                TableColumn("trainable_parameters", "trainable", True):
                    model.number(group.row["trainable_parameters"], "{:,}".format),
            }
        )  # fmt: skip
    return model.table_of(
        lines,
        "policies",
        "Policy × backend",
        "Accuracy, speed, memory and parameters of every policy in every backend. " + INTERVALS,
        _notes(groups, contests),
        settings(groups),
    )


def _notes(groups: Sequence[SeedGroup], contests: Sequence[Contest]) -> dict[str, object]:
    """Return notes on values of ``policies_table`` that are easily misread, and on which policies
    were compared."""
    results = [row.result for group in groups for row in group.rows]
    balanced = ((result.test_balanced_accuracy, result.test_top1) for result in results)
    without = sum(all(peak is None for peak in _peaks(group)) for group in groups)
    lacking = (
        f" {ABSENT} in {without} of {number_of(len(groups), 'row')}: earlier runs had left over a "
        "tenth of it in the process."
    )
    most = max((c.comparisons[0].of for c in contests if c.comparisons), default=0)
    return {
        speeds.SPEED_NOTE: True,
        speeds.UNSTEADY_NOTE: any(map(is_unsteady, groups)),
        "balanced accuracy equals top-1 in every row here, as it does if all classes have equally "
        "many test images.": all(
            a is not None and b is not None and abs(a - b) < 1e-9 for a, b in balanced
        ),
        "peak memory: of the device, or of the worker process on a CPU. The largest of the runs "
        f"that have it.{lacking if without else ''}": True,
        **dict.fromkeys(at_the_edge(groups), True),
        f"Policies are compared in pairs, up to {most} per question (one data set, network and "
        "backend). Verdicts are corrected for that number (Holm). 'tie after correction': the "
        "uncorrected interval excludes zero.": most > 1,
        **model.passed_over(contests),
    }


def _peaks(group: SeedGroup) -> list[int | None]:
    """Return the peak memory of each run, in bytes."""
    place = "host" if group.row.spec.device == "cpu" else "device"
    return [row[f"peak_{place}_bytes"] for row in group.rows]


def _beside_best(group: SeedGroup, contest: Contest | None) -> tuple[TableCell, str | None]:
    """Return the difference from the best policy of the contest, and the verdict."""
    if contest is None or not contest.comparisons:
        return text(None), None
    best = contest.groups[0]
    if group is best:
        alone = "best" if contest.is_won else "highest, not alone"
        return text(None), alone if contest.is_decided else "highest, not compared with all"
    found = contest.between(best, group)
    e = found.over(best)
    if e is None:
        return text(None), f"not comparable: {found.why_not}"
    is_worse, better = found.verdict == "real", contest.better_than(group)
    more = f", worse than {policy_variant(better[0])}" if better and not is_worse else ""
    return model.estimated(e), "worse" if is_worse else f"{found.verdict}{more}"


OF_A_BACKBONE = frozenset({
    "backbone", "code_sha256", "network_digest", "boundary", "policy_digest", "weights",
    "weights_sha256", "reading_digest", "seed",
})  # fmt: skip
"""Fields that may differ within a row of ``backbones_table``."""


def backbones_table(groups: Sequence[SeedGroup]) -> Table:
    """Return the table of backbones under each policy; it has no rows if there is one backbone."""
    specs = [group.row.spec for group in groups]
    codes = Counter(name for name, _ in {(spec.backbone, spec.code_sha256) for spec in specs})

    def network(group: SeedGroup) -> str:
        """Return its name, with a hash of the code if a user's network changed its code."""
        name, code = group.row.spec.backbone, group.row.spec.code_sha256 or ""
        return f"{name} {code[:HASH_DIGITS]}" if codes[name] > 1 else name

    def experiment(group: SeedGroup) -> Hashable:
        return policy_variant(group), settings_of(group.row, OF_A_BACKBONE)

    names = dict.fromkeys(map(network, groups))
    same = grouped(groups, experiment).values()
    by_network = [{network(group): group for group in members} for members in same]
    shown = [found for found in by_network if len(found) > 1]
    first = [next(iter(found.values())) for found in shown]
    return model.table_of(
        [
            {
                TableColumn("data", "data, training images"):
                    text(f"{one.row.dataset.label}, {one.row.dataset.train_images:,}"),
                **model.policy_and_backend(one),
                **{TableColumn(f"{name}_test_top1", name, True): model.accuracy_of(found.get(name))
                   for name in names},
            }
            for one, found in zip(first, shown, strict=True)
        ],
        "backbones",
        "Backbone × policy",
        "Test top-1 of each network under each policy. " + INTERVALS,
        {"Networks are not compared in pairs here. If intervals overlap, there is no winner.":
             True},
        settings(first),
    )  # fmt: skip


def backends_table(pairs: Sequence[BackendPair]) -> Table:
    """Return the comparisons of two backends in the same experiment on the same machine."""
    lines = []
    for pair in pairs:
        verdict: str = "differ" if pair.top1.verdict == "real" else pair.top1.verdict
        if pair.top1.why_not:
            verdict = f"not comparable: {pair.top1.why_not}"
        a, b = pair.a.row.spec.backend, pair.b.row.spec.backend
        seeds = len(set(pair.a.seeds) & set(pair.b.seeds))
        lines.append(
            {
                **model.common(pair.a.row),
                TableColumn("policy", "policy"): text(policy_variant(pair.a)),
                TableColumn("backends", "difference"): text(f"{b} − {a}"),
                TableColumn("seeds", "seeds", True): model.number(seeds),
                TableColumn("top1_difference", "test top-1", True): model.estimated(pair.top1.top1),
                TableColumn("verdict", "accuracy"): text(verdict),
                TableColumn("speed_ratio", "speed, first / second", True):
                    model.estimated(pair.speed.ratio, times),
                TableColumn("speed_verdict", "speed"):
                    text(speeds.speed_verdict(pair) or pair.speed.of),
                TableColumn("speed_of", "measured by"): text(pair.speed.of),
                TableColumn("parity", "parity"): text("shown" if pair.is_proved else "not shown"),
            }
        )  # fmt: skip
    accurate = sum(pair.top1.p is not None for pair in pairs)
    timed = sum(pair.speed.p is not None for pair in pairs)
    many = (
        f". {accurate} comparisons of accuracy and {timed} of speed, each corrected for their "
        "number (Holm)"
    )
    return model.table_of(
        lines,
        "backends",
        "Keras against PyTorch",
        "The same experiment in two backends on one machine, compared image by image"
        f"{many if max(accurate, timed) > 1 else ''}. {INTERVALS}",
        {
            "speed above 1: the backend named first is faster. With fewer than three seeds, the "
            "interval covers these runs alone.": True,
            "whole steps: median windows of whole steps. whole fits: time of the fit, used if "
            "values of a frozen part were computed once or there were too few steps. no interval: "
            "runs share those values, or there are too few runs and windows.": True,
            speeds.UNSTEADY_NOTE: any(pair.speed.of == "unsteady" for pair in pairs),
        },
        _settings_of_pairs(pairs),
    )


def _settings_of_pairs(pairs: Sequence[BackendPair]) -> list[str]:
    """Return the settings of each pair, with those of the second backend if they differ."""
    both = zip(settings([p.a for p in pairs]), settings([p.b for p in pairs]), pairs, strict=True)
    return [
        one if one == other
        else "; ".join(filter(None, (one, other and f"{pair.b.row.spec.backend}: {other}")))
        for one, other, pair in both
    ]  # fmt: skip


def problems_table(rows: Sequence[Row]) -> Table:
    """Return the table of runs that failed or were unavailable, with a row for each reason."""

    fields = ("status", "backbone", "policy", "backend")

    def problem(row: Row) -> tuple[str, ...]:
        failure = row.failure or {"kind": "", "message": ""}
        return *(row[field] for field in fields), failure["kind"], failure["message"]

    problems = grouped((row for row in rows if not row.is_ok), problem)
    return model.table_of(
        [
            {
                **{TableColumn(field, field): text(same[0][field]) for field in fields},
                TableColumn("runs", "runs", True): model.number(len(same)),
                TableColumn("kind", "kind"): text(kind),
                TableColumn("reason", "reason"): text(reason),
                TableColumn("run_id", "first run"): text(same[0]["run_id"]),
            }
            for (*_, kind, reason), same in problems.items()
        ],
        "failed",
        "Failed and unavailable",
        "Runs without a result, and why.",
        notes={},
    )
