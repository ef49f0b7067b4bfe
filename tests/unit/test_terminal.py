"""The table on a terminal fits its width, and says once what all rows share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.analysis.rows import Row, rows_of
from bench.cli.progress import labels
from bench.report.terminal import columns_on_terminal, runs_on_terminal, table_on_terminal
from bench.storage.results import StoredRun
from tests.unit.made_runs import Make, tables

WIDTHS = (80, 100, 120, 200)
NETWORKS = ("efficientnet_lite0", "squeezenet1_1")


@pytest.fixture
def twelve(make: Make) -> list[Row]:
    """Return twelve runs such as those of the suite quick."""
    runs = [
        make(0.8, policy, backbone=network, backend=backend,
             result={"train_images_per_s": 167.0, "infer_images_per_s": 800.0},
             case={"dataset": {"train_images": images}})
        for network, policy, images in (
            ("efficientnet_lite0", "freeze_all", 216), ("efficientnet_lite0", "from_scratch", 216),
            ("squeezenet1_1", "freeze_all", 216), ("efficientnet_lite0", "fine_tune_all", 1080),
            ("efficientnet_lite0", "fine_tune_last", 720),
            ("efficientnet_lite0", "retrain_all", 2000))
        for backend in ("torch", "keras-tensorflow")
    ]  # fmt: skip
    return rows_of(runs)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_no_row_is_wrapped(
    twelve: list[Row], width: int
) -> None:
    lines = runs_on_terminal(twelve, width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if "80.0 ±" in line or "± " in line]
    assert len(rows) == 12, "one line for each run"
    assert all("…" not in line for line in rows) or width == 80


def test_a_wider_terminal_shows_more(twelve: list[Row]) -> None:
    headings = [_heading(runs_on_terminal(twelve, width)) for width in WIDTHS]
    assert all("top-1 %" in heading for heading in headings)
    assert "fit s" in headings[1]
    assert "train img/s" in headings[2]
    assert "infer img/s" in headings[3]
    assert [len(h.split()) for h in headings] == sorted(len(h.split()) for h in headings)


def _heading(text: str) -> str:
    return next(line for line in text.splitlines() if "top-1 %" in line)


def test_what_all_rows_share_stands_above(twelve: list[Row]) -> None:
    first = runs_on_terminal(twelve, 120).splitlines()[0]
    for words in ("px 96", "stand-in data", "pretrained or random"):
        assert words in first
    assert "status" not in first
    assert "px" not in _heading(runs_on_terminal(twelve, 200))


def test_rows_that_differ_look_different(make: Make) -> None:
    runs = [
        make(0.9, seed=seed, recipe={"epochs": epochs}) for seed in range(2) for epochs in (1, 2)
    ]
    text = runs_on_terminal(rows_of(runs), 100)
    body = [line for line in text.splitlines() if "±" in line]
    assert len(set(body)) == 4
    assert "seed" in _heading(text)
    assert "epochs" in _heading(text)


def test_a_narrow_terminal_has_a_block_for_each_run(twelve: list[Row]) -> None:
    text = runs_on_terminal(twelve, 40)
    assert max(map(len, text.splitlines())) <= 40
    assert text.count("top-1 %") == 12
    assert "photos 216, efficientnet_lite0" in text


def test_an_accuracy_has_its_interval(make: Make, make_run: Callable[..., StoredRun]) -> None:
    text = runs_on_terminal(rows_of([make(0.737)]), 100)
    assert "±" in text
    few = make_run(result={"test_top1": 28 / 38}, case={"dataset": {"test_images": 38}})
    (line,) = [x for x in runs_on_terminal(rows_of([few]), 100).splitlines() if "73.7" in x]
    assert "73.7 ± 1" in line, "of 38 images, ± 13 or so"


def test_a_failed_run_is_shown_with_its_status(make: Make) -> None:
    failed: dict[str, Any] = {"status": "oom", "test_top1": None, "fit_s": None,
                              "failure": {"kind": "oom", "message": "no memory"}}  # fmt: skip
    text = runs_on_terminal(rows_of([make(0.9), make(0.5, "from_scratch", result=failed)]), 100)
    (line,) = [line for line in text.splitlines() if "from_scratch" in line and "oom" in line]
    assert "–" in line


def test_speeds_that_other_work_spoiled_are_marked(make: Make) -> None:
    busy = make(0.9, result={"infer_images_per_s": 180.0})
    quiet = make(0.9, "fine_tune_all", result={"infer_images_per_s": 1100.0})
    text = runs_on_terminal(rows_of([busy, quiet]), 200)
    assert "180?" in text
    assert "1,100?" not in text


def test_columns_that_were_asked_for_are_all_shown(twelve: list[Row]) -> None:
    names = ["backbone", "backend", "test_top1", "fit_s", "learning_rate", "run_id"]
    text = columns_on_terminal(twelve, names, 80)
    assert text.splitlines()[0].split()[:3] == ["backbone", "backend", "test"]
    assert sum("efficientnet" in line or "effic" in line for line in text.splitlines()) >= 10


def test_control_characters_do_not_reach_the_terminal(make_run: Callable[..., StoredRun]) -> None:
    evil = "folder:\x1b[31mred"
    run = make_run(case={"dataset": {"name": evil, "label": evil}})
    for width in (40, 100):
        assert "\x1b" not in runs_on_terminal(rows_of([run]), width)
    assert "\x1b" not in table_on_terminal(tables(run)["policies"], 100)


@pytest.mark.parametrize("width", WIDTHS)
def test_other_tables_fit_too(make: Make, width: int) -> None:
    runs = [make(0.9, policy, backend=backend) for policy in ("freeze_all", "fine_tune_all")
            for backend in ("torch", "keras-tensorflow")]  # fmt: skip
    for table in tables(*runs).values():
        for is_whole in (True, False):
            lines = table_on_terminal(table, width, is_whole).splitlines()
            assert max(map(len, lines)) <= width
    cut = table_on_terminal(tables(*runs)["policies"], width, is_whole=False)
    rows = [line for line in cut.splitlines() if "freeze_all" in line or "fine_tune_all" in line]
    assert len(rows) == 4, "one line a row"


def test_no_runs_are_said_to_be_none() -> None:
    assert runs_on_terminal([], 80) == "There are no runs."


def test_near_100_percent_the_interval_stays_possible(make: Make) -> None:
    text = runs_on_terminal(rows_of([make(1.0, luck=0.0)]), 100)
    assert "100.0 (" in text
    assert " to 100)" in text


def test_folds_follow_one_another(make: Make) -> None:
    """Whatever the number of training images that each leaves."""
    runs = []
    for number, images in ((1, 37), (2, 36), (3, 37)):
        fold = {"number": number, "of": 3, "images_sha256": "ab" * 32}
        data = {"train_images": images, "content_hash": f"{number:064d}", "fold": fold}
        runs += [
            make(0.9, policy, case={"dataset": data}) for policy in ("freeze_all", "retrain_all")
        ]
    rows = rows_of(runs)
    assert [row.fold for row in rows] == [1, 2, 3, 1, 2, 3]
    assert [row.spec.policy.name for row in rows] == ["freeze_all"] * 3 + ["retrain_all"] * 3
    told = list(labels([row.spec for row in rows]).values())
    assert len(set(told)) == 6
    assert "photos fold 2/3" in told[1]
