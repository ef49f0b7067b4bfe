"""Text that stays text in GitHub's Markdown, and can be read as it is where nothing needs care."""

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
"""What begins a list, a quotation, a rule or the line below a title."""


@lru_cache(maxsize=10_000)
def markdown(text: str) -> str:
    """Text in a cell or a line: no markup, no links, one line."""
    line = " ".join(text.split())
    # An address is looked for once nothing is escaped any more: a comment parts it.
    return MAIL.sub("<!-- -->@", SIGNS.sub(_escaped, line))


def _escaped(found: re.Match[str]) -> str:
    signs, text = found.group(), found.string
    before, after = text[: found.start()][-1:], text[found.end() :][:1]
    if signs[0] == "_" and before.isalnum() and after.isalnum():
        return signs  # inside a word it marks nothing: efficientnet_lite0
    return "".join(f"\\{sign}" for sign in signs)


def markdown_line(text: str) -> str:
    """Text at the beginning of a line, such as a title or an item of a list."""
    return BLOCK.sub(_first_escaped, markdown(text))


def _first_escaped(found: re.Match[str]) -> str:
    first = found.group()
    return f"{first}\\" if first.isdigit() else f"\\{first}"
