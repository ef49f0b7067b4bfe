"""The strategy map: for each size and similarity, the best policies beside the article's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from bench.analysis.groups import Contest, SeedGroup, policy_variant
from bench.catalog.cases import CASES
from bench.catalog.policies import PRESCRIBED

SIZES = ("small", "medium", "large")
SIMILARITIES = ("similar", "not_similar")


def strategy_map(contests: Sequence[Contest]) -> dict[str, Any] | None:
    """Return the map for the page; None without telling contests of known size and similarity.

    An entry names one policy if it alone is best in every question asked of such data, else the
    policies that may be best in each of them (a tie). If that is not at least two, it names those
    that may be best in any: the best one depends on the network or the backend.
    """
    known = [c for c in contests if c.row.spec.case.similarity in SIMILARITIES and c.is_telling]
    if not known:
        return None
    cells = []
    for similarity, size in product(SIMILARITIES, SIZES):
        place = (size, similarity)
        here = [c for c in known if (c.row.spec.case.size, c.row.spec.case.similarity) == place]
        wanted = next((PRESCRIBED[case] for case, at in CASES.items() if at == place), None)
        best, is_tie = _best(here)
        article = {policy_variant(ours) for c in here if (ours := c.named(wanted)) is not None}
        cells.append(
            {
                "size": size,
                "similarity": similarity,
                "prescribed": wanted,
                "best": [policy_variant(group) for group in best],
                "is_tie": is_tie,
                "is_prescribed_run": bool(article),
                "is_prescribed": [policy_variant(group) in article for group in best],
                "policies": len({policy_variant(group) for c in here for group in c.groups}),
                "questions": len(here),
                "contests": here,
            }
        )
    return {"sizes": list(SIZES), "similarities": list(SIMILARITIES), "cells": cells}


def _best(contests: Sequence[Contest]) -> tuple[list[SeedGroup], bool]:
    """Return a group of each policy that may be best, and True if they tie in every question."""
    leaders = [{policy_variant(group): group for group in c.leaders} for c in contests]
    anywhere = {name: group for found in leaders for name, group in found.items()}
    everywhere = {n: g for n, g in anywhere.items() if all(n in found for found in leaders)}
    if len(everywhere) > 1:
        return list(everywhere.values()), True
    return list({**everywhere, **anywhere}.values()), False
