"""Runs read back from a page, so that a mailed page can be reported again with another margin, or
with later statistics."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError, number_of
from bench.parity.model import PairProof
from bench.report.document import SPEC_PARTS
from bench.report.page import read_document
from bench.spec.result import RunResult
from bench.spec.run import Environment, RunSpec
from bench.storage.results import StoredRun


def load_page(path: Path) -> tuple[list[StoredRun], list[str]]:
    """Return the runs of a page with their answers to the test images, and a sentence if some
    cannot be read. Raise UserError if the file is no page, or holds no runs."""
    document = read_document(path)
    runs, broken = [], 0
    for row in document.get("rows", ()):
        try:
            runs.append(_run(row, document, path.parent / "no-such-folder"))
        except (ValidationError, LookupError, TypeError, AttributeError):
            broken += 1
    problems = []
    if broken:
        problems.append(
            f"'{path}': {number_of(broken, 'run')} could not be read: fields are missing or wrong"
        )
    if not runs:
        raise UserError(f"'{path}' holds no runs that can be read.")
    return runs, problems


def proofs_of_page(path: Path) -> list[PairProof]:
    """Return the proofs that a page holds, without those that are damaged."""
    found = []
    for pair in read_document(path).get("proofs", ()):
        with suppress(ValidationError):
            found.append(PairProof.model_validate(pair))
    return found


def _run(row: dict[str, Any], document: dict[str, Any], folder: Path) -> StoredRun:
    """Return one run; fields that a page keeps in its row come from there. Of very many runs it
    has no more than these, the spec and the answers."""
    key = f"{row['run_id']}/{row['environment_id']}"
    kept = document["runs"].get(key, {})
    spec = RunSpec.model_validate(_spec(document, key))
    environment = Environment.model_validate(document["environments"][row["environment_id"]])
    result = {name: row[name] for name in RunResult.model_fields if row.get(name) is not None}
    result |= kept.get("result", {})
    answers = document.get("answers", {}).get(key)
    if answers is not None:
        groups = document.get("test_groups", {}).get(spec.case.dataset.content_hash)
        result["test_answers"] = {**answers, "groups": groups}
    result["learning_rate"] = row.get("learning_rate_chosen")
    usual = {line["knob"]: line["values"].get(row["environment_id"]) for line in document["knobs"]}
    knobs = {**usual, **kept.get("knobs", {})}
    result["knobs"] = {name: value for name, value in knobs.items() if value is not None}
    return StoredRun(spec, environment, RunResult.model_validate(result), folder)


def _spec(document: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a spec with its parts; pages of version 0.1 have it among the details of the run."""
    if "specs" not in document:
        earlier: dict[str, Any] = document["runs"][key]["spec"]
        return earlier
    spec = document["specs"][key]
    return {**spec, **{name: document["spec_parts"][spec[name]] for name in SPEC_PARTS}}
