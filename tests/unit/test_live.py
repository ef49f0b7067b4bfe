"""The table that fills in on a terminal."""

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

from bench.cli.progress import LiveDisplay, PlainDisplay, columns_of, display
from bench.spec.result import RunResult
from bench.spec.run import RunSpec

MakeSpec = Callable[..., RunSpec]
EPOCH = {"event": "epoch", "epoch": 3, "epochs": 12, "train_loss": 0.512, "val_top1": 0.8125}
HOSTILE = "[red]x[/red] [link=http://a.b]y[/link]\n\x1b[2J:smile:"


class Screen:
    """A terminal of given size, and what a display draws on it."""

    def __init__(self, make_result: Callable[..., RunResult], environment: Any) -> None:
        self._make_result, self._environment = make_result, environment
        self.written = io.StringIO()

    def open(self, runs: list[RunSpec], width: int = 140, height: int = 20) -> LiveDisplay:
        self.paper = self._console(io.StringIO(), width, height)
        self.display = LiveDisplay(runs, self._console(self.written, width, height))
        return self.display

    def _console(self, file: io.StringIO, width: int, height: int) -> Console:
        return Console(
            file=file, force_terminal=True, width=width, height=height, color_system=None,
            legacy_windows=False, _environ={},
        )  # fmt: skip

    def result(self, spec: RunSpec, **changes: Any) -> RunResult:
        return self._make_result(spec, self._environment, **changes)

    def run(self, spec: RunSpec, **changes: Any) -> None:
        """A whole run."""
        self.display.begin(spec)
        self.display.end(spec, self.result(spec, **changes))

    def lines(self) -> list[str]:
        """As drawn now."""
        with self.paper.capture() as drawn:
            self.paper.print(self.display)
        return [line.rstrip() for line in drawn.get().splitlines()]


@pytest.fixture
def screen(
    make_result: Callable[..., RunResult], make_environment: Callable[..., Any]
) -> Iterator[Screen]:
    screen = Screen(make_result, make_environment())
    yield screen
    screen.display.close()


FAILED = {
    "status": "oom", "failure": {"kind": "SIGKILL", "message": "memory ran out"},
    "test_top1": None, "fit_s": None, "train_images_per_s": None, "infer_images_per_s": None,
}  # fmt: skip


def test_a_row_for_each_run_that_has_begun(make_spec: MakeSpec, screen: Screen) -> None:
    runs = [make_spec(backend=b, seed=s) for s in (0, 1) for b in ("torch", "keras-tensorflow")]
    shown = screen.open(runs)
    screen.run(runs[0])
    screen.run(runs[1], train_images_per_s=None, effective_images_per_s=718.2)
    shown.begin(runs[2])
    shown.event(runs[2], EPOCH)
    assert screen.lines() == [
        "case 1, data photos (216), device cpu",
        "backbone           policy     backend          seed status                             "
        "top-1 images/s fit s",
        "─" * 107,
        "efficientnet_lite0 freeze_all torch               0 ok                                 "
        "75.1%      123  12.3",
        "efficientnet_lite0 freeze_all keras-tensorflow    0 ok                                 "
        "75.1%    718 *  12.3",
        "efficientnet_lite0 freeze_all torch               1 epoch 3/12 loss 0.512 val 81.2%",
        "2 of 4 runs done: 2 ok, 2 left",
        screen.lines()[-1],
    ]
    assert "56%, " in screen.lines()[-1]  # of two runs and a quarter
    assert screen.lines()[-1].endswith(" left")


def test_the_words_follow_the_run(make_spec: MakeSpec, screen: Screen) -> None:
    spec = make_spec()
    shown = screen.open([spec])
    shown.begin(spec)

    def said() -> str:
        return screen.lines()[3].partition("torch")[2].strip()

    assert said() == "starting"
    shown.event(spec, {"event": "prefix", "share": 0.4})
    assert said() == "computing the frozen part, 40%"
    shown.event(spec, {"event": "trial", "number": 2, "of": 3})
    assert said() == "trying learning rate 2 of 3"
    shown.event(spec, EPOCH)
    shown.event(spec, {"event": "step", "share": 0.5})
    assert said() == "epoch 3/12 loss 0.512 val 81.2%"
    shown.event(spec, {"event": "sweep", "epoch": 2, "epochs": 4, "val_top1": 0.9})
    assert said() == "epoch 2/4 best val 90.0%"


def test_the_title_says_what_all_runs_have(make_spec: MakeSpec, screen: Screen) -> None:
    case = {"number": None, "dataset": {"name": "mine"}}
    screen.open([make_spec(seed=s, case=case) for s in (0, 1)])
    assert screen.lines()[0] == "data mine (216), device cpu"


def test_the_latest_rows_that_fit(make_spec: MakeSpec, screen: Screen) -> None:
    runs = [make_spec(seed=s) for s in range(100, 150)]
    shown = screen.open(runs, height=12)
    for spec in runs[:40]:
        screen.run(spec)
    shown.begin(runs[40])
    lines = screen.lines()
    assert len(lines) < 12
    assert [line.split()[3] for line in lines[3:-2]] == ["135", "136", "137", "138", "139", "140"]
    assert lines[-2] == "40 of 50 runs done: 40 ok, 10 left"


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_long_lines_are_cut(make_spec: MakeSpec, screen: Screen, width: int) -> None:
    runs = [
        make_spec(backbone="timm:" + "long" * 20, backend=b, case={"dataset": {"name": "n" * n}})
        for b in ("torch", "keras-tensorflow")
        for n in (50, 60)
    ]
    screen.open(runs, width=width)
    for spec in runs:
        screen.run(spec)
    lines = screen.lines()
    assert len(lines) == 1 + 2 + 4 + 2
    assert max(map(len, lines)) <= width
    assert (width < 80) or all(line.split()[-3:] == ["75.1%", "123", "12.3"] for line in lines[3:7])


def test_failures_are_counted_and_said_once_above_the_table(
    make_spec: MakeSpec, screen: Screen
) -> None:
    runs = [make_spec(seed=s) for s in range(5)]
    screen.open(runs)
    for spec in runs[:2]:
        screen.run(spec, **FAILED)
    screen.run(runs[2])
    lines = screen.lines()
    assert lines[-2] == "3 of 5 runs done: 1 ok, 2 oom, 2 left"
    assert "oom: memory ran out" in lines[3]
    said = screen.written.getvalue()
    assert said.count("torch seed 0: oom: memory ran out") == 1
    assert "torch seed 1: oom" not in said


def test_hostile_text_stays_text(make_spec: MakeSpec, screen: Screen) -> None:
    spec = make_spec(backbone=HOSTILE, case={"dataset": {"name": HOSTILE}})
    failure = {"kind": "x", "message": HOSTILE}
    shown = screen.open([spec], width=300)
    shown.begin(spec)
    shown.note(HOSTILE)
    row = screen.lines()[3]
    assert "[red]x[/red] [link=http://a.b]y[/link]" in row
    assert ":smile:" in row
    shown.end(spec, screen.result(spec, **{**FAILED, "failure": failure}))
    assert "oom: [red]x[/red]" in screen.lines()[3]
    said = screen.written.getvalue()
    assert said.count("[red]x[/red] [link=http://a.b]y[/link]") >= 3
    assert "\x1b[2J" not in said


def test_at_the_end_the_table_is_gone_and_a_line_stays(make_spec: MakeSpec, screen: Screen) -> None:
    runs = [make_spec(seed=s) for s in (0, 1)]
    shown = screen.open(runs)
    screen.run(runs[0])
    shown.close()
    said = screen.written.getvalue()
    assert said.rstrip().splitlines()[-1].endswith("1 of 2 runs done: 1 ok, 1 left in 0:00")
    assert "\x1b[1A" in said  # the cursor went up over what was drawn
    assert said.count("efficientnet_lite0") <= 2  # drawn at most at the start and at the end


def test_runs_that_differ_look_different(make_spec: MakeSpec) -> None:
    changes: list[dict[str, Any]] = [
        {"case": {"number": 2}}, {"case": {"dataset": {"name": "b"}}}, {"backbone": "b"},
        {"code_sha256": "ab" * 32}, {"policy": {"name": "b"}}, {"policy": {"boundary": "stage4"}},
        {"mode": "native"}, {"backend": "keras-jax"}, {"recipe": {"precision": "bf16"}},
        {"recipe": {"head": "original"}}, {"recipe": {"learning_rate": 0.5}},
        {"recipe": {"weight_decay": 0.5}}, {"device": "cuda:0"}, {"seed": 1},
    ]  # fmt: skip
    plain = columns_of([make_spec()])
    assert plain == ["backbone", "policy", "backend"]
    for change in changes:
        shown = columns_of([make_spec(), make_spec(**change)])
        (value,) = change.values()
        assert len(shown) == len(plain) + (0 if shown == plain else 1), value
    both = columns_of([make_spec(), make_spec(seed=1), make_spec(recipe={"learning_rate": 0.5})])
    assert both == ["backbone", "policy", "backend", "learning rate", "seed"]


def test_a_terminal_gets_the_table_and_one_that_cannot_draw_gets_lines(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(display([make_spec()]), PlainDisplay)
        monkeypatch.setenv("TERM", "xterm")
        shown = display([make_spec()])
        assert isinstance(shown, LiveDisplay)
        shown.begin(make_spec())
        shown.close()
        terminal.flush()
        said = b""
        while b"0 of 1 runs done: 0 ok, 1 left in 0:00" not in said:  # it comes piece by piece
            assert select.select([leader], [], [], 10.0)[0], said
            said += os.read(leader, 100_000)
    os.close(leader)
    assert b"efficientnet_lite0" in said
