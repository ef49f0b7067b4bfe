"""The bar that a terminal shows while a grid runs."""

from __future__ import annotations

import io
import os
import pty
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from bench.cli.progress import BarDisplay, LineDisplay, display
from bench.spec.result import RunResult
from bench.spec.run import RunSpec
from bench.workers.events import Epoch, PrefixShare, Step

MakeSpec = Callable[..., RunSpec]
EPOCH = Epoch(epoch=3, epochs=12, train_loss=0.512, val_top1=0.8125)
HOSTILE = "[red]x[/red] [link=http://a.b]y[/link]\n\x1b[2J:smile:"
FAILED = {
    "status": "oom", "failure": {"kind": "SIGKILL", "message": "memory ran out"},
    "test_top1": None, "fit_s": None, "train_images_per_s": None, "infer_images_per_s": None,
}  # fmt: skip


class Screen:
    """A terminal, and what a display writes on it."""

    def __init__(self, make_result: Callable[..., RunResult], environment: Any) -> None:
        self._make_result, self._environment = make_result, environment
        self.file = io.StringIO()

    def open(self, runs: list[RunSpec], width: int = 160) -> BarDisplay:
        console = Console(
            file=self.file, force_terminal=True, width=width, height=20, color_system=None,
            legacy_windows=False, _environ={},
        )  # fmt: skip
        self.display = BarDisplay(runs, console)
        return self.display

    def run(self, spec: RunSpec, **changes: Any) -> None:
        """Show a whole run."""
        self.display.begin(spec)
        self.display.end(spec, self._make_result(spec, self._environment, **changes))

    def bar(self) -> str:
        """Return the bar as it is drawn now."""
        console = Console(file=io.StringIO(), width=160, color_system=None, _environ={})
        with console.capture() as drawn:
            console.print(self.display._progress)
        return drawn.get()

    @property
    def written(self) -> str:
        return self.file.getvalue()


@pytest.fixture
def screen(
    make_result: Callable[..., RunResult], make_environment: Callable[..., Any]
) -> Iterator[Screen]:
    screen = Screen(make_result, make_environment())
    yield screen
    screen.display.close()


def test_the_bar_shows_the_current_run_and_the_time_left(
    make_spec: MakeSpec, screen: Screen
) -> None:
    runs = [make_spec(seed=s) for s in (0, 1)]
    shown = screen.open(runs)
    shown.begin(runs[0])
    assert "? left" in screen.bar()
    assert "efficientnet_lite0 freeze_all torch seed 0: starting" in screen.bar()
    shown.event(runs[0], Step(share=0.1))
    assert "seed 0: 10% trained" in screen.bar()
    shown.event(runs[0], PrefixShare(share=0.5))
    assert "computing the frozen part, 50%" in screen.bar()
    shown.event(runs[0], EPOCH)
    assert "epoch 3/12 loss 0.512 val 81.2%" in screen.bar()
    assert " 12%" in screen.bar(), "a quarter of the first of two runs"
    assert "0:00 left" in screen.bar(), "from the speed of the current run"


def test_each_run_that_ended_stays_as_a_line(make_spec: MakeSpec, screen: Screen) -> None:
    runs = [make_spec(seed=s) for s in (0, 1)]
    screen.open(runs)
    screen.run(runs[0])
    screen.run(runs[1], **FAILED)
    lines = [line for line in screen.written.splitlines() if "/2] case" in line]
    assert "[1/2] case 1 photos (216) efficientnet_lite0 freeze_all torch seed 0" in lines[0]
    assert "test top-1 75.1%, fit 12.3 s, 123 images/s" in lines[0]
    assert lines[1].rstrip().endswith("seed 1: oom: memory ran out")
    assert "100%" in screen.bar()


def test_hostile_text_stays_text(make_spec: MakeSpec, screen: Screen) -> None:
    spec = make_spec(backbone=HOSTILE, case={"dataset": {"name": HOSTILE}})
    shown = screen.open([spec], width=300)
    shown.begin(spec)
    shown.note(HOSTILE)
    assert "[red]x[/red] [link=http://a.b]y[/link]" in screen.bar()
    assert ":smile:" in screen.bar()
    screen.run(spec, **{**FAILED, "failure": {"kind": "x", "message": HOSTILE}})
    assert screen.written.count("[red]x[/red] [link=http://a.b]y[/link]") >= 3
    assert "\x1b[2J" not in screen.written


def test_at_the_end_the_bar_is_gone_and_a_line_stays(make_spec: MakeSpec, screen: Screen) -> None:
    runs = [make_spec(seed=s) for s in (0, 1, 2)]
    shown = screen.open(runs)
    screen.run(runs[0])
    screen.run(runs[1], **FAILED)
    shown.close()
    last = screen.written.rstrip().splitlines()[-1]
    assert last.endswith("2 of 3 runs done: 1 ok, 1 oom, 1 left in 0:00")


def test_a_terminal_gets_the_bar_and_one_that_cannot_draw_gets_lines(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(display([make_spec()]), LineDisplay)
        monkeypatch.setenv("TERM", "xterm")
        shown = display([make_spec()])
        assert isinstance(shown, BarDisplay)
        shown.begin(make_spec())
        shown.close()
        terminal.flush()
        written = b""
        while b"0 of 1 runs done: 0 ok, 1 left in 0:00" not in written:  # it comes piece by piece
            assert select.select([leader], [], [], 10.0)[0], written
            written += os.read(leader, 100_000)
    os.close(leader)
    assert b"efficientnet_lite0" in written
