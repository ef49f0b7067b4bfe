"""The plan of advice before anything is measured: what would be done, and how long it takes."""

from __future__ import annotations

from typing import NamedTuple

from bench.advise.candidate import TrialPlan, candidate
from bench.advise.schedule import KEPT_BACKBONES
from bench.advise.trials import Laboratory, admitted
from bench.advise.wishes import Wishes
from bench.errors import Unavailable, UserError

PROBE_S = 1.5
"""Time of the probes of a network, besides its features."""


class Step(NamedTuple):
    """A part of the plan."""

    words: str
    seconds: float
    """Estimated time."""


def plan_of(laboratory: Laboratory, wishes: Wishes) -> list[Step]:
    """Return the steps of the plan, in order; those at the end are done as far as the budget goes.

    Networks are exported for it, if they were not before. Raise UserError if none has as few
    parameters as are allowed.
    """
    steps, known = list[Step](), list[str]()
    images = len(laboratory.data.pool.labels)
    for backbone in admitted(laboratory, wishes):
        try:
            seconds = laboratory.costs.inference_s(backbone, images)
        except (Unavailable, UserError) as error:
            why = " ".join(str(error).splitlines())
            steps.append(Step(f"{backbone} is left out: {why}", 0.0))
            continue
        known.append(backbone)
        steps.append(Step(f"probes of {backbone}", seconds + PROBE_S))
    start_s = laboratory.costs.start_s(wishes.backends[0])
    for backbone in known[:KEPT_BACKBONES]:
        for policy in wishes.possible_policies:
            one = candidate(backbone, policy, wishes.head, wishes.epochs)
            plan = TrialPlan(one, wishes.backends[0], 0, one.epochs)
            seconds, start_s = start_s + laboratory.work_s(plan), 0.0
            steps.append(Step(f"{policy} of {backbone}, a whole trial", seconds))
    return steps
