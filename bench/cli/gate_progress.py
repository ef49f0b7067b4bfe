"""Progress of a comparison on standard error: one line that is rewritten, or plain lines."""

from __future__ import annotations

import sys

from bench.cli.run_clock import duration
from bench.gate.run import Progress


def show_progress(now: Progress) -> None:
    """Show the block under way and the time to the next look."""
    show_line(progress_words(now))


def progress_words(now: Progress) -> str:
    """Return the block under way and the time to the next look; blocks beyond those that are wanted
    take the place of disturbed ones."""
    words = "confirming: " if now.stage == "confirm" else ""
    if now.blocks >= now.wanted:
        return f"{words}one more block, as some of the {now.wanted} were disturbed"
    left = f", {duration(now.left_s)} to the look" if now.left_s is not None else ""
    return f"{words}block {now.blocks + 1} of {now.wanted}{left}"


def show_line(text: str) -> None:
    """Show a line in place of the one before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def end_line() -> None:
    """End the line on a terminal."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
