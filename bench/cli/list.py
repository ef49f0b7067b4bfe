"""``list``: cases, backbones, policies, data sets, suites and backends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS
from bench.catalog.cases import CASES, SIZE_BOUNDS
from bench.catalog.policies import BASE_LEARNING_RATE, DESCRIPTIONS, POLICIES, PRESCRIBED
from bench.cli.output import print_json
from bench.data import dataset_kinds
from bench.errors import Unavailable, choose
from bench.network.backbones import FORMS, backbones, check_px
from bench.network.export import architecture_folders
from bench.network.head import hidden_units
from bench.network.weights import pretrained_weights
from bench.runner.suite import load_suite, suite_names
from bench.spec.plain import plain_recipe
from bench.spec.run import Policy
from bench.storage.cache import cache_root
from bench.system import package_version
from bench.workers.process import Interpreters, ask
from bench.workers.tasks import CountTask, ParameterCounts

Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Counting:
    """Settings by which ``list backbones`` counts parameters."""

    policy: str
    """Policy whose trainable parameters are counted."""
    head: str
    classes: int
    """Outputs of the head."""
    backend: str
    """Backend that builds and counts."""
    px: int | None
    """Height and width of the input, in pixels; None: each network's own."""
    interpreters: Interpreters


def list_command(what: str, counting: Counting, as_json: bool) -> None:
    """Print the list called ``what``, or the names of all lists if it is ''.

    Raises:
        UserError: There is no such list, or a name in ``counting`` is unknown.
        WorkerFailed: The worker that counts parameters crashed.
    """
    items = LISTS[choose("list", what, LISTS)](counting) if what else _lists(counting)
    if as_json:
        print_json({what or "lists": items})
        return
    rows = [[_text(v) for v in item.values()] for item in items]
    headings = [h.replace("_", " ") for h in items[0]]
    numbers = [isinstance(v, int) and not isinstance(v, bool) for v in items[0].values()]
    alignment = ["right" if n else "left" for n in numbers]
    print(tabulate(rows, headings, "simple", disable_numparse=True, colalign=alignment))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return "–" if value is None else str(value)


def _lists(_: Counting) -> Items:
    return [{"list": name, "shows": ABOUT[name]} for name in LISTS]


def _cases(_: Counting) -> Items:
    return [
        {
            "case": number,
            "size": size,
            "similarity": similarity.replace("_", " "),
            "policy": PRESCRIBED[number],
            "images": {
                "small": f"up to {SIZE_BOUNDS[0]:,}",
                "medium": f"up to {SIZE_BOUNDS[1]:,}",
                "large": f"more than {SIZE_BOUNDS[1]:,}",
            }[size],
        }
        for number, (size, similarity) in CASES.items()
    ]


def _trains_from(policy: Policy) -> str:
    """Return the boundaries of the phases, in order; those of stages depend on the network."""
    if policy.phases == "by_stage":
        return "head, …, all"
    return ", ".join(phase.boundary for phase in policy.phases) or policy.boundary


def _policies(_: Counting) -> Items:
    return [
        {
            "name": policy.name,
            "trains_from": _trains_from(policy),
            "starts_from": policy.initialisation,
            "head_learning_rate": ", ".join(
                f"{name} {base * policy.learning_rate_scale:g}"
                for name, base in BASE_LEARNING_RATE.items()
            ),
            "backbone_over_head": 0.0 if policy.boundary == "head" else policy.backbone_scale,
            "stage_over_next": policy.stage_decay,
            "description": DESCRIPTIONS[policy.name],
        }
        for policy in POLICIES.values()
    ]


def _datasets(_: Counting) -> Items:
    return dataset_kinds()


def _suites(_: Counting) -> Items:
    suites = [load_suite(name) for name in suite_names()]
    return [
        {
            "name": suite.name,
            "grids": len(suite.grid),
            "backends": list(suite.backends),
            "seeds": list(suite.seeds),
            "description": suite.description,
        }
        for suite in suites
    ]


def _backends(_: Counting) -> Items:
    return [
        {
            "name": name,
            "packages": list(entry.packages),
            "installed": all(package_version(p) for p in entry.packages),
            "description": entry.description,
        }
        for name, entry in BACKENDS.items()
    ]


def has_weights(name: str) -> bool:
    """Return True if a backbone's pretrained weights are on this machine."""
    try:
        pretrained_weights(name, BACKBONES[name], download=False)
    except Unavailable:
        return False
    return True


def _backbones(counting: Counting) -> Items:
    choose("backend", counting.backend, BACKENDS)
    choose("policy", counting.policy, POLICIES)
    hidden_units(counting.head)
    counts = count_backbones(list(BACKBONES), counting)
    print(f"any other network is named in one of the forms {FORMS}", file=sys.stderr)
    return [
        {
            "name": name,
            **counts[name].model_dump(),
            "weights_available": has_weights(name),
            "native_px": entry.native_px,
            "stages": [stage for stage, _ in entry.stages],
            "licence": entry.sources[0].licence,
        }
        for name, entry in BACKBONES.items()
    ]


def count_backbones(
    names: Sequence[str], counting: Counting, boundary: str | None = None
) -> dict[str, ParameterCounts]:
    """Count the parameters of backbones as a backend builds them.

    Args:
        names: Backbones of any kind.
        counting: Policy, head, backend, size.
        boundary: First trained part, instead of the policy's own.

    Raises:
        UserError: A network cannot be built like this.
        Unavailable: The backend is not installed.
        WorkerFailed: The worker crashed.
    """
    cache = cache_root()
    entries = backbones(names, counting.interpreters, cache)
    sizes = {name: counting.px or entry.native_px for name, entry in entries.items()}
    for name, entry in entries.items():
        check_px(name, entry, sizes[name])
    print(f"building {len(names)} networks with {counting.backend} …", file=sys.stderr)
    folders = architecture_folders(sizes, cache, counting.interpreters)
    policy = POLICIES[counting.policy]
    if boundary is not None:
        policy = policy.model_copy(update={"boundary": boundary})
    task = CountTask(
        architectures=tuple(folders[name].name for name in names),
        policy=policy,
        recipe=plain_recipe(counting.head),
        classes=counting.classes,
        device="cpu",
    )
    answer = ask(counting.backend, task, counting.interpreters, "counting parameters", cache)
    return dict(zip(names, answer.counts, strict=True))


LISTS: dict[str, Callable[[Counting], Items]] = {
    "cases": _cases,
    "backbones": _backbones,
    "policies": _policies,
    "datasets": _datasets,
    "suites": _suites,
    "backends": _backends,
}
"""Argument of ``list`` → function that returns its items."""
ABOUT = {
    "cases": "the article's four cases: size and similarity of the data, prescribed policy",
    "backbones": "networks of the catalogue, with their parameters as a backend counts them",
    "policies": "which part of the network trains, and its learning rates",
    "datasets": "data sets that come with Thawbench, and kinds of own data",
    "suites": "grids of runs that come with Thawbench",
    "backends": "frameworks",
}
"""Argument of ``list`` → description."""
