"""The page of a report: one HTML file that needs no network, and the way back to its data.

The document (see ``bench.report.document``) is embedded once as JSON. What a reader sees first and
every table are HTML written here; plots, the details of runs, sorting and filtering are made from
the JSON by ``templates/scripts``.
"""

from __future__ import annotations

import base64
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

from bench.errors import UserError
from bench.report.document import KIND
from bench.report.format import ABSENT
from bench.spec.base import SCHEMA_VERSION
from bench.storage.text_files import replace_text

DATA_START = '<script type="application/json" id="thawbench-data">'
DATA_END = "</script>"
PAGE_END = "</html>"
STYLES = ("page.css", "print.css")
SCRIPTS = ("data.js", "theme.js", "tables.js", "plots.js", "confusion.js", "details.js")
"""In the order in which they are joined: they share one scope."""
ESCAPED_IN_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""So that no text in the data can close its element; ``json`` itself escapes U+2028 and U+2029."""
OWN_SECTIONS = ("cases", "failed", "runs")
"""Names of the tables that stand outside the section "Tables"."""
WRITE_AGAIN = "Write it again: python run_bench.py report DIR"
COLOURS = 8
"""Number of colours in page.css."""


# Writing


def write_page(document: dict[str, Any], path: Path) -> None:
    """Write the page with every text escaped; if that fails, an older page stays as it was.

    Args:
        document: JSON values only.
        path: File to write.

    Raises:
        OSError: The file cannot be written.
        ValueError: A number in the document is not finite.
    """
    tables = {table["name"]: table for table in document["tables"]}
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
        tables=[table for name, table in tables.items() if name not in OWN_SECTIONS],
        failed=tables.get("failed"),
        runs=tables.get("runs"),
        details=details(document),
        details_of_row=details_of_rows(document),
        colours=policy_colours(document["map"]),
        knobs=knobs_view(document["knobs"], document["environments"]),
        environments=environments_view(document["environments"]),
    )
    replace_text(path, text)


def _own_script() -> str:
    parts = (_template_file(f"scripts/{name}") for name in SCRIPTS)
    # A block keeps these names apart from Plotly's and from those of browser extensions.
    return '"use strict";\n{\n' + "\n".join(parts) + "}\n"


def _template_file(name: str) -> str:
    return (files("bench.report") / "templates" / name).read_text(encoding="utf-8")


def _content_security_policy(scripts: Sequence[str]) -> str:
    """Return a policy that forbids every request, and all scripts but these."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _embedded(document: dict[str, Any]) -> str:
    """Return the JSON for the page, without the cells of the table of runs: the HTML has them."""
    tables = [
        {**table, "rows": []} if table["name"] == "runs" else table for table in document["tables"]
    ]
    text = json.dumps(
        {**document, "tables": tables}, allow_nan=False, ensure_ascii=True, separators=(",", ":")
    )
    return text.translate(ESCAPED_IN_JSON)


# Reading


def read_document(path: Path) -> dict[str, Any]:
    """Return the document of a page that ``write_page`` wrote.

    The rows of the table "runs" are empty: they stand in ``rows``, unrounded.

    Raises:
        UserError: The file cannot be read, is not a report, is cut off or from a newer Thawbench.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is no report of Thawbench: it is not UTF-8 text.") from error
    _, start, rest = text.partition(DATA_START)
    if not start:
        raise UserError(f"'{path}' is no report of Thawbench: it holds no data.", WRITE_AGAIN)
    data, end, _ = rest.partition(DATA_END)
    if not end or not text.rstrip().endswith(PAGE_END):
        raise UserError(f"'{path}' is cut off: its end is missing.", WRITE_AGAIN)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise UserError(f"'{path}' is damaged: its data are not JSON.", WRITE_AGAIN) from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UserError(f"'{path}' is no report of Thawbench: its data are something else.")
    version = document.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UserError(
            f"'{path}' was written by a newer Thawbench (schema {version}, this one reads "
            f"{SCHEMA_VERSION})."
        )
    return document


# Parts of the document as the template needs them


@dataclass(frozen=True)
class ColumnsView:
    """A table with a column for each environment."""

    headings: list[str]
    """Backend and id of each environment."""
    differing: list[tuple[str, list[str]]]
    """Name and values of each line whose values differ."""
    same: list[tuple[str, list[str]]]
    """Name and values of all other lines."""


@dataclass(frozen=True)
class Details:
    """Summary line of a run's collapsed details."""

    status: str
    summary: str
    """The run in a reader's words."""


def knobs_view(
    knobs: Sequence[Mapping[str, Any]], environments: Mapping[str, Mapping[str, Any]]
) -> ColumnsView:
    """Return the table of knobs in force, of the environments that have any."""
    lines = {str(line["knob"]): line["values"] for line in knobs}
    mentioned = {key for values in lines.values() for key in values}
    shown = [key for key in environments if key in mentioned]
    return _columns_view(
        {key: str(environments[key].get("backend", "")) for key in shown},
        {name: [values.get(key) for key in shown] for name, values in lines.items()},
    )


def environments_view(environments: Mapping[str, Mapping[str, Any]]) -> ColumnsView:
    """Return the table of environments, with a line for each package and variable."""
    flat = {key: _flat(fields) for key, fields in environments.items()}
    names = dict.fromkeys(name for fields in flat.values() for name in fields)
    return _columns_view(
        {key: str(fields.get("backend", "")) for key, fields in environments.items()},
        {name: [fields.get(name) for fields in flat.values()] for name in names},
    )


def _columns_view(backends: Mapping[str, str], lines: Mapping[str, Sequence[Any]]) -> ColumnsView:
    texts = {
        name: [ABSENT if value is None or value == "" else str(value) for value in values]
        for name, values in lines.items()
    }
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


def details(document: Mapping[str, Any]) -> list[Details]:
    """Return the details of each of the document's runs, in their order."""
    rows = {f"{row['run_id']}/{row['environment_id']}": row for row in document["rows"]}
    return [
        Details(
            str(run["result"].get("status", "ok")),
            _summary(rows[key]) if key in rows else key.replace("/", " "),
        )
        for key, run in document["runs"].items()
    ]


def _summary(row: Mapping[str, Any]) -> str:
    parts = [
        f"case {row['case']}" if row["case"] else "",
        row["dataset"],
        row["backbone"],
        row["policy"],
        row["backend"],
        row["device"],
        f"seed {row['seed']}",
        # The end of the id distinguishes runs that differ in anything else.
        str(row["run_id"])[-8:],
        "" if row["test_top1"] is None else f"{row['test_top1']:.1%}",
    ]
    return " · ".join(str(part) for part in parts if part)


def details_of_rows(document: Mapping[str, Any]) -> list[int | None]:
    """Return the number of the details of each row of the table of runs; None: it has none."""
    numbers = {run: number for number, run in enumerate(document["runs"])}
    return [numbers.get(f"{r['run_id']}/{r['environment_id']}") for r in document["rows"]]


def policy_colours(strategy_map: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the number of the colour of each policy in the map, in order of appearance."""
    cells = strategy_map["cells"] if strategy_map else []
    named = [name for cell in cells for name in (cell["prescribed"], *cell["best"]) if name]
    return {name: number % COLOURS for number, name in enumerate(dict.fromkeys(named))}
