"""The nouns of a proof."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from bench.parity.tolerances import FLOOR_FACTOR
from bench.spec.base import Frozen
from bench.workers.tasks import ProofPart

Part = ProofPart
PARTS: tuple[Part, ...] = ("forward", "gradients", "steps")
"""What is measured; policies and optimizers that share a part have it measured once."""

PART_OF: dict[str, Part] = {
    "pixels": "forward",
    "initial_head": "forward",
    "logits": "forward",
    "activations": "forward",
    "metrics": "forward",
    "gradients": "gradients",
    "state_after_one_step": "steps",
    "losses": "steps",
    "logits_after_steps": "steps",
    "epoch_losses": "steps",
    "frozen": "steps",
}
"""Level → the part that its figure comes from."""


class Level(Frozen):
    """One figure of a proof."""

    name: str = Field(description="See ``bench.parity.tolerances.LEVELS``.")
    value: float | None = Field(
        description="Largest relative difference; null: not comparable or not finite."
    )
    tolerance: float = Field(description="That it must not exceed.")
    floor: float | None = Field(
        description="How far one backend alone moves when every weight is nudged by one last bit, "
        "the worst of three; null where equality is asked."
    )
    chaotic: bool = Field(default=False, description="The floor is not finite.")
    passed: bool = Field(
        description="Within the tolerance; of training, also the floor below a tenth of it."
    )
    counts: bool = Field(
        default=True,
        description="False in float32 where the floor of gradients, or of what comes after the ten "
        "steps, is too high and accounts for the value: it says nothing, for or against.",
    )
    detail: str | None = Field(default=None, description="Where the difference is largest.")

    @property
    def differs(self) -> bool:
        """Whether it shows a difference: beyond the tolerance, and beyond what one backend does
        by itself."""
        if self.chaotic or self.value is None:
            return not self.chaotic
        return self.value > self.tolerance and self.value > FLOOR_FACTOR * (self.floor or 0.0)


class FirstDifference(Frozen):
    """The first operation, in order of execution, whose values differ."""

    operation: str = Field(description="Its name in the Blueprint.")
    module_path: str = Field(description="Of the module that it came from.")


class About(NamedTuple):
    """What a pair is about: proofs of the same question in the same environments."""

    backbone: str
    code_sha256: str | None
    weights: str
    policy: str
    boundary: str
    optimizer: str
    dtype: str
    px: int
    batch_size: int
    head: str
    environments: tuple[str, str]


class PairProof(Frozen):
    """Two backends, compared under one policy and optimizer."""

    backbone: str = Field(description="Its name.")
    code_sha256: str | None = Field(
        default=None, description="Of the file of a user's own network; null for all others."
    )
    policy: str = Field(description="Its name.")
    boundary: str = Field(description="From where the policy trains.")
    optimizer: str = Field(description="sgd or adamw.")
    backends: tuple[str, str] = Field(description="The reference first.")
    dtype: str = Field(description="float64 or float32.")
    passed: bool = Field(description="Every level that counts, and the loss fell far enough.")
    levels: tuple[Level, ...] = Field(description="In the order of the catalogue.")
    first_difference: FirstDifference | None = Field(description="Null where all operations agree.")
    loss_fall: float | None = Field(description="Of the training loss over the steps, a fraction.")
    learning_rate: float | None = Field(description="Peak rate of the steps.")
    px: int = Field(description="Height and width of the input.")
    batch_size: int = Field(description="Images of a full step.")
    head: str = Field(description="On the backbone.")
    weights: str = Field(description="pretrained, random or file.")
    environments: tuple[str, str] = Field(description="environment_id of each side.")
    reason: str | None = Field(default=None, description="Why it did not pass; null if it did.")
    harness: str = Field(
        default="", description="Digest of the code and tolerances that made it; see ``proofs``."
    )

    @property
    def about(self) -> About:
        """What it is about."""
        return About(**{name: getattr(self, name) for name in About._fields})
