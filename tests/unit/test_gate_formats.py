"""The answer of the gate for other programs."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import junitparser
import pytest

from bench.gate.attribution import Cause, PartGrowth
from bench.gate.decision import BenchmarkVerdict, NullArm
from bench.gate.run import GateResult
from bench.report.gate.formats import (
    FORMATS,
    MOST_ANNOTATIONS,
    SUMMARY_BYTES,
    Answer,
    as_json,
    bmf,
    github,
    junit,
    markdown,
)
from bench.report.gate.words import HEADINGS, gate_sentences, rows_of


def _benchmark(name: str, verdict: Any, ratio: float | None = 1.1) -> BenchmarkVerdict:
    interval = None if ratio is None else (ratio - 0.01, ratio + 0.01)
    reason = "the launches vary too much for 6 blocks" if verdict == "cannot tell" else None
    return BenchmarkVerdict(
        name=name, ratio=ratio, interval=interval, verdict=verdict, blocks=6, detectable=0.041,
        detectable_95=0.05, reason=reason, needed_blocks=30 if reason else None,
    )  # fmt: skip


def _answer(*benchmarks: BenchmarkVerdict, strict: bool = False, **more: Any) -> Answer:
    result = GateResult(
        verdict="slower", benchmarks=benchmarks,
        null_arm=NullArm(ratio=1.001, interval=(0.99, 1.01), passed=True, name="n"),
        sides=("a", "b"), blocks=6, margin=0.03, level=0.05, spent_s=100.0, **more,
    )  # fmt: skip
    return Answer(result, gate_sentences(result), HEADINGS, rows_of(result), strict)


ALL = (
    _benchmark("train_step x<y>&|z", "slower"),
    _benchmark("train_step same", "same", 1.0),
    _benchmark("train_epoch unknown", "cannot tell", 1.02),
    _benchmark("train_epoch missing", "cannot tell", None),
)


def test_the_document_has_the_fields_that_others_read() -> None:
    found = json.loads(as_json(_answer(*ALL)))
    assert {"verdict", "benchmarks", "null_arm", "false_alarm_rate", "differs"} <= set(found)
    keys = {"name", "ratio", "interval", "verdict", "blocks", "detectable"}
    assert all(keys <= set(one) for one in found["benchmarks"])
    assert {"ratio", "interval", "passed"} <= set(found["null_arm"])


def test_junit_is_read_by_the_parser_that_ci_tools_use() -> None:
    for strict in (False, True):
        parsed = junitparser.JUnitXml.fromstring(junit(_answer(*ALL, strict=strict)).encode())
        (suite,) = parsed
        assert (suite.tests, suite.failures, suite.skipped) == (
            4,
            3 if strict else 1,
            0 if strict else 2,
        )
        cases = list(suite)
        assert cases[0].name == "x<y>&|z"
        assert cases[0].classname == "thawbench.train_step"
        assert [type(r).__name__ for r in cases[0].result] == ["Failure"]
        assert cases[1].is_passed
        suite.update_statistics()
        assert suite.failures == (3 if strict else 1)


def test_junit_holds_no_character_that_xml_cannot() -> None:
    text = junit(_answer(_benchmark("train_step a\x00b\x1b[31m", "slower")))
    assert "\x00" not in text
    ElementTree.fromstring(text)


def test_junit_has_the_elements_of_its_schema() -> None:
    """Check names and order of elements by hand; no XSD is at hand to validate against."""
    root = ElementTree.fromstring(junit(_answer(*ALL)))
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite"
        assert {"name", "tests", "failures", "errors", "skipped", "time"} == set(suite.attrib)
        for case in suite:
            assert {"name", "classname", "time"} == set(case.attrib)
            tags = [child.tag for child in case]
            assert tags in (["failure", "system-out"], ["skipped", "system-out"], ["system-out"])


def test_benchers_format() -> None:
    found = json.loads(bmf(_answer(*ALL)))
    assert found["train_step same"] == {
        "ratio": {"value": 1.0, "lower_value": 0.99, "upper_value": 1.01}
    }
    assert "train_epoch missing" not in found


def test_at_most_ten_annotations_the_worst_first() -> None:
    many = [_benchmark(f"train_step {i}", "slower", 1.1 + i / 100) for i in range(15)]
    lines = github(_answer(*many)).splitlines()
    assert len(lines) == MOST_ANNOTATIONS
    assert lines[0].startswith("::error title=train_step 14::")
    assert lines[-1] == "::error title=thawbench::and 6 more benchmarks are slower"
    exactly = github(_answer(*many[:10])).splitlines()
    assert len(exactly) == 10
    assert "more" not in exactly[-1]
    assert github(_answer(_benchmark("x", "same", 1.0))) == ""


def test_an_annotation_cannot_command_the_runner() -> None:
    (line,) = github(_answer(_benchmark("a\n::set-env name=X::1, b", "slower"))).splitlines()
    assert line.startswith("::error title=a%0A%3A%3Aset-env name=X%3A%3A1%2C b::")


def test_a_summary_is_smaller_than_a_megabyte_and_escapes_html() -> None:
    text = markdown(_answer(*ALL))
    assert "x&lt;y&gt;&amp;\\|z" in text
    many = [_benchmark(f"train_step {'n' * 300} {i}", "slower") for i in range(3000)]
    large = markdown(_answer(*many))
    assert len(large.encode()) < SUMMARY_BYTES
    assert large.rstrip().endswith("JSON document.")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_an_answer_without_benchmarks(name: str) -> None:
    _, write = FORMATS[name]
    assert isinstance(write(_answer()), str)


def test_the_sentences_say_what_was_found_why_and_what_could_have_been() -> None:
    cause = Cause(
        case="x", verdict="slower", culprit="backward", compile_s=(0.1, 0.1),
        parts=(PartGrowth(name="backward", before_s=0.010, now_s=0.012),),
        operations=(PartGrowth(name="aten::mm", before_s=0.001, now_s=0.003),),
    )  # fmt: skip
    text = "\n".join(
        gate_sentences(
            _answer(
                *ALL, causes=(cause,), differs={"torch": ["1", "2"]}, false_alarm_rate=0.004
            ).result  # type: ignore[arg-type]
        )
    )
    assert "B is slower than A." in text
    assert "took 10.0 % longer (1.090 to 1.110)" in text
    assert "lost time in backward: 10.00 ms a step became 12.00 ms" in text
    assert "aten::mm" in text
    assert "About 30 blocks would settle it" in text
    assert "4.1 % would have been found and confirmed in 80 %" in text
    assert "5.0 % in 95 %" in text
    assert "false-alarm rate on this machine, as calibrated: 0.4 %" in text
    assert "Differs: torch (A 1, B 2)." in text
