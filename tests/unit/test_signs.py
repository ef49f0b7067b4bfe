"""Signs that images cannot support advice: planted ones are found, good sets are left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bench.advise.images import Development, development, stratified_order
from bench.advise.probes import Probe
from bench.advise.signs.check import after_probes, before_probes
from bench.advise.signs.labels import chance_of, wrong_share
from bench.data import SplitSizes, open_dataset, pack

CLASSES, EACH, SIDE = 4, 24, 48
Pixels = npt.NDArray[np.uint8]
Change = Callable[[Pixels, int, int], Pixels]
"""Changes the image of a class with this number."""


def _stripes(label: int, number: int) -> Pixels:
    """Return stripes whose direction is the class; colour, place and contrast are drawn."""
    random = np.random.default_rng([label, number])
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angle = np.pi * (label + 0.3 * random.uniform(-1, 1)) / CLASSES
    waves = np.sin(2 * np.pi * (5 * (np.cos(angle) * x + np.sin(angle) * y) + random.uniform()))
    colours = random.uniform(60, 200, 3) + random.uniform(20, 50) * waves[..., None]
    noise = random.normal(0, 12, (SIDE, SIDE, 3))
    image: Pixels = np.clip(colours + noise, 0, 255).astype(np.uint8)
    return image


def _folder(root: Path, change: Change = lambda image, label, number: image,
            counts: tuple[int, ...] = (EACH,) * CLASSES) -> str:  # fmt: skip
    for label, count in enumerate(counts):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(change(_stripes(label, number), label, number)).save(
                folder / f"{number}.png"
            )
    return f"folder:{root}"


def _development(name: str, cache: Path) -> Development:
    dataset = open_dataset(name, SplitSizes(), cache_dir=cache)
    return development(dataset, pack(dataset, 32, cache), is_val_own=False)


def _probe(data: Development, accuracy: float = 0.95) -> Probe:
    """Return the answers of a network with mistakes among neighbouring classes."""
    labels = data.pool.labels[data.held_out]
    wrong = np.random.default_rng(0).uniform(size=len(labels)) > accuracy
    predicted = np.where(wrong, (labels + 1) % len(data.dataset.classes), labels)
    return Probe("made", "linear", predicted == labels, predicted, 10.0, 0.2)


def _kinds(data: Development, best: Probe | None = None) -> set[str]:
    found = before_probes(data) + after_probes(data, best or _probe(data))
    return {one.kind for one in found}


def test_a_good_set_is_left_alone(tmp_path: Path) -> None:
    data = _development(_folder(tmp_path / "good"), tmp_path / "cache")
    assert _kinds(data) == set()


def _border(image: Pixels, label: int, number: int) -> Pixels:
    framed = image.copy()
    for edge in (np.s_[:3], np.s_[-3:], np.s_[:, :3], np.s_[:, -3:]):
        framed[edge] = 40 + 50 * label
    return framed


def _size(image: Pixels, label: int, number: int) -> Pixels:
    side = SIDE + 16 * label
    return np.asarray(Image.fromarray(image).resize((side, side)))


def _tint(image: Pixels, label: int, number: int) -> Pixels:
    weights = np.array([[1.0, 0.3, 0.3], [0.3, 1.0, 0.3], [0.3, 0.3, 1.0], [1.0, 1.0, 0.3]])[label]
    grey = image.mean(axis=2, keepdims=True) / 2 + 60
    return (grey * weights).astype(np.uint8)


def _video(image: Pixels, label: int, number: int) -> Pixels:
    """Return nearly the same frame for all images of a class."""
    random = np.random.default_rng([label, number])
    frame = _stripes(label, 0).astype(np.float64)
    return np.clip(frame + random.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", [_border, _size, _tint, _video])
def test_a_shortcut_is_found_with_files_that_show_it(change: Change, tmp_path: Path) -> None:
    data = _development(_folder(tmp_path / "bad", change), tmp_path / "cache")
    found = before_probes(data) + after_probes(data, _probe(data))
    assert "shortcut" in {one.kind for one in found}
    assert all(Path(file.partition(" = ")[0]).is_file() for one in found for file in one.files)
    assert all(one.files for one in found)


@pytest.mark.parametrize("change", [_border, _size])
def test_a_shortcut_of_one_class_is_found(change: Change, tmp_path: Path) -> None:
    def only_of_class_2(image: Pixels, label: int, number: int) -> Pixels:
        return change(image, label, number) if label == 2 else image

    data = _development(_folder(tmp_path / "bad", only_of_class_2), tmp_path / "cache")
    (sign,) = before_probes(data) + after_probes(data, _probe(data))
    assert sign.kind == "shortcut"
    assert "alone distinguishes 'class2' from all others" in sign.message
    assert all(Path(file).parent.name == "class2" for file in sign.files)
    assert sign.files


def test_a_class_of_one_colour_is_no_shortcut(tmp_path: Path) -> None:
    def orange(image: Pixels, label: int, number: int) -> Pixels:
        return _tint(image, label, number) if label == 2 else image

    data = _development(_folder(tmp_path / "good", orange), tmp_path / "cache")
    assert _kinds(data) == set()


def test_two_classes_may_have_colours_of_their_own(tmp_path: Path) -> None:
    data = _development(_folder(tmp_path / "good", _tint, (EACH, EACH)), tmp_path / "cache")
    assert _kinds(data) == set()


def test_a_frequent_class_is_no_sign_of_wrong_labels(tmp_path: Path) -> None:
    """Six of seven are right where four of five are of one class: no chance, though always naming
    that class would be right nearly as often. Always naming it shows nothing."""
    data = _development(_folder(tmp_path / "good", counts=(64, 16)), tmp_path / "cache")
    found = _probe(data, 0.86)
    is_frequent = data.pool.labels[data.held_out] == 0
    assert is_frequent.sum() < found.right.sum() < is_frequent.sum() + 6
    assert _kinds(data, found) == set()
    always = np.zeros(len(is_frequent), np.int64)
    assert _kinds(data, Probe("made", "linear", is_frequent, always, 1.0, 0.5)) == {"labels"}


def test_the_chance_of_an_accuracy_is_that_for_shuffled_labels() -> None:
    given = np.repeat([0, 1], [24, 6])
    one_wrong = np.repeat([0, 1], [25, 5])
    assert chance_of(given, one_wrong) < 0.001
    assert chance_of(given, np.zeros(30, np.int64)) == 1.0, "always the frequent class"
    random = np.random.default_rng(0)
    by_chance = [chance_of(given, random.permutation(given)) for _ in range(200)]
    assert np.mean(np.array(by_chance) <= 0.05) <= 0.08


def test_shuffled_labels_are_found(tmp_path: Path) -> None:
    data = _development(_folder(tmp_path / "bad"), tmp_path / "cache")
    labels = data.pool.labels[data.held_out]
    predicted = np.random.default_rng(0).permutation(labels)
    best = Probe("made", "linear", predicted == labels, predicted, 1.0, 1.4)
    assert _kinds(data, best) == {"labels"}


@pytest.mark.parametrize(("share", "most"), [(0.0, 0.1), (0.3, 0.45), (0.6, 0.75), (0.8, 1.0)])
def test_the_share_of_random_labels_is_estimated(share: float, most: float) -> None:
    random, classes, images = np.random.default_rng(5), 10, 600
    true = np.arange(images) % classes
    confused = random.uniform(size=images) < 0.15
    predicted = np.where(confused, (true + random.integers(1, 3, images)) % classes, true)
    given = np.where(random.uniform(size=images) < share, random.integers(0, classes, images), true)
    assert share - 0.15 <= wrong_share(given, predicted, classes) <= most


def test_copies_of_training_images_in_the_test_are_found(tmp_path: Path) -> None:
    """Half of the test images are training images, saved anew at another size and quality."""
    name = _folder(tmp_path / "bad" / "train")
    for label in range(CLASSES):
        folder = tmp_path / "bad" / "test" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(8):
            image = Image.fromarray(_stripes(label, number if number < 4 else 100 + number))
            image.resize((SIDE + 10, SIDE + 10)).save(folder / f"{number}.jpg", quality=90)
    data = _development(name.removesuffix("/train"), tmp_path / "cache")
    found = before_probes(data)
    assert [one.kind for one in found] == ["copies"]
    assert "of 32 test images" in found[0].message
    assert " = " in found[0].files[0]


def test_images_of_one_tint_are_no_copies(tmp_path: Path) -> None:
    """Red pictures are alike in being red; that is no sign that one was saved twice."""

    def red(image: Pixels, label: int, number: int) -> Pixels:
        faint = 0.1 * (image.mean(axis=2) - 130)
        return np.clip(faint[..., None] + [220, 70, 40], 0, 255).astype(np.uint8)

    name = _folder(tmp_path / "red" / "train", red)
    for label in range(CLASSES):
        folder = tmp_path / "red" / "test" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(8):
            image = red(_stripes(label, 100 + number), label, number)
            Image.fromarray(image).save(folder / f"{number}.png")
    data = _development(name.removesuffix("/train"), tmp_path / "cache")
    assert before_probes(data) == []


def test_one_dominant_class_is_found(tmp_path: Path) -> None:
    counts = (12, 12, 300)
    data = _development(_folder(tmp_path / "bad", counts=counts), tmp_path / "cache")
    found = before_probes(data)
    assert [one.kind for one in found] == ["dominant_class"]
    assert "'class2'" in found[0].message


def test_too_few_images_are_found(tmp_path: Path) -> None:
    data = _development(_folder(tmp_path / "bad", counts=(4, 20, 20)), tmp_path / "cache")
    found = before_probes(data)
    assert [one.kind for one in found] == ["too_few"]
    assert "'class0' (3)" in found[0].message


def _with_own_split(data: Development, fit_of_a_class: int, held_out: int) -> Development:
    """Return a set with so many training images of each class, and so many validation images."""
    order = stratified_order(data.pool.labels)
    fit = np.concatenate([
        np.flatnonzero(data.pool.labels == label)[:fit_of_a_class] for label in range(1, CLASSES)
    ])  # fmt: skip
    val = np.setdiff1d(order, fit, assume_unique=True)[:held_out]
    kept = np.concatenate([fit, val])
    pool = replace(
        data.pool, images=data.pool.images[kept], labels=data.pool.labels[kept],
        names=tuple(data.pool.names[index] for index in kept),
    )  # fmt: skip
    fold_of = np.concatenate([np.full(len(fit), -1), np.zeros(len(val), np.int64)])
    return replace(data, pool=pool, fold_of=fold_of, whole_counts=np.full(CLASSES, 20))


def test_a_class_without_a_training_image_beside_an_own_split_is_found(tmp_path: Path) -> None:
    data = _development(_folder(tmp_path / "set"), tmp_path / "cache")
    (found,) = before_probes(_with_own_split(data, fit_of_a_class=4, held_out=30))
    assert found.kind == "too_few"
    assert found.message == "there is no training image of the classes 'class0'"


def test_validation_images_too_few_to_compare_by_are_found(tmp_path: Path) -> None:
    data = _development(_folder(tmp_path / "set"), tmp_path / "cache")
    data = _with_own_split(data, fit_of_a_class=8, held_out=30)
    chosen = np.flatnonzero(data.pool.labels > 0)[: 24 + 3]
    pool = replace(
        data.pool, images=data.pool.images[chosen], labels=data.pool.labels[chosen],
        names=tuple(data.pool.names[index] for index in chosen),
    )  # fmt: skip
    (found,) = before_probes(replace(data, pool=pool, fold_of=data.fold_of[chosen]))
    assert found.kind == "too_few"
    assert found.message.startswith("3 validation images are too few")


def test_copies_of_training_images_show_where_a_part_of_these_is_looked_at(tmp_path: Path) -> None:
    """Look at a tenth of the training images: 12 of 400 test images are copies of it. That is
    below the bound for a set of which all is seen, and above a tenth of it."""
    data = _development(_folder(tmp_path / "set"), tmp_path / "cache")
    random = np.random.default_rng(0)
    fit = data.packed.train.images
    test = random.integers(0, 256, (400, *fit.shape[1:])).astype(np.uint8)
    test[:12] = fit[:12]
    labels = np.arange(400) % CLASSES
    packed = replace(data.packed, test=replace(data.packed.test, images=test, labels=labels))
    seen = replace(data, packed=packed)
    assert before_probes(seen) == [], "of all training images, so few would be no sign"
    whole = replace(seen, whole_counts=10 * np.bincount(data.pool.labels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(data.dataset.source), "where", lambda self, split, index: split)
        (found,) = before_probes(whole)
    assert found.kind == "copies"
    assert found.message.startswith("12 of 400 test images")


def test_a_class_without_an_image_left_for_training_is_no_crash(tmp_path: Path) -> None:
    """All three images of the first class are in the test, as the few of a rare class may be."""
    data = _development(_folder(tmp_path / "rare"), tmp_path / "cache")
    kept = np.flatnonzero(data.pool.labels != 0)
    pool = replace(
        data.pool, images=data.pool.images[kept], labels=data.pool.labels[kept],
        names=tuple(data.pool.names[index] for index in kept),
    )  # fmt: skip
    left = replace(data, pool=pool, fold_of=data.fold_of[kept])
    assert "shortcut" not in {one.kind for one in before_probes(left)}


def test_a_class_is_too_small_by_all_its_images_and_not_by_those_looked_at(tmp_path: Path) -> None:
    data = _development(_folder(tmp_path / "rare"), tmp_path / "cache")
    rare = np.flatnonzero(data.pool.labels == 0)[2:]
    kept = np.setdiff1d(np.arange(len(data.pool.labels)), rare)
    pool = replace(
        data.pool, images=data.pool.images[kept], labels=data.pool.labels[kept],
        names=tuple(data.pool.names[index] for index in kept),
    )  # fmt: skip
    left = replace(data, pool=pool, fold_of=data.fold_of[kept])
    assert [one.kind for one in before_probes(left)] == ["too_few"]
    whole = replace(left, whole_counts=np.array([30, 900, 900, 900]))
    assert before_probes(whole) == []
