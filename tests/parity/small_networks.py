"""A small network made by hand that has a place for every mistake."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.blueprint import Array, Blueprint, Network
from bench.catalog.backbones import IMAGENET

PX, BATCH_SIZE = 24, 4


def _convolution(
    channels: int, size: int, kernel: int, stride: int, padding: list[int]
) -> dict[str, Any]:
    """Attributes and value of a convolution whose output is ``size`` x ``size``."""
    return {
        "kind": "conv2d",
        "shape": (channels, size, size),
        "attributes": {
            "kernel": [kernel] * 2,
            "stride": [stride] * 2,
            "padding": padding,
            "dilation": [1, 1],
            "groups": 1,
        },
    }


def _norm(channels: int, size: int, epsilon: float) -> dict[str, Any]:
    return {
        "kind": "batch_norm",
        "shape": (channels, size, size),
        "attributes": {"epsilon": epsilon, "momentum": 0.1},
        "roles": dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,)),
    }


def _max_pool(channels: int, size: int, padding: int, ceil_mode: bool) -> dict[str, Any]:
    """A pooling over 3 x 3 with stride 2."""
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


# name, inputs, module path, stage, the rest. The first convolution pads as TensorFlow does; the
# first pooling reads values before any ReLU, so that padding with zeros would be picked; the second
# one has a last window that only ceil mode reads, before a pooling to a size of its own, so that
# floor mode changes no shape behind it; the dropout of the trunk stands in the last stage, which
# trains under every policy that trains a part of it.
OPERATIONS: tuple[tuple[str, tuple[str, ...], str, str, dict[str, Any]], ...] = (
    ("conv1", ("pixels",), "stem.conv", "stem",
     {**_convolution(6, 12, 3, 2, [0, 1, 0, 1]),
      "roles": {"weight": (6, 3, 3, 3), "bias": (6,)}}),
    ("bn1", ("conv1",), "stem.bn", "stem", _norm(6, 12, 1e-3)),
    ("pool1", ("bn1",), "stem.pool", "stem", _max_pool(6, 6, 1, ceil_mode=False)),
    ("conv2", ("pool1",), "block.conv", "block",
     {**_convolution(6, 6, 3, 1, [1] * 4), "roles": {"weight": (6, 6, 3, 3)}}),
    ("bn2", ("conv2",), "block.bn", "block", _norm(6, 6, 1e-5)),
    ("sum", ("bn2", "pool1"), "block", "block", {"kind": "add", "shape": (6, 6, 6)}),
    ("relu1", ("sum",), "block.relu", "block", {"kind": "relu", "shape": (6, 6, 6)}),
    ("pool2", ("relu1",), "last.pool", "last", _max_pool(6, 3, 0, ceil_mode=True)),
    ("conv3", ("pool2",), "last.conv", "last",
     {**_convolution(8, 3, 3, 1, [1] * 4), "roles": {"weight": (8, 6, 3, 3), "bias": (8,)}}),
    ("bn3", ("conv3",), "last.bn", "last", _norm(8, 3, 1e-5)),
    ("relu2", ("bn3",), "last.relu", "last", {"kind": "relu", "shape": (8, 3, 3)}),
    ("bins", ("relu2",), "last.bins", "last",
     {"kind": "adaptive_avg_pool2d", "shape": (8, 2, 2), "attributes": {"output_size": [2, 2]}}),
    ("drop1", ("bins",), "last.drop", "last",
     {"kind": "dropout", "shape": (8, 2, 2), "attributes": {"rate": 0.2}}),
    ("flat", ("drop1",), "head.flatten", "head", {"kind": "flatten", "shape": (32,)}),
    ("dense", ("flat",), "head.dense", "head", _linear(16, 32)),
    ("relu3", ("dense",), "head.relu", "head", {"kind": "relu", "shape": (16,)}),
    ("drop2", ("relu3",), "head.drop", "head",
     {"kind": "dropout", "shape": (16,), "attributes": {"rate": 0.3}}),
    ("logits", ("drop2",), "head.logits", "head", _linear(7, 16)),
)  # fmt: skip


def small_network() -> Network:
    """Seeded numbers; no two tensors of a BatchNorm are alike."""
    random = np.random.default_rng(0)
    operations: list[dict[str, Any]] = []
    tensors: dict[str, Array] = {}
    for name, inputs, path, stage, given in OPERATIONS:
        rest = dict(given)
        roles: dict[str, tuple[int, ...]] = rest.pop("roles", {})
        for role, shape in roles.items():
            low, high = _range(role, shape)
            values = random.uniform(low, high, shape)
            tensors[f"{path}.{role}"] = values.astype(np.float32)
        named = {role: f"{path}.{role}" for role in roles}
        operations.append(
            {"name": name, "inputs": inputs, "module_path": path, "stage": stage,
             "tensors": named, **rest}
        )  # fmt: skip
    blueprint = Blueprint.model_validate(
        {
            "backbone": "small",
            "px": PX,
            "preprocessing": IMAGENET.model_dump(),
            "stages": ["stem", "block", "last", "head"],
            "operations": operations,
            "shapes": {name: tensor.shape for name, tensor in tensors.items()},
        }
    )
    return Network(blueprint, tensors)


def _range(role: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Between which values the numbers of a tensor lie."""
    if role == "weight" and len(shape) > 1:
        bound = math.sqrt(6.0 / math.prod(shape[1:]))
        return -bound, bound
    return {
        "weight": (0.5, 1.5),
        "bias": (-1.0, 0.5),
        "running_mean": (-0.3, 0.3),
        "running_var": (0.5, 2.0),
    }[role]
