"""The table that fills in on a terminal while a grid runs, and a bar with the time left below it.

It vanishes at the end: the command prints the standard table then.


Progress of a proof on standard error: a bar on a terminal, plain lines elsewhere.

What is going on, on standard error: a table on a terminal (bench/live.py), plain lines
elsewhere; and the time left, from the speed measured so far."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.parity.model import PairProof
from bench.parity.plan import Subject
from bench.runner.display import Display
from bench.spec.result import RunResult
from bench.spec.run import RECIPE_OPTIONS, RunSpec
from bench.training.sweep import sweep_key

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


def _recipe_text(name: str, spec: RunSpec) -> str:
    value = getattr(spec.recipe, name)
    return f"{value:g}" if isinstance(value, float) else str(value)


FIELDS: dict[str, Callable[[RunSpec], Any]] = {
    "case": lambda spec: spec.case.number or ABSENT,
    "data": lambda spec: f"{spec.case.dataset.name} ({spec.case.dataset.train_images})",
    "backbone": lambda spec: spec.backbone,
    "code": lambda spec: (spec.code_sha256 or ABSENT)[:8],
    "policy": lambda spec: spec.policy.name,
    "boundary": lambda spec: spec.policy.boundary,
    "mode": lambda spec: spec.mode,
    "backend": lambda spec: spec.backend,
    **{
        declared.option.heading: partial(_recipe_text, name)
        for name, declared in RECIPE_OPTIONS.items()
    },
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


def _say_line(line: str) -> None:
    """In one piece, for several proofs are at work."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class ProofLines:
    """Progress as plain lines, with the time left."""

    def __init__(self, total: float) -> None:
        self._clock = WorkClock(total)

    def __enter__(self) -> ProofLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measuring(self, subject: Subject, backend: str) -> None:
        _say_line(
            f"[{duration(self._clock.left_s())} left] {subject.backbone} {subject.precision} "
            f"{backend}: {len(subject.items)} measurements"
        )

    def measured(self) -> None:
        self._clock.done += 1

    def proved(self, pair: PairProof) -> None:
        _say_line(f"    {summary(pair)}")


class ProofBar(ProofLines):
    """Progress as a bar."""

    def __init__(self, total: float) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> ProofBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def measuring(self, subject: Subject, backend: str) -> None:
        words = f"{subject.backbone} {subject.precision} {backend}"
        self._progress.update(self._task, description=words)  # of those at work, the latest

    def measured(self) -> None:
        self._progress.advance(self._task)

    def proved(self, pair: PairProof) -> None:
        self._progress.console.print(summary(pair), markup=False, highlight=False)


def summary(pair: PairProof) -> str:
    """A pair in a line."""
    what = (
        f"{pair.backbone} {pair.policy} {pair.optimizer} {pair.dtype} {' = '.join(pair.backends)}"
    )
    return f"{what}: {'shown' if pair.passed else pair.reason}"


def watcher(subjects: Sequence[Subject], backends: int) -> ProofLines:
    """The one that suits standard error."""
    total = float(sum(len(subject.items) for subject in subjects) * backends)
    return ProofBar(total) if sys.stderr.isatty() else ProofLines(total)


BACKWARD_COST = 2.0
"""A backward pass costs about two forward passes; for the share of work that a run is."""


def label(spec: RunSpec) -> str:
    """A run in a few words."""
    case = f"case {spec.case.number} " if spec.case.number else ""
    images = f"{spec.case.dataset.name} ({spec.case.dataset.train_images})"
    native = "native " if spec.mode == "native" else ""
    code = f" (code {spec.code_sha256[:8]})" if spec.code_sha256 else ""
    what = f"{spec.backbone}{code} {spec.policy.name} {native}{spec.backend}"
    recipe = spec.recipe
    swept = f" rate {recipe.learning_rate:g} decay {recipe.weight_decay:g}" if recipe.sweep else ""
    return f"{case}{images} {what} seed {spec.seed}{swept}"


def work(spec: RunSpec) -> float:
    """Forward passes over one image that a run is worth, for the time left."""
    data = spec.case.dataset
    trained = 0.0 if spec.policy.boundary == "head" else BACKWARD_COST
    passes = spec.recipe.epochs * (data.train_images * (1 + trained) + data.val_images)
    return (passes + data.test_images) * spec.recipe.px**2


@dataclass
class WorkClock:
    """Work done and time left, from the speed measured so far."""

    total: float
    done: float = 0.0
    current: float = 0.0
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = time.monotonic()

    def left_s(self) -> float | None:
        finished = self.done + self.current
        if finished <= 0:
            return None
        return (time.monotonic() - self.began) * (self.total - finished) / finished


@dataclass(frozen=True)
class MeasuredPace:
    """What was measured of some kind of work."""

    seconds: float = 0.0
    """That it took."""
    work: float = 0.0
    """That was done."""


SpeedKind = tuple[Hashable, ...]


def kinds(spec: RunSpec) -> tuple[SpeedKind, ...]:
    """What runs of about the same cost have in common, the nearest kind first, everything last.

    A pass over an image costs twenty times as much through one network as through another, and
    what is frozen may be computed once or in every epoch; so a backend's speed is that of its
    other runs only until such a one has been seen.
    """
    recipe, place = spec.recipe, (spec.backend, spec.device)
    how = (spec.policy.name, spec.policy.boundary, spec.mode, recipe.precision, recipe.sweep)
    once = (recipe.augmentation, recipe.views, recipe.prefix_cache, len(recipe.learning_rate_grid))
    return (*place, spec.backbone, *how, *once), (*place, spec.backbone), place, ()


class RunClock:
    """Time left of a grid: each run's work at the speed of the nearest kind measured so far.

    A run that has ended counts with all its time, so that what starting a worker takes is shared
    by the runs of its kind; one that failed counts as far as it came. The current one counts from
    the first that it said of its training on: what it did before comes once.

    Args:
        runs: All of the grid.
        now: In seconds.
    """

    def __init__(self, runs: Sequence[RunSpec], now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._work: dict[str, float] = defaultdict(float)
        together: dict[Hashable, str] = {}
        for spec in runs:
            key = sweep_key(spec)  # those of a sweep are trained in the time of the first
            first = spec.run_id if key is None else together.setdefault(key, spec.run_id)
            self._work[first] += work(spec)
        self._chains = {kinds(spec)[0]: kinds(spec) for spec in runs}
        self._waiting = dict.fromkeys(self._chains, 0.0)
        """Work of the runs that have not begun. A table reads it in a thread of its own: what is
        asked of a clock works on what it finds, and no dictionary grows under its hands."""
        for spec in runs:
            self._waiting[kinds(spec)[0]] += self._work[spec.run_id]
        self._total = sum(self._work.values())
        self._speeds: dict[SpeedKind, MeasuredPace] = {}
        self._current: RunSpec | None = None
        self._began = self._heard = 0.0
        self._share = 0.0
        self._first: tuple[float, float] | None = None
        """When the current run first said how far it had come, and how far."""

    def begin(self, spec: RunSpec) -> None:
        """A run starts."""
        self._waiting[kinds(spec)[0]] -= self._work[spec.run_id]
        self._current, self._share, self._first = spec, 0.0, None
        self._began = self._heard = self._now()

    def heard(self, share: float) -> None:
        """The current run has come so far."""
        self._share, self._heard = share, self._now()
        self._first = self._first or (self._heard, share)

    def end(self, is_ok: bool) -> None:
        """The current run has ended."""
        spec, share = self._current, 1.0 if is_ok else self._share
        self._current = None
        if spec is None or share == 0.0:
            return  # a run that came to nothing says nothing of speed
        took, done = self._now() - self._began, self._work[spec.run_id] * share
        known = {kind: self._speeds.get(kind, MeasuredPace()) for kind in kinds(spec)}
        more = {kind: MeasuredPace(s.seconds + took, s.work + done) for kind, s in known.items()}
        self._speeds = {**self._speeds, **more}

    def done_share(self) -> float:
        """Of all work, the part that is done: from 0 to 1."""
        current, waiting = self._current, sum(self._waiting.values())
        if current is not None:
            waiting += self._work[current.run_id] * (1.0 - self._share)
        return min(max(1.0 - waiting / self._total, 0.0), 1.0) if self._total else 1.0

    def left_s(self) -> float | None:
        """None where nothing has been measured yet."""
        current, left = self._current, 0.0
        speeds = self._with(current)
        for nearest, amount in self._waiting.items():
            pace = _pace(self._chains[nearest], speeds) if amount else 0.0
            if pace is None:
                return None
            left += amount * pace
        if current is not None:
            pace = _pace(kinds(current), speeds)
            if pace is None:
                return None
            rest = self._work[current.run_id] * (1.0 - self._share) * pace
            left += max(rest - (self._now() - self._heard), 0.0)
        return left

    def _with(self, current: RunSpec | None) -> dict[SpeedKind, MeasuredPace]:
        """What was measured, of the current run too."""
        first = self._first
        if current is None or first is None:
            return self._speeds
        began, share = first
        seconds, done = self._heard - began, self._work[current.run_id] * (self._share - share)
        known = {kind: self._speeds.get(kind, MeasuredPace()) for kind in kinds(current)}
        more = {kind: MeasuredPace(s.seconds + seconds, s.work + done) for kind, s in known.items()}
        return {**self._speeds, **more}


def _pace(chain: Sequence[SpeedKind], speeds: dict[SpeedKind, MeasuredPace]) -> float | None:
    """Seconds for a unit of work, of the nearest kind of which some was done."""
    for kind in chain:
        speed = speeds.get(kind)
        if speed is not None and speed.work > 0.0:
            return speed.seconds / speed.work
    return None


def share_of(event: dict[str, Any]) -> float | None:
    """How far a run has come, of those events that say it."""
    if event["event"] in ("epoch", "sweep"):
        return float(event["epoch"] / event["epochs"])
    return float(event["share"]) if event["event"] == "step" else None


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _epoch_text(event: dict[str, Any]) -> str:
    return (
        f"epoch {event['epoch']}/{event['epochs']} "
        f"loss {event['train_loss']:.3f} val {event['val_top1']:.1%}"
    )


def _sweep_text(event: dict[str, Any]) -> str:
    return f"epoch {event['epoch']}/{event['epochs']} best val {event['val_top1']:.1%}"


def _trial_text(event: dict[str, Any]) -> str:
    phase = f", phase {event['phase']} of {event['phases']}" if "phase" in event else ""
    return f"trying learning rate {event['number']} of {event['of']}{phase}"


def words(event: dict[str, Any]) -> str | None:
    """What an event says; None: nothing new."""
    if event["event"] == "epoch":
        return _epoch_text(event)
    if event["event"] == "sweep":
        return _sweep_text(event)
    if event["event"] == "trial":
        return _trial_text(event)
    return (
        f"computing the frozen part, {event['share']:.0%}" if event["event"] == "prefix" else None
    )


def end_text(result: RunResult) -> str:
    if result.status != "ok":
        return f"{result.status}: {result.failure.message if result.failure else ''}"
    rate, effective = result.train_images_per_s, result.effective_images_per_s
    speed = f", {rate:.0f} images/s" if rate else ""
    speed += f", {effective:.0f} effective images/s" if effective else ""
    chosen = result.learning_rate
    speed += (
        f", learning rate {chosen:g} of {len(result.tuning)} tried" if chosen is not None else ""
    )
    took = f", fit {result.fit_s:.1f} s" if result.fit_s is not None else ""
    if result.sweep_s is not None:
        took = f", {result.sweep_runs} at once in {result.sweep_s:.1f} s"
    return f"test top-1 {result.test_top1:.1%}{took}{speed}"


class PlainDisplay:
    """A line for each thing that happens."""

    def __init__(self, runs: list[RunSpec]) -> None:
        self._clock = RunClock(runs)
        self._total = len(runs)
        self._number = 0

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        self._say(text)

    def begin(self, spec: RunSpec) -> None:
        self._number += 1
        left = duration(self._clock.left_s())  # this run's time included
        self._say(f"[{self._number}/{self._total}, {left} left] {label(spec)}")
        self._clock.begin(spec)

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        if (share := share_of(event)) is not None:
            self._clock.heard(share)
        if event["event"] == "prefix":
            if event["share"] == 1.0:
                self._say("    frozen part computed")
        elif (said := words(event)) is not None:
            self._say(f"    {said}")

    def end(self, spec: RunSpec, result: RunResult) -> None:
        self._clock.end(result.status == "ok")
        self._say(f"    {end_text(result)}")

    def close(self) -> None:
        pass


def display(runs: list[RunSpec]) -> Display:
    """The one that suits standard error: a table that fills in on a terminal that can draw one."""
    if not sys.stderr.isatty():
        return PlainDisplay(runs)
    from rich.console import Console

    console = Console(stderr=True)
    return PlainDisplay(runs) if console.is_dumb_terminal else LiveDisplay(runs, console)
