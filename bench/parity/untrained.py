"""Random networks fit for a proof.

Fresh BatchNorms have factors 1, offsets 0, means 0 and variances 1, which hide a confusion of any
two; and with those statistics the signal of a deep network dies out or explodes. So each gets
values of its own, and statistics near those of real activations.
"""

from __future__ import annotations

import numpy as np

from bench.backend import Adapter
from bench.blueprint import Array, Network
from bench.catalog.policies import POLICIES
from bench.catalog.recipes import plain_recipe
from bench.data.batches import TrainingBatches
from bench.parity.images import proof_split
from bench.plan import plan_training

IMAGES = 8


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

    def scatter(role: str, factor: tuple[float, float], offset: float) -> None:
        for norm in norms:
            if role in norm.tensors:
                tensor = tensors[norm.tensors[role]]
                moved = tensor * random.uniform(*factor, tensor.shape)
                moved += random.uniform(-offset, offset, tensor.shape)
                tensors[norm.tensors[role]] = moved.astype(tensor.dtype)

    scatter("weight", (0.4, 0.8), 0.0)
    scatter("bias", (1.0, 1.0), 0.3)
    tensors |= _statistics(Network(network.blueprint, tensors), adapter)
    scatter("running_mean", (0.8, 1.2), 0.01)
    scatter("running_var", (0.7, 1.4), 0.0)
    return Network(network.blueprint, tensors)


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
