"""The tasks of worker processes: a typed model for each task and for its answer.

Tasks and answers travel as lines of JSON. Packed data and Blueprints are named by their key, the
name of their folder in the cache, so that a worker looks for them in the cache of its own machine
(``THAWBENCH_CACHE``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter

from bench.spec.backbone import BackboneEntry, Reader
from bench.spec.base import Frozen
from bench.spec.preprocessing import Preprocessing
from bench.spec.result import RunResult
from bench.spec.run import Environment, Policy, Recipe, RunSpec
from bench.system.machine_state import MachineState, disturbance

STARTED_VARIABLE = "THAWBENCH_WORKER_STARTED"
"""Environment variable of a worker: its start time, in seconds since the epoch."""
NOT_INSTALLED = "not_installed"
"""Kind of failure: the framework, or a package that it needs, cannot be imported."""

Answer = TypeVar("Answer")


class Task(Frozen, Generic[Answer]):
    """Something that a worker can do; a subclass names the model of its answer in ``Task[…]``."""

    log: str | None = Field(default=None, description="File for output from now on; null: as is.")

    @classmethod
    def answer_type(cls) -> type[BaseModel]:
        """Return the model of the answer."""
        task: Any = cls.__bases__[0]
        answer: type[BaseModel] = task.__pydantic_generic_metadata__["args"][0]
        return answer


class Nothing(Frozen):
    """The answer of a task that leaves its result in the cache."""


class EnvironmentAnswer(Frozen):
    environment: Environment


class EnvironmentTask(Task[EnvironmentAnswer]):
    """Describe the environment of runs in this worker, without importing a framework."""

    task: Literal["environment"] = "environment"
    device: str = Field(description="cpu or cuda:N.")
    packages: tuple[str, ...] = Field(description="Distributions whose version counts.")
    variables: tuple[str, ...] = Field(default=(), description="Variables that count here alone.")


class DevicesAnswer(Frozen):
    devices: tuple[str, ...] = Field(description="'cpu' and 'cuda:N'.")
    blind_because: str | None = Field(
        default=None, description="Why the framework sees no GPU, where it tells; else null."
    )


class DevicesTask(Task[DevicesAnswer]):
    """List the devices that the framework sees."""

    task: Literal["devices"] = "devices"


class ModelsAnswer(Frozen):
    models: tuple[str, ...]


class ModelsTask(Task[ModelsAnswer]):
    """List torchvision's classification networks."""

    task: Literal["models"] = "models"


class DescribeAnswer(Frozen):
    """Entries of backbones, in the order of the task."""

    entries: tuple[BackboneEntry, ...]


class DescribeTask(Task[DescribeAnswer]):
    """Describe backbones that have no catalogue entry."""

    task: Literal["describe"] = "describe"
    backbones: tuple[str, ...]


class ExportTask(Task[Nothing]):
    """Export a backbone as a Blueprint with tensors into the cache."""

    task: Literal["export"] = "export"
    key: str = Field(description="Name of the Blueprint's folder in the cache.")
    backbone: str
    entry: BackboneEntry
    px: int = Field(description="Height and width of the input, in pixels.")
    path: str | None = Field(description="Weights file; null for random weights.")
    reader: Reader = Field(description="Mapping from names in the file to names in the network.")
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

    task: Literal["architectures"] = "architectures"
    items: tuple[ArchitectureItem, ...]


class ParameterCounts(Frozen):
    """Parameters of a network, read from the framework's own objects."""

    total_parameters: int = Field(description="All parameters, BatchNorm statistics excluded.")
    trainable_parameters: int = Field(description="Parameters that get gradients.")
    state_values: int = Field(description="BatchNorm moving statistics.")


class CountAnswer(Frozen):
    """Counts of networks, in the order of the task."""

    counts: tuple[ParameterCounts, ...]


class CountTask(Task[CountAnswer]):
    """Build networks and count their parameters as the framework sees them."""

    task: Literal["count"] = "count"
    architectures: tuple[str, ...] = Field(description="Keys of Blueprints without tensors.")
    policy: Policy
    recipe: Recipe
    classes: int = Field(description="Outputs of the head.")
    device: str


ProofPart = Literal["forward", "gradients", "steps"]


class ProbeItem(Frozen):
    """A network, policy and optimizer that a worker measures for a proof."""

    key: str = Field(description="Unique in a proof; names the folder of the files.")
    blueprint: str = Field(description="Key of the Blueprint in the cache.")
    policy: Policy = Field(description="What trains.")
    recipe: Recipe = Field(description="How; the search begins at its learning_rate.")
    parts: tuple[ProofPart, ...] = Field(description="What to measure.")
    perturbations: int = Field(ge=0, description="Perturbed repetitions for the noise floor.")
    learning_rate: float | None = Field(default=None, description="Learning rate; null: search.")


class ProveAnswer(Frozen):
    """Learning rates that were used, by the key of the item."""

    learning_rates: dict[str, float | None]


class ProveTask(Task[ProveAnswer]):
    """Measure this backend for proofs; write the files of each item into a folder of its key."""

    task: Literal["prove"] = "prove"
    items: tuple[ProbeItem, ...]
    data: str = Field(description="File with the images.")
    out: str = Field(description="Folder to write into.")
    device: str
    floors: bool = Field(description="Also measure the noise floors.")


class SelfCheckAnswer(Frozen):
    """Measurements of training steps of a small convolutional network."""

    queued_s: float = Field(description="Time of the calls of all steps, without waiting.")
    synchronised_s: float = Field(description="The same, until the device is synchronised.")
    fetched_s: float = Field(description="The same, until the last loss is on the host.")
    flop_per_s: float = Field(description="Floating-point operations / synchronised_s.")
    peak_flop_per_s: float = Field(description="Rate of a large matrix product.")
    peak_device_bytes: int | None = Field(description="Peak memory as the framework reports it.")
    parameter_bytes: int = Field(description="Size of the parameters: the least peak possible.")
    stretch_s: float = Field(description="As synchronised_s, of the steps of events_s.")
    fp32_error: float = Field(description="Relative error of logits in fp32 against float64.")
    events_s: float | None = Field(
        default=None, description="As stretch_s, on the GPU's own clock; null: it has none."
    )
    recognises_full_memory: bool | None = Field(
        default=None, description="True if a matrix that fits nowhere ends as oom; null on a CPU."
    )


class SelfCheckTask(Task[SelfCheckAnswer]):
    """Measure training steps in several ways, to check timing and memory on a device."""

    task: Literal["selfcheck"] = "selfcheck"
    device: str


SpeedMeasure = Literal["train_step", "train_epoch", "inference"]


class SpeedWindow(Frozen):
    """A timed stretch of work, with the state of the machine around it."""

    measure: SpeedMeasure
    seconds: float = Field(
        gt=0, description="Time of one step, one epoch or one batch of inference."
    )
    before: MachineState
    after: MachineState

    @property
    def disturbed_by(self) -> str | None:
        """Reason why the window is marked as disturbed, see ``bench.system.machine_state``; None if
        it is not."""
        return disturbance(self.before, self.after)


class SpeedAnswer(Frozen):
    """Windows of a speed case in order, and what no window shows."""

    windows: tuple[SpeedWindow, ...] = Field(
        description="Training steps on a batch that lies on the device (the mean of a stretch that "
        "was queued one step after the other and waited for once), epochs end to end (from making "
        "batches until the last loss is on the host), and inference of a batch (from images on the "
        "host until its logits are back; the mean of several)."
    )
    images: dict[SpeedMeasure, int] = Field(description="'train_step' … → images in its seconds.")
    waited_step_s: tuple[float, ...] = Field(
        default=(), description="Training steps, each waited for; empty where not asked for."
    )
    queue_s: float | None = Field(
        default=None,
        description="Time in which the host queues a step; null where the framework waits for it.",
    )
    device_step_s: tuple[float, ...] = Field(
        default=(), description="Steps on the GPU's own clock; empty where there is none."
    )
    phases_s: dict[str, float] = Field(
        default={},
        description="'forward', 'backward', 'optimizer' → median seconds of a step that is waited "
        "for after each; empty where the framework compiles the step as a whole.",
    )
    parts_s: dict[str, tuple[float, ...]] = Field(
        default={},
        description="Part of a step ('input', 'copies', 'forward', 'backward', 'optimizer', or "
        "'step' where it is one program) → seconds in each round of turns; empty where not asked.",
    )
    operations_s: dict[str, float] = Field(
        default={},
        description="Operation → seconds of its own in a step, by the framework's profiler.",
    )
    setup_s: float = Field(description="Time to build the network.")
    compile_s: float = Field(description="First training step − the median one.")
    peak_host_bytes: int | None = Field(description="Peak memory of the worker during the case.")
    peak_device_bytes: int | None = Field(
        default=None, description="Peak GPU memory after the first steps; null on a CPU."
    )
    warmup_device_bytes: int | None = Field(
        default=None, description="Peak GPU memory of the first steps."
    )
    reserved_device_bytes: int | None = Field(
        default=None, description="Most GPU memory that was taken; null where it is not told."
    )
    knobs: dict[str, Any] = Field(
        default={}, description="Settings in force, read back afterwards."
    )

    def seconds(self, measure: SpeedMeasure) -> list[float]:
        """Return the seconds of all windows of a measure, in order."""
        return [window.seconds for window in self.windows if window.measure == measure]


class SpeedTask(Task[SpeedAnswer]):
    """Time training and inference of a network on noise."""

    task: Literal["speed"] = "speed"
    blueprint: str = Field(description="Key of the Blueprint.")
    policy: Policy
    recipe: Recipe
    classes: int
    device: str
    measures: tuple[SpeedMeasure, ...] = Field(
        default=("train_step", "train_epoch", "inference"),
        description="What to time; training steps always.",
    )
    rounds: int = Field(description="Steps, and batches of inference, in a stretch.")
    stretches: int = Field(default=5, description="Windows of steps, and of inference.")
    epochs: int = Field(description="Number of timed epochs.")
    epoch_steps: int = Field(description="Steps in an epoch.")
    details: bool = Field(default=True, description="Also time single steps and their parts.")
    turns: bool = Field(default=False, description="Wait for a turn before each window.")
    parts: int = Field(default=0, description="Rounds in which to time the parts of a step.")
    gpu_uuid: str | None = Field(default=None, description="UUID of the GPU; null on a CPU.")


class OwnStepTask(Task[SpeedAnswer]):
    """Time a user's own training step."""

    task: Literal["own_step"] = "own_step"
    file: str = Field(description="Python file.")
    function: str = Field(description="Function in it that makes the step.")
    device: str
    rounds: int = Field(description="Steps in a stretch.")
    stretches: int = Field(description="Number of windows.")
    turns: bool = Field(default=False, description="Wait for a turn before each window.")
    gpu_uuid: str | None = Field(default=None, description="UUID of the GPU; null on a CPU.")


class LaunchConditions(Frozen):
    """Circumstances of a process that can change its speed, besides its software."""

    cpus: tuple[int, ...] = Field(description="Numbers of the cores that it may use.")
    nice: int = Field(description="Niceness: higher means that others go first.")
    cpu_quota: float | None = Field(description="Cores that its container may use; null: no limit.")
    memory_bytes: int = Field(description="Memory of the machine or container.")
    huge_pages: str | None = Field(description="Kernel's policy for large pages; null: not told.")
    allocator: dict[str, str] = Field(description="Variables that the C library's loader reads.")
    variables: dict[str, str] = Field(description="Variables that frameworks read.")


class LaunchConditionsTask(Task[LaunchConditions]):
    """Describe the circumstances of this process."""

    task: Literal["conditions"] = "conditions"


class Software(Frozen):
    """Software of a process, and the machine on which it runs."""

    python: str = Field(description="Version of Python.")
    distributions: dict[str, str] = Field(description="Installed distributions → version.")
    code: str = Field(description="Digest of Thawbench's code that measures.")
    system: str = Field(description="Operating system and machine architecture.")
    kernel: str
    container: str | None = Field(description="Kind of container or image; null: none found.")
    processor: str = Field(description="CPU model.")
    device_model: str = Field(description="GPU model; on a CPU, the CPU model.")
    gpu_uuid: str | None = Field(description="Identity of the card; null on a CPU.")
    driver: str | None = Field(description="GPU driver version; null on a CPU.")
    device_settings: dict[str, str] = Field(description="Settings of a GPU that change its speed.")


class SoftwareTask(Task[Software]):
    """Describe what this process runs."""

    task: Literal["software"] = "software"
    device: str = Field(description="cpu or cuda:N.")


class DepthFeaturesTask(Task[Nothing]):
    """Compute the features of images at every depth of a network into the cache."""

    task: Literal["depth_features"] = "depth_features"
    key: str = Field(description="Name of the features' folder in the cache.")
    blueprint: str = Field(description="Key of the Blueprint.")
    packed: str = Field(description="Key of the packed images; the test images are not read.")
    device: str = Field(description="cpu or cuda:N.")


class NativeNetwork(Frozen):
    """A framework's own network with its weights."""

    entry: BackboneEntry
    random: bool = Field(description="True for random weights.")
    weights: Path | None = Field(
        description="File with the framework's own weights; null for random weights, and for a "
        "user's own network as it was built."
    )
    reader: Reader
    preprocessing: Preprocessing = Field(description="Used if the network brings none itself.")


class NativeRequest(Frozen):
    """The network of a framework's own library that native mode trains."""

    backbone: str
    network: NativeNetwork
    classes: int = Field(description="Outputs of the head.")
    policy: Policy
    recipe: Recipe
    device: str = Field(description="cpu or cuda:N.")
    seed: int = Field(
        description="Seed of random weights, head and dropout, each drawn by the framework's own "
        "generator."
    )


class NativeKnobsAnswer(Frozen):
    """Settings that each framework chooses itself in native mode, by name."""

    knobs: dict[str, Any]


class NativeKnobsTask(Task[NativeKnobsAnswer]):
    """Build a native network and read the settings that its framework chose."""

    task: Literal["native_knobs"] = "native_knobs"
    request: NativeRequest


class RunAnswer(Frozen):
    """Results of runs, in the order of the task."""

    results: tuple[RunResult, ...]


class RunTask(Task[RunAnswer]):
    """Do one run, or all runs of a sweep at once; write ``predictions.npz`` for each."""

    task: Literal["run"] = "run"
    specs: tuple[RunSpec, ...] = Field(min_length=1, description="A run, or those of a sweep.")
    environment_id: str
    packed: str = Field(description="Key of the packed images.")
    blueprint: str | None = Field(default=None, description="Key of the Blueprint, if matched.")
    native: NativeNetwork | None = Field(default=None, description="The network, if native.")
    folders: tuple[str, ...] = Field(description="Folder for each run's files.")


AnyTask = Annotated[
    EnvironmentTask | DevicesTask | ModelsTask | DescribeTask | ExportTask | ArchitecturesTask
    | CountTask | ProveTask | SelfCheckTask | SpeedTask | OwnStepTask | LaunchConditionsTask
    | SoftwareTask | DepthFeaturesTask | NativeKnobsTask | RunTask,
    Field(discriminator="task"),
]  # fmt: skip
TASK: TypeAdapter[AnyTask] = TypeAdapter(AnyTask)
"""Parser of any task from JSON."""
