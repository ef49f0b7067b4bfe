"""When features are taken from the cache, and when they are computed to time a network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bench.advise import trials
from bench.advise.budget import Budget
from bench.advise.cost import CostModel
from bench.advise.trials import Laboratory
from bench.training.depth_features import DepthFeatures


class _Workers:
    """Workers that count what they are asked."""

    def __init__(self) -> None:
        self.asked = 0

    def do(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        return SimpleNamespace(require=lambda *_: None)


@pytest.mark.parametrize(("measures_speed", "expected"), [(False, 0), (True, 1)])
def test_stored_features_are_computed_again_only_to_time_a_network(
    measures_speed: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a call, as the learning curve uses them again."""
    stored = DepthFeatures(np.zeros((2, 3)), (), 1.0)
    for name, value in (("load_features", stored), ("features_key", "key"), ("pack_key", "pack"),
                        ("fresh_log", Path("log")),
                        ("environment_of", SimpleNamespace(environment_id="e"))):  # fmt: skip
        monkeypatch.setattr(trials, name, lambda *_, value=value: value)
    monkeypatch.setattr(Laboratory, "blueprint", lambda *_, **__: Path("blueprint"))
    monkeypatch.setattr(CostModel, "note_inference", lambda *_: None)
    workers, any_ = _Workers(), cast(Any, None)
    laboratory = Laboratory(
        cast(Any, SimpleNamespace(dataset=SimpleNamespace(classes=("a", "b")))),
        cast(Any, SimpleNamespace(interpreters=None, cache=Path("cache"))),
        any_, cast(Any, workers), any_, any_, Budget(60.0), 32, 16, "cpu",
        measures_speed=measures_speed,
    )  # fmt: skip
    assert laboratory.features("squeezenet1_1") is stored
    assert laboratory.features("squeezenet1_1") is stored
    assert workers.asked == expected
