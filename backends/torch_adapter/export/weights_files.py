"""Weights files: read without running code, and matched to a network's tensors."""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from backends.torch_adapter.export.constructors import AUXILIARY
from bench.errors import UserError, first_line
from bench.spec.backbone import BackboneEntry, Reader

State = dict[str, torch.Tensor]


def load_weights(
    module: nn.Module, entry: BackboneEntry, path: Path, reader: Reader, replaced: frozenset[str]
) -> None:
    """Load a weights file into a network that lies on the meta device.

    Args:
        path: ``.safetensors``, ``.pth`` or ``.pt``, or the packaged SqueezeNet pickle.
        reader: How the file's names become the network's.
        replaced: Names of the last layer's tensors, which take the file's shape if it differs:
            another number of classes.

    Raises:
        UserError: The file is unreadable, unsafe, or of another architecture.
    """
    wanted = module.state_dict()
    state = _read_ndf(path, wanted) if reader == "ndf_pickle" else _read_state(path)
    if reader == "in_order":
        state = _rename_in_order(path, state, wanted)
    state = _without_auxiliary(_with_new_names(state, wanted), entry)
    _check(path, state, wanted, replaced)
    for name in replaced & state.keys():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(state[name]))
    loaded = OrderedDict(state)
    # Versions of the modules; without them some (MNASNet) refuse a state.
    loaded._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(loaded, strict=False, assign=True)
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:  # num_batches_tracked, an unused counter that the file lacks
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner).register_buffer(leaf, torch.zeros((), dtype=torch.long))


def _read_state(path: Path) -> State:
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise _unreadable(path, "it is not a PyTorch weights file") from error
        raise UserError(
            f"Weights file '{path}' is refused: it holds more than tensors ({wanted.group(1)}), "
            "and loading it could run code.",
            "Save just the state dict: torch.save(model.state_dict(), PATH), or use safetensors.",
        ) from error
    except (KeyError, IndexError, EOFError, AssertionError) as error:
        raise _unreadable(path, "it is not a PyTorch weights file") from error
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise _unreadable(path, first_line(error)) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise UserError(f"Weights file '{path}' holds no state dict (names → tensors).")
    return {
        str(name).removeprefix("module."): t.float() if t.is_floating_point() else t
        for name, t in state.items()
    }


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(
        f"Weights file '{path}' cannot be read: {reason}.",
        "It may be incomplete or in another format; copy or download it again.",
    )


def _counters(state: State) -> set[str]:
    return {name for name in state if name.endswith("num_batches_tracked")}


def _rename_in_order(path: Path, state: State, wanted: State) -> State:
    """Give tensors of another implementation the network's names, by order."""
    names = [n for n in wanted if n not in _counters(wanted)]
    tensors = [t for n, t in state.items() if n not in _counters(state)]
    if len(names) != len(tensors):
        raise UserError(f"Weights file '{path}' holds {len(tensors)} tensors, not {len(names)}.")
    return dict(zip(names, tensors, strict=True))


RENAMED: tuple[tuple[str, str], ...] = (
    (r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2"),
    (r"(\.mlp)\.linear_1\.", r"\1.0."),
    (r"(\.mlp)\.linear_2\.", r"\1.3."),
)
"""Former names of torchvision's modules → new names, as its own builders (densenet.py) and modules
(vision_transformer.py, MLPBlock) rename them when they load older files."""


def _with_new_names(state: State, wanted: State) -> State:
    renamed = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in RENAMED:
            new = re.sub(pattern, replacement, new)
        renamed[new if name not in wanted and new in wanted else name] = tensor
    return renamed


def _without_auxiliary(state: State, entry: BackboneEntry) -> State:
    prefixes = AUXILIARY.get(entry.model.partition(".")[0], ())
    return {name: t for name, t in state.items() if not name.startswith(prefixes)}


def _check(path: Path, state: State, wanted: State, replaced: frozenset[str]) -> None:
    missing = [n for n in wanted if n not in state and n not in _counters(wanted)]
    unknown = [n for n in state if n not in wanted]
    other = [
        f"{n} {tuple(state[n].shape)} instead of {tuple(wanted[n].shape)}"
        for n in wanted
        if n in state and state[n].shape != wanted[n].shape and n not in replaced
    ]
    problems = [
        f"{len(found)} {problem} ({', '.join(found[:3])}{' …' if len(found) > 3 else ''})"
        for found, problem in (
            (missing, "tensors missing"),
            (unknown, "unknown"),
            (other, "of another shape"),
        )
        if found
    ]
    if problems:
        raise UserError(
            f"Weights file '{path}' is of another architecture: {'; '.join(problems)}.",
            "Name the backbone it belongs to: --weights BACKBONE=PATH.",
        )


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that reads NumPy arrays and refuses every other global, so that no code runs."""

    _ADMITTED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ADMITTED:
            raise pickle.UnpicklingError(f"refused: {module}.{name}")
        if name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # the same function, which NumPy 2 has renamed
        return getattr(np, name)


def _read_ndf(path: Path, wanted: State) -> State:
    """Read SqueezeNet of the package ndf: layer → (kernel HWIO, bias), in torchvision's order."""
    try:
        layers = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError) as error:
        raise UserError(f"Weights file '{path}' cannot be read: {first_line(error)}") from error
    ordered = sorted(layers, key=lambda layer: layer == "conv10")  # stands second in the file
    arrays = [np.asarray(array) for layer in ordered for array in layers[layer]]
    tensors = (np.transpose(a, (3, 2, 0, 1)) if a.ndim == 4 else a.reshape(-1) for a in arrays)
    names = list(wanted)
    if len(names) != len(arrays):
        raise UserError(f"Weights file '{path}' holds {len(arrays)} arrays, not {len(names)}.")
    return {
        name: torch.from_numpy(np.ascontiguousarray(array, np.float32))
        for name, array in zip(names, tensors, strict=True)
    }
