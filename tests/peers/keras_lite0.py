"""EfficientNet-Lite0 from stock Keras layers, since keras.applications lacks it.

Source: Tan & Le 2019, "EfficientNet", table 1, in the variant for small devices: without
squeeze-and-excitation, and with ReLU6 instead of swish.
"""

from __future__ import annotations

from typing import Any

from keras import Model
from keras.layers import Add, BatchNormalization, Conv2D, DepthwiseConv2D, Input, ReLU, Rescaling

BLOCKS = (
    # kernel, stride of the first repeat, expansion, channels, repeats
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, LAST = 32, 1280
EPSILON = 1e-3
"""Epsilon of BatchNormalization: Keras's default, and that of the original in TensorFlow."""


def _normalised(x: Any, active: bool = True) -> Any:
    x = BatchNormalization(epsilon=EPSILON)(x)
    return ReLU(6.0)(x) if active else x


def _conv(x: Any, channels: int, kernel: int = 1, stride: int = 1, active: bool = True) -> Any:
    layer = Conv2D(channels, kernel, stride, padding="same", use_bias=False)
    return _normalised(layer(x), active)


def _block(x: Any, kernel: int, stride: int, expansion: int, channels: int) -> Any:
    """Append an inverted residual: expansion, depthwise convolution, projection, and a shortcut if
    shapes agree."""
    before = x
    width = before.shape[-1]
    if expansion > 1:
        x = _conv(x, width * expansion)
    x = _normalised(DepthwiseConv2D(kernel, stride, padding="same", use_bias=False)(x))
    x = _conv(x, channels, active=False)
    return Add()([before, x]) if stride == 1 and width == channels else x


def lite0(px: int) -> Model:
    """Return the network without classifier: pixels 0 to 255 (px, px, 3) → map of 1280 channels."""
    images = Input((px, px, 3))
    x = _conv(Rescaling(1 / 128, offset=-127 / 128)(images), STEM, 3, 2)
    for kernel, stride, expansion, channels, repeats in BLOCKS:
        for index in range(repeats):
            x = _block(x, kernel, stride if index == 0 else 1, expansion, channels)
    return Model(images, _conv(x, LAST), name="efficientnet_lite0")
