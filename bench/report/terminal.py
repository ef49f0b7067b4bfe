"""Format the table of runs to the terminal's width, with shared values in a line above."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.analysis.contests import accuracy_of
from bench.analysis.groups import SeedGroup
from bench.analysis.intervals import Estimate
from bench.analysis.rows import Row
from bench.data.registry import qualifier_of
from bench.report.format import ABSENT, three_digits
from bench.report.notes import EDGE_MARK
from bench.report.tables.model import Table
from bench.report.tables.runs import (
    UNSTEADY_MARK,
    column_texts,
    columns_of,
    heading,
    holds_numbers,
)
from bench.storage.text_files import printable

LEAST_NAME = 10
"""Fewest characters to which a name is shortened."""
PADDING = 2
"""Spaces between two columns."""
NAMING = ("case", "data", "backbone", "policy", "backend", "seed", "fold")
"""Columns that name a run."""
MOST_VALUES = 3
"""Most words in the line above the table for a setting that varies."""


@dataclass(frozen=True)
class Column:
    """A column of the table on a terminal."""

    name: str
    heading: str
    texts: Callable[[Sequence[Row]], list[str]]
    importance: int
    """Columns of a lower number are kept longer; 0: always."""
    is_number: bool = True


def _rate(field: str) -> Callable[[Sequence[Row]], list[str]]:
    def texts(rows: Sequence[Row]) -> list[str]:
        return [
            ABSENT if not row[field]
            else three_digits(row[field]) + (UNSTEADY_MARK if row.unsteady else "")
            for row in rows
        ]  # fmt: skip

    return texts


def _of(field: str, words: Callable[[Any], str]) -> Callable[[Sequence[Row]], list[str]]:
    return lambda rows: [ABSENT if row[field] is None else words(row[field]) for row in rows]


def _fits(rows: Sequence[Row]) -> list[str]:
    """Return the time of each fit in seconds, with as many decimals in all rows."""
    fits = [row.result.fit_s for row in rows]
    decimals = 1 if min((fit for fit in fits if fit), default=1.0) >= 0.1 else 3
    return [ABSENT if fit is None else f"{fit:,.{decimals}f}" for fit in fits]


def _accuracies(rows: Sequence[Row]) -> list[str]:
    """Return the accuracy of each run in percent, with half of its interval over seeds and test
    images, or the whole interval near 0 and 100 %."""
    return [
        ABSENT
        if row.result.test_top1 is None
        else _plus_minus(accuracy_of(SeedGroup((row,)))) + (EDGE_MARK if row.is_at_edge else "")
        for row in rows
    ]


def _plus_minus(e: Estimate) -> str:
    half = e.half_width
    if e.low is None or e.high is None or half is None:
        return f"{100 * e.value:.1f}"
    if not half <= e.value <= 1.0 - half:  # near 0 and 100 %, ± would leave the possible range
        return f"{100 * e.value:.1f} ({100 * e.low:.0f} to {100 * e.high:.0f})"
    return f"{100 * e.value:.1f} ± {100 * half:.{1 if half < 0.0995 else 0}f}"


def _data(rows: Sequence[Row]) -> list[str]:
    names = [row.dataset.name for row in rows]
    if any(row.dataset.fold for row in rows):
        return names
    return [f"{name} {row.dataset.train_images:,}" for name, row in zip(names, rows, strict=True)]


MEASURED = (
    Column("test_top1", "top-1 %", _accuracies, 0),
    Column("fit_s", "fit s", _fits, 1),
    Column("train_images_per_s", "train img/s", _rate("train_images_per_s"), 2),
    Column("effective_images_per_s", "effective img/s", _rate("effective_images_per_s"), 5),
    Column("trainable_parameters", "trained", _of("trainable_parameters", "{:,}".format), 3),
    Column("infer_images_per_s", "infer img/s", _rate("infer_images_per_s"), 4),
    Column("model_flop_utilisation", "MFU", _of("model_flop_utilisation", "{:.0%}".format), 6),
)  # fmt: skip
"""Measured columns; the others are settings."""
HIDDEN = frozenset({
    "size", "similarity", "dataset_label", "train_images", "test_top1", "total_parameters",
    *(column.name for column in MEASURED),
})  # fmt: skip
"""Columns of the full table that are shown otherwise, or not at all."""


def _settings(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of what was run, those that name a run first."""
    order = [name for name in columns_of(rows) if name not in HIDDEN]
    named = [Column("data", "data", _data, 0, is_number=False)]
    for name in sorted(
        order, key=lambda name: NAMING.index(name) if name in NAMING else len(NAMING)
    ):
        texts = partial(column_texts, column=name)
        importance = {"case": 7, "pairing": 6}.get(name, 0)
        named.append(Column(name, heading(name), texts, importance, holds_numbers(rows, name)))
    return sorted(named, key=lambda column: column.name != "case")


Shown = list[tuple[Column, list[str]]]
"""Columns with their texts."""


def runs_on_terminal(rows: Sequence[Row], width: int) -> str:
    """Return the table of runs, at most ``width`` characters wide. What all rows share, and
    settings that follow from the others, stand in a line above; columns that do not fit are left
    out, the least important first; and if what names the runs does not fit, there is a block for
    each run."""
    if not rows:
        return "There are no runs."
    settings = [(column, column.texts(rows)) for column in _settings(rows)]
    measured = [(column, column.texts(rows)) for column in MEASURED]
    known = [(c, texts) for c, texts in measured if any(text != ABSENT for text in texts)]
    varied = _telling(settings)
    above = [_in_words(c, texts) for c, texts in settings if all(c is not v for v, _ in varied)]
    qualifiers = dict.fromkeys(qualifier_of(row.dataset.name) for row in rows)
    above += [f"{name} data" for name in qualifiers if name]
    line = _wrapped(", ".join(filter(None, above)), width)
    shown, left_out = [*varied, *known], list[str]()
    while _width(shown) > width:
        least = max(shown, key=lambda pair: pair[0].importance)
        if least[0].importance == 0:
            break
        shown.remove(least)
        left_out.append(least[0].heading)
    if _width(shown) > width:
        shown = _shortened(shown, width)
    if _width(shown) > width:
        return "\n\n".join([line, *_blocks(varied, known, width)])
    missing = _wrapped(_not_shown(left_out, width), width)
    return "\n".join(filter(None, [line, _drawn(shown, width), missing]))


def columns_on_terminal(rows: Sequence[Row], names: Sequence[str], width: int) -> str:
    """Return a table of the fields that a user named; long names are shortened to ``width``, and
    where that is not enough, the lines are longer."""
    shown = []
    for name in names:
        texts = column_texts(rows, name)
        shown.append((Column(name, heading(name), lambda rows: [], 0, holds_numbers(rows, name)),
                      texts))  # fmt: skip
    shown = _shortened(shown, width)
    return _drawn(shown, max(width, _width(shown)))


def _telling(settings: Shown) -> Shown:
    """Return the columns that name a run and vary, at least the policy; and others that distinguish
    rows which would look alike without them."""
    found = [(c, texts) for c, texts in settings if c.name in NAMING and len(set(texts)) > 1]
    found += [(c, texts) for c, texts in settings if c.name == "policy" and not found]
    looks = [tuple(texts[n] for _, texts in found) for n in range(len(settings[0][1]))]
    for column, texts in settings:
        if column.name in NAMING:
            continue
        finer = [(*look, text) for look, text in zip(looks, texts, strict=True)]
        is_news = column.name in ("status", "pairing") and len(set(texts)) > 1
        if len(set(finer)) > len(set(looks)) or is_news:
            found.append((column, texts))
            looks = finer
    return found


def _in_words(column: Column, texts: Sequence[str]) -> str:
    """Return what rows share, or the range of a number that varies; empty if there is nothing to
    say."""
    values = list(dict.fromkeys(text for text in texts if text != ABSENT))
    if not values or (column.name == "status" and values == ["ok"]):
        return ""
    if column.name in ("data", "backbone", "policy", "backend"):
        return values[0]
    if column.name == "weights" and len(values) <= MOST_VALUES:
        return " or ".join(values)
    if len(values) == 1:
        return f"{column.heading} {values[0]}"
    if column.is_number:
        ordered = sorted(values, key=lambda value: float(value.replace(",", "")))
        return f"{column.heading} {ordered[0]} to {ordered[-1]}"
    return f"{column.heading} {' or '.join(values)}" if len(values) <= MOST_VALUES else ""


def _width(shown: Sequence[tuple[Column, list[str]]]) -> int:
    widths = [max(len(column.heading), *map(len, texts)) for column, texts in shown]
    return sum(widths) + PADDING * len(widths)


def _shortened(shown: list[tuple[Column, list[str]]], width: int) -> list[tuple[Column, list[str]]]:
    """Shorten the longest names until the table fits, as long as different ones stay different."""
    found = [(column, list(texts)) for column, texts in shown]
    while _width(found) > width:
        names = [
            n for n, (c, texts) in enumerate(found)
            if not c.is_number and max(map(len, texts)) > max(LEAST_NAME, len(c.heading))
        ]  # fmt: skip
        if not names:
            break
        place = max(names, key=lambda n: max(map(len, found[n][1])))
        column, texts = found[place]
        most = max(map(len, texts)) - 1
        cut = [_middle_cut(text, most) for text in texts]
        if len(set(cut)) < len(set(texts)):
            break
        found[place] = (column, cut)
    return found


def _middle_cut(text: str, most: int) -> str:
    """Return a text of at most so many characters: its beginning and its end."""
    if len(text) <= most:
        return text
    behind = (most - 1) // 2
    return f"{text[: most - 1 - behind]}…{text[len(text) - behind :]}"


def _drawn(shown: Sequence[tuple[Column, list[str]]], width: int) -> str:
    headings = [(column.heading, column.is_number, True) for column, _ in shown]
    return _rendered(headings, zip(*(texts for _, texts in shown), strict=True), width)


def _rendered(
    headings: Sequence[tuple[str, bool, bool]], rows: Iterable[Iterable[str]], width: int
) -> str:
    """Return a table as plain text of at most ``width`` characters a line; each heading comes with
    True if the column is aligned to the right, and True if it never wraps."""
    table = RichTable(
        box=SIMPLE_HEAD, padding=(0, PADDING - 1, 0, 0), show_edge=False, pad_edge=False
    )
    for words, is_right, no_wrap in headings:
        table.add_column(Text(words), justify="right" if is_right else "left", no_wrap=no_wrap)
    for cells in rows:
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=False, color_system=None, legacy_windows=False
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def _blocks(
    settings: Sequence[tuple[Column, list[str]]],
    measured: Sequence[tuple[Column, list[str]]], width: int,
) -> list[str]:  # fmt: skip
    """Return a block of lines for each run."""
    count = len((settings or measured)[0][1])
    blocks = []
    for n in range(count):
        title = ", ".join(texts[n] for _, texts in settings)
        values = ", ".join(f"{c.heading} {texts[n]}" for c, texts in measured if texts[n] != ABSENT)
        blocks.append(f"{_wrapped(title, width)}\n{_wrapped(values, width, '  ')}".rstrip())
    return blocks


def _wrapped(text: str, width: int, indent: str = "") -> str:
    """Return text in lines of at most ``width`` characters."""
    lines = textwrap.wrap(printable(text), max(width, 20), initial_indent=indent,
                          subsequent_indent=indent or "  ", break_on_hyphens=False)  # fmt: skip
    return "\n".join(lines)


LONG = frozenset({"reason", "verdict", "what", "first", "second", "setting"})
"""Columns of words, which wrap where they must and are never left out."""
SHARED = frozenset({"data", "backbone", "policy", "backend", "backends", "seeds"})
"""Columns that go into the line above another table if all rows share them."""
MISSED = ("seeds", "p_corrected", "first_", "second_")
"""Prefixes of columns that a comparison may leave out on a terminal; its files have them."""
LEAST_WORDS = 24
"""Characters to which a column of words may be narrowed."""


def table_on_terminal(table: Table, width: int, is_whole: bool = True) -> str:
    """Return a table other than that of runs, at most ``width`` characters wide.

    If it is too wide, columns that all rows share go into the line above, then the columns named in
    ``MISSED`` are left out (and the last ones, unless ``is_whole``), and finally words wrap. A line
    below names the columns that were left out.
    """
    columns = table.columns
    widths = [
        max(len(column.heading), *(len(row[n].text) for row in table.rows), 0) + PADDING
        for n, column in enumerate(columns)
    ]
    for n, column in enumerate(columns):
        if column.name in LONG:
            widths[n] = min(widths[n], LEAST_WORDS)
    shown, above, missing = list(range(len(columns))), list[str](), list[str]()

    def is_too_wide() -> bool:
        return sum(widths[n] for n in shown) > width

    for n in list(shown) if is_too_wide() else ():
        texts = {row[n].text for row in table.rows}
        if columns[n].name in SHARED and len(texts) == 1:
            shown.remove(n)
            above.append(f"{columns[n].heading} {texts.pop()}")
    while is_too_wide():
        idle = [n for n in shown[1:] if columns[n].name.startswith(MISSED)]
        if not idle and not is_whole:
            idle = [n for n in shown[1:] if columns[n].name not in LONG]
        if not idle:
            break
        shown.remove(idle[-1])
        missing.append(columns[idle[-1]].heading)
    wraps = is_too_wide()
    headings = [
        (c.heading, c.right, c.name in SHARED or not (wraps or c.name in LONG))
        for c in (columns[n] for n in shown)
    ]
    named = [n for n in shown if columns[n].name in SHARED]
    most = max(LEAST_NAME, width // 2 // max(len(named), 1)) if wraps else width
    rows = (
        [_middle_cut(row[n].text, most) if n in named else row[n].text for n in shown]
        for row in table.rows
    )
    lines = [
        _wrapped("; ".join([table.title, *above]), width),
        _rendered(headings, rows, width),
        _wrapped(_not_shown(missing, width), width),
    ]
    return "\n".join(filter(None, lines))


def _not_shown(headings: Sequence[str], width: int) -> str:
    """Return a line that names the columns that were left out; empty without any."""
    return f"not shown in {width} columns: {', '.join(reversed(headings))}" if headings else ""
