"""The frozen prefix alone, in inference form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

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
        return self._engine.to_host(self._infer(images))

    def values(self, handles: list[Any]) -> Array:
        return joined(handles)

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return self._engine.host_array(shape, dtype)

    def synchronise(self) -> None:
        self._engine.synchronise()

    def prefix_form(self) -> str:
        return "folded"


def joined(handles: list[Callable[[], Array]]) -> Array:
    """Wait for copies that ``Engine.to_host`` began, and join them."""
    return np.concatenate([wait() for wait in handles])
