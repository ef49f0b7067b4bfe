"""``list``: cases, backbones, policies, data sets, suites and backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tabulate import tabulate

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS
from bench.catalog.cases import CASES, SIZE_BOUNDS
from bench.catalog.policies import (
    BASE_LEARNING_RATE,
    DESCRIPTIONS,
    POLICIES,
    PRESCRIBED,
    default_rate,
    policy_of,
)
from bench.cli.options import ListOptions, interpreters
from bench.cli.output import show, tell
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
from bench.storage.text_files import json_text
from bench.system import package_version
from bench.workers.process import Interpreters, ask
from bench.workers.tasks import CountTask, ParameterCounts

Items = list[dict[str, Any]]


def list_command(options: ListOptions) -> None:
    """Print the list called ``what``, or the names of all lists if it is ''; raise UserError if
    there is no such list."""
    what, python = options.what, interpreters(options.python)
    if what:
        _, made = LISTS[choose("list", what, LISTS)]
        items = made() if made else _backbones(options, python)
    else:
        items = [{"list": name, "shows": shows} for name, (shows, _) in LISTS.items()]
    if options.as_json:
        show(json_text({what or "lists": items}))
        return
    rows = [[_text(v) for v in item.values()] for item in items]
    headings = [h.replace("_", " ") for h in items[0]]
    alignment = ["right" if type(v) is int else "left" for v in items[0].values()]
    show(tabulate(rows, headings, "simple", disable_numparse=True, colalign=alignment))


def _text(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.3g}"
        case list() | tuple():
            return ", ".join(map(str, value))
    return "–" if value is None else str(value)


def _cases() -> Items:
    small, medium = SIZE_BOUNDS
    images = {
        "small": f"up to {small:,}", "medium": f"up to {medium:,}", "large": f"more than {medium:,}"
    }  # fmt: skip
    return [
        {
            "case": number,
            "size": size,
            "similarity": similarity.replace("_", " "),
            "policy": PRESCRIBED[number],
            "images": images[size],
        }
        for number, (size, similarity) in CASES.items()
    ]


def _trains_from(policy: Policy) -> str:
    """Return the boundaries of the phases, in order; those of stages depend on the network."""
    if policy.phases == "by_stage":
        return "head, …, all"
    return ", ".join(phase.boundary for phase in policy.phases) or policy.boundary


def _policies() -> Items:
    return [
        {
            "name": policy.name,
            "trains_from": _trains_from(policy),
            "starts_from": policy.initialisation,
            "head_learning_rate": ", ".join(
                f"{name} {default_rate(policy.name, name):g}" for name in BASE_LEARNING_RATE
            ),
            "backbone_over_head": 0.0 if policy.boundary == "head" else policy.backbone_scale,
            "stage_over_next": policy.stage_decay,
            "description": DESCRIPTIONS[policy.name],
        }
        for policy in POLICIES.values()
    ]


def _suites() -> Items:
    return [
        {
            "name": suite.name,
            "grids": len(suite.grid),
            "backends": list(suite.backends),
            "seeds": list(suite.seeds),
            "description": suite.description,
        }
        for suite in map(load_suite, suite_names())
    ]


def _backends() -> Items:
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


def _backbones(options: ListOptions, python: Interpreters) -> Items:
    choose("backend", options.backend, BACKENDS)
    choose("policy", options.policy, POLICIES)
    hidden_units(options.head)
    counts = count_backbones(list(BACKBONES), options, python)
    tell(f"any other network is named in one of the forms {FORMS}")
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
    names: Sequence[str], options: ListOptions, python: Interpreters, boundary: str | None = None
) -> dict[str, ParameterCounts]:
    """Count the parameters of backbones of any kind as a backend builds them; ``boundary`` is the
    first trained part for a policy that trains the last stage. Raise what
    ``bench.workers.process.ask`` raises."""
    cache = cache_root()
    entries = backbones(names, python, cache)
    sizes = {name: options.px or entry.native_px for name, entry in entries.items()}
    for name, entry in entries.items():
        check_px(name, entry, sizes[name])
    tell(f"building {len(names)} networks with {options.backend} …")
    folders = architecture_folders(sizes, cache, python)
    task = CountTask(
        architectures=tuple(folders[name].name for name in names),
        policy=policy_of(options.policy, boundary),
        recipe=plain_recipe(options.head),
        classes=options.classes,
        device="cpu",
    )
    answer = ask(options.backend, task, python, "counting parameters", cache)
    return dict(zip(names, answer.counts, strict=True))


LISTS: dict[str, tuple[str, Callable[[], Items] | None]] = {
    "cases": (
        "the article's four cases: size and similarity of the data, prescribed policy", _cases
    ),
    "backbones": (
        "networks of the catalogue, with their parameters as a backend counts them", None
    ),
    "policies": ("which part of the network trains, and its learning rates", _policies),
    "datasets": ("data sets that come with Thawbench, and kinds of own data", dataset_kinds),
    "suites": ("grids of runs that come with Thawbench", _suites),
    "backends": ("frameworks", _backends),
}  # fmt: skip
"""Argument of ``list`` → description, and function that returns the items; None: ``_backbones``,
which also needs the options."""
