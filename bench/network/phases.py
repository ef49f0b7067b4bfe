"""What a policy trains in turn: its epochs divided into phases, each an ordinary policy.

A phase goes on from the tensors that the one before it left. It is a training of its own otherwise:
the recipe's schedule runs over the phase's epochs, warm-up included, as fastai's does when it
thaws, and the optimizer's moments (and a loss scale) begin anew. The numbers of the epochs run on,
so that the order of the images, the augmentation and the dropout masks are those of a run without
phases.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import UserError
from bench.network.blueprint import Blueprint
from bench.spec.run import Policy, PolicyPhase, Recipe


@dataclass(frozen=True)
class Phase:
    """Some epochs of a run, in which the same is trained."""

    policy: Policy
    """What: a policy without phases."""
    first_epoch: int
    """Number in the run, from 0."""
    epochs: int
    """How many."""

    @property
    def numbers(self) -> range:
        """Numbers of its epochs in the run."""
        return range(self.first_epoch, self.first_epoch + self.epochs)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The run's recipe over the epochs of this phase alone."""
        return recipe.model_copy(update={"epochs": self.epochs})


def needs_stages(policy: Policy) -> bool:
    """Whether it treats stages apart, which native mode does not know."""
    return policy.stage_decay != 1.0 or bool(policy.phases)


def phases_of(blueprint: Blueprint, policy: Policy, epochs: int) -> tuple[Phase, ...]:
    """Divide the epochs of a run.

    Boundaries only go down, and the last one is the policy's own.

    Args:
        blueprint: With its head.
        policy: One without phases gives one phase.
        epochs: Of the run.

    Raises:
        UserError: There are fewer epochs than phases.
    """
    check_epochs(policy, epochs)
    if not policy.phases:
        return (Phase(policy, 0, epochs),)
    if policy.phases == "by_stage":
        divided = _by_stage(blueprint, policy.boundary, epochs)
    else:
        divided = _by_share(policy.phases, epochs)
    found, first = [], 0
    for boundary, length in divided:
        alone = policy.model_copy(update={"boundary": boundary, "phases": ()})
        found.append(Phase(alone, first, length))
        first += length
    return tuple(found)


def check_epochs(policy: Policy, epochs: int) -> None:
    """
    Raises:
        UserError: There are fewer epochs than the policy has phases; one that thaws stage by stage
            has two at least, for with one it would be an ordinary policy under a wrong name.
    """
    least = 2 if policy.phases == "by_stage" else max(1, len(policy.phases))
    if epochs < least:
        raise UserError(
            f"Policy {policy.name} needs {least} epochs or more: first the head trains alone, then "
            f"what is thawed; epochs is {epochs}.",
            f"Use --epochs {least}, or leave it out of the policies.",
        )


def _by_share(parts: tuple[PolicyPhase, ...], epochs: int) -> list[tuple[str, int]]:
    """Boundary and epochs of each part: its share rounded down, at least one; the last takes what
    is left."""
    divided, done, share = [], 0, 0.0
    for number, part in enumerate(parts, start=1):
        share += part.share
        rest = len(parts) - number
        end = epochs if not rest else min(max(int(share * epochs + 1e-9), done + 1), epochs - rest)
        divided.append((part.boundary, end - done))
        done = end
    return divided


def _by_stage(blueprint: Blueprint, last: str, epochs: int) -> list[tuple[str, int]]:
    """Boundary and epochs of each phase: an epoch for the head, one stage more in each that
    follows, the rest with everything (Howard and Ruder 2018, 3.3).

    With fewer epochs than stages, stages thaw several at a time, as evenly as whole ones can.
    Stages without tensors have nothing to thaw, and do not count.
    """
    own = {o.stage for o in blueprint.operations if o.tensors}
    stages = [stage for stage in blueprint.stages if stage in own]
    phases = min(epochs, len(stages))
    if phases == 1:
        return [(last, epochs)]
    thawed = [number * (len(stages) - 1) // (phases - 1) for number in range(phases - 1)]
    early = [(stages[-1 - count], 1) for count in thawed]
    return [*early, (last, epochs - len(early))]
