"""Train as the article does: a frozen network of keras.applications, a dense head, ``fit``.

Images come from ``image_dataset_from_directory`` with its defaults (bilinear without antialiasing,
its own shuffling); validation follows each epoch. EfficientNet-Lite0, which keras.applications
lacks, is built from stock layers. Weights are random, so that only times can be compared, unless a
Keras weights file is given. The head is one dense layer over the pooled map (--head flatten: over
the whole map). --whole trains the whole network under plain ``fit``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.peers import answer
from tests.peers.keras_lite0 import lite0

APPLICATIONS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "resnet50": (keras.applications.ResNet50, keras.applications.resnet50.preprocess_input),
    "vgg16": (keras.applications.VGG16, keras.applications.vgg16.preprocess_input),
}
"""Backbone → class of keras.applications, its preprocessing."""
HEADS = {"pool": keras.layers.GlobalAveragePooling2D, "flatten": keras.layers.Flatten}


class Stamps(keras.callbacks.Callback):
    """Reports training steps to a stopwatch."""

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


def build(options: argparse.Namespace, classes: int) -> keras.Model:
    """Return a network with logits, frozen except for the head unless --whole is set."""
    images = keras.Input((options.px, options.px, 3))
    if options.backbone in APPLICATIONS:
        application, preprocess = APPLICATIONS[options.backbone]
        weights = None if options.weights == "random" else options.weights
        base = application(
            include_top=False, weights=weights, input_shape=(options.px, options.px, 3)
        )
        base.trainable = options.whole
        x = base(preprocess(images))
    else:
        base = lite0(options.px)
        base.trainable = options.whole
        x = base(images)
    return keras.Model(images, keras.layers.Dense(classes)(HEADS[options.head]()(x)))


def load(options: argparse.Namespace, split: str) -> Any:
    """Return a tf.data.Dataset of a split; only the training images are shuffled."""
    return keras.utils.image_dataset_from_directory(
        options.folder / split,
        image_size=(options.px, options.px),
        batch_size=options.batch_size,
        shuffle=split == "train",
        seed=options.seed,
    )


def train(model: keras.Model, options: argparse.Namespace) -> answer.Stopwatch:
    """Compile and fit; return the stopwatch."""
    images = answer.count_images(options.folder)["train"]
    steps = options.epochs * -(-images // options.batch_size)
    warmup = round(options.warmup_fraction * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=options.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=options.weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    watch = answer.Stopwatch(tf.test.experimental.sync_devices if has_gpu else None)
    model.fit(
        load(options, "train"),
        validation_data=None if options.whole else load(options, "val"),
        epochs=options.epochs,
        verbose=2,
        callbacks=[Stamps(watch, images, options.batch_size)] if options.whole else None,
    )
    return watch


def test(model: keras.Model, options: argparse.Namespace) -> dict[str, Any]:
    """Return top-1 and the correctness of each test image."""
    images = load(options, "test")
    names = answer.class_names(options.folder)
    chosen = np.argmax(model.predict(images, verbose=0), axis=1)
    wanted = [names.index(path.split("/")[-2]) for path in images.file_paths]
    return answer.in_path_order(images.file_paths, chosen == wanted)


def main() -> None:
    """Fit, test and print the answer."""
    start_s = answer.process_age_s()
    parser = answer.make_parser(__doc__ or "", ("efficientnet_lite0", *APPLICATIONS))
    parser.add_argument("--head", choices=tuple(HEADS), default="pool")
    options = parser.parse_args()
    if options.backbone == "efficientnet_lite0" and options.weights != "random":
        parser.error("efficientnet_lite0 of stock layers has no weights file: leave out --weights")
    with answer.stdout_to_stderr():
        began = time.perf_counter()
        keras.utils.set_random_seed(options.seed)
        model = build(options, len(answer.class_names(options.folder)))
        watch = train(model, options)
        fit_s = time.perf_counter() - began
        found = watch.fields() if options.whole else test(model, options)
        test_s = time.perf_counter() - began - fit_s
    answer.print_answer(
        options,
        ("keras", "tensorflow", "numpy"),
        start_s=start_s,
        fit_s=fit_s,
        test_s=test_s,
        jit_compile=model.jit_compile,
        head=options.head,
        **found,
    )


if __name__ == "__main__":
    main()
