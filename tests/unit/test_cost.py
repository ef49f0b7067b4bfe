"""Multiply-adds against published figures, and backward passes as far as something trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.catalog.policies import POLICIES
from bench.network.blueprint import Blueprint, Network, Operation
from bench.network.cost import Work, multiply_adds, saving, work_of
from bench.network.export import architecture_folders
from bench.network.freezing import plan_training
from tests.frameworks import HERE

PX = 8


def _work(network: Network, policy: str, **changes: Any) -> Work:
    chosen = POLICIES[policy].model_copy(update=changes)
    return work_of(network.blueprint, plan_training(network.blueprint, chosen))


def test_of_the_small_network_by_hand(network: Network) -> None:
    """The network: conv 4×3×3×3 on 8×8, a 4×4×3×3 on 8×8, b 6×4×3×3 on 4×4, fc 10×6."""
    conv, a, b, fc = 108 * 64, 144 * 64, 216 * 16, 60
    every = conv + a + b + fc
    assert _work(network, "fine_tune_all").forward_multiply_adds == every
    # In the first layer only the weights need a gradient, as nothing before it trains.
    assert _work(network, "fine_tune_all").backward_multiply_adds == conv + 2 * (a + b + fc)
    assert _work(network, "freeze_all").backward_multiply_adds == fc
    assert _work(network, "fine_tune_last").backward_multiply_adds == b + 2 * fc
    assert _work(network, "freeze_all").forward_multiply_adds == every


def test_a_frozen_skip_takes_no_gradient(network: Network) -> None:
    """Training from a on: its weights need a gradient, its input, the frozen stem, none."""
    found = _work(network, "fine_tune_last", boundary="stage1")
    assert found.backward_multiply_adds == 144 * 64 + 2 * (216 * 16 + 60)


def test_activations_kept_for_the_backward_pass(network: Network) -> None:
    """With freeze_all: the input of fc. From stage2 on: the inputs of b, its BatchNorm, and fc."""
    assert _work(network, "freeze_all").activation_bytes == 4 * 6
    expected = 4 * 8 * 8 + 6 * 4 * 4 + 6
    assert _work(network, "fine_tune_last").activation_bytes == 4 * expected


def test_savings_are_ordered_as_policies_are(network: Network) -> None:
    full = _work(network, "fine_tune_all")
    found = [saving(_work(network, p), full) for p in ("freeze_all", "fine_tune_last",
                                                       "fine_tune_all")]  # fmt: skip
    assert found == sorted(found, reverse=True)
    assert 0 < found[0] < 1
    assert found[-1] == 0.0


@pytest.mark.parametrize(
    ("kind", "shape", "weight", "expected"),
    [
        ("linear", (5,), (5, 7), 35),
        ("linear", (11, 5), (5, 7), 35 * 11),
        ("linear", (5, 2, 3), (5, 7), 35 * 6),
        ("conv2d", (8, 4, 4), (8, 1, 3, 3), 72 * 16),  # depthwise
        ("relu", (8, 4, 4), None, 0),
        ("attention", (11, 6), None, 2 * 11 * 11 * 6),
    ],
)
def test_of_single_operations(
    network: Network, kind: Any, shape: tuple[int, ...], weight: Any, expected: int
) -> None:
    operation = Operation(
        name="x", kind=kind, inputs=("pixels",), shape=shape, module_path="x", stage="s",
        tensors={"weight": "w"} if weight else {},
    )  # fmt: skip
    shapes = {"w": weight} if weight else {}
    blueprint = network.blueprint.model_copy(update={"operations": (operation,), "shapes": shapes})
    assert multiply_adds(operation, blueprint) == expected


PUBLISHED = {"resnet50": 4.09e9, "vgg16": 15.47e9, "mobilenet_v2": 0.30e9, "alexnet": 0.71e9}
"""GFLOPS from torchvision's table of weights (docs.pytorch.org, "Models and pre-trained weights"),
which counts a multiply-add as one, at 224 px with 1,000 classes."""


@pytest.fixture(scope="module")
def architectures(shared_cache: Path) -> dict[str, Path]:
    return architecture_folders(dict.fromkeys(PUBLISHED, 224), shared_cache, HERE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str, architectures: dict[str, Path]) -> None:
    blueprint = Blueprint.load(architectures[name])
    plan = plan_training(blueprint, POLICIES["retrain_all"])
    found = work_of(blueprint, plan)
    assert found.forward_multiply_adds == pytest.approx(PUBLISHED[name], rel=0.01)
    assert 1.85 < found.backward_multiply_adds / found.forward_multiply_adds <= 2.0


def test_attention_goes_back_at_twice_its_forward_work(network: Network) -> None:
    """Attention: queries, keys and values of 6 features each from 11 tokens of 6."""

    def operation(name: str, kind: Any, source: str, shape: tuple[int, ...], *weight: int) -> Any:
        return Operation(
            name=name, kind=kind, inputs=(source,), shape=shape, module_path=name, stage="stem",
            tensors={"weight": name} if weight else {},
        )  # fmt: skip

    operations = (
        operation("flat", "flatten", "pixels", (11, 6)),
        operation("qkv", "linear", "flat", (11, 18), 18, 6),
        operation("mix", "attention", "qkv", (11, 6)),
        operation("out", "linear", "mix", (11, 6), 6, 6),
    )
    blueprint = network.blueprint.model_copy(
        update={"operations": operations, "shapes": {"qkv": (18, 6), "out": (6, 6)}}
    )
    found = work_of(blueprint, plan_training(blueprint, POLICIES["retrain_all"]))
    qkv, mix, out = 11 * 18 * 6, 2 * 11 * 11 * 6, 11 * 6 * 6
    assert found.forward_multiply_adds == qkv + mix + out
    assert found.backward_multiply_adds == qkv + 2 * mix + 2 * out
