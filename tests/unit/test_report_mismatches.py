"""Rows of two backends that look like one experiment and are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.analysis.rows import Row, rows_of
from bench.report.notes import footnotes, mismatches
from bench.storage.results import StoredRun

MakeRun = Callable[..., StoredRun]

SAME_EXPERIMENT = ("blueprint_sha256", "initial_state_sha256", "batches_sha256", "data_sha256")
HASHES = dict.fromkeys(SAME_EXPERIMENT, "aa")


def _two(make_run: MakeRun, other: dict[str, Any], **changes: Any) -> list[Row]:
    """Return a row of torch and one with other hashes, of Keras unless changed."""
    changes = {"backend": "keras-tensorflow", **changes}
    return rows_of([make_run(HASHES), make_run({**HASHES, **other}, **changes)])


@pytest.mark.parametrize("field", SAME_EXPERIMENT)
def test_backends_that_did_not_run_the_same_experiment_are_named(
    make_run: MakeRun, field: str
) -> None:
    rows = _two(make_run, {field: "bb"})
    ids = ", ".join(sorted(row["run_id"] for row in rows))
    assert mismatches(rows) == [f"{field} differs between {ids}"]
    assert f"NOT THE SAME EXPERIMENT: {field} differs between {ids}" in footnotes(rows)


@pytest.mark.parametrize("field", SAME_EXPERIMENT[:3])
def test_a_hash_that_only_one_backend_told_is_no_same_experiment(
    make_run: MakeRun, field: str
) -> None:
    assert mismatches(_two(make_run, {field: None}))


def _versions(make_run: MakeRun, hashes: dict[str, str]) -> list[Row]:
    """Return rows from ``{"torch 1": "aa", …}``: backend and version → hash of the network."""
    runs = []
    for name, value in hashes.items():
        backend, version = name.split()
        where = {"packages": {backend: version}}
        runs.append(make_run({"blueprint_sha256": value}, environment=where, backend=backend))
    return rows_of(runs)


@pytest.mark.parametrize(
    "hashes",
    [
        {"torch 1": "aa", "torch 2": "bb"},
        {"torch 1": "aa", "torch 2": "bb", "keras-tensorflow 1": "aa", "keras-tensorflow 2": "bb"},
        {"torch 1": "aa", "torch 2": "aa", "keras-tensorflow 1": "aa"},
    ],
    ids=str,
)
def test_versions_of_a_backend_may_start_on_other_numbers(
    make_run: MakeRun, hashes: dict[str, str]
) -> None:
    assert mismatches(_versions(make_run, hashes)) == []


def test_the_version_that_has_no_twin_is_named_with_its_environment(make_run: MakeRun) -> None:
    rows = _versions(make_run, {"torch 1": "aa", "torch 2": "bb", "keras-tensorflow 1": "aa"})
    (lost,) = (row for row in rows if row["blueprint_sha256"] == "bb")
    (keras,) = (row for row in rows if row["backend"] != "torch")
    assert mismatches(rows) == [
        f"blueprint_sha256 differs between {keras['run_id']}, {lost['run_id']} "
        f"(environment {lost['environment_id']})"
    ]


def test_backends_may_differ_in_all_that_is_measured(make_run: MakeRun) -> None:
    measured = {"test_top1": 0.1, "fit_s": 9.0, "peak_host_bytes": 7, "train_images_per_s": None}
    rows = _two(make_run, measured)
    assert mismatches(rows) == []
    assert not any("NOT THE SAME" in note for note in footnotes(rows))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"device": "cuda:0"},
        {"backbone": "vgg16"},
        {"policy": {"name": "retrain_all"}},
        {"policy": {"boundary": "features.28"}},
        {"weights": {"kind": "random", "source": "random", "sha256": None}},
        {"recipe": {"batch_size": 8}},
        {"recipe": {"precision": "fp16"}},
        {"recipe": {"augmentation": "crop"}},
        {"recipe": {"head": "dense:2"}},
        {"case": {"dataset": {"content_hash": "00"}}},
        {"result": {"status": "oom", "failure": {"kind": "x", "message": "y"}}},
    ],
    ids=str,
)
def test_what_is_another_experiment_anyway_is_not_compared(
    make_run: MakeRun, change: dict[str, Any]
) -> None:
    other = {**dict.fromkeys(SAME_EXPERIMENT, "bb"), **change.get("result", {})}
    more = {key: value for key, value in change.items() if key != "result"}
    assert mismatches(_two(make_run, other, **more)) == []
