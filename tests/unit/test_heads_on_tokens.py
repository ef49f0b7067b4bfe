"""Heads and masks where a backbone gives tokens or a vector and no map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.catalog.policies import POLICIES
from bench.data import Split
from bench.errors import UserError
from bench.network.blueprint import HEAD, channels_last, with_features
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.training.batches import TrainingBatches
from tests.parity.sketches import CHANNELS, PX, Sketch

LENGTH = 25


def _tokens() -> Sketch:
    sketch = Sketch().conv(CHANNELS, (3, 3), stride=[3, 3])
    return sketch.add("tokens", (LENGTH, CHANNELS)).add("dropout", rate=0.25)


def _vector() -> Sketch:
    return _tokens().add("select", (CHANNELS,), index=0)


@pytest.mark.parametrize(
    ("trunk", "head", "kinds", "features"),
    [
        (_tokens, "linear", ["mean_tokens", "linear"], CHANNELS),
        (_tokens, "flatten+dense:3", ["flatten", "linear", "relu", "linear"], LENGTH * CHANNELS),
        (_vector, "linear", ["linear"], CHANNELS),
        (_vector, "dense:3", ["linear", "relu", "linear"], CHANNELS),
        (_vector, "flatten+dense:3", ["linear", "relu", "linear"], CHANNELS),
    ],
)
def test_heads_take_what_the_trunk_gives(
    trunk: Callable[[], Sketch], head: str, kinds: list[str], features: int
) -> None:
    network = attach_head(trunk().finished(), head, 2, 0)
    operations = [o for o in network.blueprint.operations if o.stage == HEAD]
    assert [o.kind for o in operations] == kinds
    first = next(o for o in operations if o.kind == "linear")
    assert network.tensors[first.tensors["weight"]].shape[1] == features
    assert network.blueprint.operations[-1].shape == (2,)


def test_every_last_layer_of_a_classifier_is_resized() -> None:
    sketch = _vector()
    trunk = sketch.last
    first = sketch.linear(7).last
    sketch.add("linear", (7,), inputs=(trunk,), tensors={"weight": (7, CHANNELS)})
    second = sketch.last
    sketch.add("add", (7,), inputs=(first, second)).add("affine", factor=0.5, offset=0.0)
    network = attach_head(sketch.network(head_from=-4), "original", 3, 0)
    head = [o for o in network.blueprint.operations if o.stage == HEAD]
    assert [o.shape for o in head] == [(3,)] * 4
    weights = [network.tensors[o.tensors["weight"]] for o in head if o.kind == "linear"]
    assert [w.shape for w in weights] == [(3, CHANNELS)] * 2
    assert not np.array_equal(*weights)


def test_a_classifier_without_a_last_layer_cannot_be_resized() -> None:
    network = _vector().add("relu").network(head_from=-1)
    with pytest.raises(UserError, match="no classifier of its own that ends in a layer to replace"):
        attach_head(network, "original", 3, 0)


def test_parameters_that_are_no_kernels_do_not_decay() -> None:
    sketch = _tokens().add("prepend", (LENGTH + 1, CHANNELS), tensors={"token": (1, 1, CHANNELS)})
    sketch.add("shift", shape=[LENGTH + 1, CHANNELS], tensors={"bias": (LENGTH + 1, CHANNELS)})
    sketch.add("scale", shape=[1, CHANNELS], tensors={"weight": (CHANNELS,)})
    sketch.add("layer_norm", tensors={"weight": (CHANNELS,), "bias": (CHANNELS,)}, epsilon=1e-6)
    blueprint = sketch.finished().blueprint
    plan = plan_training(blueprint, POLICIES["retrain_all"])
    decaying = {name for name, treatment in plan.trained.items() if treatment.decays}
    kernels = [o.tensors["weight"] for o in blueprint.operations if o.kind in ("conv2d", "linear")]
    assert decaying == set(kernels)
    assert set(plan.trained) == set(blueprint.shapes)


def test_masks_of_tokens_have_their_shape(make_spec: Callable[..., Any]) -> None:
    dropouts = [o for o in _tokens().finished().blueprint.operations if o.kind == "dropout"]
    images: npt.NDArray[np.uint8] = np.zeros((4, PX, PX, 3), np.uint8)
    recipe = make_spec(recipe={"px": PX, "batch_size": 4}).recipe
    batches = TrainingBatches(Split(images, np.arange(4)), recipe, dropouts, seed=0)
    (batch,) = batches.epoch(0)
    assert [m.shape for m in batch.masks] == [(4, LENGTH, CHANNELS)]


def test_the_forms_of_a_value() -> None:
    assert channels_last((2, 3, 4)) == (3, 4, 2)
    assert channels_last((3, 4)) == (3, 4)
    assert [with_features(s, 9) for s in ((2, 3, 4), (3, 4), (4,))] == [(9, 3, 4), (3, 9), (9,)]
