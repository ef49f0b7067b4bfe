"""Native mode with Keras: a model of ``keras.applications`` with a head, frozen by a policy.

The model follows the guide "Transfer learning & fine-tuning" (keras.io): ``preprocess_input``, the
application without its classifier, pooling, Dense.
"""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from bench.errors import Unavailable, UserError, choose, first_line
from bench.native.applications import Application, application_of, keras_models_folder
from bench.network.head import hidden_units
from bench.workers.tasks import NativeRequest

BLOCK = re.compile(r"(block_?\d+[a-z]?|conv\d+_block\d+|expanded_conv_\d+)_")
"""Common prefix of the layer names of one block in ``keras.applications``."""


@dataclass(frozen=True)
class NativeModel:
    """A model of ``keras.applications`` with a new head, and its parts."""

    model: keras.Model
    """uint8 images (N, px, px, 3) → logits (N, classes)."""
    base: keras.Model
    """The application without its classifier."""
    fed: Any
    """Symbolic output of ``preprocess_input``, the input of ``base``."""
    logits: keras.layers.Dense
    """The last layer."""
    head: tuple[keras.layers.Layer, ...]
    """Layers of the head that have weights."""
    state: frozenset[int]
    """``id`` of the variables that are never trained: BatchNorm's moving statistics."""
    first_trained: int
    """Index in ``base.layers`` of the first trained layer; their number if none is trained."""


def build_native_model(request: NativeRequest) -> NativeModel:
    """Build the model, load its weights and freeze the layers before the policy's boundary.

    Raises:
        Unavailable: ``keras.applications`` lacks the network.
        UserError: The weights file or the boundary does not fit.
    """
    application = application_of(request.backbone)
    if application is None:
        raise Unavailable(f"keras.applications has no {request.backbone}; use --mode matched")
    # Initialisers and dropout draw their seeds from Python's generator.
    # keras.utils.set_random_seed would import TensorFlow into the workers of every engine.
    random.seed(request.seed)
    px = request.recipe.px
    base = _base(application, request)
    state = frozenset(id(v) for v in base.non_trainable_weights)
    first = boundary_layer(base, request)
    for layer in base.layers[:first]:
        layer.trainable = False
    images = keras.Input((px, px, 3), dtype="uint8", name="images")
    rule = importlib.import_module(f"keras.applications.{application.module}")
    fed = rule.preprocess_input(ops.cast(images, keras.config.floatx()))
    # A completely frozen application runs in inference form, as in Keras's guide. In a partly
    # frozen one, trainable=False puts only BatchNorm into inference form.
    x = base(fed, training=False) if first == len(base.layers) else base(fed)
    flatten = request.recipe.head.startswith("flatten+")
    x = (keras.layers.Flatten if flatten else keras.layers.GlobalAveragePooling2D)(name="pool")(x)
    head = [
        keras.layers.Dense(units, activation="relu", name=f"dense{number}")
        for number, units in enumerate(hidden_units(request.recipe.head), start=1)
    ]
    # In mixed precision the last layer is float32, as Keras's guide recommends.
    logits = keras.layers.Dense(request.classes, name="logits", dtype=keras.config.floatx())
    for layer in (*head, logits):
        x = layer(x)
    model = keras.Model(images, x)
    return NativeModel(model, base, fed, logits, (*head, logits), state, first)


def _base(application: Application, request: NativeRequest) -> keras.Model:
    constructor = getattr(keras.applications, application.constructor)
    px = request.recipe.px
    weights = _weights_argument(application, request)
    try:
        base: keras.Model = constructor(include_top=False, weights=weights, input_shape=(px, px, 3))
    except (ValueError, OSError, KeyError) as error:
        if weights is None:
            raise
        raise UserError(
            f"Weights file '{request.network.weights}' does not fit keras.applications."
            f"{application.constructor} without its classifier: {first_line(error)}",
            "The file may be incomplete, belong to another network, or contain the classifier "
            "(include_top=True).",
        ) from error
    return base


def _weights_argument(application: Application, request: NativeRequest) -> str | None:
    """Return the constructor's argument ``weights``.

    Keras's own file in Keras's cache is named 'imagenet', not by its path, because EfficientNet has
    one more layer with 'imagenet' than with a path.
    """
    weights = request.network.weights
    if weights is None:
        return None
    published = keras_models_folder() / application.file_name(request.recipe.px)
    return "imagenet" if weights == published.resolve() else str(weights)


def boundary_layer(base: keras.Model, request: NativeRequest) -> int:
    """Return the index in ``base.layers`` of the first trained layer.

    The policy's boundary is 'all', 'head', 'last_stage', the name of a layer, or a prefix of it
    that ends before an underscore.

    Raises:
        UserError: No layer has such a name.
    """
    boundary = request.policy.boundary
    names = [layer.name for layer in base.layers]
    if boundary == "all":
        return 0
    if boundary == "head":
        return len(names)
    if boundary == "last_stage":
        return last_stage(base)
    for index, name in enumerate(names):
        if name == boundary or name.startswith(f"{boundary}_"):
            return index
    choose(f"boundary in keras.applications' {request.backbone}", boundary, names)
    raise AssertionError("choose raises UserError for an unknown name")


def last_stage(base: keras.Model) -> int:
    """Return the index of the first layer of the last stage.

    The stage begins with the first layer with weights whose output has the final height, or with
    the first layer of its block, because an inverted residual block downsamples in its middle.
    """
    maps = [
        (index, layer.output.shape[1])
        for index, layer in enumerate(base.layers)
        if layer.weights and len(layer.output.shape) == 4
    ]
    smallest = maps[-1][1]
    first = next(index for index, height in maps if height == smallest)
    block = BLOCK.match(base.layers[first].name)
    if block is not None:
        prefix = block.group(0)
        first = next(i for i, layer in enumerate(base.layers) if layer.name.startswith(prefix))
    return first


def flattened(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model, with nested models replaced by their layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from flattened(layer)
        else:
            yield layer
