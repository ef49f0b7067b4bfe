"""Proofs kept in this machine's cache, one file per pair of backends.

A proof holds for the two environments that it was made in and for the code that made it: each
environment's id contains a digest of the code that decides numbers. Another release, or another
line of that code, needs a new proof.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from bench.parity.compare import differing
from bench.parity.model import PairProof
from bench.parity.tolerances import NEED_LOW_FLOOR
from bench.spec.base import canonical_hash
from bench.spec.run import RunSpec
from bench.storage.code_digest import digest_of_rooms
from bench.storage.regular_files import read_regular
from bench.storage.results import write_json

NEEDED = frozenset(
    {"pixels", "initial_head", "logits", "activations", "gradients", "state_after_one_step",
     "losses", "logits_after_steps", "epoch_losses", "frozen", "metrics"}
)  # fmt: skip
"""Levels without which a proof is not complete. Proofs that lie beside results of earlier code have
these and no others."""
CRASHED = " crashed: "
"""Part of the reason of a pair whose worker crashed."""
FOLDER = "proofs"
COPY = "parity.json"
"""Name of the copy in a results folder, so that a report made on another machine has the proofs."""

_PROVE_AGAIN = "Delete the file and prove again: python run_bench.py parity"


class Proofs:
    """The proofs in a cache."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / FOLDER

    def keep(self, pair: PairProof) -> None:
        """Write a proof, replacing an earlier one with the same key, passed or not. A pair without
        measurements, because a worker died, does not replace a proof that passed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not pair.levels and any(p.key == pair.key and p.passed for p in self.load()):
            return
        current = pair.model_copy(update={"harness": digest_of_rooms("proof")})
        name = f"{canonical_hash(pair.key.model_dump())[:24]}.json"
        write_json(self._folder / name, current.model_dump(mode="json"))

    def load(self) -> list[PairProof]:
        """Return all proofs by the current code; skip others and unreadable files."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            with suppress(OSError, ValidationError):
                found.append(PairProof.model_validate_json(read_regular(path)))
        return [pair for pair in found if pair.harness == digest_of_rooms("proof")]


def read_copy(folder: Path) -> tuple[list[PairProof], str | None]:
    """Return the proofs that lie in a results folder, and a sentence about those that cannot be
    read; no proofs and None if there is no copy.

    Proofs by earlier code count: they are about the environments of these results, which no later
    code can prove.
    """
    path = folder / COPY
    try:
        pairs = list(json.loads(read_regular(path, follow_links=False))["pairs"])
    except FileNotFoundError:
        return [], None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return [], f"{path}: no proof in it can be read. {_PROVE_AGAIN}"
    found = []
    for pair in pairs:
        with suppress(ValidationError):  # one that is damaged does not take the others away
            found.append(PairProof.model_validate(pair))
    damaged = len(pairs) - len(found)
    unread = f"{path}: {damaged} of {len(pairs)} proofs cannot be read. {_PROVE_AGAIN}"
    return found, unread if damaged else None


def write_copy(pairs: Iterable[PairProof], folder: Path) -> None:
    """Add proofs to those that lie in a results folder; raise OSError if it cannot be written."""
    kept = {pair.key: pair for pair in (*read_copy(folder)[0], *pairs)}
    write_json(folder / COPY, {"pairs": [pair.model_dump(mode="json") for pair in kept.values()]})


class ProvedSubject(NamedTuple):
    """A pair of environments proved to compute the same, under one policy and optimizer."""

    backbone: str
    code_sha256: str | None
    network_digest: str | None
    policy_digest: str
    optimizer: str
    environments: frozenset[str]

    @classmethod
    def of_run(cls, spec: RunSpec, environments: Iterable[str] = ()) -> ProvedSubject:
        """Return what a proof must be about, apart from environments, to cover a run."""
        code, network = spec.code_sha256, spec.network_digest
        policy, optimizer = spec.policy.digest, spec.recipe.optimizer
        return cls(spec.backbone, code, network, policy, optimizer, frozenset(environments))


def proved_subjects(pairs: Iterable[PairProof]) -> set[ProvedSubject]:
    """Return what has been proved in float64. A pair that shows a difference or whose worker
    crashed, at any input size or precision, refutes all proofs of its subject; an inconclusive one
    does not."""
    proved, refuted = set(), set()
    for p in pairs:
        environments = frozenset(p.environments)
        subject = ProvedSubject(
            p.backbone, p.code_sha256, p.network_digest, p.policy_digest, p.optimizer, environments
        )
        floors = [level.floor for level in p.levels if level.name in NEED_LOW_FLOOR]
        is_complete = {level.name for level in p.levels} >= NEEDED and None not in floors
        if differing(p.levels) or CRASHED in (p.reason or ""):
            refuted.add(subject)
        elif p.passed and p.dtype == "float64" and is_complete:
            proved.add(subject)
    return proved - refuted
