"""Networks whose parameters take no memory, for loading or counting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

ALLOCATING = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
"""What parameters and statistics are made with."""


class ParametersOnMeta(TorchFunctionMode):
    """Puts what is allocated on the meta device, and computes the rest.

    ``torch.device("meta")`` puts all there, and then networks that compute their widths with
    tensors (torchvision's RegNet) cannot be made.
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
