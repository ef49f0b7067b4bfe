"""How uint8 pixels become the input that pretrained weights expect."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from bench.spec.base import Frozen


class Preprocessing(Frozen):
    """From uint8 RGB to what the weights expect: ``(x - mean) * scale``, in that order.

    A multiplication, for graph compilers turn a division by a constant into one and would round
    differently.
    """

    channels: Literal["RGB", "BGR"] = Field(description="Order that the first layer reads.")
    mean: tuple[float, float, float] = Field(description="In pixel values, in that order.")
    scale: tuple[float, float, float] = Field(description="Per pixel value, in that order.")

    def apply(self, images: npt.NDArray[np.uint8], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The reference: images ``(N, H, W, 3)`` uint8 RGB → ``(N, H, W, 3)`` of ``dtype``."""
        ordered = images if self.channels == "RGB" else images[..., ::-1]
        mean = np.asarray(self.mean, dtype)
        pixels: npt.NDArray[Any] = (ordered.astype(dtype) - mean) * np.asarray(self.scale, dtype)
        return pixels
