"""The pictures of a page's first screen: policies behind the leader, tests, and single images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.analysis.contests import Contest, Standing
from bench.analysis.findings import Findings
from bench.analysis.rows import grouped
from bench.catalog.policies import DESCRIPTIONS
from bench.report.answer import Answer, answer, relative_times
from bench.report.format import ABSENT, chance, ends, relative_time, signed
from bench.report.labels import values_of
from bench.report.questions import data_name

TONES = {"best": "good", "as good as the best": "good", "open": "open", "ruled out": "bad"}
"""Verdict → name of its colour in page.css."""
MOST_TESTS = 24
"""Most tests in the picture; of more, the tables have all."""
MOST_SQUARES = 120
"""Most test images that are drawn one by one."""


def first_screen(found: Findings) -> dict[str, Any]:
    """Return the first screen as JSON for the template."""
    said = answer(found)
    return {
        "headline": said.headline,
        "subline": said.subline,
        "boxes": [vars(box) for box in said.boxes],
        "notes": [{"title": n.title, "sentences": list(n.sentences)} for n in said.notes],
        "shape": said.shape,
        "bars": _bars(said) if said.shape == "policies" else None,
        "matrix": _matrix(said) if said.shape == "policies" else None,
        "squares": _squares(said) if said.shape == "few images" else None,
        "plot": _plot(found) if said.shape == "networks" else None,
    }


def _plot(found: Findings) -> str:
    """Return the name of the plot of many networks: against the speed of inference, if known."""
    has_rates = any(row["infer_images_per_s"] for group in found.groups for row in group.rows)
    return "accuracy_speed" if has_rates else "accuracy_time"


def _bars(said: Answer) -> dict[str, Any] | None:
    """Return a row for each policy: points behind the leader with interval and single tests, the
    chance to be within the margin, and training time; places are percent of the width."""
    overall = said.overall
    if overall is None:
        return None
    times = relative_times(overall)
    behind = [s.behind for s in said.standings if s.behind is not None]
    near = [e for e in behind if e.value <= 0.15] or behind
    top = max(max(e.high or e.value, 0.01) for e in near) * 1.05
    low = min(min((e.low or 0.0 for e in near), default=0.0), 0.0) * 1.05
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (top - low) / s <= 7)

    def place(value: float) -> float:
        return round(100 * (min(max(value, low), top) - low) / (top - low), 2)

    slowest = max(times.values(), default=1.0)
    rows = []
    for s in said.standings:
        e = s.behind
        time = times.get(s.name)
        singles = [x.behind.value if x.behind else 0.0 for x in overall.single(s.name)]
        rows.append(
            {
                "name": s.name,
                "gloss": DESCRIPTIONS.get(s.name, ""),
                "tone": TONES[s.word],
                "word": s.word,
                "text": "leads" if e is None else f"{signed(100 * e.value, 1)} {ends(e)}",
                "dot": place(0.0 if e is None else e.value),
                "low": place(0.0 if e is None or e.low is None else e.low),
                "high": place(0.0 if e is None or e.high is None else e.high),
                "is_beyond": e is not None and e.value > top,
                "marks": [place(v) for v in singles if len(singles) > 1 and low <= v <= top],
                "chance": round(100 * s.chance, 1) if s.is_sure else None,
                "chance_text": chance(s.chance) if s.is_sure else "not known",
                "time": None if time is None else round(100 * time / slowest, 1),
                "time_text": ABSENT if time is None else relative_time(time),
            }
        )
    ticks = np.arange(np.ceil(low / step), np.floor(top / step) + 1) * step
    tests = len(overall.contests)
    return {
        "rows": rows,
        "zero": place(0.0),
        "ticks": [
            {"place": place(t), "text": signed(100 * t, 0 if step >= 0.01 else 1)}
            for t in map(float, ticks)
        ],
        "title": "Points behind the leader" + (f", average of {tests} tests" if tests > 1 else ""),
        "margin": f"{100 * overall.margin:g}",
        "has_marks": tests > 1,
    }


def _matrix(said: Answer) -> dict[str, Any] | None:
    """Return policies × tests: accuracy minus that of the test's leader, in points, the verdict,
    and a frame around the article's choice."""
    if said.overall is None or len(said.overall.contests) < 2:
        return None
    shown = list(said.overall.contests)[:MOST_TESTS]
    names = list(dict.fromkeys([s.name for s in said.standings]
                               + [e.name for c in shown for e in c.entries]))  # fmt: skip
    by_data = grouped(shown, lambda c: (c.row.spec.case.number, data_name(c.row)))
    ordered = [contest for same in by_data.values() for contest in same]
    rows = []
    for name in names:
        cells = []
        for contest in ordered:
            standing = next((s for s in contest.standings if s.name == name), None)
            prescribed = contest.prescribed
            cells.append(_cell(standing, prescribed is not None and prescribed.name == name))
        rows.append({"name": name, "cells": cells})
    columns = []
    for (case, data), same in by_data.items():
        size, similarity = same[0].row.spec.case.size, same[0].row.spec.case.similarity
        about = [f"case {case}"] if case else []
        about += [size, (similarity or "").replace("_", " ")]
        columns.append({"data": data, "about": ", ".join(filter(None, about)), "span": len(same)})
    return {
        "columns": columns,
        "tests": [_test_name(contest, shown) for contest in ordered],
        "rows": rows,
        "title": _depends(ordered),
        "left_out": len(said.overall.contests) - len(shown),
    }


def _cell(standing: Standing | None, is_article: bool) -> dict[str, Any]:
    if standing is None:
        return {"text": "–", "tone": "none", "article": is_article, "word": "not compared"}
    value = standing.behind
    text = "leads" if value is None else signed(-100 * value.value, 1)
    if value is None and standing.word == "best":
        text = "best"
    return {"text": text, "tone": TONES[standing.word], "article": is_article,
            "word": standing.word}  # fmt: skip


def _test_name(contest: Contest, contests: Sequence[Contest]) -> str:
    rows = [c.row for c in contests]
    parts = [contest.row.spec.backbone] if len(values_of(rows, "backbone")) > 1 else []
    if len({tuple(c.backends) for c in contests}) > 1:
        parts.append(" and ".join(contest.backends))
    return ", ".join(parts)


def _depends(contests: Sequence[Contest]) -> str:
    """Return a heading that says if the best policy depends on the data."""
    best = {c.standings[0].name for c in contests if c.standings[0].word == "best"}
    allowed = [{s.name for s in c.standings if s.word != "ruled out"} for c in contests]
    common = set.intersection(*allowed)
    ask = "Does it depend on the data?"
    if not common:
        return f"{ask} Yes: every policy is ruled out in at least one test."
    if len(best) == 1 and not all(c.standings[0].word == "best" for c in contests):
        where = next(c for c in contests if c.standings[0].word == "best")
        return (
            f"{ask} These runs do not show that it does, but {next(iter(best))} is the only policy "
            f"left on {data_name(where.row)}."
        )
    return f"{ask} These runs do not show that it does."


def _squares(said: Answer) -> dict[str, Any] | None:
    """Return the test images of each policy one by one, of the first seed and backend, in one
    order; wrong ones are filled, and those on which policies differ are framed."""
    if said.overall is None:
        return None
    contest = min(said.overall.contests, key=lambda c: c.entries[0].scores.images)
    rights = []
    for entry in contest.entries:
        answers = entry.groups[0].answers
        if answers is None:
            return None
        rights.append(np.concatenate([a.right for a in answers[0]]))
    right = np.stack(rights)
    if right.shape[1] > MOST_SQUARES:
        return None
    differs = right.min(axis=0) != right.max(axis=0)
    order = np.lexsort((differs, right.sum(axis=0)))
    seeds = len(contest.entries[0].scores.seeds)
    return {
        "rows": [
            {
                "name": entry.name,
                "wrong": [not bool(x) for x in own[order]],
                "text": f"{int(own.sum())} of {len(own)} right",
            }
            for entry, own in zip(contest.entries, right, strict=True)
        ],
        "differs": [bool(x) for x in differs[order]],
        "note": "each square is a test image, in the same order; filled: wrong; framed: the "
        "policies differ" + (f"; the first of {seeds} seeds" if seeds > 1 else ""),
    }
