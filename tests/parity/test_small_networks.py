"""Complete proofs of small networks with real workers, as the command ``parity`` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.backbones import BACKBONES
from bench.catalog.policies import POLICIES
from bench.errors import Unavailable
from bench.parity import plan
from bench.parity.model import PairProof
from bench.parity.plan import Question, Subject, subject_of
from bench.parity.run import prove
from bench.parity.tolerances import LEVELS, ProofSetting
from tests.frameworks import BACKENDS, HERE
from tests.parity.small_networks import BATCH_SIZE, NETWORKS, PX, small_network

ENTRY = "squeezenet1_1"
"""Backbone whose entry the small networks use; its proofs have their batch size."""
FULLY = "residual"
"""Network that is proved under every policy and optimizer; others under ``FEW`` policies."""
POLICIES_HERE = [name for name in POLICIES if name != "linear_probe_then_fine_tune"]
"""All policies but the one that ``test_defects`` covers."""
FEW = ["freeze_all", "retrain_all"]
ENGINES = ("torch", "keras-torch", "keras-jax")
CLAIMS = [
    *((FULLY, policy, optimizer) for policy in POLICIES_HERE for optimizer in ("sgd", "adamw")),
    *((name, policy, "sgd") for name in NETWORKS if name != FULLY for policy in FEW),
]


class Recorder:
    """A watcher that records what is measured."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def measuring(self, subject: Subject, backend: str) -> None:
        self.heard.append(backend)

    def measured(self) -> None:
        self.heard.append("item")


def subject(question: Question, root: Path, names: Sequence[str] = tuple(NETWORKS)) -> Subject:
    """Combine all networks into one subject, so that one worker per backend measures them."""
    whole = Subject(ENTRY, "fp64", ProofSetting(PX, BATCH_SIZE))
    for name in names:
        folder = question.cache / "blueprints" / name
        folder.mkdir(parents=True)
        small_network(name).save(folder)
        own = question if name == FULLY else replace(question, policies=FEW, optimizers=["sgd"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan, "blueprint_folder", lambda *_, at=folder, **__: at)
            patch.setattr(plan, "pretrained_weights", _absent)
            patch.setitem(BACKBONES, ENTRY, BACKBONES[ENTRY].model_copy(update={"min_px": PX}))
            found = subject_of(ENTRY, "fp64", own)
        assert found.setting == whole.setting
        (whole.blueprints[name],) = found.blueprints.values()
        for key, item in found.items.items():
            named = f"{name}-{key}"
            whole.items[named] = item.model_copy(update={"key": named})
        for claim in found.claims:
            items = {part: f"{name}-{key}" for part, key in claim.items.items()}
            keys = [key.model_copy(update={"weights": name}) for key in claim.keys]
            whole.claims.append(replace(claim, items=items, keys=keys))
    return whole


def _absent(*_: Any, **__: Any) -> Any:
    raise Unavailable("not here")


def question_of(backends: Sequence[str], root: Path) -> Question:
    return Question(
        backbones=[ENTRY],
        policies=POLICIES_HERE,
        optimizers=["sgd", "adamw"],
        precisions=["fp64"],
        backends=list(backends),
        head="original",
        px=PX,
        device="cpu",
        interpreters=HERE,
        cache=root / "cache",
    )


Proof = tuple[list[PairProof], Recorder, Subject, Path]


Proof = tuple[list[PairProof], Recorder, Subject, Path]


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Proof:
    root = tmp_path_factory.mktemp("small")
    question = question_of(BACKENDS, root)
    recorder, whole = Recorder(), subject(question, root)
    return prove(whole, question, recorder), recorder, whole, root / "cache"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy", "optimizer"), CLAIMS)
def test_every_level_is_shown(proof: Any, name: str, policy: str, optimizer: str) -> None:
    (pair,) = (
        p for p in proof[0] if (p.weights, p.policy, p.optimizer) == (name, policy, optimizer)
    )
    assert pair.reason is None
    assert pair.passed
    assert [level.name for level in pair.levels] == list(LEVELS)
    assert all(level.passed for level in pair.levels)
    assert pair.loss_fall is not None
    assert pair.loss_fall >= 0.05
    assert pair.first_difference is None
    assert (pair.px, pair.batch_size, pair.dtype) == (PX, BATCH_SIZE, "float64")
    for level in pair.levels:
        assert level.floor is None or 10 * level.floor < level.tolerance, level


@pytest.mark.slow
def test_nothing_else_is_shown_and_nothing_left_behind(proof: Any) -> None:
    pairs, recorder, whole, cache = proof
    assert [(p.weights, p.policy, p.optimizer) for p in pairs] == CLAIMS
    # The backend that measures noise floors goes first, since it finds the learning rates.
    measured = ["item"] * len(whole.items)
    assert recorder.heard == ["torch", *measured, "keras-tensorflow", *measured]
    assert list((cache / "exchange").iterdir()) == []


@pytest.mark.slow
def test_keras_is_the_same_on_its_other_engines(tmp_path: Path) -> None:
    """The tolerances stay the same; the network has every kind of layer that engines compute
    differently."""
    question = replace(question_of(ENGINES, tmp_path), policies=FEW)
    pairs = prove(subject(question, tmp_path, [FULLY]), question, Recorder())
    assert [(p.backends, p.policy, p.optimizer) for p in pairs] == [
        (("torch", engine), policy, optimizer)
        for policy in FEW
        for optimizer in ("sgd", "adamw")
        for engine in ENGINES[1:]
    ]
    for pair in pairs:
        assert (pair.passed, pair.reason) == (True, None)
        assert [level.name for level in pair.levels] == list(LEVELS)
