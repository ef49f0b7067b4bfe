"""ATen operators that a table translates into operations of a Blueprint."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

from backends.torch_adapter.export.rearrange import Attributes
from bench.network.blueprint import OperationKind

Arguments = dict[str, Any]
"""Arguments of a node, by the names in its operator's schema."""
Translation = Callable[[Arguments], tuple[OperationKind, Attributes]]
DEFAULT_GELU = "none"


class Untranslatable(Exception):
    """An operation has no counterpart in a Blueprint; the text, if any, is the reason."""

    def __init__(self, reason: str = "", node: fx.Node | None = None) -> None:
        super().__init__(reason)
        self.node = node
        """The operation's node, if it is not the one being translated."""


def demand(condition: bool, reason: str) -> None:
    """Raise Untranslatable with ``reason`` unless ``condition`` holds."""
    if not condition:
        raise Untranslatable(reason)


def pair(value: Any) -> list[int]:
    """Return a size for both axes, or one for each, as [height, width]."""
    numbers = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return numbers * 2 if len(numbers) == 1 else numbers


def _edges(value: Any) -> list[int]:
    """Return symmetric (height, width) padding as [top, bottom, left, right]."""
    height, width = pair(value)
    return [height, height, width, width]


def _conv2d(a: Arguments) -> tuple[OperationKind, Attributes]:
    return "conv2d", {
        "kernel": list(a["weight"].meta["val"].shape[2:]),
        "stride": pair(a["stride"]),
        "padding": _edges(a["padding"]),
        "dilation": pair(a["dilation"]),
        "groups": int(a["groups"]),
    }


def _conv2d_named_padding(a: Arguments) -> tuple[OperationKind, Attributes]:
    """Translate ``padding='same'`` or ``'valid'``; PyTorch pads an odd rest below and right."""
    kernel = list(a["weight"].meta["val"].shape[2:])
    dilation = pair(a["dilation"])
    totals = [(k - 1) * d if a["padding"] == "same" else 0
              for k, d in zip(kernel, dilation, strict=True)]  # fmt: skip
    padding = [edge for total in totals for edge in (total // 2, total - total // 2)]
    return "conv2d", {
        "kernel": kernel,
        "stride": pair(a["stride"]),
        "padding": padding,
        "dilation": dilation,
        "groups": int(a["groups"]),
    }


def _batch_norm(a: Arguments) -> tuple[OperationKind, Attributes]:
    demand(a["running_mean"] is not None, "it keeps no running statistics")
    demand(not a["training"], "it uses the batch's statistics in evaluation, too")
    return "batch_norm", {"epsilon": float(a["eps"]), "momentum": float(a["momentum"])}


def _dropout(a: Arguments) -> tuple[OperationKind, Attributes]:
    demand(not a["train"], "it drops in evaluation, too: write training=self.training")
    return "dropout", {"rate": float(a["p"])}


def _dropout_of_maps(a: Arguments) -> tuple[OperationKind, Attributes]:
    kind, attributes = _dropout(a)
    return kind, {**attributes, "form": "maps"}


def _alpha_dropout(a: Arguments) -> tuple[OperationKind, Attributes]:
    kind, attributes = _dropout(a)
    return kind, {**attributes, "form": "alpha"}


def _leaky_relu(a: Arguments) -> tuple[OperationKind, Attributes]:
    return "leaky_relu", {"slope": float(a["negative_slope"])}


def _elu(a: Arguments) -> tuple[OperationKind, Attributes]:
    demand(a["scale"] == 1 and a["input_scale"] == 1, "it is SELU or has scales")
    return "elu", {"alpha": float(a["alpha"])}


def _group_norm(a: Arguments) -> tuple[OperationKind, Attributes]:
    return "group_norm", {"groups": int(a["num_groups"]), "epsilon": float(a["eps"])}


def _instance_norm(a: Arguments) -> tuple[OperationKind, Attributes]:
    demand(bool(a["use_input_stats"]), "it keeps running statistics")
    channels = int(a["input"].meta["val"].shape[1])
    return "group_norm", {"groups": channels, "epsilon": float(a["eps"])}


def _upsample(mode: str) -> Translation:
    def translate(a: Arguments) -> tuple[OperationKind, Attributes]:
        size = [int(n) for n in a["input"].meta["val"].shape[2:]]
        given, factors = a["output_size"], a["scale_factors"]
        target = (
            [int(n * f) for n, f in zip(size, factors, strict=True)] if given is None else given
        )
        exact = given is not None or all(
            n * f == t for n, f, t in zip(size, factors, target, strict=True)
        )
        demand(exact, "its scale does not give a whole number of pixels")
        corners = bool(a.get("align_corners"))
        return "upsample", {
            "size": [int(n) for n in target], "mode": mode, "align_corners": corners
        }  # fmt: skip

    return translate


def _hardtanh(a: Arguments) -> tuple[OperationKind, Attributes]:
    bounds = (a["min_val"], a["max_val"])
    demand(bounds == (0.0, 6.0), f"it clips to {bounds[0]} … {bounds[1]}")
    return "relu6", {}


def _max_pool2d(a: Arguments) -> tuple[OperationKind, Attributes]:
    demand(pair(a["dilation"]) == [1, 1], "it has a dilation")
    return "max_pool2d", {
        "kernel": pair(a["kernel_size"]),
        "stride": pair(a["stride"] or a["kernel_size"]),
        "padding": _edges(a["padding"]),
        "ceil_mode": bool(a["ceil_mode"]),
    }


def _avg_pool2d(a: Arguments) -> tuple[OperationKind, Attributes]:
    demand(a["divisor_override"] is None, "it has its own divisor")
    return "avg_pool2d", {
        "kernel": pair(a["kernel_size"]),
        "stride": pair(a["stride"] or a["kernel_size"]),
        "padding": _edges(a["padding"]),
        "ceil_mode": bool(a["ceil_mode"]),
        "count_padding": bool(a["count_include_pad"]),
    }


def _adaptive(a: Arguments) -> tuple[OperationKind, Attributes]:
    return "adaptive_avg_pool2d", {"output_size": pair(a["output_size"])}


def _pad(a: Arguments) -> tuple[OperationKind, Attributes]:
    mode, value = a["mode"], a["value"]
    zeros = mode == "constant" and value in (None, 0, 0.0)
    demand(zeros or mode == "reflect", f"it pads by mode {mode} with {value}")
    demand(len(a["pad"]) == 4, "it pads other axes than height and width")
    left, right, top, bottom = a["pad"]
    demand(min(a["pad"]) >= 0, "it crops")
    reflects = {} if zeros else {"mode": mode}
    return "pad", {"padding": [top, bottom, left, right], **reflects}


def _gelu(a: Arguments) -> tuple[OperationKind, Attributes]:
    return "gelu", {"tanh": a.get("approximate", DEFAULT_GELU) == "tanh"}


PLAIN: dict[str, Translation] = {
    "aten.conv2d.default": _conv2d,
    "aten.conv2d.padding": _conv2d_named_padding,
    "aten.batch_norm.default": _batch_norm,
    "aten.max_pool2d.default": _max_pool2d,
    "aten.avg_pool2d.default": _avg_pool2d,
    "aten.adaptive_avg_pool2d.default": _adaptive,
    "aten.pad.default": _pad,
    "aten.group_norm.default": _group_norm,
    "aten.instance_norm.default": _instance_norm,
    "aten.upsample_nearest2d.vec": _upsample("nearest"),
    "aten.upsample_bilinear2d.vec": _upsample("bilinear"),
    "aten.feature_dropout.default": _dropout_of_maps,
    "aten.prelu.default": lambda a: ("prelu", {"slopes": a["weight"].meta["val"].numel()}),
}
"""Operators from an image to an image → function from arguments to (kind, attributes)."""


def _with_in_place(table: dict[str, Translation]) -> dict[str, Translation]:
    in_place = {name.replace(".default", "_.default"): made for name, made in table.items()}
    return {**table, **in_place}


ELEMENTWISE: dict[str, Translation] = _with_in_place(
    {
        "aten.relu.default": lambda a: ("relu", {}),
        "aten.relu6.default": lambda a: ("relu6", {}),
        "aten.hardtanh.default": _hardtanh,
        "aten.sigmoid.default": lambda a: ("sigmoid", {}),
        "aten.hardsigmoid.default": lambda a: ("hard_sigmoid", {}),
        "aten.silu.default": lambda a: ("silu", {}),
        "aten.hardswish.default": lambda a: ("hard_swish", {}),
        "aten.gelu.default": _gelu,
        "aten.tanh.default": lambda a: ("tanh", {}),
        "aten.dropout.default": _dropout,
        "aten.alpha_dropout.default": _alpha_dropout,
        "aten.leaky_relu.default": _leaky_relu,
        "aten.elu.default": _elu,
        "aten.mish.default": lambda a: ("mish", {}),
    }
)
"""Operators on single elements, in any order → function from arguments to (kind, attributes)."""
IDENTITIES = frozenset(
    {
        "aten.clone.default",
        "aten.contiguous.default",
        "aten.alias.default",
        "aten.detach.default",
    }
)
"""Operators that change nothing in evaluation form."""
COPIES = IDENTITIES | {"aten.lift_fresh_copy.default", "aten.detach_.default"}
"""Operators that copy a constant."""
REARRANGING = frozenset(
    {
        "aten.view.default",
        "aten.reshape.default",
        "aten.flatten.using_ints",
        "aten.unflatten.int",
        "aten.squeeze.dim",
        "aten.squeeze.dims",
        "aten.squeeze.default",
        "aten.unsqueeze.default",
        "aten.transpose.int",
        "aten.permute.default",
        "aten.swapaxes.default",
        "aten.select.int",
        "aten.slice.Tensor",
        "aten.chunk.default",
        "aten.split.Tensor",
        "aten.split_with_sizes.default",
        "aten.unbind.int",
        "aten.expand.default",
    }
)
"""Operators that move elements and compute nothing; ``recognise`` finds their operation."""
GETITEM = str(operator.getitem)
"""The operator that selects one of several results."""


def named_arguments(node: fx.Node) -> Arguments:
    """Return a node's arguments with defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    named = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    named.update({a.name: value for a, value in zip(schema.arguments, node.args, strict=False)})
    return {**named, **node.kwargs}
