"""Operations that move elements without computing, and how they are recognised in a graph.

An exported graph has chains of views, permutations and selections where a Blueprint has one
operation. Such a chain is run on the indices of its source's elements, and stands for the operation
whose step returns the same indices. So a match is right by construction, whatever the chain.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.network.blueprint import OperationKind

Shape = tuple[int, ...]
Attributes = dict[str, Any]


def slice_axis(x: Tensor, a: Attributes) -> Tensor:
    """Return elements ``start`` to ``stop`` of an axis of the Blueprint's shape."""
    return x.narrow(a["axis"] + 1, a["start"], a["stop"] - a["start"])


def shuffle_channels(x: Tensor, a: Attributes) -> Tensor:
    """Reorder channels from (groups, C / groups) to (C / groups, groups) (ShuffleNet)."""
    grouped: Tensor = x.unflatten(1, (a["groups"], -1))
    return grouped.transpose(1, 2).flatten(1, 2)


STEPS: dict[OperationKind, Callable[[Tensor, Attributes], Tensor]] = {
    "flatten": lambda x, a: torch.flatten(x, 1),
    "tokens": lambda x, a: x.flatten(2).transpose(1, 2),
    "slice": slice_axis,
    "select": lambda x, a: x[:, a["index"]],
    "expand": lambda x, a: x[:, :, None, None],
    "channel_shuffle": shuffle_channels,
}
"""Kind → (value with its batch, attributes) → value."""


@functools.lru_cache(maxsize=8)
def numbered(shape: Shape) -> Tensor:
    """Return the index of each element of a tensor of ``shape``, batch first; do not write to it.

    Cached, because a ViT needs the same few hundreds of times: nine tenths of its export.
    """
    return torch.arange(math.prod(shape)).reshape(shape)


def features_last(x: Tensor) -> Tensor:
    """Permute an image (N, C, H, W) to (N, H, W, C); return other values as they are."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def features_first(x: Tensor) -> Tensor:
    """Undo ``features_last``."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def recognise(index: Tensor, source: Shape) -> tuple[OperationKind, Attributes] | None:
    """Return the operation that rearranges a value as ``index`` does, None if there is none.

    Args:
        index: For each element of the result (N, …), its index in the source.
        source: Shape of the source, without the batch.
    """
    whole = numbered((index.shape[0], *source))
    for kind, attributes in _candidates(index, source):
        if torch.equal(STEPS[kind](whole, attributes), index):
            return kind, attributes
    return None


def _candidates(index: Tensor, source: Shape) -> Iterator[tuple[OperationKind, Attributes]]:
    target = tuple(index.shape[1:])
    first = int(index.flatten()[0])
    if len(target) == 1 < len(source) and math.prod(target) == math.prod(source):
        yield "flatten", {}
    if len(source) == 3 and target == (source[1] * source[2], source[0]):
        yield "tokens", {}
    if len(source) == 2 and target == source[1:]:
        yield "select", {"index": first // source[1]}
    if len(source) == 1 and target == (*source, 1, 1):
        yield "expand", {}
    if len(source) == 3 and target == source and source[0] > 1:
        per_group = int(index[0, 1, 0, 0]) // (source[1] * source[2])
        if per_group > 0 and source[0] % per_group == 0:
            yield "channel_shuffle", {"groups": source[0] // per_group}
    if len(source) == len(target):
        axes = [i for i in range(len(source)) if source[i] != target[i]]
        if len(axes) == 1:
            start = first // math.prod(source[axes[0] + 1 :]) % source[axes[0]]
            if start + target[axes[0]] <= source[axes[0]]:
                stop = start + target[axes[0]]
                yield "slice", {"axis": axes[0], "start": start, "stop": stop}


def positions(index: Tensor, source: Shape) -> Tensor | None:
    """Return the position in the source of each feature vector of a rearranged value.

    Args:
        index: For each element of the value (N, …, C), its index in the source.
        source: Shape of the source, without the batch.

    Returns:
        (N, …) positions, counted over batch and space; None if the last axis is not the features.
    """
    whole = numbered((2, *source))
    last = features_last(whole)
    order = torch.empty(whole.numel(), dtype=torch.long)
    order[last.flatten()] = numbered((whole.numel(),))
    features = last.shape[-1]
    found = order[index.flatten()].reshape(index.shape)
    if found.shape[-1] != features or found.ndim < 2:
        return None
    first = found[..., 0]
    if not torch.equal(found, first[..., None] + torch.arange(features)):
        return None
    return first // features if bool((first % features == 0).all()) else None


def from_positions(rows: Tensor, result: Shape) -> Tensor:
    """Return the index of a value of shape ``result`` whose feature vectors are at ``rows``."""
    last = features_last(numbered((2, *result)))
    return last.reshape(-1, last.shape[-1])[rows]


def split_heads(qkv: Tensor, heads: int) -> Tensor:
    """Split (N, L, 3 C) into queries, keys and values (3, N, heads, L, C / heads)."""
    split: Tensor = qkv.unflatten(-1, (3, heads, -1))
    return split.permute(2, 0, 3, 1, 4)


def merge_heads(x: Tensor) -> Tensor:
    """Merge (N, heads, L, C / heads) into (N, L, C)."""
    return x.transpose(1, 2).flatten(2)
