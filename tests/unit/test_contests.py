"""Seed groups and contests: what is grouped, what competes, and which policies may be the best."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.compare import match, seed_group_pairs
from bench.analysis.contests import Contest, Standing
from bench.analysis.findings import findings_of
from bench.analysis.groups import policy_variant, seed_groups_of
from bench.analysis.rows import rows_of
from bench.report import make_report
from bench.report.from_page import load_page
from bench.report.page import write_page
from bench.storage.results import StoredRun
from bench.training.predictions import image_answers
from tests.unit.made_runs import IMAGES, RANDOM, Make, found

LOST = {"status": "diverged", "test_top1": None, "fit_s": None,
        "failure": {"kind": "diverged", "message": "no loss"}}  # fmt: skip
SEEDS = range(3)


def words(contest: Contest) -> dict[str, str]:
    return {standing.name: standing.word for standing in contest.standings}


def three(make: Make, **shares: float) -> list[StoredRun]:
    """Return three seeds of each policy."""
    return [make(share, policy, seed) for seed in SEEDS for policy, share in shares.items()]


def test_only_seeds_are_grouped(make: Make) -> None:
    runs = [make(0.8, seed=s) for s in SEEDS]
    others = [make(0.8, recipe={"px": 64}), make(0.8, environment={"cores": 64})]
    others.append(make(0.8, environment={"packages": {"torch": "9"}}))
    groups = seed_groups_of(rows_of([*runs, *others]))
    assert sorted(len(g.rows) for g in groups) == [1, 1, 1, 3]


def test_a_clear_loser_is_ruled_out_and_the_others_are_open(make: Make) -> None:
    runs = three(make, freeze_all=0.9, fine_tune_last=0.895, from_scratch=0.6)
    (contest,) = found(*runs).contests
    assert words(contest) == {
        "freeze_all": "open", "fine_tune_last": "open", "from_scratch": "ruled out"
    }  # fmt: skip
    leader, _, last = contest.standings
    assert leader.behind is None
    assert last.behind is not None
    assert last.behind.value == pytest.approx(leader.top1 - last.top1)
    assert last.chance < 0.01


def test_the_only_one_left_is_the_best(make: Make) -> None:
    (contest,) = found(*three(make, freeze_all=0.95, from_scratch=0.5)).contests
    assert words(contest) == {"freeze_all": "best", "from_scratch": "ruled out"}


def test_a_wide_margin_makes_policies_as_good_as_the_best(make: Make) -> None:
    runs = three(make, freeze_all=0.9, fine_tune_last=0.895)
    assert set(words(findings_of(rows_of(runs)).contests[0]).values()) == {"open"}
    wide = findings_of(rows_of(runs), margin=0.2).contests[0]
    assert set(words(wide).values()) == {"as good as the best"}


def test_one_seed_is_judged_with_earlier_experience(make: Make) -> None:
    """It can rule out the control, and not a policy that is a few points behind."""
    runs = [make(0.9), make(0.86, "fine_tune_all"), make(0.3, "from_scratch")]
    (contest,) = found(*runs).contests
    assert words(contest) == {
        "freeze_all": "open", "fine_tune_all": "open", "from_scratch": "ruled out"
    }  # fmt: skip


def test_seeds_that_were_not_run_widen_and_do_not_end_a_comparison(make: Make) -> None:
    many = three(make, freeze_all=0.9, fine_tune_all=0.8)
    few = [r for r in many if r.spec.policy.name == "freeze_all" or r.spec.seed == 0]
    whole, partial = (found(*runs).contests[0].standings[1].behind for runs in (many, few))
    assert whole is not None
    assert partial is not None
    assert (partial.half_width or 0.0) > (whole.half_width or 0.0)


def test_a_policy_of_which_a_seed_failed_is_not_ranked(make: Make) -> None:
    """The seeds that survived may be the lucky ones."""
    runs = three(make, freeze_all=0.7, fine_tune_all=0.6)
    runs += [make(0.95, "retrain_all"), make(0.95, "retrain_all", 1, LOST)]
    (contest,) = found(*runs).contests
    assert set(words(contest)) == {"freeze_all", "fine_tune_all"}
    ((entry, why),) = contest.apart
    assert (entry.name, why) == ("retrain_all", "seeds failed")


def test_without_single_answers_policies_are_still_compared(make: Make) -> None:
    """Results of a page of an earlier version have none."""
    runs = three(make, freeze_all=0.9, from_scratch=0.4)
    for run in runs:
        (run.folder / "predictions.npz").write_bytes(b"torn")
    (contest,) = found(*runs).contests
    assert words(contest) == {"freeze_all": "best", "from_scratch": "ruled out"}


def test_answers_of_another_run_are_not_taken(make: Make) -> None:
    runs = [make(0.9), make(0.5, "from_scratch")]
    shutil.copyfile(runs[0].folder / "predictions.npz", runs[1].folder / "predictions.npz")
    groups = {g.row["policy"]: g for g in found(*runs).groups}
    assert groups["freeze_all"].answers is not None
    assert groups["from_scratch"].answers is None


def test_other_test_images_are_not_compared(make: Make) -> None:
    runs = [make(0.9), make(0.8, "fine_tune_all"), make(0.5, "from_scratch")]
    with np.load(runs[2].folder / "predictions.npz") as arrays:
        other = {**arrays, "labels": 1 - arrays["labels"]}
    np.savez(runs[2].folder / "predictions.npz", **other)
    (contest,) = found(*runs).contests
    assert [(entry.name, why) for entry, why in contest.apart] == [
        ("from_scratch", "other test images")
    ]


def test_several_settings_of_a_policy_compete_as_one_that_validation_chose(make: Make) -> None:
    runs = [
        make(0.9, recipe={"learning_rate": 0.1}, result={"val_top1_by_epoch": [0.4]}),
        make(0.7, recipe={"learning_rate": 0.2}, result={"val_top1_by_epoch": [0.8]}),
        make(0.5, "from_scratch"),
    ]
    (contest,) = found(*runs).contests
    assert contest.passed_over == 1
    (best,) = (entry for entry in contest.entries if entry.name == "freeze_all")
    assert best.row["learning_rate"] == 0.2


def test_of_two_files_of_weights_validation_says_which_is_the_article_s(make: Make) -> None:
    """Not the test images, by which the better of two would always win."""
    files = [{"kind": "file", "source": f"{n}.pth", "sha256": n * 64} for n in "ab"]
    runs = [make(share, weights=w, result={"val_top1_by_epoch": [val]})
            for w, share, val in zip(files, (0.5, 0.9), (0.8, 0.7), strict=True)]  # fmt: skip
    (contest,) = found(*runs).contests
    assert contest.prescribed is not None
    assert contest.prescribed.row["weights"].startswith("file a.pth")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"weights": RANDOM}, "random weights where pretrained ones belong"),
        ({"case": {"dataset": {"name": "rvl_cdip"}}}, "generated images"),
    ],
)
def test_meaningless_accuracies_are_not_compared(
    make: Make, changes: dict[str, Any], why: str
) -> None:
    runs = [make(0.9, **changes), make(0.6, "fine_tune_all", **changes)]
    (contest,) = found(*runs).contests
    assert contest.shows_nothing == why
    assert not contest.is_compared


def test_random_weights_do_not_make_pretrained_ones_say_nothing(make: Make) -> None:
    """If a folder holds both, the pretrained ones compete and the others do not."""
    runs = [make(0.9), make(0.3, weights=RANDOM), make(0.5, "from_scratch")]
    (contest,) = found(*runs).contests
    assert {entry.row["weights"] for entry in contest.entries} == {"pretrained", "random"}
    assert len(contest.unpretrained) == 1
    assert words(contest)["freeze_all"] in ("best", "as good as the best")


def both(make: Make, **shares: float) -> list[StoredRun]:
    """Return three seeds of each policy in both backends."""
    return [
        make(share, policy, seed, backend=backend)
        for backend in ("torch", "keras-tensorflow")
        for seed in SEEDS
        for policy, share in shares.items()
    ]


def test_backends_are_averaged_into_one_contest(make: Make) -> None:
    made = found(*both(make, freeze_all=0.9, fine_tune_all=0.8))
    assert len(made.contests) == 2
    (contest,) = made.joint
    assert contest.backends == ["torch", "keras-tensorflow"]
    alone, joint = made.contests[0].standings[1].behind, contest.standings[1].behind
    assert alone is not None
    assert joint is not None
    # Backends with equal answers are no new seeds: the interval is as wide as that of one.
    assert joint.half_width == pytest.approx(alone.half_width)


def test_a_policy_that_one_backend_lacks_stands_apart(make: Make) -> None:
    runs = both(make, freeze_all=0.9, fine_tune_all=0.8, retrain_all=0.7)
    runs = [r for r in runs if (r.spec.policy.name, r.spec.backend) != ("retrain_all", "torch")]
    (contest,) = found(*runs).joint
    assert set(words(contest)) == {"freeze_all", "fine_tune_all"}
    assert [entry.name for entry, _ in contest.apart] == ["retrain_all"]


def test_backends_with_other_seeds_are_averaged_over_the_common_ones(make: Make) -> None:
    runs = both(make, freeze_all=0.9, fine_tune_all=0.8)
    runs.append(make(0.9, "freeze_all", 7))
    made = found(*runs)
    (contest,) = made.joint
    assert not contest.apart
    assert [entry.scores.seeds for entry in contest.entries] == [tuple(SEEDS)] * 2
    assert len(made.groups[0].seeds) == len(SEEDS) + 1


def test_backends_that_did_not_do_the_same_are_not_averaged(make: Make) -> None:
    runs = [
        make(share, policy, backend=backend, result={"initial_state_sha256": backend[0] * 64})
        for backend in ("torch", "keras-tensorflow")
        for policy, share in (("freeze_all", 0.9), ("fine_tune_all", 0.6))
    ]
    made = found(*runs)
    assert len(made.joint) == 2
    assert all(pair.why_not == "not the same experiment" for pair in made.pairs)


def test_the_average_over_tests_is_of_policies_that_all_have(make: Make) -> None:
    runs = three(make, freeze_all=0.9, fine_tune_all=0.8, retrain_all=0.7)
    runs += [make(share, policy, seed, backbone="vgg16") for seed in SEEDS
             for policy, share in (("freeze_all", 0.6), ("fine_tune_all", 0.8))]  # fmt: skip
    overall = found(*runs).overall
    assert overall is not None
    standings = {s.name: s for s in overall.standings}
    assert set(standings) == {"freeze_all", "fine_tune_all"}
    assert standings["fine_tune_all"].top1 == pytest.approx(0.8, abs=0.02)
    assert standings["freeze_all"].top1 == pytest.approx(0.75, abs=0.02)
    assert len(overall.single("freeze_all")) == 2
    assert found(make(0.9)).overall is None


def folded(make: Make, policy: str, seed: int, share: float, folds: int = 4) -> list[StoredRun]:
    """Return the runs of a cross-validation, each on other test images."""
    runs = []
    for number in range(1, folds + 1):
        data = {"content_hash": f"{number:064d}", "test_images": IMAGES + number,
                "train_images": 300 - number,
                "fold": {"number": number, "of": folds, "images_sha256": "ab" * 32}}  # fmt: skip
        run = make(share, policy, seed, case={"dataset": data})
        with np.load(run.folder / "predictions.npz") as arrays:
            np.savez(run.folder / "predictions.npz", **arrays)
        runs.append(run)
    return runs


def test_the_folds_of_a_cross_validation_are_one_result_for_each_seed(make: Make) -> None:
    runs = [run for s in range(2) for p, share in (("freeze_all", 0.9), ("from_scratch", 0.5))
            for run in folded(make, p, s, share)]  # fmt: skip
    made = found(*runs)
    (contest,) = made.contests
    assert {entry.name: entry.scores.images for entry in contest.entries} == {
        "freeze_all": 4 * IMAGES, "from_scratch": 4 * IMAGES
    }  # fmt: skip
    assert contest.entries[0].groups[0].seeds == (0, 1)
    assert words(contest)["from_scratch"] == "ruled out"


def test_a_seed_that_lacks_a_fold_counts_as_lost(make: Make) -> None:
    runs = [*folded(make, "freeze_all", 0, 0.9), *folded(make, "freeze_all", 1, 0.9)[:-1]]
    (group,) = found(*runs).groups
    assert (group.seeds, group.lost) == ((0,), 1)


def test_folds_are_compared_between_folders_without_seeds_that_lack_one(make: Make) -> None:
    before = [*folded(make, "freeze_all", 0, 0.9), *folded(make, "freeze_all", 1, 0.9)[:-1]]
    after = [make_again(run) for run in before]
    pairs, _ = match(before, after)
    ((a, b),) = seed_group_pairs(pairs, (before, after))
    assert (a.seeds, a.lost, b.seeds) == ((0,), 1, (0,))
    assert [row.fold for row in b.rows] == [1, 2, 3, 4]


def test_a_page_keeps_the_groups_of_each_fold(make: Make, tmp_path: Path) -> None:
    """The classes of two folds may come in the same order, and their groups differ all the same."""
    runs, labels = [], np.arange(IMAGES) % 2
    for number in (1, 2):
        fold = {"number": number, "of": 2, "images_sha256": "ab" * 32}
        data = {"content_hash": f"{number:064d}", "test_images": IMAGES, "fold": fold}
        answers = image_answers(np.eye(2)[labels], labels, np.arange(IMAGES) // (10 * number))
        result = {"test_top1": 1.0, "test_answers": answers.model_dump()}
        runs.append(make(1.0, case={"dataset": data}, result=result, luck=0.0))
    page = make_report(runs, tmp_path).page
    assert page is not None
    write_page(page, tmp_path / "report.html")
    again, problems = load_page(tmp_path / "report.html")
    assert problems == []
    kept = {run.spec.run_id: run.result.test_answers for run in again}
    assert [kept[run.spec.run_id] for run in runs] == [run.result.test_answers for run in runs]


def make_again(run: StoredRun) -> StoredRun:
    """Return the same run on a machine with other versions."""
    environment = run.environment.model_copy(update={"packages": {"torch": "9.9"}})
    changed = {"environment_id": environment.environment_id}
    return replace(run, environment=environment, result=run.result.model_copy(update=changed))


def test_images_that_belong_together_are_clustered(make: Make) -> None:
    """Groups in the predictions widen the interval of a difference."""

    def behind(grouped: bool) -> Standing:
        runs = [make(0.9), make(0.6, "fine_tune_all")]
        for run in runs if grouped else ():
            with np.load(run.folder / "predictions.npz") as arrays:
                kept = {**arrays, "groups": np.arange(IMAGES) // 50}
            np.savez(run.folder / "predictions.npz", **kept)
        return found(*runs).contests[0].standings[1]

    alone, together = behind(False).behind, behind(True).behind
    assert alone is not None
    assert together is not None
    assert alone.value == pytest.approx(together.value)
    assert (together.half_width or 0.0) > 1.5 * (alone.half_width or 0.0)


def test_the_control_with_random_weights_is_a_policy_of_its_own(make: Make) -> None:
    (group,) = found(make(0.5, "from_scratch")).groups
    assert policy_variant(group) == "from_scratch"
    assert group.scores.kind == "scratch"
    kinds = {g.row["policy"]: g.scores.kind
             for g in found(make(0.9), make(0.9, "fine_tune_last"), make(0.9, "retrain_all")).groups
             }  # fmt: skip
    assert kinds == {"freeze_all": "head", "fine_tune_last": "part", "retrain_all": "all"}
