"""PyTorch's transfer-learning tutorial, "ConvNet as fixed feature extractor", and its fine-tuning.

ImageFolder, DataLoader with four workers, parameters of the body without gradients, a new last
layer, the whole forward pass in every epoch, a validation phase after each; NCHW and eager, the
network in training mode, so that BatchNorm normalises by the batch and goes on averaging in the
frozen part too (--frozen-statistics puts the body into evaluation mode, as Thawbench does).

What is not the tutorial's, so that both sides do the same work: Resize in the place of
RandomResizedCrop and flips (every epoch has the same pixels), the batch size, AdamW with warm-up
and a cosine by step for SGD with StepLR, and the last epoch's network for the best one's. VGG16
gets one linear layer over the pooled map, the same head as the others. --whole trains all of the
network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.peers import answer
from tests.peers.torch_weights import MEAN, STD, load_packaged

BACKBONES = ("efficientnet_lite0", "resnet50", "vgg16")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = 4
"""Of the tutorial's DataLoader."""

Loaders = dict[str, DataLoader[Any]]


def build(asked: argparse.Namespace, classes: int) -> tuple[nn.Module, nn.Module]:
    """The network with a new last layer, and that layer; frozen but for it, unless --whole."""
    if asked.backbone == "efficientnet_lite0":
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if asked.weights != "random":
            load_packaged(network, Path(asked.weights))
    else:
        network = torchvision.models.get_model(asked.backbone, weights=None)
    for parameter in network.parameters():
        parameter.requires_grad = asked.whole
    if asked.backbone == "resnet50":
        head = network.fc = nn.Linear(network.fc.in_features, classes)
    elif asked.backbone == "vgg16":
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        head = network.classifier = nn.Linear(512, classes)
    else:
        head = network.classifier = nn.Linear(network.classifier.in_features, classes)
    return network, head


def make_loaders(asked: argparse.Namespace) -> Loaders:
    """Of each split; only the training images are shuffled."""
    mean, std = (MEAN, STD) if asked.backbone == "efficientnet_lite0" else IMAGENET
    to_tensor = transforms.Compose(
        [
            transforms.Resize((asked.px, asked.px)),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    return {
        split: DataLoader(
            ImageFolder(str(asked.folder / split), to_tensor),
            batch_size=asked.batch_size,
            shuffle=split == "train",
            num_workers=WORKERS,
        )
        for split in answer.SPLITS
    }


def train(
    network: nn.Module,
    head: nn.Module,
    loaders: Loaders,
    asked: argparse.Namespace,
    device: torch.device,
) -> answer.Stopwatch:
    """The tutorial's loop: a phase of training and one of validation in each epoch."""
    criterion = nn.CrossEntropyLoss()
    trained = network.parameters() if asked.whole else head.parameters()
    optimizer = optim.AdamW(trained, lr=asked.learning_rate, weight_decay=asked.weight_decay)
    steps = asked.epochs * len(loaders["train"])
    scheduler = optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: answer.rate_factor(step, steps, asked.warmup_fraction)
    )
    watch = answer.Stopwatch()
    for _ in range(asked.epochs):
        for phase in ("train",) if asked.whole else ("train", "val"):
            training = phase == "train"
            network.train(training)
            if asked.frozen_statistics:
                network.eval()
                head.train(training)
            running_loss, running_right = 0.0, torch.zeros((), dtype=torch.long, device=device)
            if training:
                watch.open()
            for images, labels in loaders[phase]:
                images, labels = images.to(device), labels.to(device)
                optimizer.zero_grad()
                with torch.set_grad_enabled(training):
                    outputs = network(images)
                    chosen = outputs.argmax(1)
                    loss = criterion(outputs, labels)
                    if training:
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * len(images)
                running_right += (chosen == labels).sum()
                if training:
                    scheduler.step()
                    watch.step(len(images))
            images_seen = len(cast(Sized, loaders[phase].dataset))
            print(
                f"{phase} {running_loss / images_seen:.4f} {int(running_right) / images_seen:.4f}"
            )
    return watch


def test(network: nn.Module, loaders: Loaders, device: torch.device) -> dict[str, Any]:
    """Right or wrong on each test image."""
    network.eval()
    correct: list[bool] = []
    with torch.no_grad():
        for images, labels in loaders["test"]:
            correct += (network(images.to(device)).argmax(1).cpu() == labels).tolist()
    files = [path for path, _ in cast(ImageFolder, loaders["test"].dataset).samples]
    return answer.in_path_order(files, correct)


def main() -> None:
    """Fit, test, print the line."""
    start_s = answer.process_age_s()
    parser = answer.options(__doc__ or "", BACKBONES)
    parser.add_argument("--frozen-statistics", action="store_true", help="body in evaluation mode")
    asked = parser.parse_args()
    with answer.stdout_to_stderr():
        began = time.perf_counter()
        torch.manual_seed(asked.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loaders = make_loaders(asked)
        network, head = build(asked, len(answer.class_names(asked.folder)))
        network = network.to(device)
        watch = train(network, head, loaders, asked, device)
        fit_s = time.perf_counter() - began
        found = watch.fields() if asked.whole else test(network, loaders, device)
        test_s = time.perf_counter() - began - fit_s
    answer.say(
        asked,
        ("torch", "torchvision", "timm", "pillow"),
        start_s=start_s,
        fit_s=fit_s,
        test_s=test_s,
        device=device.type,
        threads=torch.get_num_threads(),
        frozen_statistics=asked.frozen_statistics,
        **found,
    )


if __name__ == "__main__":
    main()
