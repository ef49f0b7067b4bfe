"""Both adapters compute the same for every kind of operation, in float64."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from bench.network.blueprint import OperationKind
from tests.frameworks import BACKENDS, logits
from tests.parity.sketches import CLASSES, PX, SKETCHES, Sketch

TOLERANCE = 1e-13
Logits = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Logits, Logits]:
    folder = tmp_path_factory.mktemp("operations")
    images = np.random.default_rng(1).integers(0, 256, (3, PX, PX, 3), dtype=np.uint8)
    items = {}
    for number, grow in enumerate(SKETCHES.values()):
        place = folder / str(number)
        place.mkdir()
        grow(Sketch()).finished().save(place)
        items[str(number)] = (place, images)
    names = dict(zip(items, SKETCHES, strict=True))
    found = [logits(backend, items, folder, "fp64") for backend in BACKENDS]
    first, second = ({names[key]: values for key, values in one.items()} for one in found)
    return first, second


def test_every_kind_is_there() -> None:
    assert {name.split(",")[0] for name in SKETCHES} == set(get_args(OperationKind))


@pytest.mark.parametrize("name", SKETCHES)
def test_logits_agree(both: tuple[Logits, Logits], name: str) -> None:
    torch_logits, keras_logits = (found[name] for found in both)
    assert torch_logits.shape == keras_logits.shape == (3, CLASSES)
    assert torch_logits.dtype == keras_logits.dtype == np.float64
    scale = np.abs(torch_logits).max()
    assert np.abs(torch_logits - keras_logits).max() / scale <= TOLERANCE
    # The network must not ignore its images, or the comparison would be inconclusive.
    assert np.abs(torch_logits[0] - torch_logits[1]).max() / scale > 1e-3
