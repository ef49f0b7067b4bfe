"""Train with fastai: ``vision_learner`` with a frozen body, then ``fit``.

The data loaders, which drop an incomplete last batch in training, and the optimizer are fastai's
defaults. So is the BatchNorm of the frozen body, which is trained and updates its statistics
(``train_bn=True``; --frozen-statistics sets False and adds fastai's callback ``BnFreeze``). As in
the other programs, and unlike fastai's defaults, images are squashed to the input size without
augmentation, the learning rate has a warm-up and a cosine, and the head is one linear layer over
the pooled map with PyTorch's initialisation (--head own: fastai's head with a hidden layer, dropout
and BatchNorm).
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
"""Backbone → argument of ``vision_learner`` (a string is a name in timm), channels of its map."""


class Stamps(Callback):
    """Reports training steps to a stopwatch."""

    def __init__(self, watch: answer.Stopwatch) -> None:
        self.watch = watch

    def before_train(self) -> None:
        self.watch.open()

    def after_batch(self) -> None:
        if self.training:
            self.watch.step(len(self.yb[0]))


def make_learner(options: argparse.Namespace) -> Learner:
    """Return the learner, frozen unless --whole is set."""
    architecture, channels = ARCHITECTURES[options.backbone]
    stats = (MEAN, STD) if options.backbone == "efficientnet_lite0" else imagenet_stats
    loaders = ImageDataLoaders.from_folder(
        options.folder,
        train="train",
        valid="val",
        bs=options.batch_size,
        item_tfms=Resize(options.px, method=ResizeMethod.Squish),
        batch_tfms=Normalize.from_stats(*stats),
    )
    classes = len(loaders.vocab)
    linear = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    learner = vision_learner(
        loaders,
        architecture,
        n_out=classes,
        pretrained=False,
        **({"custom_head": linear, "init": None} if options.head == "linear" else {}),
        metrics=accuracy,
        train_bn=not options.frozen_statistics,
        cbs=[BnFreeze()] if options.frozen_statistics else None,
    )
    if options.weights != "random":
        load_packaged(learner.model[0], Path(options.weights))
    if options.whole:
        learner.unfreeze()
    else:
        learner.freeze()
    return learner


def train(learner: Learner, options: argparse.Namespace) -> answer.Stopwatch:
    """Fit, with validation after each epoch; return the stopwatch."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else None
    watch = answer.Stopwatch(wait)
    peak, warmup = options.learning_rate, options.warmup_fraction
    rates = combine_scheds([warmup, 1 - warmup], [SchedLin(0.0, peak), SchedCos(peak, 0.0)])
    schedule = ParamScheduler({"lr": rates})
    learner.fit(options.epochs, peak, wd=options.weight_decay, cbs=[schedule, Stamps(watch)])
    return watch


def test(learner: Learner, options: argparse.Namespace) -> dict[str, Any]:
    """Return top-1 and the correctness of each test image."""
    files = sorted(get_image_files(options.folder / "test"))
    chosen = learner.get_preds(dl=learner.dls.test_dl(files))[0].argmax(1).tolist()
    names = [learner.dls.vocab[index] for index in chosen]
    pairs = zip(names, files, strict=True)
    return answer.in_path_order(files, [name == file.parent.name for name, file in pairs])


def main() -> None:
    """Fit, test and print the answer."""
    start_s = answer.process_age_s()
    parser = answer.make_parser(__doc__ or "", tuple(ARCHITECTURES))
    parser.add_argument(
        "--frozen-statistics", action="store_true", help="train_bn=False and BnFreeze"
    )
    parser.add_argument("--head", choices=("linear", "own"), default="linear")
    options = parser.parse_args()
    with answer.stdout_to_stderr():
        began = time.perf_counter()
        set_seed(options.seed)
        learner = make_learner(options)
        with learner.no_bar():
            watch = train(learner, options)
            fit_s = time.perf_counter() - began
            found = watch.fields() if options.whole else test(learner, options)
            test_s = time.perf_counter() - began - fit_s
    answer.print_answer(
        options,
        ("fastai", "fastcore", "torch", "torchvision", "timm", "pillow"),
        start_s=start_s,
        fit_s=fit_s,
        test_s=test_s,
        device=learner.dls.device.type,
        threads=torch.get_num_threads(),
        frozen_statistics=options.frozen_statistics,
        head=options.head,
        **found,
    )


if __name__ == "__main__":
    main()
