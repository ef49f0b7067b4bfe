"""The policies, each defined once for both frameworks.

What sets ``fine_tune_all`` apart from ``retrain_all`` stands here and nowhere else: both train the
whole network from pretrained weights. ``fine_tune_all`` does so gently: the new head learns at the
base rate, the backbone, which has more to lose, at a tenth of it. ``retrain_all`` treats the
network as a new model that merely starts well: the full base rate everywhere. ``from_scratch`` is
the same training from random weights, so that the two differ in nothing but initialisation (and in
preprocessing, where the pretrained weights want one of their own: the packaged SqueezeNet's BGR
would be nonsense for random ones).
"""

from __future__ import annotations

from bench.spec import OptimizerName, Policy

BASE_LEARNING_RATE: dict[OptimizerName, float] = {"sgd": 0.02, "adamw": 0.001}
"""Learning rate of a new model per optimizer; a policy scales it, ``learning_rate`` overrides."""

PRESCRIBED: dict[int, str] = {
    1: "freeze_all",
    2: "fine_tune_all",
    3: "fine_tune_last",
    4: "retrain_all",
}
"""Case of the article → the policy that it prescribes."""

CONTROL = "from_scratch"

DESCRIPTIONS: dict[str, str] = {
    "freeze_all": "freeze every backbone layer, train the head",
    "fine_tune_last": "freeze the early layers, fine-tune the last stage and the head",
    "fine_tune_all": "train the whole network, the backbone with a small learning rate",
    "retrain_all": "start from pretrained weights, then train like a new model",
    "from_scratch": "control: random weights, trained like a new model",
}

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(
            name="freeze_all",
            boundary="head",
            initialisation="pretrained",
            learning_rate_scale=1.0,
            backbone_scale=1.0,
        ),
        Policy(
            name="fine_tune_last",
            boundary="last_stage",
            initialisation="pretrained",
            learning_rate_scale=1.0,
            backbone_scale=0.1,
        ),
        Policy(
            name="fine_tune_all",
            boundary="all",
            initialisation="pretrained",
            learning_rate_scale=1.0,
            backbone_scale=0.1,
        ),
        Policy(
            name="retrain_all",
            boundary="all",
            initialisation="pretrained",
            learning_rate_scale=1.0,
            backbone_scale=1.0,
        ),
        Policy(
            name="from_scratch",
            boundary="all",
            initialisation="random",
            learning_rate_scale=1.0,
            backbone_scale=1.0,
        ),
    )
}
