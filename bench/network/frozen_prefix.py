"""The part of a network that a policy freezes: where it ends, and when its values can be cached."""

from __future__ import annotations

from dataclasses import dataclass

from bench.network.blueprint import INPUT, Blueprint
from bench.network.freezing import TrainingPlan
from bench.spec.base import canonical_hash
from bench.spec.run import Recipe, RunSpec


@dataclass(frozen=True)
class Boundary:
    """The value at which training can start, where everything before it is frozen."""

    index: int
    """Index of the first operation after it."""
    value: str
    shape: tuple[int, ...]
    """Shape without the batch: (C, H, W), (L, C) or (C,)."""


def boundary_of(blueprint: Blueprint, plan: TrainingPlan) -> Boundary | None:
    """Return the end of the frozen prefix: the last place that a single value crosses; None if
    nothing is frozen, nothing trains or there is no such place.

    Pooling and activations after the last frozen tensor belong to it too, as they compute the same
    in training and in inference; dropout does not.
    """
    if plan.first_trained == 0 or not plan.trained:
        return None
    operations = blueprint.operations
    last = plan.first_trained
    while not operations[last].tensors and operations[last].kind != "dropout":
        last += 1
    shapes = {o.name: o.shape for o in operations}
    for index in range(last, 0, -1):
        after = operations[index:]
        crossing = {name for o in after for name in o.inputs} - {o.name for o in after}
        if len(crossing) == 1 and crossing != {INPUT}:
            (value,) = crossing
            return Boundary(index, value, shapes[value])
    return None


def why_not_cached(recipe: Recipe) -> str | None:
    """Return why the frozen prefix is not computed once for all epochs, None if it is."""
    if recipe.augmentation != "none" and recipe.views is None:
        return "every epoch augments anew; `views = K` in the suite repeats K views"
    passes = recipe.epochs * (1 + len(recipe.learning_rate_grid))
    if passes <= (recipe.views or 1):
        epochs = "1 epoch sees" if recipe.epochs == 1 else f"{recipe.epochs} epochs see"
        return f"{epochs} no view twice"
    return None


def prefix_key(
    blueprint: Blueprint, boundary: Boundary, tensors_sha256: str, data: str, spec: RunSpec,
    environment_id: str,
) -> str:  # fmt: skip
    """Return the name of the folder of a prefix's values, shared by runs that compute the same.

    Args:
        tensors_sha256: Hash of the prefix's tensors.
        data: Key of the packed images.
        spec: Its precision, rung, batch size, augmentation, views and seed matter.
        environment_id: Versions, machine, device and code.
    """
    recipe = spec.recipe
    augmented = recipe.augmentation != "none"
    dependencies = {
        "operations": [o.model_dump(mode="json") for o in blueprint.operations[: boundary.index]],
        "preprocessing": blueprint.preprocessing.model_dump(mode="json"),
        "value": boundary.value,
        "tensors": tensors_sha256,
        "data": data,
        "precision": recipe.precision,
        "compile": recipe.compile,
        "batch_size": recipe.batch_size,  # it decides how long they take
        "views": [recipe.augmentation, recipe.views, spec.seed] if augmented else None,
        "environment": environment_id,
    }
    return canonical_hash(dependencies)[:32]
