"""Probes on features, learning on some images and tested on others."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from bench.advise import probes
from bench.advise.images import divided, stratified_order
from bench.advise.probes import PIXEL_SIDE, STRENGTHS, best_probe, pixel_features, probe
from bench.advise.similarity import similarity_of, similarity_word
from bench.data.resplit import ImagePool

RANDOM = np.random.default_rng(0)
CLASSES, EACH = 5, 40
LABELS = np.repeat(np.arange(CLASSES), EACH)
FOLDS = np.arange(CLASSES * EACH) % 4


def _features(
    distance: float, count: int = 64
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return features of classes whose centres lie this far apart."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(CLASSES, count)) * distance
    return centres[LABELS] + random.normal(size=(len(LABELS), count))


def test_probes_find_classes_that_lie_apart_and_none_where_there_are_none() -> None:
    for kind in ("linear", "neighbours"):
        (apart,) = probe("far", _features(1.0), LABELS, FOLDS, (kind,))
        (mixed,) = probe("near", _features(0.0), LABELS, FOLDS, (kind,))
        assert apart.top1 > 0.95
        assert mixed.top1 < 0.4
        assert len(apart.right) == len(LABELS), "every image is held out once"
        assert (apart.predicted == LABELS)[apart.right].all()


def test_images_outside_of_folds_are_never_tested() -> None:
    fold_of = np.where(np.arange(len(LABELS)) % 4 == 0, 0, -1)
    (one,) = probe("far", _features(1.0), LABELS, fold_of, ("linear",))
    assert len(one.right) == (fold_of == 0).sum()
    assert one.top1 > 0.95


def test_more_features_than_images_change_little() -> None:
    few = probe("few", _features(0.4), LABELS, FOLDS, ("linear",))[0]
    padded = np.hstack([_features(0.4), np.zeros((len(LABELS), 2000))])
    many = probe("many", padded, LABELS, FOLDS, ("linear",))[0]
    assert many.top1 == pytest.approx(few.top1, abs=0.03)


def test_a_weak_signal_takes_a_strong_penalty() -> None:
    weak = probe("weak", _features(0.1), LABELS, FOLDS, ("linear",))[0]
    strong = probe("strong", _features(2.0), LABELS, FOLDS, ("linear",))[0]
    assert (weak.strength or 0) < (strong.strength or 0)
    assert best_probe([weak, strong]) is strong


def test_a_class_that_the_fit_lacks_is_wrong_and_no_error() -> None:
    fold_of = np.where(LABELS == 0, 0, np.where(FOLDS == 1, 0, -1))
    (one,) = probe("lacks", _features(1.0), LABELS, fold_of, ("linear",))
    held_out = LABELS[fold_of == 0]
    assert not one.right[held_out == 0].any()
    assert one.right[held_out != 0].mean() > 0.9


def test_pixels_are_means_of_blocks() -> None:
    images = RANDOM.integers(0, 256, (3, 32, 32, 3), np.uint8)
    features = pixel_features(images).reshape(3, PIXEL_SIDE, PIXEL_SIDE, 3)
    block = images[1, 2:4, 6:8].reshape(-1, 3).mean(axis=0) / 255
    assert features[1, 1, 3] == pytest.approx(block, abs=1e-6)


def test_similarity_is_the_share_of_errors_that_pretraining_removes() -> None:
    good, bad, none = (
        probe(name, _features(distance), LABELS, FOLDS, ("linear",))[0]
        for name, distance in (("good", 0.5), ("bad", 0.15), ("none", 0.0))
    )
    similar = similarity_of(good, bad, none)
    assert similar.removed_errors > 0.8
    assert similar.gain == pytest.approx(good.top1 - bad.top1)
    assert similarity_word(similar) == "similar"
    assert similarity_word(similarity_of(bad, none, good)) == "not_similar"
    fair = probe("fair", _features(0.3), LABELS, FOLDS, ("linear",))[0]
    assert similarity_word(similarity_of(fair, fair, none)) == "not_similar"


def test_where_baselines_have_no_errors_nothing_can_be_said_about_similarity() -> None:
    (found,) = probe("all", _features(5.0), LABELS, FOLDS, ("linear",))
    evidence = similarity_of(found, found, found)
    assert evidence.errors == 0
    assert similarity_word(evidence) is None


def test_folds_keep_the_shares_of_classes_and_the_groups_together() -> None:
    labels = np.repeat([0, 1], [60, 20])
    images = np.zeros((80, 2, 2, 3), np.uint8)
    groups = np.arange(80) // 2
    for given in (None, groups):
        fold_of = divided(ImagePool(images, labels, given, ("",) * 80), 4)
        for fold in range(4):
            assert (labels[fold_of == fold] == 1).sum() == pytest.approx(5, abs=1)
        if given is not None:
            assert all(len(set(fold_of[groups == g])) == 1 for g in range(40))


def test_there_are_no_more_folds_than_images_of_a_class() -> None:
    labels = np.repeat([0, 1], [30, 2])
    fold_of = divided(ImagePool(np.zeros((32, 2, 2, 3), np.uint8), labels, None, ("",) * 32), 4)
    assert fold_of.max() == 1


def test_small_subsets_are_part_of_larger_ones_with_every_class_in_each() -> None:
    labels = np.repeat([0, 1, 2], [50, 20, 2])
    order = stratified_order(labels)
    assert sorted(order) == list(range(72))
    assert set(labels[order[:3]]) == {0, 1, 2}
    half = np.bincount(labels[order[:36]])
    assert half[0] == pytest.approx(25, abs=2)
    assert list(stratified_order(labels)) == list(order)
    assert list(stratified_order(labels, 1)) != list(order)


def test_too_little_time_leaves_out_weak_penalties() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    features = random.normal(size=(120, 8)) + labels[:, None]
    fold_of = np.arange(120) // 3 % 4
    (whole,) = probe("made", features, labels, fold_of, ("linear",))
    (short,) = probe("made", features, labels, fold_of, ("linear",), seconds=0.0)
    assert short.strength == STRENGTHS[0]
    assert len(short.right) == len(whole.right) == 120


def test_fits_use_one_thread_of_linear_algebra(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> list[int]:
        return [one["num_threads"] for one in threadpool_info()]

    seen, scaled, before = list[list[int]](), probes._scaled, threads()

    def watched(*features: probes.Array) -> tuple[probes.Array, probes.Array]:
        seen.append(threads())
        return scaled(*features)

    monkeypatch.setattr(probes, "_scaled", watched)
    probe("far", _features(1.0), LABELS, FOLDS, ("linear",))
    assert seen
    assert all(set(one) == {1} for one in seen)
    assert threads() == before
