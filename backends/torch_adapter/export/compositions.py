"""ATen operators that read several values, or work along features or positions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from backends.torch_adapter.export import rearrange
from backends.torch_adapter.export.translations import Arguments, demand
from backends.torch_adapter.export.translator import Composition, Translator, Value, broadcast_shape
from bench.network.blueprint import OperationKind, with_features

ATTENTION_INPUTS = ("query", "key", "value")


def _linear(t: Translator, node: fx.Node, a: Arguments) -> Value:
    x, rows = t.rows(t.value(a["input"]))
    shape = with_features(x.shape, a["weight"].meta["val"].shape[0])
    made = t.emit(node, "linear", [x], tensors=t.roles(a), shape=shape)
    return t.reordered(made, rows, x)


def _layer_norm(t: Translator, node: fx.Node, a: Arguments) -> Value:
    demand(len(a["normalized_shape"]) == 1, "it normalises over more than the features")
    x, rows = t.rows(t.value(a["input"]))
    attributes = {"epsilon": float(a["eps"])}
    made = t.emit(node, "layer_norm", [x], attributes, t.roles(a), shape=x.shape)
    return t.reordered(made, rows, x)


def _sum(t: Translator, node: fx.Node, a: Arguments) -> Value:
    factor = float(a.get("alpha", 1))
    with_constant = _constant_operand(t, a)
    if with_constant is not None:
        argument, constant, is_second = with_constant
        demand(is_second or factor == 1.0, "it has a factor")
        return _affine(t, node, argument, 1.0, _times(constant, factor))
    demand(factor == 1.0, "it has a factor")
    return _binary(t, node, a, "add", "shift", "bias")


def _difference(t: Translator, node: fx.Node, a: Arguments) -> Value:
    with_constant = _constant_operand(t, a)
    demand(with_constant is not None, "it has two values as operands")
    assert with_constant is not None
    argument, constant, is_second = with_constant
    factor = float(a.get("alpha", 1))
    if is_second:
        return _affine(t, node, argument, 1.0, _times(constant, -factor))
    return _affine(t, node, argument, -factor, constant)


def _product(t: Translator, node: fx.Node, a: Arguments) -> Value:
    with_constant = _constant_operand(t, a)
    if with_constant is not None:
        return _affine(t, node, with_constant[0], with_constant[1], 0.0)
    return _binary(t, node, a, "multiply", "scale", "weight")


def _quotient(t: Translator, node: fx.Node, a: Arguments) -> Value:
    with_constant = _constant_operand(t, a)
    demand(with_constant is not None and with_constant[2], "its divisor is no constant")
    assert with_constant is not None
    argument, constant, _ = with_constant
    inverse = [1.0 / c for c in constant] if isinstance(constant, list) else 1.0 / constant
    return _affine(t, node, argument, inverse, 0.0)


Constant = float | list[float]
"""A number, or a list with one for each feature."""


def _constant_operand(t: Translator, a: Arguments) -> tuple[Any, Constant, bool] | None:
    """Return the argument that is a value, the constant that it is combined with, and True if the
    constant is the second operand; None if no operand is a constant."""
    for value, other, is_second in (("self", "other", True), ("other", "self", False)):
        if isinstance(a[value], fx.Node) and t.is_value(a[value]):
            constant = t.constant(a[other], t.settled_or_as_is(t.value(a[value])))
            if constant is not None:
                return a[value], constant, is_second
    return None


def _times(constant: Constant, factor: float) -> Constant:
    return [c * factor for c in constant] if isinstance(constant, list) else constant * factor


def _affine(
    t: Translator, node: fx.Node, argument: Any, factor: Constant, offset: Constant
) -> Value:
    x = t.settled_or_as_is(t.value(argument))
    attributes = {"factor": factor, "offset": offset}
    return t.emit(node, "affine", [x], attributes, shape=x.shape, like=x)


def _binary(
    t: Translator,
    node: fx.Node,
    a: Arguments,
    kind: OperationKind,
    with_parameter: OperationKind,
    role: str,
) -> Value:
    """Write down an operator on two values, or on a value and a parameter in either order."""
    operands = [t.value(a["self"]), t.value(a["other"])]
    parameters = [v for v in operands if v.is_parameter]
    values = [t.settled_or_as_is(v) for v in operands if not v.is_parameter]
    demand(len(parameters) < 2, "it computes with parameters alone")
    if parameters:
        x, parameter = values[0], parameters[0]
        attributes = {"shape": list(broadcast_shape(parameter, x, node))}
        tensors = {role: parameter.name}
        return t.emit(node, with_parameter, [x], attributes, tensors, x.shape, like=x)
    first, second = values
    alike = first.shape == second.shape and torch.equal(first.numbers(), second.numbers())
    if alike:
        return t.emit(node, kind, values, shape=first.shape, like=first)
    values = [t.settled(v) for v in values]
    shape = tuple(node.meta["val"].shape[1:])
    ranks = {len(v.shape) for v in values}
    demand(shape in (values[0].shape, values[1].shape) and len(ranks) == 1, "it broadcasts")
    return t.emit(node, kind, values, shape=shape)


def _cat(t: Translator, node: fx.Node, a: Arguments) -> Value:
    """Write down a concatenation of features, or of parameters as tokens before a value's."""
    operands = [t.value(v) for v in a["tensors"]]
    dim = a["dim"] % node.meta["val"].ndim
    if operands[0].is_parameter:
        return _prepend(t, node, operands, dim)
    values = [t.settled(v) for v in operands]
    features = 1 if len(values[0].shape) == 3 else len(values[0].shape)
    demand(dim == features, f"it concatenates along axis {dim}")
    return t.emit(node, "cat", values)


def _prepend(t: Translator, node: fx.Node, operands: list[Value], dim: int) -> Value:
    *parameters, last = operands
    demand(all(p.is_parameter for p in parameters) and not last.is_parameter,
           "it mixes parameters and values")  # fmt: skip
    made = t.settled(last)
    demand(
        len(made.shape) == 2 and dim == 1, "it prepends parameters to something other than tokens"
    )
    for number, parameter in reversed(list(enumerate(parameters))):
        index = parameter.numbers()
        count = math.prod(parameter.shape) // made.shape[1]
        expected = rearrange.numbered((count, made.shape[1])).expand(index.shape[0], -1, -1)
        demand(index.shape == expected.shape and torch.equal(index, expected),
               "it prepends a rearranged parameter")  # fmt: skip
        shape = (made.shape[0] + count, made.shape[1])
        name = node.name if number == 0 else f"{node.name}_{number}"
        made = t.emit(
            node, "prepend", [made], tensors={"token": parameter.name}, shape=shape, name=name
        )
    return made


def _mean(t: Translator, node: fx.Node, a: Arguments) -> Value:
    x = t.settled(t.value(a["self"]))
    dims = sorted(d % (len(x.shape) + 1) for d in a["dim"])
    if len(x.shape) == 2 and dims == [1] and not a["keepdim"]:
        return t.emit(node, "mean_tokens", [x])
    demand(len(x.shape) == 3 and dims == [2, 3], f"it averages over the axes {dims}")
    pooled_shape = (x.shape[0], 1, 1)
    attributes = {"output_size": [1, 1]}
    if a["keepdim"]:
        return t.emit(node, "adaptive_avg_pool2d", [x], attributes, shape=pooled_shape)
    name = f"{node.name}_pool"
    pooled = t.emit(node, "adaptive_avg_pool2d", [x], attributes, shape=pooled_shape, name=name)
    return t.emit(node, "flatten", [pooled])


def _attention(t: Translator, node: fx.Node, a: Arguments) -> Value:
    """Write down attention over queries, keys and values of one layer, with contiguous heads."""
    demand(a["attn_mask"] is None and not a["is_causal"], "it has a mask")
    demand(a["dropout_p"] == 0.0, "it has dropout")
    values = [t.value(a[name]) for name in ATTENTION_INPUTS]
    source = values[0]
    demand(all(v.name == source.name for v in values), "its inputs come from several layers")
    demand(len(source.shape) == 2 and source.shape[1] % 3 == 0, "its inputs are not tokens")
    query_shape = tuple(node.args[0].meta["val"].shape)  # type: ignore[union-attr]
    demand(len(query_shape) == 4, "it has no heads")
    heads, width = query_shape[1], query_shape[3]
    parts = rearrange.split_heads(rearrange.numbered((2, *source.shape)), heads)
    for part, value in zip(parts, values, strict=True):
        demand(torch.equal(part, value.numbers()), "its inputs are arranged in an unknown way")
    scale = 1.0 / math.sqrt(width) if a["scale"] is None else float(a["scale"])
    shape = (source.shape[0], source.shape[1] // 3)
    made = t.emit(node, "attention", [source], {"heads": heads, "scale": scale}, shape=shape)
    return _in_heads(made, node, heads)


def _in_heads(made: Value, node: fx.Node, heads: int) -> Value:
    index: Tensor = rearrange.numbered((2, *made.shape)).unflatten(-1, (heads, -1)).transpose(1, 2)
    return Value(made.name, made.shape, index, node)


COMPOSITIONS: dict[str, Composition] = {
    "aten.linear.default": _linear,
    "aten.layer_norm.default": _layer_norm,
    "aten.add.Tensor": _sum,
    "aten.add_.Tensor": _sum,
    "aten.sub.Tensor": _difference,
    "aten.sub_.Tensor": _difference,
    "aten.mul.Tensor": _product,
    "aten.mul_.Tensor": _product,
    "aten.div.Tensor": _quotient,
    "aten.div_.Tensor": _quotient,
    "aten.cat.default": _cat,
    "aten.mean.dim": _mean,
    "aten.scaled_dot_product_attention.default": _attention,
}
"""ATen operator → function that writes down its operations."""
