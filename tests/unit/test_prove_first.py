"""``run --prove`` asks for the proofs that planned runs need, and for no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.parity.plan import Question
from bench.runner import prove
from bench.runner.planner import PlannedRun
from bench.runner.prove import prove_first, questions_of
from bench.spec.run import RunSpec
from bench.workers.process import Interpreters
from tests.conftest import ENVIRONMENT
from tests.unit.made_runs import POLICIES

MakeSpec = Callable[..., RunSpec]
HERE, CACHE = Interpreters({}), Path("unused")


def planned(make_spec: MakeSpec, name: str, backend: str, **changes: Any) -> PlannedRun:
    unavailable = changes.pop("unavailable", None)
    changes.setdefault("policy", {"name": name, **POLICIES[name]})
    spec = make_spec(backend=backend, **changes)
    return PlannedRun(spec, ENVIRONMENT, spec.backbone, None, None, unavailable)  # type: ignore[arg-type]


def test_policies_of_one_network_are_asked_together(make_spec: MakeSpec) -> None:
    runs = [planned(make_spec, policy, backend, seed=seed)
            for policy in ("freeze_all", "fine_tune_all")
            for backend in ("torch", "keras-tensorflow") for seed in (0, 1)]  # fmt: skip
    (question,) = questions_of(runs, HERE, CACHE)
    assert question.policies == ["freeze_all", "fine_tune_all"]
    assert question.backends == ["torch", "keras-tensorflow"]
    assert question.precisions == ["fp64"]
    assert question.boundary is None


def test_each_optimizer_network_and_boundary_is_a_question_of_its_own(make_spec: MakeSpec) -> None:
    own = {"name": "fine_tune_last", **POLICIES["fine_tune_last"], "boundary": "features.9"}
    runs = [
        planned(make_spec, "fine_tune_last", backend, **changes)
        for changes in ({}, {"recipe": {"optimizer": "adamw"}}, {"backbone": "vgg16"},
                        {"policy": own})
        for backend in ("torch", "keras-tensorflow")
    ]  # fmt: skip
    questions = questions_of(runs, HERE, CACHE)
    assert len(questions) == 4
    assert {q.boundary for q in questions} == {None, "features.9"}
    assert {q.optimizers[0] for q in questions} == {"sgd", "adamw"}


@pytest.mark.parametrize(
    "changes",
    [{"mode": "native"}, {"recipe": {"sweep": True}}, {"unavailable": "no weights"}],
    ids=str,
)
def test_what_no_proof_covers_is_not_asked(make_spec: MakeSpec, changes: dict[str, Any]) -> None:
    runs = [planned(make_spec, "freeze_all", b, **changes) for b in ("torch", "keras-tensorflow")]
    assert questions_of(runs, HERE, CACHE) == []
    alone = [planned(make_spec, "freeze_all", "torch")]
    assert questions_of(alone, HERE, CACHE) == []


def test_all_pairs_are_returned(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Question] = []

    def fake(question: Question, fresh: bool, watch: object) -> list[str]:
        assert not fresh, "what is proved already is not proved again"
        asked.append(question)
        return [f"{question.backbones[0]} {policy}" for policy in question.policies]

    monkeypatch.setattr(prove, "prove_missing", fake)
    runs = [planned(make_spec, "freeze_all", backend, backbone=network)
            for network in ("vgg16", "alexnet") for backend in ("torch", "keras-tensorflow")
            ]  # fmt: skip
    found = prove_first(runs, HERE, CACHE, None)  # type: ignore[arg-type]
    assert found == ["vgg16 freeze_all", "alexnet freeze_all"]
