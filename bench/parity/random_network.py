"""Random networks that are fit for a proof.

A fresh BatchNorm has factor 1, offset 0, mean 0 and variance 1, which hides a confusion of any two;
and with those statistics the signal of a deep network vanishes or explodes. So each BatchNorm gets
values of its own, and statistics close to those of real activations.

Residual branches end in small factors: if every branch is as strong as its shortcut, gradients grow
from block to block and training is chaotic at any learning rate. ResNet152 (64 px, batch 4, SGD at
1e-5): with factors of 0.4 to 0.8 one last bit moved the ten losses by 6e-2, with 0.1 to 0.3 by
8e-15. In float32 that is still chaos (AdamW at 1e-5: 6e-3; ResNet101: 3e-3), so networks with more
than 16 branches get still smaller factors (3e-5 and 5e-5): the deeper the network, the less a
branch may add (De and Smith 2020, "Batch Normalization Biases Residual Blocks Towards the Identity
Function").
"""

from __future__ import annotations

import numpy as np

from bench.network.blueprint import Array, Blueprint, Network, Operation
from bench.network.freezing import plan_training
from bench.parity.inputs import proof_split
from bench.spec.plain import TRAIN_ALL, plain_recipe
from bench.training.adapter import Adapter
from bench.training.batches import TrainingBatches

IMAGES = 8
PLAIN_BRANCHES = 16
"""Number of residual branches up to which their factors need not shrink with depth."""
DEPTH_EXPONENT = 1.5


def calibrate_random_network(network: Network, adapter: Adapter) -> Network:
    """Return an exported network with random values in every BatchNorm, and statistics that the
    adapter computes."""
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
    tensors |= _batch_statistics(Network(network.blueprint, tensors), adapter)
    scatter("running_mean", (0.8, 1.2), 0.01)
    scatter("running_var", (0.7, 1.4), 0.0)
    return Network(network.blueprint, tensors)


def _end_factors(branches: int) -> tuple[float, float]:
    """Return the range of factors at the ends of that many residual branches."""
    depth = min(1.0, PLAIN_BRANCHES / max(1, branches)) ** DEPTH_EXPONENT
    return 0.1 * depth, 0.3 * depth


def _branch_ends(blueprint: Blueprint) -> set[str]:
    """Return the names of the BatchNorms whose value is added to a shortcut. If both operands of a
    sum are BatchNorms, the first is the branch's and the second the shortcut's."""
    norms = {o.name for o in blueprint.operations if o.kind == "batch_norm"}
    sums = (o for o in blueprint.operations if o.kind == "add")
    return {name for o in sums for name in [n for n in o.inputs if n in norms][:1]}


def _batch_statistics(network: Network, adapter: Adapter) -> dict[str, Array]:
    """Return running statistics equal to those of one batch, by a forward pass with momentum 1."""
    operations = [
        o if o.kind != "batch_norm"
        else o.model_copy(update={"attributes": {**o.attributes, "momentum": 1.0}})
        for o in network.blueprint.operations
    ]  # fmt: skip
    network = Network.of(network.blueprint, operations, network.tensors)
    plan = plan_training(network.blueprint, TRAIN_ALL)
    recipe = plain_recipe("original", network.blueprint.px, IMAGES)
    trainer = adapter.build(network, plan, recipe, "cpu")
    split = proof_split(network.blueprint.px, IMAGES)
    batch = next(TrainingBatches(split, recipe, plan.dropouts, 0).epoch(0))
    trainer.gradients(trainer.to_device(batch))
    moved = trainer.tensors()
    return {name: moved[name] for name in plan.moving}
