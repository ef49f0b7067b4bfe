"""The proofs that planned runs need: that their backends compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.catalog.policies import POLICIES
from bench.parity.model import PairProof
from bench.parity.plan import Question
from bench.parity.run import Watch, prove_missing
from bench.runner.planner import PlannedRun
from bench.spec.run import OptimizerName
from bench.workers.process import Interpreters


def questions_of(
    runs: Sequence[PlannedRun], interpreters: Interpreters, cache: Path
) -> list[Question]:
    """Return a question for each network, optimizer, boundary and device that several backends run
    in matched mode; policies that share these are asked together."""
    policies: dict[tuple[str, OptimizerName, str, str], dict[str, None]] = {}
    backends: dict[tuple[str, OptimizerName, str, str], dict[str, None]] = {}
    for run in runs:
        spec = run.spec
        if spec.mode != "matched" or run.unavailable is not None or spec.recipe.sweep:
            continue
        policy = spec.policy
        known = POLICIES.get(policy.name)
        own = policy.boundary if known and policy.boundary != known.boundary else ""
        key = (run.backbone, spec.recipe.optimizer, own, spec.device)
        policies.setdefault(key, {})[policy.name] = None
        backends.setdefault(key, {})[spec.backend] = None
    return [
        Question(
            backbones=[backbone], policies=list(policies[key]), optimizers=[optimizer],
            precisions=["fp64"], backends=list(backends[key]), head="original", px=None,
            device=device, interpreters=interpreters, cache=cache, boundary=boundary or None,
        )
        for key in policies
        for backbone, optimizer, boundary, device in [key]
        if len(backends[key]) > 1
    ]  # fmt: skip


def prove_first(
    runs: Sequence[PlannedRun], interpreters: Interpreters, cache: Path, watch: Watch
) -> list[PairProof]:
    """Prove what is not proved yet of planned runs; return all of their pairs. Raise what
    ``prove_missing`` raises."""
    return [
        pair
        for question in questions_of(runs, interpreters, cache)
        for pair in prove_missing(question, False, watch)
    ]
