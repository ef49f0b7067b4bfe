"""The command line in pytest's own process, and made-up runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cli.main import main
from bench.storage.results import StoredRun
from tests.unit.made_runs import IMAGES, POLICIES, RANDOM, Make

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Call the command line in this process, from an empty folder with an empty cache."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "work").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "work")
        monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", ["run_bench.py", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return call


@pytest.fixture
def make(make_run: Callable[..., StoredRun], tmp_path: Path) -> Make:
    """Return ``make(share, policy=…, seed=…)``: a run that classifies the first ``share`` of the
    images correctly, apart from a few that its seed flips."""

    def made(
        share: float, policy: str = "freeze_all", seed: int = 0,
        result: dict[str, Any] | None = None, luck: float = 0.02, **changes: Any,
    ) -> StoredRun:  # fmt: skip
        changes.setdefault("policy", {"name": policy, **POLICIES[policy]})
        if policy == "from_scratch":
            changes.setdefault("weights", RANDOM)
        random = np.random.default_rng([seed, len(policy)])
        right = np.arange(IMAGES) < share * IMAGES
        right ^= random.random(IMAGES) < luck
        fields = {"test_top1": float(right.mean()), "val_top1_by_epoch": [0.5, share]}
        run = make_run(result={**fields, **(result or {})}, seed=seed, **changes)
        folder = tmp_path / run.result.run_id / run.result.environment_id
        folder.mkdir(parents=True, exist_ok=True)
        labels = np.arange(IMAGES) % 2
        logits = np.stack([labels == 0, labels == 1], 1) * 4.0 - 2.0
        logits[~right] *= -1
        np.savez(folder / "predictions.npz", logits=logits, labels=labels, correct=right,
                 true_probability=np.where(right, 0.98, 0.02))  # fmt: skip
        return replace(run, folder=folder)

    return made
