"""Ids of runs and environments."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.spec.base import canonical_hash, canonical_json
from bench.spec.result import REPORTED_FIELDS, RunResult
from bench.spec.run import Environment, RunSpec

MakeSpec = Callable[..., RunSpec]
MakeEnvironment = Callable[..., Environment]

CHANGES: list[dict[str, Any]] = [
    {"case": {"number": 2}},
    {"case": {"number": None}},
    {"case": {"size": "medium"}},
    {"case": {"similarity": None}},
    {"case": {"dataset": {"name": "other"}}},
    {"case": {"dataset": {"label": "other"}}},
    {"case": {"dataset": {"content_hash": "00"}}},
    {"case": {"dataset": {"classes": ["coffee", "cat"]}}},
    {"case": {"dataset": {"train_images": 217}}},
    {"case": {"dataset": {"val_images": 91}}},
    {"case": {"dataset": {"test_images": 1}}},
    {"backbone": "vgg16"},
    {"weights": {"kind": "random"}},
    {"weights": {"source": "x"}},
    {"weights": {"sha256": None}},
    {"policy": {"name": "x"}},
    {"policy": {"boundary": "all"}},
    {"policy": {"initialisation": "random"}},
    {"policy": {"learning_rate_scale": 0.5}},
    {"policy": {"backbone_scale": 0.5}},
    {"recipe": {"head": "dense:2"}},
    {"recipe": {"px": 97}},
    {"recipe": {"epochs": 13}},
    {"recipe": {"batch_size": 33}},
    {"recipe": {"optimizer": "adamw"}},
    {"recipe": {"learning_rate": 0.050001}},
    {"recipe": {"momentum": 0.8}},
    {"recipe": {"weight_decay": 0.0}},
    {"recipe": {"schedule": "constant"}},
    {"recipe": {"warmup_fraction": 0.0}},
    {"recipe": {"augmentation": "crop"}},
    {"recipe": {"precision": "bf16"}},
    {"backend": "keras-tensorflow"},
    {"device": "cuda:0"},
    {"seed": 1},
]


def _leaves(value: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if not isinstance(value, dict):
        return {path}
    return {leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))}


def test_the_run_id_of_one_spec_for_all_time(make_spec: MakeSpec) -> None:
    # A change here makes every stored result of every user a result of another run.
    assert make_spec().run_id == "case1-photos-efficientnet-lite0-freeze-all-torch-s0-b0ec25fa"


def test_the_environment_id_of_one_environment_for_all_time(
    make_environment: MakeEnvironment,
) -> None:
    assert make_environment().environment_id == "53744b14a9a1"


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: "-".join("/".join(p) for p in _leaves(c)))
def test_every_field_changes_the_run_id(make_spec: MakeSpec, change: dict[str, Any]) -> None:
    spec = make_spec(**change)
    assert spec.run_id != make_spec().run_id
    assert spec.run_id.endswith(f"-{canonical_hash(spec.model_dump(mode='json'))[:8]}")


def test_every_field_of_a_spec_is_tried_above(make_spec: MakeSpec) -> None:
    tried = {leaf for change in CHANGES for leaf in _leaves(change)}
    assert tried == _leaves(make_spec().model_dump(mode="json")) - {("schema_version",), ("mode",)}


def test_a_run_id_is_a_slug_that_a_file_system_takes(make_spec: MakeSpec) -> None:
    spec = make_spec(case={"dataset": {"name": "folder:Blüten & más/../.." + "x" * 200}})
    assert len(spec.run_id) < 100
    assert set(spec.run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(name=st.text(min_size=1, max_size=40))
def test_names_that_make_the_same_slug_are_different_runs(make_spec: MakeSpec, name: str) -> None:
    spec = make_spec(case={"dataset": {"name": name}})
    other = make_spec(case={"dataset": {"name": name + "!"}})
    assert spec.run_id != other.run_id
    assert "/" not in spec.run_id
    assert RunSpec.model_validate_json(spec.model_dump_json()).run_id == spec.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "keras-tensorflow"},
        {"python": "3.12.0"},
        {"packages": {"numpy": "2.0.0", "torch": "2.14.2"}},
        {"packages": {"numpy": "2.0.0"}},
        {"thawbench": "0.2.0"},
        {"system": "Darwin arm64"},
        {"processor": "B"},
        {"cores": 4},
        {"device": "cuda:0"},
        {"device_model": "H100"},
        {"driver": "1"},
        {"variables": {"OMP_NUM_THREADS": "1"}},
    ],
    ids=lambda c: "-".join(c),
)
def test_what_can_change_a_number_changes_the_environment_id(
    make_environment: MakeEnvironment, change: dict[str, Any]
) -> None:
    assert make_environment(**change).environment_id != make_environment().environment_id


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.none()))
def test_the_canonical_hash_does_not_depend_on_order(value: dict[str, Any]) -> None:
    value = {k: v for k, v in value.items() if v not in (float("inf"), float("-inf"))}
    backwards = dict(reversed(value.items()))
    assert canonical_hash(value) == canonical_hash(backwards)
    assert json.loads(canonical_json(value)) == value


def test_a_number_that_is_not_finite_is_refused_not_hashed(make_spec: MakeSpec) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": float("nan")})
    with pytest.raises(ValidationError):
        make_spec(recipe={"learning_rate": float("inf")})


@pytest.mark.parametrize(
    "field", ["test_top1", "test_loss", "train_images_per_s_windows", "val_top1_by_epoch"]
)
def test_a_result_holds_no_number_that_is_not_finite(
    make_spec: MakeSpec,
    make_environment: MakeEnvironment,
    make_result: Callable[..., RunResult],
    field: str,
) -> None:
    value: Any = float("nan")
    with pytest.raises(ValidationError):
        make_result(
            make_spec(),
            make_environment(),
            **{field: value if field.startswith("test") else [value]},
        )


def test_values_are_immutable_and_refuse_unknown_fields(make_spec: MakeSpec) -> None:
    with pytest.raises(ValidationError):
        make_spec().seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        make_spec(colour="red")


def test_rows_repeat_these_fields_in_this_order() -> None:
    """Rows, CSV files and notebooks of users rely on names and order."""
    assert REPORTED_FIELDS == (
        "test_top1",
        "test_loss",
        "test_balanced_accuracy",
        "test_macro_f1",
        "test_calibration_error",
        "train_images_per_s",
        "compute_images_per_s",
        "effective_images_per_s",
        "infer_images_per_s",
        "total_parameters",
        "trainable_parameters",
        "frozen_parameters",
        "state_values",
        "forward_multiply_adds",
        "backward_multiply_adds",
        "activation_bytes",
        "predicted_saving",
        "device_peak_flops_per_s",
        "model_flop_utilisation",
        "fit_s",
        "test_s",
        "start_s",
        "tune_s",
        "setup_s",
        "prefix_s",
        "prefix_values",
        "prefix_form",
        "sweep_runs",
        "sweep_s",
        "compile_s",
        "step_s_p50",
        "step_s_p95",
        "queue_s",
        "device_step_s",
        "input_wait_fraction",
        "other_work_fraction",
        "peak_host_bytes",
        "peak_device_bytes",
        "warmup_device_bytes",
        "reserved_device_bytes",
        "initial_state_sha256",
        "batches_sha256",
        "data_sha256",
        "blueprint_sha256",
    )


@pytest.mark.parametrize("read", ["python", "json"])
def test_the_note_of_earlier_results_becomes_the_number_of_unreadable_images(
    make_spec: MakeSpec,
    make_environment: MakeEnvironment,
    make_result: Callable[..., RunResult],
    read: str,
) -> None:
    fields = make_result(make_spec(), make_environment()).model_dump(mode="json")
    del fields["unreadable_images"]
    fields["notes"] = ["another note", "12 unreadable images were left out"]
    if read == "json":
        result = RunResult.model_validate_json(json.dumps(fields))
    else:
        result = RunResult.model_validate(fields)
    assert (result.unreadable_images, result.notes) == (12, ("another note",))
    assert RunResult.model_validate(result.model_dump()) == result
