"""The answer of a comparison for other programs: Markdown, JUnit XML, Bencher, GitHub."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from tabulate import tabulate

from bench.gate.baseline import BaselineResult
from bench.gate.decision import ComparedBenchmark
from bench.gate.run import GateResult
from bench.report.gate.words import Row
from bench.storage.text_files import json_text

SUMMARY_BYTES = 1024 * 1024
"""Limit of a job summary (docs.github.com, "Adding a job summary")."""
MOST_ANNOTATIONS = 10
"""Annotations of one kind that GitHub shows for a step."""
CUT = "\n\n… cut: the whole answer is in the JSON document.\n"
FAILED = "slower"
UNKNOWN = ("cannot tell", "suspicion")
"""Verdicts that are failures with ``--strict`` alone, as in the exit code."""


class Answer(NamedTuple):
    """A comparison, ready to be written."""

    result: GateResult | BaselineResult
    sentences: Sequence[str]
    headings: Sequence[str]
    rows: Sequence[Row]
    strict: bool
    """True if what cannot be told counts as a failure."""

    @property
    def benchmarks(self) -> Sequence[ComparedBenchmark]:
        """The benchmarks of either kind of comparison."""
        return self.result.benchmarks


def markdown(answer: Answer) -> str:
    """Return a job summary in Markdown of less than 1 MiB."""
    first, *rest = [html.escape(text, quote=False) for text in answer.sentences]
    rows = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in r] for r in answer.rows]
    table = tabulate(rows, answer.headings, "pipe", disable_numparse=True)
    text = "\n\n".join([f"## {first}", table, "\n".join(f"- {line}" for line in rest)]) + "\n"
    encoded = text.encode()
    if len(encoded) < SUMMARY_BYTES:
        return text
    kept = encoded[: SUMMARY_BYTES - len(CUT.encode()) - 1].decode(errors="ignore")
    return kept.rpartition("\n")[0] + CUT


def junit(answer: Answer) -> str:
    """Return JUnit XML: a test case for each benchmark; slower is a failure, what cannot be told is
    skipped, and with ``strict`` a failure."""
    cases = list(zip(answer.benchmarks, answer.rows, strict=True))
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(suites, "testsuite", name="thawbench gate")
    failures = skipped = 0
    for one, row in cases:
        measure, _, case = one.name.partition(" ")
        element = ElementTree.SubElement(
            suite, "testcase", name=_xml_text(case), classname=f"thawbench.{measure}", time="0"
        )
        text = _xml_text("; ".join(f"{h}: {c}" for h, c in zip(answer.headings, row, strict=True)))
        reason = _xml_text(one.reason or "") or text
        if one.verdict == FAILED or (answer.strict and one.verdict in UNKNOWN):
            failures += 1
            ElementTree.SubElement(element, "failure", message=reason, type=one.verdict).text = text
        elif one.verdict in UNKNOWN:
            skipped += 1
            ElementTree.SubElement(element, "skipped", message=reason)
        ElementTree.SubElement(element, "system-out").text = text
    counts = {"tests": len(cases), "failures": failures, "errors": 0, "skipped": skipped}
    for name, count in counts.items():
        suite.set(name, str(count))
    suite.set("time", "0")
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _xml_text(text: str) -> str:
    """Return text without characters that XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n" or ord(c) >= 32 else "\ufffd" for c in text)


def bmf(answer: Answer) -> str:
    """Return Bencher's metric format (bencher.dev, "Bencher Metric Format"): benchmark → measure →
    value with bounds."""
    found = {}
    for one in answer.benchmarks:
        if one.ratio is not None and one.interval is not None:
            low, high = one.interval
            value = {"value": one.ratio, "lower_value": low, "upper_value": high}
            found[one.name] = {"ratio": value}
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def github(answer: Answer) -> str:
    """Return workflow commands that annotate a step: at most ten, the worst first."""
    chosen = [one for one in answer.benchmarks if one.verdict == FAILED]
    chosen.sort(key=lambda one: -(one.ratio or 0.0))
    lines = [
        f"::error title={_escaped(one.name, is_property=True)}::"
        f"{_escaped(f'{one.ratio:.3f} times as long')}"
        for one in chosen[:MOST_ANNOTATIONS]
        if one.ratio is not None
    ]
    left = len(chosen) - MOST_ANNOTATIONS
    if left > 0:
        lines[-1] = f"::error title=thawbench::and {left + 1} more benchmarks are slower"
    return "\n".join(lines) + ("\n" if lines else "")


def _escaped(text: str, *, is_property: bool = False) -> str:
    """Escape a text as GitHub's toolkit does for workflow commands."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if is_property else text


def as_json(answer: Answer) -> str:
    """Return the document of ``gate --json``."""
    return json_text(answer.result.model_dump(mode="json")) + "\n"


FORMATS: dict[str, tuple[str, Callable[[Answer], str]]] = {
    "md": ("gate.md", markdown),
    "junit": ("junit.xml", junit),
    "json": ("answer.json", as_json),
    "bmf": ("bmf.json", bmf),
    "github": ("annotations.txt", github),
}
"""Name → file, and the function that writes it."""
