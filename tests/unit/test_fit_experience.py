"""The shipped experience follows from results by one command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.analysis.seed_spread import experience
from bench.errors import UserError
from tests.unit.made_runs import Make, published_before
from tools.fit_experience import CAUTION, fitted


def test_the_published_suite_gives_the_shipped_experience(tmp_path: Path) -> None:
    """Within the caution that it was rounded with."""
    found = fitted(published_before(tmp_path))
    for kind, value in experience().spread.items():
        assert found["spread"][kind] == pytest.approx(value, rel=0.35)  # type: ignore[index]
    assert str(found["source"]).startswith("288 runs of efficientnet_lite0, squeezenet1_1 on ")


def test_the_spread_is_that_of_the_seeds_on_the_scale_of_log_odds(make: Make) -> None:
    shares = (0.80, 0.86, 0.74, 0.80)
    runs = [make(share, "freeze_all", seed, luck=0.0, recipe={"px": px})
            for px in (32, 64, 96, 128) for seed, share in enumerate(shares)]  # fmt: skip
    found = fitted(runs)
    # Each seed is right on the first images, so that single answers have a variance of their own.
    right = np.arange(400)[None, :] < np.array(shares)[:, None] * 400
    own = np.var(shares, ddof=1) - right.var(axis=0, ddof=1).mean() / 400
    p = (0.8 * 400 + 0.5) / 401
    expected = CAUTION * np.sqrt(own) / (p * (1 - p))
    assert found["spread"]["head"] == pytest.approx(expected, abs=1e-3)  # type: ignore[index]
    assert found["spread"]["all"] == experience().spread["all"]  # type: ignore[index]


def test_one_seed_teaches_nothing(make: Make) -> None:
    with pytest.raises(UserError, match="two seeds"):
        fitted([make(0.9)])
