"""The adapter for Keras on TensorFlow, torch or JAX."""

from __future__ import annotations

from collections.abc import Callable

import keras

from backends.keras_adapter.engines import Engine, load
from backends.keras_adapter.heads import KerasHeads
from backends.keras_adapter.native.trainer import NativeKerasTrainer
from backends.keras_adapter.prefix import KerasPrefix
from backends.keras_adapter.trainer import KerasTrainer
from bench.network.blueprint import Network
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe
from bench.training.adapter import (
    Adapter,
    Heads,
    HeadsTrainer,
    MatchedTrainer,
    Prefix,
    Trainer,
)
from bench.workers.tasks import NativeRequest


class KerasAdapter:
    """The ``bench.training.adapter.Adapter`` of Keras."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def build(
        self, network: Network, plan: TrainingPlan, recipe: Recipe, device: str
    ) -> MatchedTrainer:
        return KerasTrainer(network, plan, recipe, device, self._engine)

    def build_prefix(self, network: Network, recipe: Recipe, device: str, compiled: bool) -> Prefix:
        return KerasPrefix(network, self._engine)  # the engine compiles in any case

    def build_heads(self, heads: Heads, recipe: Recipe, device: str) -> HeadsTrainer:
        return KerasHeads(heads, recipe, self._engine)

    def build_native(self, request: NativeRequest) -> tuple[Trainer, TrainingPlan]:
        trainer = NativeKerasTrainer(request, self._engine)
        return trainer, trainer.plan

    def is_out_of_memory(self, error: BaseException) -> bool:
        return self._engine.is_out_of_memory(error)

    def devices(self) -> list[str]:
        return self._engine.devices()

    def blind_because(self) -> str | None:
        return self._engine.blind_because()

    def device_name(self, device: str) -> str:
        return self._engine.device_name(device)

    def start(self, device: str) -> None:
        self._engine.start(device)

    def profile(self, work: Callable[[], None]) -> dict[str, float]:
        return self._engine.profile(work)

    def release(self) -> bool:
        keras.utils.clear_session()
        return self._engine.release()


def adapter() -> Adapter:
    """Return the adapter for the engine that Keras runs on in this process."""
    return KerasAdapter(load())
