"""The stages of a network that the catalogue does not know, found from one forward pass.

The head is what stands after the last spatial work: the classifier and the pooling before it. What
is left is cut where the resolution falls; where it never does (a ViT) it is cut into equal parts.
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

Stages = tuple[tuple[str, tuple[str, ...]], ...]
FALL = 1.5
"""Resolution before over after from which a part counts as halving it; unpadded convolutions, which
lose a few pixels, do not."""
PARTS = 4
"""Stages after the stem that are aimed at: blocks of one resolution are cut into as many, and what
still has half the resolution of the image is joined to the next where there would be more."""
PASSIVE = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)
"""Kinds before a classifier that belong to it."""
GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Call:
    """A module's call in the forward pass."""

    path: str
    """Of the module."""
    shape: tuple[int, ...]
    """Of its value, with the batch."""
    is_leaf: bool
    """Whether no module inside it was called."""

    @property
    def side(self) -> int | None:
        """Height (= width) of its value; None where that is no map."""
        if len(self.shape) != 4:
            return None
        _, a, b, c = self.shape
        if b == c:
            return b
        return a if a == b else None  # channels last, as Swin has them inside


@dataclass(frozen=True)
class Part:
    """A piece of the trunk that is not cut: a layer, or a block."""

    path: str
    side: int | None
    """Of the map that it gives."""
    weights: int
    """Parameters inside."""
    kernels: int
    """Kernels (of convolutions, dense layers, attention) inside."""
    ends_in_pool: bool
    """Whether its last layer is a pooling that alone lowers its resolution."""


def trace(module: nn.Module, px: int) -> list[Call]:
    """The calls of one forward pass, in the order in which they ended.

    Args:
        module: In evaluation form, on any device, the meta device among them.
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


def find_stages(module: nn.Module, px: int, name: str) -> Stages:
    """(stage, module paths) from the input on: 'stem', 'stage1', …, 'head'.

    Args:
        module: In evaluation form.
        px: Height and width of an input that it can take.
        name: Of the backbone, for messages.

    Raises:
        UserError: Nothing can be told apart from the classifier, or weights are used twice.
    """
    leaves = _leaves(module, trace(module, px), name)
    start = _head_start(module, leaves)
    if start is None:
        raise UserError(
            f"{name}: no layer with weights stands before its classifier, so that every policy "
            "would be one with no trainable stage in the backbone."
        )
    trunk, head = leaves[:start], leaves[start:]
    groups = _groups(_parts(module, trunk, head), px)
    named = [*_names(*groups), (HEAD, [leaf.path for leaf in head])]
    called = [leaf.path for leaf in leaves]
    return tuple((stage, _collapsed(paths, called)) for stage, paths in named)


def _leaves(module: nn.Module, calls: list[Call], name: str) -> list[Call]:
    """The innermost calls; a module without weights that is called twice stands nowhere."""
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


def _head_start(module: nn.Module, leaves: list[Call]) -> int | None:
    """Index of the head's first leaf; None if no weights would be left before it."""
    kernels = [i for i, leaf in enumerate(leaves) if _kernels(module, leaf.path)]
    if not kernels:
        return None
    last = kernels[-1]
    around = _classifier(module, leaves, last)
    start = min(last, around, _after_maps(module, leaves, last))
    if not _has_weights(module, leaves[:start]):
        start = around if _has_weights(module, leaves[:around]) else last
    while start and _is_passive(module, leaves[start - 1].path):
        start -= 1
    return start if _has_weights(module, leaves[:start]) else None


def _is_passive(module: nn.Module, path: str) -> bool:
    """Whether a layer before the classifier belongs to it, and not to a block of the trunk."""
    parent = module.get_submodule(path.rpartition(".")[0])
    in_a_row = parent is module or isinstance(parent, nn.Sequential)
    return in_a_row and isinstance(module.get_submodule(path), PASSIVE)


def _has_weights(module: nn.Module, leaves: Iterable[Call]) -> bool:
    return any(_weights(module, leaf.path) for leaf in leaves)


def _classifier(module: nn.Module, leaves: list[Call], last: int) -> int:
    """First leaf of the largest module around the last kernel that holds no other kernel."""
    path = leaves[last].path
    own = _kernels(module, path)
    while "." in path and _kernels(module, path.rpartition(".")[0]) == own:
        path = path.rpartition(".")[0]
    return next(i for i, leaf in enumerate(leaves) if is_under(leaf.path, path))


def _after_maps(module: nn.Module, leaves: list[Call], last: int) -> int:
    """First leaf of those that work on vectors only, or on what a global pooling made of a map."""
    start = last + 1
    for index in range(last, -1, -1):
        rest = leaves[index:]
        vectors = all(len(leaf.shape) == 2 for leaf in rest)
        if vectors or _pools_to_one(module, rest):
            start = index
        elif rest[0].side != 1:
            break
    return start


def _pools_to_one(module: nn.Module, rest: list[Call]) -> bool:
    """Whether the first of these is the pooling, or the dense layer written as a convolution over
    the whole map (VGG in timm, LeNet), after which nothing is a map any more."""
    leaf = module.get_submodule(rest[0].path)
    dense = isinstance(leaf, nn.Conv2d) and leaf.kernel_size[0] > 2 and leaf.padding in (0, (0, 0))
    one = all(leaf.side == 1 or len(leaf.shape) == 2 for leaf in rest)
    return one and (dense or isinstance(leaf, GLOBAL_POOLS))


def _parts(module: nn.Module, trunk: list[Call], head: list[Call]) -> list[Part]:
    """The trunk as blocks: containers opened as far as the resolution or the weights ask for it."""
    weights = [n for leaf in trunk if (n := _weights(module, leaf.path))]
    total = sum(weights[1:])  # the first layer of a small ViT can hold most
    parts: list[Part] = []
    side: int | None = None

    def opened(path: str, inside: list[Call]) -> bool:
        if any(is_under(leaf.path, path) for leaf in head) or path == "":
            return True
        if isinstance(module.get_submodule(path), nn.ModuleList | nn.ModuleDict):
            return True  # its modules are called one by one
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
        parts.append(
            Part(
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
    return parts


def _child(path: str, leaf: str) -> str:
    """The module one level below ``path`` on the way to ``leaf``."""
    below = leaf.removeprefix(f"{path}.") if path else leaf
    child = below.partition(".")[0]
    return f"{path}.{child}" if path else child


def _last_side(calls: Iterable[Call]) -> int | None:
    return next((c.side for c in reversed(list(calls)) if c.side is not None), None)


def _falls(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and before / max(after, 1) >= FALL


def _is_chain(module: nn.Module) -> bool:
    """Whether it is a row of blocks, and not a block whose pieces belong together."""
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return True
    whole = sum(p.numel() for p in module.parameters())
    return any(
        sum(p.numel() for p in child.parameters()) > 0.9 * whole and _is_chain(child)
        for child in module.children()
    )


def _groups(parts: list[Part], px: int) -> tuple[list[Part], list[list[Part]]]:
    """The stem, possibly empty, and the groups after it."""
    stem = _stem(parts, px)
    groups: list[list[Part]] = [[]]
    side = parts[len(stem) - 1].side if stem else px
    for part in parts[len(stem) :]:
        falls = _falls(side, part.side)
        if falls and not part.ends_in_pool and sum(p.weights for p in groups[-1]):
            groups.append([])
        groups[-1].append(part)
        if falls and part.ends_in_pool:
            groups.append([])
        side = part.side or side
    groups = _with_weights(groups)
    if len(groups) > PARTS and stem and px / (groups[0][-1].side or px) < FALL**2:
        groups[:2] = [groups[0] + groups[1]]
    if not groups:
        return [], [stem]
    if len(groups) < PARTS - 1:
        longest = max(range(len(groups)), key=lambda i: len(_blocks(groups[i])))
        parts_left = PARTS - len(groups) + 1
        groups[longest : longest + 1] = _equal_parts(groups[longest], parts_left)
    return stem, groups


def _stem(parts: list[Part], px: int) -> list[Part]:
    """The first kernel and what belongs to it, if the resolution falls there."""
    first = next((i for i, part in enumerate(parts) if part.kernels), None)
    if first is None:
        return []
    end = first + 1
    while end < len(parts) and not parts[end].kernels and parts[end].side is not None:
        end += 1
    return parts[:end] if _falls(px, parts[end - 1].side) else []


def _with_weights(groups: list[list[Part]]) -> list[list[Part]]:
    """Groups without weights joined to the one before, or to the next."""
    joined: list[list[Part]] = []
    for group in groups:
        if joined and not (sum(p.weights for p in group) and sum(p.weights for p in joined[-1])):
            joined[-1] = joined[-1] + group
        elif group:
            joined.append(group)
    return joined


def _equal_parts(group: list[Part], most: int) -> list[list[Part]]:
    """Blocks of one resolution in up to ``most`` rows of equal length."""
    blocks = _blocks(group)
    count = min(most, len(blocks))
    bounds = [round(i * len(blocks) / count) for i in range(count + 1)]
    return [[part for block in blocks[a:b] for part in block] for a, b in pairwise(bounds)]


def _blocks(group: list[Part]) -> list[list[Part]]:
    """A group as rows that begin with a kernel."""
    blocks: list[list[Part]] = []
    for part in group:
        if not blocks or (part.kernels and any(p.kernels for p in blocks[-1])):
            blocks.append([part])
        else:
            blocks[-1].append(part)
    return blocks


def _names(stem: list[Part], rest: list[list[Part]]) -> list[tuple[str, list[str]]]:
    named = [("stem", stem)] if stem else []
    named += [(f"stage{i}", group) for i, group in enumerate(rest, start=1)]
    return [(stage, [part.path for part in parts]) for stage, parts in named]


def _collapsed(paths: list[str], called: list[str]) -> tuple[str, ...]:
    """Paths with a parent in place of its children where all that was called in it is meant."""
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
