"""Grades of predictions, against scikit-learn and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from bench.grades import FILE, calibration_error, grades, grades_of
from bench.report.predictions import answers_of, confusion
from bench.scores import of_each_image


def logits_and_labels(classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(200, classes)), random.integers(0, classes, 200)


def test_grades_are_scikit_learn_s() -> None:
    logits, labels = logits_and_labels()
    found, said = grades(logits, labels), logits.argmax(1)
    assert found["test_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, said))
    assert found["test_macro_f1"] == pytest.approx(f1_score(labels, said, average="macro"))


def test_a_class_without_images_counts_nowhere() -> None:
    logits, labels = np.eye(3)[[0, 1, 2, 1]] * 9.0, np.array([0, 1, 0, 1])
    assert grades(logits, labels)["test_balanced_accuracy"] == pytest.approx(0.75)


def test_calibration_by_hand() -> None:
    """Four answers with confidence 0.8, three of them right: off by 0.05; two with 0.55, none
    right: off by 0.55; weighed by their images."""

    def logit(p: float) -> list[float]:
        return [np.log(p / (1 - p)), 0.0]

    logits = np.array([logit(0.8)] * 4 + [logit(0.55)] * 2)
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert calibration_error(logits, labels) == pytest.approx((4 * 0.05 + 2 * 0.55) / 6)


def test_each_image_has_its_answer_and_the_true_class_s_probability() -> None:
    right, probability = of_each_image(np.log([[0.7, 0.3], [0.6, 0.4]]), np.array([0, 1]))
    assert right.tolist() == [True, False]
    assert probability == pytest.approx([0.7, 0.4])


def test_files_of_an_earlier_version_and_torn_ones(tmp_path: Path) -> None:
    logits, labels = logits_and_labels()
    np.savez_compressed(tmp_path / FILE, logits=logits, labels=labels)
    answers = answers_of(tmp_path)
    assert answers is not None
    assert answers.right.mean() == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert confusion(tmp_path, 4) == confusion_matrix(labels, logits.argmax(1)).tolist()
    whole = (tmp_path / FILE).read_bytes()
    for torn in (b"", whole[:50], whole[: len(whole) // 2], b"no archive"):
        (tmp_path / FILE).write_bytes(torn)
        assert answers_of(tmp_path) is None
        assert grades_of(tmp_path) == {}
        assert confusion(tmp_path, 4) is None
