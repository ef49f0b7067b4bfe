"""Runs read back from a page, so that a mailed page can be reported again with another margin, or
with later statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError
from bench.report.page import read_document
from bench.spec.result import RunResult
from bench.spec.run import Environment, RunSpec
from bench.storage.results import StoredRun


def load_page(path: Path) -> tuple[list[StoredRun], list[str]]:
    """Return the runs of a page with their answers to the test images, and a sentence if some
    cannot be read. Raise UserError if the file is no page, or holds no runs."""
    document = read_document(path)
    runs, broken, missing = [], 0, 0
    for row in document.get("rows", ()):
        key = f"{row.get('run_id')}/{row.get('environment_id')}"
        kept = document.get("runs", {}).get(key)
        if kept is None:
            missing += 1
            continue
        try:
            runs.append(_run(row, kept, document, path.parent / "no-such-folder"))
        except (ValidationError, KeyError, TypeError, AttributeError):
            broken += 1
    problems = []
    if broken:
        problems.append(f"{path}: {broken:,} runs are not as Thawbench writes them")
    if missing:
        problems.append(f"{path}: it holds no details of {missing:,} runs, which are left out")
    if not runs:
        raise UserError(f"'{path}' holds no runs that can be read.")
    return runs, problems


def _run(
    row: dict[str, Any], kept: dict[str, Any], document: dict[str, Any], folder: Path
) -> StoredRun:
    """Return one run; fields that a page keeps in its row come from there."""
    environment = Environment.model_validate(document["environments"][row["environment_id"]])
    result = {name: row[name] for name in RunResult.model_fields if row.get(name) is not None}
    result |= kept["result"]
    answers = document.get("answers", {}).get(f"{row['run_id']}/{row['environment_id']}")
    if answers is not None:
        groups = document.get("test_groups", {}).get(answers.get("labels_sha256"))
        result["test_answers"] = {**answers, "groups": groups}
    result["learning_rate"] = row.get("learning_rate_chosen")
    usual = {line["knob"]: line["values"].get(row["environment_id"]) for line in document["knobs"]}
    knobs = {**usual, **kept.get("knobs", {})}
    result["knobs"] = {name: value for name, value in knobs.items() if value is not None}
    spec = RunSpec.model_validate(kept["spec"])
    return StoredRun(spec, environment, RunResult.model_validate(result), folder)
