"""Recipes that are not the point: for counting, for proofs, for the self-check."""

from __future__ import annotations

from bench.spec.run import Recipe

TUNE_FACTORS = (0.3, 1.0, 3.0)
"""Of ``--tune lr``: what the policy's own peak rate is multiplied by."""


def plain_recipe(head: str, px: int = 1, batch_size: int = 1) -> Recipe:
    """SGD without momentum, decay, schedule or augmentation, one epoch."""
    return Recipe(
        head=head,
        px=px,
        epochs=1,
        batch_size=batch_size,
        optimizer="sgd",
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
        warmup_fraction=0.0,
        augmentation="none",
        precision="fp32",
    )
