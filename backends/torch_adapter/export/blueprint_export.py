"""Export of a network to a Blueprint, by ``torch.export``."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from backends.torch_adapter.export.compositions import COMPOSITIONS
from backends.torch_adapter.export.constructors import construct, construct_on_meta, last_layer
from backends.torch_adapter.export.translator import Translator
from backends.torch_adapter.export.weights_files import load_weights
from bench.errors import UserError, first_line
from bench.network.blueprint import HEAD, Blueprint, Network, Operation, is_under
from bench.spec.backbone import BackboneEntry, Reader, Stages
from bench.spec.preprocessing import Preprocessing

HEAD_KINDS = frozenset({"adaptive_avg_pool2d", "flatten", "dropout"})
"""Kinds of functional calls after the last listed module that belong to the head."""


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
        px: Height and width of the input.
        preprocessing: The preprocessing that belongs to the weights.
        path: The weights file; None for random weights, or a user's own network as it was built.
        reader: How to read the file.
        seed: Seed of random weights; None for others.

    Raises:
        UserError: The file or the input size does not fit.
        Unavailable: The backbone's library is not installed.
    """
    module = construct(entry, seed)
    if path is not None:
        # Every head but the original replaces the last layer, and that one resizes it.
        last, _ = last_layer(module)
        replaced = frozenset({f"{last}.weight", f"{last}.bias"})
        load_weights(module, entry, path, reader, replaced)
    blueprint = export_module(module, name, px, entry.stages, preprocessing)
    state = module.state_dict()
    tensors = {
        tensor: state[tensor].detach().to(torch.float32).contiguous().numpy()
        for _, _, tensor in blueprint.named_tensors()
    }
    return Network(blueprint, tensors)


def export_architecture(name: str, entry: BackboneEntry, px: int) -> Blueprint:
    """Export a backbone of the catalogue without allocating its tensors."""
    module = construct_on_meta(entry)
    return export_module(module, name, px, entry.stages, entry.preprocessing)


def export_module(
    module: nn.Module, name: str, px: int, stages: Stages, preprocessing: Preprocessing
) -> Blueprint:
    """Export the operations of a network.

    Args:
        module: In evaluation form; its tensors may lie on the meta device.
        name: Name of the backbone.
        px: Height and width of the input.
        stages: (stage, module paths) from the input on, 'head' last.
        preprocessing: The preprocessing that belongs to the weights.

    Raises:
        UserError: It cannot take the input size, or has an operation that Blueprints lack.
    """
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        module = copy.deepcopy(module).to("meta")  # computed constants, too
    example = torch.zeros(2, 3, px, px, device=next(module.parameters()).device)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"{name} cannot be exported at {px} px: {first_line(error)}") from error
    operations = Translator(program, name, COMPOSITIONS).translate()
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
        notes=_notes(module),
    )


def _notes(module: nn.Module) -> tuple[str, ...]:
    """Name the training-only features of a network, which evaluation form has lost."""
    parts = list(module.modules())
    lost = {
        "stochastic depth: off": any(_drops_paths(m) for m in parts),
        "dropout of attention weights: off": any(_drops_attention(m) for m in parts),
        "auxiliary heads: off": any(type(m).__name__ == "InceptionAux" for m in parts),
    }
    return tuple(note for note, is_lost in lost.items() if is_lost)


def _drops_paths(module: nn.Module) -> bool:
    """Return True for torchvision's StochasticDepth or timm's DropPath with a rate above 0."""
    rates = {"StochasticDepth": "p", "DropPath": "drop_prob"}
    attribute = rates.get(type(module).__name__)
    return attribute is not None and bool(getattr(module, attribute))


def _drops_attention(module: nn.Module) -> bool:
    """Return True for torch's MultiheadAttention or timm's Attention with a rate above 0."""
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0.0)
    return bool(getattr(getattr(module, "attn_drop", None), "p", 0.0))


def _fold_padding(operations: list[Operation]) -> list[Operation]:
    """Merge zero padding that only convolutions read (TensorFlow's SAME, in timm) into them."""
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
    """Set each operation's stage by its module path.

    An operation outside the listed modules (a functional call in ``forward``) belongs to the stage
    before it, or to the head if it is one of ``HEAD_KINDS`` after the trunk's last listed module.
    """
    named = [_stage_of(o.module_path, stages) for o in operations]
    last_trunk = max((i for i, s in enumerate(named) if s not in (None, HEAD)), default=-1)
    assigned = []
    current = stages[0][0]
    for index, (operation, stage) in enumerate(zip(operations, named, strict=True)):
        if stage is not None:
            current = stage
        elif index > last_trunk and operation.kind in HEAD_KINDS:
            current = HEAD
        assigned.append(operation.model_copy(update={"stage": current}))
    return assigned


def _stage_of(module_path: str, stages: Stages) -> str | None:
    for stage, prefixes in stages:
        if any(is_under(module_path, prefix) for prefix in prefixes):
            return stage
    return None
