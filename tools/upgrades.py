"""The upgrade atlas: what each release of a framework did to training speed on this machine.

``python -m tools.upgrades`` builds an environment of each release below ``THAWBENCH_CACHE``, runs
``gate --ab`` over consecutive pairs, and writes ``results/upgrades.md``. A pair whose answer is in
``results/upgrades/`` is not measured again. A release of torch takes 6 GB; ``--remove`` deletes an
environment once its pairs are measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.gate.environments import environment, environment_folder
from bench.report.gate.words import interval_text, ratio_text
from bench.storage.cache import cache_root
from bench.storage.text_files import json_text, replace_text
from bench.system import processor, project_root

FOLDER = Path("results/upgrades")
PAGE = Path("results/upgrades.md")
NOT_FOR_WORKERS = ("pytest-benchmark", "plotly", "jinja2", "typer", "rich", "ruptures", "tabulate")
"""Dependencies that only the parent process needs."""
MOST_DIFFERENCES = 6


@dataclass(frozen=True)
class Release:
    """A release of a framework."""

    name: str
    packages: tuple[str, ...]
    """Arguments of ``pip install``."""


RELEASES: dict[str, tuple[Release, ...]] = {
    "torch": tuple(
        Release(f"torch {torch}", (f"torch=={torch}", f"torchvision=={vision}"))
        for torch, vision in (
            ("2.11.0", "0.26.0"), ("2.12.1", "0.27.1"), ("2.13.0", "0.28.0"), ("2.14.1", "0.29.1"),
        )
    ),
    "keras-tensorflow": tuple(
        Release(
            f"TensorFlow {tensorflow}, Keras {keras}",
            (f"tensorflow=={tensorflow}", f"keras=={keras}"),
        )
        for tensorflow, keras in (
            ("2.20.0", "3.12.4"), ("2.21.0", "3.12.4"), ("2.21.0", "3.14.1"), ("2.21.0", "3.15.1"),
        )
    ),
}  # fmt: skip
"""Backend → releases, the oldest first."""


def main() -> None:
    """Measure the pairs that have no answer yet, then write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", default="10m", help="time for the launches of a pair")
    parser.add_argument("--remove", action="store_true", help="delete environments after use")
    asked = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for backend, releases in RELEASES.items():
        for before, now in itertools.pairwise(releases):
            if not _answer_file(backend, before, now).is_file():
                _compare(backend, before, now, asked.budget)
            if asked.remove:
                _remove(before)
        if asked.remove:
            _remove(releases[-1])
    replace_text(PAGE, page())


def _packages(release: Release) -> list[str]:
    project = tomllib.loads((project_root() / "pyproject.toml").read_text())["project"]
    needed = [d for d in project["dependencies"] if not d.startswith(NOT_FOR_WORKERS)]
    return [*release.packages, *needed]


def _python(release: Release) -> Path:
    return environment(Path(sys.executable), _packages(release), cache_root(), print)


def _remove(release: Release) -> None:
    folder = environment_folder(Path(sys.executable), _packages(release), cache_root())
    shutil.rmtree(folder, ignore_errors=True)


def _answer_file(backend: str, before: Release, now: Release) -> Path:
    words = f"{backend} {before.name} to {now.name}".replace(",", "").replace(" ", "-")
    return FOLDER / f"{words}.json"


def _compare(backend: str, before: Release, now: Release, budget: str) -> None:
    """Run the gate over a pair and keep its answer."""
    file = _answer_file(backend, before, now)
    folder = cache_root() / "upgrades" / file.stem
    command = [
        sys.executable, str(project_root() / "run_bench.py"), "gate", "--ab", str(_python(before)),
        str(_python(now)), "--backends", backend, "--budget", budget, "--out", str(folder),
        "--device", "cpu", "--json",
    ]  # fmt: skip
    print(f"{before.name} → {now.name}", flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    if "verdict" not in answer:
        why = answer.get("error", {}).get("message", f"exit code {done.returncode}")
        raise SystemExit(f"{before.name} → {now.name}: {why}")
    answer["sides"] = [before.name, now.name]  # without paths of this machine
    replace_text(file, json_text(answer))


def page() -> str:
    """Return the page about all pairs that have an answer."""
    lines = [
        "# What each release did to training speed",
        "",
        f"Measured by `make upgrades` on a CPU ({processor()}): `gate --ab` over consecutive "
        "releases, suite `small`. A ratio below 1 means that the newer release is faster. "
        "Intervals hold in 95 % of comparisons. See [docs/gate.md](../docs/gate.md).",
    ]
    rows, causes = [], []
    for backend, releases in RELEASES.items():
        for before, now in itertools.pairwise(releases):
            file = _answer_file(backend, before, now)
            if not file.is_file():
                continue
            answer = json.loads(file.read_text())
            for one in answer["benchmarks"]:
                rows.append(_row(before, now, one))
            causes.append(f"\n**{before.name} → {now.name}**: {_words(answer)}")
    headings = ["from", "to", "benchmark", "ratio", "interval", "verdict", "blocks"]
    lines += ["", tabulate(rows, headings, "pipe", disable_numparse=True)]
    return "\n".join([*lines, "", "## Causes", *causes, ""])


def _row(before: Release, now: Release, one: dict[str, Any]) -> list[str]:
    return [
        before.name, now.name, one["name"], ratio_text(one["ratio"]),
        interval_text(one["interval"]), one["verdict"], str(one["blocks"]),
    ]  # fmt: skip


def _words(answer: dict[str, Any]) -> str:
    parts = [f"{answer['verdict']}."]
    for cause in answer["causes"]:
        if cause["culprit"] is None:
            continue
        first = cause["parts"][0]
        names = ", ".join(f"`{one['name']}`" for one in cause["operations"])
        parts.append(
            f"{cause['case']} is {cause['verdict']} in {cause['culprit']} "
            f"({first['before_s'] * 1000:.2f} → {first['now_s'] * 1000:.2f} ms a step"
            f"{'; most in ' + names if names else ''})."
        )
    differs = [f"{name} {a} → {b}" for name, (a, b) in answer["differs"].items()]
    left = len(differs) - MOST_DIFFERENCES
    shown = "; ".join(differs[:MOST_DIFFERENCES])
    parts.append(f"What differs: {shown}{f'; and {left} more' if left > 0 else ''}.")
    return " ".join(parts)


if __name__ == "__main__":
    main()
