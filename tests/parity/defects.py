"""Defects that a proof must detect, with the levels that each must fail."""

from __future__ import annotations

from dataclasses import dataclass

from bench.catalog.policies import POLICIES
from bench.parity.model import PARTS
from bench.parity.tolerances import FIRST_RATE, MOMENTUM, PERTURBATIONS, WEIGHT_DECAY
from bench.spec.run import OptimizerName, Recipe
from bench.workers.tasks import ProbeItem
from tests.parity.small_networks import BATCH_SIZE, PX

QUESTIONS: dict[str, tuple[str, OptimizerName]] = {
    "all-sgd": ("retrain_all", "sgd"),
    "all-adamw": ("retrain_all", "adamw"),
    "last-sgd": ("fine_tune_last", "sgd"),
    "thawed-sgd": ("linear_probe_then_fine_tune", "sgd"),
}
"""Key of an item → policy, optimizer."""


def item(key: str, blueprint: str) -> ProbeItem:
    """Return the item that measures the small network.

    Args:
        key: Key in ``QUESTIONS``.
        blueprint: Key of the Blueprint.
    """
    policy, optimizer = QUESTIONS[key]
    recipe = Recipe(
        head="original",
        px=PX,
        epochs=2,
        batch_size=BATCH_SIZE,
        optimizer=optimizer,
        learning_rate=FIRST_RATE[optimizer],
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        schedule="cosine",
        warmup_fraction=0.0,
        augmentation="crop_flip",
        precision="fp64",
    )
    chosen = POLICIES[policy]
    # Each perturbation rebuilds the network for each phase, which takes most of the time.
    nudges = 1 if chosen.phases else PERTURBATIONS
    return ProbeItem(
        key=key,
        blueprint=blueprint,
        policy=chosen,
        recipe=recipe,
        parts=PARTS,
        perturbations=nudges,
    )


@dataclass(frozen=True)
class Defect:
    """The expected effect of a planted defect."""

    levels: frozenset[str]
    """Levels that must fail; all other levels must pass."""
    item: str = "all-sgd"
    """Key of the item in which the defect is planted."""
    may: frozenset[str] = frozenset()
    """Levels that fail in one framework and pass in another."""
    operation: str | None = None
    """First operation whose output in inference form must differ; None: all agree."""


STEPS = frozenset(
    {"state_after_one_step", "losses", "logits_after_steps", "epoch_losses",
     "logits_after_epochs", "restored_losses"}
)  # fmt: skip
LATER = STEPS - {"state_after_one_step", "restored_losses"}
"""Levels of a defect that first has an effect in the second step."""
TRAINING = STEPS | {"gradients"}
FORWARD = TRAINING | {"logits", "activations"}
STATISTICS = frozenset({"state_after_one_step", "logits_after_steps", "logits_after_epochs"})
"""Levels that depend on running statistics; losses in training form do not."""

EPOCHS = frozenset({"epoch_losses", "logits_after_epochs"})

DEFECTS: dict[str, Defect] = {
    "batch_norm_epsilon": Defect(FORWARD, operation="bn2"),
    "batch_norm_momentum": Defect(STATISTICS),
    "biased_variance": Defect(STATISTICS),
    "statistics_of_batch_in_frozen_stage": Defect(TRAINING | {"frozen", "resumed"}, "last-sgd"),
    "statistics_move_in_frozen_stage": Defect(
        LATER | {"frozen", "restored_losses", "resumed"}, "last-sgd"
    ),
    "swapped_channels": Defect(FORWARD | {"pixels"}, operation="conv1"),
    "pixel_scale": Defect(FORWARD | {"pixels"}, operation="conv1"),
    "mean_and_std_of_another_backbone": Defect(FORWARD | {"pixels"}, operation="conv1"),
    "pixels_flipped_in_training": Defect(TRAINING | {"pixels"}),
    "asymmetric_padding": Defect(FORWARD, operation="conv1"),
    "floor_pooling": Defect(FORWARD, operation="pool2"),
    "max_pool_padding_with_zeros": Defect(FORWARD, operation="pool1"),
    "flatten_order": Defect(FORWARD, operation="flat"),
    "dropout_in_evaluation": Defect(
        frozenset({"logits", "activations", "logits_after_steps", "logits_after_epochs"}),
        operation="drop1",
    ),
    "other_dropout_mask": Defect(TRAINING),
    "learning_rate_in_velocity": Defect(LATER),
    "coupled_decay": Defect(STEPS, "all-adamw"),
    "decoupled_decay": Defect(LATER),
    "decay_on_biases": Defect(STEPS, "all-adamw"),
    "adam_epsilon": Defect(STEPS, "all-adamw"),
    "one_learning_rate": Defect(STEPS | {"resumed"}, "last-sgd"),
    "schedule_per_epoch": Defect(EPOCHS),
    "other_batch_order": Defect(FORWARD | {"pixels"}, operation="conv1"),
    "order_of_first_epoch": Defect(LATER | {"restored_losses"}),
    "last_batch_dropped": Defect(EPOCHS),
    "last_batch_padded": Defect(EPOCHS),
    "moments_kept": Defect(frozenset({"restored_losses"})),
    "folded_with_another_variance": Defect(frozenset({"resumed"}), "last-sgd"),
    "values_in_half_precision": Defect(frozenset({"resumed"}), "last-sgd"),
    "resumed_in_inference_form": Defect(frozenset({"resumed"}), "last-sgd"),
    "frozen_layer_trains": Defect(
        LATER | {"gradients", "frozen", "restored_losses"}, "last-sgd", frozenset({"resumed"})
    ),
    "trained_layer_is_frozen": Defect(TRAINING),
    "optimizer_forgets_a_layer": Defect(STEPS),
    "other_head_initialisation": Defect(FORWARD | {"initial_head"}, operation="logits"),
    "label_off_by_one": Defect(TRAINING),
    "label_off_by_one_in_loss": Defect(TRAINING | {"metrics"}),
    "softmax_in_loss": Defect(TRAINING | {"metrics"}),
    "softmax_in_evaluation": Defect(
        frozenset({"logits", "logits_after_steps", "logits_after_epochs"})
    ),
    "head_not_handed_over": Defect(LATER, "thawed-sgd"),
}
"""Name → expected effect. Each defect is planted in every adapter."""
