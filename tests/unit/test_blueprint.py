"""The framework-neutral network: files, heads, and policies applied to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.catalog.policies import POLICIES
from bench.errors import UserError
from bench.network.blueprint import (
    HEAD,
    KERNELS,
    STATE_ROLES,
    Blueprint,
    Network,
    hash_tensors,
    is_under,
)
from bench.network.freezing import TrainingPlan, plan_training
from bench.network.head import attach_head, hidden_units, trunk_output
from bench.spec.preprocessing import Preprocessing
from bench.spec.run import Policy

HEADS = ("original", "linear", "dense:7", "dense:7,5", "flatten+dense:3")


def _policy(boundary: str, backbone_scale: float = 0.1) -> Policy:
    changes = {"boundary": boundary, "backbone_scale": backbone_scale}
    return POLICIES["fine_tune_last"].model_copy(update=changes)


def _changed(network: Network, **update: Any) -> Blueprint:
    return network.blueprint.model_copy(update=update)


# Preprocessing, files, hashes


@given(arrays(np.uint8, (2, 3, 4, 3)))
def test_preprocessing_is_order_then_mean_then_scale(images: npt.NDArray[np.uint8]) -> None:
    pre = Preprocessing(channels="BGR", mean=(1.0, 2.0, 3.0), scale=(0.5, 0.25, 2.0))
    out = pre.apply(images, np.float64)
    assert np.array_equal(out[..., 0], (images[..., 2] - 1.0) * 0.5)
    assert np.array_equal(out[..., 1], (images[..., 1] - 2.0) * 0.25)
    assert np.array_equal(out[..., 2], (images[..., 0] - 3.0) * 2.0)
    assert pre.apply(images, np.float32).dtype == np.float32


def test_a_network_is_what_was_saved(network: Network, tmp_path: Path) -> None:
    network.save(tmp_path)
    again = Network.load(tmp_path)
    assert again.blueprint == network.blueprint
    assert again.sha256() == network.sha256()


def test_the_trunk_alone_can_be_read(network: Network, tmp_path: Path) -> None:
    network.save(tmp_path)
    names = set(Network.load(tmp_path, trunk_only=True).tensors)
    assert names == {n for n in network.tensors if not n.startswith("classifier")}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("file", ["blueprint.json", "tensors.safetensors"])
@pytest.mark.parametrize(
    "damage",
    [_cut, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"[1]" * 99), Path.unlink],
    ids=["cut short", "empty", "foreign", "gone"],
)
def test_a_damaged_file_is_a_documented_error(
    network: Network, tmp_path: Path, file: str, damage: Callable[[Path], Any]
) -> None:
    network.save(tmp_path)
    damage(tmp_path / file)
    with pytest.raises((OSError, ValueError)):
        Network.load(tmp_path)


def test_a_tensor_that_is_not_in_the_file_is_a_documented_error(
    network: Network, tmp_path: Path
) -> None:
    left = {k: v for k, v in network.tensors.items() if k != "conv1.weight"}
    Network(network.blueprint, left).save(tmp_path)
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        Network.load(tmp_path)


def test_an_empty_network_has_the_shapes(network: Network) -> None:
    empty = Network.empty(network.blueprint)
    assert {k: v.shape for k, v in empty.tensors.items()} == dict(network.blueprint.shapes)


def test_the_hash_of_tensors_sees_everything_but_their_order() -> None:
    base = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float32)}
    assert hash_tensors(base) == hash_tensors(dict(reversed(base.items())))
    strided = {**base, "a": np.asfortranarray(base["a"])}
    assert hash_tensors(strided) == hash_tensors(base)
    others = [
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "a": base["a"].astype(np.float32)},
        {**base, "a": np.nextafter(base["a"], 9)},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
    ]
    assert len({hash_tensors(o) for o in (base, *others)}) == 1 + len(others)


def test_the_networks_hash_sees_operations_too(network: Network) -> None:
    other = Network(_changed(network, px=9), network.tensors)
    assert other.sha256() != network.sha256()


def test_a_module_lies_under_itself_and_its_parents_only() -> None:
    assert is_under("layer1.0.conv1", "layer1")
    assert is_under("layer1", "layer1")
    assert not is_under("layer10.0", "layer1")
    assert not is_under("layer1", "layer1.0")


def test_consumers_and_output(network: Network) -> None:
    readers = network.blueprint.consumers()
    assert [o.name for o in readers["relu"]] == ["a", "sum"]
    assert network.blueprint.output == "fc"
    assert "fc" not in readers


# Heads


@pytest.mark.parametrize(
    ("head", "units"),
    [
        ("original", []),
        ("linear", []),
        ("dense:512,256", [512, 256]),
        ("flatten+dense:290", [290]),
    ],
)
def test_hidden_units(head: str, units: list[int]) -> None:
    assert hidden_units(head) == units


@pytest.mark.parametrize(
    "head", ["", "dense", "dense:", "dense:0", "dense:5,", "dense:-1", "flatten", "flatten+linear",
             "Linear", "dense:5\n", "dense:1.5", "dense:9999999"],
)  # fmt: skip
def test_a_head_of_no_known_form_is_refused(network: Network, head: str) -> None:
    with pytest.raises(UserError, match="Unknown head"):
        attach_head(network, head, 2, 0)


@pytest.mark.parametrize(
    ("head", "kinds", "parameters"),
    [
        ("linear", ["adaptive_avg_pool2d", "flatten", "linear"], 6 * 3 + 3),
        (
            "dense:7,5",
            ["adaptive_avg_pool2d", "flatten", "linear", "relu", "linear", "relu", "linear"],
            (6 * 7 + 7) + (7 * 5 + 5) + (5 * 3 + 3),
        ),
        (
            "flatten+dense:4",
            ["flatten", "linear", "relu", "linear"],
            (6 * 4 * 4 * 4 + 4) + (4 * 3 + 3),
        ),
        ("original", ["adaptive_avg_pool2d", "flatten", "dropout", "linear"], 6 * 3 + 3),
    ],
)
def test_heads_have_the_layers_and_parameters_of_their_form(
    network: Network, head: str, kinds: list[str], parameters: int
) -> None:
    new = attach_head(network, head, 3, 0)
    operations = [o for o in new.blueprint.operations if o.stage == HEAD]
    assert [o.kind for o in operations] == kinds
    assert operations[0].inputs == ("drop",)
    assert new.blueprint.operations[-1].shape == (3,)
    count = sum(new.tensors[t].size for o in operations for t in o.tensors.values())
    assert count == parameters


@pytest.mark.parametrize("head", HEADS)
def test_a_head_leaves_the_backbone_alone_and_the_network_whole(
    network: Network, head: str
) -> None:
    before = network.sha256()
    new = attach_head(network, head, 3, 0)
    assert network.sha256() == before
    assert new.blueprint.trunk() == network.blueprint.trunk()
    for operation, _, name in network.blueprint.named_tensors():
        if operation.stage != HEAD:
            assert np.array_equal(new.tensors[name], network.tensors[name])
    assert {k: v.shape for k, v in new.tensors.items()} == dict(new.blueprint.shapes)
    assert {t for _, _, t in new.blueprint.named_tensors()} == set(new.tensors)
    known = {"pixels"}
    for operation in new.blueprint.operations:  # each reads what was computed before it
        assert set(operation.inputs) <= known
        known.add(operation.name)


@pytest.mark.parametrize("head", HEADS)
def test_the_first_numbers_of_a_head_come_from_the_seed(network: Network, head: str) -> None:
    first, again, other = (attach_head(network, head, 50, seed) for seed in (5, 5, 6))
    assert first.sha256() == again.sha256()
    assert first.sha256() != other.sha256()
    fresh = [o for o in first.blueprint.operations if o.stage == HEAD and o.kind in KERNELS]
    for operation in fresh:
        weight = first.tensors[operation.tensors["weight"]]
        bound = 1 / math.sqrt(weight[0].size)
        assert weight.dtype == np.float32
        assert np.abs(weight).max() <= bound
        assert np.abs(weight).max() > 0.8 * bound
        assert not first.tensors[operation.tensors["bias"]].any()


def test_a_head_that_reads_two_values_cannot_be_replaced(network: Network) -> None:
    operations = list(network.blueprint.operations)
    operations[-1] = operations[-1].model_copy(update={"inputs": ("drop2", "sum")})
    two = Network(_changed(network, operations=tuple(operations)), network.tensors)
    with pytest.raises(UserError, match="reads 2 values"):
        trunk_output(two.blueprint)


# Policies on a network


def _parts(plan: TrainingPlan) -> tuple[set[str], set[str], set[str]]:
    return set(plan.trained), set(plan.frozen), set(plan.moving)


@pytest.mark.parametrize(
    ("boundary", "first"),
    [
        ("all", "conv"), ("stem", "conv"), ("stage1", "a"), ("stage2", "b"), ("last_stage", "b"),
        ("head", "pool"), ("bn1", "bn"), ("layer1", "a"), ("layer2.0.bn", "bn2"),
        ("classifier", "drop2"), ("classifier.1", "fc"),
    ],
)  # fmt: skip
def test_training_begins_at_the_boundary(network: Network, boundary: str, first: str) -> None:
    plan = plan_training(network.blueprint, _policy(boundary))
    names = [o.name for o in network.blueprint.operations]
    assert names[plan.first_trained] == first
    assert [plan.in_training(i) for i in range(len(names))] == [
        i >= names.index(first) for i in range(len(names))
    ]


@pytest.mark.parametrize("name", list(POLICIES))
def test_every_tensor_is_trained_or_frozen_or_moving(network: Network, name: str) -> None:
    plan = plan_training(network.blueprint, POLICIES[name])
    trained, frozen, moving = _parts(plan)
    assert trained | frozen | moving == set(network.tensors)
    assert len(trained) + len(frozen) + len(moving) == len(network.tensors)


def test_frozen_batch_norm_is_frozen_with_its_statistics(network: Network) -> None:
    _, frozen, moving = _parts(plan_training(network.blueprint, _policy("stage2")))
    assert {f"bn1.{role}" for role in STATE_ROLES} <= frozen
    assert moving == {f"layer2.0.bn.{role}" for role in STATE_ROLES}


def test_freezing_all_trains_the_head_only(network: Network) -> None:
    plan = plan_training(network.blueprint, POLICIES["freeze_all"])
    trained, _, moving = _parts(plan)
    assert trained == {"classifier.1.weight", "classifier.1.bias"}
    assert not moving


def test_kernels_decay_and_the_backbone_is_gentler(network: Network) -> None:
    plan = plan_training(network.blueprint, _policy("all", backbone_scale=0.3))
    for operation, role, name in network.blueprint.named_tensors():
        if role in STATE_ROLES:
            continue
        planned = plan.trained[name]
        assert planned.decays == (role == "weight" and operation.kind in ("conv2d", "linear"))
        assert planned.learning_rate_scale == (1.0 if operation.stage == HEAD else 0.3)


def test_each_stage_learns_slower_than_the_one_after_it(network: Network) -> None:
    plan = plan_training(network.blueprint, POLICIES["discriminative_lr"])
    scales = {
        operation.stage: plan.trained[name].learning_rate_scale
        for operation, role, name in network.blueprint.named_tensors()
        if role not in STATE_ROLES
    }
    assert list(scales) == ["stem", "stage1", "stage2", "head"]
    assert [scales[s] for s in scales] == pytest.approx([2.6**-3, 2.6**-2, 2.6**-1, 1.0])


@pytest.mark.parametrize(
    ("boundary", "dropouts"), [("all", ["drop", "drop2"]), ("head", ["drop2"]), ("fc", None)]
)
def test_dropout_is_on_in_the_trained_part(
    network: Network, boundary: str, dropouts: list[str] | None
) -> None:
    if dropouts is None:
        with pytest.raises(UserError, match="Unknown boundary in tiny 'fc'"):
            plan_training(network.blueprint, _policy(boundary))
        return
    plan = plan_training(network.blueprint, _policy(boundary))
    assert [o.name for o in plan.dropouts] == dropouts


def test_an_unknown_boundary_gets_the_nearest(network: Network) -> None:
    with pytest.raises(UserError, match="Did you mean 'stage1'"):
        plan_training(network.blueprint, _policy("stage11"))


@given(st.sampled_from(["stem", "stage1", "stage2", "head"]), st.sampled_from(HEADS))
def test_a_later_boundary_trains_less(network: Network, boundary: str, head: str) -> None:
    blueprint = attach_head(network, head, 3, 0).blueprint
    wide = plan_training(blueprint, _policy("all"))
    narrow = plan_training(blueprint, _policy(boundary))
    assert set(narrow.trained) <= set(wide.trained)
    assert set(narrow.frozen) >= set(wide.frozen)
