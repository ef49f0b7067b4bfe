"""What a worker process can be asked to do: a typed model for each task and for its answer.

Tasks and answers travel as lines of JSON. Packed data and Blueprints are named by their key, the
name of their folder in the cache, so that a worker looks for them in the cache of its own machine
(``THAWBENCH_CACHE``).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter

from bench.spec.backbone import BackboneEntry, Reader
from bench.spec.base import Frozen
from bench.spec.preprocessing import Preprocessing
from bench.spec.result import RunResult
from bench.spec.run import Environment, Policy, Recipe, RunSpec

STARTED_VARIABLE = "THAWBENCH_WORKER_STARTED"
"""Environment variable of a worker: when it was started, in seconds since the epoch."""

Answer = TypeVar("Answer")


class Task(Frozen, Generic[Answer]):
    """Something that a worker does; every subclass names its ``answer_type``."""

    answer_type: ClassVar[type[BaseModel]]
    log: str | None = Field(
        default=None, description="File that output goes to from now on; null: as before."
    )


class Nothing(Frozen):
    """The answer of a task that leaves its result in the cache."""


class EnvironmentAnswer(Frozen):
    """The environment of runs in this worker."""

    environment: Environment


class EnvironmentTask(Task[EnvironmentAnswer]):
    """Describe the environment of the machine and interpreter that would run; no framework is
    imported."""

    answer_type: ClassVar[type[BaseModel]] = EnvironmentAnswer
    task: Literal["environment"] = "environment"
    device: str = Field(description="cpu or cuda:N.")
    packages: tuple[str, ...] = Field(
        description="Distributions whose version can change a number."
    )
    variables: tuple[str, ...] = Field(
        default=(), description="Environment variables that count beside those of all backends."
    )


class DevicesAnswer(Frozen):
    """The devices that a framework sees."""

    devices: tuple[str, ...] = Field(description="'cpu' and 'cuda:N'.")


class DevicesTask(Task[DevicesAnswer]):
    """List the devices that the framework sees."""

    answer_type: ClassVar[type[BaseModel]] = DevicesAnswer
    task: Literal["devices"] = "devices"


class ModelsAnswer(Frozen):
    """The networks that a library lists."""

    models: tuple[str, ...]


class ModelsTask(Task[ModelsAnswer]):
    """List torchvision's classification networks."""

    answer_type: ClassVar[type[BaseModel]] = ModelsAnswer
    task: Literal["models"] = "models"


class DescribeAnswer(Frozen):
    """Entries of backbones, in the order in which they were asked for."""

    entries: tuple[BackboneEntry, ...]


class DescribeTask(Task[DescribeAnswer]):
    """Describe backbones that have no catalogue entry."""

    answer_type: ClassVar[type[BaseModel]] = DescribeAnswer
    task: Literal["describe"] = "describe"
    backbones: tuple[str, ...]


class ExportTask(Task[Nothing]):
    """Export a backbone as a Blueprint with tensors into the cache."""

    answer_type: ClassVar[type[BaseModel]] = Nothing
    task: Literal["export"] = "export"
    key: str = Field(description="Name of the Blueprint's folder in the cache.")
    backbone: str = Field(description="Its name, without folders of this machine.")
    entry: BackboneEntry
    px: int = Field(description="Height and width of the input, in pixels.")
    path: str | None = Field(description="Weights file; null for random weights.")
    reader: Reader = Field(description="How names in the file become names in the network.")
    preprocessing: Preprocessing
    seed: int | None = Field(description="Seed of random weights; null for weights from a file.")
    calibrated: bool = Field(description="Give BatchNorm the statistics of real activations.")


class ArchitectureItem(Frozen):
    """A backbone to export without tensors."""

    key: str = Field(description="Name of the Blueprint's folder in the cache.")
    backbone: str
    entry: BackboneEntry
    px: int


class ArchitecturesTask(Task[Nothing]):
    """Export backbones without tensors into the cache."""

    answer_type: ClassVar[type[BaseModel]] = Nothing
    task: Literal["architectures"] = "architectures"
    items: tuple[ArchitectureItem, ...]


class ParameterCounts(Frozen):
    """Parameters of a network, read from the framework's own objects."""

    total_parameters: int = Field(description="All parameters, BatchNorm statistics excluded.")
    trainable_parameters: int = Field(description="Parameters that get gradients.")
    state_values: int = Field(description="BatchNorm moving statistics.")


class CountAnswer(Frozen):
    """Counts of networks, in the order in which they were asked for."""

    counts: tuple[ParameterCounts, ...]


class CountTask(Task[CountAnswer]):
    """Build networks and count their parameters as the framework sees them."""

    answer_type: ClassVar[type[BaseModel]] = CountAnswer
    task: Literal["count"] = "count"
    architectures: tuple[str, ...] = Field(description="Keys of Blueprints without tensors.")
    policy: Policy
    recipe: Recipe
    classes: int = Field(description="Outputs of the head.")
    device: str


ProofPart = Literal["forward", "gradients", "steps"]


class ProbeItem(Frozen):
    """What one worker measures of one network under one policy and optimizer."""

    key: str = Field(description="Unique in a proof; names the folder of the files.")
    blueprint: str = Field(description="Key of the Blueprint, or its folder.")
    policy: Policy = Field(description="What trains.")
    recipe: Recipe = Field(description="How; the search begins at its learning_rate.")
    parts: tuple[ProofPart, ...] = Field(description="What to measure.")
    perturbations: int = Field(
        ge=0, description="Number of perturbed repetitions whose worst is the noise floor; 0: none."
    )
    learning_rate: float | None = Field(
        default=None, description="Found by the side that measures floors; null: search for it."
    )


class ProveAnswer(Frozen):
    """Learning rates that proofs used, by the key of their item."""

    learning_rates: dict[str, float | None]


class ProveTask(Task[ProveAnswer]):
    """Measure this backend for proofs; leaves files in a folder for each item."""

    answer_type: ClassVar[type[BaseModel]] = ProveAnswer
    task: Literal["prove"] = "prove"
    items: tuple[ProbeItem, ...]
    data: str = Field(description="File with the images.")
    out: str = Field(description="Folder to write into.")
    device: str
    floors: bool = Field(description="Also measure the noise floors.")


class SelfCheckAnswer(Frozen):
    """What was measured on a small network of convolutions."""

    queued_s: float = Field(description="First call of the steps to return of the last, no wait.")
    synchronised_s: float = Field(description="The same, until the device's synchronise returns.")
    fetched_s: float = Field(
        description="The same, until the last loss is on the host, which cannot be early."
    )
    flop_per_s: float = Field(description="Floating-point operations over the synchronised time.")
    peak_flop_per_s: float = Field(description="Rate of a large matrix product.")
    peak_device_bytes: int | None = Field(description="As accounted by the framework.")
    parameter_bytes: int = Field(description="Least memory that the network needs.")


class SelfCheckTask(Task[SelfCheckAnswer]):
    """Measure whether figures from a device can be believed."""

    answer_type: ClassVar[type[BaseModel]] = SelfCheckAnswer
    task: Literal["selfcheck"] = "selfcheck"
    device: str


class SpeedAnswer(Frozen):
    """Durations of a speed case, each of one round, in the order in which they were taken."""

    train_step_s: tuple[float, ...] = Field(
        description="Steps on one batch that lies on the device already."
    )
    train_epoch_s: tuple[float, ...] = Field(
        description="Epochs end to end, from making batches until the last loss is on the host."
    )
    inference_s: tuple[float, ...] = Field(
        description="A batch of images, from the host until its logits are back."
    )
    images: dict[str, int] = Field(
        description="'train_step', 'train_epoch' and 'inference' → images in a round."
    )
    setup_s: float = Field(description="Building the network.")
    compile_s: float = Field(description="First training step − the median one.")
    peak_host_bytes: int | None = Field(description="Of the worker, since the case began.")
    peak_device_bytes: int | None = Field(description="On a GPU.")
    knobs: dict[str, Any] = Field(description="Settings in force, read back afterwards.")


class SpeedTask(Task[SpeedAnswer]):
    """Time training and inference of a network on noise."""

    answer_type: ClassVar[type[BaseModel]] = SpeedAnswer
    task: Literal["speed"] = "speed"
    blueprint: str = Field(description="Key of the Blueprint.")
    policy: Policy
    recipe: Recipe
    classes: int
    device: str
    rounds: int = Field(description="Timed steps, and timed inferences.")
    epochs: int = Field(description="Timed epochs.")
    epoch_steps: int = Field(description="Steps of an epoch.")


class NativeNetwork(Frozen):
    """What a worker needs to build a framework's own network."""

    entry: BackboneEntry
    random: bool = Field(description="True for random weights.")
    weights: str | None = Field(description="File with the framework's own weights.")
    reader: Reader
    preprocessing: Preprocessing = Field(
        description="Belongs to the file; used where the network brings none of its own."
    )


class NativeKnobsAnswer(Frozen):
    """Settings that are a framework's own in native mode, by name."""

    knobs: dict[str, Any]


class NativeKnobsTask(Task[NativeKnobsAnswer]):
    """Build a native network and read the settings that are its framework's own."""

    answer_type: ClassVar[type[BaseModel]] = NativeKnobsAnswer
    task: Literal["native_knobs"] = "native_knobs"
    backbone: str
    native: NativeNetwork
    policy: Policy
    recipe: Recipe
    classes: int
    device: str


class RunAnswer(Frozen):
    """Results of the runs of a task, in its order."""

    results: tuple[RunResult, ...]


class RunTask(Task[RunAnswer]):
    """Do one run, or all runs of a sweep at once; writes ``predictions.npz`` for each."""

    answer_type: ClassVar[type[BaseModel]] = RunAnswer
    task: Literal["run"] = "run"
    specs: tuple[RunSpec, ...] = Field(min_length=1, description="One, unless it is a sweep.")
    environment_id: str
    packed: str = Field(description="Key of the packed images.")
    blueprint: str | None = Field(default=None, description="Key of the Blueprint; matched mode.")
    native: NativeNetwork | None = Field(default=None, description="The network of native mode.")
    folders: tuple[str, ...] = Field(description="Folder of each run's files.")


AnyTask = Annotated[
    EnvironmentTask
    | DevicesTask
    | ModelsTask
    | DescribeTask
    | ExportTask
    | ArchitecturesTask
    | CountTask
    | ProveTask
    | SelfCheckTask
    | SpeedTask
    | NativeKnobsTask
    | RunTask,
    Field(discriminator="task"),
]
TASK: TypeAdapter[AnyTask] = TypeAdapter(AnyTask)
"""Reads any task from JSON."""
