"""One pass of inference over images up to where training starts, by hand in each form:
``python -m tests.speed.limit BACKEND BLUEPRINT --policy P --images N --batch-size B``.

Prints one line of JSON: form → seconds, those of making the form included. The least of them is
what no harness can be faster than.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import get_args

import numpy as np

from backends.worker import load_adapter
from bench.blueprint import Network
from bench.catalog.policies import POLICIES
from bench.catalog.recipes import plain_recipe
from bench.forms import Form, make_prefix
from bench.head import attach_head
from bench.plan import plan_training
from bench.prefix import boundary_of

ONE_AND_THE_SAME = ("compiled", "keras-tensorflow")
"""TensorFlow's folded form is a compiled graph already."""


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("blueprint", type=Path)
    parser.add_argument("--policy", default="freeze_all")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--forms", default="plain,folded,compiled")
    asked = parser.parse_args()
    adapter = load_adapter(asked.backend)
    network = attach_head(Network.load(asked.blueprint, trunk_only=True), "linear", 18, 0)
    blueprint = network.blueprint
    plan = plan_training(blueprint, POLICIES[asked.policy])
    recipe = plain_recipe("linear", blueprint.px, asked.batch_size)
    trainer = adapter.build(network, plan, recipe, "cpu")
    boundary = boundary_of(blueprint, plan)
    assert boundary is not None
    shape = (asked.images, blueprint.px, blueprint.px, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = {}
    for form in get_args(Form):
        if form not in asked.forms.split(",") or (form, asked.backend) == ONE_AND_THE_SAME:
            continue
        began = time.perf_counter()
        prefix = make_prefix(form, adapter, trainer, blueprint, boundary, recipe, "cpu")
        for first in range(0, asked.images, asked.batch_size):
            prefix.values([prefix.prefix(images[first : first + asked.batch_size])])
        found[form] = time.perf_counter() - began
    print(json.dumps(found))


if __name__ == "__main__":
    main()
