"""Grades of predictions, against scikit-learn and by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from bench.analysis.predictions import answers_of, confusion, largest_confusions
from bench.spec.result import RunResult
from bench.storage.results import StoredRun
from bench.training.metrics import (
    FILE,
    answers,
    calibration_error,
    grades,
    grades_of,
    of_each_image,
)


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


@pytest.mark.parametrize("images", [1, 8, 200])
def test_answers_lie_beside_the_result(
    make_run: Callable[..., StoredRun], tmp_path: Path, images: int
) -> None:
    logits, labels = (part[:images] for part in logits_and_labels())
    np.savez_compressed(tmp_path / FILE, logits=logits, labels=labels)
    of_file = answers_of(replace(make_run(), folder=tmp_path))
    kept = RunResult.model_validate_json(
        make_run(result=grades_of(tmp_path)).result.model_dump_json()
    )
    (tmp_path / FILE).unlink()
    beside = answers_of(StoredRun(make_run().spec, make_run().environment, kept, tmp_path))
    assert of_file is not None
    assert beside is not None
    assert beside.right.tolist() == of_file.right.tolist() == (logits.argmax(1) == labels).tolist()
    assert beside.labels_sha256 == of_file.labels_sha256
    others = np.where(labels == 0, 1, 0)
    assert answers(logits, others).labels_sha256 != of_file.labels_sha256


@pytest.mark.parametrize("bits", ["AA", "AAA=", "no base64!", "", "é"])
def test_answers_that_are_cut_off_are_none(make_run: Callable[..., StoredRun], bits: str) -> None:
    told = {"images": 12, "labels_sha256": "ab" * 32, "right_bits": bits}
    run = make_run(result={"test_answers": told})
    found = answers_of(run)
    assert (found is None) == (bits != "AAA=")


def test_files_of_an_earlier_version_and_torn_ones(
    make_run: Callable[..., StoredRun], tmp_path: Path
) -> None:
    logits, labels = logits_and_labels()
    np.savez_compressed(tmp_path / FILE, logits=logits, labels=labels)
    run = replace(make_run(), folder=tmp_path)
    found = answers_of(run)
    assert found is not None
    assert found.right.mean() == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert confusion(tmp_path, 4) == confusion_matrix(labels, logits.argmax(1)).tolist()
    told = largest_confusions(tmp_path, most=3)
    assert told is not None
    counts = confusion_matrix(labels, logits.argmax(1))
    wrong = {(i, j): int(n) for (i, j), n in np.ndenumerate(counts) if i != j and n}
    assert told["kinds"] == len(wrong)
    assert [count for *_, count in told["largest"]] == sorted(wrong.values(), reverse=True)[:3]
    assert all(wrong[is_one, said] == count for is_one, said, count in told["largest"])
    np.savez(tmp_path / FILE, logits=logits, labels=np.full(len(labels), "cat"))
    assert answers_of(run) is None  # no numbers
    np.savez_compressed(tmp_path / FILE, logits=logits, labels=labels)
    whole = (tmp_path / FILE).read_bytes()
    for torn in (b"", whole[:50], whole[: len(whole) // 2], b"no archive"):
        (tmp_path / FILE).write_bytes(torn)
        assert answers_of(run) is None
        assert grades_of(tmp_path) == {}
        assert confusion(tmp_path, 4) is None
        assert largest_confusions(tmp_path) is None
