"""ResNet50 of torchvision in loops as an expert writes them: the speed that the project's own steps
are held against, in both layouts, and what graphs and compilation add."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torchvision

from backends import torch_device
from tools.gpu_steps.common import (
    CLASSES,
    LEARNING_RATE,
    Findings,
    StepOptions,
    left_s,
    noted,
    save,
    say,
    synchroniser,
)

Step = Callable[[], Any]


class Variant(NamedTuple):
    """One way to write the loop."""

    batch_size: int
    precision: str
    layout: str
    """channels_last or channels_first."""
    how: str
    """eager, graph (a CUDA graph), or a mode of ``torch.compile``."""

    def __str__(self) -> str:
        return f"{self.precision}:{self.batch_size} {self.layout} {self.how}"


COMPILED = ("default", "reduce-overhead", "max-autotune")
LAST, FIRST = "channels_last", "channels_first"
VARIANTS = (
    Variant(256, "bf16", LAST, "eager"), Variant(64, "bf16", LAST, "eager"),
    Variant(256, "bf16", LAST, "graph"), Variant(64, "bf16", LAST, "graph"),
    Variant(256, "tf32", LAST, "eager"), Variant(64, "tf32", LAST, "eager"),
    Variant(64, "fp32", LAST, "eager"), Variant(64, "fp32", FIRST, "eager"),
    Variant(256, "fp32", LAST, "eager"), Variant(256, "fp32", FIRST, "eager"),
    Variant(256, "bf16", FIRST, "eager"), Variant(64, "tf32", FIRST, "eager"),
    Variant(256, "fp16", LAST, "eager"), Variant(256, "bf16", LAST, "default"),
    Variant(64, "bf16", LAST, "default"), Variant(64, "bf16", LAST, "reduce-overhead"),
    Variant(256, "tf32", LAST, "default"),
)  # fmt: skip
SMALL = (Variant(256, "bf16", LAST, "eager"), Variant(64, "fp32", FIRST, "eager"))
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_LEFT_S = {"eager": 15, "graph": 15}
COMPILE_LEFT_S = 60


def by_hand(options: StepOptions) -> Findings:
    """Time each variant on a batch that lies on the device."""
    found: Findings = {"steps": {}}
    torch.backends.cudnn.benchmark = True
    for variant in SMALL if options.small else VARIANTS:
        if not options.on_gpu and (variant.how == "graph" or variant.precision in ("tf32", "fp16")):
            continue
        if left_s() < LEAST_LEFT_S.get(variant.how, COMPILE_LEFT_S):
            found["steps"][str(variant)] = "left out: no time"
            continue
        one: Findings = {}
        found["steps"][str(variant)] = one
        with noted(one, "step"):
            one |= _time(variant, options)
            rate, first_s = one["images_per_s"], one["first_s"]
            say(f"by hand {variant} {rate:.0f} images/s, first {first_s:.1f} s")
        if options.on_gpu:
            torch.cuda.empty_cache()
        save(options, "by-hand", found)
    return found


def _time(variant: Variant, options: StepOptions) -> Findings:
    wait, size = synchroniser(options.device), 4 if options.small else variant.batch_size
    if options.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    step = _build(variant, size, options)
    step()
    wait()
    first_s = time.perf_counter() - began
    for _ in range(3):
        step()
    wait()
    times = 3 if options.small else (8 if variant.precision == "fp32" else 20)
    began = time.perf_counter()
    for _ in range(times):
        step()
    wait()
    step_s = (time.perf_counter() - began) / times
    found = {"first_s": first_s, "step_s": step_s, "images_per_s": size / step_s}
    if options.on_gpu:
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def _build(variant: Variant, size: int, options: StepOptions) -> Step:
    """Return a training step of a variant."""
    device, px = options.device, options.px
    torch_device.allow_tf32(variant.precision == "tf32")
    torch.manual_seed(0)
    make = torchvision.models.resnet18 if options.small else torchvision.models.resnet50
    layout = torch.channels_last if variant.layout == LAST else torch.contiguous_format
    network = make(num_classes=CLASSES).to(device).train().to(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9, fused=True)
    pixels = torch.randint(0, 256, (size, px, px, 3), dtype=torch.uint8).to(device)
    labels = torch.randint(0, CLASSES, (size,)).to(device)
    mean = torch.tensor(IMAGENET_MEAN, device=device)
    scale = 1 / torch.tensor(IMAGENET_STD, device=device)
    half, kind = HALF.get(variant.precision), torch.device(device).type

    def loss_of(pixels: Any, labels: Any) -> Any:
        x = ((pixels.float() - mean) * scale).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        keeps_casts = variant.how != "graph"  # a graph must cast anew
        with torch.autocast(kind, half, half is not None, cache_enabled=keeps_casts):
            logits = network(x)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    loss: Any = loss_of
    if variant.how in COMPILED:
        loss = torch.compile(loss_of, mode=variant.how, dynamic=False)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        value = loss(pixels, labels)
        value.backward()
        optimizer.step()
        return value

    return _captured(step, optimizer) if variant.how == "graph" else step


def _captured(step: Step, optimizer: torch.optim.Optimizer) -> Step:
    """Capture a step in a CUDA graph (docs.pytorch.org, "CUDA Graphs")."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
