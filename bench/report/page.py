"""All that the page of a report shows, as one JSON document (embedded in it once).

One HTML page that needs no network and no server, and the way back to its data.

The document that the page shows (a dictionary, made by ``bench.report.document``) stands in it once
as JSON. What a reader sees first, and every table, is HTML that is written here; plots, the runs'
folds, sorting and filtering are made from the JSON by ``templates/scripts``.


Parts of a report's document as the page's template wants them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bench.analysis.findings import Findings
from bench.analysis.groups import Contest, policy_variant
from bench.analysis.predictions import confusion, largest_confusions
from bench.analysis.rows import MEASURED
from bench.analysis.strategy import strategy_map
from bench.errors import UserError
from bench.report.answer import answer, asked
from bench.report.compare import FolderComparison
from bench.report.format import number_of, percent
from bench.report.glossary import glossary
from bench.report.notes import footnotes, limits, reasons
from bench.report.plots.accuracy import plots
from bench.report.repeat import repeat_command
from bench.report.tables.model import Table
from bench.spec.base import SCHEMA_VERSION
from bench.storage.results import StoredRun
from bench.storage.text_files import replace_text
from bench.system import VERSION
from bench.training.sweep import sweep_key

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
    side: FolderComparison | None = None,
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
        "thawbench": VERSION,
        "written": datetime.date.today().isoformat(),
        "title": "Thawbench report",
        "asked": f"{asked(found.rows)} {selection}".strip(),
        "answer": answer(found),
        "notes": [*reasons(found.rows), *footnotes(found.rows), *limits(found)],
        "problems": list(problems),
        "tables": [table.as_json() for table in tables],
        "map": _strategy_map(found.contests),
        "plots": plots(found),
        "rows": [row.fields for row in found.rows],
        "measured": list(MEASURED),
        "runs": _runs(found.rows),
        "environments": {
            run.environment.environment_id: run.environment.model_dump(mode="json")
            for run in found.rows
        },
        "knobs": knob_ledger(found.rows),
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
            "log_tail": _tail(run.folder / "log.txt", is_ok),
            "repeat": repeat_command(
                run.spec, [other.spec for other in swept], run.result.unreadable_images is not None
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
        "text": f"Thawbench {VERSION} ({year}): the same transfer-learning experiment through "
        "PyTorch and Keras. Name the versions and the machine too: they stand under Environments.",
        "bibtex": "@software{thawbench,\n"
        "  title   = {Thawbench: the same transfer-learning experiment through PyTorch and "
        "Keras},\n"
        f"  version = {{{VERSION}}},\n  year    = {{{year}}}\n}}",
    }


PAGE_KIND = "thawbench report"
DATA_START = '<script type="application/json" id="thawbench-data">'
DATA_END = "</script>"
PAGE_END = "</html>"
STYLES = ("page.css", "print.css")
SCRIPTS = ("data.js", "theme.js", "tables.js", "plots.js", "curves.js", "folds.js")
"""In the order in which they are joined: they share their names."""
ESCAPED_IN_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""So that no text in the data can close its element; ``json`` itself escapes U+2028 and U+2029."""
AGAIN = "Write it again: python run_bench.py report DIR"


def write_page(document: dict[str, Any], path: Path) -> None:
    """Write the page; every text in it is escaped.

    Args:
        document: What it shows, JSON values only (no NaN).
        path: Of the page.

    Raises:
        OSError: It cannot be written; what was there before stays.
        ValueError: There is a number in the document that JSON has no word for.
    """
    tables = {table["name"]: table for table in document["tables"]}
    apart = ("cases", "failed", "runs")
    own, library = _own_script(), get_plotlyjs()
    template = Environment(
        loader=PackageLoader("bench.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html.jinja")
    text = template.render(
        document=document,
        policy=_content_security_policy([own, library]),
        style=Markup("\n".join(_template_file(name) for name in STYLES)),
        script=Markup(own),
        library=Markup(library),
        data=Markup(f"{DATA_START}{_embedded(document)}{DATA_END}"),
        cases=tables.get("cases"),
        tables=[table for name, table in tables.items() if name not in apart],
        failed=tables.get("failed"),
        failures=failures(document["rows"]),
        runs=tables.get("runs"),
        folds=folds(document),
        fold_of_row=_folds_of_rows(document),
        colours=policy_colours(document["map"]),
        knobs=knobs_view(document["knobs"], document["environments"]),
        environments=environments_view(document["environments"]),
    )
    replace_text(path, text)


def read_document(path: Path) -> dict[str, Any]:
    """The document of a page that ``write_page`` wrote.

    The rows of the table "runs" are empty: they stand in ``rows``, unrounded.

    Raises:
        UserError: The file cannot be read, is no report, is cut off or from a newer Thawbench.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is no report of Thawbench: it is no text in UTF-8.") from error
    _, start, rest = text.partition(DATA_START)
    if not start:
        raise UserError(f"'{path}' is no report of Thawbench: it holds no data.", AGAIN)
    data, end, _ = rest.partition(DATA_END)
    if not end or not text.rstrip().endswith(PAGE_END):
        raise UserError(f"'{path}' is cut off: its end is missing.", AGAIN)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise UserError(f"'{path}' is damaged: its data are no JSON.", AGAIN) from error
    if not isinstance(document, dict) or document.get("kind") != PAGE_KIND:
        raise UserError(f"'{path}' is no report of Thawbench: its data are something else.")
    version = document.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UserError(
            f"'{path}' was written by a newer Thawbench (schema {version}, this one reads "
            f"{SCHEMA_VERSION})."
        )
    return document


def _embedded(document: dict[str, Any]) -> str:
    """The JSON in the page: without the texts of the table of all runs, which the HTML holds."""
    tables = [
        {**table, "rows": []} if table["name"] == "runs" else table for table in document["tables"]
    ]
    text = json.dumps(
        {**document, "tables": tables}, allow_nan=False, ensure_ascii=True, separators=(",", ":")
    )
    return text.translate(ESCAPED_IN_JSON)


def _folds_of_rows(document: dict[str, Any]) -> list[int | None]:
    """Number of the fold that each row of the table of all runs stands for; None: there is none."""
    numbers = {run: number for number, run in enumerate(document["runs"])}
    return [numbers.get(f"{r['run_id']}/{r['environment_id']}") for r in document["rows"]]


def _own_script() -> str:
    parts = (_template_file(f"scripts/{name}") for name in SCRIPTS)
    # A block keeps their names apart from plotly's and the reader's own.
    return '"use strict";\n{\n' + "\n".join(parts) + "}\n"


def _template_file(name: str) -> str:
    return (files("bench.report") / "templates" / name).read_text(encoding="utf-8")


def _content_security_policy(scripts: Sequence[str]) -> str:
    """Forbids every request, and every script but those that are written here."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


ABSENT = "–"
COLOURS = 8
"""That page.css has."""


@dataclass(frozen=True)
class ColumnsView:
    """Values of several environments, one line a name, one value a heading."""

    headings: list[str]
    """Environments."""
    differing: list[tuple[str, list[str]]]
    """Name and values, where these differ."""
    same: list[tuple[str, list[str]]]
    """The others."""


@dataclass(frozen=True)
class Fold:
    """What is seen of a run before its fold is opened."""

    run_id: str
    environment_id: str
    status: str
    words: str
    """The run in a reader's words."""


def knobs_view(
    knobs: Sequence[Mapping[str, Any]], environments: Mapping[str, Mapping[str, Any]]
) -> ColumnsView:
    """The knob ledger."""
    lines = {str(line["knob"]): line["values"] for line in knobs}
    mentioned = {key for values in lines.values() for key in values}
    shown = [key for key in environments if key in mentioned]
    return _side_by_side(
        {key: str(environments[key].get("backend", "")) for key in shown},
        {name: [values.get(key) for key in shown] for name, values in lines.items()},
    )


def environments_view(environments: Mapping[str, Mapping[str, Any]]) -> ColumnsView:
    """The environments; of packages and variables each one is a line."""
    flat = {key: _flat(fields) for key, fields in environments.items()}
    names = dict.fromkeys(name for fields in flat.values() for name in fields)
    return _side_by_side(
        {key: str(fields.get("backend", "")) for key, fields in environments.items()},
        {name: [fields.get(name) for fields in flat.values()] for name in names},
    )


def folds(document: Mapping[str, Any]) -> list[Fold]:
    """A fold for each of the document's runs, in their order."""
    rows = {f"{row['run_id']}/{row['environment_id']}": row for row in document["rows"]}
    found = []
    for key, run in document["runs"].items():
        run_id, _, environment_id = key.rpartition("/")
        status = str(run["result"].get("status", "ok"))
        row = rows.get(key)
        words = f"{run_id} {environment_id}" if row is None else _words(row)
        found.append(Fold(run_id, environment_id, status, words))
    return found


def failures(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Sentences for runs that are not ok, and the runs of which each speaks."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] == "ok":
            continue
        failure = row["failure"] or {"kind": row["status"], "message": "no reason was stored"}
        reason = f"{row['status']}: {failure['kind']}: {failure['message']}"
        reasons.setdefault(reason, []).append(str(row["run_id"]))
    return list(reasons.items())


def policy_colours(strategy_map: Mapping[str, Any] | None) -> dict[str, int]:
    """Number of the colour of each policy in the map, in the order in which they come."""
    cells = strategy_map["cells"] if strategy_map else []
    named = [name for cell in cells for name in (cell["prescribed"], *cell["best"]) if name]
    return {name: number % COLOURS for number, name in enumerate(dict.fromkeys(named))}


def _words(row: Mapping[str, Any]) -> str:
    parts = [
        f"case {row['case']}" if row["case"] else "",
        row["dataset"],
        row["backbone"],
        row["policy"],
        row["backend"],
        row["device"],
        f"seed {row['seed']}",
        # The end of the id, which tells runs apart that differ in anything else.
        str(row["run_id"])[-8:],
        "" if row["test_top1"] is None else f"{row['test_top1']:.1%}",
    ]
    return " · ".join(str(part) for part in parts if part)


def _side_by_side(backends: Mapping[str, str], lines: Mapping[str, Sequence[Any]]) -> ColumnsView:
    texts = {name: [_text(value) for value in values] for name, values in lines.items()}
    differing = [(n, v) for n, v in texts.items() if len(set(v)) > 1]
    same = [(n, v) for n, v in texts.items() if len(set(v)) <= 1]
    headings = [f"{backend} {key}".strip() for key, backend in backends.items()]
    return ColumnsView(headings, differing, same)


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}: {part}": inner for part, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _text(value: Any) -> str:
    return ABSENT if value is None or value == "" else str(value)


def _strategy_map(contests: Sequence[Contest]) -> dict[str, Any] | None:
    """Return the strategy map with a sentence for each cell in place of its contests."""
    found = strategy_map(contests)
    for cell in found["cells"] if found else []:
        cell["text"] = strategy_words(cell.pop("contests"))
    return found


def strategy_words(contests: Sequence[Contest]) -> str:
    """The highest accuracy of all questions and policies, and of how many it is that."""
    if not contests:
        return "not run"
    first = max(contests, key=lambda c: c.groups[0].top1.value)
    best = first.groups[0]
    tie = "" if first.is_won else ", in a tie"
    return (
        f"highest of {number_of(sum(len(c.groups) for c in contests), 'result')}: "
        f"{percent(best.top1)} ({policy_variant(best)}{tie}, {first.row.spec.backbone}, "
        f"{first.row.spec.backend})"
    )
