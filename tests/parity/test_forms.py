"""The values of a frozen part do not depend on the form in which they are computed."""

from __future__ import annotations

import pytest

from bench.catalog.backends import BACKENDS
from tests.frameworks import BACKENDS as PAIR
from tests.frameworks import run_module

FORMS = {
    "torch": ["folded", "compiled"],
    "keras-tensorflow": ["folded"],
    "keras-torch": ["folded"],
    "keras-jax": ["folded"],
}
TOLERANCE = {"fp64": 1e-13, "bf16": 0.03}
"""bf16 has 8 significant bits, and folding rounds the product of kernel and factor once."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", FORMS)
def test_forms_agree(backend: str) -> None:
    variables = BACKENDS[backend].variables
    found = run_module(backend, "tests.parity.forms_worker", *FORMS[backend], variables=variables)[
        -1
    ]
    assert len(found) == (4 if backend in PAIR else 1) * len(FORMS[backend])
    for key, values in found.items():
        form, _, _, precision = key.split()
        assert values["form"] == form, key
        assert values["shape"] == [True, True], key
        assert values["dtype"] == ("float64" if precision == "fp64" else "float32")
        assert values["gap"] <= TOLERANCE[precision], (key, values)
        assert values["spread"] > 1e-2, "images must not all give the same"
        assert values["compile"] is (False if backend == "torch" else None), "training is not"
