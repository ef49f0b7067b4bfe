"""The PyTorch adapter: export of networks to Blueprints, and training of Blueprints."""

from __future__ import annotations

from collections.abc import Callable

from backends import torch_device
from backends.torch_adapter.heads import TorchHeads
from backends.torch_adapter.prefix import TorchPrefix
from backends.torch_adapter.trainer import TorchTrainer
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


class TorchAdapter:
    """PyTorch (``bench.training.adapter.Adapter``)."""

    def build(
        self, network: Network, plan: TrainingPlan, recipe: Recipe, device: str
    ) -> MatchedTrainer:
        return TorchTrainer(network, plan, recipe, device)

    def build_prefix(self, network: Network, recipe: Recipe, device: str, compiled: bool) -> Prefix:
        return TorchPrefix(network, recipe, device, compiled)

    def build_heads(self, heads: Heads, recipe: Recipe, device: str) -> HeadsTrainer:
        return TorchHeads(heads, recipe, device)

    def build_native(self, request: NativeRequest) -> tuple[Trainer, TrainingPlan]:
        # Imports torchvision, which takes a second that matched runs need not wait.
        from backends.torch_adapter.native.trainer import NativeTorchTrainer

        trainer = NativeTorchTrainer(request)
        return trainer, trainer.plan

    def is_out_of_memory(self, error: BaseException) -> bool:
        return torch_device.is_out_of_memory(error)

    def devices(self) -> list[str]:
        return torch_device.devices()

    def blind_because(self) -> str | None:
        return torch_device.blind_because()

    def device_name(self, device: str) -> str:
        return torch_device.device_name(device)

    def start(self, device: str) -> None:
        torch_device.start(device)

    def profile(self, work: Callable[[], None]) -> dict[str, float]:
        return torch_device.profile(work)

    def release(self) -> bool:
        torch_device.release()
        return True


def adapter() -> Adapter:
    """Return the adapter of this process."""
    return TorchAdapter()
