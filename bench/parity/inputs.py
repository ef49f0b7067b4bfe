"""Images for proofs: made, not photographed, so that a bare machine has them.

Tensors moved by their last bit, for floors.

Random networks fit for a proof.

Fresh BatchNorms have factors 1, offsets 0, means 0 and variances 1, which hide a confusion of any
two; and with those statistics the signal of a deep network dies out or explodes. So each gets
values of its own, and statistics near those of real activations. Residual branches end in small
factors: where every branch is as strong as what it is added to, gradients grow from block to block
and training is chaotic at any learning rate. ResNet152 (64 px, batch 4, SGD at 1e-5): with factors
of 0.4 to 0.8 a last bit moved the ten losses by 6e-2, with 0.1 to 0.3 by 8e-15. In float32 that is
still chaos (AdamW at 1e-5: 6e-3; ResNet101: 3e-3), so that of more than 16 branches each ends in
smaller ones (3e-5 and 5e-5): the deeper the network, the less a branch may add (De and Smith 2020,
"Batch Normalization Biases Residual Blocks Towards the Identity Function").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bench.catalog.policies import POLICIES
from bench.catalog.recipes import plain_recipe
from bench.data import Split
from bench.network.blueprint import Array, Blueprint, Network, Operation
from bench.network.freezing import plan_training
from bench.parity.tolerances import SEED
from bench.training.adapter import Adapter
from bench.training.batches import TrainingBatches

PATCHES = 8
LABELS = 3
"""Of the classes that a head has."""


def proof_split(px: int, images: int) -> Split:
    """Coloured patches under noise: neither flat nor without structure.

    Args:
        px: Height and width.
        images: How many.
    """
    random = np.random.default_rng([SEED, px])
    patches = random.integers(0, 256, (images, PATCHES, PATCHES, 3))
    at = np.arange(px) * PATCHES // px
    noise = random.integers(-40, 41, (images, px, px, 3))
    pixels = np.clip(patches[:, at][:, :, at] + noise, 0, 255).astype(np.uint8)
    # A few labels, so that ten small steps lower the loss: small steps keep it out of chaos.
    return Split(pixels, np.arange(images, dtype=np.int64) % LABELS)


def save_split(split: Split, path: Path) -> None:
    """Write images and labels for workers, whose NumPy may be another."""
    np.savez(path, images=split.images, labels=split.labels)


def load_split(path: Path) -> Split:
    """What ``save_split`` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return Split(file["images"], file["labels"])


class Nudged(Mapping[str, Array]):
    """Every number moved by one last bit, up or down by a seeded coin; made when asked for."""

    def __init__(self, tensors: Mapping[str, Array], number: int) -> None:
        """
        Args:
            tensors: To be moved; they are not changed.
            number: Of the nudge; each is another.
        """
        self._tensors = tensors
        self._number = number
        self._places = {name: place for place, name in enumerate(sorted(tensors))}

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name]
        random = np.random.default_rng([SEED, self._number, self._places[name]])
        up = random.integers(0, 2, tensor.shape, dtype=np.bool_)
        direction = np.where(up, tensor.dtype.type(np.inf), tensor.dtype.type(-np.inf))
        moved: Array = np.nextafter(tensor, direction)
        return moved

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


IMAGES = 8
PLAIN_BRANCHES = 16
DEPTH_EXPONENT = 1.5


def settle(network: Network, adapter: Adapter) -> Network:
    """A random network with BatchNorm values of its own.

    Args:
        network: As exported; its classifier is kept.
        adapter: That computes the statistics.
    """
    norms = [o for o in network.blueprint.operations if o.kind == "batch_norm"]
    if not norms:
        return network
    random = np.random.default_rng(0)
    tensors = dict(network.tensors)
    branches = _branch_ends(network.blueprint)

    def scatter(
        role: str, factor: tuple[float, float], offset: float, some: list[Operation] = norms
    ) -> None:
        for norm in some:
            if role in norm.tensors:
                tensor = tensors[norm.tensors[role]]
                moved = tensor * random.uniform(*factor, tensor.shape)
                moved += random.uniform(-offset, offset, tensor.shape)
                tensors[norm.tensors[role]] = moved.astype(tensor.dtype)

    scatter("weight", (0.4, 0.8), 0.0, [o for o in norms if o.name not in branches])
    ends = [o for o in norms if o.name in branches]
    scatter("weight", _end_factors(len(ends)), 0.0, ends)
    scatter("bias", (1.0, 1.0), 0.3)
    tensors |= _statistics(Network(network.blueprint, tensors), adapter)
    scatter("running_mean", (0.8, 1.2), 0.01)
    scatter("running_var", (0.7, 1.4), 0.0)
    return Network(network.blueprint, tensors)


def _end_factors(branches: int) -> tuple[float, float]:
    """Between which factors so many branches end."""
    depth = min(1.0, PLAIN_BRANCHES / max(1, branches)) ** DEPTH_EXPONENT
    return 0.1 * depth, 0.3 * depth


def _branch_ends(blueprint: Blueprint) -> set[str]:
    """Names of the BatchNorms whose value is added to what went around them. Where both operands of
    a sum are BatchNorms, the first is: the other is the shortcut's."""
    kinds = {o.name: o.kind for o in blueprint.operations}
    ends = set()
    for operation in blueprint.operations:
        if operation.kind == "add":
            ends |= set([n for n in operation.inputs if kinds.get(n) == "batch_norm"][:1])
    return ends


def _statistics(network: Network, adapter: Adapter) -> dict[str, Array]:
    """Running statistics equal to those of one batch: by a momentum of one."""
    operations = tuple(
        o.model_copy(update={"attributes": {**o.attributes, "momentum": 1.0}})
        if o.kind == "batch_norm"
        else o
        for o in network.blueprint.operations
    )
    blueprint = network.blueprint.model_copy(update={"operations": operations})
    plan = plan_training(blueprint, POLICIES["retrain_all"])
    recipe = plain_recipe("original", blueprint.px, IMAGES)
    trainer = adapter.build(Network(blueprint, network.tensors), plan, recipe, "cpu")
    split = proof_split(blueprint.px, IMAGES)
    batch = next(TrainingBatches(split, recipe, plan.dropouts, 0).epoch(0))
    trainer.gradients(trainer.to_device(batch))
    moved = trainer.tensors()
    return {name: moved[name] for name in plan.moving}
