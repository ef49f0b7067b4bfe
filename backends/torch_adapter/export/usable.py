"""Checks that a network can be used, with a message for each way in which it may not."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import UserError, first_line

BATCHES = (1, *range(3, 33), 48, 50, 64, 96, 100, 128, 256)
"""Batch sizes tried on a network that does not take two images."""


def usable_logits(module: nn.Module, px: int, name: str) -> Tensor:
    """Return the logits (2, classes) of two black images of ``px``.

    Raises:
        UserError: The network does not take RGB images of this size in batches of two, or returns
            something else than logits.
    """
    try:
        output = _output(module, px, images=2)
    except Exception as error:  # networks raise anything at a wrong size
        raise _input_error(module, px, name, error) from error
    if isinstance(output, Tensor) and output.ndim == 2 and len(output) == 2 and output.shape[1] > 1:
        return output
    raise _output_error(output, px, name)


def _output(module: nn.Module, px: int, images: int) -> Any:
    example = next(module.parameters())
    batch = torch.zeros(images, 3, px, px, device=example.device, dtype=example.dtype)
    with torch.no_grad():
        return module(batch)


def _input_error(module: nn.Module, px: int, name: str, error: Exception) -> UserError:
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != 3 and "channels" in str(error):
        return UserError(
            f"{name}: its first convolution takes {first.in_channels} channel(s), and images are "
            "RGB, with 3.",
            f"Give it 3 input channels: torch.nn.Conv2d(3, {first.out_channels}, …).",
        )
    for images in BATCHES:
        try:
            _output(module, px, images)
        except Exception:  # any failure means that it is not this number
            continue
        return UserError(
            f"{name}: it takes {images} images at a time, not 2: {first_line(error)}.",
            "Write x.flatten(1) or x.reshape(x.shape[0], -1) in place of a fixed batch size.",
        )
    return UserError(
        f"{name} cannot take {px} px: {first_line(error)}",
        "Set the network's attribute input_px to its input size.",
    )


def _output_error(output: Any, px: int, name: str) -> UserError:
    end = "forward() must return logits of shape (images, classes)"
    if isinstance(output, dict):
        key = "logits" if "logits" in output else next(iter(output), "logits")
        return UserError(
            f"{name}: it returns a dict ({', '.join(map(str, output))}), not logits.",
            f"Return one tensor: {end}, such as net(x)['{key}'].",
        )
    if isinstance(output, list | tuple):
        return UserError(
            f"{name}: it returns a {type(output).__name__} of {len(output)}, not logits.",
            f"Return one of them: {end}, such as net(x)[0].",
        )
    if not isinstance(output, Tensor):
        return UserError(f"{name}: it returns a {type(output).__name__}, not logits.", f"{end}.")
    shape = tuple(output.shape)
    if output.ndim == 2 and shape[1] == 1:
        return UserError(
            f"{name}: it has one output for each image; at least two are needed.",
            "Give its last layer an output for each class: torch.nn.Linear(features, 2).",
        )
    if output.ndim == 4:
        return UserError(
            f"{name}: for 2 images of {px} px it returns maps of shape {shape}, not logits of "
            "(2, classes).",
            "End it with torch.nn.AdaptiveAvgPool2d(1) and torch.nn.Flatten().",
        )
    return UserError(
        f"{name}: for 2 images of {px} px it returns {shape}, not logits of (2, classes).",
        f"{end}.",
    )


def check_parameters_separate(module: nn.Module, name: str) -> None:
    """Raise UserError if two layers share a weight, or a buffer lies in the memory of a weight: a
    Blueprint would count it twice and train both apart."""
    owners: list[tuple[int, int, str, bool]] = []
    for path, part in module.named_modules():
        for leaf, tensor in chain(
            part.named_parameters(recurse=False), part.named_buffers(recurse=False)
        ):
            first = id(tensor) if tensor.is_meta else tensor.data_ptr()
            size = 1 if tensor.is_meta else tensor.numel() * tensor.element_size()
            if size:
                is_weight = isinstance(tensor, nn.Parameter)
                owners.append((first, first + size, f"{path}.{leaf}".lstrip("."), is_weight))
    owners.sort()
    for (_, end, one, weight), (start, _, other, other_weight) in pairwise(owners):
        if start < end and (weight or other_weight):
            raise UserError(
                f"{name}: '{one}' and '{other}' are one tied weight. A policy could freeze one and "
                "train the other, and parameters would be counted twice.",
                "Give each layer a weight of its own: "
                f"net.get_submodule('{other.rpartition('.')[0]}').weight = "
                "torch.nn.Parameter(weight.detach().clone()).",
            )


def check_finite(module: nn.Module, name: str) -> None:
    """Raise UserError for a network with NaN, infinity or a negative variance."""
    for broken, what in unusable_tensors(module.state_dict()):
        raise UserError(
            f"{name}: '{broken[0]}' holds {what}"
            f"{f', and {len(broken) - 1} more tensors do' if broken[1:] else ''}.",
            "The training that made them had diverged; load an earlier checkpoint.",
        )


def unusable_tensors(state: Mapping[str, Tensor]) -> list[tuple[list[str], str]]:
    """Return names of tensors with numbers that no network can use, and what these are; empty if
    there are none."""
    tensors = {n: t for n, t in state.items() if t.is_floating_point() and not t.is_meta}
    found = [
        ([n for n, t in tensors.items() if not t.isfinite().all()], "numbers that are not finite"),
        ([n for n, t in tensors.items() if n.endswith("running_var") and (t < 0).any()],
         "negative variances"),
    ]  # fmt: skip
    return [(names, what) for names, what in found if names]


def check_no_hooks(module: nn.Module, name: str) -> None:
    """Raise UserError for a weight whose gradient the user's code changes."""
    hooked = [n for n, p in module.named_parameters() if p._backward_hooks]
    if hooked:
        raise UserError(
            f"{name}: '{hooked[0]}' has a hook on its gradient, which the twins would leave out.",
            "Remove it: freezing is the policy's, and clipping is not a part of a recipe.",
        )


def check_batch_norms(module: nn.Module, name: str) -> None:
    """Raise UserError for a BatchNorm whose statistics are a plain average over all batches."""
    for path, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.track_running_stats and part.momentum is None:
            raise UserError(
                f"{name}: BatchNorm '{path}' has momentum=None: its statistics are cumulative, an "
                "average over all batches, which Keras does not have.",
                "Give it a momentum, such as the default 0.1.",
            )


def runs_in_training_form(module: nn.Module, px: int) -> bool:
    """Return True if a network takes images of this size in training form, too."""
    example = next(module.parameters())
    try:
        with torch.no_grad():
            copy.deepcopy(module).train()(torch.zeros(2, 3, px, px, dtype=example.dtype))
    except Exception:  # networks raise anything at a wrong size
        return False
    return True
