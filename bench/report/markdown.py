"""Escape plain text for GitHub's Markdown, as little as possible, so that it stays readable."""

from __future__ import annotations

import re
from functools import lru_cache

from bench.storage.text_files import printable

SIGNS = re.compile(
    r"[\\`*\[\]|~$]"  # markup wherever it stands
    r"|<(?=[a-z/!?])"  # the beginning of a tag
    r"|&(?=#?\w+;)"  # the beginning of an entity
    r"|(?<!\S)#"  # a heading, or the end of one
    r"|:(?=//)|(?<=\bwww)\."  # links that need no brackets
    r"|(?<!\w)_+|_++(?!\w)",  # but not inside a word: efficientnet_lite0
    re.IGNORECASE,
)
MAIL = re.compile(r"(?<=[\w.+-])@(?=\w)")
BLOCK = re.compile(r"^(?:(\d{1,9})(?=[.)](?:\s|$))|(?=[-+](?:[\s-]|$)|[=>]))")
"""Beginning of a list, a quotation, a rule or the line below a title."""


@lru_cache(maxsize=10_000)
def markdown(text: str) -> str:
    """Return text for a table cell or within a line, on one line and without markup or links."""
    escaped = SIGNS.sub(
        lambda found: "".join(f"\\{sign}" for sign in found[0]), " ".join(printable(text).split())
    )
    # Mail addresses come last: the comment that splits them must not be escaped itself.
    return MAIL.sub("<!-- -->@", escaped)


def markdown_line(text: str) -> str:
    """Return text for the beginning of a line, such as a title or a list item."""
    return BLOCK.sub(r"\1\\", markdown(text))
