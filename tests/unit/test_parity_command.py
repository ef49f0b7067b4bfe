"""Tests of the command ``parity``: its options, output and exit codes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.policies import POLICIES
from bench.cli import parity as command
from bench.cli.parity import document, text
from bench.cli.progress import ProofLines, summary
from bench.errors import Unavailable, UserError
from bench.network.blueprint import Network
from bench.parity import plan
from bench.parity.model import FirstDifference, PairProof
from bench.parity.plan import Question, Subject, environments_of
from tests.unit.conftest import Cli
from tests.unit.pairs import BROKEN, INCONCLUSIVE, level, pair


def test_the_table_has_figures_floors_and_the_verdict() -> None:
    levels = (
        level("logits", value=3.2e-16, floor=7e-16),
        level("gradients", value=0.0),
        level("losses", value=None, passed=False),
    )
    lines = text([pair(levels=levels, loss_fall=0.123)]).splitlines()
    assert lines[0].split()[:5] == ["backbone", "policy", "optimizer", "dtype", "backends"]
    (row,) = lines[2:]
    assert row.split() == [
        "squeezenet1_1", "retrain_all", "sgd", "float64", "torch", "=", "keras-tensorflow",
        "3.2e-16", "(7.0e-16)", "0", "(–)", "–", "(–)", "12%", "shown",
    ]  # fmt: skip


def test_a_pair_that_did_not_pass_is_listed_with_all_levels() -> None:
    broken = pair(
        passed=False,
        levels=(level("pixels"), BROKEN, INCONCLUSIVE),
        first_difference=FirstDifference(operation="conv", module_path="features.0"),
        reason="differs: logits 0.001 (logits)",
    )
    said = text([pair(), broken])
    table, failure = said.split("\n\n")
    assert table.splitlines()[2].endswith("shown")
    assert table.splitlines()[3].endswith("NOT SHOWN")
    assert failure.splitlines() == [
        "squeezenet1_1 retrain_all sgd float64 torch = keras-tensorflow: "
        "differs: logits 0.001 (logits)",
        "  first operation that differs: conv (module 'features.0')",
        "  ok  pixels                        0 at most 0e+00, floor –",
        "  NO  logits                  1.0e-03 at most 1e-13, floor –, largest at logits",
        "  NO  losses                  1.0e-09 at most 1e-10, floor 1.0e-09",
    ]


def test_an_inconclusive_level_is_neither_yes_nor_no() -> None:
    inconclusive = level("gradients", value=0.3, floor=0.3, passed=False).model_copy(
        update={"counts": False}
    )
    broken = pair(passed=False, levels=(inconclusive, BROKEN), reason="differs: logits 0.001")
    lines = text([broken]).splitlines()
    assert any(line.startswith("  –   gradients") for line in lines)
    assert any(line.startswith("  NO  logits") for line in lines)


def test_a_pair_that_was_never_measured_has_a_reason_alone() -> None:
    crashed = pair(
        passed=False, levels=(), loss_fall=None, learning_rate=None, reason="torch crashed: x"
    )
    table, failure = text([crashed]).split("\n\n")
    assert table.splitlines()[2].split()[7:] == ["–"] * 4 + ["NOT", "SHOWN"]
    assert failure == (
        "squeezenet1_1 retrain_all sgd float64 torch = keras-tensorflow: torch crashed: x"
    )
    assert summary(crashed).endswith("torch crashed: x")
    assert summary(pair()).endswith("shown")


def test_the_document_is_strict_json_and_has_the_verdict() -> None:
    good, bad = pair(), pair(passed=False, levels=(level(value=None, passed=False),), reason="x")
    assert document([good])["passed"] is True
    found = document([good, bad])
    assert found["passed"] is False
    again = json.loads(json.dumps(found, allow_nan=False))
    assert [PairProof.model_validate(p) for p in again["pairs"]] == [good, bad]
    assert again["pairs"][1]["levels"][0]["value"] is None


@dataclass
class Proving:
    """Replaces ``prove``: every pair passes, unless ``changes`` say otherwise."""

    changes: dict[str, Any] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)

    def __call__(self, subject: Subject, question: Question, _: ProofLines) -> Sequence[PairProof]:
        self.asked.append(question)
        reference, *others = environments_of(question)
        return [
            pair(**dict(key), backends=(reference.backend, other.backend), **self.changes)
            for claim in subject.claims
            for other, key in zip(others, claim.keys, strict=True)
        ]


@pytest.fixture
def proving(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proving:
    """Replace workers and exports; pretend that every package is installed."""
    folder = tmp_path / "blueprint"
    folder.mkdir()
    network.save(folder)
    made = Proving()
    monkeypatch.setattr("bench.parity.run.prove", made)
    monkeypatch.setattr(command, "missing_packages", lambda environment: None)
    monkeypatch.setattr(plan, "blueprint_folder", lambda *_, **__: folder)
    return made


def test_what_passed_ends_with_0(here: Cli, proving: Proving) -> None:
    done = here("parity", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()[2:]
    assert len(rows) == 2 * len(POLICIES) * 2
    assert all(row.endswith(" shown") for row in rows)
    assert {row.split()[0] for row in rows} == {"efficientnet_lite0", "squeezenet1_1"}


def test_what_did_not_pass_ends_with_1(here: Cli, proving: Proving) -> None:
    proving.changes = {"passed": False, "levels": (BROKEN,), "reason": "differs: logits 0.001"}
    done = here("parity", "squeezenet1_1", "--device", "cpu", "--policy", "freeze_all")
    assert done.returncode == 1
    assert done.stdout.count("NOT SHOWN") == 2
    assert "NO  logits" in done.stdout


def test_the_options_are_the_question(here: Cli, proving: Proving) -> None:
    done = here(
        "parity", "vgg16", "--px", "64", "--dtype", "float32,float64", "--policy",
        "fine_tune_last", "--optimizer", "adamw", "--head", "dense:8", "--device", "cpu",
        "--backends", "keras-tensorflow,torch", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is True
    shown = [(p["dtype"], p["px"], p["policy"], p["optimizer"], p["head"]) for p in found["pairs"]]
    assert shown == [
        (dtype, 64, "fine_tune_last", "adamw", "dense:8") for dtype in ("float32", "float64")
    ]
    assert {tuple(p["backends"]) for p in found["pairs"]} == {("keras-tensorflow", "torch")}


def test_what_was_shown_is_not_shown_again_unless_asked(here: Cli, proving: Proving) -> None:
    question = ("parity", "squeezenet1_1", "--device", "cpu", "--policy", "freeze_all")
    first = here(*question)
    assert len(proving.asked) == 1
    again = here(*question)
    assert len(proving.asked) == 1
    assert again.stdout == first.stdout
    assert "2 of 2 pairs were proved before" in again.stderr
    fresh = here(*question, "--fresh")
    assert len(proving.asked) == 2
    assert "proved before" not in fresh.stderr


def test_pairs_stand_in_the_order_of_the_question(here: Cli, proving: Proving) -> None:
    """Pairs that were proved before keep their place."""
    question = ("parity", "squeezenet1_1", "--device", "cpu", "--optimizer", "adamw,sgd", "--json")
    here(*question, "--policy", "retrain_all")
    both = here(*question, "--policy", "freeze_all,retrain_all")
    assert [(p["policy"], p["optimizer"]) for p in json.loads(both.stdout)["pairs"]] == [
        (policy, optimizer)
        for policy in ("freeze_all", "retrain_all")
        for optimizer in ("adamw", "sgd")
    ]


def test_what_was_not_shown_is_tried_again(here: Cli, proving: Proving) -> None:
    question = ("parity", "squeezenet1_1", "--device", "cpu", "--policy", "freeze_all")
    proving.changes = {"passed": False, "levels": (BROKEN,), "reason": "differs"}
    assert here(*question).returncode == 1
    proving.changes = {}
    assert here(*question).returncode == 0
    assert len(proving.asked) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("resnet5O", "Unknown backbone 'resnet5O'. Did you mean 'resnet50'?"),
        ("vgg16 --policy freeze-all", "Unknown policy 'freeze-all'. Did you mean 'freeze_all'?"),
        ("vgg16 --optimizer adam", "Unknown optimizer 'adam'. Did you mean 'adamw'?"),
        ("vgg16 --dtype float16", "Unknown dtype 'float16'. Did you mean 'float"),
        ("vgg16 --backends torch,keras", "Unknown backend 'keras'. Did you mean 'keras-tensor"),
        ("vgg16 --backends torch", "A proof needs two backends."),
        ("vgg16 --backends torch,torch", "A proof needs two backends."),
        ("vgg16 --head dense:x", "Unknown head 'dense:x'"),
        ("vgg16 --px 20", "vgg16 cannot take 20 px: it needs at least 32.\nUse --px 32."),
        ("vgg16 --device gpu", "Unknown device 'gpu'. Did you mean 'cpu'?"),
        ("vgg16 --device all", "a proof covers one device"),
        ("vgg16 --policy freeze_all --boundary layer4", "Add --policy fine_tune_last."),
        ("vgg16 --python torch=absent", "'absent' is not an interpreter"),
        ("vgg16 --policy ,", "An empty list was given."),
        ("vgg16 --dtype ,", "An empty list was given."),
        ("--mode native --dtype float64", "--dtype: of no effect with --mode native"),
        ("--mode native --fresh --device cuda:0", "--device, --fresh: of no effect"),
        ("--mode native --policy fine_tune_last --boundary x", "Leave out --boundary, or --mode"),
        ("--mode native --policy discriminative_lr", "native mode has no stages for it"),
        ("--mode native --policy gradual_unfreeze", "Use another of freeze_all, fine_tune_last,"),
        ("--mode native --head original", "no head 'original' in Keras"),
        (
            "--mode native torchvision:inception_v3 --px 74 --backends keras-tensorflow,keras-jax",
            "needs at least 75",
        ),
    ],
)
def test_a_wrong_question_ends_with_2(
    here: Cli, proving: Proving, arguments: str, said: str
) -> None:
    done = here("parity", *arguments.split())
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert proving.asked == []


def test_a_missing_package_ends_with_2(
    here: Cli, proving: Proving, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "torch needs torch, not installed here: pip install torch"
    monkeypatch.setattr(command, "missing_packages", lambda environment: reason)
    done = here("parity", "vgg16", "--device", "cpu")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: {reason}")
    assert proving.asked == []


@pytest.mark.parametrize(
    "error", [UserError("vgg16 cannot be exported", "Use another."), Unavailable("no torch")]
)
def test_what_a_worker_refuses_ends_with_2(
    here: Cli, proving: Proving, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: Any) -> list[PairProof]:
        raise error

    monkeypatch.setattr("bench.parity.run.prove", refuse)
    done = here("parity", "vgg16", "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr.endswith(f"error: {error}\n")
    assert "Traceback" not in done.stderr
