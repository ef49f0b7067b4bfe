"""Native mode with Keras: a model of ``keras.applications`` under a head, frozen as a policy says.

Built as the guide "Transfer learning & fine-tuning" (keras.io) builds it: ``preprocess_input``,
the application without its classifier, pooling, Dense.
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

from bench.errors import Unavailable, UserError, choose
from bench.native.applications import Application, application_of
from bench.native.weights import file_name, keras_models_folder
from bench.network.head import hidden_units
from bench.training.adapter import NativeRequest

BLOCK = re.compile(r"(block_?\d+[a-z]?|conv\d+_block\d+|expanded_conv_\d+)_")
"""Names of the layers of one block in keras.applications begin alike."""


@dataclass(frozen=True)
class NativeModel:
    """The model, and what a trainer must know of it."""

    model: keras.Model
    """uint8 images (N, px, px, 3) → logits (N, classes)."""
    base: keras.Model
    """The application, without its classifier."""
    fed: Any
    """Symbolic: the pixels as ``preprocess_input`` gives them to ``base``."""
    logits: keras.layers.Dense
    """The last layer."""
    head: tuple[keras.layers.Layer, ...]
    """Layers with weights that the head brings."""
    state: frozenset[int]
    """``id`` of the variables that no policy trains: BatchNorm's moving statistics."""
    first_trained: int
    """Index in ``base.layers`` of the first layer that trains; their number if none does."""


def build_native_model(request: NativeRequest) -> NativeModel:
    """Build, load and freeze.

    Raises:
        Unavailable: ``keras.applications`` has no such network.
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
    # A wholly frozen application runs in inference form, as in Keras's guide; in one that is
    # frozen in part, trainable=False puts BatchNorm into inference form, and BatchNorm alone.
    x = base(fed, training=False) if first == len(base.layers) else base(fed)
    flatten = request.recipe.head.startswith("flatten+")
    x = (keras.layers.Flatten if flatten else keras.layers.GlobalAveragePooling2D)(name="pool")(x)
    head = [
        keras.layers.Dense(units, activation="relu", name=f"dense{number}")
        for number, units in enumerate(hidden_units(request.recipe.head), start=1)
    ]
    # In mixed precision the last layer is float32, as Keras's guide to it asks.
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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"Weights file '{request.weights}' does not fit keras.applications."
            f"{application.constructor} without its classifier: {reason}",
            "It may be cut short, of another network, or with the classifier (include_top=True).",
        ) from error
    return base


def _weights_argument(application: Application, request: NativeRequest) -> str | None:
    """'imagenet' for Keras's own file in Keras's cache, which the constructor then finds there.

    Not its path: EfficientNet has one layer more with 'imagenet' than with the same file's path.
    """
    if request.weights is None:
        return None
    published = keras_models_folder() / file_name(application, request.recipe.px)
    return "imagenet" if request.weights == published.resolve() else str(request.weights)


def boundary_layer(base: keras.Model, request: NativeRequest) -> int:
    """Index in ``base.layers`` of the first layer that trains.

    Args:
        base: Layers in the order of execution, as a functional model keeps them.
        request: 'all', 'head', 'last_stage', or the name of a layer or what it begins with.

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
    raise AssertionError("choose raises for a name that is not there")


def last_stage(base: keras.Model) -> int:
    """Index of the first layer of the last group whose maps are of one size.

    The first layer with weights whose output has the height of the last one's, or the first of
    its block: an inverted residual block shrinks the map in its middle.
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
    """The layers of a model, with those inside a Sequential or another model in its place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from flattened(layer)
        else:
            yield layer
