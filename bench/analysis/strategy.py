"""The strategy map: size × similarity, the best policy in each cell, beside the article's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.analysis.groups import Contest, SeedGroup, contestant
from bench.catalog.cases import CASES
from bench.catalog.policies import PRESCRIBED

SIZES = ("small", "medium", "large")
SIMILARITIES = ("similar", "not_similar")


def strategy_map(contests: Sequence[Contest]) -> dict[str, Any] | None:
    """For the page (see ``document``); None where the data say nothing of size and similarity, or
    accuracy says nothing of policies.

    A cell names one policy where it is the best alone in every question that was asked of such
    data; else those that may be the best in every one of them: they tie. Where that is not two,
    those that may be the best in any: which one is depends on the network or the backend.
    """
    known = [c for c in contests if c.row.spec.case.similarity in SIMILARITIES and c.is_telling]
    if not known:
        return None
    prescribed: dict[tuple[str, str], str] = {
        place: PRESCRIBED[case] for case, place in CASES.items()
    }
    cells = []
    for similarity in SIMILARITIES:
        for size in SIZES:
            here = [
                c
                for c in known
                if (c.row.spec.case.size, c.row.spec.case.similarity) == (size, similarity)
            ]
            best, is_tie = _best(here)
            wanted = prescribed.get((size, similarity))
            article = {contestant(ours) for c in here if (ours := c.named(wanted)) is not None}
            cells.append(
                {
                    "size": size,
                    "similarity": similarity,
                    "prescribed": wanted,
                    "best": [contestant(cell) for cell in best],
                    "is_tie": is_tie,
                    "is_prescribed_run": bool(article),
                    "is_prescribed": [contestant(cell) in article for cell in best],
                    "policies": len({contestant(cell) for c in here for cell in c.cells}),
                    "questions": len(here),
                    "contests": here,
                }
            )
    return {"sizes": list(SIZES), "similarities": list(SIMILARITIES), "cells": cells}


def _best(contests: Sequence[Contest]) -> tuple[list[SeedGroup], bool]:
    """A cell of each policy that may be the best, and whether they may be so in all questions."""
    leaders = [{contestant(cell): cell for cell in c.leaders} for c in contests]
    anywhere = {name: cell for found in leaders for name, cell in found.items()}
    everywhere = {n: c for n, c in anywhere.items() if all(n in found for found in leaders)}
    if len(everywhere) > 1:
        return list(everywhere.values()), True
    return list({**everywhere, **anywhere}.values()), False
