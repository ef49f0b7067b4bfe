"""Small hand-written networks; the first has a place for every defect."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.network.blueprint import Array, Blueprint, Network
from bench.spec.backbone import IMAGENET

PX, BATCH_SIZE = 24, 4
Row = tuple[str, tuple[str, ...], str, str, dict[str, Any]]
"""Name, inputs, module path, stage and the rest of an operation."""


def _conv(
    inputs: int,
    channels: int,
    size: int,
    kernel: int = 3,
    stride: int = 1,
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    groups: int = 1,
    bias: bool = True,
) -> dict[str, Any]:
    """Return a convolution with output (channels, size, size)."""
    return {
        "kind": "conv2d",
        "shape": (channels, size, size),
        "attributes": {
            "kernel": [kernel] * 2,
            "stride": [stride] * 2,
            "padding": list(padding),
            "dilation": [1, 1],
            "groups": groups,
        },
        "roles": {
            "weight": (channels, inputs // groups, kernel, kernel),
            **({"bias": (channels,)} if bias else {}),
        },
    }


def _norm(channels: int, size: int, epsilon: float = 1e-5) -> dict[str, Any]:
    return {
        "kind": "batch_norm",
        "shape": (channels, size, size),
        "attributes": {"epsilon": epsilon, "momentum": 0.1},
        "roles": dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,)),
    }


def _of(kind: str, *shape: int, **attributes: Any) -> dict[str, Any]:
    """Return an operation without tensors."""
    return {"kind": kind, "shape": shape, "attributes": attributes}


def _max_pool(channels: int, size: int, padding: int, ceil_mode: bool) -> dict[str, Any]:
    """Return a 3 x 3 max pooling with stride 2."""
    return {
        "kind": "max_pool2d",
        "shape": (channels, size, size),
        "attributes": {
            "kernel": [3, 3],
            "stride": [2, 2],
            "padding": [padding] * 4,
            "ceil_mode": ceil_mode,
        },
    }


def _linear(outputs: int, inputs: int) -> dict[str, Any]:
    return {
        "kind": "linear",
        "shape": (outputs,),
        "roles": {"weight": (outputs, inputs), "bias": (outputs,)},
    }


# The first convolution pads as TensorFlow does. The first pooling reads values before any ReLU, so
# that padding with zeros would change its maximum. The second pooling has a last window that only
# ceil mode reads; an adaptive pooling after it keeps all later shapes equal in floor mode. The
# dropout of the trunk is in the last stage, which trains whenever a part of the trunk does.
RESIDUAL: tuple[Row, ...] = (
    ("conv1", ("pixels",), "stem.conv", "stem", _conv(3, 6, 12, stride=2, padding=(0, 1, 0, 1))),
    ("bn1", ("conv1",), "stem.bn", "stem", _norm(6, 12, 1e-3)),
    ("pool1", ("bn1",), "stem.pool", "stem", _max_pool(6, 6, 1, ceil_mode=False)),
    ("conv2", ("pool1",), "block.conv", "block", _conv(6, 6, 6, bias=False)),
    ("bn2", ("conv2",), "block.bn", "block", _norm(6, 6)),
    ("sum", ("bn2", "pool1"), "block", "block", _of("add", 6, 6, 6)),
    ("relu1", ("sum",), "block.relu", "block", _of("relu", 6, 6, 6)),
    ("pool2", ("relu1",), "last.pool", "last", _max_pool(6, 3, 0, ceil_mode=True)),
    ("conv3", ("pool2",), "last.conv", "last", _conv(6, 8, 3)),
    ("bn3", ("conv3",), "last.bn", "last", _norm(8, 3)),
    ("relu2", ("bn3",), "last.relu", "last", _of("relu", 8, 3, 3)),
    ("bins", ("relu2",), "last.bins", "last",
     _of("adaptive_avg_pool2d", 8, 2, 2, output_size=[2, 2])),
    ("drop1", ("bins",), "last.drop", "last", _of("dropout", 8, 2, 2, rate=0.2)),
    ("flat", ("drop1",), "head.flatten", "head", _of("flatten", 32)),
    ("dense", ("flat",), "head.dense", "head", _linear(16, 32)),
    ("relu3", ("dense",), "head.relu", "head", _of("relu", 16)),
    ("drop2", ("relu3",), "head.drop", "head", _of("dropout", 16, rate=0.3)),
    ("logits", ("drop2",), "head.logits", "head", _linear(7, 16)),
)  # fmt: skip

SEPARABLE: tuple[Row, ...] = (
    ("conv1", ("pixels",), "stem.conv", "stem", _conv(3, 8, 12, stride=2, bias=False)),
    ("bn1", ("conv1",), "stem.bn", "stem", _norm(8, 12)),
    ("clip1", ("bn1",), "stem.clip", "stem", _of("relu6", 8, 12, 12)),
    ("depthwise", ("clip1",), "block.depthwise", "block",
     _conv(8, 8, 6, stride=2, padding=(0, 1, 0, 1), groups=8, bias=False)),
    ("bn2", ("depthwise",), "block.bn", "block", _norm(8, 6, 1e-3)),
    ("clip2", ("bn2",), "block.clip", "block", _of("relu6", 8, 6, 6)),
    ("squeeze", ("clip2",), "fire.squeeze", "fire", _conv(8, 4, 6, 1, padding=(0, 0, 0, 0))),
    ("relu", ("squeeze",), "fire.relu", "fire", _of("relu", 4, 6, 6)),
    ("one", ("relu",), "fire.one", "fire", _conv(4, 6, 6, 1, padding=(0, 0, 0, 0))),
    ("three", ("relu",), "fire.three", "fire", _conv(4, 6, 6)),
    ("both", ("one", "three"), "fire", "fire", _of("cat", 12, 6, 6)),
    ("drop", ("both",), "head.drop", "head", _of("dropout", 12, 6, 6, rate=0.3)),
    ("logits", ("drop",), "head.conv", "head", _conv(12, 7, 6, 1, padding=(0, 0, 0, 0))),
    ("pool", ("logits",), "head.pool", "head",
     _of("adaptive_avg_pool2d", 7, 1, 1, output_size=[1, 1])),
    ("flat", ("pool",), "head.flatten", "head", _of("flatten", 7)),
)  # fmt: skip

PLAIN: tuple[Row, ...] = (
    ("conv1", ("pixels",), "first.conv", "first",
     _conv(3, 6, 12, 5, stride=2, padding=(2, 2, 2, 2))),
    ("relu1", ("conv1",), "first.relu", "first", _of("relu", 6, 12, 12)),
    ("pool", ("relu1",), "first.pool", "first", _max_pool(6, 5, 0, ceil_mode=False)),
    ("conv2", ("pool",), "second.conv", "second", _conv(6, 8, 5)),
    ("relu2", ("conv2",), "second.relu", "second", _of("relu", 8, 5, 5)),
    ("bins", ("relu2",), "second.bins", "second",
     _of("adaptive_avg_pool2d", 8, 3, 3, output_size=[3, 3])),
    ("flat", ("bins",), "head.flatten", "head", _of("flatten", 72)),
    ("drop1", ("flat",), "head.drop1", "head", _of("dropout", 72, rate=0.5)),
    ("dense", ("drop1",), "head.dense", "head", _linear(16, 72)),
    ("relu3", ("dense",), "head.relu", "head", _of("relu", 16)),
    ("drop2", ("relu3",), "head.drop2", "head", _of("dropout", 16, rate=0.5)),
    ("logits", ("drop2",), "head.logits", "head", _linear(7, 16)),
)  # fmt: skip

NETWORKS: dict[str, tuple[Row, ...]] = {
    "residual": RESIDUAL,
    "separable": SEPARABLE,
    "plain": PLAIN,
}


def small_network(name: str = "residual") -> Network:
    """Return a network with seeded random tensors; no two tensors of a BatchNorm are equal."""
    random = np.random.default_rng(0)
    operations: list[dict[str, Any]] = []
    tensors: dict[str, Array] = {}
    for operation, inputs, path, stage, given in NETWORKS[name]:
        rest = dict(given)
        roles: dict[str, tuple[int, ...]] = rest.pop("roles", {})
        for role, shape in roles.items():
            low, high = _range(role, shape)
            values = random.uniform(low, high, shape)
            tensors[f"{path}.{role}"] = values.astype(np.float32)
        named = {role: f"{path}.{role}" for role in roles}
        operations.append(
            {"name": operation, "inputs": inputs, "module_path": path, "stage": stage,
             "tensors": named, **rest}
        )  # fmt: skip
    blueprint = Blueprint.model_validate(
        {
            "backbone": name,
            "px": PX,
            "preprocessing": IMAGENET.model_dump(),
            "stages": list(dict.fromkeys(row[3] for row in NETWORKS[name])),
            "operations": operations,
            "shapes": {n: tensor.shape for n, tensor in tensors.items()},
        }
    )
    return Network(blueprint, tensors)


def _range(role: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the range of a tensor's values."""
    if role == "weight" and len(shape) > 1:
        bound = math.sqrt(6.0 / math.prod(shape[1:]))
        return -bound, bound
    return {
        "weight": (0.5, 1.5),
        "bias": (-1.0, 0.5),
        "running_mean": (-0.3, 0.3),
        "running_var": (0.5, 2.0),
    }[role]
