"""Plots of speed and time draw what was measured, and name what was not."""

from __future__ import annotations

from typing import Any

import pytest

from bench.report.plots.accuracy import plots
from bench.storage.results import StoredRun
from tests.unit.made_runs import Make, found, tables

Figure = dict[str, Any]
BUSY = {"step_s_p50": 0.1, "step_s_p95": 0.9}


def drawn(name: str, *runs: StoredRun) -> tuple[dict[str, Figure], str]:
    """Return the traces by name, and the caption."""
    (made,) = (p for p in plots(found(*runs)) if p["name"] == name)
    return {t["name"]: t for t in made["figure"]["data"]}, made["caption"]


def speeds(make: Make, *rates: float, **more: Any) -> list[StoredRun]:
    """Return a run for each rate, with widely spread windows."""
    return [make(0.9, seed=s, result={"train_images_per_s": rate, **more,
                                      "train_images_per_s_windows": [rate / 9, rate, rate * 9] * 2})
            for s, rate in enumerate(rates)]  # fmt: skip


def test_bars_of_speed_and_their_lines_are_of_the_same_figures(make: Make) -> None:
    """The bar and its line use the same values, so that the bar ends within the line."""
    runs = speeds(make, 100.0, 200.0, 800.0)
    (bars,), caption = drawn("throughput", *runs)[0].values(), drawn("throughput", *runs)[1]
    (mean,) = bars["x"]
    assert mean + bars["error_x"]["array"][0] == pytest.approx(800.0)
    assert mean - bars["error_x"]["arrayminus"][0] == pytest.approx(100.0)
    table = tables(*runs)["policies"]
    place = [c.name for c in table.columns].index("train_images_per_s")
    assert table.rows[0][place].sort == mean
    assert 100.0 < mean < 800.0
    assert bars["text"] == [f"{mean:,.0f} images/s<br>runs: 100, 200, 800"]
    assert "geometric mean over the seeds" in caption
    assert "slowest run" in caption
    assert "percentile" not in caption


def test_a_run_alone_has_no_line_and_no_words_of_one(make: Make) -> None:
    traces, caption = drawn("throughput", *speeds(make, 100.0))
    (bars,) = traces.values()
    assert (bars["error_x"]["array"], bars["error_x"]["arrayminus"]) == ([0.0], [0.0])
    assert "slowest" not in caption
    assert "Left out" not in caption


def test_a_cell_whose_first_run_was_over_too_soon_has_its_bar(make: Make) -> None:
    runs = speeds(make, 100.0, 200.0, 400.0)
    short = make(0.9, seed=0, result={"train_images_per_s": None})
    (bars,) = drawn("throughput", short, *runs[1:])[0].values()
    assert bars["text"] == ["283 images/s<br>runs: 200, 400"]


@pytest.mark.parametrize("name", ["throughput", "time_parts"])
def test_unsteady_runs_are_hatched(make: Make, name: str) -> None:
    def run(policy: str, **more: Any) -> StoredRun:
        return make(0.9, policy, result={"train_images_per_s": 100.0, **more})

    busy, quiet = run("freeze_all", **BUSY), run("fine_tune_all")
    traces, caption = drawn(name, busy, quiet)
    hatches = [t["marker"]["pattern"]["shape"] for n, t in traces.items() if n != "unsteady"]
    assert hatches
    assert {tuple(h) for h in hatches} == {("/", "")}
    assert traces["unsteady"]["marker"]["pattern"]["shape"] == ["/"]
    assert any("unsteady" in t["text"][0] for n, t in traces.items() if n != "unsteady")
    assert "unsteady" in caption
    assert "unsteady" not in str(drawn(name, quiet))


def timed(
    make: Make, policy: str = "freeze_all", seed: int = 0, spec: dict[str, Any] | None = None,
    **result: Any,
) -> StoredRun:  # fmt: skip
    usual = {"fit_s": 10.0, "setup_s": 1.0, "test_s": 2.0, "input_wait_fraction": 0.25}
    return make(0.9, policy, seed, {**usual, **result}, **(spec or {}))


REST = "compute, validation and input"


def test_parts_that_were_measured_make_up_the_time_of_a_run(make: Make) -> None:
    traces, caption = drawn("time_parts", timed(make, compile_s=2.0))
    assert {name: t["x"] for name, t in traces.items()} == {
        "set-up": [1.0], "compile": [2.0], "input": [2.0], "compute and validation": [6.0],
        "test": [2.0],
    }  # fmt: skip
    assert "Compile: " in caption
    for absent in ("not measured", "Frozen", "--tune", "worker"):
        assert absent not in caption


def test_a_wait_for_input_that_was_not_measured_is_not_drawn_as_none(make: Make) -> None:
    traces, caption = drawn(
        "time_parts", timed(make), timed(make, "fine_tune_all", input_wait_fraction=None)
    )
    assert traces["input"]["x"] == [2.5, 0.0]
    assert traces["compute and validation"]["x"] == [7.5, 0.0]
    assert traces[REST]["x"] == [0.0, 10.0]
    assert traces["input"]["text"][1] == ""
    assert "input was not measured" in caption
    only, caption = drawn("time_parts", timed(make, input_wait_fraction=None))
    assert "input" not in only
    assert "Input:" not in caption
    mixed, _ = drawn("time_parts", timed(make), timed(make, seed=1, input_wait_fraction=None))
    assert mixed[REST]["x"] == [10.0]


def test_the_start_of_a_worker_is_no_policys(make: Make) -> None:
    """A worker's start is not divided among the seeds of one policy."""
    runs = [timed(make, policy, seed, start_s=6.0 if (policy, seed) == ("freeze_all", 0) else None)
            for policy in ("freeze_all", "fine_tune_all") for seed in range(3)]  # fmt: skip
    traces, caption = drawn("time_parts", *runs)
    start = traces["start of a worker"]
    assert (start["x"], start["y"]) == ([6.0], ["start of a worker, torch"])
    assert not {"start of a worker, torch"} & set(traces["set-up"]["y"])
    assert "1 of 6" in caption
    other = timed(make, start_s=2.0, spec={"environment": {"cores": 64}})
    both = drawn("time_parts", *runs, other)[0]["start of a worker"]
    assert sorted(both["x"]) == [2.0, 6.0]
    assert len(set(both["y"])) == 2


def test_a_part_that_some_runs_have_is_their_mean_and_says_so(make: Make) -> None:
    runs = [timed(make, seed=s, fit_s=13.0 if s == 0 else 10.0, compile_s=3.0 if s == 0 else None)
            for s in range(3)]  # fmt: skip
    traces, _ = drawn("time_parts", *runs)
    assert traces["compile"]["x"] == [3.0]
    assert traces["compile"]["text"] == ["compile: 3.00 s in 1 of 3 runs"]
    assert traces["compute and validation"]["x"] == [7.5]


def test_a_frozen_part_that_seeds_share_is_said_to_be_shared(make: Make) -> None:
    def runs(*values: str) -> list[StoredRun]:
        return [timed(make, seed=s, prefix_s=4.0, prefix_values=v) for s, v in enumerate(values)]

    traces, caption = drawn("time_parts", *runs("computed", "reused", "reused"))
    assert traces["frozen part"]["x"] == [4.0]
    assert "computed once for these runs" in traces["frozen part"]["text"][0]
    assert "Seeds that shared these values" in caption
    own, caption = drawn("time_parts", *runs("computed", "computed"))
    assert "once for these runs" not in own["frozen part"]["text"][0]
    assert "shared" not in caption


def test_compiling_that_trials_paid_for_is_said_to_be_unmeasured(make: Make) -> None:
    tuned = {"learning_rate_grid": [0.01, 0.1]}
    traces, caption = drawn("time_parts", timed(make, spec={"recipe": tuned}))
    assert "compile" not in traces
    assert "Compilation was not measured: it took place in the trials of --tune." in caption
    assert "Compile:" not in caption


def test_times_have_a_choice_for_each_question(make: Make) -> None:
    runs = [timed(make, policy, spec={"backbone": b}) for b in ("vgg16", "resnet50")
            for policy in ("freeze_all", "fine_tune_all")]  # fmt: skip
    (made,) = (p for p in plots(found(*runs)) if p["name"] == "time_parts")
    (menu,) = made["figure"]["layout"]["updatemenus"]
    assert len(menu["buttons"]) == 2
    for trace in made["figure"]["data"]:
        assert trace["y"] == ["freeze_all, torch", "fine_tune_all, torch"]
