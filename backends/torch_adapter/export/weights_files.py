"""Weights files: read without running code, and matched to a network's tensors."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from backends.torch_adapter.export.constructors import AUXILIARY
from backends.torch_adapter.export.usable import unusable_tensors
from bench.errors import UserError, first_line, number_of
from bench.network.blueprint import HEAD, is_under
from bench.spec.backbone import BackboneEntry, Reader
from bench.storage.regular_files import open_regular

State = dict[str, torch.Tensor]


WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "state_dict_ema",
    "model_ema", "ema", "ema_state_dict", "weights", "params", "backbone", "encoder",
)  # fmt: skip
"""Keys under which training programs keep a state dict, in the order in which they are tried."""
_SCALAR, _RECONSTRUCT = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
BESIDE_TENSORS: list[Any] = [
    np.dtype, np.ndarray, _SCALAR, _RECONSTRUCT,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
    argparse.Namespace, defaultdict, dict, list, int, float,
    PosixPath, (PosixPath, "pathlib.PosixPath"), (PosixPath, "pathlib._local.PosixPath"),
]  # fmt: skip
"""Types that torch.load may build besides tensors: NumPy's, a program's options, counters. Building
them runs no code of the file."""
WRAPPED_INSIDE = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
"""Parts of tensor names that torch.compile, FSDP and activation checkpointing insert for a module
that they wrap."""


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
    state = _without_prefix(path, state, wanted)
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
    state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
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
    """Raise UserError for NaN, infinity or a negative variance."""
    for broken, what in unusable_tensors(state):
        raise UserError(
            f"Weights file '{path}' holds {what}, in {number_of(len(broken), 'tensor')} "
            f"({', '.join(broken[:3])}{' …' if broken[3:] else ''}).",
            "The training that wrote it had diverged; take an earlier checkpoint.",
        )


def _read_state(path: Path) -> State:
    found: Any
    try:
        if _is_safetensors(path):
            found = load_file(path)
        else:
            _check_not_inflated(path)
            with torch.serialization.safe_globals(BESIDE_TENSORS):
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
    except (RuntimeError, ValueError, OSError, SafetensorError, zipfile.BadZipFile) as error:
        raise _unreadable(path, first_line(error)) from error
    state = {str(name): tensor for name, tensor in _unwrapped(path, found).items()}
    for name, tensor in state.items():
        if reason := _odd(tensor):
            raise _unreadable(path, f"the tensor '{name}' {reason}")
    return state


def _is_safetensors(path: Path) -> bool:
    """Return True for a file in the format of safetensors, whatever its suffix: 8 bytes of length,
    then a table in JSON."""
    with open_regular(path) as file:
        return path.suffix.casefold() == ".safetensors" or file.read(9)[8:] == b"{"


def _check_not_inflated(path: Path) -> None:
    """Raise ValueError for an archive that is larger than its file: torch.save compresses nothing,
    so that such a file was made to fill memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            whole_bytes = sum(entry.file_size for entry in archive.infolist())
        if whole_bytes > path.stat().st_size:
            raise ValueError(f"it would take {whole_bytes:,} bytes, more than the file has")


def _odd(tensor: torch.Tensor) -> str | None:
    """Return in words why a tensor holds no plain numbers; None if it does."""
    if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
        return "is sparse, quantized or without values"
    if tensor.is_complex():
        return "holds complex numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "repeats fewer values than it has"
    return None


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


NEARLY = 0.9
"""Fraction of the best prefix's names from which another prefix is its rival."""


def _without_prefix(path: Path, state: State, wanted: State) -> State:
    """Remove what wrappers put before every name, such as ``module._orig_mod.`` or ``backbone.``:
    the prefix with which most names are the network's; and tensors outside of the network.

    Raises:
        UserError: Two prefixes fit, such as those of a network and of its moving average, and their
            tensors differ.
    """
    state = {n if n in wanted else WRAPPED_INSIDE.sub("", n): t for n, t in state.items()}
    prefixes = {"": ""}  # a dict keeps the order, so that the choice is the same in every process
    for name in state:
        parts = name.split(".")
        prefixes |= dict.fromkeys((".".join(parts[:n]) + "." for n in range(1, len(parts))), "")

    def found(prefix: str) -> State:
        names = (name for name in state if name.startswith(prefix))
        return {n.removeprefix(prefix): state[n] for n in names if n.removeprefix(prefix) in wanted}

    best = max(prefixes, key=lambda prefix: len(found(prefix)))
    chosen = found(best)
    for other in prefixes:
        rival = found(other)
        if other != best and chosen and len(rival) >= NEARLY * len(chosen):
            same = all(n in chosen and torch.equal(chosen[n], t) for n, t in rival.items())
            if not same:
                raise UserError(
                    f"Weights file '{path}' holds two networks that fit: '{best}*' and '{other}*'.",
                    "Save one of them: torch.save({n: t for n, t in state.items() if "
                    f"n.startswith('{best}')}}, PATH).",
                )
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
    whole = [
        n
        for n in wanted
        if n in state and wanted[n].is_floating_point() and not state[n].is_floating_point()
    ]
    other = [
        f"{n} {tuple(state[n].shape)} instead of {tuple(wanted[n].shape)}"
        for n in wanted
        if n in state and state[n].shape != wanted[n].shape and n not in replaced
    ]
    problems = [
        f"{number_of(len(found), 'tensor')} {problem} "
        f"({', '.join(found[:3])}{' …' if found[3:] else ''})"
        for found, problem in (
            (missing, "missing"),
            (unknown, "unknown"),
            (other, "of another shape"),
            (whole, "not floating-point"),
        )
        if found
    ]
    if problems:
        raise UserError(
            f"Weights file '{path}' is of another architecture, or incomplete: "
            f"{'; '.join(problems)}.",
            "It must hold all tensors of this network's state dict; --weights BACKBONE=PATH says "
            "which network it belongs to.",
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
