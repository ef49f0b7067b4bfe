"""Search for native Keras weights: files of ``keras.applications``, in Keras's own cache.

This module finds files and does not import Keras; a worker reads them.
"""

from __future__ import annotations

from pathlib import Path

from bench.errors import Unavailable, check_is_file
from bench.native.applications import Application, keras_models_folder
from bench.network.weights import Weights
from bench.spec.backbone import BackboneEntry
from bench.spec.run import WeightsRef
from bench.storage.checksums import sha256_of_file
from bench.storage.download import checked_file, download_file
from bench.workers.tasks import NativeNetwork

SUFFIX = ".h5"
"""Suffix of weights files that Keras loads, ``.weights.h5`` included: arrays and names, no code."""


def native_ref(application: Application, px: int) -> WeightsRef:
    """Return the reference that a spec records for ``keras.applications`` weights, found or not."""
    known = application.digest if application.algorithm == "sha256" else None
    return WeightsRef(kind="pretrained", source=application.file_name(px), sha256=known)


def native_weights(
    name: str, application: Application, entry: BackboneEntry, px: int, download: bool = True
) -> Weights:
    """Return a backbone's weights of ``keras.applications`` from Keras's cache or, with
    ``download``, from the network; raise Unavailable if they are nowhere: the message says how to
    get them.

    Args:
        entry: Its entry in the catalogue; native Keras does not use the preprocessing there.
        px: Height and width of the input, in pixels: some networks have a file for each size.
    """
    address = application.location(px)
    path = keras_models_folder() / application.file_name(px)
    digest, algorithm = application.digest or "", application.algorithm
    try:
        if path.is_file():
            checked_file(path, digest, algorithm)
        elif download:
            download_file(address, path, digest, algorithm)
        else:
            raise Unavailable("not in Keras's cache")
    except Unavailable as error:
        raise Unavailable(
            f"no pretrained keras.applications weights for {name} ({error}). To get them: put "
            f"{path.name} from {address} into {path.parent}; or name a file: "
            f"--weights {name}=PATH.h5; or ask for random ones: --weights random"
        ) from error
    return Weights(native_ref(application, px), entry.preprocessing, path)


def native_weights_from_file(entry: BackboneEntry, path: Path) -> Weights:
    """Return the weights in a user's file of a ``keras.applications`` model without classifier;
    raise UserError if it is missing, Unavailable if Keras does not read files of its kind."""
    check_is_file(f"Weights file '{path}'", path)
    if path.suffix != SUFFIX:
        raise Unavailable(
            f"native Keras reads weights in HDF5 ({SUFFIX}), not {path.name}: save them with "
            f"model.save_weights('NAME.weights.h5'), or use --mode matched"
        )
    ref = WeightsRef(kind="file", source=path.name, sha256=sha256_of_file(path))
    return Weights(ref, entry.preprocessing, path)


def native_network(weights: Weights, entry: BackboneEntry) -> NativeNetwork:
    """Return a network and its weights in the form in which a task carries them to a worker."""
    return NativeNetwork(
        entry=entry,
        random=weights.ref.kind == "random",
        weights=None if weights.path is None else weights.path.resolve(),
        reader=weights.reader,
        preprocessing=weights.preprocessing,
    )
