"""The division of a policy's epochs into phases."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.catalog.policies import DEFAULT_POLICIES, POLICIES
from bench.errors import UserError
from bench.network.blueprint import Blueprint
from bench.network.freezing import boundary_index
from bench.network.phases import Phase, phases_of
from bench.spec.run import PolicyPhase, RunSpec
from tests.unit.test_training_run import network, spec

PROBE, GRADUAL = "linear_probe_then_fine_tune", "gradual_unfreeze"
PHASED = [name for name, policy in POLICIES.items() if policy.phases]


def stages(count: int, empty: int = -1) -> Blueprint:
    """Build a dense layer in each of ``count`` stages before the head; one may have no tensors."""
    frozen, head = network().blueprint.operations[1:]
    operations = [network().blueprint.operations[0].model_copy(update={"stage": "s0"})]
    for number in range(count):
        own = {"weight": f"{number}.weight"} if number != empty else {}
        operations.append(
            frozen.model_copy(
                update={
                    "name": f"o{number}",
                    "kind": "linear" if own else "relu",
                    "inputs": (operations[-1].name,),
                    "tensors": own,
                    "stage": f"s{number}",
                }
            )
        )
    operations.append(head.model_copy(update={"inputs": (operations[-1].name,)}))
    names = (*(f"s{number}" for number in range(count)), "head")
    return network().blueprint.model_copy(update={"operations": tuple(operations), "stages": names})


@given(count=st.integers(1, 9), epochs=st.integers(2, 24), name=st.sampled_from(PHASED))
def test_epochs_sum_up_boundaries_go_down_and_the_last_trains_all(
    count: int, epochs: int, name: str
) -> None:
    blueprint = stages(count)
    phases = phases_of(blueprint, POLICIES[name], epochs)
    assert [e for phase in phases for e in phase.numbers] == list(range(epochs))
    first = [boundary_index(blueprint, phase.policy.boundary) for phase in phases]
    assert first == sorted(set(first), reverse=True)
    assert first[0] == boundary_index(blueprint, "head")
    assert phases[-1].policy == POLICIES["fine_tune_all"].model_copy(update={"name": name})
    assert all(phase.epochs >= 1 and phase.policy.phases == () for phase in phases)


@given(count=st.integers(1, 9), epochs=st.integers(2, 24))
def test_stages_thaw_one_an_epoch_or_as_evenly_as_they_can(count: int, epochs: int) -> None:
    phases = phases_of(stages(count), POLICIES[GRADUAL], epochs)
    assert len(phases) == min(epochs, count + 1)
    assert all(phase.epochs == 1 for phase in phases[:-1])
    names = [f"s{number}" for number in range(count)]
    asked = [phase.policy.boundary for phase in phases[1:-1]] + ["s0"]
    thawed = [len(names)] + [names.index(boundary) for boundary in asked]
    steps = [a - b for a, b in pairwise(thawed)]
    assert max(steps) - min(steps) <= 1


def test_a_stage_without_tensors_does_not_count() -> None:
    phases = phases_of(stages(4, empty=2), POLICIES[GRADUAL], 4)
    assert [phase.policy.boundary for phase in phases] == ["head", "s3", "s1", "all"]


@pytest.mark.parametrize(("epochs", "halves"), [(2, [1, 1]), (3, [1, 2]), (8, [4, 4]), (9, [4, 5])])
def test_the_probe_takes_half(epochs: int, halves: list[int]) -> None:
    phases = phases_of(stages(3), POLICIES[PROBE], epochs)
    assert [phase.epochs for phase in phases] == halves


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5), st.integers(0, 30))
def test_each_share_gets_an_epoch_at_least(shares: list[float], more: int) -> None:
    blueprint, epochs = stages(4), len(shares) + more
    names = ["head", "s3", "s2", "s1", "all"][-len(shares) :]
    parts = tuple(
        PolicyPhase(boundary=n, share=s / sum(shares)) for n, s in zip(names, shares, strict=True)
    )
    policy = POLICIES[PROBE].model_copy(update={"phases": parts})
    lengths = [phase.epochs for phase in phases_of(blueprint, policy, epochs)]
    assert sum(lengths) == epochs
    assert min(lengths) >= 1


@pytest.mark.parametrize("name", PHASED)
def test_one_epoch_is_too_few(name: str) -> None:
    with pytest.raises(UserError, match=f"Policy {name} needs 2 epochs or more.*is 1") as error:
        phases_of(stages(3), POLICIES[name], 1)
    assert error.value.hint == "Use --epochs 2, or leave it out of the policies."


@pytest.mark.parametrize("name", DEFAULT_POLICIES)
def test_a_policy_without_phases_is_one(name: str) -> None:
    assert phases_of(stages(3), POLICIES[name], 7) == (Phase(POLICIES[name], 0, 7),)


IDS = {
    "freeze_all": "62b5b9da",
    "fine_tune_last": "03685e23",
    "fine_tune_all": "7c16ff1d",
    "retrain_all": "7e7be367",
    "discriminative_lr": "a98b1e1e",
    "from_scratch": "6224858e",
}
"""Policy → end of the id of ``spec()`` under it, before there were phases."""


def test_runs_of_other_policies_are_the_runs_they_were() -> None:
    assert tuple(IDS) == DEFAULT_POLICIES
    for name, policy in POLICIES.items():
        run = spec().model_copy(update={"policy": policy})
        assert name not in IDS or run.run_id.endswith(IDS[name])
        assert RunSpec.model_validate_json(run.model_dump_json()) == run
        assert ("phases" in run.model_dump(mode="json")["policy"]) == (name in PHASED)
        plain = run.model_copy(update={"policy": policy.model_copy(update={"phases": ()})})
        assert (plain.run_id != run.run_id) == (name in PHASED)


def test_policies_of_the_catalogue_end_where_they_say() -> None:
    for name in PHASED:
        policy = POLICIES[name]
        assert policy.boundary == "all"
        assert isinstance(policy.phases, str) or policy.phases[-1].boundary == "all"
