"""All that the page of a report shows, as one JSON document (embedded in it once)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import SCHEMA_VERSION, __version__
from bench.report.answer import answer, asked
from bench.report.findings import Findings
from bench.report.glossary import glossary
from bench.report.limits import limits
from bench.report.notes import footnotes, reasons
from bench.report.plots import plots
from bench.report.predictions import confusion, largest_confusions
from bench.report.repeat import repeat_command
from bench.report.rows import MEASURED, unreadable
from bench.report.side_by_side import SideBySide
from bench.report.strategy import strategy_map
from bench.report.table_model import Table
from bench.store import StoredRun
from bench.sweep import sweep_key

KIND = "thawbench report"
LOG_BYTES = 2_000
"""Of the end of a run's log that the page holds; of a run that is ok, a quarter."""
MOST_CLASSES = 40
"""Beyond which a confusion matrix is left out for its largest counts: nobody reads it, and it grows
with the square."""


def document(
    found: Findings,
    tables: Sequence[Table],
    problems: Sequence[str],
    selection: str = "",
    side: SideBySide | None = None,
) -> dict[str, Any]:
    """The document.

    Args:
        found: What the numbers say.
        tables: All, the standard table of runs last.
        problems: Sentences about what could not be read.
        selection: A sentence on what was left out.
        side: Of ``report A B``: its tables and sentences.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "thawbench": __version__,
        "written": datetime.date.today().isoformat(),
        "title": "Thawbench report",
        "asked": f"{asked(found.rows, found.runs)} {selection}".strip(),
        "answer": answer(found),
        "notes": [*reasons(found.rows), *footnotes(found.rows), *limits(found)],
        "problems": list(problems),
        "tables": [table.as_json() for table in tables],
        "map": strategy_map(found.contests),
        "plots": plots(found),
        "rows": list(found.rows),
        "measured": list(MEASURED),
        "runs": _runs(found.runs),
        "environments": {
            run.environment.environment_id: run.environment.model_dump(mode="json")
            for run in found.runs
        },
        "knobs": knob_ledger(found.runs),
        "glossary": glossary([*tables, *(side.tables if side else ())], found.rows),
        "cite": _cite(),
        "side_by_side": side.as_json() if side else None,
    }


def _runs(runs: Sequence[StoredRun]) -> dict[str, Any]:
    together: dict[Any, list[StoredRun]] = {}
    for run in runs:
        if (key := sweep_key(run.spec)) is not None:
            together.setdefault((key, run.result.environment_id), []).append(run)
    found = {}
    ledger = {line["knob"]: line["values"] for line in knob_ledger(runs)}
    for run in runs:
        key = sweep_key(run.spec)
        swept = together.get((key, run.result.environment_id), []) if key is not None else []
        classes = run.spec.case.dataset.classes
        is_ok, few = run.result.status == "ok", len(classes) <= MOST_CLASSES
        found[f"{run.result.run_id}/{run.result.environment_id}"] = {
            "spec": run.spec.model_dump(mode="json"),
            "result": _result(run),
            "knobs": _own_knobs(run, ledger),
            "log_tail": _tail(run.folder / "log.txt", run.result.status == "ok"),
            "repeat": repeat_command(
                run.spec, [other.spec for other in swept], unreadable(run.result.notes) is not None
            ),
            "confusion": confusion(run.folder, len(classes)) if is_ok and few else None,
            "confusions": largest_confusions(run.folder) if is_ok and not few else None,
        }
    return found


IN_ROWS = set(MEASURED) | {"knobs", "phases", "learning_rate", "test_answers"}
"""Fields of a result that the page holds elsewhere, or has no use for."""
DIGITS = 5
"""Of each window's rate that the page keeps: more is noise, and there are thousands."""


def _result(run: StoredRun) -> dict[str, Any]:
    fields = run.result.model_dump(mode="json", exclude=IN_ROWS, exclude_defaults=True)
    if windows := fields.get("train_images_per_s_windows"):
        fields["train_images_per_s_windows"] = [float(f"{w:.{DIGITS}g}") for w in windows]
    return fields


def _tail(log: Path, is_ok: bool) -> str:
    """The end of a log, from the beginning of a line."""
    most = LOG_BYTES // 4 if is_ok else LOG_BYTES
    try:
        text = log.read_bytes()[-most:].decode("utf-8", "replace")
    except OSError:
        return ""
    _, newline, rest = text.partition("\n")
    return rest if newline and len(text) >= most else text


def knob_ledger(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """Each knob's values by environment; several in one environment are told in a row."""
    values: dict[str, dict[str, dict[str, None]]] = {}
    for run in runs:
        for knob, value in run.result.knobs.items():
            if value is not None:
                seen = values.setdefault(knob, {}).setdefault(run.result.environment_id, {})
                seen[_told(value)] = None
    return [
        {"knob": knob, "values": {place: ", ".join(seen) for place, seen in by_place.items()}}
        for knob, by_place in sorted(values.items())
    ]


def _own_knobs(run: StoredRun, ledger: dict[str, dict[str, str]]) -> dict[str, str | None]:
    """Those of which its environment's ledger holds other values too; None: it has none."""
    place, own = run.result.environment_id, run.result.knobs
    told = {
        knob: None if own.get(knob) is None else _told(own[knob])
        for knob, values in ledger.items()
        if place in values
    }
    return {knob: value for knob, value in told.items() if value != ledger[knob][place]}


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _cite() -> dict[str, str]:
    year = datetime.date.today().year
    return {
        "text": f"Thawbench {__version__} ({year}): the same transfer-learning experiment through "
        "PyTorch and Keras. Name the versions and the machine too: they stand under Environments.",
        "bibtex": "@software{thawbench,\n"
        "  title   = {Thawbench: the same transfer-learning experiment through PyTorch and "
        "Keras},\n"
        f"  version = {{{__version__}}},\n  year    = {{{year}}}\n}}",
    }
