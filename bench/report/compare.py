"""``report A B``: the differences between two results folders, from the first to the second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis.compare import (
    BothFolders,
    EnvironmentDifference,
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
from bench.report.labels import data_of, distinguishing_fields
from bench.report.tables.model import Table, TableCell, TableColumn, estimated, figure, text
from bench.report.tables.speeds import SPEED_NOTE, UNSTEADY_NOTE, fit_cell, rate_cells
from bench.storage.results import StoredRun

MOST_DIFFERENCES = 6
"""Most differences that a sentence names."""


def environment_table(pairs: RunPairs, names: tuple[str, str]) -> Table:
    """Return a table with a row for each difference around the runs."""
    return Table(
        "side_by_side_environments",
        "Differences around the runs",
        "Machine, driver, versions, environment variables, and settings read back from the "
        "frameworks. Compared between runs of the same spec or, if there are none, the most "
        "similar one.",
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


def environment_sentences(pairs: RunPairs) -> list[str]:
    """Return a sentence on the differences around the runs."""
    found = list(differences(pairs))
    if not pairs:
        return []
    if not found:
        if any(a.spec != b.spec for a, b in pairs):
            return ["No recorded difference around these runs."]
        return [
            "No recorded difference around the runs: this is one experiment and its repetition. "
            "Versions, machine, variables and Thawbench's code are the same."
        ]
    texts = map(_difference_texts, found[:MOST_DIFFERENCES])
    named = [f"{name} ({first} → {second})" for name, first, second in texts]
    more = f" and {len(found) - MOST_DIFFERENCES} more" if len(found) > MOST_DIFFERENCES else ""
    return [f"Differences around the runs: {', '.join(named)}{more}."]


MACHINE_NAMES = {"device_model": "model of the device", "python": "Python",
                 "thawbench": "Thawbench and its code"}  # fmt: skip
"""Field of an environment → its name for readers, if that differs."""
DIFFERENCE_NAMES = {"package": "package {}", "variable": "variable {}", "knob": "in force: {}"}


def _difference_texts(difference: EnvironmentDifference) -> tuple[str, str, str]:
    """Return the name of what differs, and its values in both folders."""
    kind, name, first, second = difference
    machine = MACHINE_NAMES.get(name, name)
    named = machine if kind == "machine" else DIFFERENCE_NAMES[kind].format(name)
    return named, ABSENT if first is None else first, ABSENT if second is None else second


@dataclass(frozen=True)
class MeasureWords:
    """Words and formats of a measure."""

    title: str
    """Name of the measure."""
    words: dict[str, str]
    """Direction of a change → words for the second folder."""
    side: Callable[[SeedGroup], TableCell]
    """Returns the cell of one folder's value."""
    shown: Callable[[Estimate], str]
    """Returns the difference or ratio as text."""
    lacking: str
    """Reasons why there may be no interval."""
    notes: tuple[str, ...] = ()
    """Notes below the table."""


def _rate_cell(group: SeedGroup) -> TableCell:
    """Return the rate of whole steps, or else the effective rate with an asterisk."""
    whole, effective = rate_cells(group)
    if whole.raw is not None or effective.raw is None:
        return whole
    return replace(effective, text=f"{effective.text} *")


WORDS = {
    "top1": MeasureWords(
        "test top-1", {"more": "is better", "less": "is worse"},
        lambda group: estimated(percent(group.top1), group.top1), points,
        "a seed failed, the test images differ, or predictions.npz is missing",
    ),
    "images_per_s": MeasureWords(
        "train images/s", {"more": "is faster", "less": "is slower"}, _rate_cell, times,
        f"an interval needs {LEAST_WINDOWS} windows of whole steps, or three seeds that do not "
        "share values of a frozen part",
        (SPEED_NOTE,),
    ),
    "fit_s": MeasureWords(
        "fit time", {"more": "takes longer", "less": "takes less time"}, fit_cell, times,
        "an interval needs three seeds that do not share values of a frozen part",
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
MOST_WAYS = 3
"""Most ways to differ that a sentence names."""
MOST_LETTERS = 40
"""Most letters of a value in a sentence."""
SPEC_NAMES = {
    "case.number": "case",
    "case.dataset.name": "data set",
    "case.dataset.label": "data set's label",
    "case.dataset.content_hash": "content of the data set",
    "weights.kind": "weights",
    "weights.source": "source of the weights",
    "weights.sha256": "file of the weights",
    "weights.reading_digest": "reading of the weights",
    "network_digest": "definition of the network",
    "policy.name": "policy",
    "code_sha256": "code of the network",
}
"""Path of a field in a spec → its name for readers, if that differs."""


def nearest_sentences(near: Sequence[NearestPair], names: FolderNames) -> list[str]:
    """Return a sentence on how the most similar specs differ."""
    if not near:
        return []
    least = min(len(n.differences) for n in near)
    ways = Counter(n.differences for n in near if len(n.differences) == least)
    texts = [_way(way, names) for way, _ in ways.most_common(MOST_WAYS)]
    more = "; or in other values" if len(ways) > MOST_WAYS else ""
    return [f"The most similar specs differ in {'; or in '.join(texts)}{more}."]


def _way(differences: Sequence[SpecDifference], names: FolderNames) -> str:
    return ", ".join(
        f"{SPEC_NAMES.get(path, path.rpartition('.')[2].replace('_', ' '))} "
        f"({_short_value(first)} in '{names[0]}', {_short_value(second)} in '{names[1]}')"
        for path, first, second in differences
    )


def _short_value(text: str | None) -> str:
    if text is None or text == "null":
        return "none"
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


INTERVALS = (
    "Ranges in brackets are 95 % intervals. With three seeds or more, they cover training again. "
    "With fewer, they cover these trained models on other test images, or the measured windows of "
    "these runs. A difference is real if its interval excludes 'none' and its corrected p value is "
    f"below {round(SIGNIFICANT, 6):g}. The correction (Holm) is for all comparisons of the table."
)


@dataclass(frozen=True)
class FolderComparison:
    """The tables and sentences of ``report A B``."""

    tables: list[Table]
    """Accuracy, training speed, fit time, environments and what was not compared, if not empty."""
    sentences: list[str]
    """Summary of the changes."""

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON for the page."""
        return {"tables": [t.as_json() for t in self.tables], "sentences": self.sentences}


def side_by_side(
    a: Sequence[StoredRun],
    b: Sequence[StoredRun],
    names: FolderNames,
    whole: BothFolders | None = None,
) -> FolderComparison:
    """Compare two results folders.

    Args:
        a: Runs of the first folder.
        b: Runs of the second.
        names: Names of the folders.
        whole: All runs of both, from which ``a`` and ``b`` were selected; None: the same. Failed
            seeds are counted among all.
    """
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    pairs, unmatched = match(a, b)
    first, second = whole or (a, b)
    groups = seed_group_pairs(pairs, (first, second))
    compared = compare_measures(groups)
    near = [] if pairs else nearest(_alone(a, b), _alone(b, a))
    around = pairs or [(n.a, n.b) for n in near if n.a.spec.backend == n.b.spec.backend]
    tables = [
        *(_measure_table(name, groups, compared, names) for name in WORDS),
        environment_table(around, names),
        _unmatched_table(unmatched, names),
    ]
    sentences = [
        _counted(pairs, len(groups), unmatched, names),
        *nearest_sentences(near, names),
        *_devices(around, names),
        *environment_sentences(around),
        *_repeated(pairs, names),
        *(text for name in WORDS if (text := _changes(name, compared, names))),
        *_unsteady(groups),
        *_limits(compared),
    ]
    return FolderComparison([table for table in tables if table.rows], sentences)


def _alone(runs: Sequence[StoredRun], others: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the runs whose spec the other folder lacks."""
    there = {run.result.run_id for run in others}
    return [run for run in runs if run.result.run_id not in there]


def _devices(pairs: Sequence[tuple[StoredRun, StoredRun]], names: FolderNames) -> list[str]:
    """Return a warning on runs that differ in the device."""
    found = Counter((a.spec.device, b.spec.device) for a, b in pairs)
    moved = {both: count for both, count in found.items() if both[0] != both[1]}
    if not moved:
        return []
    counts = listed([f"{number_of(n, 'run')} on {x} and {y}" for (x, y), n in moved.items()])
    return [
        f"'{names[0]}' and '{names[1]}' ran on different devices ({counts}). Accuracies remain "
        "comparable; ratios of speed mainly compare the devices."
    ]


def _repeated(pairs: Sequence[tuple[StoredRun, StoredRun]], names: FolderNames) -> list[str]:
    """Return a note on runs that both folders have in the same environment."""
    again = sum(
        (a.result.run_id, a.result.environment_id) == (b.result.run_id, b.result.environment_id)
        for a, b in pairs
    )
    if not again:
        return []
    return [
        f"{number_of(again, 'run')} of the same environment {'is' if again == 1 else 'are'} in "
        f"both folders. Outside this comparison, the page shows what '{names[1]}' has of "
        f"{'it' if again == 1 else 'them'}."
    ]


def _unsteady(groups: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[str]:
    """Return a note on speeds that are not compared."""
    count = sum(is_unsteady(a) or is_unsteady(b) for a, b in groups)
    if not count:
        return []
    return [
        f"Speeds of {count} of {number_of(len(groups), 'experiment')} are not compared. "
        f"{UNSTEADY_NOTE}"
    ]


FIXED = (
    TableColumn("data", "data"),
    TableColumn("backbone", "backbone"),
    TableColumn("policy", "policy"),
    TableColumn("backend", "backend"),
)


def _identity(group: SeedGroup) -> list[TableCell]:
    row, data = group.row, data_of(group.row)
    return [
        figure(data, f"{row.dataset.label} {row.dataset.train_images:09}", data),
        text(row.spec.backbone),
        text(policy_variant(group)),
        text(row.spec.backend),
    ]


def _setting_columns(groups: Sequence[tuple[SeedGroup, SeedGroup]]) -> dict[str, list[str]]:
    """Return name → values of the columns without which two experiments would look alike."""
    rows = [
        {
            **{k: v for k, v in a.row.fields.items() if k not in DIFFERING and k != "seed"},
            "environments": f"{a.row.result.environment_id}, {b.row.result.environment_id}",
            "run_id": a.row.result.run_id,
        }
        for a, b in groups
    ]
    looks = [tuple(cell.text for cell in _identity(a)) for a, _ in groups]
    names = distinguishing_fields(rows, list(rows[0]) if rows else [], looks, all_fields=False)
    return {name: [str(row[name]) for row in rows] for name in names}


def _measure_table(
    name: str,
    groups: Sequence[tuple[SeedGroup, SeedGroup]],
    compared: Sequence[Compared],
    names: FolderNames,
) -> Table:
    settings = _setting_columns(groups)
    words = WORDS[name]
    estimates = {id(c.a): c for c in compared if c.measure.name == name}
    kind, sign = ("difference", "−") if name == "top1" else ("ratio", "/")
    rows = []
    for place, (a, b) in enumerate(groups):
        found = estimates.get(id(a))
        if found is None:
            continue
        rows.append(
            [
                *_identity(a),
                *(text(values[place]) for values in settings.values()),
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
        *(TableColumn(field, field.replace("_", " ")) for field in settings),
        TableColumn("seeds", "seeds", right=True),
        TableColumn(f"first_{name}", names[0], right=True),
        TableColumn(f"second_{name}", names[1], right=True),
        TableColumn(f"{kind}_{name}", f"{kind}, {names[1]} {sign} {names[0]}", right=True),
        TableColumn("p_corrected", "corrected p", right=True),
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
        "Runs of one folder only, and runs that are not ok in both folders.",
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
    """Return a sentence on how many runs were compared and how many were not."""
    changes = Counter(u.change for u in unmatched)
    left = [
        (sum(u.second is None for u in unmatched), f"only in '{names[0]}'"),
        (sum(u.first is None for u in unmatched), f"only in '{names[1]}'"),
        (changes["worse"], f"ok in '{names[0]}' and not in '{names[1]}'"),
        (changes["mended"], f"ok in '{names[1]}' and not in '{names[0]}'"),
        (changes["other"], "in both folders"),
    ]
    rest = ", ".join(f"{number_of(n, 'run')} {where}" for n, where in left if n)
    if not pairs:
        return (
            f"Nothing was compared: '{names[0]}' and '{names[1]}' share no spec of which both have "
            f"a successful run. Not compared: {rest}."
        )
    runs = f"{number_of(len(pairs), 'run')} of {number_of(experiments, 'experiment')}"
    moved = any(a.spec.device != b.spec.device for a, b in pairs)
    spec = "the same spec but for the device" if moved else "the same spec"
    text = f"'{names[0]}' and '{names[1]}' were compared in {runs}, of {spec}."
    return f"{text} Not compared: {rest}." if rest else text


def _changes(name: str, compared: Sequence[Compared], names: FolderNames) -> str | None:
    """Return a sentence on the changes of a measure; None if it was not compared."""
    words = WORDS[name]
    mine = [c for c in compared if c.measure.name == name]
    if not mine:
        return None
    known = [c for c in mine if c.estimate.low is not None]
    parts = []
    for change, word in words.words.items():
        real = [c for c in known if c.change == change]
        if real:
            most = max(real, key=lambda c: c.size)
            what = f"{words.shown(most.estimate)} for {_experiment(most.a)}"
            parts.append(
                f"'{names[1]}' {word} in {len(real):,} of {number_of(len(mine), 'comparison')}"
                f" ({'most: ' if len(real) > 1 else ''}{what})"
            )
    same = sum(c.change is None for c in known)
    if same:
        parts.append(f"no difference is shown in {same:,} of {number_of(len(mine), 'comparison')}")
    if len(known) < len(mine):
        parts.append(
            f"no interval in {len(mine) - len(known):,} of {number_of(len(mine), 'comparison')}: "
            f"{words.lacking}"
        )
    sentences = [parts[0], *(f"{part[0].upper()}{part[1:]}" for part in parts[1:])]
    return f"{words.title[0].upper()}{words.title[1:]}: {'. '.join(sentences)}."


def _experiment(group: SeedGroup) -> str:
    return ", ".join(cell.text for cell in _identity(group))


def _limits(compared: Sequence[Compared]) -> list[str]:
    if any(c.change and c.estimate.about == "models" for c in compared):
        return [
            "With fewer than three seeds, this is about these trained models and runs, not the "
            "recipes."
        ]
    return []
