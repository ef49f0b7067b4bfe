"""Plots of accuracy: contents, distinct labels, and intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.report.plots import pareto, plots
from bench.storage.results import StoredRun
from tests.unit.made_runs import Make, found

Figure = dict[str, Any]
BUSY = {"step_s_p50": 0.1, "step_s_p95": 0.9}


def drawn(name: str, *runs: StoredRun) -> dict[str, Any]:
    (made,) = (p for p in plots(found(*runs)) if p["name"] == name)
    return made


def names(made: dict[str, Any]) -> list[str]:
    """Return the labels of the choices."""
    (menu,) = made["figure"]["layout"]["updatemenus"]
    return [button["label"] for button in menu["buttons"]]


def choice(made: dict[str, Any], number: int = 0) -> list[Figure]:
    """Return the traces that a choice shows."""
    (menu,) = made["figure"]["layout"]["updatemenus"]
    seen = menu["buttons"][number]["args"][0]["visible"]
    return [t for t, is_seen in zip(made["figure"]["data"], seen, strict=True) if is_seen]


def fronts(traces: list[Figure]) -> list[Figure]:
    return [t for t in traces if t["mode"] == "lines"]


def marks(traces: list[Figure]) -> list[Figure]:
    return [t for t in traces if t.get("error_y")]


def two_policies(make: Make, shares: tuple[float, float], **changes: Any) -> list[StoredRun]:
    """Return a quick and a slow run."""
    ways = list(zip(("freeze_all", "fine_tune_all"), shares, (1.0, 9.0), strict=True))
    costs = {p: {"fit_s": t, "infer_images_per_s": 200.0 - 10 * t} for p, _, t in ways}
    return [make(s, p, result=costs[p], luck=0.0, **changes) for p, s, _ in ways]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"case": {"dataset": {"content_hash": "ee" * 32}}}, "dataset eeeeeeee"),
        ({"recipe": {"px": 64}}, "px 64"),
        ({"recipe": {"epochs": 3}}, "epochs 3"),
        ({"recipe": {"head": "dense:9"}}, "head dense:9"),
        ({"case": {"dataset": {"test_images": 7}}}, "test images 7"),
    ],
)
@pytest.mark.parametrize("name", ["accuracy_time", "accuracy_speed"])
def test_a_front_is_of_one_set_of_test_images_and_one_recipe(
    make: Make, change: dict[str, Any], told: str, name: str
) -> None:
    ours = two_policies(make, (0.6, 0.7))
    others = two_policies(make, (0.8, 0.9), **change)
    few = {"result": {"fit_s": 5.0, "infer_images_per_s": 150.0}, "luck": 0.0}
    ours.append(make(0.5, "from_scratch", **few))
    others.append(make(0.75, "from_scratch", **few, **change))
    made = drawn(name, *ours, *others)
    assert len(names(made)) == len(set(names(made))) == 2
    (at,) = (n for n, label in enumerate(names(made)) if told in label)
    shares = [sorted(y for t in marks(choice(made, n)) for y in t["y"]) for n in (at, 1 - at)]
    assert shares == [[0.75, 0.8, 0.9], [0.5, 0.6, 0.7]]
    for number, own in zip((at, 1 - at), shares, strict=True):
        (front,) = fronts(choice(made, number))
        assert set(front["y"]) <= set(own)


def test_two_machines_in_one_choice_have_a_front_each(make: Make) -> None:
    far = two_policies(make, (0.8, 0.9), environment={"device_model": "Another"})
    made = drawn("accuracy_time", *two_policies(make, (0.6, 0.7)), *far)
    assert [f["y"] for f in fronts(choice(made))] == [[0.6, 0.7], [0.8, 0.9]]


def test_networks_and_backends_are_told_apart_by_more_than_hovering(make: Make) -> None:
    runs = [make(0.9, policy, backbone=network, backend=backend)
            for network in ("vgg16", "resnet50") for backend in ("torch", "keras-tensorflow")
            for policy in ("freeze_all", "fine_tune_all")]  # fmt: skip
    made = drawn("accuracy_time", *runs)
    looks = [(t["marker"]["symbol"], t["marker"]["color"]) for t in marks(choice(made))]
    assert len(looks) == len(set(looks)) == len(runs)
    legend = {t["name"]: t["marker"] for t in choice(made) if t["x"] == [None]}
    assert set(legend) == {"vgg16", "resnet50", "torch", "keras-tensorflow", "freeze_all",
                           "fine_tune_all"}  # fmt: skip
    assert legend["vgg16"]["symbol"] != legend["resnet50"]["symbol"]
    assert legend["torch"]["symbol"] != legend["keras-tensorflow"]["symbol"]
    assert legend["freeze_all"]["color"] != legend["fine_tune_all"]["color"]


def test_the_front_goes_by_the_estimates_and_says_so(make: Make) -> None:
    made = drawn("accuracy_time", *two_policies(make, (0.6, 0.7)))
    assert "It ignores the intervals" in made["caption"]
    one = drawn("accuracy_time", make(0.9))
    assert "line" not in one["caption"]
    points = [(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (9, 0.7), (10, 0.9)]
    assert pareto(points) == [(1, 0.5), (3, 0.7), (10, 0.9)]
    assert pareto(points, low_wins=False) == [(10, 0.9)]
    assert pareto([(1, 0.9), (5, 0.4), (3, 0.6)], low_wins=False) == [(1, 0.9), (3, 0.6), (5, 0.4)]


def test_accuracies_have_their_intervals(make: Make) -> None:
    (mark,) = marks(choice(drawn("accuracy_time", make(0.9))))
    assert mark["error_y"]["array"][0] > 0.0
    assert mark["error_y"]["arrayminus"][0] > 0.0


def test_unsteady_runs_are_left_out_and_counted(make: Make) -> None:
    busy = make(0.95, "retrain_all", result={"fit_s": 5.0, **BUSY}, luck=0.0)
    made = drawn("accuracy_time", *two_policies(make, (0.6, 0.7)), busy)
    assert sorted(y for t in marks(choice(made)) for y in t["y"]) == [0.6, 0.7]
    assert "1 experiment left out: the machine was busy." in made["caption"]


def test_ticks_of_a_logarithmic_axis_are_whole_numbers(make: Make) -> None:
    made = drawn("accuracy_time", *two_policies(make, (0.6, 0.7)))
    across = made["figure"]["layout"]["xaxis"]
    assert dict(zip(across["ticktext"], across["tickvals"], strict=True)) == {
        "1": 1, "2": 2, "5": 5, "10": 10, "20": 20, "50": 50,
    }  # fmt: skip
    fast = drawn("accuracy_speed", make(0.9, result={"infer_images_per_s": 20_000.0}))
    assert "20k" in fast["figure"]["layout"]["xaxis"]["ticktext"]


def test_what_is_shown_is_named_where_there_is_no_choice(make: Make) -> None:
    for name, label in (
        ("accuracy_time", "photos (stand-in), 216 images"),
        ("learning_curves", "photos (stand-in), 216 images, efficientnet_lite0"),
    ):
        assert names(drawn(name, make(0.9))) == [label]  # fmt: skip


def test_curves_of_two_recipes_are_two_choices(make: Make) -> None:
    made = drawn("learning_curves", make(0.9), make(0.8, recipe={"px": 64}))
    assert [label.split(", ")[-1] for label in names(made)] == ["px 64", "px 96"]
    assert [len(choice(made, n)) for n in (0, 1)] == [1, 1]


def test_bands_and_missing_curves_are_told_only_where_there_are_some(make: Make) -> None:
    one = drawn("learning_curves", make(0.9))
    assert "Bands" not in one["caption"]
    three = [make(0.9, seed=s) for s in range(3)]
    assert "Bands" in drawn("learning_curves", *three)["caption"]
    assert "left out" not in drawn("learning_curves", *three)["caption"]
    gap = make(0.9, "fine_tune_all", result={"val_top1_by_epoch": [0.5, None]})
    assert (
        "1 curve left out: a run lacks an epoch, or there are more than 24."
        in drawn("learning_curves", *three, gap)["caption"]
    )


def sized(make: Make, images: int, policy: str = "freeze_all", **more: Any) -> StoredRun:
    data = {"train_images": images, "content_hash": f"{images:064d}", **more.pop("dataset", {})}
    return make(0.9, policy, case={"dataset": data}, **more)


def test_sizes_have_a_choice_for_each_network_and_a_short_legend(make: Make) -> None:
    runs = [sized(make, n, backbone=b) for n in (100, 200) for b in ("vgg16", "resnet50")]
    made = drawn("accuracy_size", *runs)
    assert names(made) == ["photos (stand-in), resnet50", "photos (stand-in), vgg16"]
    for number in (0, 1):
        (line,) = choice(made, number)
        assert (line["name"], line["x"]) == ("freeze_all, torch", [100, 200])


def test_no_line_of_sizes_joins_other_test_images(make: Make) -> None:
    runs = [sized(make, n) for n in (100, 200, 300)]
    with np.load(runs[2].folder / "predictions.npz") as arrays:
        other = {**arrays, "labels": 1 - arrays["labels"]}
    np.savez(runs[2].folder / "predictions.npz", **other)
    (line,) = choice(drawn("accuracy_size", *runs))
    assert line["x"] == [100, 200]


def test_two_data_sets_of_one_name_and_size_make_no_line(make: Make) -> None:
    again = sized(make, 200, dataset={"content_hash": "ee" * 32})
    runs = [sized(make, 100), sized(make, 200), again,
            *(sized(make, n, "fine_tune_all") for n in (100, 200))]  # fmt: skip
    made = drawn("accuracy_size", *runs)
    assert [line["name"] for line in choice(made)] == ["fine_tune_all, torch"]


def test_choices_and_lines_have_names_of_their_own(make: Make) -> None:
    """Only the beginning of a hash is shown, and these begin alike."""
    data = [{"dataset": {"content_hash": f"{n:064x}"}} for n in range(3)]
    made = drawn("accuracy_time", *(make(0.9, case=case) for case in data))
    assert len(set(names(made))) == len(data)


def test_names_are_escaped_and_numbers_are_plain(make: Make) -> None:
    name = "<b>flowers</b>"
    data = {"dataset": {"name": name, "label": name}}
    made = plots(found(make(0.9, case=data), make(0.6, "from_scratch", case=data)))
    assert {p["name"] for p in made} >= {"accuracy_time", "learning_curves"}
    assert "<b>" not in str(made)
    assert "&lt;b&gt;" in str(made)
