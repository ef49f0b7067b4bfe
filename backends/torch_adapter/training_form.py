"""Checks of what a Blueprint cannot show: it is exported in evaluation form, and networks train."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from backends.torch_adapter.export.user_code import line_of_error
from backends.torch_adapter.network import TorchNetwork
from bench.errors import UserError, first_line
from bench.network.blueprint import CLASSIFIER_LEFT_OUT, Network, alpha_dropout_constants
from bench.network.freezing import plan_training
from bench.spec.plain import TRAIN_ALL

IMAGES = 4
"""Number of images of the comparison; BatchNorm over fewer hides its scale."""
LEAST = 1e-3
"""Size of an output or a statistic below which differences are relative to this number."""
STATISTICS = ("running_mean", "running_var")
TOLERANCES = ((torch.float64, 1e-6), (torch.float32, 1e-2))
"""Dtype → largest relative difference. Float64 is tried first; a network that computes with
constants in float32 is compared in that."""
ALPHA_DROPOUTS = {F.alpha_dropout, torch.alpha_dropout, torch.alpha_dropout_}
DROPOUTS = ALPHA_DROPOUTS | {
    F.dropout, torch.dropout, torch.dropout_,
    F.dropout2d, torch.feature_dropout, torch.feature_dropout_,
}  # fmt: skip


class ScalesInsteadOfDropping(TorchFunctionMode):
    """Lets active dropouts scale their input and drop nothing, so that two networks with different
    masks can be compared; and keeps every value of one shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape
        self.values: list[Tensor] = []
        """Results of shape (images, *shape), in order."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        result = self._result(func, args, kwargs or {})
        if isinstance(result, Tensor) and result.shape[1:] == self._shape:
            self.values.append(result)
        return result

    def _result(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func not in DROPOUTS:
            return func(*args, **kwargs)
        given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
        active = given.get("training", given.get("train", True))
        rate = given.get("p", 0.5)
        if not active or rate in (0.0, 1.0):
            return given["input"]
        factor, offset = 1.0 / (1.0 - rate), 0.0
        if func in ALPHA_DROPOUTS:
            factor, offset = alpha_dropout_constants(rate)
        return given["input"] * factor + offset


def check_training_form(module: nn.Module, network: Network, name: str) -> None:
    """Compare a network in training form with its Blueprint: logits, gradients and BatchNorm
    statistics of one batch, with dropouts that drop nothing.

    Raises:
        UserError: They differ, or the network cannot run in training form.
    """
    images = _images(network.blueprint.px)
    for dtype, tolerance in TOLERANCES:
        twin = _twin(network, images, dtype)
        try:
            found = _original(module, network, images, dtype, 0, twin[OUTPUT])
            where, difference = _worst(found, twin)
            if difference <= tolerance:
                return
            again = _original(module, network, images, dtype, 1, twin[OUTPUT])
        except _NotCompared as error:
            raise UserError(f"{name} cannot be used: in training form {error}.", _RETURN) from error
        except Exception as error:  # a user's code raises anything
            if dtype is torch.float64 and isinstance(error, RuntimeError):
                continue  # its own constants are float32
            said = f"{type(error).__name__}: {first_line(error)}{line_of_error(error)}"
            raise UserError(
                f"{name} cannot run in training form: {said}.",
                "It must take a batch of images after net.train(), as it does after net.eval().",
            ) from error
        if _worst(found, again)[1] > tolerance:
            raise UserError(
                f"{name}: its training form is random beyond dropout layers, which would be left "
                "out without a word.",
                "Use torch.nn.Dropout, or remove the random part.",
            )
        raise UserError(
            f"{name} trains otherwise than its evaluation form shows: in training form {where} "
            f"differs by {difference:.1g} (relative).",
            "Look for F.dropout or F.batch_norm with a fixed 'training', for detach() or no_grad() "
            "in forward(), for layers kept in eval() and for code that reads self.training.",
        )


_RETURN = "Return the logits, in training as in evaluation."


class _NotCompared(Exception):
    """A network whose training form has nothing to compare; says why."""


OUTPUT = "the output"
Compared = dict[str, Tensor]
"""The output, gradients and BatchNorm statistics, by the words that name them in messages."""


def _images(px: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (IMAGES, px, px, 3), dtype=torch.uint8, generator=random)


def _built(network: Network, dtype: torch.dtype) -> TorchNetwork:
    plan = plan_training(network.blueprint, TRAIN_ALL)
    return TorchNetwork(network, plan, torch.device("cpu"), dtype)


def _twin(network: Network, images: Tensor, dtype: torch.dtype) -> Compared:
    twin = _built(network, dtype)
    masks = tuple(torch.ones((), dtype=torch.bool) for _ in twin.plan.dropouts)
    output = twin.forward(images, masks, training=True)
    return _compared(output, twin.tensors)


def _original(
    module: nn.Module, network: Network, images: Tensor, dtype: torch.dtype, seed: int,
    twin_output: Tensor,
) -> Compared:  # fmt: skip
    """Run the user's network in training form.

    Where the Blueprint leaves out the classifier, its output is a value in the middle of the user's
    network: of all values of that shape, the one that is nearest to ``twin_output``.
    """
    original = copy.deepcopy(module).to(dtype).train()
    _switch_off(original)
    shape = network.blueprint.operations[-1].shape
    torch.manual_seed(seed)
    with ScalesInsteadOfDropping(shape) as mode:
        output = original(_built(network, dtype).preprocess(images).contiguous())
    if isinstance(output, tuple | list) and output:
        output = output[0]  # Inception's, with its auxiliary logits
    if not isinstance(output, Tensor):
        raise _NotCompared(f"it returns a {type(output).__name__}, not logits")
    if CLASSIFIER_LEFT_OUT in network.blueprint.notes or output.shape[1:] != shape:
        if not mode.values:
            raise _NotCompared("no value has the shape of the last one in evaluation form")
        output = min(mode.values, key=lambda value: _distance(value.detach(), twin_output))
    tensors = dict(original.named_parameters()) | dict(original.named_buffers())
    return _compared(output, {name: t for name, t in tensors.items() if name in network.tensors})


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference; infinite for NaN and for other shapes."""
    if a.shape != b.shape:
        return math.inf
    difference = float((a - b).abs().max())
    return math.inf if math.isnan(difference) else difference


def _switch_off(module: nn.Module) -> None:
    """Switch off what the Blueprint's notes say is off: stochastic depth, attention dropout."""
    for part in module.modules():
        for attribute in ("p", "drop_prob"):
            if type(part).__name__ in ("StochasticDepth", "DropPath") and hasattr(part, attribute):
                setattr(part, attribute, 0.0)
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
        dropout = getattr(part, "attn_drop", None)
        if isinstance(dropout, nn.Dropout):
            dropout.p = 0.0


def _compared(output: Tensor, tensors: dict[str, Tensor]) -> Compared:
    found = {f"'{n}'": t.detach() for n, t in tensors.items() if n.endswith(STATISTICS)}
    weights = torch.sin(torch.arange(output.numel(), dtype=output.dtype)).reshape(output.shape)
    trained = {n: t for n, t in tensors.items() if t.requires_grad}
    gradients = torch.autograd.grad(
        (output * weights).sum(), list(trained.values()), allow_unused=True
    )
    found[OUTPUT] = output.detach()
    for (name, tensor), gradient in zip(trained.items(), gradients, strict=True):
        found[f"the gradient of '{name}'"] = (
            torch.zeros_like(tensor) if gradient is None else gradient
        )
    return found


def _worst(first: Compared, second: Compared) -> tuple[str, float]:
    """Return the name and size of the largest relative difference of what both have."""
    scale = max(float(t.abs().max()) for n, t in second.items() if "gradient" in n)
    worst = ("", 0.0)
    for name in first.keys() & second.keys():
        a, b = first[name], second[name]
        # Sums of numbers that cancel, such as means after BatchNorm, are nothing but rounding.
        least = 1e-6 * scale if "gradient" in name else LEAST
        largest = max(float(b.abs().max()), least)
        difference = float((a - b).abs().max()) / largest
        if not difference <= worst[1]:
            worst = (name, difference)
    return worst
