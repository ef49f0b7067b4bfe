"""Which form the frozen part is computed in: by the amount of work alone."""

from __future__ import annotations

import pytest

from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.network.cost import multiply_adds
from bench.network.freezing import plan_training
from bench.network.frozen_prefix import boundary_of
from bench.training import prefix_cache as forms
from bench.training.prefix_cache import FORMS, From, form_for
from tests.parity.small_networks import small_network

BLUEPRINT = small_network().blueprint
BOUNDARY = boundary_of(BLUEPRINT, plan_training(BLUEPRINT, POLICIES["freeze_all"]))


PLAIN = small_network("plain").blueprint


def _form(images: int, device: str = "cpu", backend: str = "torch") -> str:
    assert BOUNDARY is not None
    return form_for(BLUEPRINT, BOUNDARY, images, backend, device)


def test_every_backend_has_a_form_for_the_least_work_and_more_for_more() -> None:
    assert {backend for backend, _ in FORMS} == set(BACKENDS)
    for backend, device in FORMS:
        table = FORMS[backend, device]
        assert table[0].multiply_adds == 0.0
        assert sorted(table, key=lambda f: f.multiply_adds) == list(table)
        assert _form(1, f"{device}:0" if device == "cuda" else device, backend) == table[0].form


def test_where_there_is_nothing_to_fold_the_network_stays_as_it_is() -> None:
    """A copy of VGG16 took Keras 2 s more than VGG16 itself, of 25 s."""
    boundary = boundary_of(PLAIN, plan_training(PLAIN, POLICIES["freeze_all"]))
    assert boundary is not None
    for backend in BACKENDS:
        assert form_for(PLAIN, boundary, 10**9, backend, "cuda:0") == "plain"
    assert form_for(PLAIN, boundary, 1, "torch", "cpu") == "plain"


@pytest.mark.parametrize(("device", "cores", "factor"), [("cpu", 1, 1), ("cpu", 3, 3),
                                                         ("cuda:1", 3, 1)])  # fmt: skip
def test_more_work_takes_another_form(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, factor: int
) -> None:
    """The work is that of the frozen part alone, in all images; a CPU of more cores does more of it
    in the time that making a form takes."""
    one = sum(multiply_adds(o, BLUEPRINT) for o in BLUEPRINT.operations if o.stage != "head")
    table = (From("plain", 0.0), From("folded", 10.0 * one), From("compiled", 100.0 * one))
    monkeypatch.setitem(FORMS, ("torch", device.partition(":")[0]), table)
    monkeypatch.setattr(forms, "cores", lambda: cores)
    found = [_form(images * factor, device) for images in (9, 10, 99, 100)]
    assert found == ["plain", "folded", "folded", "compiled"]
