"""Rows whose frozen part was computed once."""

from __future__ import annotations

from collections.abc import Callable

from bench.analysis.rows import rows_of
from bench.report.notes import footnotes
from bench.report.tables.runs import standard_table
from bench.storage.results import StoredRun

MakeRun = Callable[..., StoredRun]


def test_cached_runs_have_a_rate_of_their_own_and_a_note(make_run: MakeRun) -> None:
    cached = {
        "train_images_per_s": None, "effective_images_per_s": 4321.0,
        "prefix_values": "computed", "prefix_s": 1.5,
    }  # fmt: skip
    rows = rows_of([make_run(result=cached), make_run(seed=1)])
    table = standard_table(rows)
    assert table["effective images/s"].tolist() == ["4321", "–"]
    assert table["train images/s"].tolist() == ["–", "123"]
    (note,) = (n for n in footnotes(rows) if n.startswith("effective images/s"))
    assert "in 1 of 2 runs" in note
    assert "another run" not in note
    reused = rows_of([make_run(result={**cached, "prefix_values": "reused"})])
    assert any("In 1 of them the values were reused" in note for note in footnotes(reused))
    assert "effective images/s" not in standard_table(rows_of([make_run()])).columns


def test_the_utilisation_of_a_gpu_has_a_column_where_it_is_known(make_run: MakeRun) -> None:
    known = {"device_peak_flops_per_s": 5e13, "model_flop_utilisation": 0.125}
    rows = rows_of([make_run(result=known), make_run(seed=1)])
    assert (rows[0]["device_peak_flops_per_s"], rows[0]["model_flop_utilisation"]) == (5e13, 0.125)
    assert standard_table(rows)["model FLOP utilisation"].tolist() == ["12.5%", "–"]
    assert any(note.startswith("model FLOP utilisation") for note in footnotes(rows))
    assert "model FLOP utilisation" not in standard_table(rows[1:]).columns
    assert not any(note.startswith("model FLOP") for note in footnotes(rows[1:]))


def test_whether_values_were_kept_is_seen_where_rows_differ_in_it(make_run: MakeRun) -> None:
    rows = rows_of([make_run(), make_run(recipe={"prefix_cache": "off"})])
    assert standard_table(rows)["prefix cache"].tolist() == ["auto", "off"]
