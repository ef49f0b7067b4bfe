"""The errors that Thawbench reports to the user in words, without a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Error numbers of a disk that is full or must not be written."""


class UserError(Exception):
    """A mistake of the user (unknown name, bad file …); the command ends with exit code 2.

    Args:
        message: What is wrong and where.
        hint: What mends it, a command where there is one.
    """

    is_answered = False
    """True if the command printed its answer nevertheless."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class AnsweredInterrupt(KeyboardInterrupt):
    """Ctrl-C after which the command printed its answer nevertheless."""


class Unavailable(Exception):
    """Something that a run needs is missing here; the run gets the status 'unavailable'.

    The message says what is missing and how to get it.
    """


class WorkerFailed(Unavailable):
    """A worker process crashed, or ran out of memory or time, instead of answering."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def check_is_file(what: str, path: Path) -> None:
    """Raise UserError if there is no file at a path; ``what`` names the file in the message."""
    if not path.is_file():
        if path.exists():
            why = "is a folder" if path.is_dir() else "is not a regular file"
        else:
            why = "does not exist"
        raise UserError(f"{what} {why}.")


def choose(kind: str, name: str, known: Iterable[str], hint: str | None = None) -> str:
    """Return ``name`` if it is one of ``known``.

    Args:
        kind: What the names stand for, in the singular, such as 'policy'.
        hint: Replaces the list of all known names in the error, where that would be too long.

    Raises:
        UserError: There is no such name; the message suggests the nearest one.
    """
    names = list(known)
    if name in names:
        return name
    near = nearest(name, names)
    guess = f" Did you mean '{near}'?" if near else ""
    raise UserError(f"Unknown {kind} '{name}'.{guess}", hint or f"Known: {', '.join(names)}.")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was meant, most likely; None if none is like ``name``."""
    names = list(known)
    # The beginning of a name is no typing error: suggest the first known name that continues it.
    near = [known for known in names if name and known.startswith(name)]
    near = near or get_close_matches(name, names, n=1, cutoff=0.5)
    return near[0] if near else None


def number_of(things: int, name: str) -> str:
    """Return a count with its noun: ``1 run``, ``2 runs``."""
    return f"{things:,} {name}{'' if things == 1 else 's'}"


def in_a_list(name: str) -> str:
    """Return a name as an item of a list: in quotes if it has a comma itself."""
    return f"'{name}'" if "," in name else name
