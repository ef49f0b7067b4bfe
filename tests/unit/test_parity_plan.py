"""Tests of plans: which items a question needs, each part measured once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.backbones import BACKBONES
from bench.catalog.policies import POLICIES
from bench.errors import Unavailable, UserError
from bench.network.blueprint import Network
from bench.network.weights import Weights, random_weights
from bench.parity import plan
from bench.parity.model import PARTS
from bench.parity.plan import Question, subject_of
from bench.workers.process import Interpreters

BACKBONE = "squeezenet1_1"
ALL = ("forward", "gradients", "steps")


@dataclass
class Exports:
    """Replaces the exporter and records what it is asked for."""

    folder: Path
    asked: list[dict[str, Any]]

    def __call__(
        self, backbone: str, px: int, weights: Weights, *_: Any, calibrated: bool, **__: Any
    ) -> Path:
        self.asked.append({"px": px, "weights": weights.ref.kind, "calibrated": calibrated})
        return self.folder


@pytest.fixture
def exports(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    """Export a small network for every backbone; pretrained weights are not installed."""
    folder = tmp_path / "blueprint"
    folder.mkdir()
    network.save(folder)
    made = Exports(folder, [])

    def absent(*_: Any, **__: Any) -> Weights:
        raise Unavailable("not here")

    monkeypatch.setattr(plan, "blueprint_folder", made)
    monkeypatch.setattr(plan, "pretrained_weights", absent)
    return made


@pytest.fixture
def pretrained(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> Exports:
    """Pretend that pretrained weights are installed."""
    made = random_weights(BACKBONES[BACKBONE])
    ref = made.ref.model_copy(update={"kind": "pretrained"})
    found = replace(made, ref=ref, path=Path("weights.pth"))
    monkeypatch.setattr(plan, "pretrained_weights", lambda *_, **__: found)
    return exports


@pytest.fixture
def question(tmp_path: Path) -> Question:
    return Question(
        backbones=[BACKBONE],
        policies=list(POLICIES),
        optimizers=["sgd", "adamw"],
        precisions=["fp64"],
        backends=["torch", "keras-tensorflow"],
        head="original",
        px=None,
        device="cpu",
        interpreters=Interpreters({}),
        cache=tmp_path,
    )


def parts(question: Question) -> dict[str, tuple[str, ...]]:
    subject = subject_of(BACKBONE, "fp64", question)
    return {key: item.parts for key, item in subject.items.items()}


def test_what_policies_share_is_measured_once(exports: Exports, question: Question) -> None:
    assert parts(question) == {
        "random-head-1-sgd": ALL,
        "random-head-1-adamw": ("steps",),
        "random-last_stage-0.1-sgd": ("gradients", "steps"),
        "random-last_stage-0.1-adamw": ("steps",),
        "random-all-0.1-sgd": ("gradients", "steps"),
        "random-all-0.1-adamw": ("steps",),
        "random-all-1-sgd": ("steps",),
        "random-all-1-adamw": ("steps",),
        "random-all-0.384615x0.384615-sgd": ("steps",),
        "random-all-0.384615x0.384615-adamw": ("steps",),
        "random-all-0.1-linear_probe_then_fine_tune-sgd": ("steps",),
        "random-all-0.1-linear_probe_then_fine_tune-adamw": ("steps",),
        "random-all-0.1-gradual_unfreeze-sgd": ("steps",),
        "random-all-0.1-gradual_unfreeze-adamw": ("steps",),
    }
    assert exports.asked == [{"px": 64, "weights": "random", "calibrated": True}]


def test_other_weights_share_nothing(pretrained: Exports, question: Question) -> None:
    found = parts(question)
    assert len(found) == 16
    assert found["pretrained-head-1-sgd"] == found["random-all-1-sgd"] == ALL
    assert found["pretrained-all-1-sgd"] == found["random-all-1-adamw"] == ("steps",)
    assert pretrained.asked == [
        {"px": 64, "weights": "pretrained", "calibrated": False},
        {"px": 64, "weights": "random", "calibrated": True},
    ]


@pytest.mark.parametrize("weights", ["exports", "pretrained"])
def test_every_claim_has_all_its_parts_measured(
    question: Question, weights: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(weights)
    subject = subject_of(BACKBONE, "fp64", question)
    asked = [(p, o) for p in question.policies for o in question.optimizers]
    assert [(c.about.policy, c.about.optimizer) for c in subject.claims] == asked
    for claim in subject.claims:
        assert tuple(claim.items) == PARTS
        for part, key in claim.items.items():
            item = subject.items[key]
            assert part in item.parts
            assert item.key == key
            assert key.startswith(claim.about.weights)
            if part != "forward":
                assert item.policy.boundary == claim.about.boundary
        steps = subject.items[claim.items["steps"]]
        assert steps.policy.backbone_scale == POLICIES[claim.about.policy].backbone_scale
        assert steps.recipe.optimizer == claim.about.optimizer


def test_the_recipe_is_one_that_can_prove_something(exports: Exports, question: Question) -> None:
    subject = subject_of(BACKBONE, "fp32", replace(question, policies=["retrain_all"]))
    recipe = next(iter(subject.items.values())).recipe
    assert (recipe.precision, recipe.px, recipe.batch_size) == ("fp32", 64, 4)
    assert (recipe.schedule, recipe.augmentation, recipe.epochs) == ("cosine", "crop_flip", 2)
    assert recipe.momentum > 0
    assert recipe.weight_decay > 0
    assert subject.images == 7
    (blueprint,) = subject.blueprints.values()
    assert blueprint.operations[-1].shape == (10,)


def test_what_is_proved_is_not_measured_again(exports: Exports, question: Question) -> None:
    gentle = replace(question, policies=["fine_tune_all"])
    subject = subject_of(BACKBONE, "fp64", gentle)
    ids = tuple(e.environment_id for e in plan.environments_of(question))
    known = subject_of(BACKBONE, "fp64", gentle, Everything()).proved
    assert [about.optimizer for about in known] == ["sgd", "adamw"]
    assert {about.environments for about in known} == {ids}
    assert len(subject.claims) == 2

    rest = subject_of(BACKBONE, "fp64", question, known)
    assert rest.proved == known
    assert not any(c.about.policy == "fine_tune_all" for c in rest.claims)
    # Parts that the proved claims would have measured for others are measured now.
    assert rest.items["random-all-1-sgd"].parts == ("gradients", "steps")

    other = subject_of(BACKBONE, "fp32", gentle, known)
    assert (len(other.claims), other.proved) == (2, [])


class Everything(frozenset[Any]):
    """A set that contains everything."""

    def __contains__(self, item: object) -> bool:
        return True


def test_where_one_of_several_backends_is_open_all_are_measured(
    exports: Exports, question: Question
) -> None:
    three = replace(
        question, policies=["retrain_all"], backends=["torch", "keras-tensorflow", "keras-jax"]
    )
    (about, *_) = subject_of(BACKBONE, "fp64", replace(three, backends=three.backends[:2]),
                             Everything()).proved  # fmt: skip
    subject = subject_of(BACKBONE, "fp64", three, [about])
    assert [claim.about.optimizer for claim in subject.claims] == ["sgd", "adamw"]
    assert subject.proved == []


def test_a_size_is_asked_for_or_the_catalogues(exports: Exports, question: Question) -> None:
    assert subject_of(BACKBONE, "fp64", replace(question, px=96)).setting.px == 96
    least = BACKBONES[BACKBONE].min_px
    with pytest.raises(UserError, match=f"cannot take {least - 1} px") as error:
        subject_of(BACKBONE, "fp64", replace(question, px=least - 1))
    assert error.value.hint == f"Use --px {least}."
    assert len(exports.asked) == 1


def test_a_policy_that_trains_nothing_is_refused(
    exports: Exports, question: Question, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    *trunk, last = network.blueprint.operations
    bare = last.model_copy(update={"kind": "relu", "tensors": {}})
    blueprint = network.blueprint.model_copy(update={"operations": (*trunk, bare)})
    monkeypatch.setattr(plan, "attach_head", lambda *_: Network(blueprint, {}))
    with pytest.raises(UserError, match="Policy freeze_all trains nothing in squeezenet1_1"):
        subject_of(BACKBONE, "fp64", replace(question, policies=["freeze_all"]))
