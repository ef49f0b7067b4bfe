"""Fixed recipes, and the factors for tuning the learning rate."""

from __future__ import annotations

from bench.spec.run import Recipe

TUNE_FACTORS = (0.3, 1.0, 3.0)
"""Factors by which ``--tune lr`` multiplies the policy's own peak learning rate."""


def plain_recipe(head: str, px: int = 1, batch_size: int = 1) -> Recipe:
    """Return one epoch of plain SGD without momentum, decay, schedule or augmentation.

    It serves counting, proofs and the self-check.
    """
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
