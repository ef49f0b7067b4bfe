"""Weights files: read without running code, and matched to a network's tensors."""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from backends.torch_adapter.export.constructors import AUXILIARY
from bench.errors import UserError, first_line
from bench.network.blueprint import HEAD, is_under
from bench.spec.backbone import BackboneEntry, Reader

State = dict[str, torch.Tensor]


WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "state_dict_ema",
    "model_ema", "ema", "ema_state_dict", "weights", "params", "backbone", "encoder",
)  # fmt: skip
"""Keys under which training programs keep a state dict, in the order in which they are tried."""
NUMPY_SCALARS: list[Any] = [
    np.dtype, np.float64(0).__reduce__()[0],
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")},
]  # fmt: skip
"""Types that torch.load may build besides tensors: those of a NumPy number, such as a checkpoint's
best accuracy. Building them runs no code of the file."""


def load_weights(
    module: nn.Module, entry: BackboneEntry, path: Path, reader: Reader, last: str,
    *, keeps_head: bool = False,
) -> bool:  # fmt: skip
    """Load a weights file into a network that lies on the meta device.

    Args:
        path: ``.safetensors``, a file of ``torch.save``, or the packaged SqueezeNet pickle.
        reader: How the file's names become the network's.
        last: Path of the last layer, whose tensors may have another shape: another number of
            classes.
        keeps_head: True if layers of the classifier before the last one are used, so that the file
            must have them.

    Returns:
        True if the file lacks such layers, or has others; they are zero then.

    Raises:
        UserError: The file is unreadable, unsafe, not finite, or of another architecture.
    """
    wanted = module.state_dict()
    replaced = frozenset({f"{last}.weight", f"{last}.bias"})
    state = _read_ndf(path, wanted) if reader == "ndf_pickle" else _read_state(path)
    if reader == "in_order":
        state = _rename_in_order(path, state, wanted)
    state = _without_prefix(state, wanted)
    state = _without_auxiliary(_with_new_names(state, wanted), entry)
    in_head = _head_names(entry, {*state, *wanted})
    has_head = _fits(state, wanted, in_head, replaced)
    lacks_layers = not has_head and bool(in_head & wanted.keys() - replaced)
    if not has_head and not (keeps_head and lacks_layers):
        state = {name: t for name, t in state.items() if name not in in_head}
        needed = {name: t for name, t in wanted.items() if name not in in_head}
    else:
        needed = wanted
    _check(path, state, needed, replaced)
    _check_finite(path, state)
    for name in replaced & state.keys():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(state[name]))
    loaded = OrderedDict(state)
    # Versions of the modules; without them some (MNASNet) refuse a state.
    loaded._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(loaded, strict=False, assign=True)
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:
            _fill_with_zeros(module, name, tensor)
    return lacks_layers


def _fill_with_zeros(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Set a tensor that the file lacks: of a head that is replaced, or BatchNorm's unused counter
    of batches."""
    owner, _, leaf = name.rpartition(".")
    zeros = torch.zeros(tensor.shape, dtype=tensor.dtype)
    if isinstance(getattr(module.get_submodule(owner), leaf), nn.Parameter):
        setattr(module.get_submodule(owner), leaf, nn.Parameter(zeros))
    else:
        module.get_submodule(owner).register_buffer(leaf, zeros)


def _head_names(entry: BackboneEntry, names: Iterable[str]) -> frozenset[str]:
    """Return the names of tensors that belong to the head."""
    paths = dict(entry.stages).get(HEAD, ())
    return frozenset(n for n in names if any(is_under(n.rpartition(".")[0], p) for p in paths))


def _fits(state: State, wanted: State, names: frozenset[str], replaced: frozenset[str]) -> bool:
    """Return True if a file has exactly the network's tensors of these names; those of the last
    layer may have another shape."""
    ours = names & wanted.keys() - _counters(wanted)
    return ours == names & state.keys() - _counters(state) and all(
        name in replaced or state[name].shape == wanted[name].shape for name in ours
    )


def _check_finite(path: Path, state: State) -> None:
    """Raise UserError for NaN or infinity."""
    broken = [n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise UserError(
            f"Weights file '{path}' holds numbers that are not finite, in {len(broken)} tensors "
            f"({', '.join(broken[:3])}{' …' if broken[3:] else ''}).",
            "The training that wrote it had diverged; take an earlier checkpoint.",
        )


def _read_state(path: Path) -> State:
    found: Any
    try:
        if path.suffix.casefold() == ".safetensors":
            found = load_file(path)
        else:
            with torch.serialization.safe_globals(NUMPY_SCALARS):
                found = torch.load(path, map_location="cpu", weights_only=True)
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
    state = _unwrapped(path, found)
    return {str(n): t.float() if t.is_floating_point() else t for n, t in state.items()}


def _unwrapped(path: Path, found: Any) -> State:
    """Return the state dict in what a file holds: itself, or under one of its keys."""
    if _is_state(found):
        return {name: t for name, t in found.items() if isinstance(t, torch.Tensor)}
    if isinstance(found, dict):  # wrapped twice
        found = {
            key: _unwrapped(path, value) if key in WRAPPERS and _holds_states(value) else value
            for key, value in found.items()
        }
    inside = {k: v for k, v in found.items() if _is_state(v)} if isinstance(found, dict) else {}
    known = [key for key in WRAPPERS if key in inside]
    if not known and len(inside) != 1:
        keys = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise UserError(
            f"Weights file '{path}' holds no state dict (names → tensors). It has: {keys[:300]}.",
            "Save just the state dict: torch.save(model.state_dict(), PATH).",
        )
    return _unwrapped(path, inside[known[0]] if known else next(iter(inside.values())))


def _holds_states(found: Any) -> bool:
    return isinstance(found, dict) and any(map(_is_state, found.values()))


def _is_state(found: Any) -> bool:
    """Return True for names → tensors, perhaps with a few numbers beside them, such as an epoch."""
    if not isinstance(found, dict):
        return False
    tensors = sum(isinstance(t, torch.Tensor) for t in found.values())
    others = (t for t in found.values() if not isinstance(t, torch.Tensor))
    return tensors > len(found) / 2 and all(isinstance(o, int | float | str) for o in others)


def _without_prefix(state: State, wanted: State) -> State:
    """Remove what wrappers put before every name, such as ``module._orig_mod.`` or ``backbone.``:
    the prefix with which most names are the network's; and tensors outside of the network."""
    prefixes = {""}
    for name in state:
        parts = name.split(".")
        prefixes |= {".".join(parts[:n]) + "." for n in range(1, min(len(parts), 4))}

    def matches(prefix: str) -> int:
        return sum(name.removeprefix(prefix) in wanted for name in state if name.startswith(prefix))

    best = max(sorted(prefixes, key=len), key=matches)
    renamed = {name.removeprefix(best): tensor for name, tensor in state.items()}
    # Parts of the program around the network: a loss, a counter of averages, a head of its own.
    ours = {name.partition(".")[0] for name in wanted}
    return {name: t for name, t in renamed.items() if name.partition(".")[0] in ours}


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
