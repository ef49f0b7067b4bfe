"""The policies, each defined once for both frameworks.

What sets ``fine_tune_all`` apart from ``retrain_all`` stands here and nowhere else: both train the
whole network from pretrained weights. ``fine_tune_all`` does so gently: the new head learns at the
base rate, the backbone, which has more to lose, at a tenth of it. ``retrain_all`` treats the
network as a new model that merely starts well: the full base rate everywhere. ``from_scratch`` is
the same training from random weights, so that the two differ in nothing but initialisation (and in
preprocessing, where the pretrained weights want one of their own: the packaged SqueezeNet's BGR
would be nonsense for random ones). ``discriminative_lr`` lies between the two: the head at the full
base rate, and each stage from the last to the first at 1/2.6 of the rate of the one after it.

Two policies thaw the network as they go, in phases (``bench.network.phases``), at the rates of
``fine_tune_all``. ``linear_probe_then_fine_tune`` trains the head alone for half the epochs, then
everything, so that a head that knows nothing does not distort what the backbone knows.
``gradual_unfreeze`` gives the head one epoch, and one stage more in each epoch that follows; its
authors use it together with the rates of ``discriminative_lr``, but each helps by itself, and here
it is set apart from ``fine_tune_all`` by nothing else. Each phase goes through the recipe's
schedule, warm-up included, over its own epochs, with fresh moments of the optimizer.
"""

from __future__ import annotations

from bench.spec.run import OptimizerName, Policy, PolicyPhase

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

STAGE_RATIO = 2.6
"""A layer's learning rate over that of the layer before it: Howard and Ruder 2018, "Universal
Language Model Fine-tuning for Text Classification", 3.2; here from stage to stage."""

DESCRIPTIONS: dict[str, str] = {
    "freeze_all": "freeze every backbone layer, train the head",
    "fine_tune_last": "freeze the early layers, fine-tune the last stage and the head",
    "fine_tune_all": "train the whole network, the backbone with a small learning rate",
    "retrain_all": "start from pretrained weights, then train like a new model",
    "discriminative_lr": "train the whole network, each stage slower than the one after it",
    "linear_probe_then_fine_tune": "train the head for half the epochs, then as fine_tune_all with "
    "the schedule begun anew",
    "gradual_unfreeze": "train the head, then one stage more each epoch, then as fine_tune_all, "
    "each with the schedule begun anew",
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
            name="discriminative_lr",
            boundary="all",
            initialisation="pretrained",
            learning_rate_scale=1.0,
            backbone_scale=1 / STAGE_RATIO,
            stage_decay=1 / STAGE_RATIO,
        ),
        # Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
        # Out-of-Distribution": linear probing, then full fine-tuning from the head that it found.
        Policy(
            name="linear_probe_then_fine_tune",
            boundary="all",
            initialisation="pretrained",
            learning_rate_scale=1.0,
            backbone_scale=0.1,
            phases=(
                PolicyPhase(boundary="head", share=0.5),
                PolicyPhase(boundary="all", share=0.5),
            ),
        ),
        # Howard and Ruder 2018, 3.3.
        Policy(
            name="gradual_unfreeze",
            boundary="all",
            initialisation="pretrained",
            learning_rate_scale=1.0,
            backbone_scale=0.1,
            phases="by_stage",
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

DEFAULT_POLICIES = tuple(name for name, policy in POLICIES.items() if not policy.phases)
"""Of a grid that names none: those that train the same in all epochs. The others need several
epochs, so that they are run where they are asked for."""
