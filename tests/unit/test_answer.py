"""The first screen: a headline that answers, choices and notes, for every kind of results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.findings import Findings, findings_of
from bench.analysis.rows import rows_of
from bench.report.answer import Answer, answer, relative_times
from bench.report.first_screen import first_screen
from bench.storage.results import StoredRun
from tests.unit.made_runs import IMAGES, RANDOM, Make, found, published_before

SEEDS = range(3)
LOST: dict[str, Any] = {"status": "diverged", "failure": {"kind": "diverged", "message": "no loss"},
                        "test_top1": None, "fit_s": None}  # fmt: skip
FITS = {"freeze_all": 1.0, "fine_tune_last": 4.0, "fine_tune_all": 10.0, "retrain_all": 10.0,
        "from_scratch": 10.0, "discriminative_lr": 10.0}  # fmt: skip


def policies(make: Make, seeds: range = SEEDS, **shares: float) -> list[StoredRun]:
    return [make(share, policy, seed, {"fit_s": FITS[policy]})
            for seed in seeds for policy, share in shares.items()]  # fmt: skip


def note(said: Answer, title: str) -> str:
    return " ".join(next((n.sentences for n in said.notes if n.title == title), ()))


def all_sentences(said: Answer) -> list[str]:
    texts = [said.headline, *(box.text for box in said.boxes)]
    texts += [sentence for n in said.notes for sentence in n.sentences]
    return [part for text in texts for part in re.split(r"(?<=[.:;]) (?=[A-Z])", text)]


@pytest.fixture
def standard(tmp_path: Path) -> Findings:
    return findings_of(rows_of(published_before(tmp_path)))


def test_the_published_suite_has_an_answer(standard: Findings) -> None:
    said = answer(standard)
    assert said.headline == "Fine-tune the whole network. Freezing all of it costs 3.5 points."
    assert [box.title for box in said.boxes] == [
        "For accuracy: discriminative_lr", "For speed: fine_tune_last", "Not: from_scratch"
    ]  # fmt: skip
    assert said.boxes[0].text.startswith(
        ">99 % likely to be within 1 point of the best on average."
    )
    assert said.boxes[1].text.startswith("40 % of the training time. It is 0.7 points behind")
    assert said.boxes[2].text.startswith(
        "31 points behind (28.8 to 32.9) on average, and ruled out in all 8 tests"
    )
    article = note(said, "Is the article right?")
    assert article.startswith("Of 8 tests: yes in 1 and open in 7.")
    assert "The article is right on mnist5k (2,000 images) with efficientnet_lite0." in article
    assert "10 seeds instead of 3" in article
    assert "keras-tensorflow is as accurate as torch within 1 point. Of 33 pairs: 1 equal" in note(
        said, "Keras or PyTorch?"
    )
    assert all(len(n.sentences) <= 3 for n in said.notes)
    assert "highest or lowest learning rate tried" in note(said, "Before you rely on it")


def test_sentences_are_short_and_hold_few_numbers(standard: Findings) -> None:
    """At most 25 words; three numbers, and a fourth only in an interval or a count."""
    for sentence in all_sentences(answer(standard)):
        assert len(sentence.split()) <= 30, sentence
        bare = re.sub(r"\w*[A-Za-z_]\w*", "", re.sub(r"\([^)]*\)", "", sentence))
        assert len(re.findall(r"\d[\d,.]*", bare)) <= 4, sentence
        for word in ("tie", "tied", "told apart", "of over"):
            assert f" {word} " not in sentence


def test_the_cheapest_policy_that_is_ruled_out_is_in_the_headline(make: Make) -> None:
    said = answer(found(*policies(make, freeze_all=0.6, fine_tune_all=0.9, from_scratch=0.3)))
    assert said.headline == "Fine-tune the whole network. Freezing all of it costs 28 points."
    other = answer(found(*policies(make, freeze_all=0.9, fine_tune_all=0.6)))
    assert other.headline.startswith("Freeze the network and train a new head. Training all of it")
    alike = answer(found(*policies(make, fine_tune_all=0.9, retrain_all=0.6)))
    assert alike.headline.endswith("retrain_all is 29 points behind fine_tune_all.")
    gentle = found(*policies(make, fine_tune_last=0.92, fine_tune_all=0.9, retrain_all=0.6))
    assert [s.word for s in gentle.contests[0].standings][1:] == ["open", "ruled out"]
    # Training all of it gently costs nothing that is shown.
    assert re.fullmatch(
        r"Fine-tune the last stage\. retrain_all is \d\d points behind fine_tune_last\.",
        answer(gentle).headline,
    )


def test_a_control_that_loses_shows_that_pretraining_pays(make: Make) -> None:
    said = answer(found(*policies(make, range(1), freeze_all=0.9, from_scratch=0.4)))
    assert re.fullmatch(
        r"Pretraining pays: freeze_all beats training from scratch by \d\d points. No other policy "
        r"was run on photos \(216 images\).", said.headline,
    )  # fmt: skip
    assert not note(said, "Is the article right?"), "its only rival was the control"
    more = answer(found(*policies(make, freeze_all=0.9, fine_tune_all=0.9, from_scratch=0.4)))
    assert more.headline.endswith("Others may be as good.")


def test_where_nothing_stands_out_the_answer_says_what_would_show(make: Make) -> None:
    said = answer(found(*policies(make, range(1), freeze_all=0.9, fine_tune_all=0.88)))
    assert re.match(r"No policy stands out: differences below \d+\.\d points", said.headline)
    assert "One seed" in note(said, "Before you rely on it")
    wide = findings_of(rows_of(policies(make, freeze_all=0.9, fine_tune_all=0.9)), margin=0.2)
    assert "equally good here, within 20 points" in answer(wide).headline


def test_a_quick_policy_that_may_be_as_good_is_named_with_what_it_loses(make: Make) -> None:
    made = found(*policies(make, freeze_all=0.89, fine_tune_all=0.9, from_scratch=0.4))
    box = answer(made).boxes[1]
    assert box.title == "For speed: freeze_all"
    assert box.text.startswith("10 % of the training time. It is ")
    slow = found(*policies(make, freeze_all=0.6, fine_tune_all=0.9))
    assert answer(slow).boxes[1].text == (
        "Every policy that needs at most 80 % of its training time is ruled out. freeze_all takes "
        "10 % of the time, and is 28 points behind (23.5 to 33.0)."
    )


def test_speeds_of_a_busy_machine_choose_no_policy(make: Make) -> None:
    busy = {"step_s_p50": 0.1, "step_s_p95": 0.9}
    runs = [make(share, policy, s, {"fit_s": FITS[policy], **busy}) for s in SEEDS
            for policy, share in (("freeze_all", 0.89), ("fine_tune_all", 0.9))]  # fmt: skip
    said = answer(found(*runs))
    assert not [box for box in said.boxes if box.title.startswith("For speed")]
    assert "Other work slowed 2 of 2 experiments" in note(said, "Before you rely on it")
    overall = found(*runs).overall
    assert overall is not None
    assert relative_times(overall) == {}


def few(make: Make, images: int = 38, **changes: Any) -> list[StoredRun]:
    """Return runs with few test images of a user's folder."""
    runs = []
    for policy, wrong in (("fine_tune_all", 4), ("freeze_all", 5), ("fine_tune_last", 6)):
        data = {"name": "folder:flowers", "label": "folder:flowers", "test_images": images,
                "train_images": 174, "val_images": 38}  # fmt: skip
        right = np.arange(images) >= wrong
        run = make(0.9, policy, result={"test_top1": float(right.mean()), "fit_s": FITS[policy]},
                   case={"number": None, "dataset": data}, **changes)  # fmt: skip
        labels = np.arange(images) % 2
        np.savez(run.folder / "predictions.npz", logits=np.zeros((images, 2)), labels=labels,
                 correct=right)  # fmt: skip
        runs.append(run)
    return runs


def test_38_test_images_are_drawn_one_by_one(make: Make) -> None:
    made = found(*few(make))
    said = answer(made)
    assert said.shape == "few images"
    assert said.headline == "38 test images are too few to choose: one image is 2.6 points."
    shown = note(said, "What they show")
    assert "Right of 38 test images: fine_tune_all 34, freeze_all 33, fine_tune_last 32." in shown
    assert "run --folds 5): all 250 images are tested once" in shown
    assert "freeze_all trains in 10 % of the leader's time: begin there." in shown
    drawn = first_screen(made)["squares"]
    assert [row["text"] for row in drawn["rows"]] == [
        "34 of 38 right", "33 of 38 right", "32 of 38 right"
    ]  # fmt: skip
    assert sum(drawn["differs"]) == 2
    assert all(len(row["wrong"]) == 38 for row in drawn["rows"])


def test_many_networks_are_a_choice_of_network(make: Make) -> None:
    networks = {"resnet152": (0.95, 100.0), "resnet50": (0.94, 10.0), "alexnet": (0.7, 1.0)}
    runs = [make(share - gap, policy, backbone=name, luck=0.0,
                 result={"fit_s": fit, "infer_images_per_s": 1000 / fit})
            for name, (share, fit) in networks.items()
            for policy, gap in (("freeze_all", 0.0), ("fine_tune_all", 0.05))]  # fmt: skip
    made = found(*runs)
    said = answer(made)
    assert said.shape == "networks"
    assert said.headline.startswith("resnet152 with freeze_all is most accurate: 95")
    assert said.headline.endswith(
        "resnet50 with freeze_all comes within 1.0 points in 10 % of the time."
    )
    assert first_screen(made)["plot"] == "accuracy_speed"
    assert "How sure is that?" in [n.title for n in said.notes]


def test_networks_with_one_policy_are_a_choice_too(make: Make) -> None:
    runs = [make(share, backbone=name, luck=0.0, result={"infer_images_per_s": None})
            for name, share in (("vgg16", 0.9), ("resnet50", 0.8), ("alexnet", 0.7))]  # fmt: skip
    made = found(*runs)
    said = answer(made)
    assert said.headline.startswith("vgg16 with freeze_all is most accurate: 90")
    assert (said.shape, first_screen(made)["plot"]) == ("networks", "accuracy_time")
    random = [make(0.5, backbone=name, weights=RANDOM) for name in ("vgg16", "resnet50", "alexnet")]
    meaningless = answer(found(*random))
    assert meaningless.headline.startswith("These accuracies say nothing about policies")
    assert meaningless.shape == "networks"


def test_few_images_choose_no_network(make: Make) -> None:
    runs = [run for name in ("vgg16", "resnet50", "alexnet") for run in few(make, backbone=name)]
    assert answer(found(*runs)).headline == (
        "38 test images are too few to choose among 3 networks."
    )


def test_one_small_test_among_larger_ones_is_a_caution(make: Make) -> None:
    larger = policies(make, fine_tune_all=0.9, freeze_all=0.6, fine_tune_last=0.8)
    said = answer(found(*few(make), *larger))
    assert said.shape == "policies"
    assert "folder:flowers: only 38 test images" in note(said, "Before you rely on it")


def test_runs_of_two_machines_are_not_averaged(make: Make) -> None:
    """The same seeds on another machine are no further evidence."""
    shares = {"freeze_all": 0.85, "fine_tune_all": 0.9, "from_scratch": 0.4}
    ours = [make(share, name, s) for s in SEEDS for name, share in shares.items()]
    theirs = [make(share, name, s, environment={"processor": "Another"})
              for s in SEEDS for name, share in shares.items()]  # fmt: skip
    one, both = found(*ours), found(*ours, *theirs)
    assert one.overall is not None
    assert both.overall is not None
    assert len(both.joint) == 2
    assert len(both.overall.contests) == 1
    alone, together = one.overall.standings[1].behind, both.overall.standings[1].behind
    assert alone is not None
    assert together is not None
    assert together.half_width == pytest.approx(alone.half_width)
    digits = {"number": None, "dataset": {"name": "mnist5k", "label": "mnist5k"}}
    elsewhere = [make(share, name, s, environment={"processor": "Another"}, case=digits)
                 for s in SEEDS for name, share in shares.items()]  # fmt: skip
    apart = found(*ours, *elsewhere).overall
    assert apart is not None
    assert [contest.row.dataset.name for contest in apart.contests] == ["photos"]
    assert "The tables also hold 1 test of other machines or versions." in note(
        answer(both), "Before you rely on it"
    )


def test_a_policy_alone_has_nothing_to_be_compared_with(make: Make) -> None:
    said = answer(found(make(0.9)))
    assert said.shape == "alone"
    assert said.headline.startswith("freeze_all gets 88.")
    assert said.headline.endswith(
        "right; no other policy was run on the same data, network and backend."
    )


def test_backends_alone_are_compared(make: Make) -> None:
    runs = [make(0.9, seed=s, backend=b) for s in SEEDS for b in ("torch", "keras-tensorflow")]
    text = note(answer(found(*runs)), "Keras or PyTorch?")
    assert text.startswith("These runs do not show which is more accurate: keras-tensorflow is ")
    assert "is 0.0 points " in text
    assert "Of 1 pair: 1 open." in text
    wide = findings_of(rows_of(runs), margin=0.05)
    assert "keras-tensorflow is as accurate as torch within 5 points. Of 1 pair: 1 equal." in note(
        answer(wide), "Keras or PyTorch?"
    )
    odd = [make(0.9, backend=b, result={"initial_state_sha256": b[0] * 64})
           for b in ("torch", "keras-tensorflow")]  # fmt: skip
    assert (
        "Not compared: 1 pair of backends. Most frequent reason: not the same experiment."
        in note(answer(found(*odd)), "Before you rely on it")
    )


def test_runs_that_failed_are_no_answer(make: Make) -> None:
    said = answer(found(make(0.9, result=LOST), make(0.5, "from_scratch", result=LOST)))
    assert said.headline == "No run finished: 2 runs ended without a result."
    assert said.subline == "Most frequent reason: diverged: no loss"
    run = make(0.9, result={"test_top1": None})
    assert answer(found(run)).headline == "No run has an accuracy, so there is no answer."
    partly = answer(found(make(0.9), make(0.5, "from_scratch", result=LOST)))
    assert "1 of 2 runs gave no result. diverged: no loss" in note(partly, "Before you rely on it")
    lost = [make(0.5, name, result=LOST) for name in ("from_scratch", "fine_tune_all")]
    mostly = answer(found(make(0.9), *lost))
    assert mostly.headline.startswith("2 of 3 runs gave no result. freeze_all gets ")


def test_meaningless_accuracies_answer_nothing(make: Make) -> None:
    said = answer(found(make(0.9, weights=RANDOM), make(0.6, "fine_tune_all", weights=RANDOM)))
    assert said.headline == (
        "These accuracies say nothing about policies: random weights where pretrained ones belong."
    )
    assert not said.boxes


def test_policies_that_cannot_be_compared_say_why(make: Make) -> None:
    runs = [make(0.9, seed=s, result=LOST if s == 0 else None) for s in SEEDS]
    runs += [make(0.5, "fine_tune_all", s, LOST if s == 0 else None) for s in SEEDS]
    assert answer(found(*runs)).headline == "The policies cannot be compared: seeds failed."


def test_a_policy_that_lost_a_seed_does_not_hide_that_the_article_s_is_ruled_out(
    make: Make,
) -> None:
    runs = policies(make, freeze_all=0.6, fine_tune_all=0.9)
    runs += [make(0.99, "retrain_all", s, LOST if s == 0 else None) for s in SEEDS]
    text = note(answer(found(*runs)), "Is the article right?")
    assert text.startswith(
        "No in the only test. The clearest exception is on photos (216 images): freeze_all is "
    )


def test_a_run_that_collapsed_is_warned_of(make: Make) -> None:
    runs = policies(make, freeze_all=0.8, fine_tune_all=0.85)
    assert "collapsed" not in note(answer(found(*runs)), "Before you rely on it")
    fallen = [run for run in runs if run.spec.policy.name != "fine_tune_all" or run.spec.seed]
    text = note(
        answer(found(*fallen, make(0.3, "fine_tune_all", 0, {"fit_s": 10.0}))),
        "Before you rely on it",
    )
    assert "Single runs collapsed (fine_tune_all): far below the other seeds." in text


def test_restless_seeds_are_warned_of(make: Make) -> None:
    runs = [make(share, policy, s) for policy, shares in (
        ("freeze_all", (0.5, 0.9, 0.7)), ("fine_tune_all", (0.9, 0.4, 0.6)))
        for s, share in enumerate(shares)]  # fmt: skip
    text = note(answer(found(*runs)), "Before you rely on it")
    assert re.search(r"Seeds of efficientnet_lite0 spread \d+\.\d times as much as usual", text)


def test_tests_on_the_same_images_are_said_to_share_them(make: Make) -> None:
    runs = [make(0.9, policy, backbone=b) for policy in ("freeze_all", "fine_tune_all")
            for b in ("vgg16", "resnet50")]  # fmt: skip
    text = note(answer(found(*runs)), "Before you rely on it")
    assert "The 2 tests share 1 set of test images." in text


def test_what_was_run_names_data_networks_and_machine(make: Make) -> None:
    assert answer(found(make(0.9))).subline.endswith(
        "1 run: freeze_all on photos with efficientnet_lite0 in torch, 1 seed. Machine: 2 cores of "
        "A CPU."
    )
    three = answer(found(*(make(0.9, seed=s) for s in SEEDS)))
    assert ", 3 seeds. Machine" in three.subline


def test_the_picture_places_the_leader_at_zero_and_marks_every_test(standard: Findings) -> None:
    drawn = first_screen(standard)
    leader, *_, last = drawn["bars"]["rows"]
    assert leader["dot"] == drawn["bars"]["zero"]
    assert leader["text"] == "leads"
    assert last["is_beyond"], "31 points are off the scale of the others"
    assert last["text"] == "30.9 (28.8 to 32.9)"
    assert all(
        0 <= row[end] <= 100 for row in drawn["bars"]["rows"] for end in ("low", "dot", "high")
    )
    matrix = drawn["matrix"]
    assert len(matrix["rows"]) == 6
    assert all(len(row["cells"]) == 8 for row in matrix["rows"])
    framed = [(row["name"], n) for row in matrix["rows"] for n, c in enumerate(row["cells"])
              if c["article"]]  # fmt: skip
    assert len(framed) == 8
    tones = {c["tone"] for row in matrix["rows"] for c in row["cells"]}
    assert tones == {"good", "open", "bad"}


def test_a_chance_is_not_printed_where_the_interval_is_wide(make: Make) -> None:
    """With ± more than 5 points it would say nothing."""
    rows = first_screen(found(*policies(make, range(1), freeze_all=0.9, fine_tune_all=0.8)))["bars"]
    assert rows["rows"][1]["chance_text"] == "not known"
    assert rows["rows"][1]["chance"] is None


def test_cross_validation_is_named(make: Make) -> None:
    runs = []
    for number in (1, 2):
        data = {"content_hash": f"{number:064d}", "name": "folder:flowers", "label": "flowers",
                "test_images": IMAGES, "fold": {"number": number, "of": 2,
                                                "images_sha256": "ab" * 32}}  # fmt: skip
        runs += [make(share, p, case={"number": None, "dataset": data})
                 for p, share in (("freeze_all", 0.9), ("fine_tune_all", 0.5))]  # fmt: skip
    said = answer(found(*runs))
    assert ", 1 seed, 2 folds." in said.subline
