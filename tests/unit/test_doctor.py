"""What ``doctor`` needs, and what it can do without."""

from __future__ import annotations

import pytest

from bench import doctor
from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS
from bench.launch import Interpreters
from tests.conftest import _environment


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_default_pair_is_needed(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    bare = _environment(backend=backend, packages={"numpy": "2.0.0"})
    monkeypatch.setattr(doctor, "environment_of", lambda *_: bare)
    (finding,) = doctor._backend(backend, Interpreters({}))
    assert not finding.ok
    assert finding.needed == (backend in DEFAULT_BACKENDS)
    assert finding.mend is not None
    assert finding.mend.endswith(" ".join(BACKENDS[backend].packages))
