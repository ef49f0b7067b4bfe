"""Defects of the torch adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch_adapter import trainer
from backends.torch_adapter.network import BUILDERS, TorchNetwork
from backends.torch_adapter.trainer import TorchTrainer
from tests.parity.plants import TRAINED_STAGE, Plant, all_in_training, in_any_adapter, wrapped


def _biased_variance(build: Any) -> Any:
    """Update the running variance with the biased variance of the batch."""

    def changed(o: Any, tensors: Any, training: bool, inplace: bool) -> Any:
        step = build(o, tensors, training, inplace)
        if not training:
            return step
        variance, momentum = tensors[o.tensors["running_var"]], o.attributes["momentum"]

        def biased(x: list[Tensor]) -> Tensor:
            kept = variance * (1.0 - momentum)
            y: Tensor = step(x)
            values = x[0].numel() / x[0].shape[1]
            # Bypasses autograd, which counts in-place changes of saved tensors.
            variance.data.copy_(kept + (variance - kept) * ((values - 1.0) / values))
            return y

        return biased

    return changed


def _only_moves(build: Any) -> Any:
    """Normalise by the running statistics in frozen stages, and still update them."""

    def changed(o: Any, tensors: Any, training: bool, inplace: bool) -> Any:
        step = build(o, tensors, training, inplace)
        if not training or o.stage == TRAINED_STAGE:
            return step
        normalise = build(o, tensors, False, False)

        def moving(x: list[Tensor]) -> Tensor:
            y: Tensor = normalise(x)
            step(x)
            return y

        return moving

    return changed


def _pad_zeros(build: Any) -> Any:
    def changed(o: Any, *more: Any) -> Any:
        top, bottom, left, right = o.attributes["padding"]
        attributes = {**o.attributes, "padding": [0, 0, 0, 0]}
        step = build(o.model_copy(update={"attributes": attributes}), *more)
        return lambda x: step([F.pad(x[0], (left, right, top, bottom))])

    return changed


def _channels_last(build: Any) -> Any:
    return lambda *given: lambda x: x[0].permute(0, 2, 3, 1).flatten(1)


def _always_dropout(build: Any) -> Any:
    """Apply dropout in inference form, too."""

    def changed(o: Any, tensors: Any, training: bool, inplace: bool) -> Any:
        if training:
            return build(o, tensors, training, inplace)
        return lambda x: F.dropout(x[0], o.attributes["rate"], training=True)

    return changed


class _KerasSGD(torch.optim.SGD):
    """SGD as in Keras: the learning rate is part of the velocity."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                velocity = self.state[w].setdefault("velocity", torch.zeros_like(w))
                g = w.grad + group["weight_decay"] * w
                velocity.mul_(group["momentum"]).sub_(group["lr"] * g)
                w.add_(velocity)


class _SGDW(torch.optim.SGD):
    """SGD with the decay applied apart from the gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            for w in group["params"]:
                w.mul_(1.0 - group["lr"] * group["weight_decay"])
            group["weight_decay"] = 0.0
        super().step()
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay


class _KerasAdam(torch.optim.AdamW):
    """AdamW as in Keras: epsilon is added to the root before the bias correction."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta_1, beta_2 = group["betas"]
            for w in group["params"]:
                state = self.state[w]
                if not state:
                    state |= {"n": 0, "first": torch.zeros_like(w), "second": torch.zeros_like(w)}
                state["n"] += 1
                state["first"].lerp_(w.grad, 1.0 - beta_1)
                state["second"].mul_(beta_2).add_((1.0 - beta_2) * w.grad**2)
                root = state["second"].sqrt() + group["eps"]
                root /= (1.0 - beta_2 ** state["n"]) ** 0.5
                w.mul_(1.0 - group["lr"] * group["weight_decay"])
                w.sub_(group["lr"] / (1.0 - beta_1 ** state["n"]) * state["first"] / root)


def _optimizer(name: str, other: Any) -> Plant:
    """Replace a class of ``torch.optim``."""
    return Plant(patches=lambda: [patch.object(trainer.torch.optim, name, other)])


def _criterion(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Plant:
    """Compute the loss of changed logits or labels."""
    sound = TorchTrainer._criterion
    return Plant(
        patches=lambda: [
            patch.object(
                TorchTrainer,
                "_criterion",
                lambda self, logits, labels: sound(self, *change(logits, labels)),
            )
        ]
    )


def _restore_tensors_alone(self: TorchTrainer, tensors: dict[str, Any]) -> None:
    """Go back to the start without forgetting the optimizer's moments."""
    with torch.no_grad():
        for name, array in tensors.items():
            self.network.tensors[name].copy_(torch.from_numpy(array))


def _resume_in_inference(self: TorchNetwork, value: Tensor, masks: Any, training: bool) -> Tensor:
    sound = self._training
    self._training = self._inference
    try:
        return _resume(self, value, masks, training)
    finally:
        self._training = sound


def _flipped_in_training(
    self: TorchNetwork, images: Tensor, masks: Any, training: bool, record: Any = None
) -> Tensor:
    return _forward(self, images.flip(2) if training else images, masks, training, record)


_resume, _forward = TorchNetwork.resume, TorchNetwork.forward

PLANTS: dict[str, Plant] = {
    **in_any_adapter(BUILDERS),
    "biased_variance": wrapped(BUILDERS, "batch_norm", _biased_variance),
    "statistics_move_in_frozen_stage": replace(
        wrapped(BUILDERS, "batch_norm", _only_moves), plan=all_in_training
    ),
    "max_pool_padding_with_zeros": wrapped(BUILDERS, "max_pool2d", _pad_zeros),
    "flatten_order": wrapped(BUILDERS, "flatten", _channels_last),
    "dropout_in_evaluation": wrapped(BUILDERS, "dropout", _always_dropout),
    "learning_rate_in_velocity": _optimizer("SGD", _KerasSGD),
    "coupled_decay": _optimizer("AdamW", torch.optim.Adam),
    "decoupled_decay": _optimizer("SGD", _SGDW),
    "moments_kept": Plant(
        patches=lambda: [patch.object(TorchTrainer, "restore", _restore_tensors_alone)]
    ),
    "resumed_in_inference_form": Plant(
        patches=lambda: [patch.object(TorchNetwork, "resume", _resume_in_inference)]
    ),
    "pixels_flipped_in_training": Plant(
        patches=lambda: [patch.object(TorchNetwork, "forward", _flipped_in_training)]
    ),
    "adam_epsilon": _optimizer("AdamW", _KerasAdam),
    "label_off_by_one_in_loss": _criterion(lambda z, y: (z, (y + 1) % z.shape[1])),
    "softmax_in_loss": _criterion(lambda z, y: (z.softmax(1), y)),
}
"""Name in ``tests.parity.defects`` → defect."""
