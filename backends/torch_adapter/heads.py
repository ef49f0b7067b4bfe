"""Training of many linear heads at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from backends import torch_device as devices
from bench.network.blueprint import Array
from bench.spec.run import Recipe
from bench.training.adapter import Heads

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class TorchHeads:
    """Linear heads (``bench.training.adapter.HeadsTrainer``), one dense layer for each seed."""

    def __init__(self, heads: Heads, recipe: Recipe, device: str) -> None:
        self._copies = devices.Copies(torch.device(device))
        self._recipe = recipe
        self._dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
        self._seeds, self._each, self._classes, features = heads.weights.shape
        layers = heads.weights.reshape(self._seeds, -1, features)
        # Copies, because a tensor may share the memory of its array.
        self._weights = self._put(layers).clone()
        self._biases = self._put(heads.biases.reshape(self._seeds, 1, -1)).clone()
        # One value for each output, along the axis of the outputs.
        rates, decays = (
            self._put(np.repeat(a, self._classes, axis=1))
            for a in (heads.learning_rates, heads.weight_decays)
        )
        self._rates = (rates[:, :, None], rates[:, None, :])
        self._decay = decays[:, :, None]
        parameters = (self._weights, self._biases)
        moments = 1 if recipe.optimizer == "sgd" else 2
        self._moments = [[torch.zeros_like(p) for _ in range(moments)] for p in parameters]
        # Reused in every step: allocating them cost more than computing them.
        self._gradients = [torch.empty_like(p) for p in parameters]
        self._scratch = [torch.empty_like(p) for p in parameters]
        self._steps = 0

    def _put(self, array: npt.NDArray[Any]) -> Tensor:
        return self._copies.to_device(array)[0].to(self._dtype)

    def step(self, values: Array, labels: npt.NDArray[np.int64], factor: float) -> Tensor:
        x, targets = self._copies.to_device(values, labels)
        x = x.to(self._dtype)
        logits = torch.baddbmm(self._biases, x, self._weights.transpose(1, 2)).requires_grad_()
        by_head = logits.view(*x.shape[:2], self._each, self._classes)
        wanted = targets[:, :, None].expand(-1, -1, self._each)
        losses = F.cross_entropy(by_head.permute(0, 3, 1, 2), wanted, reduction="none").mean(1)
        (error,) = torch.autograd.grad(losses.sum(), logits)
        torch.bmm(error.transpose(1, 2), x, out=self._gradients[0])
        torch.sum(error, 1, keepdim=True, out=self._gradients[1])
        self._steps += 1
        rule = self._sgd if self._recipe.optimizer == "sgd" else self._adamw
        for index, parameter in enumerate((self._weights, self._biases)):
            decay = self._decay if parameter is self._weights else None
            rule(index, parameter, factor * self._rates[index], decay)
        return losses.detach()

    def _sgd(self, index: int, w: Tensor, rate: Tensor, decay: Tensor | None) -> None:
        """Update as torch.optim.SGD does (docs.pytorch.org)."""
        gradient, (velocity,) = self._gradients[index], self._moments[index]
        if decay is not None:
            gradient.addcmul_(w, decay)
        velocity.mul_(self._recipe.momentum).add_(gradient)
        w.addcmul_(velocity, rate, value=-1.0)

    def _adamw(self, index: int, w: Tensor, rate: Tensor, decay: Tensor | None) -> None:
        """Update as torch.optim.AdamW does (docs.pytorch.org)."""
        gradient, (first, second) = self._gradients[index], self._moments[index]
        if decay is not None:
            w.mul_(1.0 - rate * decay)
        first.lerp_(gradient, 1.0 - BETA_1)
        second.mul_(BETA_2).addcmul_(gradient, gradient, value=1.0 - BETA_2)
        root = torch.sqrt(second, out=self._scratch[index])
        root.div_((1.0 - BETA_2**self._steps) ** 0.5).add_(EPSILON)
        w.addcmul_(root.reciprocal_().mul_(first), rate / (1.0 - BETA_1**self._steps), value=-1.0)

    def losses(self, handles: list[Tensor]) -> Array:
        found: Array = torch.stack(handles).cpu().numpy()
        return found

    def logits(self, values: Array) -> Array:
        logits = self._put(values) @ self._weights.transpose(1, 2) + self._biases
        by_head = logits.view(self._seeds, -1, self._each, self._classes).transpose(1, 2)
        found: Array = by_head.contiguous().cpu().numpy()
        return found

    def tensors(self) -> tuple[Array, Array]:
        shape = (self._seeds, self._each, self._classes)
        weights, biases = (t.cpu().numpy() for t in (self._weights, self._biases))
        return weights.reshape(*shape, -1).copy(), biases.reshape(shape).copy()
