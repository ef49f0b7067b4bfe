"""Settings that are PyTorch's own in native mode, read from the built module and optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth

from backends.torch_adapter.export.constructors import last_layer
from bench.native import probes
from bench.native.applications import NATIVE_RESIZE
from bench.spec.backbone import BackboneEntry
from bench.workers.tasks import NativeRequest, ParameterCounts

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""torchvision's names of auxiliary classifiers in the middle of a network."""


class NativeTraining(Protocol):
    """A native network in training, with what ``read_knobs`` reads."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    request: NativeRequest
    initial_head: dict[str, str]
    """``describe_head`` of the network as it was built."""
    boundary: int
    """Position of the first trained module in ``named_modules()``."""

    def counts(self) -> ParameterCounts: ...

    def train(self) -> None: ...

    def infer(self, images: npt.NDArray[np.uint8]) -> Tensor: ...


def read_knobs(trainer: NativeTraining) -> dict[str, Any]:
    """Return JSON values by the names of ``bench.native.differences.KNOBS``."""
    module, request = trainer.module, trainer.request
    entry, weights = request.network.entry, request.network.weights
    counts = trainer.counts()
    names = [name for name, _ in module.named_modules()]
    return {
        "network": f"{entry.library}.{entry.model}",
        "weights_file": weights.name if weights else "none: random",
        **_pixels(trainer),
        "resize_filter": NATIVE_RESIZE["torch"],
        "loader_resize": _loader_resize(entry),
        **probes.describe_convolutions(_convolutions(module)),
        **_batch_norms(module),
        **_optimizer(trainer.optimizer),
        "learning_rates": "; ".join(
            f"{len(g['params'])} tensors at {g['scale']:g} times the rate"
            for g in trainer.optimizer.param_groups
        ),
        "head_initialiser": "Linear.reset_parameters",
        **trainer.initial_head,
        "layout": _layout(module),
        "compilation": "torch.compile" if request.recipe.compile == "compiled" else "eager",
        "dropout": _dropouts(module),
        "stochastic_depth": _stochastic_depth(module),
        "auxiliary_heads": _auxiliary(module),
        "first_trained": names[trainer.boundary] or "all",
        "frozen_part": _frozen_part(trainer),
        "parameters": counts.total_parameters,
        "moving_statistics": counts.state_values,
    }


def _frozen_part(trainer: NativeTraining) -> str:
    if trainer.boundary == 0:
        return "none"
    trainer.train()
    before = list(trainer.module.modules())[1 : trainer.boundary]
    still = [m for m in before if not m.training and not list(m.children())]
    return f"{len(still)} layers in inference mode: eval()"


def _pixels(trainer: NativeTraining) -> dict[str, str]:
    """Describe the input of the first convolution for images of one colour."""
    first = next(m for m in trainer.module.modules() if isinstance(m, nn.Conv2d))
    seen: list[Tensor] = []
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    px = trainer.request.recipe.px
    trainer.infer(np.stack([np.full((px, px, 3), p, np.uint8) for p in probes.PIXELS]))
    hook.remove()
    centre = seen[0][:, :, px // 2, px // 2].detach().double().cpu().tolist()
    return probes.describe_pixels(centre)


def _loader_resize(entry: BackboneEntry) -> str:
    """Describe the resizing in the transforms that come with the library's weights."""
    if entry.library == "torchvision":
        rule = torchvision.models.get_model_weights(entry.model).DEFAULT.transforms()
        name = f"{rule.interpolation.value}, antialias={rule.antialias}"
        return f"{name}, shorter side {rule.resize_size[0]}, centre {rule.crop_size[0]}"
    import timm

    config = timm.get_pretrained_cfg(entry.model) or timm.models.PretrainedCfg()
    return f"{config.interpolation}, antialias=True, crop_pct {config.crop_pct}"


def _convolutions(module: nn.Module) -> list[probes.Convolution]:
    return [
        probes.Convolution(
            (m.kernel_size[0], m.kernel_size[1]),
            (m.stride[0], m.stride[1]),
            _padding(m),
            m.bias is not None,
        )
        for m in module.modules()
        if isinstance(m, nn.Conv2d)
    ]


def _padding(layer: nn.Conv2d) -> str:
    """Describe the padding above and below. timm's ports from TensorFlow pad by the input size."""
    amount = layer.padding[0]
    by_size = type(layer).__name__ == "Conv2dSame" or isinstance(amount, str)
    return "same" if by_size else f"{amount}+{amount}"


def _batch_norms(module: nn.Module) -> dict[str, Any]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    shares = {float(m.momentum) for m in norms if m.momentum is not None}
    return {
        "batch_norm_layers": len(norms),
        "batch_norm_epsilon": probes.distinct(m.eps for m in norms),
        "batch_norm_momentum": probes.distinct(shares),
        "batch_norm_new_share": probes.distinct(shares),
        "running_variance": _variance(norms[0]) if norms else "none",
    }


def _variance(norm: _BatchNorm) -> str:
    """Describe the running variance by one step of a layer of the same class and constants."""
    probe = type(norm)(1, eps=norm.eps, momentum=norm.momentum)
    probe.train()
    # The shape (4, 1, 1, 1) is the same channels first and last.
    probe(torch.from_numpy(probes.variance_values()))
    assert probe.running_var is not None
    assert norm.momentum is not None
    return probes.describe_variance(float(probe.running_var), float(norm.momentum))


def _optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    kind: Any = type(optimizer)
    group = optimizer.param_groups[0]
    settings = {"momentum": group["momentum"]} if "momentum" in group else {}

    def trajectory(
        start: float, gradients: Sequence[float], rates: Sequence[float], decay: float
    ) -> list[float]:
        value = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        fresh = kind([value], lr=1.0, weight_decay=decay, **settings)
        found = []
        for gradient, rate in zip(gradients, rates, strict=True):
            fresh.param_groups[0]["lr"] = rate
            value.grad = torch.tensor(gradient, dtype=torch.float64)
            fresh.step()
            found.append(float(value.detach()))
        return found

    if "betas" in group:
        rule = probes.describe_adam(trajectory, group["eps"], group["betas"][1])
    else:
        rule = probes.describe_sgd(trajectory, group["momentum"])
    decayed = sum(len(g["params"]) for g in optimizer.param_groups if g["weight_decay"])
    total = sum(len(g["params"]) for g in optimizer.param_groups)
    return {
        "optimizer": kind.__name__,
        "optimizer_epsilon": group.get("eps"),
        "update_rule": rule,
        "weight_decay_rule": probes.describe_decay(trajectory),
        "weight_decay_tensors": f"{decayed} of {total}",
        "optimizer_defaults": _defaults(kind),
    }


def _defaults(kind: type) -> str:
    parameters = inspect.signature(kind).parameters
    names = {"lr": "learning_rate", "momentum": "momentum", "weight_decay": "weight_decay"}
    return ", ".join(
        f"{label} {parameters[name].default}" for name, label in names.items() if name in parameters
    )


def describe_head(module: nn.Module) -> dict[str, str]:
    """Describe the initial values of the last layer; call it before training changes them."""
    _, last = last_layer(module)
    bias = None if last.bias is None else last.bias.detach().double().numpy()
    return probes.describe_head(last.weight.detach().double().numpy(), bias)


def _layout(module: nn.Module) -> str:
    kernels = [p for p in module.parameters() if p.ndim == 4]
    last = all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    first = all(k.is_contiguous() for k in kernels)
    return "channels_first" if first else "channels_last" if last else "mixed"


def _dropouts(module: nn.Module) -> str:
    rates = [m.p for m in module.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    return f"{len(rates)} layers at {probes.distinct(rates)}" if rates else "none"


def _stochastic_depth(module: nn.Module) -> str:
    rates = [m.p for m in module.modules() if isinstance(m, StochasticDepth) and m.p > 0]
    rates += [m.drop_prob for m in module.modules() if type(m).__name__ == "DropPath"]
    return f"on: {len(rates)} layers, up to {max(rates):.3g}" if rates else "none"


def _auxiliary(module: nn.Module) -> str:
    found = [n for n in AUXILIARY if getattr(module, n, None) is not None]
    return f"{', '.join(found)}: run, not trained on" if found else "none"
