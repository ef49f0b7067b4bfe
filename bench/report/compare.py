"""What differs around runs of the same spec: versions, machine, variables, knobs.

What is compared between the runs of two folders: accuracy, training speed and fit time.

Why no run of one folder has its like in another: the specs that are nearest, and how they
differ.

Two results folders beside each other: two machines, two versions, before and after.

Runs match where their specs are the same, seed included: the same ``run_id``, or one that differs
in the device alone, which is another experiment in speed and is said to be one. What may differ is
the environment, and where that is the same too, they are one run and its repetition. Of a folder
that holds a run in several environments, one that the other folder does not hold goes first (a
folder that was copied before the upgrade); where that leaves more than one, nothing is compared.
All differences go from the first folder to the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.analysis import intervals as statistics
from bench.analysis.compare import RunPairs, Unmatched, differences, match
from bench.analysis.groups import SIGNIFICANT, SeedGroup, contestant, paired
from bench.analysis.intervals import Estimate, holm
from bench.analysis.rows import DIFFERING, Row, rows_of
from bench.analysis.speed import TrainingSpeed, is_unsteady, shares_prefix, without_interval
from bench.report.format import listed, number_of, percent, points, times
from bench.report.tables.model import Table, TableCell, TableColumn, estimated, figure, text
from bench.report.tables.speeds import fit_cell, rate_cells
from bench.spec.base import canonical_json
from bench.spec.run import RunSpec
from bench.storage.results import StoredRun

DIFFERENCES_TOLD = 6
"""Differences that a sentence names."""


def environment_table(pairs: RunPairs, names: tuple[str, str]) -> Table:
    """A row for each difference."""
    return Table(
        "side_by_side_environments",
        "What differs around the runs",
        "Between runs of the same spec, or where there are none, of the nearest: machine, driver, "
        "versions, environment variables, and knobs as they were read back from the frameworks.",
        [
            TableColumn("what", "what"),
            TableColumn("first", names[0]),
            TableColumn("second", names[1]),
            TableColumn("backends", "backends"),
        ],
        [
            [text(name), text(first), text(second), text(", ".join(backends))]
            for (name, first, second), backends in differences(pairs).items()
        ],
    )


def told_environment(pairs: RunPairs) -> list[str]:
    """The same as a sentence."""
    found = list(differences(pairs))
    if not pairs:
        return []
    if not found:
        if any(a.spec != b.spec for a, b in pairs):
            return ["Around these runs nothing differs that is recorded."]
        return [
            "Nothing that is recorded differs around the runs: versions, machine, variables and "
            "Thawbench's code are the same, so that this is one run and its repetition."
        ]
    told = [f"{name} ({first} → {second})" for name, first, second in found[:DIFFERENCES_TOLD]]
    more = f" and {len(found) - DIFFERENCES_TOLD} more" if len(found) > DIFFERENCES_TOLD else ""
    return [f"Around the runs these differ: {', '.join(told)}{more}."]


@dataclass(frozen=True)
class Measure:
    """Something that is compared."""

    name: str
    """Of the table."""
    title: str
    """What is measured."""
    unit: str
    """End of the columns' names."""
    neutral: float
    """The difference or ratio that is none."""
    more: str
    """What the second folder does where the estimate lies above ``neutral``."""
    less: str
    """And below."""
    estimate: Callable[[SeedGroup, SeedGroup], Estimate | None]
    """None where the two cannot be compared."""
    side: Callable[[SeedGroup], TableCell]
    """A folder's own figure."""
    shown: Callable[[Estimate], str]
    """The difference or ratio."""
    lacking: str
    """Why there may be no interval."""
    notes: tuple[str, ...] = ()
    """Of the table."""


def _top1(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    answers = paired(a, b)
    if answers is not None and len(answers[0]) == len(a.seeds):
        return statistics.difference(*answers)
    shares = [(x["test_top1"], y["test_top1"]) for x, y in _rows(a, b)]
    if any(share is None for pair in shares for share in pair):
        return None
    value = float(np.mean([y - x for x, y in shares]))
    return Estimate(value, None, None, None, "models", len(a.seeds), 0)


def _rate(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    if is_unsteady(a) or is_unsteady(b):
        return None
    whole = _single(a, b, "train_images_per_s")
    windows = [[run.result.train_images_per_s_windows for run in c.runs] for c in (a, b)]
    if whole is not None and all(len(run) for side in windows for run in side):
        return statistics.ratio(*windows)
    if whole is not None:
        return whole
    found = _single(a, b, "effective_images_per_s")
    shared = shares_prefix(a) or shares_prefix(b)
    return without_interval(found) if found is not None and shared else found


def _fit(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    if is_unsteady(a) or is_unsteady(b):
        return None
    found = _single(a, b, "fit_s")
    shared = shares_prefix(a) or shares_prefix(b)
    return without_interval(found) if found is not None and shared else found


def _single(a: SeedGroup, b: SeedGroup, field: str) -> Estimate | None:
    """The ratio of a figure that a run has one of."""
    pairs = [(x[field], y[field]) for x, y in _rows(a, b)]
    if not all(x and y for x, y in pairs):
        return None
    return statistics.ratio([[x] for x, _ in pairs], [[y] for _, y in pairs])


def _rows(a: SeedGroup, b: SeedGroup) -> Iterable[tuple[Row, Row]]:
    return zip(a.rows, b.rows, strict=True)


def _rate_cell(cell: SeedGroup) -> TableCell:
    """Of whole steps, else the effective one with a mark."""
    whole, effective = rate_cells(cell)
    if whole.raw is not None or effective.raw is None:
        return whole
    return replace(effective, text=f"{effective.text} *")


MEASURES = (
    Measure(
        "side_by_side_top1", "test top-1", "top1", 0.0, "is better", "is worse", _top1,
        lambda cell: estimated(percent(cell.top1), cell.top1), points,
        "a seed of the experiment failed, the test images are not the same, or the answers to them "
        "are not there (predictions.npz)",
    ),
    Measure(
        "side_by_side_images_per_s", "train images/s", "images_per_s", 1.0, "is faster",
        "is slower", _rate, _rate_cell, times,
        f"it takes three seeds, none with another run's values of a frozen part, or "
        f"{statistics.LEAST_WINDOWS} measured windows of whole steps",
        (TrainingSpeed.NOTE,),
    ),
    Measure(
        "side_by_side_fit_s", "fit time", "fit_s", 1.0, "takes longer", "takes less time", _fit,
        fit_cell, times,
        "it takes three seeds, and none with another run's values of a frozen part",
    ),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Compared:
    """A measure of one experiment in both folders."""

    measure: Measure
    a: SeedGroup
    b: SeedGroup
    estimate: Estimate
    p: float | None
    """Corrected for all comparisons of the measure."""

    @property
    def word(self) -> str | None:
        """What the second folder does, of a difference that is real; else None."""
        e, neutral = self.estimate, self.measure.neutral
        if e.low is None or e.high is None or self.p is None or self.p >= SIGNIFICANT:
            return None
        if e.low <= neutral <= e.high:
            return None
        return self.measure.more if e.value > neutral else self.measure.less

    @property
    def size(self) -> float:
        """Of the difference, whichever way round."""
        e = self.estimate.value
        return abs(e) if self.measure.neutral == 0.0 else abs(float(np.log(e)))

    def verdict(self, names: tuple[str, str]) -> str:
        """In words."""
        if self.estimate.low is None:
            return "no interval"
        if self.word:
            return f"real: {names[1]} {self.word}"
        neutral = self.measure.neutral
        holds = self.estimate.low <= neutral <= (self.estimate.high or neutral)
        return "no difference shown" + ("" if holds else " after correction")


FolderNames = tuple[str, str]
MOST_SPECS = 600
"""Of a folder that are looked at, seeds apart: beyond, those of a grid differ as the others do."""
WAYS_TOLD = 3
"""Ways to differ that a sentence names."""
SHORT = 40
"""Letters of a value that a sentence holds."""
CALLED = {
    "case.number": "case",
    "case.dataset.name": "data set",
    "case.dataset.label": "data set's label",
    "case.dataset.content_hash": "content of the data set",
    "weights.kind": "weights",
    "weights.source": "source of the weights",
    "weights.sha256": "file of the weights",
    "policy.name": "policy",
    "code_sha256": "code of the network",
}
"""Place of a field in a spec → what it is called, where that is not its own name."""
LEADING = {"policy.name": "policy.", "case.dataset.name": "case.", "weights.kind": "weights."}
"""Place of a field → what follows from it, and is not told beside it."""
SpecDifference = tuple[str, str | None, str | None]
"""A field's place, and its values in either spec."""


@dataclass(frozen=True)
class Near:
    """A run, and the one of the other folder whose spec is nearest."""

    a: StoredRun
    b: StoredRun
    differences: tuple[SpecDifference, ...]
    """The fields in which the specs differ."""


def nearest(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> list[Near]:
    """For each run of one folder the nearest of another; of those that are as near, the first."""
    a, b = _apart_from_seeds(a), _apart_from_seeds(b)
    others = [(run, f := _fields(run.spec), frozenset(f.items())) for run in b[:MOST_SPECS]]
    found = []
    for run in a[:MOST_SPECS]:
        fields = _fields(run.spec)
        items = frozenset(fields.items())
        near = min(others, key=lambda o: len(items ^ o[2]), default=None)
        if near is not None:
            other, theirs, _ = near
            apart = [p for p in {**fields, **theirs} if fields.get(p) != theirs.get(p)]
            differences = tuple((p, fields.get(p), theirs.get(p)) for p in _leading(apart))
            found.append(Near(run, other, differences))
    return found


def _apart_from_seeds(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """One run of each spec: seeds that differ are not why nothing matches, unless they alone do."""
    found: dict[str, StoredRun] = {}
    for run in runs:
        found.setdefault(run.spec.model_copy(update={"seed": 0}).run_id, run)
    return list(found.values())


def _leading(places: Sequence[str]) -> list[str]:
    """Places of fields, without those that follow from others."""
    led = tuple(below for leader, below in LEADING.items() if leader in places)
    return [p for p in places if p in LEADING or not (led and p.startswith(led))]


def told_nearest(near: Sequence[Near], names: FolderNames) -> list[str]:
    """How the specs differ, as a sentence; of those that differ least."""
    if not near:
        return []
    least = min(len(n.differences) for n in near)
    ways = Counter(n.differences for n in near if len(n.differences) == least)
    told = [_told_way(way, names) for way, _ in ways.most_common(WAYS_TOLD)]
    more = "; or in other values" if len(ways) > WAYS_TOLD else ""
    return [f"The nearest specs differ in {'; or in '.join(told)}{more}."]


def _fields(spec: RunSpec) -> dict[str, str]:
    """Place of a field → its value as text."""
    return dict(_flat(spec.model_dump(mode="json")))


def _flat(value: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{place}{name}.")
        else:
            yield f"{place}{name}", inner if isinstance(inner, str) else canonical_json(inner)


def _called(place: str) -> str:
    return CALLED.get(place, place.rpartition(".")[2].replace("_", " "))


def _told_way(differences: Sequence[SpecDifference], names: FolderNames) -> str:
    return ", ".join(
        f"{_called(p)} ({_short_value(first)} in '{names[0]}', "
        f"{_short_value(second)} in '{names[1]}')"
        for p, first, second in differences
    )


def _short_value(text: str | None) -> str:
    if text is None or text == "null":
        return "none"
    return text if len(text) <= SHORT else f"{text[:SHORT]}…"


INTERVALS = (
    "Ranges in brackets are 95 % intervals. With three seeds or more they speak of the recipes. "
    "With fewer, those of accuracy speak of these trained models alone, on other test images; "
    "those of speed are of the measured windows of these very runs, and a run on another day may "
    "lie outside. A difference is real where its interval does not hold 'none' and its p value, "
    f"corrected for all comparisons of its table (Holm), is below {round(SIGNIFICANT, 6):g}."
)


@dataclass(frozen=True)
class FolderComparison:
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
    a: Sequence[StoredRun], b: Sequence[StoredRun], names: FolderNames, whole: Both | None = None
) -> FolderComparison:
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
    return FolderComparison([table for table in tables if table.rows], sentences)


def _alone(runs: Sequence[StoredRun], others: Sequence[StoredRun]) -> list[StoredRun]:
    """Those of a spec that is not among others."""
    there = {run.result.run_id for run in others}
    return [run for run in runs if run.result.run_id not in there]


def _devices(pairs: Sequence[tuple[StoredRun, StoredRun]], names: FolderNames) -> list[str]:
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
) -> list[tuple[SeedGroup, SeedGroup]]:
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
        first = SeedGroup(tuple(rows), tuple(runs[key] for key in keys), lost[0][one])
        theirs = tuple(there[_key(run)] for run in others)
        cells.append((first, SeedGroup(theirs, others, lost[1][other])))
    return cells


def _repeated(pairs: Sequence[tuple[StoredRun, StoredRun]], names: FolderNames) -> list[str]:
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


def _unsteady(cells: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[str]:
    """What is not said of speeds."""
    count = sum(is_unsteady(a) or is_unsteady(b) for a, b in cells)
    if not count:
        return []
    return [
        f"Speeds of {count} of {number_of(len(cells), 'experiment')} are not compared, and count "
        f"nowhere: {TrainingSpeed.UNSTEADY}"
    ]


def _compare(cells: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[Compared]:
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
    TableColumn("data", "data"),
    TableColumn("backbone", "backbone"),
    TableColumn("policy", "policy"),
    TableColumn("backend", "backend"),
)


def _identity(cell: SeedGroup) -> list[TableCell]:
    row = cell.row
    data = f"{row['dataset_label']}, {row['train_images']:,} images"
    return [
        figure(data, f"{row['dataset_label']} {row['train_images']:09}", data),
        text(row["backbone"]),
        text(contestant(cell)),
        text(row["backend"]),
    ]


def _telling(cells: Sequence[tuple[SeedGroup, SeedGroup]]) -> dict[str, list[str]]:
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
    measure: Measure,
    cells: Sequence[tuple[SeedGroup, SeedGroup]],
    compared: Sequence[Compared],
    names: FolderNames,
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
        *(TableColumn(name, name.replace("_", " ")) for name in telling),
        TableColumn("seeds", "seeds", right=True),
        TableColumn(f"first_{measure.unit}", names[0], right=True),
        TableColumn(f"second_{measure.unit}", names[1], right=True),
        TableColumn(f"{kind}_{measure.unit}", f"{kind}, {names[1]} {by} {names[0]}", right=True),
        TableColumn("p_corrected", "p, corrected", right=True),
        TableColumn("verdict", "verdict"),
    ]
    lacking = any(c.estimate.low is None for c in estimates.values())
    notes = [*measure.notes, *([f"no interval: {measure.lacking}."] if lacking else [])]
    title = f"{measure.title[0].upper()}{measure.title[1:]}: {names[0]} and {names[1]}"
    return Table(measure.name, title, INTERVALS, columns, rows, notes)


def _p(p: float | None) -> TableCell:
    if p is None:
        return text(None)
    return figure("< 0.001" if p < 0.001 else f"{p:.3f}", p)


def _unmatched_table(unmatched: Sequence[Unmatched], names: FolderNames) -> Table:
    return Table(
        "side_by_side_not_compared",
        "Runs that were not compared",
        "Runs of one folder only, and runs that are not ok in both.",
        [
            TableColumn("run_id", "run"),
            TableColumn("first_status", names[0]),
            TableColumn("second_status", names[1]),
            TableColumn("reason", "why"),
        ],
        [[text(u.run_id), text(u.first), text(u.second), text(u.reason)] for u in unmatched],
    )


def _counted(
    pairs: Sequence[tuple[StoredRun, StoredRun]],
    experiments: int,
    unmatched: Sequence[Unmatched],
    names: FolderNames,
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


def _told(measure: Measure, compared: Sequence[Compared], names: FolderNames) -> str | None:
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


def _experiment(cell: SeedGroup) -> str:
    return ", ".join(c.text for c in _identity(cell))


def _limits(compared: Sequence[Compared]) -> list[str]:
    if any(c.word and c.estimate.about == "models" for c in compared):
        return [
            "With fewer than three seeds this speaks of these trained models and these runs, not "
            "of the recipes."
        ]
    return []
