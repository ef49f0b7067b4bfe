"""Networks of torchvision, timm and users, built in evaluation form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from backends.torch_adapter.export import user_code
from bench.errors import Unavailable
from bench.spec.backbone import BackboneEntry

ALLOCATING = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
"""Functions that allocate parameters and statistics."""
AUXILIARY: dict[str, tuple[str, ...]] = {
    "googlenet": ("aux1.", "aux2."),
    "inception_v3": ("AuxLogits.",),
}
"""Network → name prefixes of its auxiliary heads, which weights files have and we never build."""
_TORCHVISION_ARGUMENTS: dict[str, dict[str, Any]] = {
    # Preprocessing expresses transform_input, see ``describe``.
    name: {"aux_logits": False, "transform_input": False, "init_weights": True}
    for name in AUXILIARY
}


class ParametersOnMeta(TorchFunctionMode):
    """Allocates tensors on the meta device, where they take no memory, and computes all else.

    ``torch.device("meta")`` would put everything there, and then networks that compute their widths
    with tensors (torchvision's RegNet) cannot be built.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in ALLOCATING and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def construct(entry: BackboneEntry, seed: int | None) -> nn.Module:
    """Build the network of an entry.

    Args:
        seed: Of random weights by the library's own initialisation; None leaves the parameters on
            the meta device, to be loaded (a user's own network has the values it was built with).

    Raises:
        UserError: A user's own network cannot be built.
        Unavailable: The library is not installed.
    """
    if entry.code is not None:
        code = entry.code
        return user_code.build(code) if seed is None else user_code.build_random(code, seed)
    if seed is not None:
        torch.manual_seed(seed)
        return _constructor(entry)().eval()
    with ParametersOnMeta():
        return _constructor(entry)().eval()


def construct_on_meta(entry: BackboneEntry) -> nn.Module:
    """Build the network of an entry with all tensors on the meta device; a user's own network keeps
    its values, as it may hold tensors that cannot be moved there.

    Raises:
        UserError: A user's own network cannot be built.
        Unavailable: The library is not installed.
    """
    module = construct(entry, None)
    return module if entry.code is not None else module.to("meta")


def _constructor(entry: BackboneEntry) -> Callable[[], nn.Module]:
    if entry.library == "torchvision":
        arguments = _TORCHVISION_ARGUMENTS.get(entry.model, {})
        return lambda: torchvision.models.get_model(entry.model, weights=None, **arguments)
    try:
        import timm
    except ImportError as error:
        raise Unavailable(f"{entry.model} needs timm: pip install timm") from error
    return lambda: timm.create_model(entry.model, pretrained=False)


def last_layer(module: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Return the layer that computes the logits, with its path."""
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers[-1]
