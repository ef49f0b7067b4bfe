"""``report`` from the command line: filters, two folders, damaged results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli.main import _stopped_text, main
from bench.report.page import read_document
from bench.storage.results import Store
from bench.system import project_root

Answer = tuple[int, str, str]
Report = Callable[..., Answer]


@pytest.fixture
def report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Report:
    """Return a function that calls ``report`` and returns exit code, stdout and stderr."""
    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))

    def called(*words: object) -> Answer:
        monkeypatch.setattr("sys.argv", ["run_bench.py", "report", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return called


@pytest.fixture
def folder(tmp_path: Path, save_run: Callable[..., Path], make_spec: Any) -> Path:
    store = Store(tmp_path / "results")
    for seed in range(2):
        for backend in ("torch", "keras-tensorflow"):
            save_run(store, make_spec(seed=seed, backend=backend))
    return store.root


def test_filters_narrow_tables_page_and_json(report: Report, folder: Path) -> None:
    code, out, _ = report(folder, "--backends", "torch", "--seeds", "1", "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert (row["backend"], row["seed"]) == ("torch", 1)
    assert [r["seed"] for r in read_document(folder / "report.html")["rows"]] == [1]
    assert len((folder / "tables" / "table.csv").read_text().splitlines()) == 2


def test_columns_and_order(report: Report, folder: Path) -> None:
    code, out, _ = report(folder, "--columns", "seed,backend", "--sort", "-seed,backend")
    assert code == 0
    lines = [line.split() for line in out.splitlines()[:6]]
    assert lines[0] == ["seed", "backend"]
    assert lines[2:] == [
        ["1", "keras-tensorflow"], ["1", "torch"], ["0", "keras-tensorflow"], ["0", "torch"],
    ]  # fmt: skip


def test_recipe_options_filter(
    report: Report, folder: Path, save_run: Callable[..., Path], make_spec: Any
) -> None:
    save_run(Store(folder), make_spec(recipe={"optimizer": "adamw", "warmup_fraction": 0.2}))
    for words, count in (
        (("--optimizer", "sgd"), 4),
        (("--optimizer", "adamw"), 1),
        (("--optimizer", "adamw,sgd"), 5),
        (("--warmup", "0.2"), 1),
    ):
        code, out, err = report(folder, *words, "--json")
        assert (code, len(json.loads(out)["rows"])) == (0, count)
        assert f"Selected from 5 runs by {' '.join(words)}." in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policies", "freeze_al"], "Did you mean 'freeze_all'?"),
        (["--columns", "top1"], "Unknown column 'top1'"),
        (["--sort", "test_top"], "Did you mean 'test_top1'?"),
        (["--format", "pdf"], "Unknown format 'pdf'"),
        (["--px", "big"], "'big' is not a whole number"),
        (["--optimizer", "sdg"], "Did you mean 'sgd'?"),
        (["--schedule", "constant"], "--schedule: no run here has the schedule 'constant'"),
        (["--warmup", "much"], "--warmup: 'much' is not a number."),
    ],
)
def test_wrong_names_are_the_reader_s_mistake(
    report: Report, folder: Path, words: list[str], message: str
) -> None:
    code, out, err = report(folder, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_damaged_results_are_named_and_the_rest_reported(report: Report, folder: Path) -> None:
    runs = sorted(folder.glob("runs/*/*/result.json"))
    runs[0].write_text(runs[0].read_text()[:100])
    runs[1].write_text('{"some": "thing"}')
    newer = json.loads(runs[2].read_text()) | {"schema_version": 99}
    runs[2].write_text(json.dumps(newer))
    (folder / "runs" / "stray").mkdir()
    (folder / "runs" / "stray" / "note.txt").write_text("hello")
    code, out, err = report(folder, "--json")
    assert code == 0
    assert len(json.loads(out)["rows"]) == 1
    assert err.count("skipped:") == 3
    assert "newer Thawbench (schema 99" in err
    assert len(read_document(folder / "report.html")["problems"]) == 3


def test_files_of_different_runs_are_no_run(report: Report, folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("runs/*/*/spec.json"))
    shutil.copyfile(first, second)
    code, out, err = report(folder, "--json")
    assert code == 0
    assert len(json.loads(out)["rows"]) == 3
    assert "result.json is of another run" in err
    assert json.loads(out)["problems"] == err.splitlines()[: len(json.loads(out)["problems"])]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a": 1', "", "\x00\x01", '"words"', "[1, 2]"])
def test_files_that_are_no_results_are_skipped(report: Report, folder: Path, text: str) -> None:
    sorted(folder.glob("runs/*/*/result.json"))[0].write_text(text)
    code, _, err = report(folder)
    assert code == 0
    assert err.count("skipped: not a run of Thawbench") == 1
    assert "Traceback" not in err


def test_a_selection_is_stated(report: Report, folder: Path) -> None:
    _, _, err = report(folder, "--seeds", "1")
    assert "Selected from 4 runs by --seeds 1." in err
    assert (
        "Selected from 4 runs by --seeds 1." in read_document(folder / "report.html")["selection"]
    )
    report(folder)
    assert read_document(folder / "report.html")["selection"] == ""


def test_tables_in_latex_hold_only_what_latex_has(report: Report, folder: Path) -> None:
    report(folder, "--format", "latex,html")
    tables = sorted((folder / "tables").glob("*.tex"))
    assert tables
    for path in tables:
        text = path.read_text()
        assert text.isascii(), {c for c in text if not c.isascii()}
        assert r"\toprule" in text
    assert "speed (geometric means)" in (folder / "tables" / "policies.tex").read_text()
    assert "speed (geometric means)" in (folder / "tables" / "policies.html").read_text()


def test_an_empty_folder(report: Report, tmp_path: Path) -> None:
    code, _, err = report(tmp_path)
    assert code == 2
    assert "No results in" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(report: Report, folder: Path) -> None:
    folder.chmod(0o500)
    try:
        code, _, err = report(folder)
    finally:
        folder.chmod(0o700)
    assert code == 2
    assert "Cannot write the report" in err


def test_a_file_in_the_way_of_the_tables(report: Report, folder: Path) -> None:
    (folder / "tables").write_text("in the way")
    code, out, err = report(folder)
    assert code == 2
    assert "efficientnet_lite0" in out, "the terminal still shows the results"
    assert "Cannot write the report" in err
    assert "Traceback" not in err


def test_only_failures(report: Report, folder: Path) -> None:
    for path in folder.glob("runs/*/*/result.json"):
        failed = json.loads(path.read_text()) | {
            "status": "oom", "test_top1": None, "failure": {"kind": "x", "message": "no memory"},
        }  # fmt: skip
        path.write_text(json.dumps(failed))
    code, out, _ = report(folder)
    assert code == 0
    assert "no memory" in out
    told = read_document(folder / "report.html")
    assert told["first"]["headline"] == "No run finished: 4 runs ended without a result."
    assert "No run finished" in out
    assert (folder / "tables" / "failed.md").is_file()


def test_two_machines_stay_apart(
    report: Report, folder: Path, save_run: Callable[..., Path], make_spec: Any,
    make_environment: Any,
) -> None:  # fmt: skip
    save_run(Store(folder), make_spec(), make_environment(processor="Another", cores=64))
    code, out, _ = report(folder)
    assert code == 0
    assert "rows come from several environments" in out
    policies = (folder / "tables" / "policies.csv").read_text().splitlines()
    assert len(policies) == 1 + 3  # torch here, torch there, Keras here


def test_two_folders_are_laid_side_by_side(report: Report, folder: Path, tmp_path: Path) -> None:
    after = tmp_path / "after"
    shutil.copytree(folder, after)
    code, out, _ = report(folder, after, "--json")
    assert code == 0
    side = json.loads(out)["side_by_side"]
    assert side["sentences"]
    assert read_document(folder / "report-vs-after.html")["side_by_side"] == side
    assert list((folder / "tables").glob("side_by_side*.md"))


def test_a_comparison_leaves_the_first_folders_own_report(
    report: Report, folder: Path, tmp_path: Path
) -> None:
    after = tmp_path / "after"
    shutil.copytree(folder, after)
    shutil.rmtree(next((after / "runs").iterdir()))
    report(folder)
    own = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = report(folder, after)
    assert code == 0
    assert str(folder / "report-vs-after.html") in err.partition("written: ")[2]
    assert {path: path.read_bytes() for path in own} == own
    added = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} - {
        path.relative_to(folder) for path in own
    }
    assert Path("report-vs-after.html") in added
    assert Path("tables/side_by_side_top1.md") in added
    assert {path.name.partition("_")[0] for path in added} == {"report-vs-after.html", "side"}
    report(folder)  # its own report leaves the comparison, too
    assert all((folder / path).is_file() for path in added)


def test_three_folders_are_put_into_a_folder_of_their_own(
    report: Report, folder: Path, tmp_path: Path
) -> None:
    others = [tmp_path / name for name in ("b", "c")]
    for other in others:
        shutil.copytree(folder, other)
    report(folder)
    own = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert report(folder, *others)[0] == 0
    assert {path: path.read_bytes() for path in own} == own
    assert read_document(folder / "with-b-c" / "report.html")["side_by_side"] is None
    assert (folder / "with-b-c" / "tables" / "table.md").is_file()


def test_the_first_folder_named_by_out_is_no_folder_of_its_own(
    report: Report, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "after")
    report(folder)
    own = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert report(folder, tmp_path / "after", "--out", folder)[0] == 0
    assert {path: path.read_bytes() for path in own} == own


def test_a_comparison_in_a_folder_of_its_own_has_all_tables(
    report: Report, folder: Path, tmp_path: Path
) -> None:
    after, compared = tmp_path / "after", tmp_path / "compared"
    shutil.copytree(folder, after)
    report(folder, after, "--out", compared)
    assert read_document(compared / "report.html")["side_by_side"]
    assert (compared / "tables" / "table.md").is_file()
    assert (compared / "tables" / "side_by_side_top1.md").is_file()


def test_two_folders_of_which_one_is_empty(report: Report, folder: Path, tmp_path: Path) -> None:
    """A report of the other folder alone would be taken for a comparison."""
    (tmp_path / "empty").mkdir()
    code, _, err = report(folder, tmp_path / "empty")
    assert code == 2
    assert f"No results in '{tmp_path / 'empty'}'" in err


def test_all_is_written_into_the_folder_of_out(
    report: Report, folder: Path, tmp_path: Path
) -> None:
    """Files in the results folder stay."""
    out = tmp_path / "compared"
    before = sorted(folder.rglob("*"))
    code, _, err = report(folder, "--policies", "freeze_all", "--out", out)
    assert code == 0
    assert (out / "report.html").is_file()
    assert (out / "tables" / "table.md").is_file()
    assert sorted(folder.rglob("*")) == before
    assert str(out / "report.html") in err
    in_the_way = folder / "report.html"
    in_the_way.write_text("a file")
    code, _, err = report(folder, "--out", in_the_way)
    assert (code, "Cannot create the folder" in err) == (2, True)


def test_an_interrupted_command_is_continued_without_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["run_bench.py", "run"])
    assert _stopped_text().endswith("repeat the command to do the rest")
    monkeypatch.setattr("sys.argv", ["run_bench.py", "run", "--fresh"])
    assert _stopped_text().endswith("do the rest (without --fresh, which starts over)")


def test_an_interpreter_without_the_packages_hands_over_to_the_installed_one(
    tmp_path: Path,
) -> None:
    """Printed commands begin with ``python``, which may lack the packages."""
    shutil.copy(project_root() / "run_bench.py", tmp_path)
    bare = [sys.executable, "-S", str(tmp_path / "run_bench.py"), "list"]  # no site-packages
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "cli.py").write_text("import typer\n")
    alone = subprocess.run(bare, capture_output=True, text=True)
    assert alone.returncode == 2
    assert "typer is not installed for" in alone.stderr
    assert alone.stderr.endswith("To install all: make bench\n")
    installed = tmp_path / ".venv" / "bin" / "python"
    installed.parent.mkdir(parents=True)
    installed.write_text('#!/bin/sh\necho "installed: $*"\n')
    installed.chmod(0o755)
    handed = subprocess.run(bare, capture_output=True, text=True)
    assert handed.stdout == f"installed: {tmp_path / 'run_bench.py'} list\n"
