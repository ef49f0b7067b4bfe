"""``report A B``: filters, lost seeds, other devices, and why nothing was compared."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.report.compare import FolderComparison, side_by_side
from bench.report.page import read_document
from bench.storage.results import Store, StoredRun
from bench.training.predictions import prediction_fields
from tests.unit.conftest import Cli
from tests.unit.made_runs import POLICIES, Make, cell

NAMES = ("before", "after")
NEW = {"packages": {"numpy": "2.0.0", "torch": "2.15.0"}}
LOST = {"status": "diverged", "failure": {"kind": "nan", "message": "not finite"},
        "test_top1": None}  # fmt: skip
GPU = {"device": "cuda:0", "environment": {"device": "cuda:0", "device_model": "H100"}}
Add = Callable[..., None]


@pytest.fixture
def add(
    tmp_path: Path, save_run: Callable[..., Path], make_spec: Any, make_environment: Any
) -> Add:
    """Return a function: ``add("before", 0.8, policy="freeze_all", seed=0, …)`` stores a run in
    that folder with this accuracy on 400 images; None: a failed run."""

    def added(
        name: str, share: float | None, policy: str = "freeze_all", seed: int = 0,
        environment: dict[str, Any] | None = None, **spec: Any,
    ) -> None:  # fmt: skip
        made = make_spec(policy={"name": policy, **POLICIES[policy]}, seed=seed, **spec)
        where = make_environment(backend=made.backend, **(environment or {}))
        store = Store(tmp_path / name)
        if share is None:
            save_run(store, made, where, **LOST)
            return
        right = np.arange(400) < share * 400
        right ^= np.random.default_rng([seed, len(policy)]).random(400) < 0.02
        labels = np.arange(400) % 2
        logits = np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)] * 4
        np.savez(tmp_path / "predictions.npz", logits=logits, labels=labels)
        fields = {"test_top1": float(right.mean()), **prediction_fields(tmp_path)}
        folder = save_run(store, made, where, **fields)
        shutil.move(tmp_path / "predictions.npz", folder / "predictions.npz")

    return added


def _fill(add: Add) -> None:
    for seed in range(3):
        for policy in ("freeze_all", "fine_tune_all"):
            add("before", 0.9, policy, seed)
        add("after", 0.6, "freeze_all", seed, NEW)


# Filters


@pytest.mark.parametrize(
    "words",
    [
        ["--policies", "freeze_all,fine_tune_all"],
        ["--policies", "fine_tune_all,freeze_all", "--seeds", "0,1,2"],
        ["--backends", "torch"],
    ],
)
def test_a_name_that_one_folder_lacks_filters_that_folder_all_the_same(
    here: Cli, add: Add, tmp_path: Path, words: list[str]
) -> None:
    _fill(add)
    done = here("report", str(tmp_path / "before"), str(tmp_path / "after"), *words, "--json")
    assert done.returncode == 0
    side = json.loads(done.stdout)["side_by_side"]
    assert "compared in 3 runs of 1 experiment" in side["sentences"][0]
    assert "3 runs only in 'before'" in side["sentences"][0]
    assert "No run here has" not in done.stderr


def test_what_one_folder_alone_has_can_be_asked_for(here: Cli, add: Add, tmp_path: Path) -> None:
    _fill(add)
    folders = str(tmp_path / "before"), str(tmp_path / "after")
    done = here("report", *folders, "--policies", "fine_tune_all", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["rows"]) == 3
    done = here("report", *folders, "--policies", "fine_tune_al")
    assert done.returncode == 2
    assert "Did you mean 'fine_tune_all'?" in done.stderr
    done = here("report", *folders, "--policies", "retrain_all")
    assert done.returncode == 2
    assert "no run here has the policy 'retrain_all'" in done.stderr


def test_what_matches_nothing_is_told_and_stands_on_the_page(
    here: Cli, add: Add, tmp_path: Path
) -> None:
    _fill(add)
    done = here("report", str(tmp_path / "before"), "--status", "ok,oom", "--json")
    assert done.returncode == 0
    assert "Selected from 6 runs by --status ok,oom. No run here has the status 'oom'." in (
        done.stderr
    )
    assert (
        "No run here has the status 'oom'."
        in (read_document(tmp_path / "before" / "report.html")["selection"])
    )


# Lost seeds


@pytest.mark.parametrize("words", [[], ["--status", "ok"], ["--seeds", "0,1,2"]])
def test_no_filter_hides_that_seeds_were_lost(
    here: Cli, add: Add, tmp_path: Path, words: list[str]
) -> None:
    """One of four seeds diverged: the others may be the lucky ones."""
    for seed in range(4):
        add("before", 0.6, "freeze_all", seed)
        add("before", 0.9 if seed < 3 else None, "fine_tune_all", seed)
    done = here("report", str(tmp_path / "before"), *words)
    assert done.returncode == 0
    first = read_document(tmp_path / "before" / "report.html")["first"]
    assert "fine_tune_all" not in first["headline"]
    assert any("a seed failed" in s for n in first["notes"] for s in n["sentences"])
    assert "3 of 4" in (tmp_path / "before" / "tables" / "policies.md").read_text("utf-8")


def test_without_a_lost_seed_the_winner_is_named(here: Cli, add: Add, tmp_path: Path) -> None:
    for seed in range(3):
        add("before", 0.6, "freeze_all", seed)
        add("before", 0.9, "fine_tune_all", seed)
    here("report", str(tmp_path / "before"), "--status", "ok")
    first = read_document(tmp_path / "before" / "report.html")["first"]
    assert first["headline"].startswith("Fine-tune the whole network.")


@pytest.mark.parametrize("words", [[], ["--status", "ok"]])
def test_no_filter_hides_lost_seeds_between_folders(
    here: Cli, add: Add, tmp_path: Path, words: list[str]
) -> None:
    for seed in range(4):
        add("before", 0.6, seed=seed)
        add("after", 0.9 if seed < 3 else None, seed=seed, environment=NEW)
    folders = str(tmp_path / "before"), str(tmp_path / "after")
    side = json.loads(here("report", *folders, *words, "--json").stdout)["side_by_side"]
    assert not any("is better" in sentence for sentence in side["sentences"])
    assert any("a seed failed" in sentence for sentence in side["sentences"])


# Other devices


def _compared(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> FolderComparison:
    return side_by_side(a, b, NAMES)


def test_the_same_spec_on_another_device_is_compared_and_said_to_be_another(make: Make) -> None:
    before = [make(0.7, seed=s) for s in range(3)]
    after = [make(0.9, seed=s, result={"train_images_per_s": 1_234.0}, **GPU) for s in range(3)]
    found = _compared(before, after)
    top1, rates, *_ = found.tables
    assert cell(top1, 0, "verdict") == "significant: after is better"
    assert cell(rates, 0, "verdict") == "significant: after is faster"
    (told,) = (sentence for sentence in found.sentences if "devices" in sentence)
    assert "(3 runs on cpu and cuda:0)" in told
    assert "ratios of speed mainly compare the devices" in told
    around = {row[0].text: [c.text for c in row[1:3]] for row in found.tables[-1].rows}
    assert around["device"] == ["cpu", "cuda:0"]
    assert around["model of the device"] == ["A CPU", "H100"]


def test_the_same_device_goes_before_another(make: Make) -> None:
    gpu = make(0.9, **GPU)
    found = _compared([make(0.7)], [make(0.8, environment=NEW), gpu])
    assert "compared in 1 run of" in found.sentences[0]
    assert not any("devices" in sentence for sentence in found.sentences)
    assert cell(found.tables[-1], 0, "reason") == "not in both folders"


def test_of_several_devices_none_is_chosen(make: Make) -> None:
    other = {"device": "cuda:1", "environment": {"device": "cuda:1"}}
    found = _compared([make(0.7)], [make(0.9, **GPU), make(0.9, **other)])
    assert found.sentences[0].startswith("Nothing was compared")
    assert "device (cpu in 'before', cuda:0, cuda:1 in 'after')" in found.sentences[1]


# Why nothing was compared


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"recipe": {"epochs": 5}}, {"recipe": {"epochs": 6}},
         "epochs (5 in 'before', 6 in 'after')."),
        ({}, {"policy": "retrain_all"}, "policy (freeze_all in 'before', retrain_all in 'after')."),
        ({}, {"backend": "keras-jax"}, "backend (torch in 'before', keras-jax in 'after')."),
        ({}, {"recipe": {"px": 64, "views": 4}},
         "px (96 in 'before', 64 in 'after'), views (none in 'before', 4 in 'after')."),
        ({}, {"case": {"number": None, "dataset": {"name": "mnist5k", "label": "mnist5k"}}},
         "dataset (photos in 'before', mnist5k in 'after')."),
        ({}, {"recipe": {"px": 64}, **GPU},
         "px (96 in 'before', 64 in 'after'), device (cpu in 'before', cuda:0 in 'after')."),
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_which_the_folders_have_no_value_in_common_are_named(
    make: Make, before: dict[str, Any], after: dict[str, Any], told: str
) -> None:
    found = _compared([make(0.7, **before)], [make(0.7, **after)])
    assert f"The folders differ in {told}" in found.sentences


def test_a_value_that_both_folders_have_is_no_difference(make: Make) -> None:
    before = [make(0.7, recipe={"epochs": 5}, seed=s) for s in range(2)]
    far = [make(0.7, recipe={"epochs": 6, "px": 64, "batch_size": 8}, seed=s) for s in range(2)]
    near = [make(0.7, recipe={"epochs": 6}, seed=s, environment=NEW) for s in range(2)]
    found = _compared(before, [*near, *far])
    (told,) = (s for s in found.sentences if s.startswith("The folders differ"))
    assert told == "The folders differ in epochs (5 in 'before', 6 in 'after')."
    assert any("package torch (2.14.1 → 2.15.0)" in sentence for sentence in found.sentences)
    assert "side_by_side_environments" in [table.name for table in found.tables]
    assert not any("repetition" in sentence for sentence in found.sentences)


def test_environments_of_two_backends_are_not_set_against_each_other(make: Make) -> None:
    found = _compared([make(0.7)], [make(0.7, backend="keras-jax", environment=NEW)])
    assert [table.name for table in found.tables] == ["side_by_side_not_compared"]


def test_only_combinations_that_differ_are_no_difference_of_a_setting(make: Make) -> None:
    before = [make(0.7, recipe={"epochs": 5}), make(0.7, recipe={"epochs": 6, "px": 64})]
    after = [make(0.7, recipe={"epochs": 6}), make(0.7, recipe={"epochs": 5, "px": 64})]
    sentences = _compared(before, after).sentences
    assert sentences[0].startswith("Nothing was compared")
    assert not any("differ in" in sentence for sentence in sentences)


# The page


def test_what_changed_stands_before_the_runs_of_both_folders(
    here: Cli, add: Add, tmp_path: Path
) -> None:
    _fill(add)
    here("report", str(tmp_path / "before"), str(tmp_path / "after"))
    path = tmp_path / "before" / "report-vs-after.html"
    page = html.unescape(path.read_text("utf-8"))
    first, _, rest = page.partition('<section id="answer"')[2].partition("</section>")
    document = read_document(path)
    sentences = document["side_by_side"]["sentences"]
    places = [*(first.find(f"<li>{said}</li>") for said in sentences),
              first.find(f"<h2>{document['first']['headline']}</h2>")]  # fmt: skip
    assert -1 not in places
    assert places == sorted(places)
    assert first.find("<table") > max(places)
    beside = rest.partition('<section id="beside"')[2].partition("</section>")[0]
    assert beside.count("<table") == len(document["side_by_side"]["tables"])
    assert f"<li>{sentences[0]}</li>" not in beside
