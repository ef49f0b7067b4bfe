"""Native differences of Keras, read from the model and the optimizer that were built."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from backends.keras_adapter.native.model import NativeModel, flattened
from backends.keras_adapter.twin.layers import same_padding
from bench.native import probes
from bench.native.applications import NATIVE_RESIZE, application_of
from bench.network.blueprint import Array
from bench.network.freezing import TrainingPlan
from bench.workers.tasks import NativeRequest, ParameterCounts

NativeKnobs = dict[str, Any]
"""Name in ``bench.native.differences.KNOBS`` → value that JSON can hold."""
SEPARABLE = keras.layers.SeparableConv2D
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, SEPARABLE)


@dataclass(frozen=True)
class NativeSetup:
    """A native network with all that trains it."""

    request: NativeRequest
    native: NativeModel
    plan: TrainingPlan
    optimizers: dict[float, keras.optimizers.Optimizer]
    """Learning-rate scale → optimizer of the variables at that scale."""
    counts: ParameterCounts
    initial_head: NativeKnobs
    """``describe_head`` of the last layer before training."""


def read_knobs(setup: NativeSetup) -> NativeKnobs:
    """Read everything that is Keras's own in native mode."""
    native, request, counts = setup.native, setup.request, setup.counts
    layers, weights = list(flattened(native.base)), request.network.weights
    application = application_of(request.backbone)
    assert application is not None
    scales = [t.learning_rate_scale for t in setup.plan.trained.values()]
    return {
        "network": f"keras.applications.{application.constructor}",
        "weights_file": weights.name if weights else "none: random",
        **_pixels(native, request.recipe.px),
        "resize_filter": NATIVE_RESIZE["keras"],
        "loader_resize": _loader_resize(),
        **probes.describe_convolutions(_convolutions(layers)),
        **_batch_norms(layers),
        **_optimizer(setup.optimizers, native.model),
        "learning_rates": "; ".join(
            f"{scales.count(scale)} tensors at {scale:g} times the rate"
            for scale in setup.optimizers
        ),
        **setup.initial_head,
        "layout": ", ".join(sorted({x.data_format for x in layers if isinstance(x, CONVOLUTIONS)})),
        "compilation": f"jit_compile={native.model.jit_compile}, "
        f"run_eagerly={native.model.run_eagerly}",
        "dropout": _dropouts(layers),
        "stochastic_depth": _stochastic_depth(layers),
        "auxiliary_heads": "none",
        **_frozen(native),
        "parameters": counts.total_parameters,
        "moving_statistics": counts.state_values,
    }


def _pixels(native: NativeModel, px: int) -> NativeKnobs:
    """Describe what reaches the first convolution from images of one colour."""
    first = next(
        layer
        for layer in native.base.layers
        if isinstance(layer, CONVOLUTIONS)
        or (isinstance(layer, keras.Model) and any(flattened(layer)))
    )
    images = np.stack([np.full((px, px, 3), p, np.uint8) for p in probes.PIXELS])
    fed = keras.Model(native.model.inputs[0], native.fed)(images)
    seen = keras.Model(native.base.inputs[0], first.input)(fed)
    centre = ops.convert_to_numpy(ops.cast(seen, "float32"))[:, px // 2, px // 2]
    return probes.describe_pixels(centre.tolist())


def _loader_resize() -> str:
    """Describe how ``keras.utils.image_dataset_from_directory`` resizes images."""
    loader = inspect.signature(keras.utils.image_dataset_from_directory).parameters
    resize = inspect.signature(keras.ops.image.resize).parameters
    return (
        f"{loader['interpolation'].default}, antialias={resize['antialias'].default}, "
        f"crop_to_aspect_ratio={loader['crop_to_aspect_ratio'].default}"
    )


def _convolutions(layers: list[keras.layers.Layer]) -> list[probes.Convolution]:
    """Describe the convolutions; a SeparableConv2D counts as two, the second with its bias, because
    torch's networks have two."""
    producers = {id(layer.output): layer for layer in layers}
    found = []
    for layer in layers:
        if not isinstance(layer, CONVOLUTIONS):
            continue
        kernel, strides = tuple(layer.kernel_size), tuple(layer.strides)
        padding = _padding(layer, producers.get(id(layer.input)))
        if isinstance(layer, SEPARABLE):
            found.append(probes.Convolution(kernel, strides, padding, False))
            kernel, strides, padding = (1, 1), (1, 1), "0+0"
        found.append(probes.Convolution(kernel, strides, padding, layer.use_bias))
    return found


def _padding(layer: keras.layers.Layer, before: keras.layers.Layer | None) -> str:
    """Describe the rows added above and below by a convolution or a ZeroPadding2D before it."""
    above, below = 0, 0
    if layer.padding == "same":
        size, stride, kernel = layer.input.shape[1], layer.strides[0], layer.kernel_size[0]
        above, below = same_padding(size, kernel, stride, dilation=1)
    elif isinstance(before, keras.layers.ZeroPadding2D):
        above, below = before.padding[0]
    return f"{above}+{below}"


def _batch_norms(layers: list[keras.layers.Layer]) -> NativeKnobs:
    norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    return {
        "batch_norm_layers": len(norms),
        "batch_norm_epsilon": probes.distinct(n.epsilon for n in norms),
        "batch_norm_momentum": probes.distinct(n.momentum for n in norms),
        "batch_norm_new_share": probes.distinct(1.0 - n.momentum for n in norms),
        "running_variance": _variance(norms[0]) if norms else "none",
    }


def _variance(norm: keras.layers.BatchNormalization) -> str:
    """Describe the running variance after one step of a new layer with the same settings."""
    config = {**norm.get_config(), "axis": -1, "name": None, "trainable": True}
    probe = type(norm).from_config(config)
    probe(ops.convert_to_tensor(probes.variance_values()), training=True)
    found = float(ops.convert_to_numpy(probe.moving_variance)[0])
    return probes.describe_variance(found, 1.0 - norm.momentum)


def _optimizer(
    optimizers: dict[float, keras.optimizers.Optimizer], model: keras.Model
) -> NativeKnobs:
    """Describe the update rule by what it does to one parameter."""
    optimizer = next(iter(optimizers.values()))
    kind, config = type(optimizer), optimizer.get_config()

    def trajectory(
        start: float, gradients: Sequence[float], rates: Sequence[float], decay: float
    ) -> list[float]:
        value = keras.Variable(start, dtype="float32")
        fresh = kind.from_config({**config, "learning_rate": 1.0, "weight_decay": decay})
        fresh.build([value])
        found = []
        for gradient, rate in zip(gradients, rates, strict=True):
            fresh.learning_rate = rate
            fresh.apply([ops.convert_to_tensor(gradient, dtype="float32")], [value])
            found.append(float(ops.convert_to_numpy(value)))
        return found

    if "beta_2" in config:
        rule = probes.describe_adam(trajectory, config["epsilon"], config["beta_2"])
    else:
        rule = probes.describe_sgd(trajectory, config["momentum"])
    trained = model.trainable_weights
    # Keras has no public API for which variables an optimizer decays.
    decayed = sum(bool(optimizer.weight_decay) and optimizer._use_weight_decay(v) for v in trained)
    return {
        "optimizer": kind.__name__,
        "optimizer_epsilon": config.get("epsilon"),
        "update_rule": rule,
        "weight_decay_rule": probes.describe_decay(trajectory),
        "weight_decay_tensors": f"{decayed} of {len(trained)}",
        "optimizer_defaults": _defaults(kind),
    }


def _defaults(kind: type) -> str:
    parameters = inspect.signature(kind).parameters
    names = ("learning_rate", "momentum", "weight_decay")
    return ", ".join(f"{n} {parameters[n].default}" for n in names if n in parameters)


def describe_head(layer: keras.layers.Dense) -> NativeKnobs:
    """Describe the initial values of the new last layer; call it before training."""
    kernel: Array = ops.convert_to_numpy(layer.kernel)
    bias: Array = ops.convert_to_numpy(layer.bias)
    return {
        "head_initialiser": type(layer.kernel_initializer).__name__,
        **probes.describe_head(kernel, bias),
    }


def _dropouts(layers: list[keras.layers.Layer]) -> str:
    rates = [
        x.rate
        for x in layers
        if isinstance(x, keras.layers.Dropout) and x.rate > 0 and x.noise_shape is None
    ]
    return f"{len(rates)} layers at {probes.distinct(rates)}" if rates else "none"


def _stochastic_depth(layers: list[keras.layers.Layer]) -> str:
    """Describe stochastic depth: in EfficientNet a Dropout with a noise shape, in ConvNeXt a class
    of its own."""
    rates = [
        x.rate if isinstance(x, keras.layers.Dropout) else x.drop_path_rate
        for x in layers
        if (isinstance(x, keras.layers.Dropout) and x.rate > 0 and x.noise_shape is not None)
        or type(x).__name__ == "StochasticDepth"
    ]
    return f"on: {len(rates)} layers, up to {max(rates):.3g}" if rates else "none"


def _frozen(native: NativeModel) -> NativeKnobs:
    names = [layer.name for layer in native.base.layers]
    if native.first_trained == len(names):
        return {"first_trained": "head", "frozen_part": "inference mode: training=False"}
    if native.first_trained == 0:
        return {"first_trained": "all", "frozen_part": "none"}
    return {
        "first_trained": names[native.first_trained],
        "frozen_part": "trainable=False: BatchNorm in inference mode, dropout on",
    }
