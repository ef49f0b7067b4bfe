"""A user's own network: ``module:FILE:FUNCTION``, code that the user named on purpose."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parameter import UninitializedParameter

from bench.errors import UserError
from bench.network.blueprint import hash_tensors
from bench.spec.backbone import IMAGENET, OwnCode, standardised
from bench.spec.preprocessing import Preprocessing
from bench.storage.checksums import sha256_of_file

LOADED_AS = "thawbench_own_"
"""Prefix of the names of users' files in ``sys.modules``."""
NATIVE_PX = 224
"""Input size, in pixels, of a network without an attribute ``input_px``."""


def describe(file: Path, function: str) -> tuple[nn.Module, OwnCode]:
    """Build a network, and return it with the hashes that identify its code and values.

    Args:
        file: Python source.
        function: Name of a function there that takes no arguments and returns an ``nn.Module``.

    Raises:
        UserError: The file or the function fails, or returns something else.
    """
    module = _built(file, function)
    files = {p.relative_to(file.parent).as_posix(): sha256_of_file(p) for p in _sources(file)}
    state = state_sha256(module)
    return module, OwnCode(file=str(file), function=function, files=files, state_sha256=state)


def build(code: OwnCode) -> nn.Module:
    """Build the network with the function's own weights, in evaluation form.

    Raises:
        UserError: It cannot be built, or differs from the one described.
    """
    module = _unchanged(code)
    if state_sha256(module) != code.state_sha256:
        raise UserError(
            f"{code.name} returns different weights each time it is called.",
            "Seed its random generator in the function, or load the weights from a file.",
        )
    return module


def build_random(code: OwnCode, seed: int) -> nn.Module:
    """Build the network with random weights, drawn by each module's ``reset_parameters()``.

    Raises:
        UserError: It cannot be built, or a module has weights and no ``reset_parameters()``.
    """
    module = _unchanged(code)
    torch.manual_seed(seed)
    for name, part in reversed(list(module.named_modules())):  # parents may initialise children
        reset = getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))
        if callable(reset):
            reset()
        elif next(part.parameters(recurse=False), None) is not None:
            raise UserError(
                f"{code.name} cannot start from random weights: module '{name}' "
                f"({type(part).__name__}) has weights and no reset_parameters().",
                "Give its class that method, or leave out --weights random and from_scratch.",
            )
    return module.eval()


def input_px(module: nn.Module, name: str) -> int:
    """Return a network's attribute ``input_px``, its input's height and width in pixels.

    Raises:
        UserError: It is not a whole number in range.
    """
    px = getattr(module, "input_px", NATIVE_PX)
    if not isinstance(px, int) or isinstance(px, bool) or not 16 <= px <= 2048:
        raise UserError(f"{name}: input_px is {px!r}; it must be a whole number from 16 to 2048.")
    return px


def preprocessing(module: nn.Module, name: str) -> Preprocessing:
    """Return the preprocessing by the attributes ``mean`` and ``std`` (of pixels between 0 and 1);
    ImageNet's without them.

    Raises:
        UserError: They are not three numbers each, or a ``std`` is not above 0.
    """
    mean: Any = getattr(module, "mean", None)
    std: Any = getattr(module, "std", None)
    if mean is None and std is None:
        return IMAGENET
    means, stds = _three_floats(mean, "mean", name), _three_floats(std, "std", name)
    if min(stds) <= 0:
        raise UserError(f"{name}: std is {tuple(std)}; it must be above 0.")
    return standardised(means, stds)


def _three_floats(numbers: Any, attribute: str, name: str) -> tuple[float, float, float]:
    def is_number(n: Any) -> bool:
        return isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e6

    if isinstance(numbers, list | tuple) and len(numbers) == 3 and all(map(is_number, numbers)):
        first, second, third = map(float, numbers)
        return first, second, third
    raise UserError(
        f"{name}: attribute '{attribute}' must be three numbers, as Thawbench preprocesses by "
        "(pixel / 255 - mean) / std.",
        "Set both to tuples; if the network standardises its input itself, rename its own "
        "attributes and set mean = (0, 0, 0) and std = (1, 1, 1).",
    )


def state_sha256(module: nn.Module) -> str:
    """Return the SHA-256 (hex) over names and values of the state dict."""
    state = module.state_dict().items()
    return hash_tensors({n: t.detach().cpu().numpy() for n, t in state})


def _unchanged(code: OwnCode) -> nn.Module:
    file = Path(code.file)
    for name, digest in code.files.items():
        path = file.parent / name
        if not path.is_file() or sha256_of_file(path) != digest:
            raise UserError(f"{path} changed while it was used.", "Run the command again.")
    return _built(file, code.function)


_TAKEN_APART: dict[str, Any] = {
    "torch.compile": OptimizedModule,
    "torch.jit": torch.jit.ScriptModule,
}
"""Maker → type of what it makes. Parts that torch.compile made can be read."""


def _built(file: Path, name: str) -> nn.Module:
    where = f"{file.name}:{name}"
    sys.path.insert(0, str(file.parent))
    try:
        function = _function(file, name)
        np.random.seed(0)
        torch.manual_seed(0)
        module = _guarded(function, file, f"{where} failed")
    finally:
        sys.path.remove(str(file.parent))
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{where} returns a {type(module).__name__}, not a torch.nn.Module.",
            "The function must return the network itself.",
        )
    for how, made in _TAKEN_APART.items():
        whole = isinstance(module, made)
        if whole or (how != "torch.compile" and any(isinstance(m, made) for m in module.modules())):
            raise UserError(
                f"{where} returns {'' if whole else 'a network with '}what {how} made of a "
                f"{'network' if whole else 'part'}, which cannot be taken apart.",
                f"Return the network as it was before {how}; Thawbench chooses how it is run.",
            )
    if next(module.parameters(), None) is None:
        raise UserError(
            f"{where} returns a network without parameters, so that nothing can be frozen or "
            "trained.",
            "Return a network with layers that have weights.",
        )
    _guarded(lambda: module.eval().cpu().float(), file, f"{where}: eval() failed")  # in place
    if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
        px = input_px(module, where)
        with torch.no_grad():
            _guarded(lambda: module(torch.zeros(2, 3, px, px)), file, f"{where} failed")
    return module.requires_grad_(True)


def _function(file: Path, name: str) -> Callable[[], Any]:
    """Load a file and return its function, which must be callable without arguments."""
    spec = importlib.util.spec_from_file_location(f"{LOADED_AS}{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file.")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses and pickle look their classes up there
    loader = spec.loader
    _guarded(lambda: loader.exec_module(loaded), file, f"{file.name} cannot be loaded")
    function = getattr(loaded, name, None)
    if not callable(function):
        known = [n for n, v in vars(loaded).items() if inspect.isfunction(v) and n[:1] != "_"]
        raise UserError(
            f"{file.name} has no function '{name}'.",
            f"It has {', '.join(known) or 'none'}: module:{file.name}:FUNCTION",
        )
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise UserError(
            f"{file.name}:{name} cannot be called without arguments: {error}.",
            "Name a function that takes none, such as: def build(): return MyNet(classes=10)",
        ) from error
    except ValueError:
        pass  # a builtin without a signature
    built: Callable[[], Any] = function
    return built


def _guarded(work: Callable[[], Any], file: Path, what: str) -> Any:
    """Run user code. Raise UserError with its message and line if it fails."""
    try:
        return work()
    except (Exception, SystemExit) as error:
        traceback.print_exc()  # into the worker's log
        raise UserError(f"{what}: {_describe_error(error, file)}") from error


def _describe_error(error: BaseException, file: Path) -> str:
    """Return an exception's last line, after the last line of the user's files that it passed."""
    message = traceback.format_exception_only(error)[-1].strip()[:300]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {message}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(file.parent)]
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}: " if own else ""
    return place + message


def line_of_error(error: BaseException) -> str:
    """Return ' (FILE, line N)' for the last line of a user's code that an exception passed; empty
    if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    return line_of_code((frame.filename, frame.lineno or 0) for frame in frames)


def line_of_code(places: Iterable[tuple[str, int | str]]) -> str:
    """Return ' (FILE, line N)' for the last of these (file, line) that is in a folder of the users'
    files that this process has loaded; empty if none is."""
    loaded = [m for n, m in sys.modules.items() if n.startswith(LOADED_AS)]
    folders = {Path(str(module.__file__)).parent for module in loaded}
    own = [(Path(file).name, line) for file, line in places if Path(file).parent in folders]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""


def _sources(file: Path) -> list[Path]:
    """Return the file and those modules beside and below it that it imported."""
    found = {file}
    for module in list(sys.modules.values()):
        path = Path(getattr(module, "__file__", None) or "/")
        package = getattr(module, "__name__", "").partition(".")[0]
        if package in ("bench", "backends") or package.startswith(LOADED_AS):
            continue
        if path.is_relative_to(file.parent):
            inside = path.relative_to(file.parent).parts
            if path.is_file() and not {"site-packages", "dist-packages"} & set(inside):
                found.add(path)
    return sorted(found)
