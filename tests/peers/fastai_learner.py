"""fastai: ``vision_learner`` with its body frozen, ``fit``.

fastai's own: its data loaders and their workers, which leave out an incomplete last batch in
training, its optimizer, and BatchNorm of the frozen body that goes on training and averaging
(``train_bn=True``; --frozen-statistics says False, with fastai's callback ``BnFreeze``). What is
not: every image is squashed to the input size with no augmentation, the learning rate is warmed up
and falls by a cosine, and the head is one linear layer over the pooled map with PyTorch's own first
numbers, as on the other sides (--head own: fastai's, with a hidden layer, dropout and BatchNorm).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler, SchedCos, SchedLin, combine_scheds
from fastai.callback.training import BnFreeze
from fastai.data.transforms import Normalize, get_image_files
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.augment import Resize, ResizeMethod
from fastai.vision.data import ImageDataLoaders, imagenet_stats
from fastai.vision.learner import vision_learner
from torch import nn

from tests.peers import answer
from tests.peers.torch_weights import MEAN, STD, load_packaged

ARCHITECTURES: dict[str, tuple[Any, int]] = {
    "efficientnet_lite0": ("tf_efficientnet_lite0", 1280),
    "resnet50": (torchvision.models.resnet50, 2048),
    "vgg16": (torchvision.models.vgg16, 512),
}
"""Backbone → what ``vision_learner`` takes (a string is timm's), and the channels of its map."""


class Stamps(Callback):
    """Tells a stopwatch of training steps."""

    def __init__(self, watch: answer.Stopwatch) -> None:
        self.watch = watch

    def before_train(self) -> None:
        self.watch.open()

    def after_batch(self) -> None:
        if self.training:
            self.watch.step(len(self.yb[0]))


def make_learner(asked: argparse.Namespace) -> Learner:
    """Frozen, unless --whole."""
    architecture, channels = ARCHITECTURES[asked.backbone]
    stats = (MEAN, STD) if asked.backbone == "efficientnet_lite0" else imagenet_stats
    loaders = ImageDataLoaders.from_folder(
        asked.folder,
        train="train",
        valid="val",
        bs=asked.batch_size,
        item_tfms=Resize(asked.px, method=ResizeMethod.Squish),
        batch_tfms=Normalize.from_stats(*stats),
    )
    classes = len(loaders.vocab)
    linear = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    learner = vision_learner(
        loaders,
        architecture,
        n_out=classes,
        pretrained=False,
        **({"custom_head": linear, "init": None} if asked.head == "linear" else {}),
        metrics=accuracy,
        train_bn=not asked.frozen_statistics,
        cbs=[BnFreeze()] if asked.frozen_statistics else None,
    )
    if asked.weights != "random":
        load_packaged(learner.model[0], Path(asked.weights))
    if asked.whole:
        learner.unfreeze()
    else:
        learner.freeze()
    return learner


def train(learner: Learner, asked: argparse.Namespace) -> answer.Stopwatch:
    """``fit``, validation after each epoch."""
    watch = answer.Stopwatch()
    peak, warmup = asked.learning_rate, asked.warmup_fraction
    rates = combine_scheds([warmup, 1 - warmup], [SchedLin(0.0, peak), SchedCos(peak, 0.0)])
    schedule = ParamScheduler({"lr": rates})
    learner.fit(asked.epochs, peak, wd=asked.weight_decay, cbs=[schedule, Stamps(watch)])
    return watch


def test(learner: Learner, asked: argparse.Namespace) -> dict[str, Any]:
    """Right or wrong on each test image."""
    files = sorted(get_image_files(asked.folder / "test"))
    chosen = learner.get_preds(dl=learner.dls.test_dl(files))[0].argmax(1).tolist()
    names = [learner.dls.vocab[index] for index in chosen]
    pairs = zip(names, files, strict=True)
    return answer.in_path_order(files, [name == file.parent.name for name, file in pairs])


def main() -> None:
    """Fit, test, print the line."""
    start_s = answer.process_age_s()
    parser = answer.options(__doc__ or "", tuple(ARCHITECTURES))
    parser.add_argument(
        "--frozen-statistics", action="store_true", help="train_bn=False and BnFreeze"
    )
    parser.add_argument("--head", choices=("linear", "own"), default="linear")
    asked = parser.parse_args()
    with answer.stdout_to_stderr():
        began = time.perf_counter()
        set_seed(asked.seed)
        learner = make_learner(asked)
        with learner.no_bar():
            watch = train(learner, asked)
            fit_s = time.perf_counter() - began
            found = watch.fields() if asked.whole else test(learner, asked)
            test_s = time.perf_counter() - began - fit_s
    answer.say(
        asked,
        ("fastai", "fastcore", "torch", "torchvision", "timm", "pillow"),
        start_s=start_s,
        fit_s=fit_s,
        test_s=test_s,
        device=learner.dls.device.type,
        threads=torch.get_num_threads(),
        frozen_statistics=asked.frozen_statistics,
        head=asked.head,
        **found,
    )


if __name__ == "__main__":
    main()
