"""Features at every depth are the pooled outputs of the stages, in every backend's arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backends.torch_adapter import adapter
from bench.catalog.policies import POLICIES
from bench.network.backbones import backbone
from bench.network.blueprint import Network
from bench.network.depths import stages_of, with_depths
from bench.network.export import blueprint_folder
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.network.weights import random_weights
from bench.spec.plain import plain_recipe
from bench.workers.process import Interpreters

PX = 64


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet34"])
def test_features_are_means_of_the_outputs_of_stages(name: str, shared_cache: Path) -> None:
    python = Interpreters({})
    weights = random_weights(backbone(name, python, shared_cache))
    folder = blueprint_folder(name, PX, weights, 0, shared_cache, python)
    network = Network.load(folder, trunk_only=True)
    tapped, depths = with_depths(network)
    assert [depth.stage for depth in depths] == stages_of(network.blueprint)
    images = np.random.default_rng(0).integers(0, 256, (3, PX, PX, 3), np.uint8)
    recipe = plain_recipe("linear", PX, 3)
    prefix = adapter().build_prefix(tapped, recipe, "cpu", compiled=False)
    values = prefix.values([prefix.prefix(images)])
    assert values.shape == (3, depths[-1].last)
    whole = attach_head(network, "linear", 4, seed=0)
    plan = plan_training(whole.blueprint, POLICIES["freeze_all"])
    every = adapter().build(whole, plan, recipe, "cpu").activations(images)
    for depth in depths:
        last = [o for o in network.blueprint.trunk() if o.stage == depth.stage][-1]
        expected = every[last.name].mean(axis=(2, 3))
        assert values[:, depth.first : depth.last] == pytest.approx(expected, rel=1e-4, abs=1e-5)
