"""Odd networks of users are held, refused with what to do, or lose only their classifier."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_architecture import ROOT

NETWORKS = ROOT / "tests" / "odd_networks.py"
SCRIPT = """
import json, sys
from backends.torch_adapter.export import blueprint_export, describe
from backends.torch_adapter.training_form import check_training_form
from bench.errors import UserError
from bench.network.head import attach_head

def look(file, function):
    name = f"module:{file}:{function}"
    try:
        entry = describe.describe(name, check_training_form)
        network = blueprint_export.export_backbone(
            name, entry, 32, entry.preprocessing, None, "state_dict", None)
    except UserError as error:
        return {"message": error.message, "hint": error.hint or ""}
    whole = sum(t.size for t in network.tensors.values())
    trunk = {t for o in network.blueprint.trunk() for t in o.tensors.values()}
    try:
        attach_head(network, "original", 2, 0)
        original = ""
    except UserError as error:
        original = error.message
    attach_head(network, "linear", 2, 0)
    return {"trunk": sum(network.tensors[t].size for t in trunk), "whole": whole,
            "original": original, "notes": list(network.blueprint.notes),
            "kinds": sorted({o.kind for o in network.blueprint.operations})}

file, *names = json.loads(sys.stdin.read())
print(json.dumps({name: look(file, name) for name in names}))
"""
REFUSED = {
    "tied": ("'odd.weight' and 'second.0.weight' are one tied weight", "a weight of its own"),
    "tied_by_memory": ("are one tied weight", "a weight of its own"),
    "used_twice": ("the weight 'odd.weight' is used twice", "a weight of its own"),
    "cumulative": ("'second.1' has momentum=None: its statistics are cumulative", "0.1"),
    "always_drops": ("cannot be rebuilt (odd_networks.py, line 42): operation aten.dropout", ""),
    "never_drops": ("trains otherwise than its evaluation form shows", "F.dropout"),
    "batch_statistics_always": ("keeps no running statistics", ""),
    "detached": ("trains otherwise than its evaluation form shows", "detach()"),
    "noisy": ("its training form is random beyond dropout layers", "torch.nn.Dropout"),
    "doubled_in_training": ("trains otherwise than its evaluation form shows", "self.training"),
    "keeps_evaluation": ("trains otherwise than its evaluation form shows", "eval()"),
    "a_dict": ("it returns a dict (logits, loss)", "net(x)['logits']"),
    "a_list": ("it returns a list of 1", "net(x)[0]"),
    "one_output": ("it has one output for each image", "torch.nn.Linear(features, 2)"),
    "one_channel": ("its first convolution takes 1 channel(s)", "3 input channels"),
    "fixed_batch": ("it takes 16 images at a time, not 2", "x.flatten(1)"),
    "data_dependent": ("(odd_networks.py, line 133): it decides by the values", "both cases"),
    "compiled": ("returns what torch.compile made of a network", "before torch.compile"),
    "scripted": ("returns what torch.jit made of a network", "before torch.jit"),
    "parameterless": ("returns a network without parameters", "layers that have weights"),
    "functional": ("It has weights outside of any layer (kernel)", "torch.nn.Conv2d"),
    "half_in_training_before_softmax": ("trains otherwise than its evaluation form", "detach()"),
    "detached_before_softmax": ("trains otherwise than its evaluation form", "detach()"),
    "noisy_before_softmax": ("its training form is random beyond dropout", "torch.nn.Dropout"),
    "a_dict_in_training": ("in training form it returns a dict, not logits", "Return the logits"),
    "needs_labels": ("cannot run in training form: ValueError: labels (odd_networks.py", "batch"),
    "hooked": ("'first.0.weight' has a hook on its gradient", "Remove it"),
    "buffer_of_a_weight": ("are one tied weight", "a weight of its own"),
    "negative_variance": ("'first.1.running_var' holds negative variances", "checkpoint"),
    "scripted_inside": ("returns a network with what torch.jit made of a part", "before torch.jit"),
    "exported": ("eval() failed: NotImplementedError", ""),
    "batch_of_ten": ("it takes 10 images at a time, not 2", "x.flatten(1)"),
    "sum_of_two": ("its classifier reads 2 values of the network", "one trunk"),
}
HELD = {
    "dropout_of_maps": "dropout", "alpha_dropout": "dropout", "group_norm": "group_norm",
    "instance_norm": "group_norm", "leaky_relu": "leaky_relu", "prelu": "prelu", "elu": "elu",
    "mish": "mish", "nearest": "upsample", "bilinear": "upsample", "reflected": "pad",
    "standardises": "affine", "classifier_of_convolutions": "conv2d",
}  # fmt: skip
"""Network → a kind of operation in its Blueprint; all of them keep their classifier."""
CLASSIFIER_LOST = ("softmax", "gem", "max_pooled", "normed_classifier")
NO_CLASSIFIER = ("without_classifier", "without_last_layer", "trunk_of_plain_convolutions")
"""Networks whose parameters all belong to the trunk."""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    names = [*REFUSED, *HELD, *CLASSIFIER_LOST, *NO_CLASSIFIER]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps([str(NETWORKS), *names]),
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_twin_would_get_wrong_is_refused(found: dict[str, Any], name: str) -> None:
    message, hint = REFUSED[name]
    assert message in found[name]["message"]
    assert hint in found[name]["hint"]
    assert "input_px" not in found[name]["hint"]


def test_the_line_named_is_the_users() -> None:
    line = Path(NETWORKS).read_text().splitlines()[132]
    assert "x.mean() > 0" in line


@pytest.mark.parametrize("name", HELD)
def test_layers_have_an_operation(found: dict[str, Any], name: str) -> None:
    assert HELD[name] in found[name]["kinds"]
    assert found[name]["original"] == ""
    assert found[name]["trunk"] < found[name]["whole"]


@pytest.mark.parametrize("name", CLASSIFIER_LOST)
def test_a_classifier_that_is_replaced_blocks_nothing(found: dict[str, Any], name: str) -> None:
    assert found[name]["trunk"] == found[name]["whole"] == 3 * 8 * 9 + 16 + 8 * 8 * 9 + 16 + 32
    assert found[name]["notes"] == ["own classifier: left out, as it cannot be rebuilt"]
    assert "there is no head 'original'" in found[name]["original"]


@pytest.mark.parametrize("name", NO_CLASSIFIER)
def test_a_network_without_classifier_keeps_its_whole_trunk(
    found: dict[str, Any], name: str
) -> None:
    assert found[name]["trunk"] == found[name]["whole"] > 0
    assert found[name]["notes"] == []
    assert "there is no head 'original'" in found[name]["original"]
