"""Applying a policy to a network: which tensors train, how fast, and which decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.errors import choose
from bench.network.blueprint import (
    HEAD,
    KERNELS,
    STATE_ROLES,
    Array,
    Blueprint,
    Operation,
    hash_tensors,
    is_under,
)
from bench.spec.run import Policy


@dataclass(frozen=True)
class TensorPlan:
    """The treatment of one trained tensor."""

    learning_rate_scale: float
    """Learning rate of the tensor / learning rate of the step."""
    decays: bool
    """True if weight decay applies: for kernels, not for biases or BatchNorm."""


@dataclass(frozen=True)
class TrainingPlan:
    """A policy applied to a Blueprint; the same for both adapters."""

    first_trained: int
    """Index of the first operation that trains; those before run in inference mode. Not used in
    native mode, which has no operations."""
    trained: dict[str, TensorPlan]
    frozen: tuple[str, ...]
    """Names of all tensors that must not change, including BatchNorm statistics."""
    moving: tuple[str, ...]
    """BatchNorm statistics that training updates."""
    dropouts: tuple[Operation, ...]
    """Dropout operations that are on in training, in the order of their masks."""

    needs_two_images: bool = False
    """True if a BatchNorm over a single position trains, or may train in native mode: one image has
    no variance."""

    def in_training(self, index: int) -> bool:
        """Return True if the operation at ``index`` is in the part that trains."""
        return index >= self.first_trained

    def frozen_sha256(self, tensors: dict[str, Array]) -> str:
        """Hash the frozen ones of ``tensors`` (hex)."""
        return hash_tensors({name: tensors[name] for name in self.frozen})


def boundary_index(blueprint: Blueprint, boundary: str) -> int:
    """Return the index of the first operation at or after ``boundary``: 'all', 'last_stage', a
    stage ('head' included) or a module path. Raise UserError if there is no such stage or module.
    """
    if boundary == "all":
        return 0
    stage = blueprint.stages[-2] if boundary == "last_stage" else boundary
    for index, operation in enumerate(blueprint.operations):
        if operation.stage == stage or is_under(operation.module_path, boundary):
            return index
    paths = dict.fromkeys(o.module_path for o in blueprint.operations if o.module_path)
    choose(f"boundary in {blueprint.backbone}", boundary, [*blueprint.stages, *paths])
    raise AssertionError("choose raises UserError for an unknown name")


def plan_training(blueprint: Blueprint, policy: Policy) -> TrainingPlan:
    """Apply ``policy`` to ``blueprint``; raise UserError if the boundary is not in this network."""
    first = boundary_index(blueprint, policy.boundary)
    before, after = blueprint.operations[:first], blueprint.operations[first:]
    trained: dict[str, TensorPlan] = {}
    moving: list[str] = []
    for operation in after:
        for role, tensor in operation.tensors.items():
            if role in STATE_ROLES:
                moving.append(tensor)
            else:
                scale = _scale(blueprint, operation.stage, policy)
                decays = role == "weight" and operation.kind in KERNELS
                trained[tensor] = TensorPlan(scale, decays)
    frozen = tuple(tensor for o in before for tensor in o.tensors.values())
    dropouts = tuple(o for o in after if o.kind == "dropout")
    alone = any(o.kind == "batch_norm" and math.prod(o.shape[1:]) == 1 for o in after)
    return TrainingPlan(first, trained, frozen, tuple(moving), dropouts, alone)


def _scale(blueprint: Blueprint, stage: str, policy: Policy) -> float:
    """Return the learning rate of a stage / that of the head."""
    if stage == HEAD:
        return 1.0
    before_last = len(blueprint.stages) - 2 - blueprint.stages.index(stage)
    return policy.backbone_scale * policy.stage_decay**before_last
