"""Native mode with PyTorch: a module of torchvision or timm, trained as a user would train it."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import torch_device as devices
from backends.torch_adapter.export.constructors import construct, last_layer
from backends.torch_adapter.export.weights_files import load_weights
from backends.torch_adapter.native.knobs import AUXILIARY, describe_head, read_knobs
from backends.torch_adapter.trainer_base import Prepared, TorchTrainerBase, to_arrays
from bench.errors import UserError, choose
from bench.network.blueprint import HEAD, Array, is_under
from bench.network.freezing import TensorPlan, TrainingPlan
from bench.network.head import hidden_units
from bench.spec.run import Recipe
from bench.workers.tasks import NativeRequest, ParameterCounts

if TYPE_CHECKING:
    from bench.training.adapter import Trainer


class NativeTorchTrainer(TorchTrainerBase):
    """A library's module with its optimizer and contiguous tensors, eager unless the recipe says
    otherwise; PyTorch's own flags."""

    def __init__(self, request: NativeRequest) -> None:
        recipe = request.recipe
        super().__init__(request.device, recipe.precision, native=True)
        self._preprocessing = request.network.preprocessing
        self.request, entry = request, request.network.entry
        torch.manual_seed(request.seed)
        self.module = build_module(request)
        self.initial_head = describe_head(self.module)
        self.module.to(self._device, self._dtype)
        self.stages = dict(entry.stages)
        self.boundary = boundary_position(self.module, self.stages, request)
        self.plan = plan_native(self.module, self.boundary, self.stages[HEAD], request)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name in self.plan.trained)
        self.optimizer = native_optimizer(self.module, self.plan, recipe)
        if recipe.compile == "compiled":
            self.module.compile(dynamic=False)
        self._training = False

    def pixels(self, images: Tensor) -> Tensor:
        """Preprocess uint8 images (N, px, px, 3) to (N, 3, px, px), contiguous."""
        rule = self._preprocessing
        x = images.permute(0, 3, 1, 2).contiguous().to(self._dtype)
        if rule.channels == "BGR":
            x = x.flip(1)
        mean, scale = (x.new_tensor(v).view(1, 3, 1, 1) for v in (rule.mean, rule.scale))
        return (x - mean) * scale

    def train(self) -> None:
        """Put trained parts into ``train()`` and frozen parts into ``eval()``."""
        if not self._training:
            self.module.train()
            for end, module in subtrees(self.module):
                if end < self.boundary:
                    module.eval()
            self._training = True

    def loss(self, prepared: Prepared) -> Tensor:
        images, labels, _ = prepared
        self.train()
        with self._autocast():
            answer = self.module(self.pixels(images))
        # In training, Inception and GoogLeNet return auxiliary logits, too.
        logits = answer if isinstance(answer, Tensor) else answer[0]
        return F.cross_entropy(logits.to(self._dtype), labels)

    def infer(self, images: npt.NDArray[np.uint8]) -> Tensor:
        self.module.eval()
        self._training = False
        with torch.no_grad(), self._autocast():
            logits: Tensor = self.module(self.pixels(self._put(images)))
        return logits

    def tensors(self) -> dict[str, Array]:
        return to_arrays(_state(self.module))

    def counts(self) -> ParameterCounts:
        parameters = list(self.module.parameters())
        held = {name for name, _ in self.module.named_parameters()}
        state = _state(self.module)
        return ParameterCounts(
            total_parameters=sum(p.numel() for p in parameters),
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            state_values=sum(t.numel() for n, t in state.items() if n not in held),
        )

    def knobs(self) -> dict[str, Any]:
        return {
            **devices.knobs(self._device),
            **self._precision_knobs(),
            **read_knobs(self),
        }


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state without BatchNorm's count of batches, which nothing reads."""
    state = module.state_dict()
    return {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}


def build_module(request: NativeRequest) -> nn.Module:
    """Build the library's network with its weights and a head for the classes, in ``eval()``.

    Raises:
        UserError: The weights file or the head does not fit.
        Unavailable: The library is not installed.
    """
    network = request.network
    entry = network.entry
    module = construct(entry, request.seed if network.random else None)
    last, layer = last_layer(module)
    head = request.recipe.head
    if not dict(entry.stages)[HEAD]:
        raise UserError(
            f"{request.backbone} has no classifier that native mode could replace.",
            "Use --mode matched, or give the network a last layer.",
        )
    if network.weights is not None:
        load_weights(
            module, entry, network.weights, network.reader, last, keeps_head=head == "original"
        )
    if head == "original":
        module.set_submodule(last, _resized(layer, request.classes))
        return module.eval()
    paths = [p for p in dict(entry.stages)[HEAD] if p in dict(module.named_modules())]
    first, shape = _entrance(module, paths, request.recipe.px)
    module.set_submodule(first, _new_head(head, shape, request))
    for path in paths:
        if path != first:
            module.set_submodule(path, nn.Identity())
    return module.eval()


def _resized(layer: nn.Linear | nn.Conv2d, classes: int) -> nn.Module:
    """Build a new layer of the same kind with ``classes`` outputs, freshly initialised."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Conv2d):
        kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
        channels = layer.in_channels
        return nn.Conv2d(channels, classes, kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
    return nn.Linear(layer.in_features, classes, bias)


def _entrance(module: nn.Module, paths: list[str], px: int) -> tuple[str, tuple[int, ...]]:
    """Return the head's first module in order of execution and its input shape, batch first."""
    seen: list[tuple[str, tuple[int, ...]]] = []

    def watch(path: str) -> Any:
        return lambda _, inputs: seen.append((path, tuple(inputs[0].shape)))

    hooks = [module.get_submodule(p).register_forward_pre_hook(watch(p)) for p in paths]
    with torch.no_grad():
        module(torch.zeros(1, 3, px, px))
    for hook in hooks:
        hook.remove()
    return seen[0]


def _new_head(head: str, shape: tuple[int, ...], request: NativeRequest) -> nn.Sequential:
    """Build a head for an input of this shape: a map (1, C, H, W), or features (1, C) that the
    network's own forward() has pooled."""
    layers: dict[str, nn.Module] = {}
    features = shape[1]
    if head.startswith("flatten+"):
        if len(shape) != 4:
            raise UserError(
                f"{request.backbone} pools inside its own forward(), so that native mode cannot "
                f"have head '{head}'.",
                "Use --head dense:N, or --mode matched.",
            )
        features = shape[1] * shape[2] * shape[3]
    elif len(shape) == 4:
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    for number, units in enumerate(hidden_units(head), start=1):
        layers[f"dense{number}"] = nn.Linear(features, units)
        layers[f"relu{number}"] = nn.ReLU()
        features = units
    layers["logits"] = nn.Linear(features, request.classes)
    return nn.Sequential(collections.OrderedDict(layers))


def subtrees(module: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """Yield (position of its last submodule in ``named_modules()``, module) for each module."""
    for position, inner in enumerate(module.modules()):
        yield position + sum(1 for _ in inner.modules()) - 1, inner


def boundary_position(
    module: nn.Module, stages: dict[str, tuple[str, ...]], request: NativeRequest
) -> int:
    """Return the position of the first trained module in ``named_modules()``, which torchvision
    and timm keep in order of execution.

    Raises:
        UserError: There is no such stage or module.
    """
    boundary = request.policy.boundary
    if boundary == "all":
        return 0
    stage = list(stages)[-2] if boundary == "last_stage" else boundary
    paths = stages.get(stage, (boundary,))
    names = [name for name, _ in module.named_modules()]
    for position, name in enumerate(names):
        if any(is_under(name, path) for path in paths):
            return position
    choose(f"boundary in {request.backbone}", boundary, [*stages, *filter(None, names)])
    raise AssertionError("choose raises for a name that is not there")


def plan_native(
    module: nn.Module, boundary: int, head: tuple[str, ...], request: NativeRequest
) -> TrainingPlan:
    """Plan which tensors train and which must not change, by their names in ``state_dict()``.

    Weight decay applies to all trained tensors, as with ``torch.optim`` over ``parameters()``.
    """
    positions = {name: i for i, (name, _) in enumerate(module.named_modules())}
    held = {name for name, _ in module.named_parameters()}
    trained: dict[str, TensorPlan] = {}
    frozen, moving = [], []
    for name in _state(module):
        owner = name.rpartition(".")[0]
        auxiliary = any(is_under(name, path) for path in AUXILIARY)
        if positions[owner] < boundary or (auxiliary and name in held):
            frozen.append(name)
        elif name not in held:
            moving.append(name)
        else:
            in_head = any(is_under(name, path) for path in head)
            trained[name] = TensorPlan(1.0 if in_head else request.policy.backbone_scale, True)
    # Native networks are not looked into, so a BatchNorm over a single position may train.
    return TrainingPlan(0, trained, tuple(frozen), tuple(moving), (), needs_two_images=True)


def native_optimizer(
    module: nn.Module, plan: TrainingPlan, recipe: Recipe
) -> torch.optim.Optimizer:
    """Build torch.optim.SGD or AdamW with its defaults, one group for each learning-rate scale."""
    parameters = dict(module.named_parameters())
    scales = sorted({treatment.learning_rate_scale for treatment in plan.trained.values()})
    groups = [
        {
            "params": [
                parameters[n] for n, t in plan.trained.items() if t.learning_rate_scale == s
            ],
            "scale": s,
        }
        for s in scales
    ]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, weight_decay=decay)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)


if TYPE_CHECKING:
    _fulfilled: type[Trainer] = NativeTorchTrainer
