"""Tests of the table of all networks: rows, verdicts, and continuing an interrupted call."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import Unavailable, UserError
from bench.network.blueprint import Network
from bench.parity import plan
from bench.parity.model import PairProof
from bench.parity.plan import Question, Subject, environments_of
from bench.parity.tolerances import LEVELS
from bench.workers.process import Interpreters
from tests.unit.pairs import BROKEN, level, pair
from tools import parity_zoo as zoo
from tools.parity_zoo import main, measure, table, verdict

HERE = Interpreters({})
NAMES = ["alexnet", "squeezenet1_1"]
"""Largest minimum input size first, so that slow networks start early."""
Answer = Callable[[Question], PairProof]


class Proving:
    """Replaces ``prove`` and records the questions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Question]] = []
        self.answers: dict[str, Answer | BaseException] = {}

    def __call__(self, subject: Subject, question: Question, _: Any) -> list[PairProof]:
        self.asked.append((subject.backbone, question))
        answer = self.answers.get(subject.backbone, lambda _: pair())
        if isinstance(answer, BaseException):
            raise answer
        return [answer(question)]


@pytest.fixture
def proving(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proving:
    made = Proving()

    def exported(name: str, *_: Any, **__: Any) -> Path:
        folder = tmp_path / "cache" / "blueprints" / name
        folder.mkdir(parents=True, exist_ok=True)
        network.save(folder)
        return folder

    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plan, "blueprint_folder", exported)
    monkeypatch.setattr(zoo, "prove", made)
    monkeypatch.setattr(zoo, "names", lambda _: NAMES)
    return made


def _count(network: Network) -> int:
    named = network.blueprint.named_tensors()
    return sum(network.tensors[t].size for _, role, t in named if not role.startswith("running_"))


def test_a_row_counts_the_network_and_keeps_its_figures(
    proving: Proving, network: Network, tmp_path: Path
) -> None:
    row = measure("alexnet", HERE)
    assert row["parameters"] == _count(network)
    assert PairProof.model_validate(row["pair"]).passed
    assert verdict(row) == "shown"
    ((_, question),) = proving.asked
    assert question.precisions == ("fp64",)
    assert question.parts == ("forward", "gradients", "steps")
    assert not (tmp_path / "cache" / "blueprints" / "alexnet").exists()


def test_a_large_network_gives_its_logits_in_float32(
    proving: Proving, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "LARGEST", _count(network) - 1)
    forward = tuple(level for level in pair().levels if level.name in ("logits", "activations"))
    proving.answers["alexnet"] = lambda _: pair(levels=forward, dtype="float32")
    row = measure("alexnet", HERE)
    ((_, question),) = proving.asked
    assert (question.precisions, question.parts) == (("fp32",), ("forward",))
    assert verdict(row) == "shown (forward pass)"


def test_a_large_network_that_is_inconclusive_in_float32_is_proved_in_float64(
    proving: Proving, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "LARGEST", _count(network) - 1)
    noisy = level(value=2e-5, tolerance=1e-5, floor=3e-5, passed=False)

    def answer(question: Question) -> PairProof:
        if question.precisions == ("fp32",):
            return pair(passed=False, levels=(noisy,), dtype="float32", reason="inconclusive")
        return pair(levels=(level(),))

    proving.answers["alexnet"] = answer
    row = measure("alexnet", HERE)
    assert [(q.precisions, q.parts) for _, q in proving.asked] == [
        (("fp32",), ("forward",)),
        (("fp64",), ("forward",)),
    ]
    assert verdict(row) == "shown (forward pass)"
    assert row["notes"] == ["float32 is inconclusive: noise floor of logits 3.0e-05"]


def test_a_large_network_that_differs_in_float32_is_not_asked_again(
    proving: Proving, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "LARGEST", _count(network) - 1)
    apart = level(value=2e-2, tolerance=1e-5, floor=1e-6, passed=False)
    proving.answers["alexnet"] = lambda _: pair(passed=False, levels=(apart,), reason="differs")
    assert verdict(measure("alexnet", HERE)) == "not shown"
    assert len(proving.asked) == 1


def test_a_difference_is_named(proving: Proving) -> None:
    proving.answers["alexnet"] = lambda q: pair(
        passed=False, levels=[BROKEN] * len(LEVELS), reason="differs: logits 0.001"
    )
    row = measure("alexnet", HERE)
    assert verdict(row) == "not shown"
    assert "differs: logits 0.001" in table([row])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("rolls by windows", "Use another."), "refused"),
        (Unavailable("crash"), "failed"),
        (KeyError("a defect of ours"), "failed"),
    ],
)
def test_what_cannot_be_built_stands_in_the_table(
    proving: Proving, error: Exception, said: str
) -> None:
    proving.answers["alexnet"] = error
    row = measure("alexnet", HERE)
    assert verdict(row) == said
    line = table([row]).splitlines()[-1]
    assert str(error).splitlines()[0].strip("'") in line
    assert said in line


def test_the_table_counts_and_marks(proving: Proving) -> None:
    proving.answers["squeezenet1_1"] = UserError("no")
    rows = [measure(name, HERE) for name in NAMES]
    text = table(rows)
    assert text.startswith("2 networks: 1 shown, 1 refused.")
    assert "| alexnet" in text
    assert "| shown" in text


def test_the_command_goes_on_from_where_it_was_stopped(
    proving: Proving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "parity.md"
    monkeypatch.setattr(zoo.scheduler, "parallel_jobs", lambda *_: 1)
    proving.answers["squeezenet1_1"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        main(path)
    assert [r["model"] for r in json.loads(path.with_suffix(".json").read_text())["rows"]] == [
        "alexnet"
    ]
    assert "1 more are not measured yet" in path.read_text()
    proving.asked.clear()
    del proving.answers["squeezenet1_1"]
    main(path)
    assert "not measured yet" not in path.read_text()
    assert [name for name, _ in proving.asked] == ["squeezenet1_1"]
    assert "2 networks: 2 shown" in path.read_text()
    proving.asked.clear()
    main(path)
    assert proving.asked == []


def test_rows_by_other_code_are_measured_again(
    proving: Proving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "parity.md"
    main(path)
    proving.asked.clear()
    monkeypatch.setattr(zoo, "digest_of_rooms", lambda made: "another")
    main(path)
    assert sorted(name for name, _ in proving.asked) == NAMES


def test_rows_name_their_environments(proving: Proving) -> None:
    row = measure("alexnet", HERE)
    ((_, question),) = proving.asked
    assert row["environments"] == [e.environment_id for e in environments_of(question)]


@pytest.mark.parametrize(
    "died", [Unavailable("the exporter ran out of memory"), lambda _: pair(passed=False, levels=())]
)
def test_a_worker_that_died_is_tried_again(proving: Proving, tmp_path: Path, died: Any) -> None:
    """A retry follows at once, alone, and another one with the next command."""
    path = tmp_path / "parity.md"
    proving.answers["alexnet"] = died
    main(path)
    assert [name for name, _ in proving.asked].count("alexnet") == 2
    assert "2 networks: 1 shown" in path.read_text()
    proving.asked.clear()
    proving.answers.clear()
    main(path)
    assert [name for name, _ in proving.asked] == ["alexnet"]
    assert "2 networks: 2 shown." in path.read_text()
