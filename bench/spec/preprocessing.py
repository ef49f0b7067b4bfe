"""Conversion of uint8 pixels to the input that pretrained weights expect."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from bench.spec.base import Frozen

Triple = tuple[float, float, float]
"""A number for each channel."""


class Preprocessing(Frozen):
    """Conversion of uint8 RGB pixels: first ``x - mean``, then ``* scale``.

    Not a division, because graph compilers replace one by a multiplication, which rounds
    differently.
    """

    channels: Literal["RGB", "BGR"] = Field(description="Order of the channels at the first layer.")
    mean: Triple = Field(description="Mean of each channel in pixel values (0 to 255), in order.")
    scale: Triple = Field(description="Factor of each channel, in that order.")

    def apply(self, images: npt.NDArray[np.uint8], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Convert RGB images ``(N, H, W, 3)`` from uint8 to ``dtype``: the adapters' reference."""
        ordered = images if self.channels == "RGB" else images[..., ::-1]
        mean = np.asarray(self.mean, dtype)
        pixels: npt.NDArray[Any] = (ordered.astype(dtype) - mean) * np.asarray(self.scale, dtype)
        return pixels
