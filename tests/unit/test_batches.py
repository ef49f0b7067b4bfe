"""Training batches: the same bytes in the same order, every image once, no error hidden."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import Split
from bench.network.blueprint import Network, Operation
from bench.network.random_streams import Stream, generator
from bench.spec.run import RunSpec
from bench.training import augment
from bench.training.adapter import Batch
from bench.training.batches import Ahead, TrainingBatches, input_threads, view_batches

MakeSpec = Callable[..., RunSpec]
PX = 16


def _split(images: int) -> Split:
    """Make images whose first pixel and label are their number."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, PX, PX, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(images)
    return Split(pixels, np.arange(images, dtype=np.int64))


def _batches(
    make_spec: MakeSpec,
    images: int = 23,
    dropouts: tuple[Operation, ...] = (),
    seed: int = 0,
    **recipe: Any,
) -> TrainingBatches:
    changes = {"px": PX, "batch_size": 5, **recipe}
    return TrainingBatches(_split(images), make_spec(recipe=changes).recipe, dropouts, seed)


def _dropouts(network: Network) -> tuple[Operation, ...]:
    return tuple(o for o in network.blueprint.operations if o.kind == "dropout")


def _same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y)
        for one, two in zip(a, b, strict=True)
        for x, y in zip(
            (one.images, one.labels, *one.masks), (two.images, two.labels, *two.masks), strict=True
        )
    )


@settings(max_examples=30)
@given(
    images=st.integers(1, 40),
    size=st.integers(1, 12),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 3),
)
def test_an_epoch_holds_every_image_once(
    make_spec: MakeSpec, images: int, size: int, seed: int, epoch: int
) -> None:
    batches = _batches(make_spec, images, seed=seed, batch_size=size)
    found = list(batches.epoch(epoch))
    assert len(found) == batches.steps_per_epoch == -(-images // size)
    sizes = [len(b.labels) for b in found]
    assert sizes[:-1] == [size] * (len(found) - 1)
    assert sizes[-1] == images - size * (len(found) - 1)  # the last one may hold fewer
    labels = np.concatenate([b.labels for b in found])
    assert sorted(labels) == list(range(images))
    pixels = np.concatenate([b.images for b in found])
    assert np.array_equal(pixels, _split(images).images[labels])


def test_the_order_is_that_of_the_stream(make_spec: MakeSpec) -> None:
    labels = np.concatenate([b.labels for b in _batches(make_spec, seed=4).epoch(2)])
    assert np.array_equal(labels, generator(4, Stream.ORDER, 2).permutation(23))


def test_equal_seeds_give_equal_batches_and_digests(make_spec: MakeSpec, network: Network) -> None:
    a, b = (
        _batches(make_spec, dropouts=_dropouts(network), seed=3, augmentation="crop_flip")
        for _ in range(2)
    )
    for epoch in range(2):
        assert _same(list(a.epoch(epoch)), list(b.epoch(epoch)))
    assert a.sha256() == b.sha256()


def test_an_epoch_is_the_same_whatever_was_asked_before(make_spec: MakeSpec) -> None:
    a, b = (_batches(make_spec, augmentation="crop") for _ in range(2))
    list(a.epoch(0))
    assert _same(list(a.epoch(1)), list(b.epoch(1)))


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"batch_size": 6}, {"augmentation": "crop_flip"}, {"images": 24}],
    ids=lambda c: next(iter(c)),
)
def test_the_digest_sees_what_differs(make_spec: MakeSpec, change: dict[str, Any]) -> None:
    a, b = _batches(make_spec, augmentation="crop"), _batches(
        make_spec, **{"augmentation": "crop", **change}
    )  # fmt: skip
    list(a.epoch(0))
    list(b.epoch(0))
    assert a.sha256() != b.sha256()


def test_the_digest_sees_dropout_and_epochs(make_spec: MakeSpec, network: Network) -> None:
    plain, masked = _batches(make_spec), _batches(make_spec, dropouts=_dropouts(network))
    list(plain.epoch(0))
    list(masked.epoch(0))
    first = plain.sha256()
    assert first != masked.sha256()
    list(plain.epoch(1))
    assert plain.sha256() != first


def test_the_digest_is_of_the_batches_given_out(make_spec: MakeSpec) -> None:
    batches = _batches(make_spec, images=40)
    epoch = batches.epoch(0)
    next(epoch)
    time.sleep(0.3)  # the thread makes batches ahead
    chosen = generator(0, Stream.ORDER, 0).permutation(40)[:5]
    first = hashlib.sha256(chosen.tobytes() + np.zeros((5, 3), np.int64).tobytes())
    given_out = hashlib.sha256(first.digest())  # a hash of the hashes of batches
    digest = batches.sha256()
    epoch.close()
    assert digest == given_out.hexdigest()


def test_masks_keep_their_share_and_are_channels_last(
    make_spec: MakeSpec, network: Network
) -> None:
    first, second = _dropouts(network)
    batches = _batches(make_spec, images=200, dropouts=(first, second), batch_size=64)
    found = list(batches.epoch(0))
    for batch in found:
        assert [m.shape for m in batch.masks] == [
            (len(batch.labels), 4, 4, 6), (len(batch.labels), 6),
        ]  # fmt: skip
        assert all(m.dtype == np.bool_ for m in batch.masks)
    kept = np.concatenate([b.masks[0].ravel() for b in found])
    assert kept.mean() == pytest.approx(0.75, abs=0.02)  # 19,200 draws at rate 0.25
    assert not np.array_equal(found[0].masks[0], found[1].masks[0])


class _Broken:
    """Images one of which cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    shape = (23, PX, PX, 3)

    def __getitem__(self, number: int) -> npt.NDArray[np.uint8]:
        if number == 3:
            raise self.error
        return np.zeros((PX, PX, 3), np.uint8)


@pytest.mark.parametrize("error", [OSError("disk gone"), MemoryError("no room")])
def test_an_error_while_preparing_reaches_whoever_wants_the_batch(
    make_spec: MakeSpec, error: Exception
) -> None:
    images: Any = _Broken(error)
    split = Split(images, np.arange(23, dtype=np.int64))
    recipe = make_spec(recipe={"px": PX, "batch_size": 5}).recipe
    before = threading.active_count()
    with pytest.raises(type(error), match=str(error)):
        list(TrainingBatches(split, recipe, (), 0).epoch(0))
    assert threading.active_count() == before


def test_an_epoch_that_is_left_early_leaves_no_thread(make_spec: MakeSpec) -> None:
    before = threading.active_count()
    epoch = _batches(make_spec, images=200, batch_size=1).epoch(0)
    next(epoch)
    epoch.close()
    assert threading.active_count() == before


# Augmentation


@pytest.mark.parametrize("name", ["none", "crop", "crop_flip"])
def test_parameters_are_within_reach(name: Any) -> None:
    drawn = augment.draw(name, 4000, 96, np.random.default_rng(0))
    assert drawn.shape == (4000, 3)
    assert drawn.dtype == np.int64
    reach = 0 if name == "none" else 96 // 8
    assert (drawn[:, :2].min(), drawn[:, :2].max()) == (-reach, reach)
    assert drawn[:, 2].mean() == pytest.approx(0.5 if name == "crop_flip" else 0.0, abs=0.05)


def test_crop_flip_moves_as_crop_does() -> None:
    crop = augment.draw("crop", 9, 96, np.random.default_rng(1))
    both = augment.draw("crop_flip", 9, 96, np.random.default_rng(1))
    assert np.array_equal(crop[:, :2], both[:, :2])


def test_no_augmentation_draws_nothing() -> None:
    random = np.random.default_rng(0)
    before = random.bit_generator.state
    augment.draw("none", 9, 96, random)
    assert random.bit_generator.state == before


@given(down=st.integers(-2, 2), right=st.integers(-2, 2), mirror=st.booleans())
def test_an_image_moves_over_its_repeated_border(down: int, right: int, mirror: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, PX, PX, 3), np.uint8)
    padded = np.pad(images[0], ((2, 2), (2, 2), (0, 0)), mode="edge")
    expected = padded[2 + down : 2 + down + PX, 2 + right : 2 + right + PX]
    if mirror:
        expected = expected[:, ::-1]
    before = images.copy()
    out = np.empty_like(images)
    augment.gather(images, [0], np.array([[down, right, mirror]], np.int64), out)
    assert np.array_equal(out[0], expected)
    assert np.array_equal(images, before)


def test_each_image_has_its_own_parameters() -> None:
    images = _split(3).images
    out = np.empty_like(images)
    augment.gather(images, range(3), np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0]]), out)
    assert np.array_equal(out[0], images[0])
    assert np.array_equal(out[1], images[1][:, ::-1])
    assert np.array_equal(out[2][:-1], images[2][1:])


def test_views_come_back_in_turn(make_spec: MakeSpec) -> None:
    """Images in epoch K are those of epoch 0 again, in a new order."""
    batches = _batches(make_spec, augmentation="crop_flip", views=2)
    epochs = []
    for number in range(4):
        images = {}
        for batch in batches.epoch(number):
            images.update(zip(batch.labels.tolist(), batch.images, strict=True))
        epochs.append([images[label] for label in sorted(images)])
    assert np.array_equal(epochs[0], epochs[2])
    assert np.array_equal(epochs[1], epochs[3])
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], _split(23).images)


@pytest.mark.parametrize("recipe", [{}, {"augmentation": "crop_flip", "views": 3}])
def test_values_come_in_place_of_images(make_spec: MakeSpec, recipe: dict[str, Any]) -> None:
    """Batches hold the mean of an image's pixels in place of the image."""
    what = make_spec(recipe={"px": PX, "batch_size": 5, **recipe}).recipe
    views = view_batches(_split(23), what, 0, augmented=True)
    values = np.concatenate(list(views)).astype(float).mean((1, 2, 3))
    assert len(values) == 23 * (what.views or 1)
    pixels = _batches(make_spec, **recipe)
    instead = TrainingBatches(_split(23), what, (), 0, values)
    for number in range(5):
        for one, other in zip(pixels.epoch(number), instead.epoch(number), strict=True):
            assert np.array_equal(one.images.astype(float).mean((1, 2, 3)), other.images)
            assert np.array_equal(one.labels, other.labels)
    assert pixels.sha256() == instead.sha256()


def test_images_that_are_not_augmented_come_in_order(make_spec: MakeSpec) -> None:
    recipe = make_spec(
        recipe={"px": PX, "batch_size": 5, "augmentation": "crop", "views": 2}
    ).recipe
    found = list(view_batches(_split(13), recipe, 0, augmented=False))
    assert [len(batch) for batch in found] == [5, 5, 3]
    assert np.array_equal(np.concatenate(found), _split(13).images)


def test_the_next_epoch_begins_while_the_one_before_is_validated(make_spec: MakeSpec) -> None:
    """Its batches are the same as without, and the last epoch leaves no thread."""
    made: list[tuple[int, ...]] = []

    def allocate(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        made.append(shape)
        return np.empty(shape, dtype)

    before = threading.active_count()
    batches = _batches(make_spec, augmentation="crop_flip")
    batches.epochs, batches.allocate = range(1, 4), allocate
    whole = _batches(make_spec, augmentation="crop_flip")
    for number in range(1, 4):
        assert _same(list(batches.epoch(number)), list(whole.epoch(number)))
        if number == 1:
            deadline = time.monotonic() + 10
            while len(made) < 5 + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(made) == 5 + 3, "three batches of epoch 2 are made ahead"
    assert batches.sha256() == whole.sha256()
    assert threading.active_count() == before


def test_a_consumer_that_counts_its_steps_ends_nothing(make_spec: MakeSpec) -> None:
    """A training loop takes as many batches as there are steps, and closes the epoch."""
    batches = _batches(make_spec)
    batches.epochs = range(2)
    first = batches.epoch(0)
    for _ in range(batches.steps_per_epoch):
        next(first)
    kept = batches._ahead
    first.close()
    assert batches._ahead is kept
    assert kept is not None
    list(batches.epoch(1))
    assert batches._ahead is None


def test_no_more_is_made_ahead_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.training.batches.MOST_AHEAD_BYTES", 100)
    for item_bytes, most in ((0, 10), (40, 2), (1000, 1)):
        ahead = Ahead(((lambda n=n: n) for n in range(50)), threads=8, item_bytes=item_bytes)
        ahead.fill()
        assert len(ahead._made) == most
        assert [ahead.take() for _ in range(3)] == [0, 1, 2]
        ahead.close()


def test_an_epoch_out_of_turn_is_the_one_that_was_asked_for(make_spec: MakeSpec) -> None:
    batches, whole = _batches(make_spec), _batches(make_spec)
    batches.epochs = range(4)
    for number in (0, 2, 0, 1):
        assert _same(list(batches.epoch(number)), list(whole.epoch(number)))
    batches.close()
    assert batches.sha256() == whole.sha256()


@pytest.mark.parametrize("threads", [2, 5, 8])
@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_threads_change_nothing(
    make_spec: MakeSpec, network: Network, threads: int, augmentation: str
) -> None:
    changes = {"px": PX, "batch_size": 3, "augmentation": augmentation}
    recipe = make_spec(recipe=changes).recipe
    dropouts = _dropouts(network)
    one = TrainingBatches(_split(23), recipe, dropouts, 0)
    several = TrainingBatches(_split(23), recipe, dropouts, 0, threads=threads)
    for number in range(2):
        assert _same(list(one.epoch(number)), list(several.epoch(number)))
    assert one.sha256() == several.sha256()


@pytest.mark.parametrize(
    ("device", "cores", "threads"), [("cpu", 64, 1), ("cuda:0", 16, 12), ("cuda:1", 6, 4),
                                     ("cuda:0", 1, 1), ("cuda:0", 64, 16)]
)  # fmt: skip
def test_a_gpu_is_fed_by_several_threads(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, threads: int
) -> None:
    monkeypatch.setattr("bench.training.batches.cores", lambda: cores)
    assert input_threads(device) == threads


@pytest.mark.parametrize(
    ("images", "joins", "sizes"),
    [
        (21, True, [5, 5, 5, 6]),
        (21, False, [5, 5, 5, 5, 1]),
        (22, True, [5, 5, 5, 5, 2]),
        (20, True, [5, 5, 5, 5]),
        (1, True, [1]),
    ],
)
def test_a_single_last_image_is_joined_to_the_batch_before_it(
    make_spec: MakeSpec, images: int, joins: bool, sizes: list[int]
) -> None:
    batches = _batches(make_spec, images)
    batches.joins_single = joins
    found = list(batches.epoch(0))
    assert [len(batch.labels) for batch in found] == sizes
    assert batches.steps_per_epoch == len(sizes)
    assert sorted(np.concatenate([b.labels for b in found])) == list(range(images))
