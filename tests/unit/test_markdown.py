"""Text in Markdown tables stays text, and usual names are not escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest
from markdown_it import MarkdownIt

from bench.report.export import as_text
from bench.report.markdown import markdown, markdown_line
from bench.report.tables.model import Table, TableColumn, text

USUAL = [
    "efficientnet_lite0",
    "timm:tf_efficientnet_lite0.in1k",
    "freeze_all, random weights from features.28",
    "photos (stand-in), 216",
    "−10 points (−13 to −7)",
    "< 0.001",
    "5 > 3 & 2 = 2; R&D",
    "C#",
    "user@",
    'it\'s 50% of "all"',
]
HOSTILE = [
    "&lt;b&gt; &amp; &#60; &copy",
    "~~struck~~ and ~once~",
    "_u_ __strong__ a_b_ _a_b <_x_>",
    "*a* **b** `c` ``d``",
    "[x](http://evil) ![y](z) [^1]",
    "<img src=x onerror=alert(1)> <!-- a --> </td>",
    "https://e.com http://e.com ftp://e.com www.e.com WWW.e.com",
    "someone@e.com mailto:a@b.c",
    "a|b \\| c\\",
    "$x$ $$y$$",
    "# head ## two #",
    "one\n\n# two\n- three\ttabs",
]
LINES = [
    "# head", "- item", "+ item", "* item", "1. one", "12) twelve", "> said", "---", "===", "+",
    "-", "    code", "~~~", "```", "trailing ##", "<div>", "| a | b |", "[a]: http://e.com",
]  # fmt: skip
AUTOLINKS = re.compile(r"(?:https?|ftp)://|(?<!\w)www\.|[\w.+-]@\w", re.IGNORECASE)
"""What GitHub makes links of without any brackets, as its parser finds it: the first two in the
source, the last in text between two tags."""


def _rendered(source: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source)


def _seen(rendered: str) -> str:
    """Return the text between tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", rendered)).split())


@pytest.mark.parametrize("name", USUAL)
def test_a_usual_name_is_as_it_is(name: str) -> None:
    assert markdown(name) == name


@pytest.mark.parametrize("name", [*USUAL, *HOSTILE])
@pytest.mark.parametrize("escaped", [markdown, markdown_line])
def test_a_name_is_read_as_it_is_and_is_no_markup(name: str, escaped: Callable[[str], str]) -> None:
    rendered = _rendered(f"before {escaped(name)} after")
    tags = set(re.findall(r"<[^>]*>", rendered)) - {"<!-- -->"}
    assert tags == {"<p>", "</p>"}
    assert _seen(rendered) == f"before {' '.join(name.split())} after"


@pytest.mark.parametrize("name", [*USUAL, *HOSTILE])
def test_github_makes_no_link_of_a_name(name: str) -> None:
    source = markdown(name)
    assert not re.search(r"(?<!\\)://|(?<!\w)www\.", source, re.IGNORECASE)
    between = re.split(r"<[^>]*>", _rendered(source))
    assert not any(re.search(r"[\w.+-]@\w", part) for part in between)
    if AUTOLINKS.search(name):
        assert source != name


@pytest.mark.parametrize("line", [*LINES, *HOSTILE])
def test_a_title_a_caption_and_a_note_stay_lines(line: str) -> None:
    column = TableColumn("a", line)
    table = Table(
        "t", line, line, [column, TableColumn("b", "b")], [[text(line), text("b")]], [line]
    )
    rendered = _rendered(as_text(table, "md"))
    words = " ".join(line.split())
    shape = re.sub(r"<!-- -->", "", re.sub(r">[^<]+<", "><", " ".join(rendered.split())))
    assert re.findall(r"<(\w+)", shape) == [
        "h2", "p", "table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td", "ul", "li",
    ]  # fmt: skip
    assert _seen(rendered) == f"{words} {words} {words} b {words} b {words}"
