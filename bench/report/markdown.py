"""Escape plain text for GitHub's Markdown, as little as possible, so that it stays readable."""

from __future__ import annotations

import re
from functools import lru_cache

SIGNS = re.compile(
    r"[\\`*\[\]|~$]"  # markup wherever it stands
    r"|<(?=[a-z/!?])"  # the beginning of a tag
    r"|&(?=#?\w+;)"  # the beginning of an entity
    r"|(?<!\S)#"  # a heading, or the end of one
    r"|:(?=//)|(?<=\bwww)\."  # links that need no brackets
    r"|_+",
    re.IGNORECASE,
)
MAIL = re.compile(r"(?<=[\w.+-])@(?=\w)")
BLOCK = re.compile(r"^([-+](?=[\s-]|$)|[=>]|\d{1,9}(?=[.)](?:\s|$)))")
"""Beginning of a list, a quotation, a rule or the line below a title."""


@lru_cache(maxsize=10_000)
def markdown(text: str) -> str:
    """Return text for a table cell or within a line, on one line and without markup or links."""
    line = " ".join(text.split())
    # Mail addresses come last: the comment that splits them must not be escaped itself.
    return MAIL.sub("<!-- -->@", SIGNS.sub(_escaped, line))


def _escaped(found: re.Match[str]) -> str:
    signs, text = found.group(), found.string
    before, after = text[: found.start()][-1:], text[found.end() :][:1]
    if signs[0] == "_" and before.isalnum() and after.isalnum():
        return signs  # no markup inside a word: efficientnet_lite0
    return "".join(f"\\{sign}" for sign in signs)


def markdown_line(text: str) -> str:
    """Return text for the beginning of a line, such as a title or a list item."""
    return BLOCK.sub(_first_escaped, markdown(text))


def _first_escaped(found: re.Match[str]) -> str:
    first = found.group()
    return f"{first}\\" if first.isdigit() else f"\\{first}"
