"""One HTML page that needs no network and no server, and the way back to its data.

The document that the page shows (a dictionary, made by ``bench.report.document``) stands in it once
as JSON. What a reader sees first, and every table, is HTML that is written here; plots, the runs'
folds, sorting and filtering are made from the JSON by ``templates/scripts``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bench import SCHEMA_VERSION
from bench.errors import UserError
from bench.files import replace_text
from bench.report.page_views import environments_view, failures, folds, knobs_view, policy_colours

KIND = "thawbench report"
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
    if not isinstance(document, dict) or document.get("kind") != KIND:
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
