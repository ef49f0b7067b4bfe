"""The design of a comparison: blocks of launches, the looks, and the level that each look spends.

On a CPU the launches of a block, one of each arm, live side by side and take turns: their windows
run in a random order of the arms followed by its mirror image, such as A B N N B A, so that A and B
form ABBA or BAAB. On a GPU, whose memory they would have to share, a block is six launches in such
an order, one after the other. Either way what changes evenly in time (heat, a neighbour) adds the
same to every arm, and what depends on the position alone is left to chance.

Turns matter on shared machines. On 2 cores of a cloud machine whose speed wandered, the standard
deviation of a block's log ratio was 4 to 5 % with six launches in sequence, and 1.5 to 3 % with
three that took turns (docs/gate.md).

Looking at the data several times would add a chance of a false alarm each time, so the looks share
the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from bench.errors import UserError, number_of
from bench.gate.statistics import smallest_found

Arm = Literal["A", "B", "N"]
"""A and B are compared; N is A once more, from another path with an environment of another size."""
ARMS: tuple[Arm, ...] = get_args(Arm)
LOOKS = (6, 10, 16, 26, 40)
"""Numbers of blocks after which the data are looked at."""
LEVEL = 0.05
"""Chance of any false alarm, two-sided, over all benchmarks and looks."""
CONFIRM_LEVEL = 0.05
"""One-sided level of the confirmation of a slowdown by new blocks."""
LEAST_BLOCKS = 3
"""Blocks below which nothing is said."""
USUAL_SPREAD = 0.02
"""Standard deviation of a block's log ratio that a plan expects."""
HOPELESS, HOPELESS_MARGINS = 1.0, 3.0
"""Slowdowns (a fraction, and a multiple of the margin) of which a plan must find the larger in
80 %, else it is refused."""


def block_orders(random: Random, together: bool) -> list[tuple[Arm, ...]]:
    """Draw the order of a block: groups of launches that live side by side, one after the other."""
    half = random.sample(ARMS, len(ARMS))
    return [tuple(half)] if together else [(arm,) for arm in (*half, *reversed(half))]


def launches_per_arm(together: bool) -> int:
    """Return the number of launches of each arm in a block."""
    return 1 if together else 2


@dataclass(frozen=True)
class Plan:
    """Times of the looks at a comparison, and what each may decide."""

    margin: float
    """Slowdown that does not matter, as a fraction."""
    looks: tuple[int, ...] = LOOKS
    level: float = LEVEL
    confirms: bool = True
    """True if a slowdown must be confirmed by as many new blocks as have found it."""

    @property
    def level_per_look(self) -> float:
        """Two-sided level of each look. Whatever the dependence between looks, the sum of their
        levels bounds the chance of a false alarm."""
        return self.level / len(self.looks)


def plan_for(margin: float, benchmarks: int, most_blocks: int | None = None) -> Plan:
    """Return the plan of a comparison.

    Args:
        benchmarks: Number of comparisons that share the level.
        most_blocks: Number of blocks at the last look; None for the usual looks.

    Raises:
        UserError: The plan could never fail: so few blocks that even twice the time would be no
            significant slowdown.
    """
    looks: tuple[int, ...] = LOOKS
    if most_blocks is not None:
        looks = (*(look for look in LOOKS if look < most_blocks), most_blocks)
    plan = Plan(margin=margin, looks=looks)
    level = plan.level_per_look / benchmarks
    hopeless = max(HOPELESS, HOPELESS_MARGINS * margin)
    least = LEAST_BLOCKS
    while (smallest_found(least, USUAL_SPREAD, level, margin, power=0.8) or math.inf) > hopeless:
        least += 1
    if plan.looks[-1] < least:
        raise UserError(
            f"A plan of {number_of(plan.looks[-1], 'block')} can never fail: with "
            f"{number_of(benchmarks, 'benchmark')} even {1 + hopeless:g} times the time would not "
            "be significant.",
            f"Use --blocks {least} or more.",
        )
    return plan
