"""Printing: the answer on stdout, all else on stderr, and no text that commands a terminal."""

from __future__ import annotations

import sys

from bench.storage.text_files import json_text, printable


def refuse(message: str, hint: str | None, as_json: bool) -> None:
    """Print an error: on stderr, and with ``--json`` as a document on stdout, too."""
    if as_json:
        print(json_text({"error": {"message": message, "hint": hint}}), flush=True)
    tell(f"error: {message}" if hint is None else f"error: {message}\n{hint}")


def show(text: object = "") -> None:
    """Print a part of the answer."""
    print(printable(str(text)), flush=True)


def tell(text: object) -> None:
    """Print a message beside the answer."""
    print(printable(str(text)), file=sys.stderr)
