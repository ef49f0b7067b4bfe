"""A network as framework-neutral data: a short list of operations and their tensors.

Both adapters build what a Blueprint describes and nothing else, so that both train the same
network. Tensor layouts are PyTorch's: kernels of convolutions ``(out, in / groups,
height, width)``, of dense layers ``(out, in)``; shapes of values leave out the batch.

A value has one of three forms, given by the length of its shape: an image ``(C, H, W)``, a
sequence of tokens ``(L, C)``, a vector ``(C,)``. ``C`` is its features: the axis along which
``linear``, ``layer_norm``, ``cat`` and BatchNorm work. An adapter may keep images with the channels
last (Keras does, and the features are then the last axis of every value), but operations that
flatten or rearrange a value use the order above.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bench.spec.base import Frozen, canonical_json
from bench.spec.preprocessing import Preprocessing

Array = npt.NDArray[Any]
Kernel = Literal["conv2d", "linear"]
Normalisation = Literal["batch_norm", "layer_norm", "group_norm"]
"""Over batch and positions; over the features of each position; over positions and a group of
features of each image (with one feature in a group it is InstanceNorm)."""
Elementwise = Literal[
    "relu", "relu6", "leaky_relu", "prelu", "elu", "sigmoid", "hard_sigmoid", "silu", "hard_swish",
    "gelu", "mish", "tanh", "dropout", "affine", "scale", "shift", "add", "multiply",
]  # fmt: skip
"""affine: x * factor + offset, each a number or a list with one for each feature; scale, shift:
times and plus a parameter of its own; dropout: of single elements, of whole feature maps (``form``
'maps') or self-normalising (``form`` 'alpha')."""
Spatial = Literal[
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean_tokens", "attention", "upsample"
]  # fmt: skip
"""upsample: by repeating pixels (``mode`` 'nearest') or by bilinear interpolation; attention:
scaled dot product of queries, keys and values, concatenated in one input."""
Rearranging = Literal[
    "cat", "flatten", "pad", "slice", "tokens", "prepend", "select", "expand", "channel_shuffle"
]
"""tokens: an image as a sequence of its positions, row by row; prepend: put tokens that are
parameters before the others; pad: with zeros, or ``mode`` 'reflect'; select: one token; expand: a
vector as an image of one position."""
OperationKind = Literal[Kernel, Normalisation, Elementwise, Spatial, Rearranging]
KERNELS: frozenset[OperationKind] = frozenset(get_args(Kernel))
"""Kinds whose ``weight`` is a kernel, to which weight decay applies."""
ALPHA = -1.7580993408473766
"""Value of an element that alpha dropout drops: SELU's limit, as in ATen."""
HEAD = "head"
"""Name of the stage after the last one of the backbone."""
INPUT = "pixels"
"""Name of the value that the first operation reads: the preprocessed image."""
CLASSIFIER_LEFT_OUT = "own classifier: left out, as it cannot be rebuilt"
"""Note of a Blueprint that ends with the trunk."""
STATE_ROLES = ("running_mean", "running_var")
"""Roles of the BatchNorm statistics, which are updated and not trained."""


class Operation(Frozen):
    """One operation of the forward pass."""

    name: str = Field(description="Unique name, also of the value that it computes.")
    kind: OperationKind = Field(description="Kind of operation.")
    inputs: tuple[str, ...] = Field(description="Names of its input values.")
    attributes: dict[str, Any] = Field(default={}, description="Parameters: stride, epsilon …")
    tensors: dict[str, str] = Field(default={}, description="Role → name of the tensor.")
    shape: tuple[int, ...] = Field(description="Shape of its value: (C, H, W), (L, C) or (C,).")
    module_path: str = Field(description="Path of the module that it came from.")
    stage: str = Field(description="Stage of the backbone, or 'head'.")


class Blueprint(Frozen):
    """A network without its numbers."""

    backbone: str = Field(description="Name in the catalogue.")
    px: int = Field(description="Height and width of the input; padding depends on it.")
    preprocessing: Preprocessing = Field(description="Preprocessing that belongs to the weights.")
    stages: tuple[str, ...] = Field(description="Stages from the input on, 'head' last.")
    operations: tuple[Operation, ...] = Field(description="Operations in order of execution.")
    shapes: dict[str, tuple[int, ...]] = Field(description="Tensor name → shape.")
    notes: tuple[str, ...] = Field(default=(), description="Remarks on what the export left out.")

    def save(self, folder: Path) -> None:
        """Write ``blueprint.json`` into ``folder``."""
        (folder / "blueprint.json").write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Blueprint:
        """Read what ``save`` wrote; raise OSError or ValueError if it is missing or invalid."""
        return cls.model_validate_json((folder / "blueprint.json").read_bytes())

    @property
    def output(self) -> str:
        """Name of the value that the network returns."""
        return self.operations[-1].name

    def named_tensors(self) -> Iterator[tuple[Operation, str, str]]:
        """Yield operation, role and tensor name of every tensor, in order."""
        for operation in self.operations:
            for role, tensor in operation.tensors.items():
                yield operation, role, tensor

    def trunk(self) -> tuple[Operation, ...]:
        """Return the operations before the head."""
        return tuple(o for o in self.operations if o.stage != HEAD)

    def consumers(self) -> dict[str, list[Operation]]:
        """Map the name of each value to the operations that read it."""
        readers: dict[str, list[Operation]] = {}
        for operation in self.operations:
            for name in operation.inputs:
                readers.setdefault(name, []).append(operation)
        return readers


@dataclass(frozen=True)
class Network:
    """A Blueprint with its numbers, which an adapter can build."""

    blueprint: Blueprint
    tensors: dict[str, Array]
    """Tensor name → float array in PyTorch's layout."""

    @classmethod
    def of(
        cls, original: Blueprint, operations: Iterable[Operation], tensors: dict[str, Array]
    ) -> Network:
        """Return a network like ``original``, but with these operations and tensors."""
        shapes = {name: array.shape for name, array in tensors.items()}
        changes = {"operations": tuple(operations), "shapes": shapes}
        return cls(original.model_copy(update=changes), tensors)

    def sha256(self) -> str:
        """Hash the operations and every number (hex)."""
        text = canonical_json(self.blueprint.model_dump(mode="json")) + hash_tensors(self.tensors)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def empty(cls, blueprint: Blueprint) -> Network:
        """Return a network whose numbers are all zero, for counting."""
        shapes = blueprint.shapes.items()
        return cls(blueprint, {name: np.zeros(shape, np.float32) for name, shape in shapes})

    def save(self, folder: Path) -> None:
        """Write ``blueprint.json`` and ``tensors.safetensors``; raise OSError if that fails."""
        self.blueprint.save(folder)
        # Not save_file: other users could not read what it writes.
        tensors = save({n: np.ascontiguousarray(a) for n, a in self.tensors.items()})
        path = folder / "tensors.safetensors"
        try:
            path.write_bytes(tensors)
        except OSError as error:  # that of a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error

    @classmethod
    def load(cls, folder: Path, trunk_only: bool = False) -> Network:
        """Read what ``save`` wrote; with ``trunk_only``, without the head's tensors.

        Raises:
            OSError, ValueError: A file is missing, truncated or invalid.
        """
        blueprint = Blueprint.load(folder)
        wanted = {t for o, _, t in blueprint.named_tensors() if not trunk_only or o.stage != HEAD}
        try:
            with safe_open(folder / "tensors.safetensors", framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in sorted(wanted)}
        except SafetensorError as error:
            raise ValueError(f"{folder / 'tensors.safetensors'}: {error}") from error
        return cls(blueprint, tensors)


def hash_tensors(tensors: dict[str, Array]) -> str:
    """Return the SHA-256 (hex) of names, dtypes, shapes and bytes, independent of the order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (H, W, C) for an image (C, H, W), and other shapes as they are."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def with_features(shape: tuple[int, ...], features: int) -> tuple[int, ...]:
    """Return the shape of a value with another number of features."""
    return (features, *shape[1:]) if len(shape) == 3 else (*shape[:-1], features)


def alpha_dropout_constants(rate: float) -> tuple[float, float]:
    """Return factor and offset that keep mean 0 and variance 1 where dropped elements are ``ALPHA``
    (Klambauer et al. 2017, "Self-Normalizing Neural Networks", 'New Dropout Technique')."""
    factor = ((1.0 - rate) * (1.0 + rate * ALPHA**2)) ** -0.5
    return factor, -factor * rate * ALPHA


def mask_shape(dropout: Operation) -> tuple[int, ...]:
    """Return the shape of a dropout's mask for one image, channels last."""
    shape = channels_last(dropout.shape)
    return (1, 1, shape[-1]) if dropout.attributes.get("form") == "maps" else shape


def interpolation(size: int, target: int, mode: str, align_corners: bool) -> Array:
    """Return the (target, size) matrix that resizes one axis as PyTorch does (ATen, UpSample.h).

    Args:
        mode: 'nearest' or 'bilinear'.
        align_corners: True to map the centres of the first and last elements on each other.
    """
    matrix = np.zeros((target, size))
    for i in range(target):
        if mode == "nearest":
            matrix[i, i * size // target] = 1.0
            continue
        if align_corners:
            at = i * (size - 1) / max(target - 1, 1)
        else:
            at = max((i + 0.5) * size / target - 0.5, 0.0)
        low = min(int(at), size - 1)
        share = at - low
        matrix[i, low] += 1.0 - share
        matrix[i, min(low + 1, size - 1)] += share
    return matrix


def is_under(module_path: str, prefix: str) -> bool:
    """Return True for ``prefix`` and paths inside it: 'layer1.0.conv1' is under 'layer1'."""
    return module_path == prefix or module_path.startswith(prefix + ".")
