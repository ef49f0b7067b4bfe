"""Tolerances, sizes and learning rates of proofs."""

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
    "logits_after_epochs": {"fp64": 1e-8, "fp32": 1e-2},
    "restored_losses": {"fp64": 1e-10, "fp32": 1e-3},
    "resumed": {"fp64": 1e-10, "fp32": 1e-3},
    "frozen": {"fp64": 0.0, "fp32": 0.0},
    "metrics": {"fp64": 1e-13, "fp32": 1e-6},
}
"""Level → largest relative difference that counts as equal, by precision; 0: bitwise equality."""
NEED_LOW_FLOOR = ("losses", "epoch_losses")
"""Levels that pass only if their noise floor is measured to be far enough below the tolerance. The
floors of other levels are for information."""
MAY_BE_NOISY: dict[Precision, tuple[str, ...]] = {
    "fp64": (),
    "fp32": (
        "gradients",
        "state_after_one_step",
        "logits_after_steps",
        "epoch_losses",
        "logits_after_epochs",
    ),
}
"""Levels that a proof can do without if their noise floor is too high and explains the difference:
in float32 one last bit that flips a ReLU moves the gradients of VGG16 by 0.3 of the largest. The
logits and the ten losses always count."""
MIN_LOSS_FALL = 0.05
"""Fraction by which the training loss must fall over the steps: steps that change nothing prove
nothing."""
FLOOR_MARGIN = 10.0
"""A value counts only if this many times its noise floor is below the tolerance."""
STEPS = 10
PERTURBATIONS = 3
CLASSES = 10
SEED = 0
MOMENTUM, WEIGHT_DECAY = 0.9, 0.01
LEARNING_RATES: dict[OptimizerName, tuple[float, ...]] = {
    "sgd": (1e0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6),
    "adamw": (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6),
}
"""Peak rates to try, lower ones if the steps are chaotic and higher ones if the loss hardly falls.
"""
FIRST_RATE: dict[OptimizerName, float] = {"sgd": 1e-3, "adamw": 1e-5}
"""The backbone's rate at which the search starts: about the largest that keeps most networks out of
chaos. A head alone tolerates ten times AdamW's."""


@dataclass(frozen=True)
class ProofSetting:
    """Input size, batch size and first learning rate of a backbone's proofs."""

    px: int
    """Height and width of the input, in pixels."""
    batch_size: int
    """Images per step; the last batch of an epoch has one less."""
    sgd_rate: float = FIRST_RATE["sgd"]
    """SGD learning rate at which the search starts. It is known to work under retrain_all, so that
    no search is needed; VGG16 starts at the rate of VGG19."""


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
"""Setting of all other backbones; a backbone that needs a larger input gets its minimum."""


def first_rate(optimizer: OptimizerName, policy: Policy, setting: ProofSetting) -> float:
    """Return the head's peak rate to try first, one of ``LEARNING_RATES``."""
    if policy.boundary == "head":
        wanted = 1e-3 if optimizer == "sgd" else 1e-4
    else:
        start = setting.sgd_rate if optimizer == "sgd" else FIRST_RATE[optimizer]
        wanted = start / policy.backbone_scale
    return min(LEARNING_RATES[optimizer], key=lambda rate: abs(math.log(rate / wanted)))
