"""Export of a network to a Blueprint, by ``torch.export``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from backends.torch_adapter.export.compositions import COMPOSITIONS
from backends.torch_adapter.export.constructors import construct, construct_on_meta, last_layer
from backends.torch_adapter.export.translator import Translator
from backends.torch_adapter.export.usable import (
    check_batch_norms,
    check_finite,
    check_no_hooks,
    check_parameters_separate,
    runs_in_training_form,
)
from backends.torch_adapter.export.user_code import line_of_error
from backends.torch_adapter.export.weights_files import load_weights
from bench.errors import UserError, first_line
from bench.network.blueprint import (
    CLASSIFIER_LEFT_OUT,
    HEAD,
    Array,
    Blueprint,
    Network,
    Operation,
    is_under,
)
from bench.network.head import trunk_output
from bench.spec.backbone import BackboneEntry, Reader, Stages
from bench.spec.preprocessing import Preprocessing

TRIAL_PX = 96
"""Input size of the trial export of a user's network, if it takes it: small, for speed."""
HEAD_KINDS = frozenset({"adaptive_avg_pool2d", "flatten", "dropout"})
"""Kinds of functional calls after the last listed module that belong to the head."""


CheckTraining = Callable[[nn.Module, Network, str], None]
"""Raises UserError if a network in training form differs from its Blueprint; its arguments are both
and a name for messages."""


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
    lacks_layers = False
    if path is not None:
        # Every head but the original replaces the last layer, and that one resizes it.
        lacks_layers = load_weights(module, entry, path, reader, last_layer(module)[0])
    blueprint = export_module(module, name, px, entry.stages, preprocessing)
    if lacks_layers:
        blueprint = _without_classifier(blueprint)
    return Network(blueprint, _tensors(module, blueprint))


def _tensors(module: nn.Module, blueprint: Blueprint) -> dict[str, Array]:
    state = module.state_dict()
    return {
        tensor: state[tensor].detach().to(torch.float32).contiguous().numpy()
        for _, _, tensor in blueprint.named_tensors()
    }


def export_architecture(name: str, entry: BackboneEntry, px: int) -> Blueprint:
    """Export a backbone of the catalogue without allocating its tensors."""
    module = construct_on_meta(entry)
    return export_module(module, name, px, entry.stages, entry.preprocessing)


def check_can_be_rebuilt(
    module: nn.Module, name: str, entry: BackboneEntry, check_training: CheckTraining
) -> None:
    """Export a user's own network as a trial, and compare it in training form with the original, so
    that a plan can be made of what will run.

    Raises:
        UserError: It cannot be rebuilt, or would train otherwise.
    """
    check_finite(module, name)
    check_no_hooks(module, name)
    check_parameters_separate(module, name)
    check_batch_norms(module, name)
    px = max(entry.min_px, min(entry.native_px, TRIAL_PX))
    if not runs_in_training_form(module, px):  # auxiliary classifiers need larger maps
        px = entry.native_px
    blueprint = export_module(module, name, px, entry.stages, entry.preprocessing)
    trunk_output(blueprint)
    check_training(module, Network(blueprint, _tensors(module, blueprint)), name)


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
        where = line_of_error(error)
        if "data-dependent" in str(error):
            raise UserError(
                f"{name} cannot be rebuilt{where}: it decides by the values of a tensor (if, "
                "while, int() or indexing), and a Blueprint is one list of operations for all "
                "images.",
                "Compute both cases and join them, or take the decision out of forward().",
            ) from error
        raise UserError(
            f"{name} cannot be exported at {px} px{where}: {first_line(error)}"
        ) from error
    translator = Translator(program, name, COMPOSITIONS)
    operations = translator.translate(lambda path: _stage_of(path, stages) not in (None, HEAD))
    operations = _assign_stages(_fold_padding(operations), stages)
    if translator.left_out:
        operations = _trunk_alone(operations, translator)
    _check_used_once(operations, name)
    state = module.state_dict()
    used = {tensor for o in operations for tensor in o.tensors.values()}
    return Blueprint(
        backbone=name,
        px=px,
        preprocessing=preprocessing,
        stages=tuple(stage for stage, _ in stages),
        operations=tuple(operations),
        shapes={tensor: tuple(t.shape) for tensor, t in state.items() if tensor in used},
        notes=_notes(module) + ((CLASSIFIER_LEFT_OUT,) if translator.left_out else ()),
    )


def _without_classifier(blueprint: Blueprint) -> Blueprint:
    """Return a Blueprint of the trunk alone."""
    end = trunk_output(blueprint).name
    operations = Translator.needed_for({end}, blueprint.trunk())
    used = {tensor for o in operations for tensor in o.tensors.values()}
    return blueprint.model_copy(
        update={
            "operations": tuple(operations),
            "shapes": {name: s for name, s in blueprint.shapes.items() if name in used},
            "notes": (*blueprint.notes, CLASSIFIER_LEFT_OUT),
        }
    )


def _trunk_alone(operations: list[Operation], translator: Translator) -> list[Operation]:
    """Return the trunk of a network whose classifier could not be translated to the end; raise
    UserError if the classifier reads more than one of the trunk's values."""
    trunk = {o.name: o for o in operations if o.stage != HEAD}
    head_reads = {name for o in operations if o.stage == HEAD for name in o.inputs}
    read = (head_reads | translator.read_by_rest()) & trunk.keys()
    if len(read) != 1:
        raise UserError(translator.left_out)
    return Translator.needed_for(read, list(trunk.values()))


def _check_used_once(operations: list[Operation], name: str) -> None:
    """Raise UserError if two operations compute with one tensor, which would train as two."""
    first: dict[str, Operation] = {}
    for operation in operations:
        for tensor in operation.tensors.values():
            other = first.setdefault(tensor, operation)
            if other is not operation:
                raise UserError(
                    f"{name}: the weight '{tensor}' is used twice, in '{other.module_path}' and in "
                    f"'{operation.module_path}'.",
                    "Give each layer a weight of its own.",
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
    pads = {
        o.name: o
        for o in operations
        if o.kind == "pad" and "mode" not in o.attributes and readers[o.name] == {"conv2d"}
    }
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
