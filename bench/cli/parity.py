"""``parity``: what it asks and prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from tabulate import tabulate

from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.cli.output import print_json
from bench.cli.progress import watcher
from bench.errors import Unavailable, UserError, choose
from bench.native.differences import ledger_json, native_ledger, print_ledger
from bench.network.backbones import check_name
from bench.network.head import hidden_units
from bench.network.phases import needs_stages
from bench.parity.model import Level, PairProof
from bench.parity.plan import DTYPES, Question, environments_of
from bench.parity.run import prove_missing
from bench.runner.planner import missing_packages, resolve_devices
from bench.spec.run import OptimizerName, Precision
from bench.storage.cache import cache_root
from bench.workers.process import Interpreters

DEFAULT_BACKBONES = ("efficientnet_lite0", "squeezenet1_1")
"""Those of the default suite."""
NATIVE_BACKBONES = ("resnet50",)
"""One that both frameworks have by themselves."""
NATIVE_POLICIES = ("fine_tune_all",)
"""One that freezes nothing, so that every knob is in force."""
MODES = ("matched", "native")
DEFAULT_DTYPES = ("float64",)
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adamw")
PRECISIONS: dict[str, Precision] = {dtype: precision for precision, dtype in DTYPES.items()}
SHOWN_LEVELS = ("logits", "gradients", "losses")
"""Levels that stand in the table; a pair that did not pass is listed with all of them."""


@dataclass(frozen=True)
class Asked:
    """``parity`` with its options, as given."""

    backbones: Sequence[str]
    """None: the default ones of the mode."""
    policies: Sequence[str] | None
    """None: all."""
    optimizers: Sequence[str]
    dtypes: Sequence[str] | None
    """None: float64."""
    backends: Sequence[str]
    head: str | None
    """None: the default one of the mode."""
    px: int | None
    boundary: str | None
    device: str
    mode: str
    fresh: bool
    interpreters: Interpreters


def parity_command(asked: Asked, as_json: bool) -> bool:
    """Prove, or list what differs; returns whether all was shown.

    Raises:
        UserError: A name is unknown, or there are fewer than two backends.
        Unavailable: A backend's package is missing.
    """
    _check(asked)
    if asked.mode == "native":
        return _native(asked, as_json)
    pairs = prove_missing(_question(asked), asked.fresh, watcher)
    if as_json:
        print_json(document(pairs))
    else:
        print(text(pairs))
    return all(pair.passed for pair in pairs)


def _check(asked: Asked) -> None:
    for kind, names, known in (
        ("policy", asked.policies or (), POLICIES),
        ("optimizer", asked.optimizers, OPTIMIZERS),
        ("dtype", asked.dtypes or (), PRECISIONS),
        ("backend", asked.backends, BACKENDS),
        ("mode", (asked.mode,), MODES),
    ):
        for name in names:
            choose(kind, name, cast(Sequence[str], known))
    for name in asked.backbones:
        check_name("backbone", name)
    hidden_units(asked.head or "original")
    last = [name for name, policy in POLICIES.items() if policy.boundary == "last_stage"]
    if asked.boundary is not None and not set(last) & set(asked.policies or POLICIES):
        raise UserError(
            f"--boundary {asked.boundary}: none of the policies asked for has one to move.",
            f"Add --policy {last[0]}.",
        )
    if asked.mode == "native":
        _check_native(asked)
    if asked.device == "all":
        raise UserError("--device all: a proof is of one device.", "Say --device cpu, or cuda:0.")
    if len(asked.backends) < 2:
        raise UserError("A proof needs two backends.", "Such as --backends torch,keras-tensorflow.")
    for environment in environments_of(_question(asked)):
        reason = missing_packages(environment)
        if reason:
            raise Unavailable(reason)


def _check_native(asked: Asked) -> None:
    """A ledger is made anew each time, on the CPU, in float32: options about that say nothing."""
    given = {
        "--dtype": asked.dtypes is not None,
        "--boundary": asked.boundary is not None,
        "--device": asked.device not in ("auto", "cpu"),
        "--fresh": asked.fresh,
    }
    idle = [option for option, is_given in given.items() if is_given]
    if idle:
        raise UserError(
            f"{', '.join(idle)}: of no effect with --mode native, which proves nothing: it lists "
            "what differs, in float32 on the CPU.",
            f"Leave out {', '.join(idle)}, or --mode native.",
        )
    staged = [name for name in asked.policies or () if needs_stages(POLICIES[name])]
    if staged:
        raise UserError(
            f"--policy {staged[0]}: native mode has no stages for it.",
            f"Use another of {', '.join(n for n, p in POLICIES.items() if not needs_stages(p))}.",
        )


def _question(asked: Asked) -> Question:
    return Question(
        backbones=asked.backbones or DEFAULT_BACKBONES,
        policies=asked.policies or list(POLICIES),
        optimizers=cast(Sequence[OptimizerName], asked.optimizers),
        precisions=[PRECISIONS[dtype] for dtype in asked.dtypes or DEFAULT_DTYPES],
        backends=asked.backends,
        head=asked.head or "original",
        px=asked.px,
        boundary=asked.boundary,
        device=resolve_devices(asked.device)[0],
        interpreters=asked.interpreters,
        cache=cache_root(),
    )


def _native(asked: Asked, as_json: bool) -> bool:
    """The knob ledger, for each optimizer and policy; whether each has two sides to compare."""
    ledgers = [
        ledger
        for optimizer in asked.optimizers
        for policy in asked.policies or NATIVE_POLICIES
        for ledger in native_ledger(
            asked.backbones or NATIVE_BACKBONES,
            asked.backends,
            asked.interpreters,
            cache_root(),
            px=asked.px,
            optimizer=cast(OptimizerName, optimizer),
            policy=policy,
            head=asked.head or "linear",
        )
    ]
    if as_json:
        print_json(ledger_json(ledgers))
    else:
        print_ledger(ledgers)
    return all(len(ledger["unavailable"]) <= len(asked.backends) - 2 for ledger in ledgers)


def document(pairs: Sequence[PairProof]) -> dict[str, Any]:
    """What ``parity --json`` prints."""
    return {
        "passed": all(pair.passed for pair in pairs),
        "pairs": [pair.model_dump(mode="json") for pair in pairs],
    }


def text(pairs: Sequence[PairProof]) -> str:
    """A table of all pairs, and every level of those that did not pass."""
    rows = [
        [
            pair.backbone,
            pair.policy,
            pair.optimizer,
            pair.dtype,
            " = ".join(pair.backends),
            *(_figure(pair, name) for name in SHOWN_LEVELS),
            "–" if pair.loss_fall is None else f"{pair.loss_fall:.0%}",
            "shown" if pair.passed else "NOT SHOWN",
        ]
        for pair in pairs
    ]
    headings = ["backbone", "policy", "optimizer", "dtype", "backends",
                *(f"{name} (floor)" for name in SHOWN_LEVELS), "loss fell", "parity"]  # fmt: skip
    parts = [tabulate(rows, headings, "simple", disable_numparse=True)]
    parts += [_failure(pair) for pair in pairs if not pair.passed]
    return "\n\n".join(parts)


def _figure(pair: PairProof, name: str) -> str:
    level = next((x for x in pair.levels if x.name == name), None)
    return "–" if level is None else f"{_number(level.value)} ({_number(level.floor)})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}" if value else "0"


def _failure(pair: PairProof) -> str:
    lines = [
        f"{pair.backbone} {pair.policy} {pair.optimizer} {pair.dtype} "
        f"{' = '.join(pair.backends)}: {pair.reason}"
    ]
    if pair.first_difference:
        first = pair.first_difference
        lines.append(
            f"  first operation that differs: {first.operation} (module '{first.module_path}')"
        )
    lines += [f"  {_level(level)}" for level in pair.levels]
    return "\n".join(lines)


def _level(level: Level) -> str:
    word = "ok " if level.passed else "NO " if level.counts else "–  "
    return (
        f"{word} {level.name:<22} {_number(level.value):>8} "
        f"at most {level.tolerance:.0e}, floor {_number(level.floor)}"
        f"{f', largest at {level.detail}' if level.detail else ''}"
    )
