"""What came out of a run (DESIGN section 2)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from bench.spec.base import SCHEMA_VERSION, Frozen
from bench.spec.run import Status

LEAST, MOST = 1e-15, 1e24
"""Between these lie all rates and times that can be measured: sums and quotients of such are
finite, which those of foreign numbers need not be."""
COUNT = 2**63
"""Whole numbers stay below it: a table of pandas holds no greater ones."""


def _measurable(value: float) -> float:
    if not (value == 0.0 or LEAST <= value <= MOST):
        raise ValueError(f"{value:g} is no time and no rate that can be measured")
    return value


Measured = Annotated[float, AfterValidator(_measurable)]
"""0, or what can be measured."""
Loss = Annotated[float, Field(ge=-MOST, le=1e300)]
"""Of a training that is about to diverge it may be huge, but a sum of such is finite."""
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=COUNT)]
Window = Annotated[float, Field(ge=LEAST, le=MOST)]
"""A rate that was measured."""


OLD_UNREADABLE_NOTE = re.compile(r"(\d{1,18}) unreadable images were left out")


class Failure(Frozen):
    """Why a run is not ``ok``."""

    kind: str = Field(description="A word: the exception's name, or what was missing.")
    message: str = Field(description="For people.")


class Trial(Frozen):
    """A learning rate that was tried."""

    learning_rate: float = Field(description="Peak rate of the head.")
    val_top1: float | None = Field(
        default=None, description="After the last epoch; null: it diverged."
    )
    val_loss: float | None = Field(default=None, description="Mean cross-entropy, of the same.")


class PhaseResult(Frozen):
    """What a phase gave, of a run of several. Rates are of its own steps alone."""

    boundary: str = Field(description="From where on it trained.")
    epochs: Count = Field(description="Trained; fewer than planned where the run diverged in it.")
    trainable_parameters: Count = Field(description="As the backend built it.")
    frozen_state_sha256: str = Field(description="Of what it froze, the same before and after.")
    prefix_values: Literal["computed", "reused"] | None = Field(description="As of a run.")
    prefix_s: Measured | None = Field(description="As of a run.")
    prefix_form: str | None = Field(default=None, description="As of a run.")
    train_images_per_s: Measured | None = Field(description="As of a run.")
    effective_images_per_s: Measured | None = Field(description="As of a run.")
    setup_s: float | None = Field(
        description="Building it from what the phase before left; null of the first, whose set-up "
        "is the run's."
    )
    fit_s: Measured = Field(
        description="Its part of the run's fit_s, setup_s and prefix_s included."
    )
    notes: list[str] = Field(default=[], description="What a reader must know.")


class ImageAnswers(Frozen):
    """Which test images were answered rightly: what comparing runs reads of ``predictions.npz``,
    beside the result, for thousands of archives take long to open."""

    images: int = Field(ge=1, description="Of the test split, in its order.")
    labels_sha256: str = Field(description="Of the true classes, as int64: the same, same images.")
    right_bits: str = Field(
        description="Base64 of one bit an image, the first one the highest of the first byte: 1, "
        "right."
    )


class RunResult(Frozen):
    """What a run gave. Null is 'could not be measured', never a guess."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Of this file.")
    run_id: str = Field(description="A readable slug and 8 hex digits of the hash of the spec.")
    environment_id: str = Field(description="12 hex digits of the hash of the environment.")
    status: Status = Field(description="ok or why not.")
    failure: Failure | None = Field(default=None, description="Null exactly when ok.")

    test_top1: Share | None = Field(default=None, description="Share right on the test split.")
    test_loss: Loss | None = Field(default=None, description="Mean cross-entropy on test.")
    test_balanced_accuracy: Share | None = Field(
        default=None, description="Mean over the classes of the share of theirs that is right."
    )
    test_macro_f1: Share | None = Field(
        default=None, description="Mean over the classes of the F1 score."
    )
    test_calibration_error: Share | None = Field(
        default=None,
        description="Mean distance of confidence and accuracy over 15 bins of confidence, weighed "
        "by their images (expected calibration error, Guo et al. 2017).",
    )
    test_answers: ImageAnswers | None = Field(
        default=None, description="Image by image; null where there are no predictions."
    )
    val_top1_by_epoch: list[Share | None] = Field(default=[], description="After each epoch.")
    train_loss_by_epoch: list[Loss | None] = Field(default=[], description="Mean over images.")

    total_parameters: Count | None = Field(
        default=None, description="Of the network, as the backend built it."
    )
    trainable_parameters: Count | None = Field(
        default=None, description="Those that are trained; of several phases, in the last one."
    )
    frozen_parameters: Count | None = Field(default=None, description="Those that are not trained.")
    state_values: Count | None = Field(default=None, description="BatchNorm moving statistics.")
    forward_multiply_adds: Count | None = Field(
        default=None, description="Of one image through the network, counted from the Blueprint."
    )
    backward_multiply_adds: Count | None = Field(
        default=None,
        description="Of one image's backward pass, as far as the policy trains; of several phases, "
        "the mean over the epochs.",
    )
    activation_bytes: Count | None = Field(
        default=None,
        description="Of one image: float32 values that the backward pass reads; of several phases, "
        "the most.",
    )
    predicted_saving: float | None = Field(
        default=None,
        ge=-MOST,
        le=1,
        description="Share of a step's multiply-adds that the policy spares beside training all; "
        "of several phases, of all steps together.",
    )

    phases: list[PhaseResult] = Field(
        default=[], description="In order; empty where the policy has none."
    )

    tuning: list[Trial] = Field(default=[], description="Rates that validation chose among.")
    learning_rate: float | None = Field(
        default=None, description="The rate that was chosen; null where there was no choice."
    )
    tune_s: Measured | None = Field(
        default=None, description="Time of all trials, not part of fit_s."
    )

    train_images_per_s: Measured | None = Field(
        default=None, description="End to end, input wait included: median synchronised window."
    )
    train_images_per_s_windows: list[Window] = Field(default=[], description="Each window.")
    compute_images_per_s: Measured | None = Field(
        default=None, description="Training steps on one batch that already lies on the device."
    )
    device_peak_flops_per_s: Measured | None = Field(
        default=None,
        description="Of a GPU: best rate of a large matrix product in the run's precision, by its "
        "framework; null where model_flop_utilisation is.",
    )
    model_flop_utilisation: Measured | None = Field(
        default=None,
        description="On a GPU: 2 FLOP for each multiply-add of the training steps, at "
        "train_images_per_s (end to end), over device_peak_flops_per_s.",
    )
    infer_images_per_s: Measured | None = Field(default=None, description="Median window, on test.")
    effective_images_per_s: Measured | None = Field(
        default=None,
        description="Where the frozen part was computed once, or there are several phases: images "
        "of all epochs over the time of that and of all training steps, compilation left out. "
        "Never beside train_images_per_s.",
    )
    prefix_values: Literal["computed", "reused"] | None = Field(
        default=None,
        description="Whether the values of the frozen part, of any phase's, were computed in this "
        "run or an earlier one; null: they were computed in every step.",
    )
    prefix_s: Measured | None = Field(
        default=None,
        description="Time to compute the values of the frozen part, in this run or the one that "
        "kept them; part of fit_s, so that a figure does not depend on what a cache held.",
    )
    prefix_form: str | None = Field(
        default=None,
        description="In which form these were computed: plain, folded or compiled "
        "(bench/forms.py).",
    )
    sweep_runs: Count | None = Field(
        default=None, description="Runs that were trained at once, this one among them; else null."
    )
    sweep_s: Measured | None = Field(
        default=None,
        description="Time of all these runs, set-up and the values' computing included.",
    )
    step_s_p50: Measured | None = Field(
        default=None, description="Median of a whole training step."
    )
    step_s_p95: Measured | None = Field(default=None, description="95th percentile of a step.")
    input_wait_fraction: Measured | None = Field(
        default=None, description="Share of the training time in which a step waited for data."
    )
    start_s: Measured | None = Field(
        default=None,
        description="Starting the worker and importing the framework; null where a worker did the "
        "run that had done another before.",
    )
    setup_s: Measured | None = Field(
        default=None, description="Data and building the network, before step 1."
    )
    compile_s: Measured | None = Field(
        default=None, description="First training step less the median one."
    )
    fit_s: Measured | None = Field(
        default=None,
        description="Training and validation of all epochs, compile included, and the set-up of "
        "all phases but the first.",
    )
    test_s: Measured | None = Field(
        default=None, description="Inference over the test split; null in a sweep."
    )
    peak_host_bytes: Count | None = Field(
        default=None,
        description="Of the worker process, during the run; null where more than a tenth of it is "
        "what earlier runs left there.",
    )
    peak_device_bytes: Count | None = Field(default=None, description="Of a GPU; else null.")

    initial_state_sha256: str | None = Field(
        default=None, description="Of all tensors before training: equal in matched backends."
    )
    frozen_state_sha256: str | None = Field(
        default=None,
        description="Of the frozen tensors, the same before and after; of several phases, of those "
        "that the last one freezes.",
    )
    batches_sha256: str | None = Field(
        default=None,
        description="Of image order, augmentation and dropout seeds: equal in matched backends.",
    )
    blueprint_sha256: str | None = Field(default=None, description="Of the network with its head.")
    unreadable_images: Count | None = Field(
        default=None, description="Images that --skip-unreadable left out; null: none."
    )
    knobs: dict[str, Any] = Field(default={}, description="In force, read back afterwards.")
    notes: list[str] = Field(default=[], description="What a reader must know.")

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
