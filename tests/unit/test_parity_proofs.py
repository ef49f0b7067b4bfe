"""Tests of kept proofs: how they are stored, refuted, and mark the rows of reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.folders import known_proofs
from bench.analysis.rows import rows_of
from bench.parity.proofs import COPY, Proofs, ProvedSubject, proved_subjects, read_copy, write_copy
from bench.report import make_report, notes
from bench.report.from_page import proofs_of_page
from bench.report.page import write_page
from bench.storage.results import StoredRun
from tests.unit.pairs import BROKEN, INCONCLUSIVE, pair

MakeRun = Callable[..., StoredRun]
SHOWN = ProvedSubject(
    "squeezenet1_1", None, "n" * 12, "p" * 12, "sgd", frozenset({"torch-1", "keras-1"})
)


def test_what_is_kept_is_loaded(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    assert proofs.load() == []
    kept = [pair(), pair(optimizer="adamw"), pair(dtype="float32", passed=False, reason="x")]
    for each in kept:
        proofs.keep(each)
    assert sorted(proofs.load(), key=repr) == sorted(kept, key=repr)


def test_a_later_proof_of_the_same_question_stands_in_place_of_the_first(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.keep(pair())
    later = pair(passed=False, levels=(BROKEN,), reason="differs")
    proofs.keep(later)
    assert proofs.load() == [later]


@pytest.mark.parametrize(
    "changes",
    [
        {"px": 32},
        {"batch_size": 8},
        {"head": "linear"},
        {"weights": "random"},
        {"boundary": "head"},
        {"policy": "freeze_all"},
        {"backbone": "vgg16"},
        {"environments": ("torch-1", "keras-2")},
    ],
)
def test_another_question_is_kept_apart(tmp_path: Path, changes: dict[str, Any]) -> None:
    proofs = Proofs(tmp_path)
    proofs.keep(pair())
    proofs.keep(pair(**changes))
    assert len(proofs.load()) == 2
    assert pair(**changes).key != pair().key


def test_a_worker_that_died_takes_no_proof_back(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.keep(pair())
    proofs.keep(pair(passed=False, levels=(), reason="torch oom"))
    assert proofs.load() == [pair()]
    unproved_one = pair(px=32, passed=False, levels=(), reason="torch oom")
    proofs.keep(unproved_one)
    assert len(proofs.load()) == 2


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.keep(pair())
    (file,) = (tmp_path / "proofs").iterdir()
    older = json.loads(file.read_text()) | {"of_another_release": 1}
    (tmp_path / "proofs" / "a.json").write_text(json.dumps(older))
    (tmp_path / "proofs" / "b.json").write_bytes(b"\xff\x00")
    (tmp_path / "proofs" / "c.json").mkdir()
    assert proofs.load() == [pair()]


def test_a_copy_lies_beside_results(tmp_path: Path) -> None:
    assert read_copy(tmp_path) == ([], None)
    kept = [pair(), pair(px=32)]
    write_copy(kept, tmp_path)
    assert read_copy(tmp_path) == (kept, None)


def test_a_copy_keeps_what_earlier_code_and_earlier_reports_proved(tmp_path: Path) -> None:
    """Results that lie on disk can be proved by the code that made them alone."""
    older = pair(harness="older")
    write_copy([older], tmp_path)
    write_copy([pair(px=32)], tmp_path)
    write_copy([], tmp_path)
    assert read_copy(tmp_path) == ([older, pair(px=32)], None)
    write_copy([pair()], tmp_path)
    assert read_copy(tmp_path) == ([pair(), pair(px=32)], None)


def test_a_damaged_proof_of_a_copy_leaves_the_others(tmp_path: Path) -> None:
    write_copy([pair(), pair(px=32)], tmp_path)
    content = json.loads((tmp_path / COPY).read_text())
    content["pairs"].insert(1, {"px": 1})
    (tmp_path / COPY).write_text(json.dumps(content))
    found, problem = read_copy(tmp_path)
    assert found == [pair(), pair(px=32)]
    assert problem
    assert f"{tmp_path / COPY}: 1 of 3 proofs cannot be read." in problem


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pairs": 3}', '{"pairs": [{"px": 1}]}'])
def test_a_foreign_copy_holds_no_proofs_and_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / COPY).write_text(content)
    found, problem = read_copy(tmp_path)
    assert found == []
    assert problem
    assert problem.startswith(f"{tmp_path / COPY}: ")
    assert problem.endswith("prove again: python run_bench.py parity")


def test_a_pair_that_passed_shows_both_ways() -> None:
    assert proved_subjects([pair()]) == {SHOWN}
    assert proved_subjects([pair(environments=("keras-1", "torch-1"))]) == {SHOWN}
    assert proved_subjects([]) == set()
    assert proved_subjects([pair(passed=False, levels=(), reason="crashed")]) == set()


@pytest.mark.parametrize("changes", [{}, {"px": 224}, {"dtype": "float32"}, {"head": "linear"}])
def test_a_difference_takes_back_what_was_shown(changes: dict[str, Any]) -> None:
    broken = pair(passed=False, levels=(BROKEN,), reason="differs", **changes)
    assert proved_subjects([pair(), broken]) == set()
    assert proved_subjects([broken, pair()]) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "freeze_all", "policy_digest": "f" * 12},
        {"network_digest": "m" * 12},
        {"optimizer": "adamw"},
        {"environments": ("a", "b")},
    ],
)
def test_a_difference_elsewhere_takes_nothing_back(changes: dict[str, Any]) -> None:
    broken = pair(passed=False, levels=(BROKEN,), reason="differs", **changes)
    assert proved_subjects([pair(), broken]) == {SHOWN}


def test_without_floors_a_pair_shows_nothing() -> None:
    bare = [level.model_copy(update={"floor": None}) for level in pair().levels]
    assert proved_subjects([pair(levels=bare)]) == set()


def test_an_inconclusive_pair_takes_nothing_back() -> None:
    other = pair(passed=False, levels=(INCONCLUSIVE,), reason="inconclusive", px=224)
    assert proved_subjects([pair(), other]) == {SHOWN}


def rows(make_run: MakeRun, *changes: dict[str, Any], proved: bool = False) -> list[Any]:
    """Return the rows of runs; ``proved`` says that the first two compute the same."""
    runs = [make_run(**change) for change in changes]
    first, second = (run.environment.environment_id for run in runs[:2])
    known = ProvedSubject.of_run(runs[0].spec, {first, second})
    return rows_of(runs, {known} if proved else ())


TORCH, KERAS = {"backend": "torch"}, {"backend": "keras-tensorflow"}


@pytest.mark.parametrize(("proved", "mark"), [(True, "shown"), (False, "not_shown")])
def test_twins_are_marked(make_run: MakeRun, proved: bool, mark: str) -> None:
    found = rows(make_run, TORCH, KERAS, proved=proved)
    assert [row["parity"] for row in found] == [mark, mark]


@pytest.mark.parametrize(
    "change",
    [
        {"policy": {"name": "retrain_all"}},
        {"policy": {"boundary": "layer3"}},
        {"policy": {"backbone_scale": 0.5}},
        {"network_digest": "another"},
        {"recipe": {"optimizer": "adamw"}},
        {"environment": {"packages": {"torch": "2.0.0"}}},
    ],
)
def test_a_proof_marks_only_what_it_speaks_of(make_run: MakeRun, change: dict[str, Any]) -> None:
    found = rows(
        make_run, TORCH, KERAS, {**TORCH, **change, "seed": 1}, {**KERAS, **change, "seed": 1},
        proved=True,
    )  # fmt: skip
    assert {(row["seed"], row["parity"]) for row in found} == {(0, "shown"), (1, "not_shown")}


def test_a_row_without_a_twin_is_not_marked(make_run: MakeRun) -> None:
    found = rows(make_run, TORCH, {**KERAS, "seed": 1}, proved=True)
    assert [row["parity"] for row in found] == [None, None]
    failed = {**KERAS, "result": {"status": "oom"}}
    found = rows(make_run, TORCH, failed, proved=True)
    assert [row["parity"] for row in found] == [None, None]


def test_all_twins_of_a_row_must_be_proved(make_run: MakeRun) -> None:
    found = rows(make_run, TORCH, KERAS, {"backend": "keras-jax"}, proved=True)
    assert [row["parity"] for row in found] == ["not_shown"] * 3


def _identity(run: StoredRun, backend: str) -> ProvedSubject:
    return ProvedSubject.of_run(run.spec, {run.result.environment_id, backend})


def test_two_that_were_compared_with_a_third_are_alike(make_run: MakeRun) -> None:
    runs = [make_run(**change) for change in (TORCH, KERAS, {"backend": "keras-jax"})]
    torch = runs[0].result.environment_id
    both = {_identity(run, torch) for run in runs[1:]}
    assert [row["parity"] for row in rows_of(runs, both)] == ["shown"] * 3


def test_rows_of_an_older_environment_do_not_spoil_the_mark(make_run: MakeRun) -> None:
    older = {"environment": {"python": "3.11.1"}}
    runs = [make_run(**TORCH), make_run(**KERAS), make_run(**TORCH, **older)]
    proof = {_identity(runs[1], runs[0].result.environment_id)}
    found = {(r["backend"], r["environment_id"]): r["parity"] for r in rows_of(runs, proof)}
    assert found["torch", runs[0].result.environment_id] == "shown"
    assert found["keras-tensorflow", runs[1].result.environment_id] == "shown"
    assert found["torch", runs[2].result.environment_id] == "not_shown"


def test_native_mode_is_never_marked(make_run: MakeRun) -> None:
    native = rows(make_run, {**TORCH, "mode": "native"}, {**KERAS, "mode": "native"})
    assert [row.parity for row in native] == [None, None]


def test_what_is_not_proved_comes_with_the_command_that_proves_it(make_run: MakeRun) -> None:
    assert notes.unproved(rows(make_run, TORCH, KERAS, proved=True)) is None
    said = notes.unproved(rows(make_run, TORCH, KERAS))
    assert said is not None
    assert said.startswith("not proved for 2 rows")
    assert said.endswith(
        "python run_bench.py parity efficientnet_lite0 --policy freeze_all --optimizer sgd "
        "--backends torch,keras-tensorflow"
    )


def test_the_command_for_a_users_own_file_leaves_its_folder_open(make_run: MakeRun) -> None:
    own = {"backbone": "module:my_net.py:build", "code_sha256": "ab" * 32}
    said = notes.unproved(rows(make_run, {**TORCH, **own}, {**KERAS, **own}))
    assert said is not None
    assert "parity module:FOLDER/my_net.py:build --policy" in said
    assert "(FOLDER is the folder of the network's file)" in said


def test_the_last_word_on_a_question_is_this_machines(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy beside the results counts only for questions that this machine has no proof of."""
    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))
    runs = [make_run(**TORCH), make_run(**KERAS)]
    ids = tuple(run.result.environment_id for run in runs)
    broken = pair(environments=ids, passed=False, levels=(BROKEN,), reason="differs")
    write_copy([broken, pair(environments=("x", "y"))], tmp_path)
    assert known_proofs(tmp_path, runs) == [broken]
    good = pair(environments=ids)
    Proofs(tmp_path / "cache").keep(good)
    assert known_proofs(tmp_path, runs) == [good]


def test_a_page_keeps_its_proofs(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))
    runs = [make_run(**TORCH), make_run(**KERAS)]
    proof = pair(environments=tuple(run.result.environment_id for run in runs))
    write_copy([proof], tmp_path)
    page = make_report(runs, tmp_path).page
    assert page is not None
    write_page(page, tmp_path / "report.html")
    assert proofs_of_page(tmp_path / "report.html") == [proof]
    assert known_proofs(tmp_path / "mailed", runs, [proof]) == [proof]


def test_proofs_by_way_of_an_environment_without_rows_count(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))
    runs = [make_run(backend="keras-torch"), make_run(backend="keras-jax")]
    proofs = Proofs(tmp_path / "cache")
    spec = runs[0].spec
    about = {
        "backbone": spec.backbone, "network_digest": None, "policy_digest": spec.policy.digest,
        "optimizer": spec.recipe.optimizer,
    }  # fmt: skip
    for run in runs:
        proofs.keep(pair(**about, environments=("torch-1", run.result.environment_id)))
    found = rows_of(runs, proved_subjects(known_proofs(tmp_path, runs)))
    assert [row["parity"] for row in found] == ["shown", "shown"]
