"""The table that fills in on a terminal while a grid runs, and a bar with the time left below it.

It vanishes at the end: the command prints the standard table then.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.progress import RunClock, duration, end_text, label, share_of, words
from bench.result import RunResult
from bench.spec import RunSpec

PER_SECOND = 1
"""Drawings: the measured runs have the same cores."""
AROUND = 6
"""Lines beside the rows of runs: title, heading with its rule, counts, bar, and the cursor's."""
BAR_WIDTH = 30
STATUS_WIDTH = (14, 34)
"""Least and most; the least holds 'epoch 10/12 …'."""
FIGURES_WIDTH = 22
"""Of top-1, images/s and fit time, with a space before each."""
ABSENT = "–"

FIELDS: dict[str, Callable[[RunSpec], Any]] = {
    "case": lambda spec: spec.case.number or ABSENT,
    "data": lambda spec: f"{spec.case.dataset.name} ({spec.case.dataset.train_images})",
    "backbone": lambda spec: spec.backbone,
    "code": lambda spec: (spec.code_sha256 or ABSENT)[:8],
    "policy": lambda spec: spec.policy.name,
    "boundary": lambda spec: spec.policy.boundary,
    "mode": lambda spec: spec.mode,
    "backend": lambda spec: spec.backend,
    "precision": lambda spec: spec.recipe.precision,
    "head": lambda spec: spec.recipe.head,
    "rate": lambda spec: f"{spec.recipe.learning_rate:g}",
    "decay": lambda spec: f"{spec.recipe.weight_decay:g}",
    "device": lambda spec: spec.device,
    "seed": lambda spec: spec.seed,
}
"""Heading → what it shows of a run; the words come before what they belong to."""
ALWAYS = ("backbone", "policy", "backend")
SAID_ONCE = ("case", "data", "seed", "device")
"""Fields that the title says where all runs have the same."""


def columns_of(runs: Sequence[RunSpec], width: int | None = None) -> list[str]:
    """Fields without which two runs would look the same, and a few that always help.

    Args:
        runs: All of the grid.
        width: Of the terminal, in characters: where the table would be wider, those that help go,
            all but the first. None: it is wide enough.
    """
    varying = [name for name in SAID_ONCE if len({FIELDS[name](spec) for spec in runs}) > 1]
    shown = _telling(runs, [*ALWAYS, *varying])
    if width is None or _width(runs, shown) + STATUS_WIDTH[0] + FIGURES_WIDTH <= width:
        return shown
    return _telling(runs, ALWAYS[:1])


def _telling(runs: Sequence[RunSpec], always: Sequence[str]) -> list[str]:
    """Some fields, and all others that tell two runs apart which look the same without them."""
    shown = list(always)
    looks = {tuple(FIELDS[name](spec) for name in shown) for spec in runs}
    for name in FIELDS:
        more = {tuple(FIELDS[n](spec) for n in (*shown, name)) for spec in runs}
        if len(more) > len(looks):
            looks = more
            shown.append(name)
    return [name for name in FIELDS if name in shown]


def _width(runs: Sequence[RunSpec], names: Sequence[str]) -> int:
    """Of these columns, uncut, each with a space after it."""
    longest = [max(len(str(FIELDS[name](spec))) for spec in runs) for name in names]
    return sum(1 + max(len(n), most) for n, most in zip(names, longest, strict=True))


@dataclass
class Line:
    """A run that has begun."""

    spec: RunSpec
    status: str
    result: RunResult | None = None


class LiveDisplay:
    """One row a run: the latest that ended, and the current one."""

    def __init__(self, runs: Sequence[RunSpec], console: Console) -> None:
        self._clock = RunClock(runs)
        self._began = time.monotonic()
        self._total = len(runs)
        self._columns = columns_of(runs, console.width)
        self._names_width = _width(runs, self._columns)
        values = {name: {str(FIELDS[name](spec)) for spec in runs} for name in SAID_ONCE}
        self._title = ", ".join(
            f"{name} {found.pop()}"
            for name, found in values.items()
            if len(found) == 1 and ABSENT not in found
        )
        self._lines: list[Line] = []
        self._ended: Counter[str] = Counter()
        self._reasons: set[str] = set()
        self._live = Live(self, console=console, refresh_per_second=PER_SECOND, transient=True)
        self._live.start()

    def note(self, text: str) -> None:
        """Above the table, where it stays."""
        self._live.console.print(Text(_printable(text, keep="\n")))

    def begin(self, spec: RunSpec) -> None:
        self._clock.begin(spec)
        self._lines.append(Line(spec, "starting"))

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        if (share := share_of(event)) is not None:
            self._clock.heard(share)
        said = words(event)
        if event["event"] == "step" and self._lines[-1].status == "starting":
            said = "training"
        if said is not None:
            self._lines[-1].status = said

    def end(self, spec: RunSpec, result: RunResult) -> None:
        self._clock.end(result.status == "ok")
        line = self._lines[-1]
        line.result, line.status = result, result.status
        self._ended[result.status] += 1
        if result.status == "ok":
            return
        line.status = said = end_text(result)
        if said not in self._reasons:  # the table has no room for the whole of it
            self._reasons.add(said)
            self.note(f"{label(spec)}: {said}")

    def close(self) -> None:
        self._live.stop()
        self.note(f"{self._counts()} in {duration(time.monotonic() - self._began)}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(console.height - AROUND, 1)
        if self._title:
            yield _cut(self._title)
        yield self._table(self._lines[-room:], options.max_width)
        yield _cut(self._counts())
        yield self._bar(options.max_width)

    def _table(self, lines: Sequence[Line], width: int) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
        for name in self._columns:
            table.add_column(name, justify="right" if name in ("case", "seed") else "left")
        least, most = STATUS_WIDTH
        room = width - self._names_width - FIGURES_WIDTH
        table.add_column("status", width=min(max(room, least), most))
        for name in ("top-1", "images/s", "fit s"):
            table.add_column(name, justify="right", no_wrap=True)
        for line in lines:
            cells = [str(FIELDS[name](line.spec)) for name in self._columns]
            table.add_row(*map(_cut, [*cells, line.status, *figures(line.result)]))
        return table

    def _counts(self) -> str:
        ended = self._ended.total()
        failed = [f"{n} {status}" for status, n in list(self._ended.items()) if status != "ok"]
        counts = [f"{self._ended['ok']} ok", *failed, f"{self._total - ended} left"]
        return f"{ended} of {self._total} runs done: {', '.join(counts)}"

    def _bar(self, width: int) -> Table:
        share = self._clock.done_share()
        so_far, left = duration(time.monotonic() - self._began), duration(self._clock.left_s())
        said = f"{share:.0%}, {so_far} so far, {left} left"
        bar = ProgressBar(
            total=1.0, completed=share, width=min(BAR_WIDTH, max(width - len(said) - 1, 1))
        )
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_row(bar, _cut(said))
        return row


def _cut(value: str) -> Text:
    """Text as it is, on one line."""
    return Text(" ".join(_printable(value).split()), no_wrap=True, overflow="ellipsis")


def _printable(value: str, keep: str = "") -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in keep else " " for c in value)


def figures(result: RunResult | None) -> tuple[str, str, str]:
    """Test top-1, images/s (with * those that hold a prefix computed once) and fit time in s."""
    if result is None or result.status != "ok":
        return "", "", ""
    top1, rate, effective = (
        result.test_top1,
        result.train_images_per_s,
        result.effective_images_per_s,
    )
    return (
        ABSENT if top1 is None else f"{top1:.1%}",
        f"{rate:.0f}" if rate else f"{effective:.0f} *" if effective else ABSENT,
        ABSENT if result.fit_s is None else f"{result.fit_s:.1f}",
    )
