"""The result of a run (docs/design.md, Nouns)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from bench.spec.base import SCHEMA_VERSION, Frozen, FrozenMapping
from bench.spec.run import Status

LEAST, MOST = 1e-15, 1e24
"""Range of all rates and times that can be measured. Sums and quotients of such values are finite,
which those of numbers in a foreign file need not be."""
COUNT = 2**63
"""Upper limit of whole numbers: a pandas table cannot hold larger ones."""


def _measurable(value: float) -> float:
    if not (value == 0.0 or LEAST <= value <= MOST):
        raise ValueError(f"{value:g} is not a time or rate that can be measured")
    return value


Measured = Annotated[float, AfterValidator(_measurable)]
"""0, or a value that can be measured."""
Loss = Annotated[float, Field(ge=-MOST, le=1e300)]
"""A loss; huge shortly before a training diverges, but sums of losses are finite."""
Logit = Annotated[float, Field(ge=-1e300, le=1e300)]
RelativeDifference = Annotated[float, Field(ge=0, le=1e300)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=COUNT)]
Window = Annotated[float, Field(ge=LEAST, le=MOST)]
"""A rate of a window, greater than 0."""


def _reported(description: str, **constraints: Any) -> Any:
    """Declare a field that a report repeats in the run's row; null by default."""
    constraints["json_schema_extra"] = {"reported": True}
    return Field(default=None, description=description, **constraints)


OLD_UNREADABLE_NOTE = re.compile(r"(\d{1,18}) unreadable images were left out")
"""Note of earlier versions in place of ``unreadable_images``."""


class Failure(Frozen):
    """The reason why a run is not ``ok``."""

    kind: str = Field(description="One word: name of the exception, or what was missing.")
    message: str = Field(description="A sentence for people.")


class Trial(Frozen):
    """A learning rate that was tried, with its validation result."""

    learning_rate: float = Field(gt=0, description="Peak rate of the head.")
    val_top1: Share | None = Field(
        default=None, description="Validation accuracy after the last epoch; null if it diverged."
    )
    val_loss: Loss | None = Field(default=None, description="Mean validation cross-entropy.")


class PhaseResult(Frozen):
    """The result of one phase, of a run of several. Rates are those of its own steps."""

    boundary: str = Field(description="First part that trains, see the policy's boundary.")
    epochs: Count = Field(description="Epochs trained; fewer than planned if the run diverged.")
    trainable_parameters: Count = Field(description="Trained parameters, as the backend counts.")
    frozen_state_sha256: str = Field(
        description="Hash of the frozen tensors, the same before and after the phase."
    )
    prefix_values: Literal["computed", "reused"] | None = Field(
        description="As prefix_values of the run, for this phase."
    )
    prefix_s: Measured | None = Field(description="As prefix_s of the run, for this phase.")
    prefix_form: str | None = Field(default=None, description="As prefix_form of the run.")
    train_images_per_s: Measured | None = Field(
        description="As train_images_per_s of a run, for the steps of this phase."
    )
    effective_images_per_s: Measured | None = Field(
        description="As effective_images_per_s of a run, for this phase."
    )
    setup_s: Annotated[float, Field(ge=-MOST, le=MOST)] | None = Field(
        description="Time to build the network from the tensors of the phase before; null for the "
        "first phase, whose set-up is the run's."
    )
    fit_s: Measured = Field(description="Share of the run's fit_s, with setup_s and prefix_s.")
    notes: tuple[str, ...] = Field(default=(), description="Remarks that a reader must know.")


class ImageAnswers(Frozen):
    """The test images that were classified correctly.

    It repeats a part of ``predictions.npz``, as opening thousands of archives takes long.
    """

    images: int = Field(
        ge=1, lt=COUNT, description="Number of test images; their order is the split's."
    )
    labels_sha256: str = Field(
        description="Hash of the true classes (int64); equal for equal images."
    )
    right_bits: str = Field(
        description="Base64 of one bit for each image (1: correct), highest bit of each byte first."
    )
    groups: str | None = Field(
        default=None,
        description="Base64 of zlib of the number of each image's group (little-endian int32), "
        "where images belong together, such as crops of one photograph; null: they do not.",
    )


class Fingerprint(Frozen):
    """Numbers of a run's first two steps, in which backends that compute the same agree."""

    step_losses: tuple[Loss | None, ...] = Field(
        default=(), max_length=2, description="Losses of the first two steps, as trained."
    )
    repeated_losses: tuple[Loss | None, ...] = Field(
        default=(),
        max_length=2,
        description="Losses of the same steps, repeated from the run's start after its end; empty "
        "for a sweep, and for a policy with phases.",
    )
    logits_after_step: tuple[Logit | None, ...] = Field(
        default=(),
        max_length=64,
        description="Logits in inference, after the first step, of the first validation images.",
    )
    noise: tuple[RelativeDifference | None, ...] = Field(
        default=(),
        max_length=3,
        description="Relative changes of both losses and of these logits when every number of the "
        "start is moved by one last bit: what rounding alone does in this run.",
    )
    cached_difference: RelativeDifference | None = Field(
        default=None,
        description="Largest difference between logits from cached values of the frozen part and "
        "from images, over the largest logit; null where nothing was cached.",
    )


DataOption = Annotated[
    str,
    Field(
        pattern=r"^--(skip-unreadable|drop-duplicates|test-from (val|train:\d{1,3}%)|"
        r"max-pixels \d{1,18}|folds \d{1,3}|group-by [^\x00-\x1f\x7f]{1,500})$"
    ),
]
"""An option that decides which files are used; a page prints it as a command to paste."""


class RunResult(Frozen):
    """The result of a run. Null means 'could not be measured', never a guess.

    The fields that rows of a report repeat are declared by ``_reported``, in the order of the
    columns.
    """

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this format.")
    run_id: str = Field(description="Readable words and 8 hex digits of the hash of the spec.")
    environment_id: str = Field(description="12 hex digits of the hash of the environment.")
    status: Status = Field(description="ok, or the kind of failure.")
    failure: Failure | None = Field(default=None, description="Reason; null exactly when ok.")

    test_top1: Share | None = _reported("Accuracy on the test split.")
    test_loss: Loss | None = _reported("Mean cross-entropy on the test split.")
    test_balanced_accuracy: Share | None = _reported("Mean recall over the classes, on test.")
    test_macro_f1: Share | None = _reported("Mean F1 score over the classes, on test.")
    test_calibration_error: Share | None = _reported(
        "Expected calibration error on test: mean distance of confidence and accuracy over 15 bins "
        "of confidence, weighted by their images (Guo et al. 2017)."
    )
    test_answers: ImageAnswers | None = Field(
        default=None,
        description="Correctly classified test images; null where there are no predictions.",
    )
    val_top1_by_epoch: tuple[Share | None, ...] = Field(
        default=(), description="Validation accuracy after each epoch."
    )
    train_loss_by_epoch: tuple[Loss | None, ...] = Field(
        default=(), description="Mean training loss of the images of each epoch."
    )

    train_images_per_s: Measured | None = _reported(
        "Training throughput from end to end, waiting for input included: median synchronised "
        "window."
    )
    compute_images_per_s: Measured | None = _reported(
        "Training throughput on one batch that already lies on the device; on a GPU over steps "
        "that are queued without waiting."
    )
    effective_images_per_s: Measured | None = _reported(
        "Where the frozen part was computed once, or there are several phases: images of all "
        "epochs over the time for that and for all training steps, without compilation. Never "
        "together with train_images_per_s."
    )
    infer_images_per_s: Measured | None = _reported(
        "Inference throughput on the test split: median synchronised window."
    )
    train_images_per_s_windows: tuple[Window, ...] = Field(
        default=(), description="Training throughput in each synchronised window."
    )

    total_parameters: Count | None = _reported("Parameters of the network, counted by the backend.")
    trainable_parameters: Count | None = _reported(
        "Parameters that are trained; of several phases, in the last one."
    )
    frozen_parameters: Count | None = _reported("Parameters that are not trained.")
    state_values: Count | None = _reported("BatchNorm moving statistics.")
    forward_multiply_adds: Count | None = _reported(
        "Multiply-adds of one image's forward pass, counted from the Blueprint."
    )
    backward_multiply_adds: Count | None = _reported(
        "Multiply-adds of one image's backward pass, as far as the policy trains; of several "
        "phases, the mean over the epochs."
    )
    activation_bytes: Count | None = _reported(
        "Size of one image's float32 values that the backward pass reads; of several phases, the "
        "largest."
    )
    predicted_saving: float | None = _reported(
        "Share of a step's multiply-adds that the policy saves compared to training all; of "
        "several phases, over all steps.",
        ge=-MOST,
        le=1,
    )
    device_peak_flops_per_s: Measured | None = _reported(
        "Of a GPU: best rate of a large matrix product in the run's precision, by its framework; "
        "null where model_flop_utilisation is."
    )
    model_flop_utilisation: Measured | None = _reported(
        "On a GPU: 2 FLOP for each multiply-add of the training steps, at train_images_per_s (end "
        "to end), over device_peak_flops_per_s."
    )

    phases: tuple[PhaseResult, ...] = Field(
        default=(), description="Result of each phase, in order; empty for a policy without phases."
    )
    tuning: tuple[Trial, ...] = Field(
        default=(), description="Learning rates that validation compared."
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1e31,
        description="Learning rate that was chosen; null if there was no choice.",
    )

    fit_s: Measured | None = _reported(
        "Training and validation of all epochs, compilation included, and the set-up of all phases "
        "but the first."
    )
    test_s: Measured | None = _reported("Inference over the test split; null in a sweep.")
    start_s: Measured | None = _reported(
        "Starting the worker and importing the framework; null if the worker had done another run "
        "before."
    )
    tune_s: Measured | None = _reported("Time of all trials, not part of fit_s.")
    setup_s: Measured | None = _reported("Loading data and building the network, before step 1.")
    prefix_s: Measured | None = _reported(
        "Time to compute the values of the frozen part, in this run or the one that kept them; "
        "part of fit_s, so that a figure does not depend on the content of a cache."
    )
    prefix_values: Literal["computed", "reused"] | None = _reported(
        "computed: this run computed the values of the frozen part, of at least one phase; reused: "
        "an earlier one did; null: they were computed in every step."
    )
    prefix_form: str | None = _reported(
        "Variant of the frozen part that computed its values: plain, folded (BatchNorm inside the "
        "convolutions) or compiled (folded, by the framework's compiler)."
    )
    sweep_runs: Count | None = _reported(
        "Number of runs that were trained at once, including this one; null if it ran alone."
    )
    sweep_s: Measured | None = _reported(
        "Time of all these runs, with set-up and computing the values of the frozen part."
    )
    compile_s: Measured | None = _reported(
        "First call − second call, over the batch sizes of training and of validation: "
        "compilation, and the choice of kernels."
    )
    step_s_p50: Measured | None = _reported("Median of a whole training step.")
    step_s_p95: Measured | None = _reported("95th percentile of a training step.")
    queue_s: Measured | None = _reported(
        "On a GPU: time in which the host queues a training step, without waiting."
    )
    device_step_s: Measured | None = _reported(
        "On a GPU: median training step on the GPU's own clock; null where the framework has none."
    )
    input_wait_fraction: Measured | None = _reported(
        "Share of the training time in which a step waited for data; on a GPU 1 − "
        "train_images_per_s / compute_images_per_s."
    )
    other_work_fraction: Measured | None = _reported(
        "Share of the cores' time that other processes took, in the median epoch; 0 while cores "
        "were idle, null where the system does not tell."
    )
    peak_host_bytes: Count | None = _reported(
        "Peak memory of the worker process during the run; null if more than a tenth of it may "
        "belong to earlier runs."
    )
    peak_device_bytes: Count | None = _reported(
        "Peak memory on a GPU after the first steps; null on a CPU. For JAX: of its largest "
        "program."
    )
    warmup_device_bytes: Count | None = _reported(
        "Peak memory on a GPU in the first steps, in which libraries search for their kernels."
    )
    reserved_device_bytes: Count | None = _reported(
        "Most memory that the framework took from a GPU, including what it kept for later."
    )

    initial_state_sha256: str | None = _reported(
        "Hash of all tensors before training; equal in matched backends."
    )
    frozen_state_sha256: str | None = Field(
        default=None,
        description="Hash of the frozen tensors, the same before and after; of several phases, for "
        "the last one.",
    )
    batches_sha256: str | None = _reported(
        "Hash of image order, augmentation and dropout masks; equal in matched backends."
    )
    data_sha256: str | None = _reported(
        "Hash of the pixels and labels of all splits; equal in matched backends."
    )
    blueprint_sha256: str | None = _reported("Hash of the network with its head.")
    fingerprint: Fingerprint | None = Field(
        default=None, description="Numbers of the first steps; null in native mode."
    )
    unreadable_images: Count | None = Field(
        default=None, description="Number of images that --skip-unreadable left out; null: none."
    )
    data_options: tuple[DataOption, ...] = Field(
        default=(),
        max_length=6,
        description="Options of the command line that decided which files were used.",
    )
    data_remarks: tuple[str, ...] = Field(
        default=(), description="Sentences on files that were left out or taken otherwise."
    )
    knobs: FrozenMapping[Any] = Field(
        default_factory=dict,
        validate_default=True,
        description="Settings of the framework in force, read back afterwards.",
    )
    notes: tuple[str, ...] = Field(default=(), description="Remarks that a reader must know.")

    @model_validator(mode="before")
    @classmethod
    def _unreadable_from_note(cls, fields: Any) -> Any:
        """Read the number of unreadable images from the note that earlier versions left instead."""
        notes = fields.get("notes") if isinstance(fields, dict) else None
        if not isinstance(notes, list):
            return fields
        for note in notes:
            if isinstance(note, str) and (found := OLD_UNREADABLE_NOTE.fullmatch(note)):
                kept = [other for other in notes if other != note]
                return {**fields, "notes": kept, "unreadable_images": int(found[1])}
        return fields


FRACTIONS = ("_top1", "_accuracy", "_f1", "_error", "_saving", "_fraction", "_utilisation")
"""Ends of the names of fields that are fractions of 1, which tables print in percent."""
REPORTED_FIELDS: tuple[str, ...] = tuple(
    name
    for name, field in RunResult.model_fields.items()
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("reported")
)
"""Fields of ``RunResult`` that a row of a report repeats, in the order of the columns."""
