"""Parts of a report's document as the page's template wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "–"
COLOURS = 8
"""That page.css has."""


@dataclass(frozen=True)
class SideBySide:
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
) -> SideBySide:
    """The knob ledger."""
    lines = {str(line["knob"]): line["values"] for line in knobs}
    mentioned = {key for values in lines.values() for key in values}
    shown = [key for key in environments if key in mentioned]
    return _side_by_side(
        {key: str(environments[key].get("backend", "")) for key in shown},
        {name: [values.get(key) for key in shown] for name, values in lines.items()},
    )


def environments_view(environments: Mapping[str, Mapping[str, Any]]) -> SideBySide:
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


def _side_by_side(backends: Mapping[str, str], lines: Mapping[str, Sequence[Any]]) -> SideBySide:
    texts = {name: [_text(value) for value in values] for name, values in lines.items()}
    differing = [(n, v) for n, v in texts.items() if len(set(v)) > 1]
    same = [(n, v) for n, v in texts.items() if len(set(v)) <= 1]
    headings = [f"{backend} {key}".strip() for key, backend in backends.items()]
    return SideBySide(headings, differing, same)


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
