"""Everything that was measured for advice."""

from __future__ import annotations

from dataclasses import dataclass

from bench.advise.knowledge import Knowledge
from bench.advise.schedule import Schedule
from bench.data.model import Dataset


@dataclass(frozen=True)
class Findings:
    """Everything that was measured for advice."""

    dataset: Dataset
    known: Knowledge
    schedule: Schedule | None
    """None if the budget held probes only."""
    budget_s: float
    spent_s: float
    warnings: tuple[str, ...] = ()

    @property
    def seen_images(self) -> int:
        """Number of training images that advice looked at, of which accuracies are expected."""
        return self.known.laboratory.data.dataset.train_images

    @property
    def is_exhausted(self) -> bool:
        """True if everything was tried, with every network."""
        schedule = self.schedule
        return schedule is not None and schedule.is_exhausted and not self.known.evidence.unprobed
