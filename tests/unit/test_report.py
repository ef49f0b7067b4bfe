"""Rows, tables and the page: complete, distinct, strict and safe against hostile names."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.folders import load_runs
from bench.analysis.rows import DIFFERING, FIELDS, Row, identity, row_of, rows_of, twins
from bench.errors import UserError
from bench.report import as_json, make_report
from bench.report.notes import footnotes, reasons
from bench.report.tables.runs import FORMATS, render, standard_table, to_csv
from bench.spec.result import REPORTED_FIELDS, RunResult
from bench.storage.results import Store, StoredRun
from bench.storage.text_files import printable

CONTRACT = [
    "run_id", "environment_id", "case", "size", "train_images", "similarity", "dataset",
    "backbone", "policy", "mode", "head", "weights", "precision", "px", "batch_size", "epochs",
    "backend", "device", "seed", "status", "failure", "parity", "test_top1",
    "train_images_per_s", "infer_images_per_s", "total_parameters", "trainable_parameters",
    "fit_s",
]  # fmt: skip
"""Fields that others rely on (docs/design.md, Files and JSON fields)."""

HOSTILE = [
    "a|b", "<script>alert(1)</script>", "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "a&b", 'a"b',
    "a'b", "ü–", "50%_$x",
]  # fmt: skip

MakeRun = Callable[..., StoredRun]


FAILED = {
    "status": "oom", "failure": {"kind": "SIGKILL", "message": "memory ran out"},
    "test_top1": None, "fit_s": None, "train_images_per_s": None, "infer_images_per_s": None,
}  # fmt: skip


def test_a_row_has_the_fields_of_the_design(make_run: MakeRun) -> None:
    row = row_of(make_run())
    assert [f for f in CONTRACT if f not in row.fields] == []
    assert (row["case"], row["size"], row["train_images"]) == (1, "small", 216)
    assert (row["similarity"], row["weights"], row["status"]) == ("similar", "pretrained", "ok")
    assert (row["failure"], row["parity"]) == (None, None)
    assert (row["test_top1"], row["fit_s"], row["total_parameters"]) == (0.7512, 12.34, 3_000_000)
    assert set(REPORTED_FIELDS) <= set(RunResult.model_fields)


def test_a_row_has_the_data_sets_name_and_the_table_its_label(make_run: MakeRun) -> None:
    (row,) = rows = rows_of([make_run()])
    assert (row["dataset"], row["dataset_label"]) == ("photos", "photos (stand-in)")
    assert standard_table(rows)["data"].tolist() == ["photos (stand-in)"]
    (read,) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert (read["dataset"], read["dataset_label"]) == ("photos", "photos (stand-in)")


def test_the_json_is_strict_and_says_its_version(make_run: MakeRun) -> None:
    document = as_json(rows_of([make_run(), make_run(seed=1, result=FAILED)]))
    text = json.dumps(document, allow_nan=False)
    again = json.loads(text)
    assert again["schema_version"] == 1
    assert again["rows"][1]["failure"] == {"kind": "SIGKILL", "message": "memory ran out"}
    assert again["rows"][1]["test_top1"] is None
    assert again["rows"][0] == row_of(make_run()).fields


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"kind": "random", "source": "random", "sha256": None}, "random"),
        ({"kind": "file", "source": "w.pth", "sha256": "12345678ff"}, "file w.pth 12345678"),
    ],
)
def test_weights_that_are_not_the_catalogues_are_seen_in_every_table(
    make_run: MakeRun, weights: dict[str, Any], said: str
) -> None:
    rows = rows_of([make_run(weights=weights)])
    assert rows[0]["weights"] == said
    assert standard_table(rows)["weights"].tolist() == [said]


def test_the_table_has_the_columns_that_were_asked_for(make_run: MakeRun) -> None:
    table = standard_table(rows_of([make_run()]))
    wanted = [
        "case", "size (images)", "similarity", "backbone", "policy", "backend", "test top-1",
        "train images/s", "infer images/s", "total parameters", "trainable parameters", "fit s",
        "status",
    ]  # fmt: skip
    assert [c for c in table.columns if c in wanted] == wanted
    (values,) = table[wanted].to_numpy().tolist()
    assert values == [
        "1", "small (216)", "similar", "efficientnet_lite0", "freeze_all", "torch", "75.1%",
        "123", "300", "3,000,000", "20,000", "12.3", "ok",
    ]  # fmt: skip


CHANGES: list[dict[str, Any]] = [
    {"case": {"number": None}},
    {"case": {"similarity": None}},
    {"case": {"size": "medium"}},
    {"case": {"dataset": {"name": "other"}}},
    {"case": {"dataset": {"label": "other"}}},
    {"case": {"dataset": {"content_hash": "00"}}},
    {"case": {"dataset": {"train_images": 217}}},
    {"case": {"dataset": {"val_images": 1}}},
    {"case": {"dataset": {"test_images": 1}}},
    {"case": {"dataset": {"classes": ["a", "b"]}}},
    {"backbone": "vgg16"},
    {"code_sha256": "ab" * 32},
    {"weights": {"kind": "random"}},
    {"weights": {"sha256": "00"}},
    {"policy": {"name": "x"}},
    {"policy": {"boundary": "features.28"}},
    {"policy": {"backbone_scale": 0.5}},
    {"recipe": {"head": "dense:2"}},
    {"recipe": {"px": 97}},
    {"recipe": {"epochs": 13}},
    {"recipe": {"batch_size": 33}},
    {"recipe": {"optimizer": "adamw"}},
    {"recipe": {"learning_rate": 0.06}},
    {"recipe": {"momentum": 0.8}},
    {"recipe": {"weight_decay": 0.0}},
    {"recipe": {"schedule": "constant"}},
    {"recipe": {"warmup_fraction": 0.0}},
    {"recipe": {"augmentation": "crop"}},
    {"recipe": {"precision": "bf16"}},
    {"backend": "keras-tensorflow"},
    {"device": "cuda:0"},
    {"seed": 1},
    {"environment": {"device_model": "H100"}},
    {"environment": {"python": "3.12.0"}},
    {"recipe": {"learning_rate": 0.05000001}},
]


def _identity(rows: list[Row]) -> list[tuple[str, ...]]:
    """Return what the table shows of each run apart from measured fields."""
    table = standard_table(rows)
    measured = {"test top-1", "train images/s", "infer images/s", "fit s"}
    return [tuple(r) for r in table.drop(columns=list(measured)).to_numpy().tolist()]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_rows_that_differ_in_anything_look_different(
    make_run: MakeRun, change: dict[str, Any]
) -> None:
    found = _identity(rows_of([make_run(), make_run(**change)]))
    assert len(set(found)) == 2


def test_many_rows_that_each_differ_in_something_else_look_different(make_run: MakeRun) -> None:
    runs = [make_run(), *(make_run(**c) for c in CHANGES)]
    assert len(set(_identity(rows_of(runs)))) == len(runs)


def test_a_column_that_is_the_same_everywhere_takes_no_room(make_run: MakeRun) -> None:
    columns = set(standard_table(rows_of([make_run(), make_run(seed=1)])).columns)
    assert "seed" in columns
    assert columns.isdisjoint({"momentum", "run", "environment", "schedule", "head"})


def test_rows_are_in_a_readers_order(make_run: MakeRun) -> None:
    runs = [
        make_run(case={"number": None}),
        make_run(case={"number": 4}, policy={"name": "retrain_all"}),
        make_run(policy={"name": "from_scratch"}),
        make_run(policy={"name": "from_scratch"}, backend="keras-tensorflow"),
        make_run(backend="keras-tensorflow"),
        make_run(),
        make_run(backbone="alexnet"),
        make_run(seed=1),
    ]
    rows = rows_of(runs)
    found = [(r["case"], r["backbone"][:3], r["policy"], r["seed"], r["backend"]) for r in rows]
    assert found == [
        (1, "ale", "freeze_all", 0, "torch"),
        (1, "eff", "freeze_all", 0, "torch"),
        (1, "eff", "freeze_all", 0, "keras-tensorflow"),
        (1, "eff", "freeze_all", 1, "torch"),
        (1, "eff", "from_scratch", 0, "torch"),
        (1, "eff", "from_scratch", 0, "keras-tensorflow"),
        (4, "eff", "retrain_all", 0, "torch"),
        (None, "eff", "freeze_all", 0, "torch"),
    ]
    assert rows_of(reversed(runs)) == rows


def test_runs_that_are_not_ok_are_rows_with_a_reason(make_run: MakeRun) -> None:
    gone = {"status": "unavailable", "failure": {"kind": "unavailable", "message": "pip install"}}
    rows = rows_of([make_run(), make_run(seed=1, result=FAILED), make_run(seed=2, result=FAILED),
                    make_run(seed=3, result=gone)])  # fmt: skip
    table = standard_table(rows)
    assert table["status"].tolist() == ["ok", "oom", "oom", "unavailable"]
    assert table["test top-1"].tolist()[1] == "–"
    first, second = reasons(rows)
    assert first.startswith(f"oom: memory ran out [2 runs: {rows[1]['run_id']}")
    assert second == f"unavailable: pip install [1 run: {rows[3]['run_id']}]"


def test_what_a_reader_must_know_stands_below(make_run: MakeRun) -> None:
    def notes(*runs: StoredRun) -> str:
        return "\n".join(footnotes(rows_of(runs)))

    assert "stand-in: " in notes(make_run())
    plain = {"case": {"dataset": {"name": "folder:flowers", "label": "folder:flowers"}}}
    classes = "folder:flowers: 2 classes, label 0 to 1: cat, coffee."
    assert notes(make_run(**plain)) == classes
    synthetic = {"case": {"dataset": {"name": "rvl_cdip", "label": "rvl_cdip (synthetic pages)"}}}
    assert "synthetic pages" in notes(make_run(**synthetic))
    own = {"name": "folder:synthetic stand-in", "label": "folder:synthetic stand-in"}
    found = notes(make_run(case={"dataset": own}))
    assert found == "folder:synthetic stand-in: 2 classes, label 0 to 1: cat, coffee.", (
        "words in a folder's name say nothing"
    )
    assert "weights random" in notes(make_run(**plain, weights={"kind": "random"}))
    control = {"weights": {"kind": "random"}, "policy": {"name": "from_scratch"}}
    assert notes(make_run(**plain, **control)) == classes
    both = (make_run(**plain), make_run(**plain, backend="keras-tensorflow"))
    assert "not proved for 2 rows" in notes(*both)
    other = {"python": "3.12.0"}
    assert "several environments" in notes(both[0], make_run(**plain, environment=other))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_seen_and_explained(make_run: MakeRun, precision: str) -> None:
    rows = rows_of([make_run(recipe={"precision": precision})])
    assert standard_table(rows)["precision"].tolist() == [precision]
    assert any("matched in all but precision" in note for note in footnotes(rows))


@pytest.mark.parametrize(("precision", "shown"), [("fp32", False), ("fp64", True)])
def test_other_precision_needs_no_note(make_run: MakeRun, precision: str, shown: bool) -> None:
    rows = rows_of([make_run(recipe={"precision": precision})])
    assert ("precision" in standard_table(rows).columns) == shown
    assert not any("precision" in note for note in footnotes(rows))


def test_several_environments_of_any_backend_are_said(make_run: MakeRun) -> None:
    keras = {"backend": "keras-tensorflow", "case": {"dataset": {"label": "flowers"}}}
    runs = [make_run(case={"dataset": {"label": "flowers"}}), make_run(**keras),
            make_run(**keras, environment={"python": "3.12.0"})]  # fmt: skip
    assert any("several environments" in n for n in footnotes(rows_of(runs)))


# Hostile names


def _hostile(make_run: MakeRun, name: str) -> StoredRun:
    failure = {"kind": "x", "message": f"{name} broke"}
    return make_run({**FAILED, "failure": failure}, case={"dataset": {"name": name, "label": name}})


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_one_cell_of_markdown(make_run: MakeRun, name: str) -> None:
    rows = rows_of([_hostile(make_run, name), make_run()])
    lines = render(standard_table(rows), "md").splitlines()
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert len(lines) == 4
    assert len(set(bars)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "<img src=x onerror=alert(1)>",
        "[x](http://evil)",
        "\\<b>",
    ],
)
def test_a_name_is_no_markup_in_markdown(make_run: MakeRun, name: str, tmp_path: Path) -> None:
    runs = [_hostile(make_run, name), make_run()]
    make_report(runs, tmp_path).write(["md"])
    text = (tmp_path / "tables" / "table.md").read_text()
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4
    bare = re.sub(r"\\.", "", text)  # without what is escaped
    assert "<" not in bare
    assert "[" not in bare


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_in_html(make_run: MakeRun, name: str, tmp_path: Path) -> None:
    runs = [_hostile(make_run, name)]
    table = render(standard_table(rows_of(runs)), "html")
    make_report(runs, tmp_path).write(["html"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (table, page):
        assert "<script>alert" not in text
        assert name.strip() in html.unescape(text)
    assert "<script>" not in table  # the page has some of its own
    assert f"{html.unescape(name)} broke".strip() in html.unescape(page)


_CELLS = [*HOSTILE, "a,b", "a\nb", 'a,"b"', "\r=1"]


@pytest.mark.parametrize("name", _CELLS)
def test_a_name_is_one_cell_of_csv_and_no_formula(make_run: MakeRun, name: str) -> None:
    (read,) = csv.DictReader(io.StringIO(to_csv(rows_of([_hostile(make_run, name)])), newline=""))
    assert read["dataset"].lstrip("'") == printable(name).lstrip("'")
    assert read["dataset"][:1] not in {"=", "+", "-", "@", "\t", "\r"}
    assert read["failure"] == f"x: {printable(name)} broke"
    assert read["backend"] == "torch"


def test_csv_holds_every_field_unrounded(make_run: MakeRun) -> None:
    rows = rows_of([make_run(result={"test_top1": 1 / 3})])
    (read,) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert set(read) == set(FIELDS)
    assert float(read["test_top1"]) == 1 / 3
    assert read["parity"] == ""


def test_an_environment_is_escaped_too(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(environment={"processor": "<b>fast</b>", "variables": {"X": "<i>"}})
    make_report([run], tmp_path).write([])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>fast" not in page
    assert '"<i>"' not in page
    assert "&lt;i&gt;" in page
    assert run.environment.environment_id in page


# Folders


def test_all_forms_are_written(make_run: MakeRun, tmp_path: Path) -> None:
    paths = make_report([make_run()], tmp_path).write(FORMATS)
    names = {p.name for p in paths}
    for table in ("table", "policies"):
        assert {f"{table}.{form}" for form in ("csv", "html", "md", "tex")} <= names
    assert "report.html" in names
    assert all(p.read_text(encoding="utf-8").endswith(("\n", "</html>")) for p in paths)
    make_report([make_run(result={"status": "oom", "test_top1": None})], tmp_path).write(FORMATS)
    assert not (tmp_path / "tables" / "policies.md").exists()  # of runs that are no longer there
    assert "table.md" in {p.name for p in (tmp_path / "tables").iterdir()}


def test_a_report_that_cannot_be_written_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file in the way")
    with pytest.raises(UserError, match="Cannot write the report"):
        make_report([make_run()], tmp_path).write(["md"])


def test_a_folder_without_results_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No results in") as error:
        load_runs([tmp_path])
    assert error.value.hint == "Make some: python run_bench.py run"


def test_runs_of_several_folders_come_together(
    tmp_path: Path, save_run: Callable[..., Path], make_spec: Callable[..., Any]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    save_run(Store(a))
    save_run(Store(b), make_spec(seed=1))
    bad = save_run(Store(b), make_spec(seed=2))
    (bad / "spec.json").write_text("{")
    runs, problems = load_runs([a, b])
    assert len(runs) == 2
    assert len(problems) == 1


def test_what_was_unavailable_and_is_done_is_unavailable_no_longer(
    tmp_path: Path,
    save_run: Callable[..., Path],
    make_spec: Callable[..., Any],
    make_environment: Callable[..., Any],
    make_result: Callable[..., Any],
) -> None:
    store, spec = Store(tmp_path), make_spec()
    absent = make_environment(packages={})
    failure = {"kind": "x", "message": "y"}
    lost = make_result(spec, absent, status="unavailable", failure=failure)
    store.save(spec, absent, lost, store.partial_folder())
    assert [r.result.status for r in load_runs([tmp_path])[0]] == ["unavailable"]
    save_run(store, spec)
    assert [r.result.status for r in load_runs([tmp_path])[0]] == ["ok"]
    planned = {(spec.run_id, absent.environment_id)}
    kept = load_runs([tmp_path], planned)[0]
    assert sorted(r.result.status for r in kept) == ["ok", "unavailable"]


def test_rows_are_immutable_and_read_by_attribute_or_column(make_run: MakeRun) -> None:
    (row,) = rows_of([make_run()])
    assert row.result.test_top1 == row["test_top1"] == 0.7512
    assert list(row.fields) == list(FIELDS)
    with pytest.raises(FrozenInstanceError):
        row.parity = "shown"  # type: ignore[misc]
    values = (row.environment.packages, row.environment.variables, row.result.knobs)
    for mapping in values:
        with pytest.raises(TypeError):
            mapping["torch"] = "9"  # type: ignore[index]


def test_identity_goes_by_the_names_of_fields(make_run: MakeRun) -> None:
    """The order of fields in a row's dictionary does not matter."""
    a, b = rows_of([make_run(), make_run(backend="keras-tensorflow")])
    b.__dict__["fields"] = dict(reversed(b.fields.items()))
    assert identity(a, DIFFERING) == identity(b, DIFFERING)
    assert identity(a, DIFFERING - {"backend"}) != identity(b, DIFFERING - {"backend"})
    assert len(twins([a, b])) == 1
