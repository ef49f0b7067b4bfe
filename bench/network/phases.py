"""Policies with phases: the epochs of a run divided into phases, each an ordinary policy.

A phase starts from the tensors that the phase before it left. Otherwise it is a training of its
own: the recipe's schedule, warm-up included, runs over the phase's epochs, as fastai's does when it
unfreezes, and the optimizer's moments (and a loss scale) start anew. Epochs keep their number in
the run, so that order, augmentation and dropout masks are those of a run without phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from bench.errors import UserError
from bench.network.blueprint import Blueprint
from bench.spec.run import Policy, PolicyPhase, Recipe


@dataclass(frozen=True)
class Phase:
    """Epochs of a run in which the same part of the network trains."""

    policy: Policy
    """Policy without phases."""
    first_epoch: int
    """Number of the first epoch in the run, from 0."""
    epochs: int

    @property
    def numbers(self) -> range:
        """Numbers of the phase's epochs in the run."""
        return range(self.first_epoch, self.first_epoch + self.epochs)

    def recipe(self, recipe: Recipe) -> Recipe:
        """Return the run's recipe over the epochs of this phase alone."""
        return recipe.model_copy(update={"epochs": self.epochs})


def needs_stages(policy: Policy) -> bool:
    """Return True if the policy treats stages differently, which native mode cannot do."""
    return policy.stage_decay != 1.0 or bool(policy.phases)


def phases_of(blueprint: Blueprint, policy: Policy, epochs: int) -> tuple[Phase, ...]:
    """Divide the epochs of a run with a Blueprint with its head; without phases there is one phase.

    Boundaries only move towards the input, and the last one is the policy's own. Raise UserError
    if there are fewer epochs than phases.
    """
    check_epochs(policy, epochs)
    if not policy.phases:
        return (Phase(policy, 0, epochs),)
    if policy.phases == "by_stage":
        divided = _by_stage(blueprint, policy.boundary, epochs)
    else:
        divided = _by_share(policy.phases, epochs)
    alone = [policy.model_copy(update={"boundary": part, "phases": ()}) for part, _ in divided]
    lengths = [length for _, length in divided]
    firsts = accumulate(lengths[:-1], initial=0)
    return tuple(map(Phase, alone, firsts, lengths))


def least_epochs(policy: Policy) -> int:
    """Return the fewest epochs of a policy: one for each phase. One that unfreezes stage by stage
    needs two: with one it would be an ordinary policy."""
    return 2 if policy.phases == "by_stage" else max(1, len(policy.phases))


def check_epochs(policy: Policy, epochs: int) -> None:
    """Raise UserError if there are fewer epochs than the policy needs."""
    least = least_epochs(policy)
    if epochs < least:
        raise UserError(
            f"Policy {policy.name} needs {least} epochs or more: first the head trains alone, then "
            f"the stages that it unfreezes; epochs is {epochs}.",
            f"Use --epochs {least}, or leave it out of the policies.",
        )


def _by_share(parts: tuple[PolicyPhase, ...], epochs: int) -> list[tuple[str, int]]:
    """Return boundary and epochs of each part: its share rounded down, but at least one epoch; the
    last part takes the rest."""
    divided, done, share = [], 0, 0.0
    for number, part in enumerate(parts, start=1):
        share += part.share
        rest = len(parts) - number
        end = epochs if not rest else min(max(int(share * epochs + 1e-9), done + 1), epochs - rest)
        divided.append((part.boundary, end - done))
        done = end
    return divided


def _by_stage(blueprint: Blueprint, last: str, epochs: int) -> list[tuple[str, int]]:
    """Return boundary and epochs of each phase: one epoch for the head, one more stage in each
    further epoch, the rest with everything (Howard and Ruder 2018, 3.3).

    With fewer epochs than stages, several stages unfreeze at a time, as evenly as possible. Stages
    without tensors have nothing to unfreeze and do not count.
    """
    own = {o.stage for o in blueprint.operations if o.tensors}
    stages = [stage for stage in blueprint.stages if stage in own]
    phases = min(epochs, len(stages))
    if phases == 1:
        return [(last, epochs)]
    thawed = [number * (len(stages) - 1) // (phases - 1) for number in range(phases - 1)]
    early = [(stages[-1 - count], 1) for count in thawed]
    return [*early, (last, epochs - len(early))]
