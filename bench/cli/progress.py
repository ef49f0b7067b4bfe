"""Progress on standard error: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from bench.analysis.rows import grouped
from bench.cli.run_clock import RunClock, WorkClock, duration
from bench.parity.model import PairProof
from bench.parity.plan import Subject
from bench.parity.run import Watcher
from bench.runner.runner import Display
from bench.spec.result import RunResult
from bench.spec.run import RECIPE_OPTIONS, RunSpec
from bench.workers import events
from bench.workers.events import Epoch, PrefixShare, RateTrial, Step, SweepEpoch

REFRESHES_PER_S = 1
"""Drawings of the bar: the measured runs need the same cores."""


def labels(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Return each run in a few words, by its id. Runs that would look alike are told by the fields
    in which they differ."""
    found = {}
    for text, alike in grouped(specs, _label).items():
        values = [_more(spec) for spec in alike]
        differing = [name for name in values[0] if len({own[name] for own in values}) > 1]
        for spec, own in zip(alike, values, strict=True):
            more = "".join(f" {name} {own[name]}" for name in differing)
            found[spec.run_id] = f"{text}{more}"
    return found


def _label(spec: RunSpec) -> str:
    case = f"case {spec.case.number} " if spec.case.number else ""
    data = spec.case.dataset
    images = f"{data.name} ({data.train_images:,})"
    if data.fold is not None:
        images = f"{data.name} fold {data.fold.number}/{data.fold.of}"
    native = "native " if spec.mode == "native" else ""
    code = f" (code {spec.code_sha256[:8]})" if spec.code_sha256 else ""
    what = f"{spec.backbone}{code} {spec.policy.name} {native}{spec.backend}"
    return f"{case}{images} {what} seed {spec.seed}"


def _more(spec: RunSpec) -> dict[str, str]:
    """Return name → value of what a label leaves out."""
    recipe = {d.option.heading: getattr(spec.recipe, name) for name, d in RECIPE_OPTIONS.items()}
    more = {"from": spec.policy.boundary, "weights": spec.weights.source, "on": spec.device}
    values = {**recipe, "tune": bool(spec.recipe.learning_rate_grid), **more}
    return {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in values.items()}


def share_of(event: events.Progress) -> float | None:
    """Return the fraction of a run that is done; None if the event does not say it."""
    if isinstance(event, Epoch | SweepEpoch):
        return event.epoch / event.epochs
    return event.share if isinstance(event, Step) else None


def event_text(event: events.Progress) -> str | None:
    """Return an event in words; None if it is not worth a line."""
    match event:
        case Epoch():
            figures = f"loss {event.train_loss:.3f} val {event.val_top1:.1%}"
            return f"epoch {event.epoch}/{event.epochs} {figures}"
        case SweepEpoch():
            return f"epoch {event.epoch}/{event.epochs} best val {event.val_top1:.1%}"
        case RateTrial():
            phase = f", phase {event.phase} of {event.phases}" if event.phase else ""
            return f"trying learning rate {event.number} of {event.of}{phase}"
        case PrefixShare():
            return f"computing the frozen part, {event.share:.0%}"
    return None


def result_text(result: RunResult) -> str:
    """Return what came out of a run, in a line."""
    if result.status != "ok":
        return f"{result.status}: {result.failure.message if result.failure else ''}"
    parts = [f"test top-1 {result.test_top1:.1%}"]
    if result.sweep_s is not None:
        parts.append(f"{result.sweep_runs} at once in {result.sweep_s:.1f} s")
    elif result.fit_s is not None:
        parts.append(f"fit {result.fit_s:.1f} s")
    if result.train_images_per_s:
        parts.append(f"{result.train_images_per_s:.0f} images/s")
    if result.effective_images_per_s:
        parts.append(f"{result.effective_images_per_s:.0f} effective images/s")
    if result.learning_rate is not None:
        parts.append(f"learning rate {result.learning_rate:g} of {len(result.tuning)} tried")
    return ", ".join(parts)


class LineDisplay:
    """A ``Display`` that prints a line for each event of a run."""

    def __init__(self, runs: Sequence[RunSpec]) -> None:
        self._clock = RunClock(runs)
        self._labels = labels(runs)
        self._number = 0

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def begin(self, spec: RunSpec) -> None:
        """Print the run that starts, and the time left with its own included."""
        self._number += 1
        place = f"[{self._number}/{len(self._labels)}, {self._clock} left]"
        self.note(f"{place} {self._labels[spec.run_id]}")
        self._clock.begin(spec)

    def event(self, spec: RunSpec, event: events.Progress) -> None:
        if (share := share_of(event)) is not None:
            self._clock.heard(share)
        if isinstance(event, PrefixShare):
            if event.share == 1.0:
                self.note("    frozen part computed")
        elif (text := event_text(event)) is not None:
            self.note(f"    {text}")

    def end(self, spec: RunSpec, result: RunResult) -> None:
        self._clock.end(result.status == "ok")
        self.note(f"    {result_text(result)}")

    def close(self) -> None:
        """Do nothing: every line was printed."""


class BarDisplay:
    """A ``Display`` with a bar and the time left, and above them a line for each run that ended."""

    def __init__(self, runs: Sequence[RunSpec], console: Console) -> None:
        self._clock = RunClock(runs)
        self._labels = labels(runs)
        self._began_s = time.monotonic()
        self._total = len(runs)
        self._ended: Counter[str] = Counter()
        self._progress = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[clock]} left"),
            TextColumn("{task.description}", markup=False, justify="left"),
            console=console,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
        )
        self._task = self._progress.add_task("", total=1.0, clock=self._clock)
        self._progress.start()

    def note(self, text: str) -> None:
        """Print a line above the bar, where it stays."""
        self._progress.console.print(Text(_printable(text)))

    def begin(self, spec: RunSpec) -> None:
        self._clock.begin(spec)
        self._show(spec, "starting")

    def event(self, spec: RunSpec, event: events.Progress) -> None:
        if (share := share_of(event)) is not None:
            self._clock.heard(share)
        text = f"{event.share:.0%} trained" if isinstance(event, Step) else event_text(event)
        if text is not None:
            self._show(spec, text)

    def end(self, spec: RunSpec, result: RunResult) -> None:
        self._clock.end(result.status == "ok")
        self._ended[result.status] += 1
        place = f"[{self._ended.total()}/{self._total}]"
        self.note(f"{place} {self._labels[spec.run_id]}: {result_text(result)}")
        self._progress.update(self._task, completed=self._clock.done_share())

    def close(self) -> None:
        """Remove the bar and print how many runs ended how."""
        self._progress.stop()
        ended = self._ended.total()
        failed = [f"{n} {status}" for status, n in self._ended.items() if status != "ok"]
        counts = [f"{self._ended['ok']} ok", *failed, f"{self._total - ended} left"]
        took = duration(time.monotonic() - self._began_s)
        self.note(f"{ended} of {self._total} runs done: {', '.join(counts)} in {took}")

    def _show(self, spec: RunSpec, text: str) -> None:
        description = _printable(f"{self._labels[spec.run_id]}: {text}")
        done = self._clock.done_share()
        self._progress.update(self._task, completed=done, description=description)


def _printable(text: str) -> str:
    """Return a text without characters that a terminal would obey, on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def display(runs: Sequence[RunSpec]) -> Display:
    """Return the display that suits standard error."""
    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        return LineDisplay(runs)
    return BarDisplay(runs, console)


class ProofLines:
    """A ``Watcher`` that prints a line for each event of a proof."""

    def __init__(self, total: float) -> None:
        self._clock = WorkClock(total)

    def measuring(self, subject: Subject, backend: str) -> None:
        _print_line(
            f"[{duration(self._clock.left_s())} left] {subject.backbone} {subject.precision} "
            f"{backend}: {len(subject.items)} measurements"
        )

    def measured(self) -> None:
        self._clock.done += 1

    def proved(self, pair: PairProof) -> None:
        _print_line(f"    {summary(pair)}")


def _print_line(line: str) -> None:
    """Write a line in one piece, since several proofs are at work."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class ProofBar(Progress):
    """A ``Watcher`` that is a bar with the time left; verdicts stay above it."""

    def __init__(self, total: float) -> None:
        words, console = TextColumn("{task.description}", markup=False), Console(stderr=True)
        super().__init__(
            words, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self.add_task("", total=total)

    def measuring(self, subject: Subject, backend: str) -> None:
        """Show the worker that started last."""
        self.update(self._task, description=f"{subject.backbone} {subject.precision} {backend}")

    def measured(self) -> None:
        self.advance(self._task)

    def proved(self, pair: PairProof) -> None:
        self.console.print(summary(pair), markup=False, highlight=False)


def summary(pair: PairProof) -> str:
    """Return a pair and its verdict in a line."""
    what = f"{pair.backbone} {pair.policy} {pair.optimizer} {pair.dtype}"
    verdict = "shown" if pair.passed else pair.reason
    return f"{what} {' = '.join(pair.backends)}: {verdict}"


def watcher(subjects: Sequence[Subject], backends: int) -> AbstractContextManager[Watcher]:
    """Return the display of a proof that suits standard error."""
    total = float(sum(len(subject.items) for subject in subjects) * backends)
    return ProofBar(total) if sys.stderr.isatty() else nullcontext(ProofLines(total))
