"""Many linear heads at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch_adapter import device as devices
from bench.backend import Heads
from bench.blueprint import Array
from bench.spec import Recipe

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class TorchHeads:
    """``bench.backend.HeadsTrainer``: the heads of a seed are one dense layer."""

    def __init__(self, heads: Heads, recipe: Recipe, device: str) -> None:
        self._device = torch.device(device)
        self._recipe = recipe
        self._dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
        self._seeds, self._each, self._classes, features = heads.weights.shape
        layers = heads.weights.reshape(self._seeds, -1, features)
        # Copies, for a tensor may lie in the very memory of the array that it was made of.
        self._weights = self._put(layers).clone().requires_grad_()
        self._biases = self._put(heads.biases.reshape(self._seeds, 1, -1)).clone().requires_grad_()
        # One number for each output, along the axis of the outputs.
        rates, decays = (
            self._put(np.repeat(a, self._classes, axis=1))
            for a in (heads.learning_rates, heads.weight_decays)
        )
        self._rates = {self._weights: rates[:, :, None], self._biases: rates[:, None, :]}
        self._decay = decays[:, :, None]
        moments = 1 if recipe.optimizer == "sgd" else 2
        self._moments = {p: [torch.zeros_like(p) for _ in range(moments)] for p in self._rates}
        self._steps = 0

    def _put(self, array: npt.NDArray[Any]) -> Tensor:
        return devices.put(array, self._device).to(self._dtype)

    def step(self, values: Array, labels: npt.NDArray[np.int64], factor: float) -> Tensor:
        x, targets = self._put(values), devices.put(labels, self._device)
        logits = torch.baddbmm(self._biases, x, self._weights.transpose(1, 2))
        apart = logits.view(*x.shape[:2], self._each, self._classes)
        wanted = targets[:, :, None].expand(-1, -1, self._each)
        losses = F.cross_entropy(apart.permute(0, 3, 1, 2), wanted, reduction="none").mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(self._rates))
        self._steps += 1
        rule = self._sgd if self._recipe.optimizer == "sgd" else self._adamw
        with torch.no_grad():
            for parameter, gradient in zip(self._rates, gradients, strict=True):
                rule(parameter, gradient, factor * self._rates[parameter])
        return losses.detach()

    def _sgd(self, w: Tensor, g: Tensor, rate: Tensor) -> None:
        """docs.pytorch.org, torch.optim.SGD."""
        if w is self._weights:
            g = g + self._decay * w
        (velocity,) = self._moments[w]
        velocity.mul_(self._recipe.momentum).add_(g)
        w.sub_(rate * velocity)

    def _adamw(self, w: Tensor, g: Tensor, rate: Tensor) -> None:
        """docs.pytorch.org, torch.optim.AdamW."""
        first, second = self._moments[w]
        if w is self._weights:
            w.mul_(1.0 - rate * self._decay)
        first.lerp_(g, 1.0 - BETA_1)
        second.mul_(BETA_2).addcmul_(g, g, value=1.0 - BETA_2)
        root = second.sqrt().div_((1.0 - BETA_2**self._steps) ** 0.5).add_(EPSILON)
        w.sub_(root.reciprocal_().mul_(first).mul_(rate / (1.0 - BETA_1**self._steps)))

    def losses(self, handles: list[Tensor]) -> Array:
        found: Array = torch.stack(handles).cpu().numpy()
        return found

    def logits(self, values: Array) -> Array:
        with torch.no_grad():
            logits = self._put(values) @ self._weights.transpose(1, 2) + self._biases
        apart = logits.view(self._seeds, -1, self._each, self._classes).transpose(1, 2)
        found: Array = apart.contiguous().cpu().numpy()
        return found

    def tensors(self) -> tuple[Array, Array]:
        shape = (self._seeds, self._each, self._classes)
        weights, biases = (t.detach().cpu().numpy() for t in (self._weights, self._biases))
        return weights.reshape(*shape, -1).copy(), biases.reshape(shape).copy()
