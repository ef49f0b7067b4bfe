"""The two ways in which a command can fail that are not a defect of Thawbench."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""What the system says where nothing, or nothing more, can be written."""


class UserError(Exception):
    """The question was wrong (unknown name, bad file …): printed without traceback, exit code 2.

    Args:
        message: What is wrong and where.
        hint: What mends it, a command where there is one.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class Unavailable(Exception):
    """Something that a run needs cannot be had here; the run becomes a row that says so.

    Args:
        message: What is missing and the way to get it.
    """


class WorkerFailed(Unavailable):
    """A worker process crashed, or ran out of memory or time, instead of answering."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type's name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def choose(kind: str, name: str, known: Iterable[str], hint: str | None = None) -> str:
    """Return ``name`` if it is one of ``known``.

    Args:
        kind: What the names stand for, in the singular, as in "policy".
        name: What was given.
        known: What could have been.
        hint: Instead of all known names, where they are too many.

    Raises:
        UserError: Naming the nearest known name, and all of them.
    """
    names = list(known)
    if name in names:
        return name
    # A beginning is no typing error: of the names that go on from it, the catalogue's first.
    near = [known for known in names if name and known.startswith(name)]
    near = near or get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    raise UserError(f"Unknown {kind} '{name}'.{guess}", hint or f"Known: {', '.join(names)}.")
