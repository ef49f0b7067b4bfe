"""What is to be shown: networks, policies and optimizers as items for the workers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.catalog.policies import POLICIES
from bench.errors import Unavailable, UserError
from bench.network.backbones import backbone as entry_of
from bench.network.backbones import check_px, public_name
from bench.network.blueprint import Blueprint, Network
from bench.network.export import blueprint_folder
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.network.phases import phases_of
from bench.network.weights import Weights, pretrained_weights, random_weights
from bench.parity.model import PARTS, About, Part
from bench.parity.tolerances import (
    CLASSES,
    DEFAULT_SETTING,
    MOMENTUM,
    NUDGES,
    SEED,
    SETTINGS,
    WEIGHT_DECAY,
    ProofSetting,
    first_rate,
)
from bench.spec.backbone import BackboneEntry, OwnCode
from bench.spec.run import Environment, OptimizerName, Policy, Precision, Recipe
from bench.workers.process import Interpreters, environment_of
from bench.workers.tasks import ProbeItem

DTYPES: dict[Precision, str] = {"fp64": "float64", "fp32": "float32"}
"""Precision of a recipe → what proofs call it."""
EPOCHS = 2
"""In which order, augmentation and the last batch are shown."""


@dataclass(frozen=True)
class Question:
    """``parity`` with its options."""

    backbones: Sequence[str]
    """Names."""
    policies: Sequence[str]
    """Names in the catalogue."""
    optimizers: Sequence[OptimizerName]
    """sgd, adamw."""
    precisions: Sequence[Precision]
    """fp64, fp32."""
    backends: Sequence[str]
    """The reference first."""
    head: str
    """On every backbone."""
    px: int | None
    """Height and width; None: the catalogue's for proofs."""
    device: str
    """cpu or cuda:N."""
    interpreters: Interpreters
    """Which Python runs which backend."""
    cache: Path
    """Root of the cache."""
    boundary: str | None = None
    """From where a policy that trains the last stage trains instead."""
    parts: tuple[Part, ...] = PARTS
    """What to measure; only all of it is a proof."""
    nudges: int = NUDGES
    """Whose worst is a floor."""
    threads: int | None = None
    """Of each worker; None: as many as its framework takes."""


@dataclass(frozen=True)
class Claim:
    """One thing to show: that a policy and an optimizer train a backbone alike."""

    policy: Policy
    """What trains."""
    optimizer: OptimizerName
    """How."""
    weights: str
    """pretrained or random."""
    items: dict[Part, str]
    """Part → key of the item that measures it."""


@dataclass
class Subject:
    """A backbone in one precision, with all that is asked of it."""

    backbone: str
    """Its name."""
    precision: Precision
    """Of the computation."""
    setting: ProofSetting
    """Input size and batch size."""
    code: OwnCode | None = None
    """Of a user's own network."""
    blueprints: dict[str, Blueprint] = field(default_factory=dict)
    """Weights → operations, with the head."""
    items: dict[str, ProbeItem] = field(default_factory=dict)
    """By key, in the order in which they are measured."""
    claims: list[Claim] = field(default_factory=list)
    """What the items show together."""
    known: list[About] = field(default_factory=list)
    """What was asked too, and is proved."""

    @property
    def images(self) -> int:
        """Training images: one full batch and one half of it."""
        return self.setting.batch_size * 3 // 2


def subject_of(
    backbone: str, precision: Precision, question: Question, known: Collection[About] = ()
) -> Subject:
    """Plan the proof of one backbone; its Blueprints are exported on the way.

    Args:
        backbone: Its name.
        precision: Of the computation.
        question: What is asked.
        known: Pairs that are proved; a claim is made only where one of its pairs is not.

    Raises:
        UserError: The backbone cannot take the input size or be exported, or a policy trains
            nothing in it.
        Unavailable: The exporter is not installed.
    """
    entry = entry_of(backbone, question.interpreters, question.cache)
    setting = SETTINGS.get(backbone, DEFAULT_SETTING)
    px = question.px or max(setting.px, entry.min_px)
    check_px(backbone, entry, px)
    subject = Subject(backbone, precision, replace(setting, px=px), entry.code)
    folders: dict[str, Path] = {}
    for name in question.policies:
        policy = policy_of(name, question.boundary)
        weights = _weights(backbone, entry, policy)
        kind = weights.ref.kind
        if kind not in folders:
            folders[kind] = blueprint_folder(
                backbone,
                px,
                weights,
                SEED,
                question.cache,
                question.interpreters,
                settled=kind == "random",
            )
            empty = Network.empty(Blueprint.load(folders[kind]))
            subject.blueprints[kind] = attach_head(empty, question.head, CLASSES, SEED).blueprint
        if not _trains(subject.blueprints[kind], policy):
            raise UserError(
                f"Policy {name} trains nothing in {backbone} with head {question.head}."
            )
        for optimizer in question.optimizers:
            recipe = _recipe(subject, policy, optimizer, question.head)
            pairs = _abouts(subject, policy, kind, recipe, question)
            if all(about in known for about in pairs):
                subject.known += pairs
                continue
            item = ProbeItem(
                key=f"{kind}-{policy.boundary}-{_rates(policy)}-{optimizer}",
                blueprint=folders[kind].name,
                policy=policy,
                recipe=recipe,
                parts=question.parts,
                nudges=question.nudges,
            )
            _add_claim(subject, item, kind)
    return subject


def _rates(policy: Policy) -> str:
    """What tells policies with the same boundary apart."""
    decay = f"x{policy.stage_decay:g}" if policy.stage_decay != 1.0 else ""
    phases = f"-{policy.name}" if policy.phases else ""
    return f"{policy.backbone_scale:g}{decay}{phases}"


def _trains(blueprint: Blueprint, policy: Policy) -> bool:
    """Whether something is trained in every phase."""
    phases = phases_of(blueprint, policy, EPOCHS)
    return all(plan_training(blueprint, phase.policy).trained for phase in phases)


def _abouts(
    subject: Subject, policy: Policy, kind: str, recipe: Recipe, question: Question
) -> list[About]:
    """What the pairs of a claim would be about."""
    first, *others = (environment.environment_id for environment in environments_of(question))
    return [
        About(
            backbone=public_name(subject.backbone),
            code_sha256=subject.code.sha256 if subject.code else None,
            weights=kind,
            policy=policy.name,
            boundary=policy.boundary,
            optimizer=recipe.optimizer,
            dtype=DTYPES[recipe.precision],
            px=recipe.px,
            batch_size=recipe.batch_size,
            head=recipe.head,
            environments=(first, other),
        )
        for other in others
    ]


def environments_of(question: Question) -> list[Environment]:
    """Of each backend, in the question's order."""
    return [
        environment_of(backend, question.device, question.interpreters)
        for backend in question.backends
    ]


def policy_of(name: str, boundary: str | None) -> Policy:
    """A policy of the catalogue, with another boundary where it trains the last stage."""
    policy = POLICIES[name]
    if boundary is not None and policy.boundary == "last_stage":
        return policy.model_copy(update={"boundary": boundary})
    return policy


def _weights(backbone: str, entry: BackboneEntry, policy: Policy) -> Weights:
    """Pretrained where the policy starts from them and this machine has them, else random."""
    if policy.initialisation == "random":
        return random_weights(entry)
    try:
        return pretrained_weights(backbone, entry, download=False)
    except Unavailable:
        return random_weights(entry)


def _recipe(subject: Subject, policy: Policy, optimizer: OptimizerName, head: str) -> Recipe:
    return Recipe(
        head=head,
        px=subject.setting.px,
        epochs=EPOCHS,
        batch_size=subject.setting.batch_size,
        optimizer=optimizer,
        learning_rate=first_rate(optimizer, policy, subject.setting),
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        schedule="cosine",
        warmup_fraction=0.0,
        augmentation="crop_flip",
        precision=subject.precision,
    )


def _add_claim(subject: Subject, item: ProbeItem, kind: str) -> None:
    """Add the item that a claim needs, with the parts that no other item measures."""
    policy = item.policy
    items = next((c.items for c in subject.claims if item.key in c.items.values()), None)
    if items is None:
        items = {part: _owner(subject, part, policy, kind) or item.key for part in item.parts}
        parts = tuple(part for part in item.parts if items[part] == item.key)
        subject.items[item.key] = item.model_copy(update={"parts": parts})
    subject.claims.append(Claim(policy, item.recipe.optimizer, kind, items))


def _owner(subject: Subject, part: Part, policy: Policy, kind: str) -> str | None:
    """Key of the item that measures a part already: the forward pass depends on the weights alone,
    gradients on the boundary too, steps on everything."""
    for claim in subject.claims:
        same_boundary = claim.policy.boundary == policy.boundary
        if claim.weights == kind and (part == "forward" or (part == "gradients" and same_boundary)):
            return claim.items[part]
    return None
