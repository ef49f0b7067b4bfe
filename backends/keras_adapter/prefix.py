"""The frozen prefix alone, in inference form."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from backends.keras_adapter.engines import Engine
from backends.keras_adapter.twin.twin import Twin
from bench.network.blueprint import Array, Network
from bench.network.freezing import TrainingPlan


class KerasPrefix:
    """A ``bench.training.adapter.Prefix`` in Keras.

    ``KerasTrainer`` has already set the device and dtype policy of the process.
    """

    def __init__(self, network: Network, engine: Engine) -> None:
        self._engine = engine
        frozen = TrainingPlan(len(network.blueprint.operations), {}, tuple(network.tensors), (), ())
        self._infer = engine.make_constant(Twin(network, frozen, engine).inference)

    def prefix(self, images: npt.NDArray[np.uint8]) -> Any:
        return self._infer(images)

    def values(self, handles: list[Any]) -> Array:
        return host_values(handles)

    def synchronise(self) -> None:
        self._engine.synchronise()

    def prefix_form(self) -> str:
        return "folded"


def host_values(handles: list[Any]) -> Array:
    """Concatenate device values on the host, in float64 if they are, else in float32."""
    is_double = keras.backend.standardize_dtype(handles[0].dtype) == "float64"
    dtype = "float64" if is_double else "float32"
    return np.concatenate([ops.convert_to_numpy(ops.cast(h, dtype)) for h in handles])
