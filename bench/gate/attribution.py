"""Attribute lost or gained time to the parts and the operations of a step, on both sides."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Literal

from pydantic import Field

from bench.spec.base import Frozen
from bench.speed.cases import TimedCase
from bench.speed.launch import Launch, Place, launch_together
from bench.workers.tasks import SpeedAnswer, SpeedTask

ROUNDS = 12
"""Rounds of turns in which the parts of a step are timed."""
MOST_OPERATIONS = 5
LEAST_SHARE = 0.01
"""An operation that grew by less than this share of a step is not named."""


Direction = Literal["slower", "faster"]


class PartGrowth(Frozen):
    """A part of a step at both sides."""

    name: str
    before_s: float = Field(description="Seconds of a step at A.")
    now_s: float = Field(description="Seconds of a step at B.")

    @property
    def growth_s(self) -> float:
        """Seconds that B takes more."""
        return self.now_s - self.before_s


class Cause(Frozen):
    """The parts and operations in which a case became slower, or faster."""

    case: str
    verdict: Direction
    culprit: str | None = Field(
        description="Part that grew most, or shrank most where it is faster; null if none did."
    )
    parts: tuple[PartGrowth, ...] = Field(description="All parts, the culprit first.")
    operations: tuple[PartGrowth, ...] = Field(
        description="Operations that grew most, or shrank most."
    )
    compile_s: tuple[float, float] = Field(description="Compilation at A and at B.")


def find_causes(
    cases: Mapping[str, Sequence[TimedCase]], places: Mapping[str, Place],
    changed: Mapping[str, Direction], random: Random,
) -> list[Cause]:  # fmt: skip
    """Profile one launch of A and of B for each case that is slower or faster.

    Args:
        cases: A and B → their cases, in the same order.
        places: A and B → where they are launched.
        changed: Name of a case → what it is.

    Raises:
        UserError, Unavailable, WorkerFailed: A case failed.
    """
    found = []
    for a, b in zip(cases["A"], cases["B"], strict=True):
        if a.name not in changed or not isinstance(a.task, SpeedTask):
            continue
        launches = profiled_launches([(a, places["A"]), (b, places["B"])], random)
        answers = []
        for one, name in zip(launches, (a.name, b.name), strict=True):
            one.require_all()
            answers.append(one.cases[name])
        found.append(cause_of(a.name, answers[0], answers[1], changed[a.name]))
    return found


def profiled_launches(sides: Sequence[tuple[TimedCase, Place]], random: Random) -> list[Launch]:
    """Launch a case at each side with its parts timed, in turns on a CPU."""
    profiled = []
    for case, place in sides:
        task = case.task.model_copy(update={"parts": ROUNDS, "measures": ("train_step",)})
        profiled.append(([replace(case, task=task)], place))
    if all(place.device == "cpu" for _, place in profiled):
        return launch_together(profiled, random)
    return [launch_together([one], random)[0] for one in profiled]


def cause_of(case: str, a: SpeedAnswer, b: SpeedAnswer, verdict: Direction = "slower") -> Cause:
    """Compare two profiled launches. Parts were timed in rounds of turns, so that their growth is
    the median over rounds."""
    parts = [
        PartGrowth(
            name=name,
            before_s=statistics.median(a.parts_s[name]),
            now_s=statistics.median(a.parts_s[name])
            + statistics.median(
                y - x for x, y in zip(a.parts_s[name], b.parts_s[name], strict=False)
            ),
        )
        for name in a.parts_s
        if name in b.parts_s
    ]
    sign = 1 if verdict == "slower" else -1
    parts.sort(key=lambda part: -sign * part.growth_s)
    step_s = sum(part.before_s for part in parts)
    operations = [
        PartGrowth(
            name=name,
            before_s=a.operations_s.get(name, 0.0),
            now_s=b.operations_s.get(name, 0.0),
        )
        for name in {**a.operations_s, **b.operations_s}
    ]
    operations = [one for one in operations if sign * one.growth_s > LEAST_SHARE * step_s]
    operations.sort(key=lambda one: -sign * one.growth_s)
    return Cause(
        case=case,
        verdict=verdict,
        culprit=parts[0].name if parts and sign * parts[0].growth_s > 0 else None,
        parts=tuple(parts),
        operations=tuple(operations[:MOST_OPERATIONS]),
        compile_s=(a.compile_s, b.compile_s),
    )
