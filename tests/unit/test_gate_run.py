"""A comparison from launch to launch: looks, budget, confirmation, failures, interruption."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from bench.cli.gate_progress import progress_words
from bench.errors import UserError
from bench.gate.design import ARMS, LOOKS, Arm, Plan
from bench.gate.journal import LAUNCHES_FILE, Journal, read_launches, read_question
from bench.gate.run import Arms, Comparison, Progress
from bench.speed.cases import OWN_STEP, TimedCase, own_step
from bench.speed.launch import CaseFailure, Launch, Place
from bench.workers.process import Interpreters
from tests.unit.made_launches import made_launch

CASE = own_step(Path("step.py"), "make", "cpu")
Seconds = Callable[[Arm, int], float]
"""Arm and number of the block → seconds of a step."""


class _Machine:
    """Launches whose times are given."""

    def __init__(self, places: dict[Arm, Place], seconds: Seconds) -> None:
        self._arms = {id(place): arm for arm, place in places.items()}
        self._seconds = seconds
        self.blocks = 0
        self.orders: list[str] = []
        self.fails_at: int | None = None
        self.is_stopped_at: int | None = None

    def __call__(
        self, sides: Sequence[tuple[Sequence[TimedCase], Place]], random: Random
    ) -> list[Launch]:
        arms = [self._arms[id(place)] for _, place in sides]
        self.orders.append("".join(arms))
        if self.blocks == self.is_stopped_at:
            raise KeyboardInterrupt
        found = [
            made_launch([self._seconds(arm, self.blocks) * w for w in (1, 1.01, 0.99)])
            for arm in arms
        ]
        if self.blocks == self.fails_at:
            failure = CaseFailure(status="crashed", message="the worker ended by signal SIGSEGV")
            found[arms.index("B")] = found[0].model_copy(
                update={"cases": {}, "failures": {CASE.name: failure}}
            )
        self.blocks += 1
        return found


def _noisy(ratio: float, spread: float = 0.005, seed: int = 0) -> Seconds:
    random = np.random.default_rng(seed)

    def seconds(arm: Arm, block: int) -> float:
        return 0.01 * (ratio if arm == "B" else 1.0) * math.exp(random.normal(0, spread))

    return seconds


def _comparison(
    folder: Path, seconds: Seconds, budget_s: float = 1e6, device: str = "cpu",
    plan: Plan | None = None,
) -> tuple[Comparison, _Machine]:  # fmt: skip
    places: dict[Arm, Place] = {
        arm: Place(Interpreters({}), folder, device, variables={"arm": arm}) for arm in ARMS
    }
    machine = _Machine(places, seconds)
    comparison = Comparison(
        Arms(places, {arm: [CASE] for arm in ARMS}), plan or Plan(margin=0.03),
        Journal(folder / "journal", {"q": 1}), budget_s, random=Random(0), launcher=machine,
    )  # fmt: skip
    return comparison, machine


def test_a_steady_pair_is_the_same_after_the_first_look(tmp_path: Path) -> None:
    comparison, machine = _comparison(tmp_path, _noisy(1.0))
    result = comparison.run()
    assert (result.verdict, result.blocks, result.confirm_blocks) == ("same", 6, 0)
    assert machine.blocks == 1 + 6, "the first launch only warms up"
    assert {"".join(sorted(order)) for order in machine.orders} == {"ABN"}
    assert len(set(machine.orders)) > 1, "the order is drawn"


def test_a_slowdown_is_confirmed_before_it_is_told(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.08))
    result = comparison.run()
    assert (result.verdict, result.blocks, result.confirm_blocks) == ("slower", 6, 6)


def test_a_slowdown_that_goes_away_is_not_told(tmp_path: Path) -> None:
    slow, equal = _noisy(1.08), _noisy(1.0)
    comparison, _ = _comparison(tmp_path, lambda arm, n: (slow if n < 7 else equal)(arm, n))
    result = comparison.run()
    assert (result.verdict, result.confirm_blocks) == ("cannot tell", 6)


def test_noise_asks_for_more_blocks_until_the_last_look(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.0, spread=0.1))
    result = comparison.run()
    assert (result.verdict, result.blocks) == ("cannot tell", LOOKS[-1])
    assert (result.benchmarks[0].needed_blocks or 0) > LOOKS[-1]


def test_middling_noise_stops_at_a_look(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.0, spread=0.02))
    result = comparison.run()
    assert result.verdict == "same"
    assert result.blocks in LOOKS[1:]


def test_on_a_gpu_launches_run_one_after_the_other_in_balanced_blocks(tmp_path: Path) -> None:
    comparison, machine = _comparison(tmp_path, _noisy(1.0), device="cuda:0")
    result = comparison.run()
    assert result.verdict == "same"
    launches = machine.orders[3:]  # three warmed up
    assert {len(one) for one in launches} == {1}
    for block in itertools.batched(launches, 6) if hasattr(itertools, "batched") else [
        launches[i : i + 6] for i in range(0, len(launches), 6)
    ]:  # fmt: skip
        order = "".join(block)
        assert order == order[::-1]
        assert order.replace("N", "") in ("ABBA", "BAAB")


BLOCK_S = 10.0


def _clocked(
    monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: Seconds, budget_s: float, plan: Plan
) -> Comparison:
    """Return a comparison whose every block takes ten seconds, and nothing else any."""
    comparison, machine = _comparison(folder, seconds, budget_s, plan=plan)
    monkeypatch.setattr("bench.gate.run.time.monotonic", lambda: BLOCK_S * machine.blocks)
    return comparison


def _wobbling(share: float) -> Seconds:
    """Return times of which B takes 6 % more, plus and minus a share in turn."""

    def seconds(arm: Arm, block: int) -> float:
        wobble = math.exp(share if block % 2 else -share)
        return 0.01 * (1.06 * wobble if arm == "B" else 1 + block / 1e6)

    return seconds


def test_the_whole_budget_serves_the_search_where_nothing_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = _noisy(1.0, spread=0.2)
    result = _clocked(monkeypatch, tmp_path, noisy, 400.0, Plan(margin=0.03)).run()
    assert (result.verdict, result.blocks, result.confirm_blocks) == ("cannot tell", 39, 0)


def test_half_of_the_budget_is_kept_to_confirm_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(margin=0.03, looks=(6, 40))
    result = _clocked(monkeypatch, tmp_path, _wobbling(0.05), 300.0, plan).run()
    assert (result.verdict, result.blocks, result.confirm_blocks) == ("slower", 14, 14)


def test_a_slowdown_that_only_the_end_of_the_budget_shows_raises_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(margin=0.03, looks=(6, 40))
    result = _clocked(monkeypatch, tmp_path, _wobbling(0.09), 300.0, plan).run()
    assert (result.verdict, result.blocks, result.confirm_blocks) == ("cannot tell", 29, 0)
    assert "no time was left for 29 new blocks" in str(result.benchmarks[0].reason)


def test_calibrating_takes_the_whole_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(margin=0.03, looks=(100_000,))
    comparison = _clocked(monkeypatch, tmp_path, _noisy(1.0), 300.0, plan)
    comparison.collect_all()
    assert comparison.result().blocks == 29


def test_a_budget_that_ends_before_the_first_look_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(step=10.0)
    monkeypatch.setattr("bench.gate.run.time.monotonic", lambda: next(now))
    comparison, machine = _comparison(tmp_path, _noisy(1.0), budget_s=100.0)
    with pytest.raises(UserError, match="ends before the first look") as caught:
        comparison.run()
    assert "--budget 3m" in str(caught.value.hint)
    assert machine.blocks == 1


def test_a_slowdown_found_late_is_confirmed_by_as_many_blocks(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _wobbling(0.04))
    result = comparison.run()
    assert (result.verdict, result.blocks, result.confirm_blocks) == ("slower", 10, 10)


def test_a_side_that_fails_keeps_what_was_measured_and_goes_on(tmp_path: Path) -> None:
    comparison, machine = _comparison(tmp_path, _noisy(1.0))
    machine.fails_at = 4
    with pytest.raises(UserError, match=r"Side B \(B\) failed at .*SIGSEGV") as caught:
        comparison.run()
    assert "kept" in str(caught.value.hint)
    again, machine = _comparison(tmp_path, _noisy(1.0))
    assert len(again.journal.launches) == 3 * 3
    result = again.run()
    assert result.verdict == "same"
    assert machine.blocks == 6 - 3, "no warm-up, and three blocks are there"


def test_ctrl_c_keeps_the_blocks(tmp_path: Path) -> None:
    comparison, machine = _comparison(tmp_path, _noisy(1.0, spread=0.2))
    machine.is_stopped_at = 9
    with pytest.raises(KeyboardInterrupt):
        comparison.run()
    assert comparison.result().blocks == 8
    again, _ = _comparison(tmp_path, _noisy(1.0, spread=0.2))
    assert len(again.journal.launches) == 8 * 3


def test_a_machine_that_is_never_quiet_is_given_up(tmp_path: Path) -> None:
    comparison, machine = _comparison(tmp_path, _noisy(1.0))

    def disturbed(
        sides: Sequence[tuple[Sequence[TimedCase], Place]], random: Random
    ) -> list[Launch]:
        from tests.unit.made_launches import CASE as NAME
        from tests.unit.made_launches import made_window

        machine.blocks += 1
        return [made_launch({NAME: [made_window(0.01, disturbed=True)] * 3}) for _ in sides]

    comparison.launcher = disturbed
    result = comparison.run()
    assert result.verdict == "cannot tell"
    assert result.blocks == 3
    assert "3 blocks were disturbed" in str(result.benchmarks[0].reason)


def test_progress_tells_the_time_left(tmp_path: Path) -> None:
    seen: list[Progress] = []
    comparison, _ = _comparison(tmp_path, _noisy(1.08))
    comparison.watch = seen.append
    comparison.run()
    assert [one.stage for one in seen] == ["search"] * 6 + ["confirm"] * 6
    assert seen[0].left_s is None
    assert seen[3].left_s is not None
    assert [one.wanted for one in seen] == [6] * 12


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.0))
    comparison.run()
    file = tmp_path / "journal" / LAUNCHES_FILE
    file.write_bytes(file.read_bytes()[:-20])
    journal = Journal(tmp_path / "journal", {"q": 1})
    assert len(journal.launches) == 17
    assert len(read_launches(tmp_path / "journal")) == 17


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.0))
    comparison.run()
    file = tmp_path / "journal" / LAUNCHES_FILE
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(["{}\n", *lines]))
    with pytest.raises(UserError, match="Line 1 of .* is damaged"):
        read_launches(tmp_path / "journal")


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.0))
    comparison.run()
    file = tmp_path / "journal" / LAUNCHES_FILE
    text = file.read_text().replace('"seconds":0.01', '"seconds":NaN', 1)
    file.write_text(text if "NaN" in text else text.replace('"seconds":1.0', '"seconds":NaN', 1))
    with pytest.raises(UserError, match="damaged"):
        read_launches(tmp_path / "journal")


def test_a_finished_or_another_question_starts_anew(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.0))
    comparison.journal.finish(comparison.run().model_dump(mode="json"))
    assert read_question(tmp_path / "journal") == {"q": 1}
    assert Journal(tmp_path / "journal", {"q": 1}).launches == []


def test_another_comparison_in_the_folder_is_kept(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.0))
    comparison.run()
    with pytest.raises(UserError, match="another comparison") as caught:
        Journal(tmp_path / "journal", {"q": 2})
    assert "--fresh" in str(caught.value.hint)
    assert len(read_launches(tmp_path / "journal")) == 18
    assert Journal(tmp_path / "journal", {"q": 2}, fresh=True).launches == []


def test_fresh_starts_anew(tmp_path: Path) -> None:
    comparison, _ = _comparison(tmp_path, _noisy(1.0))
    comparison.run()
    assert len(Journal(tmp_path / "journal", {"q": 1}).launches) == 18
    assert Journal(tmp_path / "journal", {"q": 1}, fresh=True).launches == []


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="something else: letter.txt"):
        Journal(tmp_path, {"q": 1})
    with pytest.raises(UserError, match="not a folder"):
        Journal(tmp_path / "letter.txt", {"q": 1})
    with pytest.raises(UserError, match="not the folder of a comparison"):
        read_question(tmp_path)


def test_a_question_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "question.json").write_text('{"schema_version": 99, "question": {}}')
    with pytest.raises(UserError, match="newer version"):
        read_question(tmp_path)


def test_an_own_step_belongs_to_no_backend() -> None:
    assert CASE.backend == OWN_STEP
    assert CASE.measures == ("train_step",)


def test_on_a_gpu_launches_are_alone_unless_its_memory_holds_three() -> None:
    places: dict[Arm, Place] = {arm: Place(Interpreters({}), Path("c"), "cuda:0") for arm in ARMS}
    cases: dict[Arm, Sequence[TimedCase]] = {arm: [CASE] for arm in ARMS}
    assert not Arms(places, cases).together
    assert Arms(places, cases, shares_gpu=True).together
    own: dict[Arm, Place] = {arm: Place(Interpreters({}), Path("c")) for arm in ARMS}
    assert Arms(own, cases).together


def test_progress_says_why_there_are_more_blocks_than_wanted() -> None:
    assert progress_words(Progress("search", 2, 6, 90.0)) == "block 3 of 6, 1:30 to the look"
    assert progress_words(Progress("search", 0, 6, None)) == "block 1 of 6"
    said = progress_words(Progress("confirm", 6, 6, 0.0))
    assert said == "confirming: one more block, as some of the 6 were disturbed"
