"""The example of an own network: proved, and run by both backends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.test_command import command

NAME = "module:examples/my_net.py:build"


@pytest.mark.slow
def test_the_example_is_proved_and_its_rows_say_so(tmp_path: Path, shared_cache: Path) -> None:
    proof = command(
        "parity", NAME, "--policy", "fine_tune_last", "--optimizer", "adamw", "--json",
        cache=shared_cache,
    )  # fmt: skip
    (pair,) = json.loads(proof.stdout)["pairs"]
    assert pair["passed"], pair["reason"]
    assert pair["backbone"] == "module:my_net.py:build"
    assert {level["name"] for level in pair["levels"] if level["floor"] is not None} >= {
        "logits", "gradients", "losses",
    }  # fmt: skip
    run = command(
        "run", "--datasets", "photos", "--backbones", NAME, "--policies", "fine_tune_last",
        "--px", "32", "--epochs", "1", "--out", str(tmp_path), "--json", cache=shared_cache,
    )  # fmt: skip
    said = "module:my_net.py:build: a new head takes the place of pool, classifier"
    assert said in run.stderr.splitlines()
    rows = json.loads(run.stdout)["rows"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert [row["parity"] for row in rows] == ["shown", "shown"]
    assert len({row["trainable_parameters"] for row in rows}) == 1
    assert len({row["initial_state_sha256"] for row in rows}) == 1
