"""The suite of a single run, which lies beside its result and repeats it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.catalog.cases import SIZE_BOUNDS, size_of
from bench.catalog.policies import POLICIES
from bench.data.registry import similarity_of, size_bounds_of
from bench.runner.suite import MOST_IMAGES, Grid
from bench.spec.run import RECIPE_OPTIONS, RunSpec

SUITE_FILE = "suite.toml"
"""Name of the file in a run's folder."""


def suite_text(
    spec: RunSpec, swept: Sequence[RunSpec] = (), dataset: str | None = None,
    backbone: str | None = None, weights: str | None = None,
) -> str:  # fmt: skip
    """Return the TOML of a suite of just this run.

    Args:
        swept: Specs of the runs trained at once in one sweep, this one among them.
        dataset: Data set with its path; None: as the spec names it, which holds no path, so that
            the reader has to complete it.
        backbone: Network with the path of a user's own code; None as for ``dataset``.
        weights: Path of a file of weights; None as for ``dataset``.
    """
    kind = spec.case.dataset.name.partition(":")[0]
    comments = {
        "# dataset: complete the path of the folder": dataset is None and kind == "folder",
        "# dataset: complete the path of the folder that holds images/ and labels/":
            dataset is None and kind == "rvl_cdip" and ":" in spec.case.dataset.name,
        "# backbones: complete the path, module:PATH/FILE.py:FUNCTION":
            backbone is None and spec.code_sha256,
        "# weights: complete the path of the file":
            weights is None and spec.weights.kind == "file",
    }  # fmt: skip
    suite = {"name": "repeat", "backends": [spec.backend], "seeds": [spec.seed]}
    grid = {
        key: value
        for key, value in _grid(spec, swept, dataset, backbone, weights).items()
        if value is not None and value != Grid.model_fields[key].default
    }
    told = [text for text, is_needed in comments.items() if is_needed]
    return "\n".join([*told, *_toml(suite), "", "[[grid]]", *_toml(grid), ""])


def _toml(table: dict[str, Any]) -> list[str]:
    """Return a line of TOML for each key. Strings, numbers and lists are written as in JSON, but
    letters beyond ASCII as they are, since TOML has no surrogates; and DEL, which TOML forbids, as
    an escape."""
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for key, value in table.items()
    ]


def _grid(
    spec: RunSpec, swept: Sequence[RunSpec], dataset: str | None, backbone: str | None,
    weights: str | None,
) -> dict[str, Any]:  # fmt: skip
    recipe, data, policy = spec.recipe, spec.case.dataset, spec.policy
    known = POLICIES.get(policy.name, policy)
    source = weights or spec.weights.source
    wanted = {"file": source, "random": "random"}.get(spec.weights.kind)
    rates = {s.recipe.learning_rate / known.learning_rate_scale for s in (spec, *swept)}
    decays = {s.recipe.weight_decay for s in (spec, *swept)}
    known_similarity = similarity_of(data.name) == spec.case.similarity
    # A fold has the images that are left; the command repeats all folds.
    parts = ("train", "val", "test") if data.fold is None else ()
    return {
        "case": spec.case.number,
        "dataset": dataset or data.name,
        **{f"{part}_images": getattr(data, f"{part}_images") for part in parts},
        "size_bounds": _bounds(spec),
        "similarity": None if known_similarity else spec.case.similarity,
        "backbones": [backbone or spec.backbone],
        "policies": [policy.name],
        "boundary": policy.boundary if policy.boundary != known.boundary else None,
        "weights": None if known.initialisation == "random" else wanted,
        **{name: getattr(recipe, name) for name in RECIPE_OPTIONS},
        "learning_rate": sorted(rates) if len(rates) > 1 else min(rates),
        "weight_decay": sorted(decays) if len(decays) > 1 else min(decays),
        "tune": "lr" if recipe.learning_rate_grid else None,
        "mode": [spec.mode] if spec.mode != "matched" else None,
    }  # fmt: skip


def _bounds(spec: RunSpec) -> list[int] | None:
    """Return bounds that give the data the size in the spec; None if they have it by default."""
    data, size = spec.case.dataset, spec.case.size
    if size_of(data.train_images, size_bounds_of(data.name) or SIZE_BOUNDS) == size:
        return None
    most = {"small": [MOST_IMAGES - 1, MOST_IMAGES], "medium": [1, MOST_IMAGES], "large": [1, 2]}
    return most[size]
