"""One run against a trainer in NumPy: schedule, figures, and the failures that it detects."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.catalog.policies import POLICIES
from bench.data import Packed, Split
from bench.network.blueprint import Array, Blueprint, Network, Operation
from bench.network.freezing import plan_training
from bench.network.phases import Phase
from bench.spec.preprocessing import Preprocessing
from bench.spec.run import Case, DatasetRef, Recipe, RunSpec, WeightsRef
from bench.training.adapter import Batch
from bench.training.fit import FrozenChanged, Ready
from bench.training.prefix_cache import CachedPrefix
from bench.training.run import Run
from bench.workers.events import Epoch, Progress
from bench.workers.tasks import ParameterCounts

PX, CLASSES = 4, 3
PIXELS = PX * PX * 3


def network() -> Network:
    """A frozen scale on the flattened pixels, then one dense layer."""
    flat = Operation(
        name="flat", kind="flatten", inputs=("pixels",), shape=(PIXELS,), module_path="f", stage="s"
    )
    frozen = Operation(
        name="frozen",
        kind="linear",
        inputs=("flat",),
        tensors={"weight": "frozen.weight"},
        shape=(PIXELS,),
        module_path="frozen",
        stage="s",
    )
    head = Operation(
        name="logits",
        kind="linear",
        inputs=("frozen",),
        tensors={"weight": "logits.weight"},
        shape=(CLASSES,),
        module_path="head.logits",
        stage="head",
    )
    tensors = {"frozen.weight": np.eye(PIXELS), "logits.weight": np.zeros((CLASSES, PIXELS))}
    blueprint = Blueprint(
        backbone="toy",
        px=PX,
        preprocessing=Preprocessing(channels="RGB", mean=(127.5,) * 3, scale=(1 / 127.5,) * 3),
        stages=("s", "head"),
        operations=(flat, frozen, head),
        shapes={name: array.shape for name, array in tensors.items()},
    )
    return Network(blueprint, tensors)


class NumpyTrainer:
    """Softmax regression by gradient descent."""

    waits_for_steps = True

    def __init__(self, net: Network) -> None:
        self.net = net
        self.weights = {name: array.copy() for name, array in net.tensors.items()}
        self.rates: list[float] = []
        self.inferred = 0
        self.breaks_frozen = False
        self.loss_after: dict[int, float] = {}
        self.nan_after = 10**9

    def _pixels(self, images: npt.NDArray[np.uint8]) -> Array:
        pixels = self.net.blueprint.preprocessing.apply(images, np.float64)
        return pixels.reshape(len(images), -1)

    def to_device(self, batch: Batch) -> Batch:
        return batch

    def train_step(self, prepared: Batch, learning_rate: float) -> float:
        self.rates.append(learning_rate)
        x = self._pixels(prepared.images)
        logits = x @ self.weights["logits.weight"].T
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        n = len(x)
        loss = float(-np.mean(np.log(p[np.arange(n), prepared.labels])))
        p[np.arange(n), prepared.labels] -= 1
        self.weights["logits.weight"] -= learning_rate * (p.T @ x) / n
        if self.breaks_frozen:
            self.weights["frozen.weight"][0, 0] += 1e-9
        return self.loss_after.get(len(self.rates), loss)

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def reserved_device_bytes(self) -> int | None:
        return None

    def reset_peak(self) -> None:
        pass

    def events(self) -> None:
        return None

    def losses(self, handles: list[float]) -> list[float]:
        return handles

    def infer(self, images: npt.NDArray[np.uint8]) -> Array:
        self.inferred += len(images)
        if self.inferred > self.nan_after:
            return np.full((len(images), CLASSES), np.nan)
        logits: Array = self._pixels(images) @ self.weights["logits.weight"].T
        return logits

    def logits(self, handles: list[Array]) -> Array:
        return np.concatenate(handles)

    def synchronise(self) -> None:
        pass

    def tensors(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self.weights.items()}

    def counts(self) -> ParameterCounts:
        return ParameterCounts(
            total_parameters=PIXELS * (PIXELS + CLASSES), trainable_parameters=PIXELS * CLASSES,
            state_values=0,
        )  # fmt: skip

    def knobs(self) -> dict[str, Any]:
        return {"toy": True}

    def peak_device_bytes(self) -> int | None:
        return None


def split(images: int, seed: int) -> Split:
    """Classes that differ in colour."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % CLASSES
    pixels = random.integers(0, 100, (images, PX, PX, 3))
    pixels[np.arange(images), :, :, labels] += 100
    return Split(pixels.astype(np.uint8), labels)


def packed() -> Packed:
    return Packed(("a", "b", "c"), split(50, 0), split(9, 1), split(12, 2), Path("nowhere"))


def spec(epochs: int = 3) -> RunSpec:
    data = DatasetRef(
        name="toy",
        label="toy",
        content_hash="0" * 64,
        classes=("a", "b", "c"),
        train_images=50,
        val_images=9,
        test_images=12,
    )
    return RunSpec(
        case=Case(number=None, dataset=data, size="small", similarity=None),
        backbone="toy",
        weights=WeightsRef(kind="random", source="random", sha256=None),
        policy=POLICIES["freeze_all"],
        recipe=Recipe(
            head="linear",
            px=PX,
            epochs=epochs,
            batch_size=8,
            optimizer="sgd",
            learning_rate=0.1,
            momentum=0.0,
            weight_decay=0.0,
            schedule="cosine",
            warmup_fraction=0.2,
            augmentation="none",
            precision="fp32",
        ),
        backend="torch",
        device="cpu",
        seed=0,
    )


def only_phase(what: RunSpec, trainer: NumpyTrainer, cached: CachedPrefix | None = None) -> Ready:
    """Return a run's only phase."""
    plan = plan_training(trainer.net.blueprint, what.policy)
    return Ready(Phase(what.policy, 0, what.recipe.epochs), plan, trainer, cached)  # type: ignore[arg-type]


def run(trainer: NumpyTrainer, epochs: int = 3) -> tuple[Any, list[Progress]]:
    events: list[Progress] = []
    what = spec(epochs)
    loop = Run(what, trainer.net, packed(), only_phase(what, trainer), events.append)
    return loop(time.perf_counter()), events


def test_it_learns_and_counts_what_it_did() -> None:
    trainer = NumpyTrainer(network())
    outcome, events = run(trainer)
    fields = outcome.fields
    assert fields["train_loss_by_epoch"][0] > fields["train_loss_by_epoch"][-1]
    assert fields["test_top1"] == 1.0
    assert len(fields["val_top1_by_epoch"]) == 3
    assert fields["frozen_parameters"] == PIXELS * PIXELS
    assert [e.epoch for e in events if isinstance(e, Epoch)] == [1, 2, 3]
    assert fields["fit_s"] > 0
    assert fields["setup_s"] >= 0
    assert fields["knobs"]["toy"] is True
    assert fields["knobs"]["stochastic_depth"] == "off"


def test_the_device_s_peak_is_measured_after_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Any]] = []

    def utilisation(fields: dict[str, Any], _: Any, device: str, precision: str, notes: Any) -> Any:
        found.append(dict(fields))
        notes.append("noted")
        assert (device, precision) == ("cpu", "fp32")
        return {"model_flop_utilisation": 0.25}

    monkeypatch.setattr("bench.training.run.utilisation", utilisation)
    fields = run(NumpyTrainer(network()))[0].fields
    measured = {"peak_device_bytes", "compute_images_per_s", "infer_images_per_s", "knobs"}
    assert measured <= found[0].keys()
    assert fields["model_flop_utilisation"] == 0.25
    assert "noted" in fields["notes"]


def test_the_schedule_goes_by_step() -> None:
    trainer = NumpyTrainer(network())
    run(trainer)
    steps = 3 * math.ceil(50 / 8)
    rates = trainer.rates[:steps]
    warmup = round(0.2 * steps)
    assert rates[:warmup] == pytest.approx([0.1 * (i + 1) / warmup for i in range(warmup)])
    assert all(a > b for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
    assert set(trainer.rates[steps:]) == {0.0}, "steps that only measure must not train"


def test_the_test_split_is_used_once() -> None:
    trainer = NumpyTrainer(network())
    run(trainer)
    assert trainer.inferred == 3 * 9 + 12


def test_a_frozen_tensor_that_moves_voids_the_run() -> None:
    trainer = NumpyTrainer(network())
    trainer.breaks_frozen = True
    with pytest.raises(FrozenChanged):
        run(trainer)


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    trainer = NumpyTrainer(network())
    trainer.loss_after = {10: math.nan}
    outcome, _ = run(trainer)
    fields = outcome.fields
    assert fields["failure"].kind == "diverged"
    assert fields["train_loss_by_epoch"][1] is None
    assert len(fields["train_loss_by_epoch"]) == 2
    assert "test_top1" not in fields
    assert outcome.logits is None


def test_logits_that_are_not_finite_are_no_accuracy() -> None:
    """All-NaN logits have class 0 as their greatest: an accuracy that looks right."""
    trainer = NumpyTrainer(network())
    trainer.nan_after = 2 * 9  # the third validation
    fields = run(trainer)[0].fields
    assert fields["failure"].kind == "diverged"
    assert fields["val_top1_by_epoch"][2] is None
    assert "test_top1" not in fields
    trainer = NumpyTrainer(network())
    trainer.nan_after = 3 * 9  # the test
    outcome, _ = run(trainer)
    assert outcome.fields["failure"].kind == "diverged"
    assert "test_top1" not in outcome.fields
    assert outcome.logits is None


def test_a_short_run_gives_no_throughput_and_says_so() -> None:
    outcome, _ = run(NumpyTrainer(network()), epochs=1)
    if outcome.fields["train_images_per_s"] is None:
        assert any("too short" in note for note in outcome.fields["notes"])
    else:
        assert len(outcome.fields["train_images_per_s_windows"]) >= 3


def test_the_same_seed_gives_the_same_batches() -> None:
    first, _ = run(NumpyTrainer(network()))
    second, _ = run(NumpyTrainer(network()))
    for field in ("batches_sha256", "initial_state_sha256", "frozen_state_sha256"):
        assert first.fields[field] == second.fields[field]


class ResumingTrainer(NumpyTrainer):
    """A trainer whose frozen prefix is the preprocessing; it also takes preprocessed pixels."""

    def _pixels(self, images: Array) -> Array:
        return super()._pixels(images) if images.dtype == np.uint8 else images

    def prefix(self, images: npt.NDArray[np.uint8]) -> Array:
        return self._pixels(images)


def test_with_values_in_place_of_images_it_gives_the_same() -> None:
    whole, _ = run(NumpyTrainer(network()))
    trainer, data, what = ResumingTrainer(network()), packed(), spec()
    values = CachedPrefix(
        trainer.prefix(data.train.images), trainer.prefix(data.val.images),
        seconds=50.0, spent_s=0.25, is_reused=True, form="folded", note="x was full",
    )  # fmt: skip
    loop = Run(what, trainer.net, data, only_phase(what, trainer, values), lambda event: None)
    began = time.perf_counter() - 1.0
    fields = loop(began).fields
    for field in ("train_loss_by_epoch", "val_top1_by_epoch", "test_top1", "test_loss"):
        assert fields[field] == whole.fields[field]
    assert fields["batches_sha256"] == whole.fields["batches_sha256"]
    # The cost of the values belongs to the fit, whichever run paid for it, not to the set-up.
    assert 50.0 < fields["fit_s"] < 55.0
    assert 0.7 < fields["setup_s"] < 5.0
    assert (fields["prefix_s"], fields["prefix_form"]) == (50.0, "folded")
    assert 3 * 50 / 55.0 < fields["effective_images_per_s"] < 3 * 50 / 50.0
    assert (fields["prefix_values"], fields["notes"][-1]) == ("reused", "x was full")
    # Steps train the rest alone: none of their figures may be compared with whole steps.
    absent = ("train_images_per_s", "compute_images_per_s", "step_s_p50", "step_s_p95",
              "input_wait_fraction")  # fmt: skip
    assert [f for f in absent if fields.get(f) is not None] == []
    assert whole.fields.get("effective_images_per_s") is None
    assert fields["compile_s"] >= 0.0


def test_too_short_a_time_is_no_effective_rate() -> None:
    trainer, data, what = ResumingTrainer(network()), packed(), spec()
    values = CachedPrefix(
        trainer.prefix(data.train.images), trainer.prefix(data.val.images),
        seconds=0.01, spent_s=0.01, is_reused=False, form="plain",
    )  # fmt: skip
    loop = Run(what, trainer.net, data, only_phase(what, trainer, values), lambda event: None)
    fields = loop(time.perf_counter()).fields
    assert fields.get("effective_images_per_s") is None
    assert any("too short" in note for note in fields["notes"])


def test_what_the_policy_spares_is_counted() -> None:
    fields = run(NumpyTrainer(network()))[0].fields
    assert fields["forward_multiply_adds"] == PIXELS * PIXELS + CLASSES * PIXELS
    assert fields["backward_multiply_adds"] == CLASSES * PIXELS
    assert fields["activation_bytes"] == 4 * PIXELS
    full = fields["forward_multiply_adds"] + PIXELS * PIXELS + 2 * CLASSES * PIXELS
    step = fields["forward_multiply_adds"] + CLASSES * PIXELS
    assert fields["predicted_saving"] == pytest.approx(1 - step / full)


class SearchingTrainer(NumpyTrainer):
    """A trainer on a device whose first step of each batch size needs 1,000 bytes for a search;
    later ones need 10 bytes an image, and the fifth 95."""

    def __init__(self, net: Network) -> None:
        super().__init__(net)
        self.seen: set[int] = set()
        self.peak = 0

    def train_step(self, prepared: Batch, learning_rate: float) -> float:
        images = len(prepared.labels)
        needed = 10 * images if images in self.seen else 1000
        if len(self.rates) == 4:
            needed = 95
        self.seen.add(images)
        self.peak = max(self.peak, needed)
        return super().train_step(prepared, learning_rate)

    def peak_device_bytes(self) -> int | None:
        return self.peak

    def reset_peak(self) -> None:
        self.peak = 0


def test_memory_of_the_search_for_kernels_is_no_trainings() -> None:
    """50 images in batches of 8 end each epoch with a batch of 2, whose search comes after the
    step that needs most."""
    outcome, _ = run(SearchingTrainer(network()))
    assert outcome.fields["peak_device_bytes"] == 95
    assert outcome.fields["warmup_device_bytes"] == 1000
