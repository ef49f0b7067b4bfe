"""The document of a report's page: everything that the page shows, as plain JSON values."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.analysis.findings import Findings
from bench.analysis.groups import Contest, policy_variant
from bench.analysis.predictions import confusion, largest_confusions
from bench.analysis.rows import Row, grouped
from bench.analysis.strategy import strategy_map
from bench.errors import number_of
from bench.report.answer import answer, asked
from bench.report.compare import FolderComparison
from bench.report.format import percent
from bench.report.glossary import glossary
from bench.report.notes import footnotes, limits, reasons
from bench.report.plots.accuracy import plots
from bench.report.repeat import repeat_command
from bench.report.tables.model import Table
from bench.spec.base import SCHEMA_VERSION
from bench.spec.result import REPORTED_FIELDS
from bench.storage.regular_files import read_tail
from bench.storage.results import StoredRun
from bench.system import VERSION
from bench.training.sweep import sweep_key

KIND = "thawbench report"
LOG_BYTES = 2_000
"""Bytes kept of the end of a failed run's log; a quarter of that for a run that is ok."""
MOST_DETAILS = 500
"""Most runs whose details (settings, log, confusion matrix) the page holds."""
MOST_CLASSES = 40
"""Largest confusion matrix on the page; of more classes, only the largest counts are kept."""
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
        "asked": f"{asked(found.rows)} {selection}".strip(),
        "answer": answer(found),
        "notes": [*reasons(found.rows), *footnotes(found.rows), *limits(found)],
        "problems": [*problems, *_left_out(found.rows)],
        "tables": [table.as_json() for table in tables],
        "map": _strategy_map(found.contests),
        "plots": plots(found),
        "rows": [dict(row.fields) for row in found.rows],
        "measured": list(REPORTED_FIELDS),
        "runs": _runs(_detailed(found.rows)),
        "environments": {e.environment_id: e.model_dump(mode="json") for e in environments},
        "knobs": _knob_table(found.rows),
        "glossary": glossary([*tables, *(side.tables if side else ())], found.rows),
        "cite": {"text": CITE % (VERSION, year), "bibtex": BIBTEX % (VERSION, year)},
        "side_by_side": side.as_json() if side else None,
    }


def _strategy_map(contests: Sequence[Contest]) -> dict[str, Any] | None:
    """Return the strategy map with the highest accuracy of each cell, and out of how many results,
    in place of its contests."""
    found = strategy_map(contests)
    for cell in found["cells"] if found else []:
        here, cell["text"] = cell.pop("contests"), "not run"
        if here:
            first = max(here, key=lambda contest: contest.groups[0].top1.value)
            best, tie = first.groups[0], "" if first.is_won else ", in a tie"
            cell["text"] = (
                f"highest of {number_of(sum(len(c.groups) for c in here), 'result')}: "
                f"{percent(best.top1)} ({policy_variant(best)}{tie}, {first.row.spec.backbone}, "
                f"{first.row.spec.backend})"
            )
    return found


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
            "spec": run.spec.model_dump(mode="json"),
            "result": _result(run),
            "knobs": _unusual_knobs(run, usual),
            "log_tail": _tail(run.folder / "log.txt", LOG_BYTES // 4 if is_ok else LOG_BYTES),
            "repeat": repeat_command(run.spec, swept, _data_options(run)),
            "confusion": confusion(run.folder, classes) if is_ok and few else None,
            "confusions": largest_confusions(run.folder) if is_ok and not few else None,
        }
    return found


def _data_options(run: StoredRun) -> Sequence[str]:
    """Return the options that decided which files were used; earlier results say one of them by
    the number of files that it left out."""
    if run.result.data_options or run.result.unreadable_images is None:
        return run.result.data_options
    return ("--skip-unreadable",)


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
