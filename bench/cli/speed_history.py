"""``speed history``: benchmarks over stored baselines, as table, plot and JSON."""

from __future__ import annotations

from tabulate import tabulate

from bench.cli.options import SpeedOptions
from bench.cli.output import show, tell
from bench.report.gate.history_plot import history_page
from bench.speed.history import BenchmarkHistory, histories, read_baselines
from bench.storage.text_files import json_text, replace_text

MOST_CAUSES = 4


def history_command(options: SpeedOptions) -> bool:
    """Print the history, and write a page with plots if a folder is given."""
    found = histories(read_baselines(options.baselines))
    if options.as_json:
        show(json_text({"benchmarks": [one.model_dump(mode="json") for one in found]}))
    else:
        show(_text(found))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        page = options.out / "history.html"
        replace_text(page, history_page(found))
        tell(f"wrote {page}")
    return True


def _text(found: list[BenchmarkHistory]) -> str:
    rows = [
        [
            one.name, point.baseline, point.recorded_at[:16], point.commit[:10],
            f"{point.seconds * 1000:.2f}",
            f"{point.seconds / one.points[0].seconds:.3f}",
        ]
        for one in found
        for point in one.points
    ]  # fmt: skip
    headings = ["benchmark", "baseline", "recorded", "commit", "ms", "over the first"]
    lines = [tabulate(rows, headings, "simple", disable_numparse=True), ""]
    changes = [(one, change) for one in found for change in one.changes]
    for one, change in changes:
        word = "slower" if change.ratio > 1 else "faster"
        causes = [f"{name} {a} → {b}" for name, (a, b) in change.differs.items()]
        more = f" and {len(causes) - MOST_CAUSES} more" if len(causes) > MOST_CAUSES else ""
        between = "; ".join(causes[:MOST_CAUSES]) + more if causes else "no recorded difference"
        lines.append(
            f"{one.name} became {abs(change.ratio - 1):.1%} {word} with '{change.at}' "
            f"({change.recorded_at[:16]}), after '{change.after}': {between}."
        )
    if not changes:
        lines.append("No benchmark changed.")
    return "\n".join(lines)
