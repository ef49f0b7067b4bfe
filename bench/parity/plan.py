"""Plans of proofs: networks, policies and optimizers as items for the workers to measure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.catalog.policies import policy_of
from bench.errors import Unavailable, UserError
from bench.network.backbones import backbone as entry_of
from bench.network.backbones import check_px, public_name
from bench.network.blueprint import Blueprint, Network
from bench.network.export import blueprint_folder
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.network.phases import phases_of
from bench.network.weights import Weights, pretrained_weights, random_weights
from bench.parity import tolerances
from bench.parity.model import PARTS, Part, ProofKey
from bench.parity.tolerances import CLASSES, SEED, ProofSetting
from bench.spec.backbone import BackboneEntry
from bench.spec.run import Environment, OptimizerName, Policy, Precision, Recipe
from bench.workers.process import Interpreters, environment_of
from bench.workers.tasks import ProbeItem

DTYPES: dict[Precision, str] = {"fp64": "float64", "fp32": "float32"}
"""Precision of a recipe → dtype of a proof."""
EPOCHS = 2
"""Number of epochs, which prove shuffling, augmentation and the last batch."""


@dataclass(frozen=True)
class Question:
    """The backends to compare, and under which networks, policies and optimizers."""

    backbones: Sequence[str]
    policies: Sequence[str]
    optimizers: Sequence[OptimizerName]
    precisions: Sequence[Precision]
    backends: Sequence[str]
    """The reference, then the backends to compare with it."""
    head: str
    px: int | None
    """Height and width of the input, in pixels; None: that of the backbone's ``ProofSetting``."""
    device: str
    interpreters: Interpreters
    cache: Path
    boundary: str | None = None
    """Boundary to use for policies that train the last stage; None: their own."""
    parts: tuple[Part, ...] = PARTS
    """Parts to measure; a proof needs all of them."""
    perturbations: int = tolerances.PERTURBATIONS
    """Number of perturbations, the worst of which is a noise floor."""
    threads: int | None = None
    """Threads per worker; None: the framework's own choice."""


@dataclass(frozen=True)
class Claim:
    """The statement that a policy and an optimizer train a backbone alike in all backends."""

    items: dict[Part, str]
    """Part → key of the item that measures it."""
    keys: list[ProofKey]
    """Identity of the pair with each backend that is compared with the reference."""

    @property
    def about(self) -> ProofKey:
        """The first key, for what all have in common."""
        return self.keys[0]


@dataclass
class Subject:
    """A backbone in one precision, with all measurements that a question needs of it."""

    backbone: str
    precision: Precision
    setting: ProofSetting
    blueprints: dict[str, Blueprint] = field(default_factory=dict)
    """Kind of weights (pretrained, random) → the network with its head."""
    items: dict[str, ProbeItem] = field(default_factory=dict)
    """Key → item, in the order of measurement."""
    claims: list[Claim] = field(default_factory=list)
    proved: list[ProofKey] = field(default_factory=list)
    """Keys of the pairs that are proved already."""

    @property
    def images(self) -> int:
        """Number of training images: one full batch and one that lacks an image, so that what is
        done to fill it up is seen."""
        return self.setting.batch_size * 2 - 1


def subject_of(
    backbone: str, precision: Precision, question: Question, proved: Collection[ProofKey] = ()
) -> Subject:
    """Plan the proof of one backbone, and export its Blueprints; a claim whose pairs are all
    ``proved`` is left out.

    Raises:
        UserError: The backbone cannot take the input size or be exported, or a policy trains
            nothing in it.
        Unavailable: The exporter is not installed.
    """
    entry = entry_of(backbone, question.interpreters, question.cache)
    setting = tolerances.SETTINGS.get(backbone, tolerances.DEFAULT_SETTING)
    px = question.px or max(setting.px, entry.min_px)
    check_px(backbone, entry, px)
    subject = Subject(backbone, precision, replace(setting, px=px))
    folders: dict[str, Path] = {}
    for name in question.policies:
        policy = policy_of(name, question.boundary)
        weights = _weights(backbone, entry, policy)
        kind = weights.ref.kind
        if kind not in folders:
            folders[kind] = blueprint_folder(
                backbone, px, weights, SEED, question.cache, question.interpreters,
                calibrated=kind == "random",
            )  # fmt: skip
            empty = Network.empty(Blueprint.load(folders[kind]))
            subject.blueprints[kind] = attach_head(empty, question.head, CLASSES, SEED).blueprint
        phases = phases_of(subject.blueprints[kind], policy, EPOCHS)
        if not all(plan_training(subject.blueprints[kind], p.policy).trained for p in phases):
            raise UserError(
                f"Policy {name} trains nothing in {backbone} with head {question.head}."
            )
        for optimizer in question.optimizers:
            recipe = _recipe(subject, policy, optimizer, question.head)
            keys = _keys(backbone, entry, policy, kind, recipe, question)
            if all(key in proved for key in keys):
                subject.proved += keys
                continue
            decay = f"x{policy.stage_decay:g}" if policy.stage_decay != 1.0 else ""
            rates = f"{policy.backbone_scale:g}{decay}{f'-{name}' if policy.phases else ''}"
            key = f"{kind}-{policy.boundary}-{rates}-{optimizer}"
            items = {part: _owner(subject, part, keys[0]) or key for part in question.parts}
            item = ProbeItem(
                key=key, blueprint=folders[kind].name, policy=policy, recipe=recipe,
                parts=tuple(part for part in question.parts if items[part] == key),
                perturbations=question.perturbations,
            )  # fmt: skip
            subject.items.setdefault(key, item)  # policies with the same rates share it
            subject.claims.append(Claim(items, keys))
    return subject


def _keys(
    backbone: str, entry: BackboneEntry, policy: Policy, kind: str, recipe: Recipe, q: Question
) -> list[ProofKey]:
    """Return the key of each backend pair's proof for a policy and a recipe."""
    first, *others = (environment.environment_id for environment in environments_of(q))
    key = ProofKey(
        backbone=public_name(backbone), code_sha256=entry.code.sha256 if entry.code else None,
        network_digest=entry.digest, weights=kind, policy=policy.name, policy_digest=policy.digest,
        boundary=policy.boundary, optimizer=recipe.optimizer, dtype=DTYPES[recipe.precision],
        px=recipe.px, batch_size=recipe.batch_size, head=recipe.head, environments=(first, first),
    )  # fmt: skip
    return [key.model_copy(update={"environments": (first, other)}) for other in others]


def environments_of(question: Question) -> list[Environment]:
    """Return the environment of each backend, in the question's order."""
    return [environment_of(b, question.device, question.interpreters) for b in question.backends]


def _weights(backbone: str, entry: BackboneEntry, policy: Policy) -> Weights:
    """Return pretrained weights if the policy uses them and they are here, else random ones."""
    if policy.initialisation != "random":
        with suppress(Unavailable):
            return pretrained_weights(backbone, entry, download=False)
    return random_weights(entry)


def _recipe(subject: Subject, policy: Policy, optimizer: OptimizerName, head: str) -> Recipe:
    rate = tolerances.first_rate(optimizer, policy, subject.setting)
    return Recipe(
        head=head, px=subject.setting.px, epochs=EPOCHS, batch_size=subject.setting.batch_size,
        optimizer=optimizer, learning_rate=rate, momentum=tolerances.MOMENTUM,
        weight_decay=tolerances.WEIGHT_DECAY, schedule="cosine", warmup_fraction=0.0,
        augmentation="crop_flip", precision=subject.precision,
    )  # fmt: skip


def _owner(subject: Subject, part: Part, about: ProofKey) -> str | None:
    """Return the key of the item that already measures a part, if any: the forward pass depends on
    the weights only, gradients also on the boundary, steps on everything."""
    for claim in subject.claims:
        same_boundary = claim.about.boundary == about.boundary
        is_shared = part == "forward" or (part == "gradients" and same_boundary)
        if is_shared and claim.about.weights == about.weights:
            return claim.items[part]
    return None
