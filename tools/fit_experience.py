"""``python -m tools.fit_experience DIR…``: refit the experience that comes with Thawbench.

Reads results folders or pages, measures how far accuracies spread over seeds for each kind of
policy and how much of an accuracy's variance is due to the test images, and writes
``bench/analysis/experience.json``. The spread is made a quarter larger than measured: experience
that is too small makes intervals too narrow, one that is too large only makes them wider.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from bench.analysis.findings import findings_of
from bench.analysis.folders import load_runs
from bench.analysis.groups import SeedGroup
from bench.analysis.rows import rows_of
from bench.analysis.scores import Kind
from bench.analysis.seed_spread import experience
from bench.errors import UserError, number_of
from bench.report.from_page import load_page
from bench.report.labels import values_of
from bench.storage.results import StoredRun
from bench.system import project_root

CAUTION = 1.25
"""Factor by which the spread is made larger."""
FILE = project_root() / "bench" / "analysis" / "experience.json"
LEAST_GROUPS = 4
"""Fewest experiments of a kind from which its spread is fitted; with fewer it stays as it was."""


def spread_over_seeds(groups: Sequence[SeedGroup], kind: Kind) -> float | None:
    """Return the root mean square, over experiments, of the standard deviation over seeds on the
    scale of log odds, without what the answers to single images add; None of too few."""
    squares = [
        max(s.seed_variance - (s.rest or 0.0) / s.images, 0.0) / s.slope**2
        for s in (group.scores for group in groups)
        if s.kind == kind and len(s.seeds) > 1
    ]
    return float(np.sqrt(np.mean(squares))) if len(squares) >= LEAST_GROUPS else None


def image_share(pairs: Sequence[tuple[SeedGroup, SeedGroup]]) -> float | None:
    """Return the variance over images of a difference between two policies, relative to that of
    independent answers; None without answers to single images."""
    shares = []
    for a, b in ((x.scores, y.scores) for x, y in pairs):
        if a.by_image is None or b.by_image is None or a.images != b.images:
            continue
        rest = (a.rest or 0.0) / len(a.seeds) + (b.rest or 0.0) / len(b.seeds)
        own = float((b.by_image - a.by_image).var(ddof=1)) - rest
        shares.append(max(own, 0.0) / (a.slope + b.slope))
    return float(np.quantile(shares, 0.9)) if shares else None


def fitted(runs: Sequence[StoredRun]) -> dict[str, object]:
    """Return the document of ``experience.json``; raise UserError if no experiment has two
    seeds."""
    rows = rows_of(runs)
    found = findings_of(rows)
    several = [group for group in found.groups if len(group.seeds) > 1]
    if not several:
        raise UserError("No experiment here has two seeds, so nothing is known of their spread.")
    before = experience()
    spread = {}
    for kind in get_args(Kind):
        measured = spread_over_seeds(several, kind)
        spread[kind] = before.spread[kind] if measured is None else round(CAUTION * measured, 3)
    pairs = [
        (entry.groups[0], contest.entries[0].groups[0])
        for contest in found.contests
        for entry in contest.entries[1:]
    ]
    share = image_share(pairs)
    ok = [row for row in rows if row.is_ok]
    return {
        "spread": spread,
        "image_share": before.image_share if share is None else round(share, 2),
        "source": f"{number_of(len(ok), 'run')} of {', '.join(values_of(ok, 'backbone'))} on "
        f"{', '.join(values_of(ok, 'dataset'))}, {number_of(len(several), 'experiment')} with "
        f"{min(len(g.seeds) for g in several)} seeds or more",
    }


def main(places: Sequence[str]) -> None:
    """Fit, and write the file."""
    folders = [Path(place) for place in places if Path(place).is_dir()]
    runs = load_runs(folders)[0] if folders else []
    runs += [run for place in places if Path(place).is_file() for run in load_page(Path(place))[0]]
    text = json.dumps(fitted(runs), indent=2) + "\n"
    FILE.write_text(text, encoding="utf-8")
    print(f"{FILE}:\n{text}")


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit("usage: python -m tools.fit_experience DIR…"))
