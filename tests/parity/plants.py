"""Defects to plant in an adapter, as far as they need no framework."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.special import softmax

from bench.catalog.backbones import LITE
from bench.data import Split
from bench.network.blueprint import HEAD, Array, Network, Operation
from bench.network.fold_batch_norm import inference_form
from bench.network.freezing import TensorPlan, TrainingPlan
from bench.network.random_streams import Stream, generator
from bench.parity.probe import Batches, make_batches
from bench.parity.tolerances import SEED
from bench.spec.preprocessing import Preprocessing
from bench.spec.run import Recipe
from bench.training import batches, fit, prefix_cache
from bench.training.adapter import (
    Adapter,
    Batch,
    Heads,
    HeadsTrainer,
    MatchedTrainer,
    Prefix,
    Trainer,
)
from bench.training.batches import TrainingBatches
from bench.training.schedule import learning_rate
from bench.workers.tasks import NativeRequest

Patches = Callable[[], list[Any]]
"""Builds context managers that replace something and restore it on exit."""
Builders = dict[str, Any]
"""An adapter's builders: kind of operation → function of (operation, …)."""
TRAINED_STAGE = "last"
"""The only trained stage of the small network's trunk where the trunk is partly frozen."""


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Plant:
    """A defect in one adapter."""

    network: Callable[[Network], Network] = _same
    """Change of the network that the adapter gets."""
    plan: Callable[[TrainingPlan], TrainingPlan] = _same
    """Change of the plan that the adapter gets."""
    trainer: Callable[[Any], MatchedTrainer] = _same
    """Change of the trainer that the adapter built."""
    batches: Batches = make_batches
    """Makes the batches that it is trained on."""
    patches: Patches = list
    """Replacements in the modules of its process while it is measured."""

    @contextmanager
    def planted(self, adapter: Adapter) -> Iterator[Adapter]:
        """Yield the adapter with the defect; remove the defect on exit."""
        with ExitStack() as stack:
            for replacement in self.patches():
                stack.enter_context(replacement)
            yield _Planted(adapter, self)


@dataclass(frozen=True)
class _Planted:
    """An adapter (``bench.training.adapter.Adapter``) with a defect."""

    sound: Adapter
    plant: Plant

    def build(
        self, network: Network, plan: TrainingPlan, recipe: Recipe, device: str
    ) -> MatchedTrainer:
        network, plan = self.plant.network(network), self.plant.plan(plan)
        return self.plant.trainer(self.sound.build(network, plan, recipe, device))

    def build_prefix(self, network: Network, recipe: Recipe, device: str, compiled: bool) -> Prefix:
        return self.sound.build_prefix(network, recipe, device, compiled)

    def build_heads(self, heads: Heads, recipe: Recipe, device: str) -> HeadsTrainer:
        return self.sound.build_heads(heads, recipe, device)

    def build_native(self, request: NativeRequest) -> tuple[Trainer, TrainingPlan]:
        return self.sound.build_native(request)

    def release(self) -> bool:
        return self.sound.release()

    def is_out_of_memory(self, error: BaseException) -> bool:
        return self.sound.is_out_of_memory(error)

    def devices(self) -> list[str]:
        return self.sound.devices()


def wrapped(builders: Builders, kind: str, wrap: Callable[[Any], Any]) -> Plant:
    """Replace the builder of a kind of operation by ``wrap`` of it."""
    return Plant(patches=lambda: [patch.dict(builders, {kind: wrap(builders[kind])})])


def altered(builders: Builders, kind: str, change: Callable[[Operation], Operation]) -> Plant:
    """Build operations of a kind from changed operations."""
    return wrapped(builders, kind, lambda build: lambda o, *more: build(change(o), *more))


def _with(**attributes: Any) -> Callable[[Operation], Operation]:
    """Replace attributes of an operation."""
    return lambda o: o.model_copy(update={"attributes": {**o.attributes, **attributes}})


def _flipped_padding(o: Operation) -> Operation:
    """Swap the padding above and below, and that at left and right."""
    top, bottom, left, right = o.attributes["padding"]
    return _with(padding=[bottom, top, right, left])(o)


def _floor(o: Operation) -> Operation:
    """Drop the last window, which reaches beyond the input (floor instead of ceil mode)."""
    if not o.attributes["ceil_mode"]:
        return o
    channels, height, width = o.shape
    smaller = o.model_copy(update={"shape": (channels, height - 1, width - 1)})
    return _with(ceil_mode=False)(smaller)


def _preprocessing(change: Callable[[Preprocessing], Preprocessing]) -> Plant:
    """Change the preprocessing."""

    def changed(network: Network) -> Network:
        new = change(network.blueprint.preprocessing)
        blueprint = network.blueprint.model_copy(update={"preprocessing": new})
        return Network(blueprint, network.tensors)

    return Plant(network=changed)


def _as_bgr(p: Preprocessing) -> Preprocessing:
    return p.model_copy(update={"channels": "BGR"})


def _to_minus_one(p: Preprocessing) -> Preprocessing:
    """Scale pixels to -1…1, as ``keras.applications`` does for MobileNetV2."""
    return p.model_copy(update={"scale": (1 / 127.5,) * 3})


def _glorot(network: Network) -> Network:
    """Initialise the last layer as Keras does by default."""
    name = network.blueprint.operations[-1].tensors["weight"]
    old = network.tensors[name]
    bound = math.sqrt(6.0 / sum(old.shape))
    new = np.random.default_rng(0).uniform(-bound, bound, old.shape).astype(old.dtype)
    return Network(network.blueprint, {**network.tensors, name: new})


def _with_first_head() -> Callable[[Network], Network]:
    """Begin each phase with the initial head of the first phase."""
    first: dict[str, Array] = {}

    def changed(network: Network) -> Network:
        head = [t for o, _, t in network.blueprint.named_tensors() if o.stage == HEAD]
        if not first:
            first.update({name: network.tensors[name] for name in head})
        return Network(network.blueprint, {**network.tensors, **first})

    return changed


def _trained_by(change: Callable[[dict[str, TensorPlan]], dict[str, TensorPlan]]) -> Plant:
    """Change which tensors are trained and how, but not which layers are in training form."""
    return Plant(plan=lambda plan: replace(plan, trained=change(plan.trained)))


def _decay_on_biases(trained: dict[str, TensorPlan]) -> dict[str, TensorPlan]:
    return {
        name: replace(tensor, decays=tensor.decays or name.endswith(".bias"))
        for name, tensor in trained.items()
    }


def _one_rate(trained: dict[str, TensorPlan]) -> dict[str, TensorPlan]:
    return {name: replace(t, learning_rate_scale=1.0) for name, t in trained.items()}


def _also(name: str) -> Callable[[dict[str, TensorPlan]], dict[str, TensorPlan]]:
    return lambda trained: {name: TensorPlan(1.0, True), **trained}


def _without(name: str) -> Callable[[dict[str, TensorPlan]], dict[str, TensorPlan]]:
    return lambda trained: {n: t for n, t in trained.items() if n != name}


def _still(name: str) -> Callable[[dict[str, TensorPlan]], dict[str, TensorPlan]]:
    """Compute a tensor's gradient, but let the optimizer ignore it."""
    return lambda trained: {
        n: TensorPlan(0.0, False) if n == name else t for n, t in trained.items()
    }


def _streams(change: Callable[[int, Stream, tuple[int, ...]], Any]) -> Plant:
    """Draw the random numbers of batches from another generator."""
    return Plant(
        patches=lambda: [
            patch.object(batches, "generator", lambda seed, stream, *at: change(seed, stream, at))
        ]
    )


def _seeded_anew(other: Stream) -> Plant:
    """Seed one stream differently."""
    return _streams(lambda seed, stream, at: generator(seed + (stream is other), stream, *at))


def _first_order(seed: int, stream: Stream, at: tuple[int, ...]) -> np.random.Generator:
    """Use the order of the first epoch in every epoch."""
    return generator(seed, stream, *((0,) if stream is Stream.ORDER else at))


class _WholeBatches(TrainingBatches):
    """Batches without the smaller last one of an epoch."""

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.recipe.batch_size


class _PaddedBatches(TrainingBatches):
    """Batches whose smaller last one is filled up with its own images."""

    def epoch(self, number: int) -> Generator[Batch]:
        for batch in super().epoch(number):
            size = self.recipe.batch_size
            yield Batch(*(_filled(part, size) for part in batch[:2]),
                        tuple(_filled(mask, size) for mask in batch.masks))  # fmt: skip


def _filled(part: Array, size: int) -> Array:
    return np.concatenate([part, part[: size - len(part)]])


def _padded_batches(split: Split, recipe: Recipe, plan: TrainingPlan) -> TrainingBatches:
    return _PaddedBatches(split, recipe, plan.dropouts, SEED)


def _half_values(trainer: Any) -> Any:
    """Keep values of the frozen prefix in half precision."""
    values = trainer.values
    trainer.values = lambda handles: values(handles).astype(np.float16).astype(np.float64)
    return trainer


def _other_variance(blueprint: Any, tensors: dict[str, Array], boundary: Any) -> Network:
    """Fold BatchNorm with a variance that is a tenth too large."""
    wrong = {n: t * (1.1 if n.endswith("running_var") else 1.0) for n, t in tensors.items()}
    return inference_form(blueprint, wrong, boundary)


def all_in_training(plan: TrainingPlan) -> TrainingPlan:
    """Run frozen stages in training form too, but train the same tensors."""
    return replace(plan, first_trained=0)


def _whole_batches(split: Split, recipe: Recipe, plan: TrainingPlan) -> TrainingBatches:
    return _WholeBatches(split, recipe, plan.dropouts, SEED)


def _rate_of_epoch(recipe: Recipe, step: int, steps: int) -> float:
    """Advance the schedule once per epoch instead of per step."""
    in_epoch = steps // recipe.epochs
    return learning_rate(recipe, step // in_epoch * in_epoch, steps)


def _labels_from_one(trainer: Any) -> Any:
    """Count classes from one in training."""
    to_device = trainer.to_device
    trainer.to_device = lambda batch: to_device(batch._replace(labels=batch.labels + 1))
    return trainer


def _probabilities(trainer: Any) -> Any:
    """Return probabilities instead of logits."""
    logits = trainer.logits

    def probabilities(handles: list[Any]) -> Array:
        found: Array = softmax(logits(handles), axis=1)
        return found

    trainer.logits = probabilities
    return trainer


def in_any_adapter(builders: Builders) -> dict[str, Plant]:
    """Return the defects that are the same in every adapter, planted through its builders."""
    return {
        "batch_norm_epsilon": altered(builders, "batch_norm", _with(epsilon=1e-3)),
        "batch_norm_momentum": altered(builders, "batch_norm", _with(momentum=0.01)),
        "statistics_of_batch_in_frozen_stage": Plant(plan=all_in_training),
        "swapped_channels": _preprocessing(_as_bgr),
        "pixel_scale": _preprocessing(_to_minus_one),
        "mean_and_std_of_another_backbone": _preprocessing(lambda _: LITE),
        "asymmetric_padding": altered(builders, "conv2d", _flipped_padding),
        "floor_pooling": altered(builders, "max_pool2d", _floor),
        "other_dropout_mask": _seeded_anew(Stream.DROPOUT),
        "decay_on_biases": _trained_by(_decay_on_biases),
        "one_learning_rate": _trained_by(_one_rate),
        "schedule_per_epoch": Plant(
            patches=lambda: [patch.object(fit, "learning_rate", _rate_of_epoch)]
        ),
        "other_batch_order": _seeded_anew(Stream.ORDER),
        "order_of_first_epoch": _streams(_first_order),
        "last_batch_dropped": Plant(batches=_whole_batches),
        "last_batch_padded": Plant(batches=_padded_batches),
        "values_in_half_precision": Plant(trainer=_half_values),
        "folded_with_another_variance": Plant(
            patches=lambda: [patch.object(prefix_cache, "inference_form", _other_variance)]
        ),
        "frozen_layer_trains": _trained_by(_also("block.conv.weight")),
        "trained_layer_is_frozen": _trained_by(_without("block.conv.weight")),
        "optimizer_forgets_a_layer": _trained_by(_still("block.conv.weight")),
        "other_head_initialisation": Plant(network=_glorot),
        "label_off_by_one": Plant(trainer=_labels_from_one),
        "softmax_in_evaluation": Plant(trainer=_probabilities),
        "head_not_handed_over": Plant(network=_with_first_head()),
    }
