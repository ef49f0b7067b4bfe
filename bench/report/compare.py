"""``report A B``: what changed between two results folders, as tables and sentences.

All differences go from the first folder to the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis.compare import (
    BothFolders,
    Difference,
    NearestPair,
    RunPairs,
    SpecDifference,
    Unmatched,
    differences,
    match,
    nearest,
    seed_group_pairs,
)
from bench.analysis.groups import SIGNIFICANT, SeedGroup, policy_variant
from bench.analysis.intervals import LEAST_WINDOWS, Estimate
from bench.analysis.measures import Compared, compare_measures
from bench.analysis.rows import DIFFERING
from bench.analysis.speed import is_unsteady
from bench.report.format import ABSENT, listed, number_of, percent, points, times
from bench.report.tables.model import Table, TableCell, TableColumn, estimated, figure, text
from bench.report.tables.speeds import SPEED_NOTE, UNSTEADY_NOTE, fit_cell, rate_cells
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
            [*map(text, _difference_texts(difference)), text(", ".join(backends))]
            for difference, backends in differences(pairs).items()
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
    texts = map(_difference_texts, found[:DIFFERENCES_TOLD])
    told = [f"{name} ({first} → {second})" for name, first, second in texts]
    more = f" and {len(found) - DIFFERENCES_TOLD} more" if len(found) > DIFFERENCES_TOLD else ""
    return [f"Around the runs these differ: {', '.join(told)}{more}."]


MACHINE_NAMES = {"device_model": "model of the device", "python": "Python",
                 "thawbench": "Thawbench and its code"}  # fmt: skip
"""Field of an environment → its name for readers, if that is another one."""
DIFFERENCE_NAMES = {"package": "package {}", "variable": "variable {}", "knob": "in force: {}"}


def _difference_texts(difference: Difference) -> tuple[str, str, str]:
    """Return the name of what differs, and its values in both folders."""
    kind, name, first, second = difference
    machine = MACHINE_NAMES.get(name, name)
    named = machine if kind == "machine" else DIFFERENCE_NAMES[kind].format(name)
    return named, ABSENT if first is None else first, ABSENT if second is None else second


@dataclass(frozen=True)
class MeasureWords:
    """How a measure is shown."""

    title: str
    """What is measured."""
    words: dict[str, str]
    """Direction of a change → what the second folder does."""
    side: Callable[[SeedGroup], TableCell]
    """Returns a folder's own figure."""
    shown: Callable[[Estimate], str]
    """Returns the difference or ratio as text."""
    lacking: str
    """Why there may be no interval."""
    notes: tuple[str, ...] = ()
    """Notes below the table."""


def _rate_cell(cell: SeedGroup) -> TableCell:
    """Of whole steps, else the effective one with a mark."""
    whole, effective = rate_cells(cell)
    if whole.raw is not None or effective.raw is None:
        return whole
    return replace(effective, text=f"{effective.text} *")


WORDS = {
    "top1": MeasureWords(
        "test top-1", {"more": "is better", "less": "is worse"},
        lambda cell: estimated(percent(cell.top1), cell.top1), points,
        "a seed of the experiment failed, the test images are not the same, or the answers to them "
        "are not there (predictions.npz)",
    ),
    "images_per_s": MeasureWords(
        "train images/s", {"more": "is faster", "less": "is slower"}, _rate_cell, times,
        f"it takes three seeds, none with another run's values of a frozen part, or "
        f"{LEAST_WINDOWS} measured windows of whole steps",
        (SPEED_NOTE,),
    ),
    "fit_s": MeasureWords(
        "fit time", {"more": "takes longer", "less": "takes less time"}, fit_cell, times,
        "it takes three seeds, and none with another run's values of a frozen part",
    ),
}  # fmt: skip
"""Name of a measure → its words."""


def verdict(found: Compared, names: tuple[str, str]) -> str:
    """Return in words whether the difference is real."""
    if found.estimate.low is None:
        return "no interval"
    if found.change:
        return f"real: {names[1]} {WORDS[found.measure.name].words[found.change]}"
    return "no difference shown" + ("" if found.holds_neutral else " after correction")


FolderNames = tuple[str, str]
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


def told_nearest(near: Sequence[NearestPair], names: FolderNames) -> list[str]:
    """How the specs differ, as a sentence; of those that differ least."""
    if not near:
        return []
    least = min(len(n.differences) for n in near)
    ways = Counter(n.differences for n in near if len(n.differences) == least)
    told = [_told_way(way, names) for way, _ in ways.most_common(WAYS_TOLD)]
    more = "; or in other values" if len(ways) > WAYS_TOLD else ""
    return [f"The nearest specs differ in {'; or in '.join(told)}{more}."]


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


def side_by_side(
    a: Sequence[StoredRun],
    b: Sequence[StoredRun],
    names: FolderNames,
    whole: BothFolders | None = None,
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
    cells = seed_group_pairs(pairs, (first, second))
    compared = compare_measures(cells)
    near = [] if pairs else nearest(_alone(a, b), _alone(b, a))
    around = pairs or [(n.a, n.b) for n in near if n.a.spec.backend == n.b.spec.backend]
    tables = [
        *(_measure_table(name, cells, compared, names) for name in WORDS),
        environment_table(around, names),
        _unmatched_table(unmatched, names),
    ]
    sentences = [
        _counted(pairs, len(cells), unmatched, names),
        *told_nearest(near, names),
        *_devices(around, names),
        *told_environment(around),
        *_repeated(pairs, names),
        *(said for name in WORDS if (said := _told(name, compared, names))),
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


def _repeated(pairs: Sequence[tuple[StoredRun, StoredRun]], names: FolderNames) -> list[str]:
    """What the rest of the page shows of runs that both folders have."""
    again = sum(
        (a.result.run_id, a.result.environment_id) == (b.result.run_id, b.result.environment_id)
        for a, b in pairs
    )
    if not again:
        return []
    return [
        f"{number_of(again, 'run')} of the same environment "
        f"{'is' if again == 1 else 'are'} in both folders: everything but this comparison shows "
        f"what '{names[1]}' has of {'it' if again == 1 else 'them'}."
    ]


def _unsteady(cells: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[str]:
    """What is not said of speeds."""
    count = sum(is_unsteady(a) or is_unsteady(b) for a, b in cells)
    if not count:
        return []
    return [
        f"Speeds of {count} of {number_of(len(cells), 'experiment')} are not compared, and count "
        f"nowhere: {UNSTEADY_NOTE}"
    ]


FIXED = (
    TableColumn("data", "data"),
    TableColumn("backbone", "backbone"),
    TableColumn("policy", "policy"),
    TableColumn("backend", "backend"),
)


def _identity(cell: SeedGroup) -> list[TableCell]:
    row = cell.row
    data = f"{row.dataset.label}, {row.dataset.train_images:,} images"
    return [
        figure(data, f"{row.dataset.label} {row.dataset.train_images:09}", data),
        text(row.spec.backbone),
        text(policy_variant(cell)),
        text(row.spec.backend),
    ]


def _telling(cells: Sequence[tuple[SeedGroup, SeedGroup]]) -> dict[str, list[str]]:
    """Further columns, without which two experiments would look the same: name → values."""
    rows = [
        {
            **{k: v for k, v in a.row.fields.items() if k not in DIFFERING and k != "seed"},
            "environments": f"{a.row.result.environment_id}, {b.row.result.environment_id}",
            "run_id": a.row.result.run_id,
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
    name: str,
    cells: Sequence[tuple[SeedGroup, SeedGroup]],
    compared: Sequence[Compared],
    names: FolderNames,
) -> Table:
    telling = _telling(cells)
    words = WORDS[name]
    estimates = {id(c.a): c for c in compared if c.measure.name == name}
    kind, by = ("difference", "less") if name == "top1" else ("ratio", "over")
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
                words.side(a),
                words.side(b),
                estimated(words.shown(found.estimate), found.estimate),
                _p(found.p),
                text(verdict(found, names)),
            ]
        )
    columns = [
        *FIXED,
        *(TableColumn(field, field.replace("_", " ")) for field in telling),
        TableColumn("seeds", "seeds", right=True),
        TableColumn(f"first_{name}", names[0], right=True),
        TableColumn(f"second_{name}", names[1], right=True),
        TableColumn(f"{kind}_{name}", f"{kind}, {names[1]} {by} {names[0]}", right=True),
        TableColumn("p_corrected", "p, corrected", right=True),
        TableColumn("verdict", "verdict"),
    ]
    lacking = any(c.estimate.low is None for c in estimates.values())
    notes = [*words.notes, *([f"no interval: {words.lacking}."] if lacking else [])]
    title = f"{words.title[0].upper()}{words.title[1:]}: {names[0]} and {names[1]}"
    return Table(f"side_by_side_{name}", title, INTERVALS, columns, rows, notes)


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


def _told(name: str, compared: Sequence[Compared], names: FolderNames) -> str | None:
    """What changed in a measure; None where it was compared nowhere."""
    words = WORDS[name]
    mine = [c for c in compared if c.measure.name == name]
    if not mine:
        return None
    told = [c for c in mine if c.estimate.low is not None]
    parts = []
    for change, word in words.words.items():
        real = [c for c in told if c.change == change]
        if real:
            most = max(real, key=lambda c: c.size)
            what = f"{words.shown(most.estimate)} for {_experiment(most.a)}"
            parts.append(
                f"'{names[1]}' {word} in {len(real):,} of {number_of(len(mine), 'comparison')}"
                f" ({'most: ' if len(real) > 1 else ''}{what})"
            )
    same = sum(c.change is None for c in told)
    if same:
        parts.append(f"no difference is shown in {same:,} of {number_of(len(mine), 'comparison')}")
    if len(told) < len(mine):
        parts.append(
            f"nothing is said of {len(mine) - len(told):,} of "
            f"{number_of(len(mine), 'comparison')}, which have no interval: {words.lacking}"
        )
    return f"{words.title[0].upper()}{words.title[1:]}: {'; '.join(parts)}."


def _experiment(cell: SeedGroup) -> str:
    return ", ".join(c.text for c in _identity(cell))


def _limits(compared: Sequence[Compared]) -> list[str]:
    if any(c.change and c.estimate.about == "models" for c in compared):
        return [
            "With fewer than three seeds this speaks of these trained models and these runs, not "
            "of the recipes."
        ]
    return []
