"""The ejected scripts: each policy in both frameworks reaches what the harness reaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.advise.wishes import POLICIES
from bench.runner.planner import Planner
from bench.spec.result import RunResult
from bench.workers.process import Interpreters
from tools.ejected_speed import BACKBONES, Case, by_harness, by_script, write_script


def _is_restless(backend: str, policy: str) -> bool:
    """Return True for SqueezeNet under retrain_all: two seeds end 25 points apart at the default
    rate, and 10 at a fifth of it."""
    return policy == "retrain_all" and BACKBONES[backend] == "squeezenet1_1"


def _case(backend: str, policy: str) -> Case:
    return Case(backend, policy, rate_factor=0.2 if _is_restless(backend, policy) else 1.0)


@pytest.fixture(scope="session")
def planner(shared_cache: Path) -> Planner:
    return Planner(Interpreters({}), device="cpu", cache=shared_cache)


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory, planner: Planner) -> dict[Case, RunResult]:
    """Return the results of the harness."""
    cases = [_case(backend, policy) for backend in BACKBONES for policy in POLICIES]
    return by_harness(cases, planner, tmp_path_factory.mktemp("harness"))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("backend", list(BACKBONES))
def test_a_script_reaches_the_accuracy_of_the_harness(
    backend: str, policy: str, tmp_path: Path, planner: Planner, harness: dict[Case, RunResult]
) -> None:
    case = _case(backend, policy)
    write_script(case, planner, tmp_path / "project")
    result = by_script(tmp_path / "project").result
    reference = harness[case]
    assert reference.test_top1 is not None
    # Another order of the images and another head: as two seeds differ.
    apart = 0.18 if _is_restless(backend, policy) else 0.09
    assert result["test_top1"] == pytest.approx(reference.test_top1, abs=apart)
    assert result["predicts_alike"]
