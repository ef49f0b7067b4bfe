"""The values that define a run and its environment (docs/design.md, Nouns)."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from bench.spec.base import (
    SCHEMA_VERSION,
    Frozen,
    FrozenMapping,
    WithoutDefaults,
    canonical_json,
    short_hash,
)
from bench.spec.options import RecipeOption, declared_options

Size = Literal["small", "medium", "large"]
Similarity = Literal["similar", "not_similar"]
Status = Literal["ok", "diverged", "oom", "timeout", "crashed", "unavailable"]
Mode = Literal["matched", "native"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp64"]
CompileMode = Literal["plain", "compiled"]
OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["cosine", "constant"]
AugmentationName = Literal["none", "crop", "crop_flip"]
PrefixCache = Literal["auto", "off"]
TuneName = Literal["lr"]
Initialisation = Literal["pretrained", "random"]
UNFINISHED: frozenset[str] = frozenset({"unavailable", "crashed", "timeout"})
"""Statuses after which a run counts as missing and is repeated (docs/design.md, Identities)."""


ONLY_ON_A_GPU: tuple[Precision, ...] = ("fp16", "tf32")
"""Precisions that no CPU has."""


def why_not_on_a_cpu(precision: Precision) -> str | None:
    """Return why a CPU cannot run a precision, None if it can."""
    if precision not in ONLY_ON_A_GPU:
        return None
    return f"{precision} needs a GPU; on a CPU use --precision fp32 or bf16"


class Fold(Frozen):
    """A part of a cross-validation, in which every image is a test image once."""

    number: int = Field(ge=1, le=100, description="Number of the fold, from 1.")
    of: int = Field(ge=2, le=100, description="Number of folds.")
    images_sha256: str = Field(description="SHA-256 (hex) of all images and their classes.")


class DatasetRef(WithoutDefaults):
    """The images of a run, named without a path of this machine."""

    name: str = Field(description="Name as tables show it: 'photos', 'folder:flowers'.")
    label: str = Field(description="Name with its qualification, such as stand-in or synthetic.")
    content_hash: str = Field(description="SHA-256 of the images, labels and splits used.")
    classes: tuple[str, ...] = Field(description="Class names, in label order.")
    train_images: int = Field(ge=1, lt=2**63, description="Images in the training split.")
    val_images: int = Field(ge=0, lt=2**63, description="Images in the validation split.")
    test_images: int = Field(ge=0, lt=2**63, description="Images in the test split.")
    fold: Fold | None = Field(
        default=None, description="Part of a cross-validation whose images are the test; or null."
    )


class Case(Frozen):
    """A data set, with the case of the article that it belongs to."""

    number: int | None = Field(ge=1, le=4, description="Number of the article's case, or null.")
    dataset: DatasetRef = Field(description="The data set.")
    size: Size = Field(description="The article's word for the number of training images: small …")
    similarity: Similarity | None = Field(
        description="Similarity to the pretraining data; null if not known."
    )


class WeightsRef(WithoutDefaults):
    """The source of the backbone's tensors before training."""

    kind: Literal["pretrained", "random", "file"] = Field(description="pretrained, random or file.")
    source: str = Field(description="Package, file name in the framework's cache, or file.")
    sha256: str | None = Field(description="SHA-256 (hex) of the file, or a prefix; null: random.")
    reading_digest: str | None = Field(
        default=None,
        description="12 hex digits of the hash of the way the file is read and of the "
        "preprocessing of images; null in results of earlier versions.",
    )


class PolicyPhase(Frozen):
    """A phase of a policy: its share of the epochs, and what trains in it."""

    boundary: str = Field(description="First part that trains, as a policy's boundary.")
    share: float = Field(gt=0, le=1, description="Share of the epochs, rounded down, at least one.")


class Policy(WithoutDefaults):
    """The part of a network that trains, and its learning rates."""

    name: str = Field(description="Name in the catalogue.")
    boundary: str = Field(
        description="First part that trains: 'all', 'last_stage', 'head', a stage, or a module "
        "path inside one. Everything before it is frozen. With phases, that of the last one."
    )
    initialisation: Initialisation = Field(description="Initial weights: pretrained or random.")
    learning_rate_scale: float = Field(gt=0, description="Head's rate / the optimizer's base rate.")
    backbone_scale: float = Field(
        gt=0, le=1, description="Learning rate of the last trained stage / that of the head."
    )
    stage_decay: float = Field(
        default=1.0, gt=0, le=1, description="Learning rate of a stage / that of the next stage."
    )
    phases: tuple[PolicyPhase, ...] | Literal["by_stage"] = Field(
        default=(),
        description="Phases in order, see ``bench.network.phases``; by_stage: the head, then one "
        "more stage in each epoch. Empty: the same in all epochs.",
    )

    @property
    def digest(self) -> str:
        """12 hex digits of the hash of the policy, whose name alone does not say its rates."""
        return _digest_of(self)


@lru_cache
def _digest_of(policy: Policy) -> str:
    return short_hash(policy.model_dump(mode="json"))


class Recipe(WithoutDefaults):
    """The hyperparameters of a training, the same in every framework."""

    head: Annotated[
        str,
        RecipeOption(
            default="linear", help="original, linear, dense:512,256 or flatten+dense:290."
        ),
    ] = Field(description="Head: original, linear, dense:N,… or flatten+dense:N,…")
    px: Annotated[
        int, RecipeOption(default=96, always_shown=True, limits={"ge": 16, "le": 2048})
    ] = Field(gt=0, le=65_536, description="Height and width of the input, in pixels.")
    epochs: Annotated[
        int, RecipeOption(default=10, always_shown=True, help="Passes over the training images.")
    ] = Field(gt=0, le=1_000_000, description="Passes over the training split.")
    batch_size: Annotated[
        int, RecipeOption(default=32, heading="batch", help="Images in a training step.")
    ] = Field(
        gt=0,
        le=1_000_000,
        description="Images in a step; the last step of an epoch may hold fewer.",
    )
    precision: Annotated[
        Precision,
        RecipeOption(
            default="fp32", is_list=True, shown_if_unusual=True, help="fp32, tf32, bf16, fp16."
        ),
    ] = Field(
        description="fp32 (IEEE), tf32 (float32 whose products round their factors to TF32), or "
        "mixed bf16 or fp16; fp64 for proofs."
    )
    compile: Annotated[
        CompileMode,
        RecipeOption(
            is_list=True,
            shown_if_unusual=True,
            help="plain, compiled (torch.compile; XLA for Keras on TensorFlow).",
        ),
    ] = Field(
        default="plain",
        description="plain: the steps run as written. compiled: through the framework's compiler. "
        "JAX always compiles.",
    )
    optimizer: Annotated[OptimizerName, RecipeOption(default="adamw", help="sgd, adamw.")] = Field(
        description="sgd (momentum as in torch.optim.SGD) or adamw."
    )
    learning_rate: Annotated[
        float,
        RecipeOption(
            flag="--learning-rates",
            is_list=True,
            competes=True,
            help="Learning rates such as 0.001,0.01, taken as they are for every policy.",
        ),
    ] = Field(ge=1e-30, le=1e30, description="Peak rate of the head, the policy's factor included.")
    momentum: Annotated[float, RecipeOption(default=0.9)] = Field(
        ge=0, lt=1, description="Momentum of sgd; adamw has betas 0.9 and 0.999."
    )
    weight_decay: Annotated[
        float,
        RecipeOption(
            flag="--weight-decays",
            default=1e-4,
            is_list=True,
            competes=True,
            help="Such as 0,0.0001.",
        ),
    ] = Field(
        ge=0,
        le=1e6,
        description="Weight decay of kernels only; coupled for sgd, decoupled for adamw.",
    )
    schedule: Annotated[ScheduleName, RecipeOption(default="cosine", help="cosine, constant.")] = (
        Field(description="Learning rate over the steps: cosine or constant.")
    )
    warmup_fraction: Annotated[
        float, RecipeOption(flag="--warmup", heading="warm-up", default=0.1)
    ] = Field(
        ge=0, lt=1, description="Fraction of the steps in which the learning rate rises linearly."
    )
    augmentation: Annotated[
        AugmentationName, RecipeOption(default="none", help="none, crop, crop_flip.")
    ] = Field(description="Random crops and mirroring, equal in every framework.")
    views: Annotated[int | None, RecipeOption()] = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Augmented views of each image that epochs repeat; default: always new ones.",
    )
    prefix_cache: Annotated[PrefixCache, RecipeOption(competes=True)] = Field(
        default="auto",
        description="auto: compute the frozen part once, where pixels repeat. off: in every step.",
    )
    learning_rate_grid: tuple[float, ...] = Field(
        default=(),
        description="Peak rates among which validation chooses instead of learning_rate; empty: "
        "learning_rate is used.",
    )
    sweep: bool = Field(
        default=False,
        description="True if trained at once with runs that differ only in learning rate, weight "
        "decay or seed, so that no speed is the run's own.",
    )


RECIPE_OPTIONS = declared_options(Recipe)
"""Recipe field → its option, of the fields that users can choose."""


LATER = ("code_sha256", "network_digest")
"""Fields of a spec that were added later."""


@lru_cache(maxsize=4096)
def _canonical_part(part: Frozen) -> str:
    return canonical_json(part.model_dump(mode="json"))


class RunSpec(Frozen):
    """A run, by everything that decides its result apart from the environment."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this format.")
    case: Case = Field(description="The data set and its case.")
    backbone: str = Field(description="Name of the network, without folders of this machine.")
    code_sha256: str | None = Field(
        default=None, description="SHA-256 of the source files of a user's own network; else null."
    )
    network_digest: str | None = Field(
        default=None,
        description="12 hex digits of the hash of the network's constructor and stages; null in "
        "results of earlier versions.",
    )
    weights: WeightsRef = Field(description="Weights that the backbone starts from.")
    policy: Policy = Field(description="Part of the network that trains.")
    recipe: Recipe = Field(description="Hyperparameters of the training.")
    mode: Mode = Field(
        default="matched",
        description="matched: the same arithmetic in all backends; native: as a user of the "
        "framework would write it.",
    )
    backend: str = Field(description="Framework, and engine of Keras.")
    device: str = Field(description="cpu or cuda:N.")
    seed: int = Field(
        ge=0, lt=2**63, description="Seed of head, random weights, order, augmentation, dropout."
    )

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields added later where they are null, so that ids of other runs stay."""
        fields: dict[str, Any] = handler(self)
        return {k: v for k, v in fields.items() if k not in LATER or v is not None}

    def without_definitions(self) -> RunSpec:
        """Return the spec as earlier versions recorded it, without digests of definitions."""
        weights = self.weights.model_copy(update={"reading_digest": None})
        return self.model_copy(update={"network_digest": None, "weights": weights})

    @property
    def run_id(self) -> str:
        """Readable words, and 8 hex digits of the hash of the spec."""
        words = (
            f"case{self.case.number}" if self.case.number else "",
            self.case.dataset.name,
            self.backbone,
            self.policy.name,
            self.mode if self.mode != "matched" else "",
            self.backend,
            f"s{self.seed}",
        )
        slug = re.sub(r"[^A-Za-z0-9]+", "-", "_".join(w for w in words if w)).strip("-").lower()
        return f"{slug[:80]}-{self._digest[:8]}"

    @property
    def _digest(self) -> str:
        """``canonical_hash`` of the JSON, from the texts of parts that thousands of runs share."""
        texts = {
            name: _canonical_part(value) if isinstance(value, Frozen) else canonical_json(value)
            for name, value in self
            if name not in LATER or value is not None
        }
        inside = ",".join(f'"{name}":{texts[name]}' for name in sorted(texts))
        return hashlib.sha256(f"{{{inside}}}".encode()).hexdigest()


class Environment(WithoutDefaults):
    """Everything besides the spec that can change a number."""

    backend: str = Field(description="Id of the backend.")
    python: str = Field(description="Python version of the worker.")
    packages: FrozenMapping[str] = Field(description="Versions of framework, libraries and NumPy.")
    thawbench: str = Field(
        description="Digests of Thawbench's shared code and of the adapter, as 'SHARED.ADAPTER'; "
        "in earlier results a version with one digest of all code."
    )
    system: str = Field(description="Operating system and machine architecture.")
    processor: str = Field(description="CPU model.")
    cores: int = Field(ge=0, lt=2**31, description="Number of cores that the process may use.")
    device: str = Field(description="cpu or cuda:N.")
    device_model: str = Field(description="GPU model; on a CPU, the CPU model.")
    driver: str | None = Field(description="GPU driver version; null on a CPU.")
    device_settings: FrozenMapping[str] = Field(
        default_factory=dict,
        validate_default=True,
        description="Settings of a GPU that change its speed or memory: power limit, error "
        "correction, slices (MIG), memory, cuDNN outside of packages.",
    )
    variables: FrozenMapping[str] = Field(
        description="Environment variables that frameworks read: threads, TF32, XLA, oneDNN."
    )

    @property
    def shared_code(self) -> str:
        """Digest of the shared code; all of ``thawbench`` in results of earlier versions."""
        return self.thawbench if "+" in self.thawbench else self.thawbench.partition(".")[0]

    @property
    def environment_id(self) -> str:
        """First 12 hex digits of the hash of the environment."""
        return short_hash(self.model_dump(mode="json"))
