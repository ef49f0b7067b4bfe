"""The computation of each kind of operation in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch_adapter.export import rearrange
from bench.network.blueprint import (
    ALPHA,
    Operation,
    OperationKind,
    alpha_dropout_constants,
)

Tensors = dict[str, Tensor]
Step = Callable[[list[Tensor]], Tensor]
StepBuilder = Callable[[Operation, Tensors, bool, bool], Step]


def _optional(o: Operation, tensors: Tensors, role: str) -> Tensor | None:
    return tensors[o.tensors[role]] if role in o.tensors else None


def _padded(x: Tensor, edges: list[int], value: float = 0.0) -> Tensor:
    top, bottom, left, right = edges
    return F.pad(x, (left, right, top, bottom), value=value)


def _symmetric(edges: list[int]) -> bool:
    return edges[0] == edges[1] and edges[2] == edges[3]


def _conv2d(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    a = o.attributes
    weight = tensors[o.tensors["weight"]]
    bias = _optional(o, tensors, "bias")
    edges = a["padding"]
    if _symmetric(edges):
        padding = (edges[0], edges[2])
        return lambda x: F.conv2d(
            x[0], weight, bias, a["stride"], padding, a["dilation"], a["groups"]
        )
    return lambda x: F.conv2d(
        _padded(x[0], edges), weight, bias, a["stride"], 0, a["dilation"], a["groups"]
    )


def _batch_norm(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    mean, variance, weight, bias = (
        _optional(o, tensors, role) for role in ("running_mean", "running_var", "weight", "bias")
    )
    momentum, epsilon = o.attributes["momentum"], o.attributes["epsilon"]
    return lambda x: F.batch_norm(x[0], mean, variance, weight, bias, training, momentum, epsilon)


def _relu(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    return lambda x: F.relu(x[0], inplace=inplace)


def _relu6(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    return lambda x: F.hardtanh(x[0], 0.0, 6.0, inplace=inplace)


def _max_pool2d(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    a = o.attributes
    padding = (a["padding"][0], a["padding"][2])
    return lambda x: F.max_pool2d(x[0], a["kernel"], a["stride"], padding, ceil_mode=a["ceil_mode"])


def _avg_pool2d(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    a = o.attributes
    padding = (a["padding"][0], a["padding"][2])
    return lambda x: F.avg_pool2d(
        x[0], a["kernel"], a["stride"], padding, a["ceil_mode"], a["count_padding"]
    )


def _adaptive(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    size = o.attributes["output_size"]
    return lambda x: F.adaptive_avg_pool2d(x[0], size)


def _dropout(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    if not training:
        return lambda x: x[0]
    rate = o.attributes["rate"]
    if o.attributes.get("form") == "alpha":
        factor, offset = alpha_dropout_constants(rate)
        return lambda x: torch.where(x[1], x[0], ALPHA) * factor + offset
    scale = 1.0 / (1.0 - rate)
    return lambda x: x[0] * (x[1].to(x[0].dtype) * scale)


def _linear(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    weight = tensors[o.tensors["weight"]]
    bias = _optional(o, tensors, "bias")
    return _along_features(lambda x: F.linear(x, weight, bias))


def _layer_norm(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    weight, bias = _optional(o, tensors, "weight"), _optional(o, tensors, "bias")
    epsilon = o.attributes["epsilon"]
    return _along_features(lambda x: F.layer_norm(x, (x.shape[-1],), weight, bias, epsilon))


def _group_norm(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    weight, bias = _optional(o, tensors, "weight"), _optional(o, tensors, "bias")
    groups, epsilon = o.attributes["groups"], o.attributes["epsilon"]
    return lambda x: F.group_norm(x[0], groups, weight, bias, epsilon)


def _leaky_relu(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    slope = o.attributes["slope"]
    return lambda x: F.leaky_relu(x[0], slope)


def _prelu(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    slopes = tensors[o.tensors["weight"]]
    axes = (-1,) if len(o.shape) < 3 else (-1, 1, 1)
    return lambda x: torch.where(x[0] > 0, x[0], x[0] * slopes.reshape(axes).to(x[0].dtype))


def _elu(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    alpha = o.attributes["alpha"]
    return lambda x: F.elu(x[0], alpha)


def _upsample(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    size, mode = o.attributes["size"], o.attributes["mode"]
    corners = o.attributes["align_corners"] if mode == "bilinear" else None
    return lambda x: F.interpolate(x[0], size, mode=mode, align_corners=corners)


def _along_features(step: Callable[[Tensor], Tensor]) -> Step:
    """Turn a step along the last axis into one along the features."""
    return lambda x: rearrange.features_first(step(rearrange.features_last(x[0])))


def _scale(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    weight = tensors[o.tensors["weight"]].reshape(o.attributes["shape"])
    return lambda x: x[0] * weight


def _shift(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    bias = tensors[o.tensors["bias"]].reshape(o.attributes["shape"])
    return lambda x: x[0] + bias


def _prepend(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    tokens = tensors[o.tensors["token"]].reshape(1, -1, o.shape[1])
    return lambda x: torch.cat([tokens.expand(len(x[0]), -1, -1).to(x[0].dtype), x[0]], 1)


def _attention(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    heads, scale = o.attributes["heads"], o.attributes["scale"]

    def step(x: list[Tensor]) -> Tensor:
        query, key, value = rearrange.split_heads(x[0], heads).unbind(0)
        return rearrange.merge_heads(F.scaled_dot_product_attention(query, key, value, scale=scale))

    return step


def _affine(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    factor, offset = o.attributes["factor"], o.attributes["offset"]
    if isinstance(factor, int | float) and isinstance(offset, int | float):
        return lambda x: x[0] * factor + offset
    axes = (-1, 1, 1) if len(o.shape) == 3 else (-1,)
    like = next(iter(tensors.values()))
    by_feature = [torch.tensor(v, dtype=like.dtype, device=like.device) for v in (factor, offset)]
    factors, offsets = (v.reshape(axes) if v.ndim else v for v in by_feature)
    return lambda x: x[0] * factors.to(x[0].dtype) + offsets.to(x[0].dtype)


def _gelu(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    approximate = "tanh" if o.attributes["tanh"] else "none"
    return lambda x: F.gelu(x[0], approximate=approximate)


def _pad(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    top, bottom, left, right = o.attributes["padding"]
    mode = o.attributes.get("mode", "constant")
    return lambda x: F.pad(x[0], (left, right, top, bottom), mode=mode)


def _hard_sigmoid(x: Tensor) -> Tensor:
    """Avoid F.hardsigmoid in float64: its backward pass has 1/6 in float32 (ATen, Activation)."""
    return F.relu6(x + 3.0) / 6.0 if x.dtype == torch.float64 else F.hardsigmoid(x)


def _simple(step: Step) -> StepBuilder:
    """Return the builder of a kind without tensors and attributes."""
    return lambda o, tensors, training, inplace: step


def _rearranging(kind: OperationKind) -> StepBuilder:
    step = rearrange.STEPS[kind]

    def build(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
        return lambda x: step(x[0], o.attributes)

    return build


BUILDERS: dict[str, StepBuilder] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "elu": _elu,
    "mish": _simple(lambda x: F.mish(x[0])),
    "upsample": _upsample,
    "relu": _relu,
    "relu6": _relu6,
    "sigmoid": _simple(lambda x: torch.sigmoid(x[0])),
    "hard_sigmoid": _simple(lambda x: _hard_sigmoid(x[0])),
    "silu": _simple(lambda x: F.silu(x[0])),
    "hard_swish": _simple(lambda x: F.hardswish(x[0])),
    "gelu": _gelu,
    "tanh": _simple(lambda x: torch.tanh(x[0])),
    "dropout": _dropout,
    "affine": _affine,
    "scale": _scale,
    "shift": _shift,
    "add": _simple(lambda x: x[0] + x[1]),
    "multiply": _simple(lambda x: x[0] * x[1]),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive,
    "mean_tokens": _simple(lambda x: x[0].mean(1)),
    "attention": _attention,
    "cat": _simple(lambda x: torch.cat(x, -1 if x[0].ndim == 3 else 1)),
    "pad": _pad,
    "prepend": _prepend,
    **{kind: _rearranging(kind) for kind in rearrange.STEPS},
}
"""Kind of operation → builder of its step from (operation, tensors, in training, may overwrite its
input)."""
