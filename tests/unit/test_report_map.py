"""The strategy map shows how many policies tie, in how many questions, and the best accuracy."""

from __future__ import annotations

import re
from pathlib import Path

from bench.analysis.strategy import strategy_map
from bench.report import make_report
from bench.storage.results import StoredRun
from tests.unit.made_runs import Make, found

SHARES = {"freeze_all": 0.9, "fine_tune_all": 0.9, "fine_tune_last": 0.9, "from_scratch": 0.5}


def runs(make: Make, *backbones: str, **shares: float) -> list[StoredRun]:
    ways = {**SHARES, **shares}
    return [make(share, policy, seed, backbone=b)
            for b in backbones for policy, share in ways.items() for seed in range(3)]  # fmt: skip


def words(all_runs: list[StoredRun], folder: Path) -> list[str]:
    """Return the text of the first map's cells that name a policy."""
    make_report(all_runs, folder).write([])
    page = (folder / "report.html").read_text(encoding="utf-8")
    grid = page[page.index("Best policy in these runs") :].split("</table>")[0]
    cells = re.findall(r'<td class="(?:one|tie|differs)".*?</td>', grid, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in cells]


def test_a_tie_tells_how_many_tie_and_in_how_many_questions(make: Make, tmp_path: Path) -> None:
    tied = runs(make, "vgg16", "resnet50")
    made = strategy_map(found(*tied).contests)
    assert made is not None
    (cell,) = (c for c in made["cells"] if c["best"])
    assert (len(cell["best"]), cell["policies"], cell["questions"]) == (3, 4, 2)
    (said,) = words(tied, tmp_path)
    assert said.startswith("3 of 4 policies tie: ")
    assert "in all 2 questions" in said
    (said,) = words(runs(make, "vgg16"), tmp_path)
    assert "in its only question" in said


def test_a_winner_is_one_in_every_question_and_others_are_not_said_to_be(
    make: Make, tmp_path: Path
) -> None:
    best = runs(make, "vgg16", "resnet50", fine_tune_all=0.6, fine_tune_last=0.6)
    (said,) = words(best, tmp_path)
    assert said.startswith("freeze_all in all 2 questions")
    other = runs(make, "vgg16", fine_tune_all=0.6, fine_tune_last=0.6)
    other += runs(make, "resnet50", freeze_all=0.6, fine_tune_last=0.6)
    (said,) = words(other, tmp_path)
    assert said.startswith("by network or backend: ")
    assert "every" not in said
    assert "2 questions" in said


def test_the_highest_figure_is_called_that_and_said_to_lean_upwards(
    make: Make, tmp_path: Path
) -> None:
    tied = runs(make, "vgg16", "resnet50")
    (said,) = words(tied, tmp_path)
    assert "highest of 8 results: " in said
    page = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    assert "The highest accuracy in a cell was chosen on these same test images" in page
    assert "it is slightly too high" in page
