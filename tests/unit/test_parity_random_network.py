"""Tests of random networks for proofs: which BatchNorms end a branch, and their factors."""

from __future__ import annotations

from typing import Any

import pytest

from bench.network.blueprint import Blueprint, Network
from bench.parity.random_network import PLAIN_BRANCHES, _branch_ends, _end_factors


def _sum(name: str, *inputs: str) -> dict[str, Any]:
    return {"name": name, "kind": "add", "inputs": list(inputs), "shape": (4, 8, 8),
            "module_path": "", "stage": "stem", "tensors": {}, "attributes": {}}  # fmt: skip


def _norm(like: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    return {**like, "name": name, "inputs": [source]}


def _ends(network: Network, *sums: dict[str, Any]) -> set[str]:
    document = network.blueprint.model_dump()
    operations = [dict(o) for o in document["operations"]]
    (norm,) = (o for o in operations if o["name"] == "bn")
    more = [_norm(norm, "branch", "conv"), _norm(norm, "shortcut", "conv")]
    document["operations"] = [*operations, *more, *sums]
    return _branch_ends(Blueprint.model_validate(document))


def test_the_end_of_a_branch_is_the_norm_that_is_added(network: Network) -> None:
    assert _ends(network) == set()  # its branch ends in a convolution
    assert _ends(network, _sum("s", "branch", "relu")) == {"branch"}
    assert _ends(network, _sum("s", "relu", "branch")) == {"branch"}


def test_of_two_norms_one_is_the_shortcuts(network: Network) -> None:
    assert _ends(network, _sum("s", "branch", "shortcut")) == {"branch"}


def test_many_branches_end_in_smaller_factors() -> None:
    assert _end_factors(0) == _end_factors(1) == _end_factors(PLAIN_BRANCHES) == (0.1, 0.3)
    four_times = _end_factors(4 * PLAIN_BRANCHES)
    assert four_times == (pytest.approx(0.1 / 8), pytest.approx(0.3 / 8))
