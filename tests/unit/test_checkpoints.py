"""Checkpoints as training programs write them: the tensors are found, or the keys are named."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.unit.test_architecture import ROOT

SCRIPT = """
import argparse, json, sys, zipfile
from collections import defaultdict
from pathlib import Path
import numpy as np, torch, torchvision
from safetensors.torch import save_file
from backends.torch_adapter.export.blueprint_export import export_backbone
from bench.catalog.backbones import BACKBONES
from bench.errors import UserError
from bench.network.head import attach_head
from bench.network.weights import weights_from_file

folder = Path(sys.argv[1])
torch.manual_seed(0)
net = torchvision.models.resnet34()
state = net.state_dict()
trunk = {n: t for n, t in state.items() if not n.startswith("fc.")}
deeper = {"fc.0.weight": torch.randn(64, 512), "fc.0.bias": torch.zeros(64),
          "fc.2.weight": torch.randn(3, 64), "fc.2.bias": torch.zeros(3)}

def named(prefix, tensors=state):
    return {prefix + name: t for name, t in tensors.items()}

torch.manual_seed(1)
other = torchvision.models.resnet34().state_dict()
inside = {n.replace("layer1.", "layer1._orig_mod.").replace("2.0.", "2.0._fsdp_wrapped_module."): t
          for n, t in state.items()}
options = argparse.Namespace(rate=0.1, folder=Path("/data"))

files = {
    "moco.pth": {"state_dict": {**named("module.encoder_q."), **named("module.encoder_k.", other)}},
    "average_inside.pth": {**named("model."), **named("ema.", other)},
    "same_twice.pth": {**named("model."), **named("ema.")},
    "wrapped_inside.pth": inside,
    "deep.pth": named("_forward_module.module.model.net.encoder."),
    "options.pth": {"model": state, "args": options, "log": defaultdict(list), "mean": np.zeros(3)},
    "whole_numbers.pth": {**state, "conv1.weight": state["conv1.weight"].long()},
    "complex.pth": {**state, "conv1.weight": state["conv1.weight"].to(torch.complex64)},
    "without_values.pth": {n: t.to("meta") for n, t in state.items()},
    "repeated.pth": {**state, "fc.weight": torch.zeros(1).expand(10**12)},
    "negative.pth": {**state, "bn1.running_var": -state["bn1.running_var"]},
    "plain.pth": state,
    "wrapped.pth": {"epoch": 3, "model": state, "optimizer": {"lr": 0.1}},
    "model_state_dict.pt": {"model_state_dict": state, "loss": 0.3},
    "net.PTH": {"net": state, "acc": np.float64(0.7)},
    "ema.pth": {"state_dict": state, "state_dict_ema": trunk},
    "odd_key.pth": {"teacher": state, "step": 7},
    "parallel.pth.tar": {"state_dict": named("module.")},
    "compiled.bin": named("_orig_mod."),
    "both.pth": named("module._orig_mod."),
    "lightning.ckpt": {"state_dict": named("model."), "hyper_parameters": {"lr": 0.1}},
    "backbone.pth": named("backbone.", trunk),
    "headless.pth": trunk,
    "deeper.pth": {**trunk, **deeper},
    "classes.pth": {**trunk, "fc.weight": torch.randn(3, 512), "fc.bias": torch.zeros(3)},
    "twice.pth": {"model": {"state_dict": state, "version": 2}},
    "flat.pth": {**state, "epoch": 3},
    "averaged.pth": {**named("module."), "n_averaged": torch.tensor(5)},
    "loss.ckpt": {"state_dict": {**named("model."), "loss.weight": torch.ones(3)}},
    "own_head.pth": {**named("backbone.", trunk), "classifier.weight": torch.randn(3, 512)},
    "nothing.pth": {"epoch": 3, "history": [1, 2]},
    "two.pth": {"generator": state, "critic": state},
    "nan.pth": {**state, "bn1.weight": torch.full((64,), float("nan"))},
    "infinite.pth": {**state, "conv1.weight": state["conv1.weight"] / 0},
    "other.pth": {n: t for n, t in trunk.items() if not n.startswith("layer4")},
}
for name, content in files.items():
    torch.save(content, folder / name)
save_file(named("model."), folder / "model.safetensors")
save_file(state, folder / "safetensors.bin")
whole = (folder / "plain.pth").read_bytes()
(folder / "directory.pth").write_bytes(whole.replace(b"PK\\x01\\x02", b"XX\\x01\\x02"))
with zipfile.ZipFile(folder / "inflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("archive/data.pkl", bytes(10**7))
vgg = torchvision.models.vgg11()
headless = {n: t for n, t in vgg.state_dict().items() if n.startswith("features")}
torch.save(headless, folder / "vgg.pth")

def loaded(name):
    entry = BACKBONES["resnet34"]
    try:
        weights = weights_from_file(entry, folder / name)
        network = export_backbone("resnet34", entry, 64, weights.preprocessing, weights.path,
                                  weights.reader, None)
    except UserError as error:
        return {"message": error.message, "hint": error.hint or ""}
    same = all(np.array_equal(network.tensors[n], trunk[n].numpy()) for n in network.tensors
               if n in trunk)
    return {"same": same, "count": sum(n in trunk for n in network.tensors)}

answers = {p.name: loaded(p.name) for p in folder.iterdir() if p.name != "vgg.pth"}
entry = BACKBONES["vgg16"].model_copy(update={"model": "vgg11"})
network = export_backbone("vgg11", entry, 64, entry.preprocessing, folder / "vgg.pth",
                          "state_dict", None)
attach_head(network, "linear", 2, 0)
try:
    attach_head(network, "original", 2, 0)
    answers["original head"] = ""
except UserError as error:
    answers["original head"] = error.message
answers["vgg"] = sorted(network.tensors) == sorted(headless)
print(json.dumps(answers))
"""
REFUSED = {
    "nothing.pth": "holds no state dict (names → tensors). It has: epoch, history.",
    "two.pth": "It has: generator, critic.",
    "nan.pth": "holds numbers that are not finite, in 1 tensor (bn1.weight)",
    "infinite.pth": "holds numbers that are not finite, in 1 tensor (conv1.weight)",
    "other.pth": "is of another architecture",
    "moco.pth": "holds two networks that fit: 'module.encoder_q.*' and 'module.encoder_k.*'",
    "average_inside.pth": "holds two networks that fit: 'model.*' and 'ema.*'",
    "whole_numbers.pth": "1 tensor not floating-point (conv1.weight)",
    "complex.pth": "the tensor 'conv1.weight' holds complex numbers",
    "without_values.pth": "is sparse, quantized or without values",
    "repeated.pth": "the tensor 'fc.weight' repeats fewer values than it has",
    "negative.pth": "holds negative variances, in 1 tensor (bn1.running_var)",
    "directory.pth": "cannot be read: Bad magic number for central directory",
    "inflated.pth": "it would take 10,000,000 bytes, more than the file has",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("files")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], cwd=ROOT, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_tensors_are_found_whatever_is_around_them(answers: dict[str, Any]) -> None:
    files = {n: a for n, a in answers.items() if isinstance(a, dict) and n not in REFUSED}
    assert len(files) == 25
    trunk = files["plain.pth"]["count"]
    assert files == {name: {"same": True, "count": trunk} for name in files}
    assert trunk > 100


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_named(answers: dict[str, Any], name: str) -> None:
    assert REFUSED[name] in answers[name]["message"]


def test_a_file_without_hidden_layers_of_the_classifier_has_no_original_head(
    answers: dict[str, Any],
) -> None:
    assert answers["vgg"] is True
    assert "there is no head 'original'" in answers["original head"]
