"""Text files that are written whole or not at all, and that every program can read."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def replace_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 and move it into place. If that raises OSError, what was there before
    stays, and nothing else is left.

    Lone surrogates, which Python keeps for file names that are not UTF-8, become question marks.
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
