"""Results of a proof: levels and pairs of backends."""

from __future__ import annotations

from pydantic import Field

from bench.parity.tolerances import FLOOR_MARGIN
from bench.spec.base import Frozen
from bench.workers.tasks import ProofPart

Part = ProofPart
LEVELS_OF: dict[Part, tuple[str, ...]] = {
    "forward": ("pixels", "initial_head", "logits", "activations", "metrics"),
    "gradients": ("gradients",),
    "steps": (
        "state_after_one_step",
        "losses",
        "logits_after_steps",
        "epoch_losses",
        "logits_after_epochs",
        "restored_losses",
        "resumed",
        "frozen",
    ),
}
"""Part of a measurement → the levels measured in it. Policies and optimizers that share a part have
it measured once."""
PARTS = tuple(LEVELS_OF)
PART_OF: dict[str, Part] = {level: part for part, levels in LEVELS_OF.items() for level in levels}


class Level(Frozen):
    """The comparison of two backends at one point of the computation."""

    name: str = Field(description="Key of ``bench.parity.tolerances.LEVELS``.")
    value: float | None = Field(description="Largest relative difference; null: not comparable.")
    tolerance: float = Field(description="Largest value that counts as equal.")
    floor: float | None = Field(
        description="Noise floor: largest relative difference within one backend when every weight "
        "is moved by one last bit, the worst of several perturbations; null: not measured."
    )
    chaotic: bool = Field(default=False, description="True if the noise floor is not finite.")
    passed: bool = Field(
        description="The value and, for training losses, the noise floor are small enough."
    )
    counts: bool = Field(
        default=True,
        description="False if the level is inconclusive and not needed: in float32, if the noise "
        "floor of the gradients, or of a level after the steps, explains the value.",
    )
    detail: str | None = Field(default=None, description="Where the difference is largest.")

    @property
    def differs(self) -> bool:
        """True if the difference exceeds both the tolerance and the noise of one backend."""
        if self.chaotic or self.value is None:
            return not self.chaotic
        return self.value > self.tolerance and self.value > FLOOR_MARGIN * (self.floor or 0.0)


class FirstDifference(Frozen):
    """The first operation, in order of execution, whose values differ."""

    operation: str = Field(description="Name in the Blueprint.")
    module_path: str = Field(description="Path of the module that the operation came from.")


class ProofKey(Frozen):
    """Identity of a pair: a later proof with the same key replaces an earlier one."""

    backbone: str = Field(description="Public name.")
    code_sha256: str | None = Field(default=None, description="As in a run's spec.")
    network_digest: str | None = Field(default=None, description="As in a run's spec.")
    policy: str
    policy_digest: str = Field(default="", description="Digest of the policy's definition.")
    boundary: str = Field(description="Stage from which the policy trains.")
    optimizer: str = Field(description="sgd or adamw.")
    dtype: str = Field(description="float64 or float32.")
    px: int = Field(description="Height and width of the input, in pixels.")
    batch_size: int = Field(description="Images in a full step.")
    head: str
    weights: str = Field(description="pretrained, random or file.")
    environments: tuple[str, str] = Field(description="environment_id of each backend.")


class PairProof(ProofKey):
    """The comparison of two backends under one policy and optimizer."""

    backends: tuple[str, str] = Field(description="The reference, then the other backend.")
    passed: bool = Field(description="Every level that counts passed, and the loss fell enough.")
    levels: tuple[Level, ...] = Field(description="In the order of ``LEVELS``.")
    first_difference: FirstDifference | None = Field(description="Null if all operations agree.")
    loss_fall: float | None = Field(description="Fraction by which the training loss fell.")
    learning_rate: float | None = Field(description="Peak learning rate of the steps.")
    reason: str | None = Field(default=None, description="Why it did not pass; null if it did.")
    harness: str = Field(default="", description="Digest of the code and tolerances of the proof.")

    @property
    def key(self) -> ProofKey:
        return ProofKey(**{name: getattr(self, name) for name in ProofKey.model_fields})
