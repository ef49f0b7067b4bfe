"""The policies, each defined once for both frameworks.

``fine_tune_all`` and ``retrain_all`` both train the whole network from pretrained weights.
``fine_tune_all`` trains the backbone, which has more to lose, at a tenth of the rate of the new
head. ``retrain_all`` treats the network as a new model with a good start, at one rate everywhere.
``from_scratch`` is the same training from random weights, so that the two differ only in
initialisation (and in preprocessing if the pretrained weights need their own, such as the packaged
SqueezeNet's BGR, which makes no sense for random weights). ``discriminative_lr`` lies between the
two: each stage, from the last to the first, trains at 1/2.6 of the rate of the stage after it.

Two policies unfreeze the network in phases (``bench.network.phases``), at the rates of
``fine_tune_all``. ``linear_probe_then_fine_tune`` trains the head alone for half of the epochs and
then everything, so that an untrained head does not distort the backbone. ``gradual_unfreeze``
trains the head for one epoch, then adds one stage per epoch; its authors combine it with the rates
of ``discriminative_lr``, but each helps by itself, and here it differs from ``fine_tune_all`` only
in the unfreezing. Each phase runs the recipe's whole schedule, warm-up included, over its own
epochs, with fresh moments of the optimizer.
"""

from __future__ import annotations

from typing import Any

from bench.spec.run import OptimizerName, Policy, PolicyPhase

BASE_LEARNING_RATE: dict[OptimizerName, float] = {"sgd": 0.02, "adamw": 0.001}
"""Optimizer → base learning rate; ``RATE_FACTORS`` scale it for each policy, and ``learning_rate``
overrides both."""
RATE_FACTORS: dict[OptimizerName, dict[str, float]] = {
    "sgd": {},
    "adamw": {
        "freeze_all": 10.0, "fine_tune_last": 10.0, "fine_tune_all": 3.0, "discriminative_lr": 3.0,
        "linear_probe_then_fine_tune": 3.0, "gradual_unfreeze": 3.0,
    },
}  # fmt: skip
"""Optimizer → policy → its default learning rate / the base rate; 1 for all others. Calibrated on
the embedded data sets (docs/learning-rates.md); the two policies with phases have the factor of
``fine_tune_all``, as which they end."""
TUNE_FACTORS = (0.3, 1.0, 3.0)
"""Factors by which ``--tune lr`` multiplies a policy's own peak learning rate."""
PRESCRIBED = {1: "freeze_all", 2: "fine_tune_all", 3: "fine_tune_last", 4: "retrain_all"}
"""Case of the article → the policy that it prescribes for it."""
CONTROL = "from_scratch"
"""Policy without transfer learning, for comparison."""
STAGE_RATIO = 2.6
"""Ratio of a stage's learning rate to that of the stage before it. Howard and Ruder 2018,
"Universal Language Model Fine-tuning for Text Classification", 3.2, use it for layers."""
DESCRIPTIONS: dict[str, str] = {
    "freeze_all": "freeze every backbone layer, train the head",
    "fine_tune_last": "freeze the early layers, fine-tune the last stage and the head",
    "fine_tune_all": "train the whole network, the backbone with a small learning rate",
    "retrain_all": "start from pretrained weights, then train like a new model",
    "discriminative_lr": "train the whole network, each stage slower than the one after it",
    "linear_probe_then_fine_tune": "train the head for half the epochs, then as fine_tune_all with "
    "the schedule restarted",
    "gradual_unfreeze": "train the head, then one more stage each epoch, then as fine_tune_all, "
    "with the schedule restarted in each phase",
    "from_scratch": "control: random weights, trained like a new model",
}


def _policy(name: str, boundary: str, backbone_scale: float, **more: Any) -> Policy:
    fields = {"initialisation": "pretrained", "learning_rate_scale": 1.0, **more}
    return Policy(name=name, boundary=boundary, backbone_scale=backbone_scale, **fields)


_HEAD_THEN_ALL = tuple(PolicyPhase(boundary=part, share=0.5) for part in ("head", "all"))
POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        _policy("freeze_all", "head", 1.0),
        _policy("fine_tune_last", "last_stage", 0.1),
        _policy("fine_tune_all", "all", 0.1),
        _policy("retrain_all", "all", 1.0),
        _policy("discriminative_lr", "all", 1 / STAGE_RATIO, stage_decay=1 / STAGE_RATIO),
        # Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
        # Out-of-Distribution": linear probing, then full fine-tuning from the head that it found.
        _policy("linear_probe_then_fine_tune", "all", 0.1, phases=_HEAD_THEN_ALL),
        # Howard and Ruder 2018, 3.3.
        _policy("gradual_unfreeze", "all", 0.1, phases="by_stage"),
        _policy("from_scratch", "all", 1.0, initialisation="random"),
    )
}


def default_rate(policy: str, optimizer: OptimizerName) -> float:
    """Return the peak learning rate of a policy's head where the user names none."""
    return BASE_LEARNING_RATE[optimizer] * rate_factor(policy, optimizer)


def rate_factor(policy: str, optimizer: OptimizerName) -> float:
    """Return a policy's default learning rate over the optimizer's base rate."""
    return RATE_FACTORS[optimizer].get(policy, 1.0)


def policy_of(name: str, boundary: str | None) -> Policy:
    """Return a policy of the catalogue, with ``boundary`` if it trains the last stage."""
    policy = POLICIES[name]
    if boundary is None or policy.boundary != "last_stage":
        return policy
    return policy.model_copy(update={"boundary": boundary})


DEFAULT_POLICIES = tuple(name for name, policy in POLICIES.items() if not policy.phases)
"""Policies of a grid that names none: those without phases, which need several epochs."""
