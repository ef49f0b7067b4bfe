"""Text files that are written whole or not at all, and that every program can read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys instead of printing: escapes, and marks that reverse text."""


def printable(text: str) -> str:
    """Return text from a foreign file with a replacement character for each control character but
    tabs and line breaks, so that it cannot command a terminal."""
    return text if text.isprintable() else CONTROL.sub("\ufffd", text)


def replace_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 and move it into place. If that raises OSError, what was there before
    stays, and nothing else is left. A link in its place is replaced, not followed.

    Lone surrogates, which Python keeps for file names that are not UTF-8, become question marks.
    """
    # The name cannot be guessed, so that nobody can put a link there beforehand.
    descriptor, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
        part.chmod(0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _umask() -> int:
    """Return the mask of permissions of new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def json_text(value: Any) -> str:
    """Return JSON in ASCII that every parser reads; raise ValueError for infinite numbers and NaN,
    which JSON cannot express.

    ``json`` alone writes file names that are not UTF-8 as lone surrogates, which most other
    languages refuse; here they become question marks.
    """
    text = json.dumps(value, allow_nan=False, indent=1)
    if "\\ud" not in text:
        return text
    whole = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return json.dumps(json.loads(whole), indent=1)
