"""``parity``: what it asks, shows and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from tabulate import tabulate

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.errors import Unavailable, UserError, choose
from bench.head import hidden_units
from bench.parity.model import Level, Pair
from bench.parity.plan import DTYPES, Question, environments_of, subject_of
from bench.parity.proofs import Proofs
from bench.parity.prove import prove
from bench.parity.watch import watcher
from bench.prepare import missing_packages
from bench.spec import OptimizerName, Precision

DEFAULT_BACKBONES = ("efficientnet_lite0", "squeezenet1_1")
"""Those of the default suite."""
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adamw")
PRECISIONS: dict[str, Precision] = {dtype: precision for precision, dtype in DTYPES.items()}
SHOWN_LEVELS = ("logits", "gradients", "losses")
"""Levels that stand in the table; a pair that did not pass is listed with all of them."""


@dataclass(frozen=True)
class ParityCommand:
    """``parity`` with its options, as given."""

    question: Question
    """What is asked; ``precisions`` and ``optimizers`` are checked by ``checked``."""
    fresh: bool
    """Prove again what was proved."""


def checked(question: Question, dtypes: Sequence[str]) -> Question:
    """A question whose names are all known and whose backends are installed.

    Raises:
        UserError: A name is unknown, or there are fewer than two backends.
        Unavailable: A backend's package is missing.
    """
    for kind, names, known in (
        ("backbone", question.backbones, BACKBONES),
        ("policy", question.policies, POLICIES),
        ("optimizer", question.optimizers, OPTIMIZERS),
        ("dtype", dtypes, PRECISIONS),
        ("backend", question.backends, BACKENDS),
    ):
        for name in names:
            choose(kind, name, cast(Sequence[str], known))
    hidden_units(question.head)
    if len(question.backends) < 2:
        raise UserError("A proof needs two backends.", "Such as --backends torch,keras-tensorflow.")
    for environment in environments_of(question):
        reason = missing_packages(environment)
        if reason:
            raise Unavailable(reason)
    return replace(question, precisions=[PRECISIONS[dtype] for dtype in dtypes])


def parity_command(command: ParityCommand) -> list[Pair]:
    """Show what has not been shown yet; every pair asked for, in the order of the question.

    Raises:
        UserError, Unavailable: See ``subject_of`` and ``prove``.
    """
    question = command.question
    proofs = Proofs(question.cache)
    known = {} if command.fresh else {p.about: p for p in proofs.load() if p.passed}
    subjects = [
        subject_of(backbone, precision, question, known)
        for backbone in question.backbones
        for precision in question.precisions
    ]
    found: list[Pair] = []
    with watcher(subjects, len(question.backends)) as watching:
        for subject in subjects:
            kept = [known[about] for about in subject.known]
            new = prove(subject, question, watching) if subject.claims else []
            for pair in new:
                proofs.keep(pair)
                watching.proved(pair)
            found += sorted(kept + new, key=partial(_place, question))
    reused = sum(len(subject.known) for subject in subjects)
    if reused:
        print(f"{reused} of {len(found)} pairs were shown before in these environments; "
              "--fresh shows them again", file=sys.stderr)  # fmt: skip
    return found


def _place(question: Question, pair: Pair) -> tuple[int, ...]:
    """Where a pair of a subject stands in the question."""
    return (
        question.policies.index(pair.policy),
        question.optimizers.index(cast(OptimizerName, pair.optimizer)),
        question.backends.index(pair.backends[1]),
    )


def document(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What ``parity --json`` prints."""
    return {
        "passed": all(pair.passed for pair in pairs),
        "pairs": [pair.model_dump(mode="json") for pair in pairs],
    }


def text(pairs: Sequence[Pair]) -> str:
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


def _figure(pair: Pair, name: str) -> str:
    level = next((x for x in pair.levels if x.name == name), None)
    return "–" if level is None else f"{_number(level.value)} ({_number(level.floor)})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}" if value else "0"


def _failure(pair: Pair) -> str:
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
    return (
        f"{'ok ' if level.passed else 'NO '} {level.name:<22} {_number(level.value):>8} "
        f"at most {level.tolerance:.0e}, floor {_number(level.floor)}"
        f"{f', largest at {level.detail}' if level.detail else ''}"
    )
