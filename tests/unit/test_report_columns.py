"""``--columns``: every field of a row as readable text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import pytest

from bench.analysis.rows import FIELDS, Row, rows_of
from bench.report.tables.runs import runs_table, runs_text, to_csv
from bench.storage.results import StoredRun

MakeRun = Callable[..., StoredRun]
PHASE = {
    "trainable_parameters": 10, "frozen_state_sha256": "aa", "prefix_values": None,
    "prefix_s": None, "train_images_per_s": None, "effective_images_per_s": None, "setup_s": None,
    "fit_s": 1.0,
}  # fmt: skip
MEASURED: dict[str, Any] = {
    "test_balanced_accuracy": 0.7875000000000001,
    "test_loss": 0.69314718,
    "peak_host_bytes": 1_234_567_890,
    "input_wait_fraction": 0.12345,
    "step_s_p50": 0.0123456,
    "tune_s": 1234.5678,
    "compute_images_per_s": 1234.5678,
    "learning_rate": 0.0031622776601683794,
    "blueprint_sha256": "ab" * 32,
    "phases": [{**PHASE, "boundary": "head", "epochs": 5}, {**PHASE, "boundary": "all",
                                                            "epochs": 7}],
}  # fmt: skip
FAILURE = {"kind": "SIGKILL", "message": "memory ran out"}
LOST = {"status": "oom", "test_top1": None, "failure": FAILURE, "fit_s": None}


@pytest.fixture
def rows(make_run: MakeRun) -> list[Row]:
    return rows_of([make_run(result=MEASURED), make_run(seed=1, result=LOST)])


def _column(rows: list[Row], name: str) -> tuple[str, list[str]]:
    """Return the alignment and the cells of a Markdown column."""
    head, rule, *lines = runs_text(rows, "md", [name, "seed"]).splitlines()[:4]
    assert head.startswith("|")
    return rule.split("|")[1], [line.split("|")[1].strip() for line in lines]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("failure", ["–", "SIGKILL: memory ran out"]),
        ("phases", ["head 5, all 7", "–"]),
        ("blueprint_sha256", ["abababababab", "–"]),
        ("dataset_hash", ["abababababab"] * 2),
        ("prefix_values", ["–", "–"]),
        ("device_model", ["A CPU"] * 2),
    ],
)
def test_words_are_left_aligned(rows: list[Row], name: str, shown: list[str]) -> None:
    rule, cells = _column(rows, name)
    assert (rule[-1], cells) == ("-", shown)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("test_balanced_accuracy", ["78.8%", "–"]),
        ("test_loss", ["0.693", "–"]),
        ("peak_host_bytes", ["1,234,567,890", "–"]),
        ("input_wait_fraction", ["12.3%", "–"]),
        ("step_s_p50", ["0.0123", "–"]),
        ("tune_s", ["1,235", "–"]),
        ("compute_images_per_s", ["1,235", "–"]),
        ("learning_rate_chosen", ["0.00316", "–"]),
        ("learning_rate", ["0.05", "0.05"]),
        ("train_images", ["216", "216"]),
        ("epochs", ["12", "12"]),
        ("case", ["1", "1"]),
        ("fit_s", ["12.3", "–"]),
    ],
)
def test_numbers_are_rounded_and_right_aligned(
    rows: list[Row], name: str, shown: list[str]
) -> None:
    rule, cells = _column(rows, name)
    assert (rule[-1], cells) == (":", shown)
    page = runs_table(rows, [name])
    assert page.columns[0].right
    assert [row[0].text for row in page.rows] == shown
    assert [row[0].sort for row in page.rows] == [row[name] for row in rows]


def test_no_field_is_printed_as_python_writes_it(rows: list[Row]) -> None:
    for name in FIELDS:
        _, cells = _column(rows, name)
        assert not any(re.search(r"[{}]|\[\]|None|True|\d\.\d{7}", cell) for cell in cells), name


def test_rates_that_differ_in_a_late_digit_look_different(make_run: MakeRun) -> None:
    rates = (0.05, 0.05000001, 0.1 * 0.05)
    rows = rows_of([make_run(recipe={"learning_rate": rate}) for rate in rates])
    shown = [row[0].text for row in runs_table(rows, ["learning_rate"]).rows]
    assert shown == ["0.005", "0.05", "0.05000001"]


def test_csv_keeps_the_numbers(rows: list[Row]) -> None:
    names = ["test_balanced_accuracy", "peak_host_bytes", "learning_rate_chosen"]
    first, _ = csv.DictReader(io.StringIO(to_csv(rows, names)))
    assert first == {
        "test_balanced_accuracy": "0.7875000000000001",
        "peak_host_bytes": "1234567890",
        "learning_rate_chosen": "0.0031622776601683794",
    }
