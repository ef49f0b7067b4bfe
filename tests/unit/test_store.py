"""Results on disk: whole or not at all, and what counts as missing."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from bench.errors import UserError
from bench.spec.base import SCHEMA_VERSION
from bench.spec.run import RunSpec, Status
from bench.storage.results import Store, StoredRun, write_json

Save = Callable[..., Path]
MakeSpec = Callable[..., RunSpec]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def _loaded(store: Store) -> StoredRun:
    (run,), problems = store.load()
    assert problems == []
    return run


def _missing(store: Store, folder: Path) -> bool:
    return store.is_missing(folder.parent.name, folder.name)


def test_what_is_saved_is_loaded(store: Store, save_run: Save, make_spec: MakeSpec) -> None:
    folder = save_run(store)
    run = _loaded(store)
    assert run.spec == make_spec()
    assert (run.result.run_id, run.result.test_top1) == (run.spec.run_id, 0.7512)
    assert run.folder == folder
    assert run.environment.environment_id == folder.name
    assert sorted(p.name for p in folder.iterdir()) == [
        "environment.json", "result.json", "spec.json",
    ]  # fmt: skip


def test_a_runs_other_files_come_along(store: Store, make_spec: MakeSpec, save_run: Save) -> None:
    save_run(store)
    run = _loaded(store)
    partial = store.partial_folder()
    (partial / "log.txt").write_text("said")
    folder = store.save(run.spec, run.environment, run.result, partial)
    assert (folder / "log.txt").read_text() == "said"
    assert not partial.exists()


def test_a_result_takes_the_place_of_the_one_before(store: Store, save_run: Save) -> None:
    first = save_run(store, status="crashed", failure={"kind": "x", "message": "y"})
    (first / "predictions.npz").write_text("stale")
    second = save_run(store, test_top1=0.5)
    assert second == first
    assert not (second / "predictions.npz").exists()
    assert _loaded(store).result.test_top1 == 0.5
    assert list((store.root / ".partial").iterdir()) == []


@pytest.mark.parametrize("status", get_args(Status))
def test_missing_is_what_gave_no_answer(store: Store, save_run: Save, status: str) -> None:
    failure = None if status == "ok" else {"kind": "x", "message": "y"}
    folder = save_run(store, status=status, failure=failure)
    assert _missing(store, folder) == (status in {"unavailable", "crashed", "timeout"})


def test_missing_is_what_is_not_there_in_this_environment(store: Store, save_run: Save) -> None:
    folder = save_run(store)
    assert store.is_missing("other", folder.name)
    assert store.is_missing(folder.parent.name, "other")


@pytest.mark.parametrize(
    "text",
    [
        '{"schema_ver',
        "",
        "[]",
        "3",
        '{"a": 1}',
        "\udcff",
    ],
    ids=["truncated", "empty", "list", "number", "foreign", "bytes"],
)
def test_a_file_that_is_no_result_is_skipped_with_a_word_and_is_missing(
    store: Store, save_run: Save, make_spec: MakeSpec, text: str
) -> None:
    good = save_run(store, make_spec(seed=9))
    bad = save_run(store)
    (bad / "result.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    runs, problems = store.load()
    assert [r.folder for r in runs] == [good]
    (problem,) = problems
    assert str(bad) in problem
    assert "not a run of Thawbench" in problem
    assert _missing(store, bad)


def test_a_newer_result_is_skipped_with_a_word_and_never_replaced(
    store: Store, save_run: Save, make_spec: MakeSpec
) -> None:
    good = save_run(store, make_spec(seed=9))
    newer = save_run(store)
    (newer / "result.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    said = f"newer Thawbench \\(schema {SCHEMA_VERSION + 1}"
    runs, (problem,) = store.load()
    assert [r.folder for r in runs] == [good]
    assert str(newer) in problem
    assert re.search(said, problem)
    with pytest.raises(UserError, match=said):
        _missing(store, newer)


@pytest.mark.parametrize("file", ["spec.json", "environment.json", "result.json"])
@pytest.mark.parametrize("cut", [True, False], ids=["cut short", "gone"])
def test_a_damaged_run_does_not_hide_the_others(
    store: Store, save_run: Save, make_spec: MakeSpec, file: str, cut: bool
) -> None:
    good = save_run(store, make_spec(seed=9))
    path = save_run(store) / file
    text = path.read_text()
    path.unlink()
    if cut:
        path.write_text(text[:-20])
    runs, problems = store.load()
    assert [r.folder for r in runs] == [good]
    assert len(problems) == 1


@pytest.mark.parametrize("file", ["spec.json", "environment.json", "result.json"])
@pytest.mark.parametrize("cut", [True, False], ids=["cut short", "gone"])
def test_a_damaged_run_is_missing(store: Store, save_run: Save, file: str, cut: bool) -> None:
    folder = save_run(store)
    assert not _missing(store, folder)
    text = (folder / file).read_text()
    (folder / file).unlink()
    if cut:
        (folder / file).write_text(text[:-20])
    assert _missing(store, folder)
    save_run(store)
    assert not _missing(store, folder)


def test_strangers_in_the_folder_are_left_alone(store: Store, save_run: Save) -> None:
    folder = save_run(store)
    (store.root / "runs" / "notes.txt").write_text("mine")
    (folder.parent / "notes.txt").write_text("mine")
    (store.root / "runs" / "empty").mkdir()
    _loaded(store)


def test_a_folder_that_does_not_exist_is_named_and_an_empty_one_is_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a results folder: it does not exist"):
        Store(tmp_path / "absent").load()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not a results folder: it is a file"):
        Store(tmp_path / "file").load()
    assert Store(tmp_path).load() == ([], [])


def test_a_folder_that_does_not_exist_is_answered_with_the_one_that_was_meant(
    tmp_path: Path,
) -> None:
    (tmp_path / "quick" / "runs").mkdir(parents=True)
    (tmp_path / "quack").mkdir()  # no results folder
    with pytest.raises(UserError, match=f"Did you mean '{tmp_path / 'quick'}'"):
        Store(tmp_path / "quik").load()
    with pytest.raises(UserError, match="`run` writes such folders"):
        Store(tmp_path / "zzz").load()


def test_preparing_makes_the_folder_and_leaves_nothing_in_it(store: Store) -> None:
    store.prepare()
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/thawbench"])
def test_a_folder_that_cannot_be_written_is_named_before_any_run(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write results to") as error:
        Store(tmp_path / place).prepare()
    assert "--out" in str(error.value)


def test_a_full_disk_while_writing_keeps_what_was_there(
    store: Store, save_run: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_run(store, test_top1=0.25)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(OSError, match="No space left"):
        save_run(store, test_top1=0.75)
    assert _loaded(store).result.test_top1 == 0.25


def test_a_failed_move_keeps_what_was_there(
    store: Store, save_run: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_run(store, test_top1=0.25)
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        # Only the move of a whole new run into place fails.
        if Path(target) == folder and (Path(source) / "result.json").is_file():
            made = json.loads((Path(source) / "result.json").read_text())
            if made["test_top1"] == 0.75:
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_run(store, test_top1=0.75)
    store.discard_partials()
    assert _loaded(store).result.test_top1 == 0.25


def test_partials_are_no_runs_and_can_be_discarded(store: Store, save_run: Save) -> None:
    save_run(store)
    partial = store.partial_folder()
    (partial / "result.json").write_text("{")
    assert partial.parent.parent == store.root
    _loaded(store)
    store.discard_partials()
    assert not partial.exists()
    _loaded(store)
    store.discard_partials()


def test_the_partials_of_a_call_that_still_runs_are_left_alone(store: Store) -> None:
    code = (
        "import sys; from pathlib import Path; from bench.storage.results import Store; "
        "store = Store(Path(sys.argv[1])); store.prepare(); "
        "print(store.partial_folder(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        mine = store.partial_folder()
        store.discard_partials()
        there = theirs.is_dir()
        other.stdin.close()
    assert not mine.exists()
    assert there
    store.discard_partials()
    assert not theirs.exists()


def test_json_is_strict_and_moved_into_place(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_result_with_nan_or_infinity_is_left_out(
    store: Store, save_run: Save, make_spec: Callable[..., RunSpec], number: str
) -> None:
    """Knobs, too, may hold anything, but the report's page cannot hold NaN or infinity."""
    save_run(store, make_spec(seed=1))
    path = save_run(store) / "result.json"
    path.write_text(path.read_text().replace('"knobs": {}', f'"knobs": {{"a": {number}}}'))
    runs, problems = store.load()
    assert [run.spec.seed for run in runs] == [1]
    assert len(problems) == 1


def test_a_failure_that_names_a_file_that_is_no_utf_8_is_kept(store: Store, save_run: Save) -> None:
    save_run(store, status="crashed", failure={"kind": "k", "message": "cannot read x\udcff.jpg"})
    run = _loaded(store)
    assert run.result.failure is not None
    assert run.result.failure.message.endswith("x\udcff.jpg")


def test_the_result_file_holds_the_fields_of_the_design(store: Store, save_run: Save) -> None:
    data = json.loads((save_run(store) / "result.json").read_text())
    assert set(data) >= {
        "schema_version", "run_id", "environment_id", "status", "failure", "test_top1",
        "val_top1_by_epoch", "train_loss_by_epoch", "total_parameters", "trainable_parameters",
        "frozen_parameters", "state_values", "train_images_per_s", "train_images_per_s_windows",
        "compute_images_per_s", "infer_images_per_s", "step_s_p50", "step_s_p95",
        "input_wait_fraction", "setup_s", "compile_s", "fit_s", "peak_host_bytes",
        "peak_device_bytes", "knobs",
    }  # fmt: skip
    assert data["compute_images_per_s"] is None
