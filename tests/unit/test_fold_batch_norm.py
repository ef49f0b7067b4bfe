"""BatchNorm folded into the layer before it: the same function with fewer operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.network.blueprint import Array, Blueprint, Network, Operation
from bench.network.fold_batch_norm import inference_form
from bench.network.frozen_prefix import Boundary
from bench.spec.preprocessing import Preprocessing

RANDOM = np.random.default_rng(0)
PIXELS = 5


def _operation(name: str, kind: Any, *inputs: str, **more: Any) -> Operation:
    stage = more.pop("stage", "body")
    return Operation(
        name=name, kind=kind, inputs=inputs, shape=(PIXELS,), module_path=name, stage=stage, **more
    )


def _dense(name: str, source: str, bias: bool = True) -> Operation:
    roles = ("weight", "bias") if bias else ("weight",)
    return _operation(name, "linear", source, tensors={r: f"{name}.{r}" for r in roles})


def _sum(*sources: str) -> Operation:
    return _operation("sum", "add", *sources)


def _norm(name: str, source: str, affine: bool = True, epsilon: float = 1e-3) -> Operation:
    roles = ["running_mean", "running_var", *(("weight", "bias") if affine else ())]
    return _operation(name, "batch_norm", source, tensors={r: f"{name}.{r}" for r in roles},
                      attributes={"epsilon": epsilon, "momentum": 0.1})  # fmt: skip


def _network(*operations: Operation, dtype: str = "float64") -> Network:
    tensors: dict[str, Array] = {}
    for operation in operations:
        for role, name in operation.tensors.items():
            is_kernel = operation.kind == "linear" and role == "weight"
            shape = (PIXELS, PIXELS) if is_kernel else (PIXELS,)
            tensors[name] = RANDOM.uniform(0.5, 2.0, shape).astype(dtype)
    blueprint = Blueprint(
        backbone="toy",
        px=1,
        preprocessing=Preprocessing(channels="RGB", mean=(0,) * 3, scale=(1,) * 3),
        stages=("body", "head"),
        operations=(*operations, _operation("after", "relu", operations[-1].name, stage="head")),
        shapes={name: tensor.shape for name, tensor in tensors.items()},
    )
    return Network(blueprint, tensors)


def _value(network: Network, x: Array) -> Array:
    """Compute the output for x (N, PIXELS) by the textbook."""
    values = {"pixels": x}
    for o in network.blueprint.operations:
        a = [values[name] for name in o.inputs]
        t = {role: network.tensors[name] for role, name in o.tensors.items()}
        if o.kind == "linear":
            values[o.name] = a[0] @ t["weight"].T + t.get("bias", 0.0)
        elif o.kind == "batch_norm":
            scaled = (a[0] - t["running_mean"]) / np.sqrt(
                t["running_var"] + o.attributes["epsilon"]
            )
            values[o.name] = scaled * t.get("weight", 1.0) + t.get("bias", 0.0)
        elif o.kind == "relu":
            values[o.name] = np.maximum(a[0], 0.0)
        else:
            values[o.name] = a[0] + a[1]
    return values[network.blueprint.output]


def _fold(network: Network) -> Network:
    """Return the boundary at the last value before the head."""
    last = network.blueprint.operations[-2]
    index = len(network.blueprint.operations) - 1
    return inference_form(
        network.blueprint, network.tensors, Boundary(index, last.name, last.shape)
    )


CASES = {
    "with a bias": ([_dense("d", "pixels"), _norm("n", "d")], 1),
    "without": ([_dense("d", "pixels", bias=False), _norm("n", "d")], 1),
    "not affine": ([_dense("d", "pixels"), _norm("n", "d", affine=False)], 1),
    "another epsilon": ([_dense("d", "pixels"), _norm("n", "d", epsilon=0.5)], 1),
    "two in a row": (
        [_dense("d", "pixels"), _norm("n", "d"), _dense("e", "n", bias=False), _norm("m", "e")],
        2,
    ),
    "its kernel is read by another": (
        [_dense("d", "pixels"), _norm("n", "d"), _sum("n", "d")],
        3,
    ),
    "it is read twice": (
        [_dense("d", "pixels"), _norm("n", "d"), _dense("e", "n"), _sum("n", "e")],
        3,
    ),
    "after a sum": (
        [_dense("d", "pixels"), _dense("e", "d"), _sum("d", "e"), _norm("n", "sum")],
        4,
    ),
    "first of all": ([_norm("n", "pixels"), _dense("d", "n")], 2),
    "after another": ([_dense("d", "pixels"), _norm("n", "d"), _norm("m", "n")], 2),
    "with an activation between": (
        [_dense("d", "pixels"), _operation("r", "relu", "d"), _norm("n", "r")],
        3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_computes_the_same_with_fewer_operations(name: str) -> None:
    operations, left = CASES[name]
    network = _network(*operations)
    x = RANDOM.normal(size=(4, PIXELS))
    folded = _fold(network)
    assert len(folded.blueprint.operations) == left
    assert folded.blueprint.output == operations[-1].name
    head = network.blueprint.operations[:-1]
    whole = Network(network.blueprint.model_copy(update={"operations": head}), network.tensors)
    np.testing.assert_allclose(_value(folded, x), _value(whole, x), rtol=1e-12)
    used = {t for _, _, t in folded.blueprint.named_tensors()}
    assert used == set(folded.tensors) == set(folded.blueprint.shapes)
    assert all(folded.tensors[n].shape == s for n, s in folded.blueprint.shapes.items())


def test_float32_stays_float32_and_is_rounded_once() -> None:
    network = _network(_dense("d", "pixels"), _norm("n", "d"), dtype="float32")
    folded = _fold(network)
    assert {str(t.dtype) for t in folded.tensors.values()} == {"float32"}
    double = Network(
        network.blueprint, {n: t.astype(np.float64) for n, t in network.tensors.items()}
    )
    exact = _fold(double).tensors
    for name, tensor in folded.tensors.items():
        assert np.array_equal(tensor, exact[name].astype(np.float32)), name


def test_the_network_that_is_trained_is_not_touched() -> None:
    network = _network(_dense("d", "pixels"), _norm("n", "d"))
    before = {name: tensor.copy() for name, tensor in network.tensors.items()}
    _fold(network)
    assert all(np.array_equal(network.tensors[n], t) for n, t in before.items())
