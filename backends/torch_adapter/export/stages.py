"""Stages of a network that the catalogue lacks, found from one forward pass.

The head is all that follows the last spatial layer: the classifier and the pooling before it. A
network without a classifier, such as a feature extractor, is all trunk, without that pooling. The
trunk is cut where the resolution falls; where it never does (a ViT) it is cut into equal parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from bench.errors import UserError
from bench.network.blueprint import HEAD, is_under
from bench.spec.backbone import Stages

FALL = 1.5
"""Smallest ratio of the resolutions before and after a segment that counts as halving; unpadded
convolutions, which lose a few pixels, do not count."""
TARGET_STAGES = 4
"""Intended number of stages after the stem: blocks of one resolution are split to reach it, and
stages at half the resolution of the image are merged if there would be more."""
PASSIVE = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)
"""Layers before a classifier that belong to it."""
PROBABILITIES = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid)
"""Activations that may follow the layer that computes the logits."""
GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Call:
    """A module's call in the forward pass."""

    path: str
    """Path of the module."""
    shape: tuple[int, ...]
    """Shape of its output, with the batch."""
    is_leaf: bool
    """True if no module inside it was called."""

    @property
    def side(self) -> int | None:
        """Height (= width) of its output; None if that is no square map."""
        if len(self.shape) != 4:
            return None
        _, a, b, c = self.shape
        if b == c:
            return b
        return a if a == b else None  # channels last, as inside Swin


@dataclass(frozen=True)
class Segment:
    """A layer or block of the trunk that is not cut."""

    path: str
    side: int | None
    """Height (= width) of its output."""
    weights: int
    """Number of parameters."""
    kernels: int
    """Number of kernels (of convolutions, dense layers, attention)."""
    ends_in_pool: bool
    """True if its last layer is a pooling that alone lowers its resolution."""


def trace(module: nn.Module, px: int) -> list[Call]:
    """Return the calls of one forward pass, in the order in which they ended.

    Args:
        module: In evaluation form, on any device, also the meta device.
        px: Height and width of the input.
    """
    calls: list[Call] = []
    names = {m: name for name, m in module.named_modules()}
    inside: list[int] = []

    def before(_: nn.Module, __: Any) -> None:
        inside.append(len(calls))

    def after(called: nn.Module, _: Any, value: Any) -> None:
        first = inside.pop()
        tensor = value[0] if isinstance(value, tuple) else value
        shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else ()
        calls.append(Call(names[called], shape, len(calls) == first))

    hooks = [h for m in names if m is not module for h in (
        m.register_forward_pre_hook(before), m.register_forward_hook(after))]  # fmt: skip
    try:
        example = next(module.parameters())
        with torch.no_grad():
            module(torch.zeros(2, 3, px, px, device=example.device, dtype=example.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def find_stages(module: nn.Module, px: int, classes: int, name: str) -> Stages:
    """Return (stage, module paths) from the input on: 'stem', 'stage1', …, 'head'.

    Args:
        module: In evaluation form.
        px: Height and width of an input that it can take.
        classes: Number of its outputs for each image.
        name: Name of the backbone, for messages.

    Raises:
        UserError: No layer with weights precedes the classifier, or weights are used twice.
    """
    leaves = _leaves(module, trace(module, px), name)
    start = _head_start(module, leaves, classes)
    if start is None:
        own = [n for n, _ in module.named_parameters(recurse=False)]
        where = f" It has weights outside of any layer ({', '.join(own[:3])})." if own else ""
        raise UserError(
            f"{name}: no layer with weights precedes its classifier, so that every policy "
            f"would be one with no trainable stage in the backbone.{where}",
            "Write its layers as modules, such as torch.nn.Conv2d." if own else None,
        )
    trunk, head = leaves[:start], leaves[start:]
    groups = _groups(_segments(module, trunk, head), px)
    named = [*_names(*groups), (HEAD, [leaf.path for leaf in head])]
    called = [leaf.path for leaf in leaves]
    return tuple((stage, _collapse(paths, called)) for stage, paths in named)


def _leaves(module: nn.Module, calls: list[Call], name: str) -> list[Call]:
    """Return the innermost calls, without modules that are called twice and have no weights."""
    times: dict[str, int] = {}
    for call in calls:
        times[call.path] = times.get(call.path, 0) + 1
    twice = [p for p, n in times.items() if n > 1 and _weights(module, p)]
    if twice:
        raise UserError(f"{name}: module '{twice[0]}' is called more than once with its weights.")
    return [call for call in calls if call.is_leaf and times[call.path] == 1]


def _weights(module: nn.Module, path: str) -> int:
    return sum(p.numel() for p in module.get_submodule(path).parameters())


def _kernels(module: nn.Module, path: str) -> int:
    return sum(p.ndim >= 2 for p in module.get_submodule(path).parameters())


def _head_start(module: nn.Module, leaves: list[Call], classes: int) -> int | None:
    """Return the index of the head's first leaf, None if no weights would be left before it."""
    kernels = [i for i, leaf in enumerate(leaves) if _kernels(module, leaf.path)]
    if not kernels:
        return None
    last = kernels[-1]
    if _computes_logits(module, leaves[last:], classes):
        around = _classifier(module, leaves, last)
        start = min(last, around, _after_maps(module, leaves, last))
        if not _has_weights(module, leaves[:start]):
            start = around if _has_weights(module, leaves[:around]) else last
    else:
        start = len(leaves)
    while start and _is_passive(module, leaves[start - 1].path):
        start -= 1
    return start if _has_weights(module, leaves[:start]) else None


def _computes_logits(module: nn.Module, rest: list[Call], classes: int) -> bool:
    """Return True if the first of these leaves, the network's last kernel, is its classifier: a
    dense layer or a convolution of one position with an output for each class, and nothing after it
    that a classifier does not have, such as normalisation."""
    first, *after = rest
    layer = module.get_submodule(first.path)
    on_maps = len(first.shape) == 4 and first.side != 1
    if on_maps:
        fits = first.shape[1] == classes and getattr(layer, "kernel_size", (1, 1)) == (1, 1)
    else:
        fits = first.shape[1:2] == (classes,) and len(first.shape) != 3
    layers = [module.get_submodule(leaf.path) for leaf in after]
    features = [m for m in layers if _is_activation(m) and not isinstance(m, PROBABILITIES)]
    if on_maps:  # as SqueezeNet does
        features = [m for m in features if not isinstance(m, nn.ReLU)]
    return fits and not features and not _has_weights(module, after)


def _is_activation(module: nn.Module) -> bool:
    """Return True for an activation of torch or timm."""
    return "activation" in type(module).__module__


def _is_passive(module: nn.Module, path: str) -> bool:
    """Return True if a layer before the classifier belongs to it, not to a block of the trunk."""
    parent = module.get_submodule(path.rpartition(".")[0])
    in_a_row = parent is module or isinstance(parent, nn.Sequential)
    return in_a_row and isinstance(module.get_submodule(path), PASSIVE)


def _has_weights(module: nn.Module, leaves: Iterable[Call]) -> bool:
    return any(_weights(module, leaf.path) for leaf in leaves)


def _classifier(module: nn.Module, leaves: list[Call], last: int) -> int:
    """Return the first leaf of the largest module around the last kernel without another kernel."""
    path = leaves[last].path
    own = _kernels(module, path)
    while "." in path and _kernels(module, path.rpartition(".")[0]) == own:
        path = path.rpartition(".")[0]
    return next(i for i, leaf in enumerate(leaves) if is_under(leaf.path, path))


def _after_maps(module: nn.Module, leaves: list[Call], last: int) -> int:
    """Return the first leaf from which on all work on vectors, or on a globally pooled map."""
    start = last + 1
    for index in range(last, -1, -1):
        rest = leaves[index:]
        vectors = all(len(leaf.shape) == 2 for leaf in rest)
        side_before = leaves[index - 1].side if index else None
        if vectors or _pools_to_one(module, rest, side_before):
            start = index
        elif rest[0].side != 1:
            break
    return start


def _pools_to_one(module: nn.Module, rest: list[Call], side_before: int | None) -> bool:
    """Return True if the first leaf turns maps into vectors: a global pooling, also one of the
    user's own, or a dense layer written as a convolution over the whole map (VGG in timm, LeNet).
    ``side_before`` is the height (= width) of the map that it reads, None if that is no map."""
    leaf = module.get_submodule(rest[0].path)
    dense = isinstance(leaf, nn.Conv2d) and leaf.kernel_size[0] > 2 and leaf.padding in (0, (0, 0))
    own_pool = (side_before or 1) > 1 and not _kernels(module, rest[0].path)
    one = all(leaf.side == 1 or len(leaf.shape) == 2 for leaf in rest)
    return one and (dense or own_pool or isinstance(leaf, GLOBAL_POOLS))


def _segments(module: nn.Module, trunk: list[Call], head: list[Call]) -> list[Segment]:
    """Cut the trunk into blocks: open modules with most weights or a large fall in resolution."""
    weights = [n for leaf in trunk if (n := _weights(module, leaf.path))]
    total = sum(weights[1:])  # the first layer of a small ViT can hold most
    segments: list[Segment] = []
    side: int | None = None

    def opened(path: str, inside: list[Call]) -> bool:
        if any(is_under(leaf.path, path) for leaf in head) or path == "":
            return True
        if isinstance(module.get_submodule(path), nn.ModuleList | nn.ModuleDict):
            return True  # has no call of its own
        before = side or _last_side(inside[:1]) or 1
        ratio = before / (_last_side(inside) or before)
        heavy = _weights(module, path) > total / 2
        if ratio >= FALL**4:
            return True
        chain = _is_chain(module.get_submodule(path))
        return heavy and (ratio >= FALL**2 or (ratio < FALL and chain))

    def walk(path: str, inside: list[Call]) -> None:
        nonlocal side
        if [leaf.path for leaf in inside] != [path] and opened(path, inside):
            children: dict[str, list[Call]] = {}
            for leaf in inside:
                children.setdefault(_child(path, leaf.path), []).append(leaf)
            for child, leaves in children.items():
                walk(child, leaves)
            return
        after = _last_side(inside) or side
        last = module.get_submodule(inside[-1].path)
        before_last = _last_side(inside[:-1]) or side
        segments.append(
            Segment(
                path,
                after,
                _weights(module, path),
                _kernels(module, path),
                ends_in_pool="Pool" in type(last).__name__
                and _falls(before_last, after)
                and not _falls(side, before_last),
            )
        )
        side = after

    walk("", trunk)
    return segments


def _child(path: str, leaf: str) -> str:
    """Return the module one level below ``path`` on the way to ``leaf``."""
    below = leaf.removeprefix(f"{path}.") if path else leaf
    child = below.partition(".")[0]
    return f"{path}.{child}" if path else child


def _last_side(calls: Iterable[Call]) -> int | None:
    return next((c.side for c in reversed(list(calls)) if c.side is not None), None)


def _falls(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and before / max(after, 1) >= FALL


def _is_chain(module: nn.Module) -> bool:
    """Return True for a row of blocks, False for a block whose layers belong together."""
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return True
    whole = sum(p.numel() for p in module.parameters())
    return any(
        sum(p.numel() for p in child.parameters()) > 0.9 * whole and _is_chain(child)
        for child in module.children()
    )


def _groups(segments: list[Segment], px: int) -> tuple[list[Segment], list[list[Segment]]]:
    """Return the stem, possibly empty, and the stages after it."""
    stem = _stem(segments, px)
    groups: list[list[Segment]] = [[]]
    side = segments[len(stem) - 1].side if stem else px
    for segment in segments[len(stem) :]:
        falls = _falls(side, segment.side)
        if falls and not segment.ends_in_pool and _total_weights(groups[-1]):
            groups.append([])
        groups[-1].append(segment)
        if falls and segment.ends_in_pool:
            groups.append([])
        side = segment.side or side
    groups = _with_weights(groups)
    if len(groups) > 1 and not any(segment.kernels for segment in groups[-1]):
        groups[-2:] = [groups[-2] + groups[-1]]  # a last norm is no stage of its own
    if len(groups) > TARGET_STAGES and stem and px / (groups[0][-1].side or px) < FALL**2:
        groups[:2] = [groups[0] + groups[1]]
    if not groups:
        return [], [stem]
    if len(groups) < TARGET_STAGES - 1:
        longest = max(range(len(groups)), key=lambda i: len(_blocks(groups[i])))
        missing = TARGET_STAGES - len(groups) + 1
        groups[longest : longest + 1] = _split_equally(groups[longest], missing)
    return stem, groups


def _stem(segments: list[Segment], px: int) -> list[Segment]:
    """Return the first kernel and the layers that belong to it, if the resolution falls there."""
    first = next((i for i, segment in enumerate(segments) if segment.kernels), None)
    if first is None:
        return []
    end = first + 1
    while end < len(segments) and not segments[end].kernels and segments[end].side is not None:
        end += 1
    return segments[:end] if _falls(px, segments[end - 1].side) else []


def _total_weights(group: list[Segment]) -> int:
    return sum(segment.weights for segment in group)


def _with_weights(groups: list[list[Segment]]) -> list[list[Segment]]:
    """Join groups without weights to the group before, or to the next."""
    joined: list[list[Segment]] = []
    for group in groups:
        if joined and not (_total_weights(group) and _total_weights(joined[-1])):
            joined[-1] = joined[-1] + group
        elif group:
            joined.append(group)
    return joined


def _split_equally(group: list[Segment], most: int) -> list[list[Segment]]:
    """Split blocks of one resolution into up to ``most`` rows of equal length."""
    blocks = _blocks(group)
    count = min(most, len(blocks))
    bounds = [round(i * len(blocks) / count) for i in range(count + 1)]
    return [[segment for block in blocks[a:b] for segment in block] for a, b in pairwise(bounds)]


def _blocks(group: list[Segment]) -> list[list[Segment]]:
    """Split a group into rows that begin with a kernel."""
    blocks: list[list[Segment]] = []
    for segment in group:
        if not blocks or (segment.kernels and any(p.kernels for p in blocks[-1])):
            blocks.append([segment])
        else:
            blocks[-1].append(segment)
    return blocks


def _names(stem: list[Segment], rest: list[list[Segment]]) -> list[tuple[str, list[str]]]:
    named = [("stem", stem)] if stem else []
    named += [(f"stage{i}", group) for i, group in enumerate(rest, start=1)]
    return [(stage, [segment.path for segment in segments]) for stage, segments in named]


def _collapse(paths: list[str], called: list[str]) -> tuple[str, ...]:
    """Replace paths by their parent where they cover all that was called in it."""
    found = list(dict.fromkeys(paths))
    while True:
        for parent in dict.fromkeys(p.rpartition(".")[0] for p in found if "." in p):
            inside = [leaf for leaf in called if is_under(leaf, parent)]
            if all(any(is_under(leaf, path) for path in found) for leaf in inside):
                at = next(i for i, p in enumerate(found) if is_under(p, parent))
                found = [p for p in found if not is_under(p, parent)]
                found.insert(at, parent)
                break
        else:
            return tuple(found)
