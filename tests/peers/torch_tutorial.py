"""Train as PyTorch's transfer-learning tutorial does: "ConvNet as fixed feature extractor".

As in the tutorial: ImageFolder, a DataLoader with four workers, body parameters without gradients,
a new last layer, the whole forward pass in every epoch, a validation phase after each epoch, NCHW
and eager execution. The network is in training mode, so that the BatchNorms of the frozen part
normalise by the batch and update their statistics, too (--frozen-statistics puts the body into
evaluation mode, as Thawbench does). --whole trains the whole network, as in the tutorial's
fine-tuning.

Changed, so that all programs do the same work: Resize instead of RandomResizedCrop and flips (every
epoch has the same pixels), the batch size, AdamW with warm-up and a cosine by step instead of SGD
with StepLR, and the last epoch's network instead of the best one. VGG16 gets one linear layer over
the pooled map, the same head as the other backbones.
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
"""Workers of the tutorial's DataLoader."""

Loaders = dict[str, DataLoader[Any]]


def build(options: argparse.Namespace, classes: int) -> tuple[nn.Module, nn.Module]:
    """Return the network with a new last layer, and that layer; all others are frozen, unless
    --whole is set."""
    if options.backbone == "efficientnet_lite0":
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if options.weights != "random":
            load_packaged(network, Path(options.weights))
    else:
        network = torchvision.models.get_model(options.backbone, weights=None)
    for parameter in network.parameters():
        parameter.requires_grad = options.whole
    if options.backbone == "resnet50":
        head = network.fc = nn.Linear(network.fc.in_features, classes)
    elif options.backbone == "vgg16":
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        head = network.classifier = nn.Linear(512, classes)
    else:
        head = network.classifier = nn.Linear(network.classifier.in_features, classes)
    return network, head


def make_loaders(options: argparse.Namespace) -> Loaders:
    """Return a loader for each split; only the training images are shuffled."""
    mean, std = (MEAN, STD) if options.backbone == "efficientnet_lite0" else IMAGENET
    to_tensor = transforms.Compose(
        [
            transforms.Resize((options.px, options.px)),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    return {
        split: DataLoader(
            ImageFolder(str(options.folder / split), to_tensor),
            batch_size=options.batch_size,
            shuffle=split == "train",
            num_workers=WORKERS,
        )
        for split in answer.SPLITS
    }


def train(
    network: nn.Module,
    head: nn.Module,
    loaders: Loaders,
    options: argparse.Namespace,
    device: torch.device,
) -> answer.Stopwatch:
    """Run the tutorial's loop, with training and validation in each epoch; return the stopwatch."""
    criterion = nn.CrossEntropyLoss()
    trained = network.parameters() if options.whole else head.parameters()
    optimizer = optim.AdamW(trained, lr=options.learning_rate, weight_decay=options.weight_decay)
    steps = options.epochs * len(loaders["train"])
    scheduler = optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: answer.rate_factor(step, steps, options.warmup_fraction)
    )
    watch = answer.Stopwatch(torch.cuda.synchronize if device.type == "cuda" else None)
    for _ in range(options.epochs):
        for phase in ("train",) if options.whole else ("train", "val"):
            training = phase == "train"
            network.train(training)
            if options.frozen_statistics:
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
    """Return top-1 and the correctness of each test image."""
    network.eval()
    correct: list[bool] = []
    with torch.no_grad():
        for images, labels in loaders["test"]:
            correct += (network(images.to(device)).argmax(1).cpu() == labels).tolist()
    files = [path for path, _ in cast(ImageFolder, loaders["test"].dataset).samples]
    return answer.in_path_order(files, correct)


def main() -> None:
    """Fit, test and print the answer."""
    start_s = answer.process_age_s()
    parser = answer.make_parser(__doc__ or "", BACKBONES)
    parser.add_argument("--frozen-statistics", action="store_true", help="body in evaluation mode")
    options = parser.parse_args()
    with answer.stdout_to_stderr():
        began = time.perf_counter()
        torch.manual_seed(options.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loaders = make_loaders(options)
        network, head = build(options, len(answer.class_names(options.folder)))
        network = network.to(device)
        watch = train(network, head, loaders, options, device)
        fit_s = time.perf_counter() - began
        found = watch.fields() if options.whole else test(network, loaders, device)
        test_s = time.perf_counter() - began - fit_s
    answer.print_answer(
        options,
        ("torch", "torchvision", "timm", "pillow"),
        start_s=start_s,
        fit_s=fit_s,
        test_s=test_s,
        device=device.type,
        threads=torch.get_num_threads(),
        frozen_statistics=options.frozen_statistics,
        **found,
    )


if __name__ == "__main__":
    main()
