"""The events of worker processes: messages to the parent, each a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from bench.spec.base import Frozen
from bench.spec.run import Status


class Message(Frozen):
    """Base of all events. Fields that it does not know are no reason to lose an event."""

    model_config = ConfigDict(extra="ignore")


class Step(Message):
    """Progress of the training within an epoch."""

    event: Literal["step"] = "step"
    share: float = Field(description="Share of all epochs that is done.")


class Epoch(Message):
    """The end of an epoch of a run."""

    event: Literal["epoch"] = "epoch"
    epoch: int = Field(description="Number of the epoch, from 1.")
    epochs: int
    train_loss: float
    val_top1: float


class SweepEpoch(Message):
    """The end of an epoch of all runs of a sweep."""

    event: Literal["sweep"] = "sweep"
    epoch: int = Field(description="Number of the epoch, from 1.")
    epochs: int
    val_top1: float = Field(description="Best validation accuracy among the runs.")


class RateTrial(Message):
    """The start of the trial of a learning rate."""

    event: Literal["trial"] = "trial"
    number: int = Field(description="Number of the learning rate, from 1.")
    of: int = Field(description="Number of learning rates.")
    phase: int | None = Field(default=None, description="Number of the phase; null: no phases.")
    phases: int | None = None


class PrefixShare(Message):
    """Progress of computing the values of the frozen prefix."""

    event: Literal["prefix"] = "prefix"
    share: float


class Probed(Message):
    """The end of a measurement for a proof."""

    event: Literal["probed"] = "probed"
    key: str = Field(description="Key of the measured item.")


class Done(Message):
    """The answer of a task, whose fields stand beside ``event``."""

    model_config = ConfigDict(extra="allow")
    event: Literal["done"] = "done"


class Failed(Message):
    """The failure of a task."""

    event: Literal["failed"] = "failed"
    status: Status | Literal["bad_input"] = Field(description="bad_input: a mistake of the user.")
    kind: str = Field(description="Failure in a word: name of the exception, signal …")
    message: str
    hint: str | None = Field(default=None, description="Command or change that mends it.")


class Idle(Message):
    """The end of tidying up after a task."""

    event: Literal["idle"] = "idle"
    held_bytes: int | None = Field(
        default=None, description="Memory still held; null: the worker cannot do another task."
    )


class Turn(Message):
    """The worker waits for its turn to time a window: for a line ``GO`` on its standard input."""

    event: Literal["turn"] = "turn"


GO = b"go\n"
"""Line by which the parent lets a worker go on."""
Progress = Step | Epoch | SweepEpoch | RateTrial | PrefixShare | Probed
"""An event during a task."""
OnEvent = Callable[[Progress], None]
"""Takes the events of a task."""
Event = Annotated[Progress | Done | Failed | Idle | Turn, Field(discriminator="event")]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
"""Parser of any event from JSON."""


def to_line(event: Event) -> str:
    """Return an event as a line of JSON. Only an answer has nulls, and may have NaN or infinity."""
    if isinstance(event, Done):
        return json.dumps(event.model_dump()) + "\n"
    return event.model_dump_json(exclude_none=True) + "\n"
