"""``parity``: prove that backends compute the same, or list what differs in native mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from tabulate import tabulate

from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.cli.options import ParityOptions, interpreters, names
from bench.cli.output import show, tell
from bench.cli.progress import summary, watcher
from bench.errors import Unavailable, UserError, choose
from bench.native.differences import differences_json, native_differences, print_differences
from bench.network.backbones import check_name
from bench.network.head import hidden_units
from bench.network.phases import needs_stages
from bench.parity.model import Level, PairProof
from bench.parity.plan import DTYPES, Question, environments_of
from bench.parity.run import prove_missing
from bench.runner.devices import resolve_devices
from bench.runner.planner import missing_packages
from bench.spec.run import OptimizerName, Precision
from bench.storage.cache import cache_root
from bench.storage.text_files import json_text

DEFAULT_BACKBONES = ("efficientnet_lite0", "squeezenet1_1")
"""Backbones of the default suite."""
NATIVE_BACKBONES = ("resnet50",)
"""Default of native mode: a backbone that both frameworks bring themselves."""
NATIVE_POLICIES = ("fine_tune_all",)
"""Default of native mode: a policy that freezes nothing, so that every setting is in force."""
MODES = ("matched", "native")
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adamw")
PRECISIONS: dict[str, Precision] = {dtype: precision for precision, dtype in DTYPES.items()}
SHOWN_LEVELS = ("logits", "gradients", "losses")
"""Levels in the table; a pair that did not pass is listed with all its levels."""


def parity_command(options: ParityOptions) -> bool:
    """Prove parity, or list what differs; return True if all parity was shown. Raise UserError if a
    name is unknown, or there are fewer than two backends; Unavailable if a package is missing."""
    policies, dtypes = names(options.policy) or (), names(options.dtype) or ("float64",)
    optimizers, backends = names(options.optimizer) or (), names(options.backends) or ()
    backbones = list(dict.fromkeys(options.backbones or ()))
    python, boundary = interpreters(options.python), options.boundary
    chosen: dict[str, tuple[Sequence[str], Iterable[str]]] = {
        "policy": (policies, POLICIES),
        "optimizer": (optimizers, OPTIMIZERS),
        "dtype": (dtypes, PRECISIONS),
        "backend": (backends, BACKENDS),
        "mode": ((options.mode,), MODES),
    }
    for kind, (wanted, known) in chosen.items():
        for name in wanted:
            choose(kind, name, known)
    for name in backbones:
        check_name("backbone", name)
    hidden_units(options.head or "original")
    last = [name for name, policy in POLICIES.items() if policy.boundary == "last_stage"]
    if boundary is not None and not set(last) & set(policies or POLICIES):
        raise UserError(
            f"--boundary {boundary}: none of the chosen policies has a boundary to move.",
            f"Add --policy {last[0]}.",
        )
    is_native = options.mode == "native"
    if is_native:
        _check_native(options, policies)
    if options.device == "all":
        message = "--device all: a proof covers one device."
        raise UserError(message, "Use --device cpu or --device cuda:0.")
    if len(backends) < 2:
        hint = "Use, for example, --backends torch,keras-tensorflow."
        raise UserError("A proof needs two backends.", hint)
    (device, *_), remark = resolve_devices(options.device, python)
    if remark:
        tell(remark)
    question = Question(
        backbones=backbones or (NATIVE_BACKBONES if is_native else DEFAULT_BACKBONES),
        policies=policies or (NATIVE_POLICIES if is_native else list(POLICIES)),
        optimizers=cast(Sequence[OptimizerName], optimizers),
        precisions=[PRECISIONS[dtype] for dtype in dtypes],
        backends=backends,
        head=options.head or ("linear" if is_native else "original"),
        px=options.px,
        boundary=boundary,
        device=device,
        interpreters=python,
        cache=cache_root(),
    )
    for environment in environments_of(question):
        if reason := missing_packages(environment):
            raise Unavailable(reason)
    if is_native:
        return _list_native_differences(question, options.as_json)
    pairs = prove_missing(question, options.fresh, watcher)
    show(json_text(document(pairs)) if options.as_json else text(pairs))
    return all(pair.passed for pair in pairs)


def _check_native(options: ParityOptions, policies: Sequence[str]) -> None:
    """Raise UserError for options without effect in native mode, and policies that it lacks."""
    given = {
        "--dtype": options.dtype is not None,
        "--boundary": options.boundary is not None,
        "--device": options.device not in ("auto", "cpu"),
        "--fresh": options.fresh,
    }
    idle = [option for option, is_given in given.items() if is_given]
    if idle:
        raise UserError(
            f"{', '.join(idle)}: of no effect with --mode native, which proves nothing: it lists "
            "what differs, in float32 on the CPU.",
            f"Leave out {', '.join(idle)}, or --mode native.",
        )
    staged = [name for name in policies if needs_stages(POLICIES[name])]
    if staged:
        raise UserError(
            f"--policy {staged[0]}: native mode has no stages for it.",
            f"Use another of {', '.join(n for n, p in POLICIES.items() if not needs_stages(p))}.",
        )


def _list_native_differences(question: Question, as_json: bool) -> bool:
    """Print the native differences of each backbone; return True if all compare two backends."""
    tables = [
        table
        for optimizer in question.optimizers
        for policy in question.policies
        for table in native_differences(
            question.backbones, question.backends, question.interpreters, question.cache,
            px=question.px, optimizer=optimizer, policy=policy, head=question.head,
        )
    ]  # fmt: skip
    if as_json:
        show(json_text(differences_json(tables)))
    else:
        print_differences(tables)
    return all(len(table["unavailable"]) <= len(question.backends) - 2 for table in tables)


def document(pairs: Sequence[PairProof]) -> dict[str, Any]:
    """Return the document of ``parity --json``."""
    passed = all(pair.passed for pair in pairs)
    return {"passed": passed, "pairs": [pair.model_dump(mode="json") for pair in pairs]}


def text(pairs: Sequence[PairProof]) -> str:
    """Return a table of all pairs, and every level of those that did not pass."""
    rows = [
        [
            pair.backbone, pair.policy, pair.optimizer, pair.dtype, " = ".join(pair.backends),
            *(_level_cell(pair, name) for name in SHOWN_LEVELS),
            "–" if pair.loss_fall is None else f"{pair.loss_fall:.0%}",
            "shown" if pair.passed else "NOT SHOWN",
        ]
        for pair in pairs
    ]  # fmt: skip
    headings = ["backbone", "policy", "optimizer", "dtype", "backends",
                *(f"{name} (floor)" for name in SHOWN_LEVELS), "loss fell", "parity"]  # fmt: skip
    parts = [tabulate(rows, headings, "simple", disable_numparse=True)]
    for pair in pairs:
        if not pair.passed:
            lines = [summary(pair)]
            if first := pair.first_difference:
                place = f"{first.operation} (module '{first.module_path}')"
                lines.append(f"  first operation that differs: {place}")
            parts.append("\n".join([*lines, *(f"  {_level(level)}" for level in pair.levels)]))
    return "\n\n".join(parts)


def _level_cell(pair: PairProof, name: str) -> str:
    level = next((x for x in pair.levels if x.name == name), None)
    return "–" if level is None else f"{_number(level.value)} ({_number(level.floor)})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}" if value else "0"


def _level(level: Level) -> str:
    word = "ok " if level.passed else "NO " if level.counts else "–  "
    return (
        f"{word} {level.name:<22} {_number(level.value):>8} "
        f"at most {level.tolerance:.0e}, floor {_number(level.floor)}"
        f"{f', largest at {level.detail}' if level.detail else ''}"
    )
