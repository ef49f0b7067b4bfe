"""Compare twins (runs of one experiment in several backends) and name what differs.

Fields that must be equal are compared exactly; the numbers of a run's first steps to rounding
(``bench.training.fingerprint``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from operator import attrgetter
from typing import Any

from bench.spec.result import RunResult
from bench.spec.run import Precision
from bench.storage.results import StoredRun

CHOSEN_RATE = "learning rate that validation chose"
THREADS = "threads"
HARMLESS = frozenset({CHOSEN_RATE, THREADS})
"""Differences that are no fault: the first rules out comparing accuracies, the second comparing
speeds. PyTorch may count cores where TensorFlow counts threads."""
CONTRADICTIONS = frozenset({"cached values", "repeated steps"})
"""Respects in which a run contradicts itself."""
EQUAL = {
    **{name: name for name in ("blueprint_sha256", "initial_state_sha256", "batches_sha256",
                               "total_parameters", "trainable_parameters", "state_values")},
    CHOSEN_RATE: "learning_rate",
}  # fmt: skip
"""Name in messages → field of a result that must be equal in all backends."""
_equal_values = attrgetter(*EQUAL.values())
Tolerances = Mapping[str, float]
FLOAT32: Tolerances = {
    "loss of step 1": 2e-5, "logits after step 1": 5e-2, "loss of step 2": 5e-4,
    "cached values": 1e-4, "repeated steps": 1e-4,
}  # fmt: skip
"""Relative differences in float32 that are no fault. Honest pairs on a CPU whose noise is low
differed by at most 2e-6, 8e-3, 1e-4, 3e-6 and 0 (docs/parity.md); the mildest planted mistakes by
2e-2, 0.7, 6e-4, 2e-4 and 6e-4."""
NOISE_MARGIN = 10.0
"""A difference counts only above this many times the noise of the run itself: where a network
trains whole, one last bit can move the second loss by a thousandth."""
HALF: Tolerances = {name: max(0.1, 10 * value) for name, value in FLOAT32.items()}
TOLERANCES: dict[Precision, Tolerances] = {
    "fp64": dict.fromkeys(FLOAT32, 1e-6),
    "fp32": FLOAT32,
    "tf32": HALF,
    "bf16": HALF,
    "fp16": HALF,
}
"""Frameworks choose which operations they compute in half precision, or by TF32, so that those
hardly agree."""


def own_faults(run: StoredRun) -> list[str]:
    """Return what in a run's own numbers shows that something is wrong: its first steps come out
    otherwise when they are repeated, or with values computed in every step."""
    found, limits = run.result.fingerprint, TOLERANCES[run.spec.recipe.precision]
    if found is None:
        return []
    faults = []
    if found.cached_difference is not None and found.cached_difference > limits["cached values"]:
        faults.append("cached values")
    # GPUs add numbers in an order that varies, which is noise of a last bit, too.
    limit = max(limits["repeated steps"], NOISE_MARGIN * _noise(run.result, place=1))
    if found.repeated_losses and not _close(found.step_losses, found.repeated_losses, limit):
        faults.append("repeated steps")
    return faults


def differences(twins: Sequence[StoredRun]) -> dict[tuple[str, str], list[str]]:
    """Return for each twin what it does not have in common with any run of some other backend.

    After an upgrade, versions of one backend may start from different numbers, so one run of the
    other backend that agrees, in any environment, is enough.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    backends = {run.spec.backend for run in twins}
    across = [(a, b) for a, b in combinations(twins, 2) if a.spec.backend != b.spec.backend]
    is_equal = len({_equal_values(run.result) for run in twins}) == 1
    for name, agree in _comparisons(twins):
        if is_equal and name in EQUAL:
            continue
        if all(agree(a, b) for a, b in across):
            continue
        for run in twins:
            for other in backends - {run.spec.backend}:
                theirs = [twin for twin in twins if twin.spec.backend == other]
                if not any(agree(run, twin) for twin in theirs):
                    for odd in (run, *theirs):
                        if name not in found[odd.key]:
                            found[odd.key].append(name)
    return {key: names for key, names in found.items() if names}


def _comparisons(
    twins: Sequence[StoredRun],
) -> list[tuple[str, Callable[[StoredRun, StoredRun], bool]]]:
    """Return what twins are compared in, each with the function that returns True if two agree."""

    def equal(value: Callable[[RunResult], Any]) -> Callable[[StoredRun, StoredRun], bool]:
        return lambda a, b: value(a.result) == value(b.result)

    def equal_if_known(value: Callable[[RunResult], Any]) -> Callable[..., bool]:
        return lambda a, b: None in (value(a.result), value(b.result)) or equal(value)(a, b)

    def equal_in_one_version(value: Callable[[RunResult], Any]) -> Callable[..., bool]:
        known = equal_if_known(value)
        return lambda a, b: equal(value)(a, b) if _same_code(a, b) else known(a, b)

    limits = TOLERANCES[twins[0].spec.recipe.precision]

    def alike(
        name: str, place: int, of: Callable[[RunResult], Sequence[float | None]]
    ) -> Callable[[StoredRun, StoredRun], bool]:
        def agree(a: StoredRun, b: StoredRun) -> bool:
            if a.result.learning_rate != b.result.learning_rate:
                return True  # reported as CHOSEN_RATE; all later numbers differ because of it
            if bool(of(a.result)) != bool(of(b.result)):
                return not _same_code(a, b)  # earlier versions have no fingerprint
            noise = max(_noise(a.result, place), _noise(b.result, place))
            return _close(of(a.result), of(b.result), max(limits[name], NOISE_MARGIN * noise))

        return agree

    return [
        *((name, equal(attrgetter(field))) for name, field in EQUAL.items()),
        ("data_sha256", equal_in_one_version(lambda r: r.data_sha256)),
        (THREADS, equal_if_known(lambda r: r.knobs.get("threads"))),
        ("loss of step 1", alike("loss of step 1", 0, lambda r: _losses(r)[:1])),
        ("loss of step 2", alike("loss of step 2", 1, lambda r: _losses(r)[1:2])),
        ("logits after step 1", alike("logits after step 1", 2, _logits)),
    ]


def _same_code(a: StoredRun, b: StoredRun) -> bool:
    """Return True if one version of Thawbench did both runs, so that both record the same."""
    code = a.environment.shared_code
    return bool(code) and code == b.environment.shared_code


def _noise(result: RunResult, place: int) -> float:
    """Return what rounding alone does to a number of a run's first steps; infinite where it is not
    finite, 0 where it is not known."""
    noise = () if result.fingerprint is None else result.fingerprint.noise
    if place >= len(noise):
        return 0.0
    found = noise[place]
    return math.inf if found is None else found


def _losses(result: RunResult) -> tuple[float | None, ...]:
    return () if result.fingerprint is None else result.fingerprint.step_losses


def _logits(result: RunResult) -> tuple[float | None, ...]:
    return () if result.fingerprint is None else result.fingerprint.logits_after_step


def _close(a: Sequence[float | None], b: Sequence[float | None], tolerance: float) -> bool:
    """Return True if two lists agree, relative to the largest number; or if one is empty, as in
    results of earlier versions and in sweeps."""
    if not a or not b:
        return True
    if len(a) != len(b) or [v is None for v in a] != [v is None for v in b]:
        return False
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    largest = max((max(abs(x), abs(y)) for x, y in pairs), default=0.0)
    worst = max((abs(x - y) for x, y in pairs), default=0.0)
    return math.isfinite(worst) and worst <= tolerance * largest
