"""Rows of policies that unfreeze the network in phases."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

from bench.analysis.rows import rows_of
from bench.catalog.policies import POLICIES
from bench.parity.proofs import ProvedSubject
from bench.report.notes import footnotes, mismatches
from bench.report.tables.runs import standard_table, to_csv
from bench.storage.results import StoredRun

MakeRun = Callable[..., StoredRun]


def _phase(boundary: str, **more: Any) -> dict[str, Any]:
    fields = {
        "boundary": boundary, "epochs": 6, "trainable_parameters": 9, "frozen_state_sha256": "f",
        "prefix_values": None, "prefix_s": None, "train_images_per_s": 50.0,
        "effective_images_per_s": None, "setup_s": None, "fit_s": 2.0,
    }  # fmt: skip
    return {**fields, **more}


def _run(make_run: MakeRun, policy: str = "linear_probe_then_fine_tune", **more: Any) -> StoredRun:
    head = _phase("head", prefix_values="computed", prefix_s=1.0, effective_images_per_s=900.0)
    result = {
        "phases": [head, _phase("all", setup_s=0.5)], "train_images_per_s": None,
        "effective_images_per_s": 95.0, "prefix_values": "computed", "prefix_s": 1.0,
    }  # fmt: skip
    chosen = POLICIES[policy].model_dump(mode="json")
    return make_run(policy=chosen, result=result, **more)


def test_a_row_in_phases_has_one_rate_over_all_and_says_so(make_run: MakeRun) -> None:
    rows = rows_of([_run(make_run), make_run()])
    table = standard_table(rows)
    assert table["policy"].tolist() == ["freeze_all", "linear_probe_then_fine_tune"]
    assert table["train images/s"].tolist() == ["123", "–"]
    assert table["effective images/s"].tolist() == ["–", "95"]
    notes = footnotes(rows)
    (note,) = (note for note in notes if note.startswith("phases: "))
    assert "unfrozen step by step by linear_probe_then_fine_tune (1 of 2 runs)" in note
    assert not any(note.startswith("effective images/s") for note in notes)
    assert not any("too short" in note for note in notes)
    assert not any(note.startswith("phases: ") for note in footnotes(rows_of([make_run()])))


def test_rows_hold_each_phase_and_csv_a_word_for_it(make_run: MakeRun) -> None:
    rows = rows_of([_run(make_run)])
    assert [p["boundary"] for p in rows[0]["phases"]] == ["head", "all"]
    assert rows[0]["phases"][0]["effective_images_per_s"] == 900.0
    (read,) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert read["phases"] == "head 6, all 6"


def test_parity_is_shown_by_a_proof_of_the_same_policy_only(make_run: MakeRun) -> None:
    keras = {"backend": "keras-tensorflow"}
    runs = [
        _run(make_run),
        _run(make_run, backend="keras-tensorflow", environment=keras),
    ]
    places = frozenset(run.environment.environment_id for run in runs)

    def marks(policy: str) -> set[str]:
        spec = _run(make_run, policy).spec
        proof = ProvedSubject.of_run(spec, places)
        return {row["parity"] for row in rows_of(runs, [proof])}

    assert marks("fine_tune_all") == marks("gradual_unfreeze") == {"not_shown"}
    assert marks("linear_probe_then_fine_tune") == {"shown"}
    assert mismatches(rows_of(runs)) == []
