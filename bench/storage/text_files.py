"""Texts that are written for others: whole or not at all, and readable by every program."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def replace_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 and move it into place.

    A name that is no UTF-8 (Python holds it with lone surrogates) gets question marks.

    Raises:
        OSError: It cannot be written; what was there before stays, and nothing else is left.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace", newline="")
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def json_text(value: Any) -> str:
    """JSON in ASCII that every reader takes: of names that are no UTF-8, ``json`` by itself writes
    halves of characters, which most other languages refuse.

    Raises:
        ValueError: There is a number in it that JSON has no word for.
    """
    text = json.dumps(value, allow_nan=False, indent=1)
    if "\\ud" not in text:
        return text
    whole = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return json.dumps(json.loads(whole), indent=1)
