"""The simplest training: for counting, calibration, proofs and the self-check."""

from __future__ import annotations

from bench.spec.run import Policy, Recipe

TRAIN_ALL = Policy(
    name="train_all", boundary="all", initialisation="random",
    learning_rate_scale=1.0, backbone_scale=1.0,
)  # fmt: skip
"""Policy that trains every parameter at one rate."""


def plain_recipe(head: str, px: int = 1, batch_size: int = 1) -> Recipe:
    """Return one epoch of plain SGD without momentum, decay, schedule or augmentation."""
    return Recipe(
        head=head, px=px, epochs=1, batch_size=batch_size, precision="fp32",
        optimizer="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0,
        schedule="constant", warmup_fraction=0.0, augmentation="none",
    )  # fmt: skip
