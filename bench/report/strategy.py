"""The strategy map: size × similarity, the best policy in each cell, beside the article's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.catalog.cases import CASES
from bench.catalog.policies import PRESCRIBED
from bench.report.cells import Contest, contestant
from bench.report.words import number_of, percent

SIZES = ("small", "medium", "large")
SIMILARITIES = ("similar", "not_similar")


def strategy_map(contests: Sequence[Contest]) -> dict[str, Any] | None:
    """For the page (see ``document``); None where the data say nothing of size and similarity, or
    accuracy says nothing of policies.

    A cell names the policies that lead in every question that was asked of such data; where no
    policy leads in all of them, those that lead in any, as a tie.
    """
    known = [c for c in contests if c.row["similarity"] in SIMILARITIES and c.is_telling]
    if not known:
        return None
    prescribed: dict[tuple[str, str], str] = {
        place: PRESCRIBED[case] for case, place in CASES.items()
    }
    cells = []
    for similarity in SIMILARITIES:
        for size in SIZES:
            here = [c for c in known if (c.row["size"], c.row["similarity"]) == (size, similarity)]
            cells.append(
                {
                    "size": size,
                    "similarity": similarity,
                    "prescribed": prescribed.get((size, similarity)),
                    "best": _best(here),
                    "text": _words(here),
                }
            )
    return {"sizes": list(SIZES), "similarities": list(SIMILARITIES), "cells": cells}


def _best(contests: Sequence[Contest]) -> list[str]:
    # The first two where one alone leads by its interval, but not after correction.
    leaders = [
        [contestant(cell) for cell in (c.leaders if c.is_won or c.leaders[1:] else c.cells[:2])]
        for c in contests
    ]
    if not leaders:
        return []
    everywhere = [name for name in leaders[0] if all(name in found for found in leaders)]
    return everywhere or list(dict.fromkeys(name for found in leaders for name in found))


def _words(contests: Sequence[Contest]) -> str:
    if not contests:
        return "not run"
    first = max(contests, key=lambda c: c.cells[0].top1.value)
    best = first.cells[0]
    tie = "" if first.is_won else ", in a tie"
    return (
        f"{percent(best.top1)} at best ({contestant(best)}{tie}, {first.row['backbone']}, "
        f"{first.row['backend']}); {number_of(len(contests), 'question')}"
    )
