"""What was shown on this machine, kept in the cache: a file for each pair.

A proof holds for the two environments that it was made in, and the environment holds a digest of
the sources that decide numbers: another release or another line of code has to be proved again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from bench.parity.compare import differing
from bench.parity.model import PairProof
from bench.parity.tolerances import FLOORED, LEVELS
from bench.spec.base import canonical_hash
from bench.storage.code_digest import proof_digest
from bench.storage.results import write_json

FOLDER = "proofs"
COPY = "parity.json"
"""Name of the copy in a results folder, so that a report made elsewhere knows them too."""


class ProvedSubject(NamedTuple):
    """What a proof speaks of."""

    backbone: str
    policy: str
    boundary: str
    optimizer: str
    environments: frozenset[str]
    code_sha256: str | None = None


def _is_ours(pair: PairProof) -> bool:
    return pair.harness == proof_digest()


class Proofs:
    """The proofs of a cache."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / FOLDER

    def keep(self, pair: PairProof) -> None:
        """Write a proof over the one of the same question, passed or not. What was never measured,
        for a worker died, takes nothing back."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not pair.levels and any(p.about == pair.about and p.passed for p in self.load()):
            return
        path = self._folder / f"{canonical_hash(pair.about._asdict())[:24]}.json"
        write_json(
            path, pair.model_copy(update={"harness": proof_digest()}).model_dump(mode="json")
        )

    def load(self) -> list[PairProof]:
        """All that this harness made; a file of another one says nothing and is passed over."""
        return [p for p in _read_all(sorted(self._folder.glob("*.json"))) if _is_ours(p)]


def _read_all(paths: Iterable[Path]) -> Iterator[PairProof]:
    for path in paths:
        try:
            yield PairProof.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue


def read_copy(folder: Path) -> list[PairProof]:
    """The proofs by this harness that lie beside results."""
    try:
        found = json.loads((folder / COPY).read_bytes())["pairs"]
        return [pair for pair in map(PairProof.model_validate, found) if _is_ours(pair)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write_copy(pairs: Iterable[PairProof], folder: Path) -> None:
    """Put proofs beside results.

    Raises:
        OSError: The folder cannot be written.
    """
    write_json(folder / COPY, {"pairs": [pair.model_dump(mode="json") for pair in pairs]})


def shown(pairs: Iterable[PairProof]) -> set[ProvedSubject]:
    """What has been proved, in float64. A pair that showed a difference, at whatever size or
    precision, takes back what the others of its question showed; one that said nothing does not.
    """
    known = [
        (
            ProvedSubject(
                p.backbone,
                p.policy,
                p.boundary,
                p.optimizer,
                frozenset(p.environments),
                p.code_sha256,
            ),
            p,
        )
        for p in pairs
    ]
    broken = {what for what, p in known if differing(p.levels)}
    sharp = {what for what, p in known if p.passed and p.dtype == "float64" and _is_whole(p)}
    return sharp - broken


def _is_whole(pair: PairProof) -> bool:
    """Whether it has every level, and the floors without which training says nothing."""
    floors = [level.floor for level in pair.levels if level.name in FLOORED]
    return len(pair.levels) == len(LEVELS) and None not in floors
