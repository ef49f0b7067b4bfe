"""Exported networks compute the same as the library's modules; others are refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOLERANCE = 1e-13
ROOT = Path(__file__).parents[2]

SAME: dict[str, set[str]] = {
    "shufflenet": {"channel_shuffle", "slice", "cat"},
    "mobilenet_v3": {"hard_swish", "hard_sigmoid", "multiply"},
    "squeezenet": {"cat", "dropout"},
    "regnet": {"sigmoid", "multiply"},
    "googlenet": {"cat"},
    "googlenet that transforms": {"slice", "affine"},
    "vit": {"tokens", "prepend", "shift", "layer_norm", "attention", "select"},
    "vit that drops": {"dropout", "attention"},
    "convnext": {"layer_norm", "gelu", "scale"},
    "timm resnet": {"max_pool2d"},
    "timm resnet, deep stem": {"avg_pool2d"},
    "timm efficientnet": {"silu", "multiply"},
    "timm mobilenet_v4": {"conv2d"},
    "timm convnext": {"layer_norm", "gelu", "scale"},
    "timm vit": {"tokens", "prepend", "shift", "attention", "select"},
    "timm vit, layer scale": {"scale", "attention"},
    "timm vit, pooled": {"mean_tokens", "attention"},
    "timm vit, pooled behind its class token": {"slice", "mean_tokens"},
    "timm deit": {"affine", "add"},
}
"""Network → kinds of operation that its Blueprint must contain."""
REFUSED = {
    "swin": "operation aten.index.Tensor (module 'features.1.0.attn')",
    "swin_v2": "operation aten.linear.default (module 'features.1.0.attn.cpb_mlp.0')",
    "timm vit, normalised queries": "(module 'blocks.0.attn.q_norm')",
}
"""Network → text that the refusal must contain."""
NOTES = {
    "googlenet": ["auxiliary heads: off"],
    "vit that drops": ["dropout of attention weights: off"],
    "convnext": ["stochastic depth: off"],
    "timm convnext": ["stochastic depth: off"],
    "timm vit": [],
}
"""Network → notes on what inference form leaves out."""


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.parity.originals", *SAME, *REFUSED]
    # One thread: on busy cores threads would mostly wait for each other.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_the_rebuilt_network_computes_what_the_original_does(
    found: dict[str, dict[str, Any]], name: str
) -> None:
    assert "refused" not in found[name]
    assert found[name]["error"] <= TOLERANCE
    assert found[name]["between_images"] > 1e-6
    assert SAME[name] <= set(found[name]["kinds"])


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_by_name(
    found: dict[str, dict[str, Any]], name: str
) -> None:
    assert f"{name} cannot be rebuilt: " in found[name]["refused"]
    assert REFUSED[name] in found[name]["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTES)
def test_what_inference_form_leaves_out_is_noted(
    found: dict[str, dict[str, Any]], name: str
) -> None:
    assert found[name]["notes"] == NOTES[name]
