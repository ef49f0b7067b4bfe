"""The article's flow: a frozen network of keras.applications, a dense head, ``compile``, ``fit``.

``image_dataset_from_directory`` with its defaults (bilinear without antialiasing, an order of its
own), validation after each epoch. EfficientNet-Lite0, which keras.applications has not, is built
from stock layers. Weights are random unless a file of Keras's own is named: time alone then. The
head is one dense layer over the pooled map (--head flatten: over the whole map). --whole trains all
of the network under plain ``fit``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tests.peers import answer
from tests.peers.keras_lite0 import lite0

APPLICATIONS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "resnet50": (keras.applications.ResNet50, keras.applications.resnet50.preprocess_input),
    "vgg16": (keras.applications.VGG16, keras.applications.vgg16.preprocess_input),
}
"""Backbone → class of keras.applications, and what it does to pixels."""
HEADS = {"pool": keras.layers.GlobalAveragePooling2D, "flatten": keras.layers.Flatten}


class Stamps(keras.callbacks.Callback):
    """Tells a stopwatch of training steps."""

    def __init__(self, watch: answer.Stopwatch, images: int, batch_size: int) -> None:
        super().__init__()
        self._watch = watch
        self._images = images
        self._batch_size = batch_size

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._watch.open()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before = batch * self._batch_size
        self._watch.step(min(self._batch_size, self._images - before))


def build(asked: argparse.Namespace, classes: int) -> keras.Model:
    """Frozen but for the head, unless --whole; logits."""
    images = keras.Input((asked.px, asked.px, 3))
    if asked.backbone in APPLICATIONS:
        application, preprocess = APPLICATIONS[asked.backbone]
        weights = None if asked.weights == "random" else asked.weights
        base = application(include_top=False, weights=weights, input_shape=(asked.px, asked.px, 3))
        base.trainable = asked.whole
        x = base(preprocess(images))
    else:
        base = lite0(asked.px)
        base.trainable = asked.whole
        x = base(images)
    return keras.Model(images, keras.layers.Dense(classes)(HEADS[asked.head]()(x)))


def load(asked: argparse.Namespace, split: str) -> Any:
    """A tf.data.Dataset of a split; only the training images are shuffled."""
    return keras.utils.image_dataset_from_directory(
        asked.folder / split,
        image_size=(asked.px, asked.px),
        batch_size=asked.batch_size,
        shuffle=split == "train",
        seed=asked.seed,
    )


def train(model: keras.Model, asked: argparse.Namespace) -> answer.Stopwatch:
    """``compile`` and ``fit``."""
    images = answer.count_images(asked.folder)["train"]
    steps = asked.epochs * -(-images // asked.batch_size)
    warmup = round(asked.warmup_fraction * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=asked.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=asked.weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    watch = answer.Stopwatch()
    model.fit(
        load(asked, "train"),
        validation_data=None if asked.whole else load(asked, "val"),
        epochs=asked.epochs,
        verbose=2,
        callbacks=[Stamps(watch, images, asked.batch_size)] if asked.whole else None,
    )
    return watch


def test(model: keras.Model, asked: argparse.Namespace) -> dict[str, Any]:
    """Right or wrong on each test image."""
    images = load(asked, "test")
    names = answer.class_names(asked.folder)
    chosen = np.argmax(model.predict(images, verbose=0), axis=1)
    wanted = [names.index(path.split("/")[-2]) for path in images.file_paths]
    return answer.in_path_order(images.file_paths, chosen == wanted)


def main() -> None:
    """Fit, test, print the line."""
    start_s = answer.process_age_s()
    parser = answer.options(__doc__ or "", ("efficientnet_lite0", *APPLICATIONS))
    parser.add_argument("--head", choices=tuple(HEADS), default="pool")
    asked = parser.parse_args()
    if asked.backbone == "efficientnet_lite0" and asked.weights != "random":
        parser.error("the network of stock layers has no weights: leave out --weights")
    with answer.stdout_to_stderr():
        began = time.perf_counter()
        keras.utils.set_random_seed(asked.seed)
        model = build(asked, len(answer.class_names(asked.folder)))
        watch = train(model, asked)
        fit_s = time.perf_counter() - began
        found = watch.fields() if asked.whole else test(model, asked)
        test_s = time.perf_counter() - began - fit_s
    answer.say(
        asked,
        ("keras", "tensorflow", "numpy"),
        start_s=start_s,
        fit_s=fit_s,
        test_s=test_s,
        jit_compile=model.jit_compile,
        head=asked.head,
        **found,
    )


if __name__ == "__main__":
    main()
