"""Two results folders beside each other: two machines, two versions, before and after.

Runs match where their specs are the same, seed included: the same ``run_id``, or one that differs
in the device alone, which is another experiment in speed and is said to be one. What may differ is
the environment, and where that is the same too, they are one run and its repetition. Of a folder
that holds a run in several environments, one that the other folder does not hold goes first (a
folder that was copied before the upgrade); where that leaves more than one, nothing is compared.
All differences go from the first folder to the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.cells import SIGNIFICANT, Cell, contestant
from bench.report.differences import environment_table, told_environment
from bench.report.matching import Unmatched, match
from bench.report.measures import MEASURES, Compared, Measure
from bench.report.nearest import nearest, told_nearest
from bench.report.rows import DIFFERING, rows_of
from bench.report.speeds import Speed, is_unsteady
from bench.report.statistics import holm
from bench.report.table_model import Cell as TableCell
from bench.report.table_model import Column, Table, estimated, figure, text
from bench.report.twins import Row
from bench.report.words import listed, number_of
from bench.store import StoredRun

Names = tuple[str, str]
INTERVALS = (
    "Ranges in brackets are 95 % intervals. With three seeds or more they speak of the recipes. "
    "With fewer, those of accuracy speak of these trained models alone, on other test images; "
    "those of speed are of the measured windows of these very runs, and a run on another day may "
    "lie outside. A difference is real where its interval does not hold 'none' and its p value, "
    f"corrected for all comparisons of its table (Holm), is below {round(SIGNIFICANT, 6):g}."
)


@dataclass(frozen=True)
class SideBySide:
    """What ``report A B`` says."""

    tables: list[Table]
    """Accuracy, training speed and fit time, then environments and what was not compared; those
    that have rows."""
    sentences: list[str]
    """What changed, in words."""

    def as_json(self) -> dict[str, Any]:
        """For the page."""
        return {"tables": [t.as_json() for t in self.tables], "sentences": self.sentences}


Both = tuple[Sequence[StoredRun], Sequence[StoredRun]]
"""Runs of either folder."""


def side_by_side(
    a: Sequence[StoredRun], b: Sequence[StoredRun], names: Names, whole: Both | None = None
) -> SideBySide:
    """What differs between two results folders.

    Args:
        a: Runs of the first.
        b: Runs of the second.
        names: Of the folders.
        whole: All runs of either, where ``a`` and ``b`` were chosen from them: seeds that failed
            are counted among all.
    """
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    pairs, unmatched = match(a, b)
    first, second = whole or (a, b)
    cells = _experiments(pairs, (first, second))
    compared = _compare(cells)
    near = [] if pairs else nearest(_alone(a, b), _alone(b, a))
    around = pairs or [(n.a, n.b) for n in near if n.a.spec.backend == n.b.spec.backend]
    tables = [
        *(_measure_table(measure, cells, compared, names) for measure in MEASURES),
        environment_table(around, names),
        _unmatched_table(unmatched, names),
    ]
    sentences = [
        _counted(pairs, len(cells), unmatched, names),
        *told_nearest(near, names),
        *_devices(around, names),
        *told_environment(around),
        *_repeated(pairs, names),
        *(said for m in MEASURES if (said := _told(m, compared, names))),
        *_unsteady(cells),
        *_limits(compared),
    ]
    return SideBySide([table for table in tables if table.rows], sentences)


def _alone(runs: Sequence[StoredRun], others: Sequence[StoredRun]) -> list[StoredRun]:
    """Those of a spec that is not among others."""
    there = {run.result.run_id for run in others}
    return [run for run in runs if run.result.run_id not in there]


def _devices(pairs: Sequence[tuple[StoredRun, StoredRun]], names: Names) -> list[str]:
    """What is to be known of runs that differ in the device."""
    found = Counter((a.spec.device, b.spec.device) for a, b in pairs)
    moved = {both: count for both, count in found.items() if both[0] != both[1]}
    if not moved:
        return []
    told = listed([f"{number_of(n, 'run')} on {x} and {y}" for (x, y), n in moved.items()])
    return [
        f"'{names[0]}' and '{names[1]}' ran on different devices ({told}): in accuracy that is the "
        "same experiment, in speed another one, whose ratios speak of the devices first."
    ]


Experiment = tuple[str, str]
"""A ``run_id``, whatever the seed, and an environment."""


def _experiment_of(run: StoredRun) -> Experiment:
    return run.spec.model_copy(update={"seed": 0}).run_id, run.result.environment_id


def _lost(runs: Sequence[StoredRun]) -> Counter[Experiment]:
    """Seeds that are not ok: those that are left may be the lucky ones."""
    return Counter(_experiment_of(run) for run in runs if run.result.status != "ok")


def _experiments(
    pairs: Sequence[tuple[StoredRun, StoredRun]], whole: Both
) -> list[tuple[Cell, Cell]]:
    """Pairs that differ in the seed alone, taken together, in the order of a report. Rows are made
    of all runs of a folder: what is unsteady shows beside the others."""
    partner = {_key(first): second for first, second in pairs}
    runs = {_key(first): first for first, _ in pairs}
    here, there = ({_key_of(row): row for row in rows_of(side)} for side in whole)
    lost = _lost(whole[0]), _lost(whole[1])
    groups: dict[tuple[Experiment, Experiment], list[Row]] = {}
    for key, row in here.items():
        if key not in runs:
            continue
        both = _experiment_of(runs[key]), _experiment_of(partner[key])
        groups.setdefault(both, []).append(row)
    cells = []
    for (one, other), rows in groups.items():
        rows.sort(key=lambda row: row["seed"])
        keys = [_key_of(row) for row in rows]
        others = tuple(partner[key] for key in keys)
        first = Cell(tuple(rows), tuple(runs[key] for key in keys), lost[0][one])
        theirs = tuple(there[_key(run)] for run in others)
        cells.append((first, Cell(theirs, others, lost[1][other])))
    return cells


def _repeated(pairs: Sequence[tuple[StoredRun, StoredRun]], names: Names) -> list[str]:
    """What the rest of the page shows of runs that both folders have."""
    again = sum(_key(a) == _key(b) for a, b in pairs)
    if not again:
        return []
    return [
        f"{number_of(again, 'run')} of the same environment "
        f"{'is' if again == 1 else 'are'} in both folders: everything but this comparison shows "
        f"what '{names[1]}' has of {'it' if again == 1 else 'them'}."
    ]


def _key(run: StoredRun) -> tuple[str, str]:
    return run.result.run_id, run.result.environment_id


def _key_of(row: Row) -> tuple[str, str]:
    return row["run_id"], row["environment_id"]


def _unsteady(cells: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """What is not said of speeds."""
    count = sum(is_unsteady(a) or is_unsteady(b) for a, b in cells)
    if not count:
        return []
    return [
        f"Speeds of {count} of {number_of(len(cells), 'experiment')} are not compared, and count "
        f"nowhere: {Speed.UNSTEADY}"
    ]


def _compare(cells: Sequence[tuple[Cell, Cell]]) -> list[Compared]:
    """All measures of all experiments, each corrected for the number of its comparisons."""
    compared = []
    for measure in MEASURES:
        found = [(a, b, e) for a, b in cells if (e := measure.estimate(a, b)) is not None]
        corrected = iter(holm([e.p for *_, e in found if e.p is not None]))
        for a, b, e in found:
            p = None if e.p is None else next(corrected)
            compared.append(Compared(measure, a, b, e, p))
    return compared


FIXED = (
    Column("data", "data"),
    Column("backbone", "backbone"),
    Column("policy", "policy"),
    Column("backend", "backend"),
)


def _identity(cell: Cell) -> list[TableCell]:
    row = cell.row
    data = f"{row['dataset_label']}, {row['train_images']:,} images"
    return [
        figure(data, f"{row['dataset_label']} {row['train_images']:09}", data),
        text(row["backbone"]),
        text(contestant(cell)),
        text(row["backend"]),
    ]


def _telling(cells: Sequence[tuple[Cell, Cell]]) -> dict[str, list[str]]:
    """Further columns, without which two experiments would look the same: name → values."""
    rows = [
        {
            **{k: v for k, v in a.row.items() if k not in DIFFERING and k != "seed"},
            "environments": f"{a.row['environment_id']}, {b.row['environment_id']}",
            "run_id": a.row["run_id"],
        }
        for a, b in cells
    ]
    looks = [tuple(cell.text for cell in _identity(a)) for a, _ in cells]
    found: dict[str, list[str]] = {}
    for name in rows[0] if rows else ():
        values = [str(row[name]) for row in rows]
        more = [(*look, value) for look, value in zip(looks, values, strict=True)]
        if len(set(more)) > len(set(looks)):
            looks, found[name] = more, values
    return found


def _measure_table(
    measure: Measure, cells: Sequence[tuple[Cell, Cell]], compared: Sequence[Compared], names: Names
) -> Table:
    telling = _telling(cells)
    estimates = {id(c.a): c for c in compared if c.measure is measure}
    kind, by = ("difference", "less") if measure.neutral == 0.0 else ("ratio", "over")
    rows = []
    for place, (a, b) in enumerate(cells):
        found = estimates.get(id(a))
        if found is None:
            continue
        rows.append(
            [
                *_identity(a),
                *(text(values[place]) for values in telling.values()),
                figure(str(len(a.seeds)), len(a.seeds)),
                measure.side(a),
                measure.side(b),
                estimated(measure.shown(found.estimate), found.estimate),
                _p(found.p),
                text(found.verdict(names)),
            ]
        )
    columns = [
        *FIXED,
        *(Column(name, name.replace("_", " ")) for name in telling),
        Column("seeds", "seeds", right=True),
        Column(f"first_{measure.unit}", names[0], right=True),
        Column(f"second_{measure.unit}", names[1], right=True),
        Column(f"{kind}_{measure.unit}", f"{kind}, {names[1]} {by} {names[0]}", right=True),
        Column("p_corrected", "p, corrected", right=True),
        Column("verdict", "verdict"),
    ]
    lacking = any(c.estimate.low is None for c in estimates.values())
    notes = [*measure.notes, *([f"no interval: {measure.lacking}."] if lacking else [])]
    title = f"{measure.title[0].upper()}{measure.title[1:]}: {names[0]} and {names[1]}"
    return Table(measure.name, title, INTERVALS, columns, rows, notes)


def _p(p: float | None) -> TableCell:
    if p is None:
        return text(None)
    return figure("< 0.001" if p < 0.001 else f"{p:.3f}", p)


def _unmatched_table(unmatched: Sequence[Unmatched], names: Names) -> Table:
    return Table(
        "side_by_side_not_compared",
        "Runs that were not compared",
        "Runs of one folder only, and runs that are not ok in both.",
        [
            Column("run_id", "run"),
            Column("first_status", names[0]),
            Column("second_status", names[1]),
            Column("reason", "why"),
        ],
        [[text(u.run_id), text(u.first), text(u.second), text(u.reason)] for u in unmatched],
    )


def _counted(
    pairs: Sequence[tuple[StoredRun, StoredRun]],
    experiments: int,
    unmatched: Sequence[Unmatched],
    names: Names,
) -> str:
    """How much there is to compare, and what is not."""
    left = [
        (sum(u.second is None for u in unmatched), f"only in '{names[0]}'"),
        (sum(u.first is None for u in unmatched), f"only in '{names[1]}'"),
        (sum(u.is_worse for u in unmatched), f"ok in '{names[0]}' and not in '{names[1]}'"),
        (sum(u.is_mended for u in unmatched), f"ok in '{names[1]}' and not in '{names[0]}'"),
        (sum(u.is_other for u in unmatched), "in both and not compared"),
    ]
    rest = ", ".join(f"{number_of(n, 'run')} {where}" for n, where in left if n)
    if not pairs:
        return (
            f"Nothing was compared: no run that is ok in '{names[0]}' has one of the same spec "
            f"that is ok in '{names[1]}'; {rest}."
        )
    runs = f"{number_of(len(pairs), 'run')} of {number_of(experiments, 'experiment')}"
    moved = any(a.spec.device != b.spec.device for a, b in pairs)
    spec = "the same spec but for the device" if moved else "the same spec"
    said = f"'{names[0]}' and '{names[1]}' were compared in {runs}, of {spec}"
    return f"{said}; {rest}." if rest else f"{said}."


def _told(measure: Measure, compared: Sequence[Compared], names: Names) -> str | None:
    """What changed in a measure; None where it was compared nowhere."""
    mine = [c for c in compared if c.measure is measure]
    if not mine:
        return None
    told = [c for c in mine if c.estimate.low is not None]
    parts = []
    for word in (measure.more, measure.less):
        real = [c for c in told if c.word == word]
        if real:
            most = max(real, key=lambda c: c.size)
            what = f"{measure.shown(most.estimate)} for {_experiment(most.a)}"
            parts.append(
                f"'{names[1]}' {word} in {len(real):,} of {number_of(len(mine), 'comparison')}"
                f" ({'most: ' if len(real) > 1 else ''}{what})"
            )
    same = sum(c.word is None for c in told)
    if same:
        parts.append(f"no difference is shown in {same:,} of {number_of(len(mine), 'comparison')}")
    if len(told) < len(mine):
        parts.append(
            f"nothing is said of {len(mine) - len(told):,} of "
            f"{number_of(len(mine), 'comparison')}, which have no interval: {measure.lacking}"
        )
    return f"{measure.title[0].upper()}{measure.title[1:]}: {'; '.join(parts)}."


def _experiment(cell: Cell) -> str:
    return ", ".join(c.text for c in _identity(cell))


def _limits(compared: Sequence[Compared]) -> list[str]:
    if any(c.word and c.estimate.about == "models" for c in compared):
        return [
            "With fewer than three seeds this speaks of these trained models and these runs, not "
            "of the recipes."
        ]
    return []
