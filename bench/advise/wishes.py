"""Candidates and constraints of a recommendation, and the recipe of its trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.advise.advice import Strategy
from bench.catalog.policies import CONTROL
from bench.catalog.policies import POLICIES as CATALOGUE
from bench.errors import UserError
from bench.network.phases import least_epochs

POLICIES = tuple(name for name in CATALOGUE if name != CONTROL)
"""Policies that may be tried."""


@dataclass(frozen=True)
class Wishes:
    """Candidates and constraints."""

    backbones: tuple[str, ...]
    backends: tuple[str, ...]
    """The first one does the trials; the speed of the others is compared at the end."""
    policies: tuple[str, ...] = POLICIES
    head: str = "linear"
    epochs: int = 10
    max_parameters: int | None = None
    """Most parameters of the network, head included."""
    max_infer_ms: float | None = None
    """Most milliseconds for the inference of an image, in batches."""
    max_memory_bytes: int | None = None
    """Most memory of a training: of the GPU, or of the process on a CPU."""
    margin: float = 0.01
    """Accuracy that does not matter: strategies within it count as equally good."""
    wants_full_run: bool = False
    """True if the recommendation is trained at the end, within the budget if it is long enough."""
    target_top1: float | None = None
    """Accuracy for which the number of images is asked."""

    @property
    def possible_policies(self) -> tuple[str, ...]:
        """Policies that have an epoch for each of their phases."""
        return tuple(p for p in self.policies if least_epochs(CATALOGUE[p]) <= self.epochs)


@dataclass(frozen=True)
class Limit:
    """A constraint on a figure of a strategy."""

    option: str
    most: float
    figure: Callable[[Strategy], float | None]
    unit: str
    scale: float = 1.0
    """Unit of the option over that of the figure."""

    def needed(self, strategy: Strategy) -> str:
        """Return the limit with which a strategy is allowed; measured figures have three digits,
        rounded up."""
        value = (self.figure(strategy) or 0.0) / self.scale
        if self.unit and value:
            step = 10.0 ** (math.floor(math.log10(value)) - 2)
            value = math.ceil(value / step - 1e-9) * step
        return f"{value:,.9g}{self.unit}"


def limits(wishes: Wishes) -> list[Limit]:
    """Return the constraints that were given."""
    given = (
        ("--max-parameters", wishes.max_parameters, lambda s: s.total_parameters, "", 1.0),
        ("--max-infer-ms", wishes.max_infer_ms, _infer_ms, " ms", 1.0),
        ("--max-memory", wishes.max_memory_bytes, memory_of, " MB", 1e6),
    )
    return [
        Limit(option, float(most), figure, unit, scale)
        for option, most, figure, unit, scale in given
        if most is not None
    ]


def meets(strategy: Strategy, wishes: Wishes) -> bool:
    """Return True if a strategy breaks no constraint; figures that are not known break none."""
    return all((limit.figure(strategy) or 0.0) <= limit.most for limit in limits(wishes))


def exceeds_memory(strategy: Strategy, wishes: Wishes) -> bool:
    """Return True if a strategy is known to need more memory than is allowed."""
    most = wishes.max_memory_bytes
    return most is not None and (memory_of(strategy) or 0) > most


def unchecked(strategy: Strategy, wishes: Wishes) -> list[str]:
    """Return the options of the constraints whose figure is not known of a strategy."""
    return [limit.option for limit in limits(wishes) if limit.figure(strategy) is None]


def check_any_meets(strategies: Sequence[Strategy], wishes: Wishes, so_far: str) -> None:
    """Raise UserError if no strategy meets the constraints; the message names the nearest one, and
    ends with ``so_far``, what was found until now."""
    if not strategies or any(meets(strategy, wishes) for strategy in strategies):
        return

    def excess(strategy: Strategy) -> float:
        return sum(max((lm.figure(strategy) or 0.0) / lm.most - 1.0, 0.0) for lm in limits(wishes))

    nearest = min(strategies, key=excess)
    broken = [
        f"{lm.option} {lm.most / lm.scale:,.9g}{lm.unit} (it needs {lm.needed(nearest)})"
        for lm in limits(wishes)
        if (lm.figure(nearest) or 0.0) > lm.most
    ]
    raise UserError(
        "No strategy meets the constraints. Nearest is "
        f"{nearest.policy} of {nearest.backbone}, which breaks {' and '.join(broken)}. {so_far}",
        "Raise that limit, or name other networks with --backbones.",
    )


def _infer_ms(strategy: Strategy) -> float | None:
    rate = strategy.infer_images_per_s
    return None if not rate else 1000.0 / rate


def memory_of(strategy: Strategy) -> int | None:
    """Return the peak memory of a training in bytes: of the GPU, or of the process on a CPU; None
    where it is not known."""
    return strategy.peak_device_bytes or strategy.peak_host_bytes
