"""From a network of torchvision or timm to a Blueprint, by ``torch.export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx, nn

from backends.torch_adapter import zoo
from bench.blueprint import (
    HEAD,
    INPUT,
    Blueprint,
    Kind,
    Network,
    Operation,
    Preprocessing,
    is_under,
)
from bench.catalog.backbones import BackboneEntry, Reader
from bench.errors import UserError

Stages = tuple[tuple[str, tuple[str, ...]], ...]
Attributes = dict[str, Any]
POOLING_OUT = frozenset({"adaptive_avg_pool2d", "flatten", "dropout"})


def export_backbone(
    name: str,
    entry: BackboneEntry,
    px: int,
    preprocessing: Preprocessing,
    path: Path | None,
    reader: Reader,
    seed: int | None,
) -> Network:
    """Build a backbone and export it with its tensors.

    Args:
        name: Its name.
        entry: Its entry.
        px: Height and width of the input.
        preprocessing: That belongs to the weights.
        path: The weights file; None for random weights, or a user's own network as it was built.
        reader: How to read the file.
        seed: Of random weights; else None.

    Raises:
        UserError: The file or the input size does not fit.
        Unavailable: The backbone's library is not installed.
    """
    module = zoo.construct(entry, seed)
    if path is not None:
        zoo.load_weights(module, entry, path, reader, _last_layer(module))
    blueprint = export_module(module, name, px, entry.stages, preprocessing)
    state = module.state_dict()
    tensors = {
        tensor: state[tensor].detach().to(torch.float32).contiguous().numpy()
        for _, _, tensor in blueprint.named_tensors()
    }
    return Network(blueprint, tensors)


def export_architecture(name: str, entry: BackboneEntry, px: int) -> Blueprint:
    """Export a backbone of the catalogue without making its tensors."""
    module = zoo.skeleton(entry)
    return export_module(module, name, px, entry.stages, entry.preprocessing)


def _last_layer(module: nn.Module) -> frozenset[str]:
    """Tensors of the last layer, which every head but the original replaces, and that resizes."""
    layers = [n for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return frozenset({f"{layers[-1]}.weight", f"{layers[-1]}.bias"})


def export_module(
    module: nn.Module, name: str, px: int, stages: Stages, preprocessing: Preprocessing
) -> Blueprint:
    """Export the operations of a network.

    Args:
        module: In evaluation form; its tensors may lie on the meta device.
        name: Of the backbone.
        px: Height and width of the input.
        stages: (stage, module paths) from the input on, 'head' last.
        preprocessing: That belongs to the weights.

    Raises:
        UserError: It cannot take the input size, or holds an operation that a Blueprint cannot say.
    """
    example = torch.zeros(2, 3, px, px, device=next(module.parameters()).device)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{name} cannot be exported at {px} px: {reason}") from error
    operations = _Translator(program, name).operations()
    operations = _fold_padding(operations)
    operations = _assign_stages(operations, stages)
    state = module.state_dict()
    used = {tensor for o in operations for tensor in o.tensors.values()}
    return Blueprint(
        backbone=name,
        px=px,
        preprocessing=preprocessing,
        stages=tuple(stage for stage, _ in stages),
        operations=tuple(operations),
        shapes={tensor: tuple(t.shape) for tensor, t in state.items() if tensor in used},
    )


class _Translator:
    """Walks the exported graph and writes down its operations."""

    def __init__(self, program: torch.export.ExportedProgram, name: str) -> None:
        self._graph = program.graph_module.graph
        self._name = name
        signature = program.graph_signature
        self._tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._values = dict.fromkeys(signature.user_inputs, INPUT)

    def operations(self) -> list[Operation]:
        return [
            operation
            for node in self._graph.nodes
            if node.op == "call_function" and (operation := self._operation(node)) is not None
        ]

    def _operation(self, node: fx.Node) -> Operation | None:
        target = str(node.target)
        if target in IDENTITIES:
            self._values[node.name] = self._values[node.args[0].name]
            return None
        if target not in TRANSLATIONS:
            raise UserError(
                f"{self._name} cannot be rebuilt: operation {target} "
                f"(module '{_module_path(node)}') has no counterpart in a Blueprint."
            )
        arguments = _arguments(node)
        kind, attributes = TRANSLATIONS[target](arguments)
        self._values[node.name] = node.name
        value = arguments.get("tensors", arguments.get("input", arguments.get("self")))
        sources = value if isinstance(value, list | tuple) else [value]
        if kind == "add":
            sources = [arguments["self"], arguments["other"]]
        return Operation(
            name=node.name,
            kind=kind,
            inputs=tuple(self._values[source.name] for source in sources),
            attributes=attributes,
            tensors={
                role: self._tensors[arguments[role].name]
                for role in ("weight", "bias", "running_mean", "running_var")
                if isinstance(arguments.get(role), fx.Node)
            },
            shape=tuple(node.meta["val"].shape[1:]),
            module_path=_module_path(node),
            stage="",
        )


def _arguments(node: fx.Node) -> Attributes:
    """Arguments by their names in the operator's schema, defaults filled in."""
    schema = cast(Any, node.target)._schema
    named = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    named.update({a.name: value for a, value in zip(schema.arguments, node.args, strict=False)})
    return {**named, **node.kwargs}


def _module_path(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""


def _pair(value: Any) -> list[int]:
    numbers = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return numbers * 2 if len(numbers) == 1 else numbers


def _edges(value: Any) -> list[int]:
    """Symmetric (height, width) padding as [top, bottom, left, right]."""
    height, width = _pair(value)
    return [height, height, width, width]


def _conv2d(a: Attributes) -> tuple[Kind, Attributes]:
    return "conv2d", {
        "kernel": list(a["weight"].meta["val"].shape[2:]),
        "stride": _pair(a["stride"]),
        "padding": _edges(a["padding"]),
        "dilation": _pair(a["dilation"]),
        "groups": int(a["groups"]),
    }


def _batch_norm(a: Attributes) -> tuple[Kind, Attributes]:
    return "batch_norm", {"epsilon": float(a["eps"]), "momentum": float(a["momentum"])}


def _hardtanh(a: Attributes) -> tuple[Kind, Attributes]:
    if (a["min_val"], a["max_val"]) != (0.0, 6.0):
        raise UserError(f"hardtanh from {a['min_val']} to {a['max_val']} has no counterpart.")
    return "relu6", {}


def _max_pool2d(a: Attributes) -> tuple[Kind, Attributes]:
    if _pair(a["dilation"]) != [1, 1]:
        raise UserError("max_pool2d with dilation has no counterpart.")
    return "max_pool2d", {
        "kernel": _pair(a["kernel_size"]),
        "stride": _pair(a["stride"] or a["kernel_size"]),
        "padding": _edges(a["padding"]),
        "ceil_mode": bool(a["ceil_mode"]),
    }


def _avg_pool2d(a: Attributes) -> tuple[Kind, Attributes]:
    if any(_edges(a["padding"])) or a["ceil_mode"] or a["divisor_override"]:
        raise UserError("avg_pool2d with padding, ceil mode or divisor has no counterpart.")
    return "avg_pool2d", {
        "kernel": _pair(a["kernel_size"]),
        "stride": _pair(a["stride"] or a["kernel_size"]),
    }


def _adaptive(a: Attributes) -> tuple[Kind, Attributes]:
    return "adaptive_avg_pool2d", {"output_size": _pair(a["output_size"])}


def _add(a: Attributes) -> tuple[Kind, Attributes]:
    if a.get("alpha", 1) != 1 or not isinstance(a["other"], fx.Node):
        raise UserError("add of a constant or with a factor has no counterpart.")
    return "add", {}


def _cat(a: Attributes) -> tuple[Kind, Attributes]:
    if a["dim"] != 1:
        raise UserError(f"cat along dimension {a['dim']} has no counterpart.")
    return "cat", {}


def _flatten(a: Attributes) -> tuple[Kind, Attributes]:
    if (a["start_dim"], a["end_dim"]) != (1, -1):
        raise UserError("flatten of part of the dimensions has no counterpart.")
    return "flatten", {}


def _pad(a: Attributes) -> tuple[Kind, Attributes]:
    left, right, top, bottom = a["pad"]
    if a["mode"] != "constant" or a["value"] not in (None, 0, 0.0):
        raise UserError(f"pad in mode {a['mode']} with {a['value']} has no counterpart.")
    return "pad", {"padding": [top, bottom, left, right]}


IDENTITIES = frozenset({"aten.clone.default", "aten.contiguous.default"})

TRANSLATIONS: dict[str, Callable[[Attributes], tuple[Kind, Attributes]]] = {
    "aten.conv2d.default": _conv2d,
    "aten.batch_norm.default": _batch_norm,
    "aten.relu.default": lambda a: ("relu", {}),
    "aten.relu_.default": lambda a: ("relu", {}),
    "aten.hardtanh.default": _hardtanh,
    "aten.hardtanh_.default": _hardtanh,
    "aten.relu6.default": lambda a: ("relu6", {}),
    "aten.max_pool2d.default": _max_pool2d,
    "aten.avg_pool2d.default": _avg_pool2d,
    "aten.adaptive_avg_pool2d.default": _adaptive,
    "aten.add.Tensor": _add,
    "aten.add_.Tensor": _add,
    "aten.cat.default": _cat,
    "aten.flatten.using_ints": _flatten,
    "aten.dropout.default": lambda a: ("dropout", {"rate": float(a["p"])}),
    "aten.dropout_.default": lambda a: ("dropout", {"rate": float(a["p"])}),
    "aten.linear.default": lambda a: ("linear", {}),
    "aten.pad.default": _pad,
}
"""ATen operator → (kind, attributes) of its arguments."""


def _fold_padding(operations: list[Operation]) -> list[Operation]:
    """Make a zero padding that only convolutions read (TensorFlow's SAME, in timm) part of them."""
    readers: dict[str, set[str]] = {}
    for operation in operations:
        for name in operation.inputs:
            readers.setdefault(name, set()).add(operation.kind)
    pads = {o.name: o for o in operations if o.kind == "pad" and readers[o.name] == {"conv2d"}}
    folded = []
    for operation in operations:
        if operation.name in pads:
            continue
        source = pads.get(operation.inputs[0])
        if source is not None:
            both = zip(operation.attributes["padding"], source.attributes["padding"], strict=True)
            attributes = {**operation.attributes, "padding": [a + b for a, b in both]}
            operation = operation.model_copy(
                update={"inputs": source.inputs, "attributes": attributes}
            )
        folded.append(operation)
    return folded


def _assign_stages(operations: list[Operation], stages: Stages) -> list[Operation]:
    """Give each operation its stage by module path.

    An operation outside the listed modules (a functional call in ``forward``) belongs to the stage
    before it, or to the head if it pools, flattens or drops out after the last listed module of the
    backbone.
    """
    named = [_stage_of(o.module_path, stages) for o in operations]
    last_trunk = max((i for i, s in enumerate(named) if s not in (None, HEAD)), default=-1)
    assigned = []
    current = stages[0][0]
    for index, (operation, stage) in enumerate(zip(operations, named, strict=True)):
        if stage is not None:
            current = stage
        elif index > last_trunk and operation.kind in POOLING_OUT:
            current = HEAD
        assigned.append(operation.model_copy(update={"stage": current}))
    return assigned


def _stage_of(module_path: str, stages: Stages) -> str | None:
    for stage, prefixes in stages:
        if any(is_under(module_path, prefix) for prefix in prefixes):
            return stage
    return None
