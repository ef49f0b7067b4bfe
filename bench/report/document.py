"""The document of a report's page: everything that the page shows, as plain JSON values."""

from __future__ import annotations

import datetime
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.analysis.findings import Findings
from bench.analysis.predictions import confusion, largest_confusions
from bench.analysis.rows import Row, grouped
from bench.errors import UserError
from bench.report.compare import FolderComparison
from bench.report.first_screen import first_screen
from bench.report.notes import PAIRING, explanations, faults, reasons
from bench.report.plots import plots
from bench.report.questions import MOST_SENTENCES, cautions
from bench.report.tables.model import Table
from bench.runner.repeat import SUITE_FILE, suite_text
from bench.runner.suite import load_suite
from bench.spec.base import SCHEMA_VERSION, canonical_json
from bench.spec.result import REPORTED_FIELDS
from bench.spec.run import RunSpec
from bench.storage.regular_files import read_regular, read_tail
from bench.storage.results import StoredRun
from bench.system import VERSION
from bench.training.sweep import sweep_key

KIND = "thawbench report"
LOG_BYTES = 2_000
"""Bytes kept of the end of a failed run's log; a quarter of that for a run that is ok."""
SUITE_BYTES = 100_000
"""Largest suite beside a result that is read."""
MOST_DETAILS = 500
"""Most runs whose details (settings, log, confusion matrix) the page holds."""
MOST_CLASSES = 25
"""Largest confusion matrix on the page; of more classes, only the largest counts are kept."""
SPEC_PARTS = ("case", "weights", "policy", "recipe")
"""Fields of specs that many runs share."""
IN_ROWS = set(REPORTED_FIELDS) | {"knobs", "phases", "learning_rate", "test_answers"}
"""Fields of a result that the document holds elsewhere, or does not need."""
DIGITS = 5
"""Significant digits kept of each window's rate: more is noise, and there are thousands."""
CITE = (
    "Thawbench %s (%s): the same transfer-learning experiment through PyTorch and Keras. Please "
    "name the versions and the machine too; see Environments."
)
BIBTEX = """@software{thawbench,
  title   = {Thawbench: the same transfer-learning experiment through PyTorch and Keras},
  version = {%s},
  year    = {%s}
}"""


def document(
    found: Findings, tables: Sequence[Table], problems: Sequence[str], selection: str = "",
    side: FolderComparison | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the document of a page; ``tables`` are all but those of ``side``, and the other
    arguments those of ``make_report`` and its view."""
    environments = [row.environment for row in found.rows]
    year = datetime.date.today().year
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "thawbench": VERSION,
        "written": datetime.date.today().isoformat(),
        "title": "Thawbench report",
        "selection": selection,
        "first": first_screen(found),
        "notes": [
            *_left_out(found.rows),
            *cautions(found)[MOST_SENTENCES:],
            *reasons(found.rows),
            *faults(found.rows),
            *explanations(found.rows),
        ],
        "pairing": PAIRING,
        "problems": list(problems),
        "tables": [table.as_json() for table in tables],
        "plots": plots(found),
        "rows": [dict(row.fields) for row in found.rows],
        "measured": list(REPORTED_FIELDS),
        **_specs(found.rows),
        "runs": _runs(_detailed(found.rows)),
        "environments": {e.environment_id: e.model_dump(mode="json") for e in environments},
        "knobs": _knob_table(found.rows),
        "answers": _answers(found.rows),
        "test_groups": _test_groups(found.rows),
        "cite": {"text": CITE % (VERSION, year), "bibtex": BIBTEX % (VERSION, year)},
        "side_by_side": side.as_json() if side else None,
    }


def _specs(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the spec of each run; parts that runs share stand once, in ``spec_parts``, and specs
    have their numbers."""
    parts, specs = dict[str, int](), {}
    for row in rows:
        spec = row.spec.model_dump(mode="json")
        shared = {name: canonical_json(spec[name]) for name in SPEC_PARTS}
        numbers = {name: parts.setdefault(text, len(parts)) for name, text in shared.items()}
        specs[f"{row.result.run_id}/{row.result.environment_id}"] = spec | numbers
    return {"spec_parts": [json.loads(text) for text in parts], "specs": specs}


def _answers(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return the answers of each run to its test images, one bit each, so that the statistics can
    be computed again from the page; groups of images stand in ``test_groups``."""
    known = ((row, row.result.test_answers) for row in rows)
    return {
        f"{row.result.run_id}/{row.result.environment_id}": kept.model_dump(exclude={"groups"})
        for row, kept in known
        if kept is not None
    }


def _test_groups(rows: Sequence[Row]) -> dict[str, str]:
    """Return the hash of a data set → the groups of its test images, where they belong together."""
    known = ((row.dataset.content_hash, row.result.test_answers) for row in rows)
    return {name: kept.groups for name, kept in known if kept and kept.groups}


def _detailed(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the runs whose details the page holds: all, or of very many those that failed."""
    if len(rows) <= MOST_DETAILS:
        return rows
    return [row for row in rows if not row.is_ok][:MOST_DETAILS]


def _left_out(rows: Sequence[Row]) -> list[str]:
    """Return a sentence if the page lacks details of runs."""
    missing = len(rows) - len(_detailed(rows))
    if not missing:
        return []
    return [
        f"Details of {missing:,} runs are left out, so that the page stays small. A report of at "
        f"most {MOST_DETAILS} runs has them all: add a filter such as --policies, and --out DIR."
    ]


def _runs(runs: Sequence[StoredRun]) -> dict[str, Any]:
    sweeps = grouped(runs, lambda run: (sweep_key(run.spec), run.result.environment_id))
    usual = {line["knob"]: line["values"] for line in _knob_table(runs)}
    found = {}
    for run in runs:
        key, place = sweep_key(run.spec), run.result.environment_id
        swept = [other.spec for other in sweeps[key, place]] if key is not None else []
        classes = len(run.spec.case.dataset.classes)
        is_ok, few = run.result.status == "ok", classes <= MOST_CLASSES
        found[f"{run.result.run_id}/{place}"] = {
            "result": _result(run),
            "knobs": _unusual_knobs(run, usual),
            "log_tail": _tail(run.folder / "log.txt", LOG_BYTES // 4 if is_ok else LOG_BYTES),
            **_repetition(run, swept),
            "confusion": confusion(run.folder, classes) if is_ok and few else None,
            "confusions": largest_confusions(run.folder) if is_ok and not few else None,
        }
    return found


def _repetition(run: StoredRun, swept: Sequence[RunSpec]) -> dict[str, str]:
    """Return the suite of just this run, without paths of this machine, and the command that
    repeats it: by the suite beside the result, if it is as the spec says, else by one to be
    saved."""
    path = run.folder / SUITE_FILE
    own = _runs_the_same(run, path)
    options = run.result.data_options
    if not options and run.result.unreadable_images is not None:  # earlier results
        options = ("--skip-unreadable",)
    more = "".join(f" {shlex.join(option.split(maxsplit=1))}" for option in options)
    where = shlex.quote(os.path.relpath(path)) if own else SUITE_FILE
    command = f"python run_bench.py run --suite {where} --device {shlex.quote(run.spec.device)}"
    return {"suite": suite_text(run.spec, swept), "repeat": command + more}


def _runs_the_same(run: StoredRun, path: Path) -> bool:
    """Return True if the suite beside a result runs the network of the result, and no code, which
    may be that of others in a folder that was mailed."""
    try:
        read_regular(path, SUITE_BYTES, follow_links=False)
        suite = load_suite(str(path))
    except (OSError, ValueError, UserError):
        return False
    backbones = {name for grid in suite.grid for name in grid.backbones}
    return backbones == {run.spec.backbone} and run.spec.code_sha256 is None


def _result(run: StoredRun) -> dict[str, Any]:
    fields = run.result.model_dump(mode="json", exclude=IN_ROWS, exclude_defaults=True)
    if windows := fields.get("train_images_per_s_windows"):
        fields["train_images_per_s_windows"] = [float(f"{w:.{DIGITS}g}") for w in windows]
    return fields


def _tail(log: Path, most: int) -> str:
    """Return the last bytes of a log, from the beginning of a line; empty if it cannot be read."""
    try:
        text = read_tail(log, most).decode("utf-8", "replace")
    except OSError:
        return ""
    _, newline, rest = text.partition("\n")
    return rest if newline and len(text) >= most else text


def _knobs(run: StoredRun) -> dict[str, str]:
    return {knob: _knob_text(v) for knob, v in run.result.knobs.items() if v is not None}


def _knob_table(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """Return the values of each knob by environment; several in one are joined by commas."""
    values: dict[str, dict[str, dict[str, None]]] = {}
    for run in runs:
        for knob, text in _knobs(run).items():
            values.setdefault(knob, {}).setdefault(run.result.environment_id, {})[text] = None
    return [
        {"knob": knob, "values": {place: ", ".join(seen) for place, seen in by_place.items()}}
        for knob, by_place in sorted(values.items())
    ]


def _unusual_knobs(run: StoredRun, usual: dict[str, dict[str, str]]) -> dict[str, str | None]:
    """Return the knobs whose value is not that of the whole environment; None: it has none."""
    own, place = _knobs(run), run.result.environment_id
    return {
        knob: own.get(knob)
        for knob, values in usual.items()
        if place in values and values[place] != own.get(knob)
    }


def _knob_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return str(value)
