"""Results as a pandas frame, from folders and from a page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import bench
from bench.analysis.folders import load_runs
from bench.analysis.frame import COLUMNS, DERIVED, UNITS
from bench.analysis.rows import FIELDS, row_of
from bench.errors import UserError
from bench.report import load, make_report
from bench.storage.results import Store, StoredRun

ROOT = Path(__file__).resolve().parents[2]
Save = Callable[..., Path]
MakeRun = Callable[..., StoredRun]
FAILED = {
    "status": "oom", "failure": {"kind": "SIGKILL", "message": "memory ran out"},
    "test_top1": None, "fit_s": None, "train_images_per_s": None, "infer_images_per_s": None,
    "total_parameters": None,
}  # fmt: skip
PHASE = {
    "boundary": "head", "epochs": 3, "trainable_parameters": 10, "frozen_state_sha256": "ab",
    "prefix_values": None, "prefix_s": None, "train_images_per_s": 1.0,
    "effective_images_per_s": None, "setup_s": None, "fit_s": 1.0,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, save_run: Save, make_spec: Callable[..., Any]) -> Path:
    """Return a folder of three runs: ok, failed, and one that trained in phases."""
    store = Store(tmp_path / "out")
    save_run(
        store, make_spec(seed=0), val_top1_by_epoch=[0.5, None], train_loss_by_epoch=[2.0, 1.5]
    )
    save_run(store, make_spec(seed=1), **FAILED)
    phases = [PHASE, {**PHASE, "boundary": "all", "epochs": 2}]
    save_run(store, make_spec(seed=2, case={"number": None}), phases=phases)
    return tmp_path / "out"


def test_every_column_has_a_sentence_and_every_sentence_a_column(make_run: MakeRun) -> None:
    assert list(COLUMNS) == list(row_of(make_run()).fields)
    for name, said in COLUMNS.items():
        assert said.endswith((".", "…")), name
        assert len(said) > 5, name
    assert set(DERIVED) < set(FIELDS)


def test_the_sentences_are_those_of_the_fields_with_the_unit() -> None:
    assert COLUMNS["epochs"] == "Passes over the training split."
    assert COLUMNS["case"] == "Number of the article's case, or null."
    assert COLUMNS["test_s"].endswith("null in a sweep. In seconds.")
    assert COLUMNS["step_s_p95"] == "95th percentile of a training step. In seconds."
    assert COLUMNS["train_images_per_s"].endswith("window. In images per second.")
    assert COLUMNS["environment_id"] == "12 hex digits of the hash of the environment."
    for end, said in UNITS.items():
        named = [name for name in COLUMNS if name.endswith(end)]
        longer = [other for other in UNITS if other.endswith(end) and other != end]
        mine = [n for n in named if not any(n.endswith(other) for other in longer)]
        assert all(COLUMNS[name].endswith(said) for name in mine)


def test_one_row_a_run_and_a_type_for_each_column(folder: Path) -> None:
    frame = bench.results(folder)
    assert len(frame) == 3
    assert list(frame.columns) == list(FIELDS)
    kinds = {str(dtype) for dtype in frame.dtypes}
    assert kinds <= {"Int64", "float64", "string", "boolean"}
    types = {name: str(frame[name].dtype) for name in frame}
    assert types["test_top1"] == types["fit_s"] == types["learning_rate"]
    assert types["test_top1"] == "float64"
    assert types["case"] == types["total_parameters"] == types["seed"] == types["views"] == "Int64"
    assert types["backend"] == types["status"] == types["failure"] == types["phases"] == "string"


def test_values_are_those_of_the_runs_and_missing_ones_are_missing(folder: Path) -> None:
    frame = bench.results(folder).set_index("seed")
    assert frame.loc[0, "test_top1"] == 0.7512
    assert frame.loc[0, "total_parameters"] == 3_000_000
    assert frame["test_top1"].isna().tolist() == frame["total_parameters"].isna().tolist()
    assert frame.loc[1, "failure"] == "SIGKILL: memory ran out"
    assert frame["failure"].isna().sum() == 2
    assert frame.loc[2, "phases"] == "head 3, all 2"
    assert pd.isna(frame.loc[2, "case"])
    assert frame["fit_s"].mean() == pytest.approx(12.34)


def test_a_column_of_nothing_has_its_type_all_the_same(tmp_path: Path, save_run: Save) -> None:
    save_run(Store(tmp_path), **FAILED)
    frame = bench.results(tmp_path)
    assert (str(frame["test_top1"].dtype), str(frame["views"].dtype)) == ("float64", "Int64")
    assert str(frame["phases"].dtype) == "string"


def test_what_goes_with_the_frame(folder: Path) -> None:
    broken = folder / "runs" / "x" / "y"
    broken.mkdir(parents=True)
    (broken / "result.json").write_text("{")
    frame = bench.results(folder)
    (said,) = frame.attrs["problems"]
    assert said.startswith(str(broken))
    (where,) = frame["environment_id"].unique()
    assert frame.attrs["environments"][where]["packages"]["torch"] == "2.14.1"
    assert frame.attrs["columns"] == COLUMNS
    json.dumps(frame.attrs, allow_nan=False)


def test_several_folders_are_one_frame(
    folder: Path, tmp_path: Path, save_run: Save, make_spec: Callable[..., Any]
) -> None:
    save_run(Store(tmp_path / "more"), make_spec(backend="keras-jax"))
    frame = bench.results(folder, str(tmp_path / "more"))
    assert frame["backend"].tolist().count("keras-jax") == 1
    assert len(frame) == 4
    assert len(frame.attrs["environments"]) == 2


def test_curves_have_a_row_for_each_epoch(folder: Path) -> None:
    frame = bench.curves(folder)
    assert list(frame.columns) == ["run_id", "environment_id", "epoch", "train_loss", "val_top1"]
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["train_loss"].tolist() == [2.0, 1.5]
    assert frame["val_top1"].isna().tolist() == [False, True]
    assert [str(t) for t in frame.dtypes] == ["string", "string", "Int64", "float64", "float64"]


def test_a_page_gives_the_frame_of_its_folder(folder: Path, tmp_path: Path) -> None:
    stored, _ = load_runs([folder])
    make_report(stored, folder, ["a folder: skipped"]).write(["md"])
    page = (folder / "report.html").rename(tmp_path / "sent.html")
    frame, expected = load(str(page)), bench.results(folder)
    assert frame.attrs["problems"] == ["a folder: skipped"]
    assert frame.attrs["environments"] == expected.attrs["environments"]
    assert frame.attrs["columns"] == expected.attrs["columns"]
    frame.attrs.clear()
    expected.attrs.clear()
    assert_frame_equal(frame, expected)


def test_a_page_of_another_version_keeps_what_is_not_known_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"run_id": "a", "new_s": 1.5, "new_count": 2, "is_new": True, "odd": [1]},
        {"run_id": "b", "new_s": None, "new_count": None, "is_new": None, "odd": None},
    ]
    monkeypatch.setattr("bench.report.read_document", lambda path: {"rows": rows})
    (tmp_path / "report.html").write_text("")
    frame = load(tmp_path / "report.html")
    types = [str(t) for t in frame.dtypes]
    assert types == ["string", "float64", "Int64", "boolean", "object"]
    assert list(frame.attrs["columns"]) == ["run_id"]


def test_wrong_questions_are_told_what_is_wrong(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.html").write_text("")
    for ask in (bench.results, bench.curves):
        with pytest.raises(UserError, match="No folder was named"):
            ask()
        with pytest.raises(UserError, match="'nowhere' is not a results folder: it does not exist"):
            ask("nowhere")
        with pytest.raises(UserError, match=r"No results in '.*empty'"):
            ask(tmp_path / "empty")
        with pytest.raises(
            UserError, match=r"is a file, not a results folder.\nTo read a page: bench"
        ):
            ask(tmp_path / "report.html")
    with pytest.raises(UserError, match="There is no page 'nowhere.html'"):
        load("nowhere.html")
    with pytest.raises(
        UserError, match=r"is a folder, not a page.\nLoad a results folder with bench.results"
    ):
        load(folder)
    with pytest.raises(UserError, match=r"report.html' is not a Thawbench report"):
        load(tmp_path / "report.html")
    monkeypatch.setattr("bench.report.read_document", lambda path: {"rows": None})
    with pytest.raises(UserError, match=r"report.html' holds no runs"):
        load(tmp_path / "report.html")


def test_to_import_bench_is_instant() -> None:
    code = "import sys, bench; bench.results, bench.curves; print('pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False")
