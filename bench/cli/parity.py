"""``parity``: prove that backends compute the same, or list what differs in native mode."""

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
from bench.native.differences import differences_json, native_differences, print_differences
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
"""Backbones of the default suite."""
NATIVE_BACKBONES = ("resnet50",)
"""Default of native mode: a backbone that both frameworks bring themselves."""
NATIVE_POLICIES = ("fine_tune_all",)
"""Default of native mode: a policy that freezes nothing, so that every setting is in force."""
MODES = ("matched", "native")
DEFAULT_DTYPES = ("float64",)
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adamw")
PRECISIONS: dict[str, Precision] = {dtype: precision for precision, dtype in DTYPES.items()}
SHOWN_LEVELS = ("logits", "gradients", "losses")
"""Levels in the table; a pair that did not pass is listed with all its levels."""


@dataclass(frozen=True)
class ParityCommand:
    """The options of ``parity``, as given."""

    backbones: Sequence[str]
    """Backbones; empty: the default ones of the mode."""
    policies: Sequence[str] | None
    """Policies; None: all."""
    optimizers: Sequence[str]
    dtypes: Sequence[str] | None
    """NumPy dtypes; None: float64."""
    backends: Sequence[str]
    head: str | None
    """Head; None: the default one of the mode."""
    px: int | None
    boundary: str | None
    device: str
    mode: str
    fresh: bool
    interpreters: Interpreters


def parity_command(command: ParityCommand, as_json: bool) -> bool:
    """Prove parity, or list what differs; return True if all parity was shown.

    Raises:
        UserError: A name is unknown, or there are fewer than two backends.
        Unavailable: A package of a backend is missing.
    """
    _check(command)
    if command.mode == "native":
        return _native(command, as_json)
    pairs = prove_missing(_question(command), command.fresh, watcher)
    if as_json:
        print_json(document(pairs))
    else:
        print(text(pairs))
    return all(pair.passed for pair in pairs)


def _check(command: ParityCommand) -> None:
    for kind, names, known in (
        ("policy", command.policies or (), POLICIES),
        ("optimizer", command.optimizers, OPTIMIZERS),
        ("dtype", command.dtypes or (), PRECISIONS),
        ("backend", command.backends, BACKENDS),
        ("mode", (command.mode,), MODES),
    ):
        for name in names:
            choose(kind, name, cast(Sequence[str], known))
    for name in command.backbones:
        check_name("backbone", name)
    hidden_units(command.head or "original")
    last = [name for name, policy in POLICIES.items() if policy.boundary == "last_stage"]
    if command.boundary is not None and not set(last) & set(command.policies or POLICIES):
        raise UserError(
            f"--boundary {command.boundary}: none of the chosen policies has a boundary to move.",
            f"Add --policy {last[0]}.",
        )
    if command.mode == "native":
        _check_native(command)
    if command.device == "all":
        raise UserError(
            "--device all: a proof covers one device.", "Use --device cpu or --device cuda:0."
        )
    if len(command.backends) < 2:
        raise UserError(
            "A proof needs two backends.", "Use, for example, --backends torch,keras-tensorflow."
        )
    for environment in environments_of(_question(command)):
        reason = missing_packages(environment)
        if reason:
            raise Unavailable(reason)


def _check_native(command: ParityCommand) -> None:
    """Raise UserError for options that native mode, always float32 on a CPU, does not have."""
    given = {
        "--dtype": command.dtypes is not None,
        "--boundary": command.boundary is not None,
        "--device": command.device not in ("auto", "cpu"),
        "--fresh": command.fresh,
    }
    idle = [option for option, is_given in given.items() if is_given]
    if idle:
        raise UserError(
            f"{', '.join(idle)}: of no effect with --mode native, which proves nothing: it lists "
            "what differs, in float32 on the CPU.",
            f"Leave out {', '.join(idle)}, or --mode native.",
        )
    staged = [name for name in command.policies or () if needs_stages(POLICIES[name])]
    if staged:
        raise UserError(
            f"--policy {staged[0]}: native mode has no stages for it.",
            f"Use another of {', '.join(n for n, p in POLICIES.items() if not needs_stages(p))}.",
        )


def _question(command: ParityCommand) -> Question:
    return Question(
        backbones=command.backbones or DEFAULT_BACKBONES,
        policies=command.policies or list(POLICIES),
        optimizers=cast(Sequence[OptimizerName], command.optimizers),
        precisions=[PRECISIONS[dtype] for dtype in command.dtypes or DEFAULT_DTYPES],
        backends=command.backends,
        head=command.head or "original",
        px=command.px,
        boundary=command.boundary,
        device=resolve_devices(command.device)[0],
        interpreters=command.interpreters,
        cache=cache_root(),
    )


def _native(command: ParityCommand, as_json: bool) -> bool:
    """Print the native differences of each backbone; return True if all compare two backends."""
    tables = [
        table
        for optimizer in command.optimizers
        for policy in command.policies or NATIVE_POLICIES
        for table in native_differences(
            command.backbones or NATIVE_BACKBONES,
            command.backends,
            command.interpreters,
            cache_root(),
            px=command.px,
            optimizer=cast(OptimizerName, optimizer),
            policy=policy,
            head=command.head or "linear",
        )
    ]
    if as_json:
        print_json(differences_json(tables))
    else:
        print_differences(tables)
    return all(len(table["unavailable"]) <= len(command.backends) - 2 for table in tables)


def document(pairs: Sequence[PairProof]) -> dict[str, Any]:
    """Return the document of ``parity --json``."""
    return {
        "passed": all(pair.passed for pair in pairs),
        "pairs": [pair.model_dump(mode="json") for pair in pairs],
    }


def text(pairs: Sequence[PairProof]) -> str:
    """Return a table of all pairs, and every level of those that did not pass."""
    rows = [
        [
            pair.backbone,
            pair.policy,
            pair.optimizer,
            pair.dtype,
            " = ".join(pair.backends),
            *(_level_cell(pair, name) for name in SHOWN_LEVELS),
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


def _level_cell(pair: PairProof, name: str) -> str:
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
