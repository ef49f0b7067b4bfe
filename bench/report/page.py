"""One HTML page that needs no network: the table, what failed and where it ran."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader

from bench import __version__
from bench.report.tables import RIGHT, footnotes, reasons, standard_table
from bench.report.twins import Row
from bench.store import StoredRun


def write_page(rows: Sequence[Row], runs: Sequence[StoredRun], path: Path) -> None:
    """Write ``report.html``; every text in it is escaped.

    Args:
        rows: Of the table.
        runs: That they come from, for the environments.
        path: Of the page.
    """
    table = standard_table(rows)
    environments = {r.environment.environment_id: r.environment for r in runs}
    template = Environment(
        loader=PackageLoader("bench.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html.jinja")
    path.write_text(
        template.render(
            columns=list(table.columns),
            values=table.to_numpy().tolist(),
            right=RIGHT,
            reasons=reasons(rows),
            notes=footnotes(rows),
            environments={
                key: value.model_dump(mode="json") for key, value in sorted(environments.items())
            },
            version=__version__,
        ),
        encoding="utf-8",
    )
