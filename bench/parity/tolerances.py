"""What a proof demands, and where it looks: tolerances, sizes, learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.spec.run import OptimizerName, Policy, Precision

LEVELS: dict[str, dict[Precision, float]] = {
    "pixels": {"fp64": 0.0, "fp32": 0.0},
    "initial_head": {"fp64": 0.0, "fp32": 0.0},
    "logits": {"fp64": 1e-13, "fp32": 1e-5},
    "activations": {"fp64": 1e-12, "fp32": 1e-4},
    "gradients": {"fp64": 1e-10, "fp32": 1e-2},
    "state_after_one_step": {"fp64": 1e-9, "fp32": 1e-3},
    "losses": {"fp64": 1e-10, "fp32": 1e-3},
    "logits_after_steps": {"fp64": 1e-9, "fp32": 1e-2},
    "epoch_losses": {"fp64": 1e-10, "fp32": 1e-3},
    "frozen": {"fp64": 0.0, "fp32": 0.0},
    "metrics": {"fp64": 1e-13, "fp32": 1e-6},
}
"""Level → largest relative difference that counts as the same, by precision; 0 is equality."""
FLOORED = ("losses", "epoch_losses")
"""Levels that chaos can spoil: their figure counts only where their floor is far enough below the
tolerance, and a proof needs it to count. The floors of the others are shown."""
BLUNT: dict[Precision, tuple[str, ...]] = {
    "fp64": (),
    "fp32": ("gradients", "state_after_one_step", "logits_after_steps", "epoch_losses"),
}
"""Levels that a proof does without where their own floor is too high and accounts for the figure:
in float32 a last bit that turns a ReLU moves the gradients of VGG16 by 0.3 of the largest. What
must count there are the logits and the ten losses."""
LEAST_FALL = 0.05
"""By how much the training loss must fall over the steps, as a fraction: steps that move nothing
prove nothing."""
FLOOR_FACTOR = 10.0
"""A figure counts only where this many times its floor is below the tolerance."""
STEPS = 10
NUDGES = 3
CLASSES = 10
SEED = 0
MOMENTUM, WEIGHT_DECAY = 0.9, 0.01
LEARNING_RATES: dict[OptimizerName, tuple[float, ...]] = {
    "sgd": (1e0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6),
    "adamw": (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6),
}
"""Peak rates that are tried, down where the steps are chaotic and up where nothing moves."""
FIRST_RATE: dict[OptimizerName, float] = {"sgd": 1e-3, "adamw": 1e-5}
"""Where the search begins, as the backbone's rate: about the largest that keeps most networks out
of chaos. A head alone bears ten times AdamW's."""


@dataclass(frozen=True)
class ProofSetting:
    """On what a backbone is proved."""

    px: int
    """Height and width of the input."""
    batch_size: int
    """Images of a step; the last batch of an epoch has half of them."""
    sgd_rate: float = FIRST_RATE["sgd"]
    """Where the search for SGD's learning rate begins, as the backbone's rate: one that was seen to
    lower the loss and to be sharp under retrain_all (VGG16 has VGG19's). It saves the search."""


SETTINGS: dict[str, ProofSetting] = {
    "alexnet": ProofSetting(64, 4, 1e-2),
    "vgg16": ProofSetting(32, 4, 3e-3),
    "vgg19": ProofSetting(32, 4, 3e-3),
    "resnet34": ProofSetting(64, 8),
    "resnet50": ProofSetting(64, 8),
    "resnet101": ProofSetting(64, 4, 1e-4),
    "resnet152": ProofSetting(64, 4, 1e-4),
    "mobilenet_v2": ProofSetting(64, 8, 1e-4),
    "squeezenet1_1": ProofSetting(64, 4),
    "torchvision:vit_b_16": ProofSetting(224, 2),
    "torchvision:vit_b_32": ProofSetting(224, 2),
}
DEFAULT_SETTING = ProofSetting(64, 4)
"""Of every other backbone; a least input size above it is used instead."""


def first_rate(optimizer: OptimizerName, policy: Policy, setting: ProofSetting) -> float:
    """The peak rate (the head's) that is tried first, one of ``LEARNING_RATES``."""
    if policy.boundary == "head":
        wanted = 1e-3 if optimizer == "sgd" else 1e-4
    else:
        start = setting.sgd_rate if optimizer == "sgd" else FIRST_RATE[optimizer]
        wanted = start / policy.backbone_scale
    return min(LEARNING_RATES[optimizer], key=lambda rate: abs(math.log(rate / wanted)))
