"""The tables of a report besides that of its runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from bench.analysis.findings import BackendPair, Findings
from bench.analysis.groups import Comparison, Contest, SeedGroup, policy_variant, settings_of
from bench.analysis.rows import Row
from bench.analysis.speed import is_unsteady
from bench.report.format import ABSENT, count, megabytes, number_of, places, points, times
from bench.report.labels import HASH_DIGITS
from bench.report.notes import at_the_edge
from bench.report.tables.cases import cases_table
from bench.report.tables.cost import cost_table
from bench.report.tables.model import (
    COMMON,
    INTERVALS,
    Table,
    TableCell,
    TableColumn,
    accuracy_of,
    common,
    data_of,
    estimated,
    figure,
    passed_over,
    seeds_of,
    text,
    with_settings,
)
from bench.report.tables.speeds import (
    SPEED_NOTE,
    UNSTEADY_NOTE,
    fit_cell,
    rate_cells,
    speed_verdict,
)


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
    rival = {id(group): contest for contest in contests for group in contest.groups}
    rows = []
    for group in groups:
        row = group.row
        rows.append(
            [
                *common(row),
                text(policy_variant(group)),
                text(row.spec.backend),
                seeds_of(group),
                accuracy_of(group),
                *_beside_best(group, rival.get(id(group))),
                *(_share(group, field) for field in SHARES),
                _mean(group, "test_calibration_error", "{:.1%}"),
                _mean(group, "test_loss", "{:.3f}"),
                *rate_cells(group),
                fit_cell(group),
                _bytes(group),
                figure(count(row.result.total_parameters), row.result.total_parameters),
                figure(
                    count(row.result.trainable_parameters),
                    row.result.trainable_parameters,
                    row.result.trainable_parameters,
                ),
            ]
        )
    made = Table(
        "policies",
        "Policy × backend",
        "Accuracy, speed, memory and parameters of every policy in every backend. " + INTERVALS,
        (
            *COMMON,
            TableColumn("policy", "policy"),
            TableColumn("backend", "backend"),
            TableColumn("seeds", "seeds", True),
            TableColumn("test_top1", "test top-1", True),
            TableColumn("beside_best", "beside the best policy"),
            TableColumn("beside_best_verdict", "verdict"),
            TableColumn("test_balanced_accuracy", "balanced accuracy", True),
            TableColumn("test_macro_f1", "macro F1", True),
            TableColumn("test_calibration_error", "calibration error", True),
            TableColumn("test_loss", "log loss", True),
            TableColumn("train_images_per_s", "train images/s", True),
            TableColumn("effective_images_per_s", "effective images/s", True),
            TableColumn("fit_s", "fit", True),
            TableColumn("peak_bytes", "peak memory", True),
            TableColumn("total_parameters", "parameters", True),
            TableColumn("trainable_parameters", "trainable", True),
        ),
        rows,
        (
            SPEED_NOTE,
            *notes_of(groups),
            *at_the_edge(groups),
            *_families(contests),
            *passed_over(contests),
        ),
    )
    return with_settings(made, groups)


SHARES = ("test_balanced_accuracy", "test_macro_f1")


def notes_of(groups: Sequence[SeedGroup]) -> list[str]:
    """Return notes on values of this table that are easily misread."""
    notes = [UNSTEADY_NOTE] if any(is_unsteady(group) for group in groups) else []
    alike = ("test_balanced_accuracy", "test_top1")
    same = [[row[f] for row in c.rows] for c in groups for f in alike]
    if same and all(
        a is not None and b is not None and abs(a - b) < 1e-9
        for one, other in zip(same[::2], same[1::2], strict=True)
        for a, b in zip(one, other, strict=True)
    ):
        notes.append(
            "balanced accuracy equals top-1 in every row here, as it does if all classes have "
            "equally many test images."
        )
    peaks = [[row[_peak(group)] for row in group.rows] for group in groups]
    without = sum(all(peak is None for peak in found) for found in peaks)
    if peaks:
        notes.append(
            "peak memory: of the device, or of the worker process on a CPU. The largest of the "
            "runs that have it."
            + (
                f" {ABSENT} in {without} of {number_of(len(peaks), 'row')}: earlier runs had left "
                "over a tenth of it in the process."
                if without
                else ""
            )
        )
    return notes


def _peak(group: SeedGroup) -> str:
    return "peak_host_bytes" if group.row.spec.device == "cpu" else "peak_device_bytes"


def _families(contests: Sequence[Contest]) -> list[str]:
    most = max((c.comparisons[0].of for c in contests if c.comparisons), default=0)
    if most < 2:
        return []
    return [
        f"Policies are compared in pairs, up to {most} per question (one data set, network and "
        "backend). Verdicts are corrected for that number (Holm). 'tie after correction': the "
        "uncorrected interval excludes zero."
    ]


def _beside_best(group: SeedGroup, contest: Contest | None) -> list[TableCell]:
    if contest is None or not contest.comparisons:
        return [text(None), text(None)]
    best = contest.groups[0]
    if group is best:
        alone = "best" if contest.is_won else "highest, not alone"
        return [text(None), text(alone if contest.is_decided else "highest, not compared with all")]
    found = contest.between(best, group)
    e = found.over(best)
    if e is None:
        return [text(None), text(f"not comparable: {found.why_not}")]
    words: str = "worse" if found.verdict == "real" else found.verdict
    better = contest.better_than(group)
    if better and found.verdict != "real":
        words = f"{words}, worse than {policy_variant(better[0])}"
    return [estimated(points(e), e), text(words)]


def _mean(group: SeedGroup, field: str, form: str) -> TableCell:
    value = group.mean(field)
    return text(None) if value is None else figure(form.format(value), value)


def _share(group: SeedGroup, field: str) -> TableCell:
    """Return a mean share, rounded as the accuracy is: its uncertainty is similar."""
    half = group.top1.half_width
    return _mean(group, field, f"{{:.{places(100 * half) if half else 1}%}}")


def _bytes(group: SeedGroup) -> TableCell:
    """Return the largest peak memory of the runs that have it."""
    field = _peak(group)
    values = [row[field] for row in group.rows if row[field] is not None]
    value = max(values) if values else None
    return figure(megabytes(value), value)


OF_A_BACKBONE = frozenset({
    "backbone", "code_sha256", "network_digest", "boundary", "policy_digest", "weights",
    "weights_sha256", "reading_digest", "seed",
})  # fmt: skip
"""Fields that may differ within a row of ``backbones_table``."""


def backbones_table(groups: Sequence[SeedGroup]) -> Table:
    """Return the table of backbones under each policy; it has no rows if there is one backbone."""
    codes: dict[str, set[str | None]] = {}
    for group in groups:
        codes.setdefault(group.row.spec.backbone, set()).add(group.row.spec.code_sha256)

    def network(group: SeedGroup) -> str:
        """Return its name, with a hash of the code if a user's network changed its code."""
        name, code = group.row.spec.backbone, group.row.spec.code_sha256 or ""
        return f"{name} {code[:HASH_DIGITS]}" if len(codes[name]) > 1 else name

    names = list(dict.fromkeys(map(network, groups)))
    lines: dict[tuple[Hashable, ...], dict[str, SeedGroup]] = {}
    for group in groups:
        key = (policy_variant(group), *settings_of(group.row, OF_A_BACKBONE))
        lines.setdefault(key, {})[network(group)] = group
    shown = [found for found in lines.values() if len(found) > 1]
    rows = [
        [
            *(text(part) for part in (data_of(one.row), policy_variant(one), one.row.spec.backend)),
            *(accuracy_of(found[n]) if n in found else text(None) for n in names),
        ]
        for found in shown
        for one in [next(iter(found.values()))]
    ]
    made = Table(
        "backbones",
        "Backbone × policy",
        "Test top-1 of each network under each policy. " + INTERVALS,
        (
            TableColumn("data", "data, training images"),
            TableColumn("policy", "policy"),
            TableColumn("backend", "backend"),
            *(TableColumn(f"{name}_test_top1", name, True) for name in names),
        ),
        rows,
        ("Networks are not compared in pairs here. If intervals overlap, there is no winner.",),
    )
    return with_settings(made, [next(iter(found.values())) for found in shown])


def backends_table(pairs: Sequence[BackendPair]) -> Table:
    """Return the comparisons of two backends in the same experiment on the same machine."""
    rows = []
    for pair in pairs:
        found, speed, a, b = pair.top1, pair.speed, pair.a.row, pair.b.row
        e = found.top1
        common_seeds = len(set(pair.a.seeds) & set(pair.b.seeds))
        rows.append(
            [
                *common(a),
                text(policy_variant(found.a)),
                text(f"{b.spec.backend} − {a.spec.backend}"),
                figure(str(common_seeds), common_seeds),
                text(None) if e is None else estimated(points(e), e),
                text(_verdict(found)),
                text(None) if speed.ratio is None else estimated(times(speed.ratio), speed.ratio),
                text(speed_verdict(speed, a.spec.backend, b.spec.backend) or speed.of),
                text(speed.of),
                text("shown" if pair.is_proved else "not shown"),
            ]
        )
    known = [sum(pair.top1.p is not None for pair in pairs),
             sum(pair.speed.p is not None for pair in pairs)]  # fmt: skip
    many = (
        f". {known[0]} comparisons of accuracy and {known[1]} of speed, each corrected for their "
        "number (Holm)"
        if max(known) > 1
        else ""
    )
    made = Table(
        "backends",
        "Keras against PyTorch",
        f"The same experiment in two backends on one machine, compared image by image{many}. "
        + INTERVALS,
        (
            *COMMON,
            TableColumn("policy", "policy"),
            TableColumn("backends", "difference"),
            TableColumn("seeds", "seeds", True),
            TableColumn("top1_difference", "test top-1", True),
            TableColumn("verdict", "accuracy"),
            TableColumn("speed_ratio", "speed, first / second", True),
            TableColumn("speed_verdict", "speed"),
            TableColumn("speed_of", "measured by"),
            TableColumn("parity", "parity"),
        ),
        rows,
        (
            "speed above 1: the backend named first is faster. With fewer than three seeds, the "
            "interval covers these runs alone.",
            "whole steps: median windows of whole steps. whole fits: time of the fit, used if "
            "values of a frozen part were computed once or there were too few steps. no interval: "
            "runs share those values, or there are too few runs and windows.",
            *([UNSTEADY_NOTE] if any(p.speed.of == "unsteady" for p in pairs) else []),
        ),
    )
    return with_settings(made, [pair.a for pair in pairs], beside=[pair.b for pair in pairs])


def _verdict(found: Comparison) -> str:
    if found.why_not:
        return f"not comparable: {found.why_not}"
    return "differ" if found.verdict == "real" else found.verdict


def problems_table(rows: Sequence[Row]) -> Table:
    """Return the table of runs that failed or were unavailable, with a row for each reason."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if not row.is_ok:
            failure = row["failure"] or {}
            why, kind = (failure.get(part, "") for part in ("message", "kind"))
            key = (
                row.result.status,
                why,
                row.spec.backbone,
                row.spec.policy.name,
                row.spec.backend,
                kind,
            )
            found.setdefault(key, []).append(row)
    lines = [
        [
            *(text(part) for part in (key[0], key[2], key[3], key[4])),
            figure(str(len(group)), len(group)),
            text(key[5]),
            text(key[1]),
            text(group[0]["run_id"]),
        ]
        for key, group in found.items()
    ]
    return Table(
        "failed",
        "Failed and unavailable",
        "Runs without a result, and why.",
        (
            TableColumn("status", "status"),
            TableColumn("backbone", "backbone"),
            TableColumn("policy", "policy"),
            TableColumn("backend", "backend"),
            TableColumn("runs", "runs", True),
            TableColumn("kind", "kind"),
            TableColumn("reason", "reason"),
            TableColumn("run_id", "first run"),
        ),
        lines,
    )
