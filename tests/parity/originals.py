"""Compare networks of torchvision and timm with their Blueprints, in a process of its own.

Run as ``python -m tests.parity.originals NAME…``; prints a line of JSON per network: the relative
difference between the rebuilt network and the original module in float64 and the notes of the
export, or why it was refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer

from backends.torch_adapter.export.blueprint_export import export_module
from backends.torch_adapter.network import TorchNetwork
from bench.catalog.policies import POLICIES
from bench.errors import UserError
from bench.network.blueprint import Network
from bench.network.freezing import plan_training
from bench.spec.preprocessing import Preprocessing

PX = 64
PREPROCESSING = Preprocessing(channels="RGB", mean=(127.0,) * 3, scale=(1 / 64,) * 3)


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, **options)


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, **options)


_tokens = partial(TimmViT, img_size=PX, embed_dim=24, depth=2, num_heads=3, num_classes=10)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "shufflenet": _torchvision("shufflenet_v2_x0_5"),
    "mobilenet_v3": _torchvision("mobilenet_v3_small"),
    "squeezenet": _torchvision("squeezenet1_1"),
    "regnet": _torchvision("regnet_y_400mf"),
    "googlenet": _torchvision("googlenet", init_weights=False),
    "googlenet that transforms": _torchvision(
        "googlenet", init_weights=False, transform_input=True
    ),
    "vit": lambda: VisionTransformer(PX, 16, 2, 3, 24, 48, num_classes=10),
    "vit that drops": lambda: VisionTransformer(
        PX, 16, 1, 3, 24, 48, dropout=0.1, attention_dropout=0.1, num_classes=10
    ),
    "convnext": lambda: ConvNeXt(
        [CNBlockConfig(16, 24, 2), CNBlockConfig(24, None, 1)], 0.2, num_classes=10
    ),
    "swin": _torchvision("swin_t"),
    "swin_v2": _torchvision("swin_v2_t"),
    "timm resnet": _timm("resnet14t"),
    "timm resnet, deep stem": _timm("resnet26d"),
    "timm efficientnet": _timm("tf_efficientnetv2_b0"),
    "timm mobilenet_v4": _timm("mobilenetv4_conv_small"),
    "timm convnext": lambda: TimmConvNeXt(
        depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=10, drop_path_rate=0.1
    ),
    "timm vit": _tokens,
    "timm vit, layer scale": partial(_tokens, init_values=0.1, no_embed_class=True, reg_tokens=2),
    "timm vit, pooled": partial(_tokens, class_token=False, global_pool="avg"),
    "timm vit, pooled behind its class token": partial(_tokens, global_pool="avg"),
    "timm vit, normalised queries": partial(_tokens, qk_norm=True),
    "timm deit": _timm(
        "deit_tiny_distilled_patch16_224", img_size=PX, embed_dim=24, depth=1, num_heads=2
    ),
}


def shake(module: nn.Module) -> None:
    """Give random values to every tensor that is zero or one in a fresh network."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5)
    for parameter in module.parameters():
        if parameter.ndim < 2 or parameter.shape[0] == 1 or parameter.shape[-1] == 1:
            parameter.data.add_(torch.empty_like(parameter).uniform_(-0.3, 0.3))


def compare(name: str) -> dict[str, Any]:
    """Compare the output of the rebuilt network with that of the original."""
    torch.manual_seed(0)
    module = NETWORKS[name]().eval()
    shake(module)
    stages = (("stem", ("",)), ("head", ("nowhere",)))
    try:
        blueprint = export_module(module, name, PX, stages, PREPROCESSING)
    except UserError as error:
        return {"refused": error.message}
    state = module.state_dict()
    tensors = {t: state[t].numpy() for _, _, t in blueprint.named_tensors()}
    plan = plan_training(blueprint, POLICIES["retrain_all"])
    network = Network(blueprint, tensors)
    rebuilt = TorchNetwork(network, plan, torch.device("cpu"), torch.float64)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, PX, PX, 3), np.uint8))
    with torch.no_grad():
        expected = module.double()(rebuilt.preprocess(images))
        found = rebuilt.forward(images, (), training=False)
    scale = expected.abs().max()
    return {
        "error": float((found - expected).abs().max() / scale),
        "between_images": float((expected[0] - expected[1]).abs().max() / scale),
        "notes": blueprint.notes,
        "kinds": sorted({o.kind for o in blueprint.operations}),
    }


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(json.dumps({"name": wanted, **compare(wanted)}), flush=True)
