"""The command that repeats a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.catalog.cases import SIZE_BOUNDS, size_of
from bench.catalog.policies import POLICIES
from bench.runner.suite import Grid
from bench.spec.run import RECIPE_OPTIONS, RunSpec

END = "THAWBENCH"


def repeat_command(
    spec: RunSpec, swept: Sequence[RunSpec] = (), is_incomplete: bool = False
) -> str:
    """Return shell commands that write a suite of just this run, and run it.

    A spec holds no paths of the machine that it ran on, so the reader has to complete the path of
    a folder of images, a weights file or a user's own network.

    Args:
        spec: Spec of the run.
        swept: Specs of the runs trained at once in one sweep, this one among them.
        is_incomplete: True if unreadable images were left out.
    """
    more = " --skip-unreadable" if is_incomplete else ""
    lines = [*_comments(spec), *_suite(spec, swept)]
    text = "\n".join(lines)
    return (
        f"cat > repeat.toml <<'{END}'\n{text}\n{END}\n"
        f"python run_bench.py run --suite repeat.toml --device {spec.device}{more}"
    )


def _comments(spec: RunSpec) -> list[str]:
    comments = []
    if spec.case.dataset.name.startswith("folder:"):
        comments.append("# dataset: complete the path of the folder")
    if spec.case.dataset.name.startswith("rvl_cdip:"):
        comments.append("# dataset: complete the path of the folder that holds images/ and labels/")
    if spec.code_sha256 is not None:
        comments.append("# backbones: complete the path, module:PATH/FILE.py:FUNCTION")
    if spec.weights.kind == "file":
        comments.append("# weights: complete the path of the file")
    return comments


def _suite(spec: RunSpec, swept: Sequence[RunSpec]) -> list[str]:
    grid = {key: value for key, value in _grid(spec, swept).items() if _is_needed(key, value)}
    return [
        'name = "repeat"',
        f"backends = {_toml([spec.backend])}",
        f"seeds = {_toml([spec.seed])}",
        "",
        "[[grid]]",
        *(f"{key} = {_toml(value)}" for key, value in grid.items()),
    ]


def _is_needed(key: str, value: Any) -> bool:
    """Return True if the value is not the default of a suite."""
    return value is not None and value != Grid.model_fields[key].default


def _grid(spec: RunSpec, swept: Sequence[RunSpec]) -> dict[str, Any]:
    recipe, data, policy = spec.recipe, spec.case.dataset, spec.policy
    known = POLICIES.get(policy.name, policy)
    weights = {"file": spec.weights.source, "random": "random"}.get(spec.weights.kind)
    return {
        "case": spec.case.number,
        "dataset": data.name,
        "train_images": data.train_images,
        "val_images": data.val_images,
        "test_images": data.test_images,
        "size_bounds": _bounds(spec),
        "similarity": spec.case.similarity if data.name.startswith("folder:") else None,
        "backbones": [spec.backbone],
        "policies": [policy.name],
        "boundary": policy.boundary if policy.boundary != known.boundary else None,
        "weights": None if known.initialisation == "random" else weights,
        **{name: getattr(recipe, name) for name in RECIPE_OPTIONS},
        "learning_rate": _rates(spec, swept, known.learning_rate_scale),
        "weight_decay": _decays(spec, swept),
        "tune": "lr" if recipe.learning_rate_grid else None,
        "mode": [spec.mode] if spec.mode != "matched" else None,
    }  # fmt: skip


def _rates(spec: RunSpec, swept: Sequence[RunSpec], scale: float) -> Any:
    rates = sorted({s.recipe.learning_rate / scale for s in swept} if swept else ())
    return rates if len(rates) > 1 else spec.recipe.learning_rate / scale


def _decays(spec: RunSpec, swept: Sequence[RunSpec]) -> Any:
    decays = sorted({s.recipe.weight_decay for s in swept} if swept else ())
    return decays if len(decays) > 1 else spec.recipe.weight_decay


def _bounds(spec: RunSpec) -> list[int] | None:
    """Return bounds that give the data the size in the spec; None if they have it by default."""
    images, size = spec.case.dataset.train_images, spec.case.size
    if not spec.case.dataset.name.startswith("folder:") or size_of(images, SIZE_BOUNDS) == size:
        return None
    return {"small": [images, images + 1], "medium": [images - 1, images], "large": [1, 2]}[size]


def _toml(value: Any) -> str:
    """Return a value as TOML: strings, numbers and lists are written as in JSON."""
    return json.dumps(value)
