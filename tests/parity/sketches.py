"""Small hand-written Blueprints, one for each kind of operation and each variant of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.network.blueprint import Blueprint, Network, Operation, channels_last, with_features

PX = 15
CHANNELS = 8
CLASSES = 5
Shape = tuple[int, ...]


class Sketch:
    """A network with random tensors that grows by one operation at a time."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._operations: list[Operation] = []
        self._tensors: dict[str, npt.NDArray[np.float32]] = {}
        self.shape: Shape = (3, PX, PX)
        self.last = "pixels"

    def add(self, kind: str, to: Shape | None = None, **more: Any) -> Sketch:
        """Append an operation that reads the last value, or ``inputs``.

        Args:
            kind: Kind of operation.
            to: Shape of the output; None: the shape of the last value.
            more: ``inputs``, ``tensors`` (role → shape) and attributes.
        """
        name = f"{kind}_{len(self._operations)}"
        inputs = more.pop("inputs", (self.last,))
        tensors = more.pop("tensors", {})
        names = {role: f"{name}.{role}" for role in tensors}
        for role, size in tensors.items():
            low, high = (0.5, 2.0) if role == "running_var" else (-1.0, 1.0)
            numbers = self._random.uniform(low, high, size).astype(np.float32)
            self._tensors[names[role]] = numbers
        operation = {
            "name": name,
            "kind": kind,
            "inputs": inputs,
            "attributes": more,
            "tensors": names,
            "shape": to or self.shape,
            "module_path": name,
            "stage": "stem",
        }
        self._operations.append(Operation.model_validate(operation))
        self.shape, self.last = to or self.shape, name
        return self

    def conv(self, channels: int, kernel: tuple[int, int] = (1, 1), **more: Any) -> Sketch:
        """Append a convolution; ``padding`` is [top, bottom, left, right]."""
        a = {"stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1, **more}
        size = (channels, self.shape[0] // a["groups"], *kernel)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, a["dilation"], strict=True)]
        height, width = self._sizes(reach, a["stride"], a["padding"], False)
        tensors = {"weight": size, "bias": (channels,)}
        shape = (channels, height, width)
        return self.add("conv2d", shape, kernel=list(kernel), tensors=tensors, **a)

    def pool(self, kind: str, kernel: tuple[int, int], **more: Any) -> Sketch:
        """Append a pooling; ``padding`` is [top, bottom, left, right]."""
        a = {"stride": list(kernel), "padding": [0] * 4, "ceil_mode": False, **more}
        sizes = self._sizes(list(kernel), a["stride"], a["padding"], a["ceil_mode"])
        return self.add(kind, (self.shape[0], *sizes), kernel=list(kernel), **a)

    def linear(self, features: int, bias: bool = True) -> Sketch:
        """Append a dense layer over the features."""
        tensors: dict[str, Shape] = {"weight": (features, channels_last(self.shape)[-1])}
        if bias:
            tensors["bias"] = (features,)
        return self.add("linear", with_features(self.shape, features), tensors=tensors)

    def finished(self) -> Network:
        """Return the network with a head: a flattening, if needed, and a dense layer."""
        head_from = len(self._operations)
        if len(self.shape) > 1:
            self.add("flatten", (math.prod(self.shape),))
        return self.linear(CLASSES).network(head_from)

    def network(self, head_from: int) -> Network:
        """Return the network with the operations from ``head_from`` on as its head."""
        head = {o.name for o in self._operations[head_from:]}
        operations = [
            o.model_copy(update={"stage": "head"}) if o.name in head else o
            for o in self._operations
        ]
        blueprint = Blueprint.model_validate(
            {
                "backbone": "sketch",
                "px": PX,
                "preprocessing": {"channels": "RGB", "mean": [127.0] * 3, "scale": [1 / 64] * 3},
                "stages": ["stem", "head"],
                "operations": operations,
                "shapes": {name: array.shape for name, array in self._tensors.items()},
            }
        )
        return Network(blueprint, self._tensors)

    def _sizes(self, kernel: list[int], stride: list[int], padding: list[int], up: bool) -> Shape:
        """Return height and width after a sliding window (pytorch.org, MaxPool2d: Shape)."""
        sizes = []
        for axis in (0, 1):
            size, before = self.shape[axis + 1], padding[2 * axis]
            free = size + before + padding[2 * axis + 1] - kernel[axis]
            count = (-(-free // stride[axis]) if up else free // stride[axis]) + 1
            if up and (count - 1) * stride[axis] >= size + before:
                count -= 1  # a window may not begin in the padding behind
            sizes.append(count)
        return tuple(sizes)


def _image(s: Sketch) -> Sketch:
    return s.conv(CHANNELS, (3, 3), stride=[2, 2], padding=[1] * 4)  # (8, 8, 8)


def _odd(s: Sketch) -> Sketch:
    return s.conv(CHANNELS, (3, 4), stride=[2, 2])  # (8, 7, 6)


def _tokens(s: Sketch) -> Sketch:
    _odd(s)
    return s.add("tokens", (s.shape[1] * s.shape[2], s.shape[0]))  # (42, 8)


def _vector(s: Sketch) -> Sketch:
    return _tokens(s).add("mean_tokens", (CHANNELS,))


def _gated(s: Sketch, kind: str) -> Sketch:
    """Multiply or add an image and one value per channel."""
    image = _odd(s).last
    shape = s.shape
    s.add("adaptive_avg_pool2d", (CHANNELS, 1, 1), output_size=[1, 1])
    return s.add(kind, shape, inputs=(image, s.last))


def _both(s: Sketch, start: Callable[[Sketch], Sketch], kind: str, factor: int) -> Sketch:
    """Combine two values of one shape; the result has ``factor`` times the features."""
    first = start(s).last
    s.add("tanh")
    shape = with_features(s.shape, factor * channels_last(s.shape)[-1])
    return s.add(kind, shape, inputs=(first, s.last))


def _batch_norm(s: Sketch, *roles: str) -> Sketch:
    tensors = dict.fromkeys((*roles, "running_mean", "running_var"), (CHANNELS,))
    return _image(s).add("batch_norm", tensors=tensors, epsilon=1e-3, momentum=0.1)


def _layer_norm(s: Sketch, *roles: str) -> Sketch:
    tensors = dict.fromkeys(roles, (channels_last(s.shape)[-1],))
    return s.add("layer_norm", tensors=tensors, epsilon=1e-6)


def _group_norm(s: Sketch, groups: int, *roles: str) -> Sketch:
    tensors = dict.fromkeys(roles, (CHANNELS,))
    return s.add("group_norm", tensors=tensors, epsilon=1e-5, groups=groups)


def _upsample(s: Sketch, mode: str, size: tuple[int, int], corners: bool = False) -> Sketch:
    a = {"size": list(size), "mode": mode, "align_corners": corners}
    return _odd(s).add("upsample", (CHANNELS, *size), **a)


def _average(s: Sketch, **more: Any) -> Sketch:
    return s.pool("avg_pool2d", (3, 3), **{"count_padding": True, **more})


Grow = Callable[[Sketch], Sketch]
ELEMENTWISE = ("relu", "relu6", "sigmoid", "hard_sigmoid", "silu", "hard_swish", "tanh")

DEEP = 1_500
"""Number of operations in a row, above Python's default recursion limit."""


def _deep(sketch: Sketch) -> Sketch:
    for _ in range(DEEP):
        sketch = sketch.add("relu")
    return sketch


SKETCHES: dict[str, Grow] = {
    "relu, a great many": lambda s: _deep(_image(s)),
    "conv2d": lambda s: _image(s).conv(6, (5, 3), padding=[2, 2, 1, 1]),
    "conv2d, uneven strides": lambda s: _image(s).conv(6, (3, 3), stride=[2, 1]),
    "conv2d, dilated": lambda s: _image(s).conv(6, (3, 3), dilation=[2, 2], padding=[2] * 4),
    "conv2d, uneven padding": lambda s: _image(s).conv(6, (3, 3), padding=[0, 1, 2, 0]),
    "conv2d, grouped": lambda s: _image(s).conv(12, (3, 3), groups=4, padding=[1] * 4),
    "conv2d, grouped, strided": lambda s: _odd(s).conv(4, (3, 3), groups=2, stride=[2, 2]),
    "conv2d, depthwise": lambda s: _image(s).conv(16, (3, 3), groups=8, stride=[2, 2]),
    "conv2d, depthwise, uneven": lambda s: _image(s).conv(8, (3, 3), groups=8, stride=[2, 1]),
    "linear, image": lambda s: _odd(s).linear(6),
    "linear, tokens": lambda s: _tokens(s).linear(6, bias=False),
    "linear, vector": lambda s: _vector(s).linear(6),
    "batch_norm": lambda s: _batch_norm(s, "weight", "bias"),
    "batch_norm, no parameters": lambda s: _batch_norm(s),
    "layer_norm, image": lambda s: _layer_norm(_odd(s), "weight", "bias"),
    "layer_norm, tokens": lambda s: _layer_norm(_tokens(s), "weight", "bias"),
    "layer_norm, no parameters": lambda s: _layer_norm(_vector(s)),
    **{kind: lambda s, kind=kind: _odd(s).add(kind) for kind in ELEMENTWISE},  # type: ignore[misc]
    "gelu": lambda s: _tokens(s).add("gelu", tanh=False),
    "gelu, tanh": lambda s: _tokens(s).add("gelu", tanh=True),
    "leaky_relu": lambda s: _odd(s).add("leaky_relu", slope=0.1),
    "elu": lambda s: _odd(s).add("elu", alpha=0.7),
    "mish": lambda s: _odd(s).add("mish"),
    "prelu": lambda s: _odd(s).add("prelu", slopes=1, tensors={"weight": (1,)}),
    "prelu, each channel": lambda s: _odd(s).add("prelu", slopes=8, tensors={"weight": (8,)}),
    "group_norm": lambda s: _group_norm(_odd(s), 4, "weight", "bias"),
    "group_norm, no parameters, each channel": lambda s: _group_norm(_odd(s), CHANNELS),
    "upsample, nearest": lambda s: _upsample(s, "nearest", (17, 9)),
    "upsample, bilinear": lambda s: _upsample(s, "bilinear", (17, 9)),
    "upsample, bilinear, smaller": lambda s: _upsample(s, "bilinear", (3, 5)),
    "upsample, bilinear, corners": lambda s: _upsample(s, "bilinear", (17, 9), True),
    "dropout, maps": lambda s: _odd(s).add("dropout", rate=0.25, form="maps"),
    "dropout, alpha": lambda s: _odd(s).add("dropout", rate=0.25, form="alpha"),
    "affine, features": lambda s: _odd(s).add(
        "affine", factor=[i / 7 for i in range(8)], offset=0.3
    ),
    "affine, features of tokens": lambda s: _tokens(s).add(
        "affine", factor=2.0, offset=[i / 7 for i in range(8)]
    ),
    "pad, reflect": lambda s: _odd(s).add(
        "pad", (CHANNELS, 8, 9), padding=[1, 0, 1, 2], mode="reflect"
    ),
    "dropout": lambda s: _tokens(s).add("dropout", rate=0.25),
    "affine": lambda s: _odd(s).add("affine", factor=1 / 3, offset=-0.7),
    "scale": lambda s: _odd(s).add("scale", shape=[8, 1, 1], tensors={"weight": (8, 1, 1)}),
    "scale, tokens": lambda s: _tokens(s).add("scale", shape=[1, 8], tensors={"weight": (8,)}),
    "scale, positions": lambda s: _odd(s).add("scale", shape=[1, 7, 6], tensors={"weight": (7, 6)}),
    "add": lambda s: _both(s, _odd, "add", 1),
    "add, gate": lambda s: _gated(s, "add"),
    "multiply": lambda s: _both(s, _tokens, "multiply", 1),
    "multiply, gate": lambda s: _gated(s, "multiply"),
    "max_pool2d": lambda s: _odd(s).pool("max_pool2d", (3, 3), padding=[1] * 4, stride=[2, 2]),
    "max_pool2d, ceil": lambda s: _odd(s).pool("max_pool2d", (3, 2), ceil_mode=True),
    "avg_pool2d": lambda s: _average(_odd(s)),
    "avg_pool2d, padded": lambda s: _average(_odd(s), padding=[1] * 4, stride=[1, 1]),
    "avg_pool2d, uncounted": lambda s: _average(
        _odd(s), padding=[1] * 4, stride=[2, 2], count_padding=False
    ),
    "avg_pool2d, ceil": lambda s: _average(_image(s), stride=[2, 2], ceil_mode=True),
    "avg_pool2d, padded, ceil": lambda s: _average(
        _image(s), padding=[1] * 4, stride=[2, 2], ceil_mode=True
    ),
    "adaptive_avg_pool2d": lambda s: _odd(s).add(
        "adaptive_avg_pool2d", (CHANNELS, 3, 4), output_size=[3, 4]
    ),
    "mean_tokens": _vector,
    "attention": lambda s: _tokens(s).linear(24).add("attention", (42, 8), heads=2, scale=0.3),
    "cat": lambda s: _both(s, _odd, "cat", 2),
    "cat, tokens": lambda s: _both(s, _tokens, "cat", 2),
    "cat, vectors": lambda s: _both(s, _vector, "cat", 2),
    "flatten": _odd,
    "pad": lambda s: _odd(s).add("pad", (CHANNELS, 8, 9), padding=[1, 0, 1, 2]),
    "slice, channels": lambda s: _odd(s).add("slice", (3, 7, 6), axis=0, start=2, stop=5),
    "slice, rows": lambda s: _odd(s).add("slice", (8, 3, 6), axis=1, start=2, stop=5),
    "slice, tokens": lambda s: _tokens(s).add("slice", (40, 8), axis=0, start=2, stop=42),
    "slice, of tokens": lambda s: _tokens(s).add("slice", (42, 3), axis=1, start=5, stop=8),
    "slice, vector": lambda s: _vector(s).add("slice", (3,), axis=0, start=5, stop=8),
    "tokens": _tokens,
    "shift, positions": lambda s: _tokens(s).add(
        "shift", shape=[42, 8], tensors={"bias": (1, 42, 8)}
    ),
    "prepend": lambda s: _tokens(s).add("prepend", (44, 8), tensors={"token": (1, 2, 8)}),
    "select": lambda s: _tokens(s).add("select", (8,), index=3),
    "expand": lambda s: _vector(s).add("expand", (8, 1, 1)),
    "channel_shuffle": lambda s: _odd(s).add("channel_shuffle", groups=2),
}
"""Kind of operation, and after a comma its variant → function that adds it to a sketch."""
