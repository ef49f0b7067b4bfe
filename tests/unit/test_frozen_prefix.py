"""The end of the frozen prefix, and the key of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.catalog.policies import POLICIES
from bench.network.blueprint import Blueprint, Network, Operation
from bench.network.freezing import plan_training
from bench.network.frozen_prefix import boundary_of, prefix_key, why_not_cached
from bench.network.head import attach_head
from bench.spec.preprocessing import Preprocessing
from bench.spec.run import RunSpec

MakeSpec = Callable[..., RunSpec]


def _operation(name: str, kind: Any, inputs: tuple[str, ...], stage: str, **more: Any) -> Operation:
    shape = more.pop("shape", (4, 8, 8))
    return Operation(
        name=name, kind=kind, inputs=inputs, shape=shape, module_path=name, stage=stage, **more
    )


def residual() -> Blueprint:
    """Build conv → [conv + skip] → pool → flatten → dropout → linear; the block is stage1."""
    operations = (
        _operation("stem", "conv2d", ("pixels",), "stem", tensors={"weight": "stem.w"}),
        _operation("act", "relu", ("stem",), "stem"),
        _operation("a", "conv2d", ("act",), "stage1", tensors={"weight": "a.w"}),
        _operation("b", "conv2d", ("a",), "stage1", tensors={"weight": "b.w"}),
        _operation("sum", "add", ("b", "act"), "stage1"),
        _operation("pool", "adaptive_avg_pool2d", ("sum",), "head", shape=(4, 1, 1)),
        _operation("flat", "flatten", ("pool",), "head", shape=(4,)),
        _operation("drop", "dropout", ("flat",), "head", shape=(4,), attributes={"rate": 0.5}),
        _operation("fc", "linear", ("drop",), "head", shape=(3,), tensors={"weight": "fc.w"}),
    )
    return Blueprint(
        backbone="toy",
        px=8,
        preprocessing=Preprocessing(channels="RGB", mean=(0,) * 3, scale=(1,) * 3),
        stages=("stem", "stage1", "head"),
        operations=operations,
        shapes={t: (1,) for o in operations for t in o.tensors.values()},
    )


def _boundary(policy: str, at: str | None = None) -> Any:
    chosen = POLICIES[policy]
    if at is not None:
        chosen = chosen.model_copy(update={"boundary": at})
    return boundary_of(residual(), plan_training(residual(), chosen))


def test_pooling_before_the_head_belongs_to_the_frozen_part_and_dropout_does_not() -> None:
    boundary = _boundary("freeze_all")
    assert (boundary.value, boundary.index, boundary.shape) == ("flat", 7, (4,))


def test_where_two_values_cross_it_ends_earlier() -> None:
    """Training from b on reads a and, through the sum, act: the last single value is act."""
    boundary = _boundary("fine_tune_last", at="b")
    assert (boundary.value, boundary.index) == ("act", 2)
    assert _boundary("fine_tune_last").value == "act"


@pytest.mark.parametrize("policy", ["fine_tune_all", "retrain_all", "from_scratch"])
def test_where_nothing_is_frozen_there_is_none(policy: str) -> None:
    assert _boundary(policy) is None


def test_where_only_pixels_would_cross_there_is_none() -> None:
    """The skip reads the pixels."""
    blueprint = residual()
    operations = [
        o.model_copy(update={"inputs": ("b", "pixels")}) if o.name == "sum" else o
        for o in blueprint.operations
    ]
    broken = blueprint.model_copy(update={"operations": tuple(operations)})
    policy = POLICIES["fine_tune_last"].model_copy(update={"boundary": "b"})
    assert boundary_of(broken, plan_training(broken, policy)) is None


def test_of_a_real_network_with_a_head(network: Network) -> None:
    whole = attach_head(network, "linear", 5, seed=0).blueprint
    boundary = boundary_of(whole, plan_training(whole, POLICIES["freeze_all"]))
    assert boundary is not None
    after = whole.operations[boundary.index :]
    assert {t for o in after for t in o.tensors} == {"weight", "bias"}
    assert after[0].inputs == (boundary.value,)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"augmentation": "none"}, None),
        ({"augmentation": "none", "epochs": 1}, "no view twice"),
        ({"augmentation": "none", "epochs": 2}, None),
        ({"augmentation": "none", "epochs": 1, "learning_rate_grid": (0.1, 0.2)}, None),
        ({"augmentation": "crop_flip"}, "augments anew"),
        ({"augmentation": "crop_flip", "views": 3, "epochs": 4}, None),
        ({"augmentation": "crop", "views": 3, "epochs": 3}, "no view twice"),
        ({"augmentation": "none", "precision": "bf16"}, None),
        ({"augmentation": "none", "precision": "fp64"}, None),
    ],
)
def test_when_values_are_kept(
    make_spec: MakeSpec, recipe: dict[str, Any], said: str | None
) -> None:
    reason = why_not_cached(make_spec(recipe=recipe).recipe)
    assert (reason is None) if said is None else (reason is not None and said in reason)


def test_the_key_changes_with_all_that_changes_the_values(make_spec: MakeSpec) -> None:
    boundary = _boundary("freeze_all")
    spec = make_spec(recipe={"augmentation": "none"})
    views = make_spec(recipe={"augmentation": "crop_flip", "views": 2})

    whole = residual()

    def key(blueprint: Blueprint = whole, at: Any = boundary, tensors: str = "t",
            data: str = "d", what: RunSpec = spec, environment: str = "e") -> str:  # fmt: skip
        return prefix_key(blueprint, at, tensors, data, what, environment)

    preprocessing = residual().preprocessing.model_copy(update={"channels": "BGR"})
    keys = [
        key(),
        key(residual().model_copy(update={"preprocessing": preprocessing})),
        key(at=_boundary("fine_tune_last")),
        key(tensors="other"),
        key(data="other"),
        key(what=make_spec(recipe={"augmentation": "none", "precision": "fp64"})),
        key(what=make_spec(recipe={"augmentation": "none", "compile": "compiled"})),
        key(environment="other"),
        key(what=views),
        key(what=make_spec(recipe={"augmentation": "crop_flip", "views": 3})),
        key(what=make_spec(recipe={"augmentation": "crop", "views": 2})),
        key(what=views.model_copy(update={"seed": 7})),
    ]
    assert len(set(keys)) == len(keys)
    # Operations after the boundary, and the seed without augmentation, do not matter.
    same = [
        key(what=spec.model_copy(update={"seed": 7})),
        key(what=make_spec(recipe={"augmentation": "none", "epochs": 9, "learning_rate": 0.5})),
    ]
    assert set(same) == {keys[0]}
