"""``report`` of damaged folders and files: a clear message, and a report of the rest."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.folders import load_runs
from bench.report import make_report
from bench.report.page import read_document
from bench.spec.result import RunResult
from bench.storage.results import Store
from tests.unit.conftest import Cli

Save = Callable[..., Path]
NOT_UTF_8 = "cannot read \udcff.jpg"


@pytest.fixture
def folder(tmp_path: Path, save_run: Save, make_spec: Any) -> Path:
    store = Store(tmp_path / "results")
    for seed in range(3):
        for backend in ("torch", "keras-tensorflow"):
            save_run(store, make_spec(seed=seed, backend=backend))
    return store.root


def _change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# Numbers that no run measures


NUMBERS = [
    name for name, field in RunResult.model_fields.items()
    if re.search(r"float|int|Annotated", str(field.annotation))
]  # fmt: skip


@pytest.mark.parametrize("value", [-1.0, 0.0, 1e-320, 1e-15, 1.7, 1e24, 1e308, 10**30, 10**400])
def test_no_number_stops_the_report(
    tmp_path: Path, save_run: Save, make_spec: Any, value: float
) -> None:
    """Whatever is accepted can be reported, also on the page, which holds finite numbers only."""
    store, rates = Store(tmp_path), [100.0, 101.0, 99.0, 100.0, 102.0, 98.0]
    paths = {
        save_run(store, make_spec(seed=seed, backend=backend), test_loss=0.5, prefix_s=1.0,
                 train_images_per_s_windows=rates, val_top1_by_epoch=[0.5],
                 train_loss_by_epoch=[0.5]) / "result.json": backend
        for seed in range(2) for backend in ("torch", "keras-tensorflow")
    }  # fmt: skip
    before = {path: path.read_text() for path in paths}
    assert len(NUMBERS) > 35
    for name in NUMBERS:
        for path, text in before.items():
            is_list = isinstance(json.loads(text)[name], list)
            changes = {name: [value] * 6 if is_list else value}
            fields = json.loads(text) | (changes if paths[path] == "torch" else {})
            path.write_text(json.dumps(fields))
        runs, problems = load_runs([tmp_path])
        assert len(runs) + len(problems) == 4, name
        assert len(runs) >= 2, name
        if not problems:
            page = make_report(runs, tmp_path).page
            assert json.dumps(page, allow_nan=False), name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fit_s": -1.0}, "result.json: fit_s: Value error, -1 is not a time or rate"),
        ({"train_images_per_s_windows": [1e308, 1e308]}, "train_images_per_s_windows.0: Input"),
        ({"train_images_per_s_windows": [0.0]}, "train_images_per_s_windows.0: Input"),
        ({"test_top1": 75.1}, "result.json: test_top1: Input should be less than or equal to 1"),
        ({"unheard_of": 1}, "result.json: unheard_of: Extra inputs are not permitted"),
    ],
)
def test_a_file_with_a_foreign_number_is_named_and_the_rest_is_reported(
    here: Cli, folder: Path, changes: dict[str, Any], told: str
) -> None:
    bad = sorted(folder.glob("runs/*/*/result.json"))[0]
    _change(bad, **changes)
    done = here("report", str(folder))
    assert done.returncode == 0
    assert f"{bad.parent}: skipped: not a run of Thawbench" in done.stderr
    assert told in done.stderr
    assert len(read_document(folder / "report.html")["rows"]) == 5


# Texts that are no UTF-8


def test_a_failure_that_is_no_utf_8_is_reported_in_all_forms(here: Cli, folder: Path) -> None:
    bad = sorted(folder.glob("runs/*/*/result.json"))[0]
    _change(bad, status="crashed", test_top1=None, failure={"kind": "E", "message": NOT_UTF_8})
    assert here("report", str(folder), "--format", "md,csv,html,latex").returncode == 0
    for name in ("table.md", "table.csv", "failed.md", "failed.csv", "failed.html", "failed.tex"):
        assert "cannot read ?.jpg" in (folder / "tables" / name).read_text("utf-8"), name
    assert "cannot read ?.jpg" in (folder / "report.html").read_text("utf-8")
    done = here("report", str(folder), "--json")
    assert json.loads(done.stdout.encode("utf-8"))["rows"]
    assert "\\udcff" not in done.stdout
    assert "cannot read ?.jpg" in done.stdout


def test_data_whose_name_is_no_utf_8_are_reported(
    here: Cli, folder: Path, save_run: Save, make_spec: Any
) -> None:
    name = "folder:\udcff"
    save_run(Store(folder), make_spec(case={"dataset": {"name": name, "label": name}}))
    done = here("report", str(folder), "--json")
    assert done.returncode == 0
    assert "folder:?" in [row["dataset"] for row in json.loads(done.stdout)["rows"]]
    with (folder / "tables" / "table.csv").open(encoding="utf-8", newline="") as file:
        assert "folder:?" in [row["dataset"] for row in csv.DictReader(file)]


def test_a_folder_whose_name_is_no_utf_8_is_compared(here: Cli, folder: Path) -> None:
    other = folder.with_name("\udcff")
    (folder / "runs").rename(folder / "kept")
    other.mkdir()
    for root in (folder, other):
        shutil.copytree(folder / "kept", root / "runs")
    assert here("report", str(folder), str(other)).returncode == 0
    assert "results and ?" in (folder / "tables" / "side_by_side_top1.md").read_text("utf-8")


# What is in the way


def test_a_file_in_the_way_of_the_tables_does_not_stop_the_page(here: Cli, folder: Path) -> None:
    (folder / "tables").write_text("in the way")
    done = here("report", str(folder))
    assert done.returncode == 2
    assert "tables: a file of that name is in the way" in done.stderr
    assert f"written: {folder / 'report.html'}" in done.stderr
    assert len(read_document(folder / "report.html")["rows"]) == 6


def test_a_folder_in_the_way_of_the_page_leaves_nothing_behind(here: Cli, folder: Path) -> None:
    (folder / "report.html").mkdir()
    done = here("report", str(folder))
    assert done.returncode == 2
    assert (
        "report.html: a folder of that name is in the way.\nAll other files were written"
        in done.stderr
    )
    assert (folder / "tables" / "policies.md").is_file()
    assert not list(folder.rglob("*.part"))


def test_all_that_cannot_be_written_is_named_at_once(here: Cli, folder: Path) -> None:
    for name in ("report.html", "parity.json", "tables/policies.csv", "tables/table.md"):
        (folder / name).mkdir(parents=True)
    done = here("report", str(folder))
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert line.endswith(
        ": parity.json, tables/table.md, tables/policies.csv, report.html: a folder of that name "
        "is in the way."
    )
    written = {path.name for path in (folder / "tables").iterdir() if path.is_file()}
    assert {"table.csv", "policies.md", "backends.md", "backends.csv"} <= written
    assert not list(folder.rglob("*.part"))


# Other folders than were meant


def test_a_folder_and_itself_are_not_compared(here: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for again in (folder, folder / ".." / folder.name, tmp_path / "link"):
        done = here("report", str(folder), str(again))
        assert (done.returncode, done.stdout) == (2, "")
        assert "the same folder, so that there is nothing to compare" in done.stderr
    assert not (folder / "tables").exists()


@pytest.mark.parametrize("above", [".", ".."])
def test_a_folder_of_results_folders_names_them(
    here: Cli, tmp_path: Path, save_run: Save, above: str
) -> None:
    for name in ("with space", "b", "empty"):
        (tmp_path / "all" / name).mkdir(parents=True)
    for name in ("with space", "b"):
        save_run(Store(tmp_path / "all" / name))
    parent = tmp_path / "all" if above == "." else tmp_path
    done = here("report", str(parent))
    assert done.returncode == 2
    assert f"No results in '{parent}'.\nThere are results in " in done.stderr
    for name in ("with space", "b"):
        assert f"'{tmp_path / 'all' / name}'" in done.stderr
    assert "empty" not in done.stderr
    command = done.stderr.rpartition("python run_bench.py ")[2].strip()
    assert command == f"report {tmp_path / 'all' / 'b'}"
    assert here(*command.split()).returncode == 0


def test_the_folder_of_runs_leads_to_the_results(here: Cli, folder: Path) -> None:
    done = here("report", str(folder / "runs"))
    assert done.returncode == 2
    assert f"There are results in '{folder}'." in done.stderr


# Runs that could not be done


def _unavailable(store: Store, save_run: Save, spec: Any, environment: Any) -> None:
    failure = {"kind": "Unavailable", "message": "no weights here"}
    save_run(store, spec, environment, status="unavailable", test_top1=None, failure=failure)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"packages": {}}, 1),
        ({"python": "3.12.1", "thawbench": "0.0.1"}, 1),
        ({"processor": "another"}, 2),
        ({"cores": 64}, 2),
        ({"system": "Darwin arm64"}, 2),
    ],
    ids=str,
)
def test_what_was_done_on_another_machine_is_a_gap_still(
    here: Cli, tmp_path: Path, save_run: Save, make_spec: Any, make_environment: Any,
    change: dict[str, Any], left: int,
) -> None:  # fmt: skip
    store, spec = Store(tmp_path / "results"), make_spec()
    save_run(store, spec)
    _unavailable(store, save_run, spec, make_environment(**change))
    done = here("report", str(store.root))
    assert done.returncode == 0
    assert len(read_document(store.root / "report.html")["rows"]) == left
    assert (store.root / "tables" / "failed.md").exists() == (left == 2)


@pytest.mark.parametrize(("model", "left"), [("absent", 1), ("H100", 1), ("A100", 2)])
def test_a_gpu_that_was_not_seen_may_be_the_one_that_did_it(
    tmp_path: Path, save_run: Save, make_spec: Any, make_environment: Any, model: str, left: int
) -> None:
    store, spec = Store(tmp_path), make_spec(device="cuda:0")
    gpu = {"device": "cuda:0", "driver": "1"}
    save_run(store, spec, make_environment(**gpu, device_model="H100"))
    where = make_environment(device="cuda:0", device_model=model, packages={})
    _unavailable(store, save_run, spec, where)
    assert len(load_runs([store.root])[0]) == left


def test_the_kind_of_a_failure_stands_on_the_page_and_in_its_table(here: Cli, folder: Path) -> None:
    bad = sorted(folder.glob("runs/*/*/result.json"))[0]
    failure = {"kind": "ZeroDivisionError", "message": "by zero"}
    _change(bad, status="crashed", test_top1=None, failure=failure)
    here("report", str(folder))
    page = (folder / "report.html").read_text("utf-8")
    section = page.partition('<section id="failed"')[2].partition("</section>")[0]
    assert "ZeroDivisionError" in section
    assert "by zero" in section
    with (folder / "tables" / "failed.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["kind"], row["reason"]) == ("ZeroDivisionError", "by zero")
