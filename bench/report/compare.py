"""``report A B``: the differences between two results folders, from the first to the second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis import compare as analysis
from bench.analysis.compare import BothFolders, EnvironmentDifference, RunPairs, Unmatched
from bench.analysis.contests import accuracy_of
from bench.analysis.groups import SeedGroup
from bench.analysis.intervals import SIGNIFICANT, Estimate
from bench.analysis.measures import Compared, compare_measures
from bench.analysis.rows import DIFFERING
from bench.errors import number_of
from bench.report.format import ABSENT, applicable, listed, percent, points, some_of, times
from bench.report.labels import distinguishing_fields
from bench.report.tables import model
from bench.report.tables.model import Column, Table, TableCell, TableColumn, table_of, text
from bench.report.tables.standard import UNSTEADY_NOTE
from bench.storage.results import StoredRun

FolderNames = tuple[str, str]
MOST_DIFFERENCES, MOST_LETTERS = 6, 40
"""Limits of a sentence: differences it names, and letters of a value."""
INTERVALS = (
    "Ranges in brackets are 95 % intervals, for training again and for other test images; of "
    "speeds, for other runs. A difference is significant if its interval excludes no difference, "
    "and its p value, corrected for all comparisons of the table (Holm), is below "
    f"{round(SIGNIFICANT, 6):g}."
)
MACHINE_NAMES = {"device_model": "model of the device", "python": "Python",
                 "thawbench": "Thawbench and its code"}  # fmt: skip
"""Field of an environment → its name for readers, if that differs."""
DIFFERENCE_NAMES = {"package": "package {}", "variable": "variable {}", "knob": "in force: {}"}


@dataclass(frozen=True)
class MeasureWords:
    """Words and formats of a measure."""

    title: str
    words: dict[str, str]
    """Direction of a change → words for the second folder."""
    side: Callable[[SeedGroup], TableCell]
    """Returns the cell of one folder's value."""
    shown: Callable[[Estimate], str]
    """Formats the difference or ratio."""
    lacking: str
    """Reasons why there may be no interval."""
    notes: tuple[str, ...] = ()
    """Notes below the table."""


def _rate_cell(group: SeedGroup) -> TableCell:
    """Return the rate of whole steps, or else the effective rate with a dagger."""
    whole = model.speed_cell(group, "train_images_per_s")
    effective = model.speed_cell(group, "effective_images_per_s")
    if whole.raw is not None or effective.raw is None:
        return whole
    return replace(effective, text=f"{effective.text} †")


WORDS = {
    "top1": MeasureWords(
        "test top-1", {"more": "is better", "less": "is worse"},
        lambda g: model.estimated(accuracy_of(g), percent), points,
        "a seed failed, the test images differ, or predictions.npz is missing",
    ),
    "images_per_s": MeasureWords(
        "train images/s", {"more": "is faster", "less": "is slower"}, _rate_cell, times, "",
        ("†: effective images/s (a frozen part was computed once, or there are phases); all other "
         "rates are those of whole steps.",),
    ),
    "fit_s": MeasureWords(
        "fit time", {"more": "takes longer", "less": "takes less time"},
        lambda g: model.speed_cell(g, "fit_s", "s"), times, "",
    ),
}  # fmt: skip
"""Name of a measure → its words."""


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
    a: Sequence[StoredRun], b: Sequence[StoredRun], names: FolderNames,
    whole: BothFolders | None = None,
) -> FolderComparison:  # fmt: skip
    """Compare the runs ``a`` and ``b`` of two results folders.

    ``whole`` are all runs of both, among which failed seeds are counted; None: the same.
    """
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    pairs, unmatched = analysis.match(a, b)
    groups = analysis.seed_group_pairs(pairs, whole or (a, b))
    compared = compare_measures(groups)
    measures = {name: [c for c in compared if c.measure == name] for name in WORDS}
    # Without common runs, the first of each backend show what differs around them.
    there = {run.spec.backend: run for run in reversed(b)}
    firsts = {run.spec.backend: run for run in reversed(a) if run.spec.backend in there}
    around = pairs or [(run, there[backend]) for backend, run in firsts.items()]
    found = analysis.differences(around)
    apart = [] if pairs else analysis.fields_apart(a, b)
    tables = [
        *(_measure_table(name, groups, mine, names) for name, mine in measures.items()),
        _words_table(
            "environments",
            "Differences in the environment",
            "Machine, driver, versions, environment variables, and settings read back from the "
            "frameworks. Compared between runs of the same spec or, if there are none, the first "
            "run of each backend.",
            {"what": "what", "first": names[0], "second": names[1], "backends": "backends"},
            [(*_difference_texts(what), ", ".join(backends)) for what, backends in found.items()],
        ),
        _words_table(
            "not_compared",
            "Runs that were not compared",
            "Runs of one folder only, and runs that are not ok in both folders.",
            {"run_id": "run", "first_status": names[0], "second_status": names[1], "reason": "why"},
            [(run.run_id, run.first, run.second, run.reason) for run in unmatched],
        ),
    ]
    devices = Counter((a.spec.device, b.spec.device) for a, b in around)
    moved = [f"{number_of(n, 'run')} on {x} and {y}" for (x, y), n in devices.items() if x != y]
    again = sum(a.key == b.key for a, b in pairs)
    are, them = ("is", "it") if again == 1 else ("are", "them")
    unsteady = sum(a.is_unsteady or b.is_unsteady for a, b in groups)
    sentences = applicable({
        _counted(pairs, len(groups), unmatched, names): True,
        _apart(apart, names): apart,
        f"'{names[0]}' and '{names[1]}' ran on different devices ({listed(moved)}). Accuracies "
        "remain comparable; ratios of speed mainly compare the devices.": moved,
        _environments(found, around): around,
        f"{number_of(again, 'run')} of the same environment {are} in both folders. The other "
        f"tables of the page use the results of '{names[1]}' for {them}.": again,
        **{_changes(WORDS[name], mine, names[1]): mine for name, mine in measures.items()},
        f"Speeds of {unsteady} of {number_of(len(groups), 'experiment')} are not compared. "
        f"{UNSTEADY_NOTE}": unsteady,
    })  # fmt: skip
    return FolderComparison([table for table in tables if table.rows], sentences)


def _counted(
    pairs: RunPairs, experiments: int, unmatched: Sequence[Unmatched], names: FolderNames
) -> str:
    """Return a sentence on how many runs were compared and how many were not."""
    changes = Counter(u.change for u in unmatched)
    left = [
        (sum(u.second is None for u in unmatched), f"only in '{names[0]}'"),
        (sum(u.first is None for u in unmatched), f"only in '{names[1]}'"),
        (changes["worse"], f"ok in '{names[0]}' and not in '{names[1]}'"),
        (changes["mended"], f"ok in '{names[1]}' and not in '{names[0]}'"),
        (changes["other"], "in both folders, but ok in neither or in several environments"),
    ]
    rest = ", ".join(f"{number_of(n, 'run')} {where}" for n, where in left if n)
    if not pairs:
        return (
            f"Nothing was compared: '{names[0]}' and '{names[1]}' share no spec of which both have "
            f"a successful run. Not compared: {rest}."
        )
    runs = f"{number_of(len(pairs), 'run')} of {number_of(experiments, 'experiment')}"
    moved = any(a.spec.device != b.spec.device for a, b in pairs)
    text = f"'{names[0]}' and '{names[1]}' were compared in {runs}, of the same spec"
    text += " but for the device." if moved else "."
    return f"{text} Not compared: {rest}." if rest else text


def _apart(fields: Sequence[analysis.FieldDifference], names: FolderNames) -> str:
    """Return a sentence on the settings of which two folders have no value in common."""
    texts = [
        f"{name.replace('_', ' ')} ({_short(first)} in '{names[0]}', {_short(second)} in "
        f"'{names[1]}')"
        for name, first, second in fields
    ]
    return f"The folders differ in {some_of(texts, MOST_DIFFERENCES)}."


def _short(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


def _environments(found: Iterable[EnvironmentDifference], pairs: RunPairs) -> str:
    """Return a sentence on the differences around the runs."""
    texts = map(_difference_texts, found)
    named = [f"{name} ({first} → {second})" for name, first, second in texts]
    if named:
        return f"Differences in the environment: {some_of(named, MOST_DIFFERENCES)}."
    if any(a.spec != b.spec for a, b in pairs):
        return "No difference in the environment was recorded."
    return (
        "No difference in the environment was recorded: this is one experiment and its repetition. "
        "Versions, machine, variables and Thawbench's code are the same."
    )


def _difference_texts(difference: EnvironmentDifference) -> tuple[str, str, str]:
    """Return the name of what differs, and its values in both folders."""
    kind, name, first, second = difference
    machine = MACHINE_NAMES.get(name, name)
    named = machine if kind == "machine" else DIFFERENCE_NAMES[kind].format(name)
    return named, ABSENT if first is None else first, ABSENT if second is None else second


def _changes(words: MeasureWords, compared: Sequence[Compared], second: str) -> str:
    """Return a sentence on the changes of a measure, to the ``second`` folder."""
    known = [c for c in compared if c.estimate.low is not None]
    of_all, parts = f"of {number_of(len(compared), 'comparison')}", []
    for change, word in words.words.items():
        if real := [c for c in known if c.change == change]:
            most = max(real, key=lambda c: c.size)
            where = ", ".join(_identity(most.a))
            parts.append(
                f"'{second}' {word} in {len(real):,} {of_all} "
                f"({'most: ' if real[1:] else ''}{words.shown(most.estimate)} for {where})"
            )
    if same := sum(c.change is None for c in known):
        parts.append(f"no difference is shown in {same:,} {of_all}")
    if unknown := len(compared) - len(known):
        parts.append(f"no interval in {unknown:,} {of_all}: {words.lacking}")
    sentences = [*parts[:1], *map(_capitalised, parts[1:])]
    return f"{_capitalised(words.title)}: {'. '.join(sentences)}."


def _capitalised(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _measure_table(
    name: str, groups: Sequence[tuple[SeedGroup, SeedGroup]], compared: Sequence[Compared],
    names: FolderNames,
) -> Table:  # fmt: skip
    words, found_of = WORDS[name], {id(c.a): c for c in compared}
    kind, sign = ("difference", "−") if name == "top1" else ("ratio", "/")
    known = [
        _Line(a, b, found, setting)
        for (a, b), setting in zip(groups, _settings(groups), strict=True)
        if (found := found_of.get(id(a))) is not None
    ]
    extra = list(known[0].setting) if known else []

    def of_first(cell: Callable[[SeedGroup], TableCell]) -> Callable[[_Line], TableCell]:
        return lambda line: cell(line.a)

    def setting(name: str) -> Callable[[_Line], TableCell]:
        return lambda line: text(line.setting[name])

    columns: list[Column[_Line]] = [
        *(
            Column(c.name, c.heading, of_first(c.cell), c.right)
            for c in model.group_columns("data, images")
        ),
        *(Column(name, name.replace("_", " "), setting(name)) for name in extra),
        Column("seeds", "seeds", lambda line: model.number(len(line.a.seeds)), True),
        Column(f"first_{name}", names[0], lambda line: words.side(line.a), True),
        Column(f"second_{name}", names[1], lambda line: words.side(line.b), True),
        Column(f"{kind}_{name}", f"{kind}, {names[1]} {sign} {names[0]}",
               lambda line: model.estimated(line.found.estimate, words.shown), True),
        Column("p_corrected", "corrected p", lambda line: model.number(
            line.found.p, lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}"), True),
        Column("verdict", "verdict", lambda line: text(verdict(line.found, names))),
    ]  # fmt: skip
    notes = dict.fromkeys(words.notes, True) | {
        f"no interval: {words.lacking}.": any(c.estimate.low is None for c in compared)
    }
    title = f"{_capitalised(words.title)}: {names[0]} and {names[1]}"
    return table_of(known, columns, f"side_by_side_{name}", title, INTERVALS, notes)


@dataclass(frozen=True)
class _Line:
    """A row of a table: one experiment in both folders."""

    a: SeedGroup
    b: SeedGroup
    found: Compared
    setting: dict[str, str]
    """Fields without which it would look like another row."""


def _identity(group: SeedGroup) -> list[str]:
    return [column.cell(group).text for column in model.group_columns()]


def _settings(groups: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[dict[str, str]]:
    """Return for each experiment the fields without which two of them would look alike."""
    rows = [
        {
            **{k: v for k, v in a.row.fields.items() if k not in DIFFERING and k != "seed"},
            "environments": f"{a.row.result.environment_id}, {b.row.result.environment_id}",
            "run_id": a.row.result.run_id,
        }
        for a, b in groups
    ]
    looks = [tuple(_identity(a)) for a, _ in groups]
    names = distinguishing_fields(rows, list(rows[0]) if rows else [], looks, all_fields=False)
    return [{name: str(row[name]) for name in names} for row in rows]


def verdict(found: Compared, names: FolderNames) -> str:
    """Return in words whether the difference is significant."""
    if found.estimate.low is None:
        return "no interval"
    if found.change:
        return f"significant: {names[1]} {WORDS[found.measure].words[found.change]}"
    return "no difference shown" + (" after correction" if found.estimate.excludes_neutral else "")


def _words_table(
    name: str, title: str, caption: str, headings: Mapping[str, str],
    lines: Iterable[Sequence[str | None]],
) -> Table:  # fmt: skip
    """Return a table of texts; ``headings`` are by name of the column."""
    columns = [TableColumn(*column) for column in headings.items()]
    rows = [list(map(text, line)) for line in lines]
    return Table(f"side_by_side_{name}", title, caption, columns, rows)
