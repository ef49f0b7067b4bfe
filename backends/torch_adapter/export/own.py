"""A user's own network: ``module:FILE:FUNCTION``, the user's own code, named on purpose."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from bench.errors import UserError
from bench.network.blueprint import hash_tensors
from bench.spec.backbone import IMAGENET, OwnCode, standardised
from bench.spec.preprocessing import Preprocessing

LOADED_AS = "thawbench_own_"
"""What the names of users' files begin with among Python's modules."""
NATIVE_PX = 224
"""Input size of a network that does not say its own."""


def describe(file: Path, function: str) -> tuple[nn.Module, OwnCode]:
    """The network that a function builds, and what tells it from an edited one.

    Args:
        file: Python source.
        function: Its name there; it takes no arguments and returns an ``nn.Module``.

    Raises:
        UserError: The file or the function fails, or gives something else.
    """
    module = _built(file, function)
    files = {path.relative_to(file.parent).as_posix(): _sha256(path) for path in _sources(file)}
    state = state_sha256(module)
    return module, OwnCode(file=str(file), function=function, files=files, state_sha256=state)


def build(code: OwnCode) -> nn.Module:
    """The network with the numbers that the function gives it, in evaluation form.

    Raises:
        UserError: It cannot be built, or is another than the one described.
    """
    module = _unchanged(code)
    if state_sha256(module) != code.state_sha256:
        raise UserError(
            f"{code.name} gives other weights each time it is called.",
            "Let the function seed what it draws, or load its weights from a file.",
        )
    return module


def build_random(code: OwnCode, seed: int) -> nn.Module:
    """The network with random weights: each module draws them anew by ``reset_parameters()``.

    Raises:
        UserError: It cannot be built, or holds weights that cannot be drawn anew.
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
    """The attribute ``input_px`` of a network: height and width that it was made for.

    Raises:
        UserError: It is no size in pixels.
    """
    px = getattr(module, "input_px", NATIVE_PX)
    if not isinstance(px, int) or isinstance(px, bool) or not 16 <= px <= 2048:
        raise UserError(f"{name}: input_px is {px!r}; it must be a whole number of 16 to 2048.")
    return px


def preprocessing(module: nn.Module, name: str) -> Preprocessing:
    """From the attributes ``mean`` and ``std``, of pixels between 0 and 1; without them ImageNet's.

    Raises:
        UserError: They are not three numbers each, or ``std`` is not above 0.
    """
    mean, std = getattr(module, "mean", None), getattr(module, "std", None)
    if mean is None and std is None:
        return IMAGENET
    for word, numbers in (("mean", mean), ("std", std)):
        if not isinstance(numbers, list | tuple) or not _three(numbers):
            raise UserError(
                f"{name}: attribute '{word}' must be three numbers, as Thawbench preprocesses by "
                "(pixel / 255 - mean) / std.",
                "Give both as tuples; if the network standardises its input itself, call its own "
                "attributes something else and say mean = (0, 0, 0) and std = (1, 1, 1).",
            )
    if min(std) <= 0:
        raise UserError(f"{name}: std is {tuple(std)}; it must be above 0.")
    return standardised(tuple(map(float, mean)), tuple(map(float, std)))  # type: ignore[arg-type]


def _three(numbers: Any) -> bool:
    kinds = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    return len(numbers) == 3 and kinds and all(abs(n) < 1e6 for n in numbers)


def state_sha256(module: nn.Module) -> str:
    """SHA-256 (hex) over names and numbers of the state dict."""
    state = module.state_dict().items()
    return hash_tensors({n: t.detach().cpu().numpy() for n, t in state})


def _unchanged(code: OwnCode) -> nn.Module:
    file = Path(code.file)
    for name, digest in code.files.items():
        path = file.parent / name
        if not path.is_file() or _sha256(path) != digest:
            raise UserError(f"{path} changed while it was used.", "Give the command again.")
    return _built(file, code.function)


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
            f"{where} gives a {type(module).__name__}, not a torch.nn.Module.",
            "The function must return the network itself.",
        )
    module = module.eval().cpu().float()
    if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
        px = input_px(module, where)
        with torch.no_grad():
            _guarded(lambda: module(torch.zeros(2, 3, px, px)), file, f"{where} failed")
    return module.requires_grad_(True)


def _function(file: Path, name: str) -> Callable[[], Any]:
    """Load a file and take a function from it that needs no arguments."""
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
        pass  # a builtin that tells no signature
    built: Callable[[], Any] = function
    return built


def _guarded(work: Callable[[], Any], file: Path, what: str) -> Any:
    """Do what may fail in the user's own code; what it says and the line are all that is told."""
    try:
        return work()
    except (Exception, SystemExit) as error:
        traceback.print_exc()  # into the worker's log
        raise UserError(f"{what}: {_told(error, file)}") from error


def _told(error: BaseException, file: Path) -> str:
    """An exception's last line with the last place in the user's own files."""
    said = traceback.format_exception_only(error)[-1].strip()[:300]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {said}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(file.parent)]
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}: " if own else ""
    return place + said


def _sources(file: Path) -> list[Path]:
    """The file and the modules beside and below it that it made Python import."""
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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
