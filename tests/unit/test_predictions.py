"""A run's saved predictions: the file, and the answers kept beside the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from bench.analysis.predictions import answers_of, confusion, largest_confusions
from bench.spec.result import RunResult
from bench.storage.results import StoredRun
from bench.training.predictions import FILE, image_answers, per_image, prediction_fields
from tests.unit.test_metrics import logits_and_labels


def test_each_image_is_right_or_wrong_and_has_the_true_class_s_probability() -> None:
    right, probability = per_image(np.log([[0.7, 0.3], [0.6, 0.4]]), np.array([0, 1]))
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
        make_run(result=prediction_fields(tmp_path)).result.model_dump_json()
    )
    (tmp_path / FILE).unlink()
    beside = answers_of(StoredRun(make_run().spec, make_run().environment, kept, tmp_path))
    assert of_file is not None
    assert beside is not None
    assert beside.right.tolist() == of_file.right.tolist() == (logits.argmax(1) == labels).tolist()
    assert beside.labels_sha256 == of_file.labels_sha256
    others = np.where(labels == 0, 1, 0)
    assert image_answers(logits, others).labels_sha256 != of_file.labels_sha256


@pytest.mark.parametrize("bits", ["AA", "AAA=", "no base64!", "", "é"])
def test_answers_that_are_cut_off_are_none(make_run: Callable[..., StoredRun], bits: str) -> None:
    kept = {"images": 12, "labels_sha256": "ab" * 32, "right_bits": bits}
    run = make_run(result={"test_answers": kept})
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
    found_confusions = largest_confusions(tmp_path, most=3)
    assert found_confusions is not None
    counts = confusion_matrix(labels, logits.argmax(1))
    wrong = {(i, j): int(n) for (i, j), n in np.ndenumerate(counts) if i != j and n}
    assert found_confusions["kinds"] == len(wrong)
    assert [count for *_, count in found_confusions["largest"]] == sorted(
        wrong.values(), reverse=True
    )[:3]
    assert all(wrong[is_one, said] == count for is_one, said, count in found_confusions["largest"])
    np.savez(tmp_path / FILE, logits=logits, labels=np.full(len(labels), "cat"))
    assert answers_of(run) is None  # labels that are not numbers
    np.savez_compressed(tmp_path / FILE, logits=logits, labels=labels)
    whole = (tmp_path / FILE).read_bytes()
    for torn in (b"", whole[:50], whole[: len(whole) // 2], b"no archive"):
        (tmp_path / FILE).write_bytes(torn)
        assert answers_of(run) is None
        assert prediction_fields(tmp_path) == {}
        assert confusion(tmp_path, 4) is None
        assert largest_confusions(tmp_path) is None
