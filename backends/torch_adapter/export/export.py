"""From a network of torchvision or timm to a Blueprint, by ``torch.export``."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from backends.torch_adapter.export import zoo
from backends.torch_adapter.export.compositions import COMPOSITIONS
from backends.torch_adapter.export.translator import Translator
from bench.errors import UserError
from bench.network.blueprint import HEAD, Blueprint, Network, Operation, is_under
from bench.spec.backbone import BackboneEntry, Reader
from bench.spec.preprocessing import Preprocessing

Stages = tuple[tuple[str, tuple[str, ...]], ...]
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
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        module = copy.deepcopy(module).to("meta")  # constants that were computed, too
    example = torch.zeros(2, 3, px, px, device=next(module.parameters()).device)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{name} cannot be exported at {px} px: {reason}") from error
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
    """What a network does in training only, and evaluation form has lost."""
    parts = list(module.modules())
    lost = {
        "stochastic depth: off": any(_drops_paths(m) for m in parts),
        "dropout of attention weights: off": any(_drops_attention(m) for m in parts),
        "auxiliary heads: off": any(type(m).__name__ == "InceptionAux" for m in parts),
    }
    return tuple(note for note, is_lost in lost.items() if is_lost)


def _drops_paths(module: nn.Module) -> bool:
    """torchvision's StochasticDepth or timm's DropPath, in use."""
    rates = {"StochasticDepth": "p", "DropPath": "drop_prob"}
    attribute = rates.get(type(module).__name__)
    return attribute is not None and bool(getattr(module, attribute))


def _drops_attention(module: nn.Module) -> bool:
    """torch's MultiheadAttention or timm's Attention, with a rate."""
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0.0
    return bool(getattr(getattr(module, "attn_drop", None), "p", 0.0))


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
