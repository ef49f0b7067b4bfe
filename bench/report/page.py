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
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bench.errors import UserError
from bench.report.document import KIND
from bench.report.format import ABSENT
from bench.report.method import METHOD
from bench.spec.base import SCHEMA_VERSION
from bench.storage.regular_files import read_regular
from bench.storage.text_files import replace_text

DATA_START = '<script type="application/json" id="thawbench-data">'
DATA_END = "</script>"
PAGE_END = "</html>"
STYLES = ("page.css", "print.css")
SCRIPTS = ("data.js", "theme.js", "tables.js", "plots.js", "confusion.js", "details.js")
"""In the order in which they are joined: they share one scope."""
ESCAPED_IN_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""So that no text in the data can close its element; ``json`` itself escapes U+2028 and U+2029."""
OWN_SECTIONS = ("failed", "runs")
"""Names of the tables that stand outside the section "Tables"."""
PAGE_BYTES = 2**30
"""Largest page that is read."""
WRITE_AGAIN = "Write it again: python run_bench.py report DIR"


def write_page(document: dict[str, Any], path: Path) -> None:
    """Write the page with every text escaped; if that fails, an older page stays as it was.

    Raises:
        OSError: The file cannot be written.
        ValueError: A number in the document is not finite.
    """
    tables = {table["name"]: table for table in document["tables"]}
    parts = (_template_file(f"scripts/{name}") for name in SCRIPTS)
    # A block keeps these names apart from Plotly's and from those of browser extensions.
    own = '"use strict";\n{\n' + "\n".join(parts) + "}\n"
    library, places = get_plotlyjs(), document["environments"]
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
        tables=[table for name, table in tables.items() if name not in OWN_SECTIONS],
        **{name: tables.get(name) for name in OWN_SECTIONS},
        method=METHOD,
        details=_details(document),
        details_of_row=details_of_rows(document),
        knobs=_columns_view({line["knob"]: line["values"] for line in document["knobs"]}, places),
        environments=_columns_view(_environment_lines(places), places),
    )
    replace_text(path, text)


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
    tables = [{**t, "rows": []} if t["name"] == "runs" else t for t in document["tables"]]
    kept = {**document, "tables": tables}
    return json.dumps(kept, allow_nan=False, separators=(",", ":")).translate(ESCAPED_IN_JSON)


def read_document(path: Path) -> dict[str, Any]:
    """Return the document of a page that ``write_page`` wrote.

    The rows of the table "runs" are empty: they stand in ``rows``, unrounded.

    Raises:
        UserError: The file cannot be read, is not a report, is cut off or from a newer Thawbench.
    """
    try:
        text = read_regular(path, PAGE_BYTES).decode("utf-8")
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not a Thawbench report: it is not UTF-8 text.") from error
    _, start, rest = text.partition(DATA_START)
    if not start:
        raise UserError(f"'{path}' is not a Thawbench report: it holds no data.", WRITE_AGAIN)
    data, end, _ = rest.partition(DATA_END)
    if not end or not text.rstrip().endswith(PAGE_END):
        raise UserError(f"'{path}' is cut off: its end is missing.", WRITE_AGAIN)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise UserError(f"'{path}' is damaged: its data are not JSON.", WRITE_AGAIN) from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UserError(
            f"'{path}' is not a Thawbench report: its data are of another kind.", WRITE_AGAIN
        )
    version = document.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        schemas = f"schema {version}, this one reads {SCHEMA_VERSION}"
        raise UserError(
            f"'{path}' was written by a newer Thawbench ({schemas}).",
            "Read it with that version, or write it again with this one: "
            "python run_bench.py report DIR",
        )
    return document


def _environment_lines(environments: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return name → id → value of each field, package and variable of the environments."""
    lines: dict[str, dict[str, Any]] = {}
    for key, fields in environments.items():
        for name, value in fields.items():
            parts = value if isinstance(value, Mapping) else {"": value}
            for part, inner in parts.items():
                lines.setdefault(f"{name}: {part}" if part else name, {})[key] = inner
    return lines


def _columns_view(
    lines: Mapping[str, Mapping[str, Any]], environments: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a table with a column for each environment that the ``lines`` mention: ``headings``
    (backend and id), and name and values of the lines that are ``differing`` or the ``same``."""
    mentioned = {key for values in lines.values() for key in values}
    shown = [key for key in environments if key in mentioned]
    texts = [
        (name, [ABSENT if values.get(key) in (None, "") else str(values[key]) for key in shown])
        for name, values in lines.items()
    ]
    return {
        "headings": [f"{environments[key].get('backend', '')} {key}".strip() for key in shown],
        "differing": [line for line in texts if len(set(line[1])) > 1],
        "same": [line for line in texts if len(set(line[1])) <= 1],
    }


def _key(row: Mapping[str, Any]) -> str:
    """Return the key of a row's run in ``document["runs"]``."""
    return f"{row['run_id']}/{row['environment_id']}"


def _details(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return status and summary line of each run's collapsed details."""
    summaries = {_key(row): _summary(row) for row in document["rows"]}
    return [
        {"status": run["result"].get("status", "ok"),
         "summary": summaries.get(key, key.replace("/", " "))}
        for key, run in document["runs"].items()
    ]  # fmt: skip


def _summary(row: Mapping[str, Any]) -> str:
    parts = [
        f"case {row['case']}" if row["case"] else "",
        *(row[field] for field in ("dataset", "backbone", "policy", "backend", "device")),
        f"seed {row['seed']}",
        # The end of the id distinguishes runs that differ in anything else.
        row["run_id"][-8:],
        "" if row["test_top1"] is None else f"{row['test_top1']:.1%}",
    ]
    return " · ".join(str(part) for part in parts if part)


def details_of_rows(document: Mapping[str, Any]) -> list[int | None]:
    """Return the number of the details of each row of the table of runs; None: it has none."""
    numbers = {run: number for number, run in enumerate(document["runs"])}
    return [numbers.get(_key(row)) for row in document["rows"]]
