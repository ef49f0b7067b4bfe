"""Definitions behind names: an edited catalogue entry or policy is another run, and looks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.analysis.compare import match
from bench.analysis.groups import seed_groups_of
from bench.analysis.rows import rows_of
from bench.catalog.backbones import BACKBONES, CAFFE
from bench.catalog.policies import POLICIES
from bench.network.weights import published_weights, random_weights
from bench.report.tables.runs import standard_table
from bench.spec.backbone import BackboneEntry
from bench.storage.results import StoredRun
from tests.unit import made_runs
from tests.unit.made_runs import Make, cell, found, tables

ENTRY = BACKBONES["squeezenet1_1"]
SOURCE = ENTRY.sources[0]
STEM, *OTHERS = ENTRY.stages
LATER = {"network_digest": "n" * 12, "weights": {"reading_digest": "r" * 12}}


def _with_source(**changes: Any) -> BackboneEntry:
    return ENTRY.model_copy(update={"sources": (SOURCE.model_copy(update=changes),)})


def _identity(entry: BackboneEntry) -> tuple[str, ...]:
    """Return what a spec records of a network and its weights."""
    weights = (published_weights(entry), random_weights(entry))
    return (entry.digest, *(str(w.recorded) for w in weights))


@pytest.mark.parametrize(
    "edited",
    [
        ENTRY.model_copy(update={"stages": (("stem", (*STEM[1], *OTHERS[0][1])), *OTHERS[1:])}),
        ENTRY.model_copy(update={"model": "squeezenet1_0"}),
        ENTRY.model_copy(update={"preprocessing": CAFFE}),
        _with_source(preprocessing=ENTRY.preprocessing),
        _with_source(reader="in_order"),
        _with_source(sha256="0" * 64),
    ],
)
def test_an_edit_that_can_change_a_number_changes_the_spec(edited: BackboneEntry) -> None:
    assert _identity(edited) != _identity(ENTRY)


@pytest.mark.parametrize(
    "edited",
    [
        _with_source(licence="Apache-2.0"),
        _with_source(location="elsewhere/*.pkl"),
        ENTRY.model_copy(update={"sources": (SOURCE,)}),
        ENTRY.model_copy(update={"min_px": 64}),
    ],
)
def test_an_edit_that_cannot_leaves_it(edited: BackboneEntry) -> None:
    assert _identity(edited) == _identity(ENTRY)


def test_runs_of_an_edited_policy_are_another_experiment(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, seed = make(0.9, "fine_tune_all"), make(0.9, "fine_tune_all", seed=1)
    changed = POLICIES["fine_tune_all"].model_copy(update={"backbone_scale": 0.5})
    monkeypatch.setitem(made_runs.POLICIES, "fine_tune_all", changed.model_dump())
    edited = make(0.5, "fine_tune_all")
    assert usual.result.run_id != edited.result.run_id
    rows = rows_of([usual, edited, seed])
    assert sorted(group.seeds for group in seed_groups_of(rows)) == [(0,), (0, 1)]
    shown = standard_table(rows_of([usual, edited]))["policy's definition"].tolist()
    assert sorted(shown) == sorted(run.spec.policy.digest for run in (usual, edited))
    table = tables(usual, edited, seed)["policies"]
    names = {cell(table, place, "policy") for place in range(len(table.rows))}
    digest = edited.spec.policy.digest[:8]
    assert names == {"fine_tune_all", f"fine_tune_all, definition {digest}"}


def test_other_networks_and_weights_of_one_name_never_share_a_question(make: Make) -> None:
    usual = make(0.9)
    network = make(0.8, network_digest="another")
    assert len(found(usual, network).contests) == 2
    weights = make(0.7, weights={"sha256": "f" * 64})
    rows = rows_of([usual, weights, network])
    assert len(seed_groups_of(rows)) == 3
    assert len(set(standard_table(rows_of([usual, weights]))["weights file"])) == 2


def test_results_of_earlier_versions_are_still_compared(make_run: Callable[..., StoredRun]) -> None:
    old, new = make_run(), make_run(**LATER)
    assert old.result.run_id != new.result.run_id
    assert match([old], [new]) == ([(old, new)], [])
    pairs, unmatched = match([make_run(device="cuda:0")], [new])
    assert len(pairs) == 1
    assert not unmatched


def test_definitions_that_both_folders_record_must_be_equal(
    make_run: Callable[..., StoredRun],
) -> None:
    a, b = make_run(**LATER), make_run(**{**LATER, "network_digest": "m" * 12})
    pairs, unmatched = match([a], [b])
    assert not pairs
    assert [u.reason for u in unmatched] == ["not in both folders"] * 2


def test_a_row_cannot_be_changed(make: Make) -> None:
    (row,) = rows_of([make(0.9)])
    with pytest.raises(TypeError):
        row.fields["test_top1"] = 0.0  # type: ignore[index]
    with pytest.raises(AttributeError):
        row.unsteady = True  # type: ignore[misc]


def test_the_digest_of_a_policy_is_that_of_all_its_fields() -> None:
    policy = POLICIES["discriminative_lr"]
    for changes in ({"stage_decay": 0.5}, {"boundary": "head"}, {"learning_rate_scale": 2.0}):
        assert policy.model_copy(update=changes).digest != policy.digest
    assert len(policy.digest) == 12
