"""Where native Keras weights come from: the files of ``keras.applications``, in Keras's own cache.

Nothing here computes or imports Keras; a worker reads the file.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.parse
from pathlib import Path
from typing import IO

from bench.errors import Unavailable, UserError
from bench.native.applications import Application, keras_models_folder
from bench.network.weights import NETWORK_PATIENCE_S, Weights, _open_within, _unreachable, sha256_of
from bench.spec.backbone import BackboneEntry
from bench.spec.run import WeightsRef
from bench.workers.tasks import NativeNetwork

SUFFIX = ".h5"
"""Of files that a Keras model loads, ``.weights.h5`` among them: arrays and names, no code."""


def native_ref(application: Application, px: int) -> WeightsRef:
    """How a spec records pretrained weights of ``keras.applications``, found or not."""
    digest = application.digest
    known = digest if digest is not None and len(digest) == 64 else None
    return WeightsRef(kind="pretrained", source=application.file_name(px), sha256=known)


def native_weights(
    name: str, application: Application, entry: BackboneEntry, px: int, download: bool = True
) -> Weights:
    """The weights of ``keras.applications`` for a backbone, from Keras's cache or the network.

    Args:
        name: The backbone's name.
        application: Its class.
        entry: Its entry in the catalogue; its preprocessing is not used in native Keras.
        px: Height and width of the input: some networks have a file for each.
        download: Whether the network may be asked.

    Raises:
        Unavailable: They are nowhere; the message says how to get them.
    """
    path = keras_models_folder() / application.file_name(px)
    reason = "not in Keras's cache"
    try:
        if path.is_file():
            return _weights(_checked(path, application), application, entry, px)
        if download:
            return _weights(_download(application, px, path), application, entry, px)
    except Unavailable as error:
        reason = str(error)
    raise Unavailable(
        f"no pretrained keras.applications weights for {name} ({reason}). To get them: put "
        f"{path.name} from {application.location(px)} into {path.parent}; or name a file: "
        f"--weights {name}=PATH.h5; or ask for random ones: --weights random"
    )


def native_weights_from_file(entry: BackboneEntry, path: Path) -> Weights:
    """A user's own file of a ``keras.applications`` model without its classifier.

    Raises:
        UserError: It is not there.
        Unavailable: It is of a kind that Keras does not read.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"Weights file '{path}' {what}.")
    if path.suffix != SUFFIX:
        raise Unavailable(
            f"native Keras reads weights in HDF5 ({SUFFIX}), not {path.name}: save them with "
            f"model.save_weights('NAME.weights.h5'), or use --mode matched"
        )
    ref = WeightsRef(kind="file", source=path.name, sha256=sha256_of(path))
    return Weights(ref, entry.preprocessing, path)


def native_network(weights: Weights, entry: BackboneEntry) -> NativeNetwork:
    """Return a network and its weights as a task carries them to a worker."""
    return NativeNetwork(
        entry=entry,
        random=weights.ref.kind == "random",
        weights=None if weights.path is None else str(weights.path.resolve()),
        reader=weights.reader,
        preprocessing=weights.preprocessing,
    )


def _weights(path: Path, application: Application, entry: BackboneEntry, px: int) -> Weights:
    return Weights(native_ref(application, px), entry.preprocessing, path)


def _checked(path: Path, application: Application) -> Path:
    """``path`` if it is the file that keras.applications knows; MobileNet's have no hash there."""
    wanted = application.digest
    if wanted is None:
        return path
    algorithm = "sha256" if len(wanted) == 64 else "md5"
    with path.open("rb") as file:
        found = hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
    if found != wanted:
        raise Unavailable(
            f"{path} is damaged: its {algorithm.upper()} is not {wanted[:8]}…; delete it"
        )
    return path


def _download(application: Application, px: int, target: Path) -> Path:
    address = application.location(px)
    host = urllib.parse.urlparse(address).netloc
    if host in _unreachable:
        raise Unavailable(_unreachable[host])
    try:
        answer = _open_within(address, NETWORK_PATIENCE_S)
    except urllib.error.HTTPError as error:
        raise Unavailable(f"{address}: {error.code} {error.reason}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        _unreachable[host] = f"{host} cannot be reached ({reason})"
        raise Unavailable(_unreachable[host]) from error
    try:
        with answer:
            return _store(answer, target, application)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{address} could not be saved as {target}: {error}") from error


def _store(answer: IO[bytes], target: Path, application: Application) -> Path:
    """Write a download beside its target, check it, move it into place."""
    print(f"downloading {target.name}", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as part:
        try:
            shutil.copyfileobj(answer, part, 1 << 20)
            part.close()
            os.replace(_checked(Path(part.name), application), target)
        finally:
            Path(part.name).unlink(missing_ok=True)
    return target
