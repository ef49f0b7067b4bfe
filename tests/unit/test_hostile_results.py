"""Results folders of strangers: links, pipes, huge and wrong numbers, escapes; and company."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.predictions import confusion, largest_confusions
from bench.analysis.rows import rows_of
from bench.data import FileRules
from bench.errors import UserError
from bench.report import make_report
from bench.report.from_page import load_page
from bench.report.notes import MOST_LINES, mismatches, reasons
from bench.report.page import write_page
from bench.runner.repeat import suite_text
from bench.storage.atomic import owner
from bench.storage.cache import cache_root, limit_bytes, mark_used, prune
from bench.storage.results import Store
from bench.storage.text_files import printable, replace_text
from tests.unit.conftest import Cli

Save = Callable[..., Path]
SECRET = "a private line"


@pytest.fixture
def stranger(tmp_path: Path, save_run: Save, make_spec: Callable[..., Any]) -> Path:
    """A results folder with a run of each of two seeds."""
    root = tmp_path / "stranger"
    for seed in (0, 1):
        save_run(Store(root), make_spec(seed=seed))
    return root


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "private.txt"
    path.write_text(SECRET + "\n")
    return path


def folders(root: Path) -> list[Path]:
    return sorted(root.glob("runs/*/*"))


def test_a_file_of_a_run_that_is_a_link_is_not_read(
    here: Cli, stranger: Path, private: Path
) -> None:
    first, second = folders(stranger)
    (first / "log.txt").symlink_to(private)
    (second / "result.json").rename(private.with_suffix(".json"))
    (second / "result.json").symlink_to(private.with_suffix(".json"))
    done = here("report", str(stranger), "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert [row["seed"] for row in answer["rows"]] == [json.loads(
        (first / "spec.json").read_text())["seed"]]  # fmt: skip
    assert "it is a symbolic link" in answer["problems"][0]
    assert SECRET not in (stranger / "report.html").read_text()


@pytest.mark.parametrize("name", ["log.txt", "predictions.npz", "result.json", "spec.json"])
def test_a_pipe_or_a_device_does_not_hang_the_report(here: Cli, stranger: Path, name: str) -> None:
    first, second = folders(stranger)
    for folder, make in ((first, os.mkfifo), (second, lambda p: os.symlink("/dev/zero", p))):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)  # type: ignore[operator]
    (stranger / "parity.json").unlink(missing_ok=True)
    os.mkfifo(stranger / "parity.json")
    done = here("report", str(stranger), "--json")
    if name in ("log.txt", "predictions.npz"):
        assert (done.returncode, len(json.loads(done.stdout)["rows"])) == (0, 2)
    else:
        assert done.returncode == 2
        assert "not a regular file" in done.stderr


def test_links_in_place_of_tables_and_page_lead_nowhere(
    here: Cli, stranger: Path, private: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "table.md").write_text("mine")
    (stranger / "tables").symlink_to(elsewhere)
    (stranger / "report.html").symlink_to(private)
    for guessed in ("report.html.part", "parity.json.part"):
        (stranger / guessed).symlink_to(private)
    done = here("report", str(stranger))
    assert done.returncode == 2
    assert "tables: it is a symbolic link" in done.stderr
    assert private.read_text() == SECRET + "\n"
    assert (elsewhere / "table.md").read_text() == "mine"
    assert not (stranger / "report.html").is_symlink()


def test_a_folder_of_runs_that_is_a_link_is_not_followed(
    stranger: Path, tmp_path: Path, save_run: Save
) -> None:
    shutil.move(folders(stranger)[0].parent, tmp_path / "outside")
    (stranger / "runs" / "linked").symlink_to(tmp_path / "outside")
    assert len(Store(stranger).load()[0]) == 1
    shutil.move(stranger / "runs", tmp_path / "all")
    (stranger / "runs").symlink_to(tmp_path / "all")
    with pytest.raises(UserError, match="is a link"):
        Store(stranger).load()


def changed(folder: Path, file: str, place: str, value: str) -> None:
    """Replace the number at a key of a JSON file, by text."""
    data = json.loads((folder / file).read_text())
    inner = data
    *parents, last = place.split(".")
    for key in parents:
        inner = inner[key]
    inner[last] = "THE VALUE"
    (folder / file).write_text(json.dumps(data).replace('"THE VALUE"', value))


@pytest.mark.parametrize(
    ("file", "place", "value"),
    [
        ("spec.json", "case.dataset.train_images", "-5"),
        ("spec.json", "case.dataset.train_images", "1" + "0" * 400),
        ("spec.json", "seed", "9" * 5000),
        ("spec.json", "recipe.epochs", "1e300"),
        ("spec.json", "recipe.learning_rate", "1e999"),
        ("spec.json", "recipe", "[" * 100_000 + "]" * 100_000),
        ("result.json", "total_parameters", "-1"),
        ("result.json", "fit_s", "1e999"),
        ("result.json", "knobs", "[" * 100_000 + "]" * 100_000),
        ("environment.json", "cores", "-2"),
        ("spec.json", "case.dataset.train_images", "0"),
        ("result.json", "data_options", '["--python torch=./evil.sh", "--fresh"]'),
        ("result.json", "data_options", '["--test-from val\\n--fresh"]'),
    ],
)
def test_one_bad_run_does_not_stop_the_report_of_the_other(
    here: Cli, stranger: Path, file: str, place: str, value: str
) -> None:
    changed(folders(stranger)[0], file, place, value)
    done = here("report", str(stranger), "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, len(answer["rows"]), len(answer["problems"])) == (0, 1, 1)
    assert len(answer["problems"][0]) < 1000


def archive(path: Path, **arrays: np.ndarray) -> None:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def test_labels_of_no_class_and_headers_that_lie_are_not_trusted(tmp_path: Path) -> None:
    good = {"labels": np.array([0, 1]), "logits": np.eye(2)}
    path = tmp_path / "predictions.npz"
    archive(path, **good)
    assert confusion(tmp_path, 2) == [[1, 0], [0, 1]]
    archive(path, **{**good, "labels": np.array([0, 2_000_000_000])})
    assert confusion(tmp_path, 2) is None
    archive(path, **{**good, "labels": np.array([0, -1])})
    assert confusion(tmp_path, 2) is None
    assert largest_confusions(tmp_path) is None
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("labels.npy", file.getvalue())
        made.writestr("logits.npy", file.getvalue())
    assert confusion(tmp_path, 2) is None


def test_an_archive_that_unpacks_to_more_than_it_may_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.storage.arrays.ARRAY_BYTES", 100_000)
    zeros = np.zeros(50_000)
    archive(tmp_path / "predictions.npz", labels=zeros, logits=np.zeros((50_000, 2)))
    assert (tmp_path / "predictions.npz").stat().st_size < 10_000
    assert confusion(tmp_path, 2) is None


ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def test_stored_escapes_reach_neither_terminal_nor_tables(
    here: Cli, save_run: Save, tmp_path: Path
) -> None:
    root = tmp_path / "results"
    failure = {"kind": "Bad", "message": f"it {ESCAPE} said"}
    save_run(Store(root), status="crashed", failure=failure, test_top1=None)
    done = here("report", str(root), "--format", "md,csv,html,latex", "--columns",
                "run_id,failure")  # fmt: skip
    assert done.returncode == 0
    assert "said" in done.stdout
    texts = [p.read_text() for p in (root / "tables").iterdir() if p.suffix != ".csv"]
    assert not any("\x1b" in text or "\x07" in text for text in (done.stdout, done.stderr, *texts))
    assert printable("a\tb\nc é") == "a\tb\nc é"


@pytest.mark.parametrize("name", ["folder:🌸", "folder:é", 'folder:"q', "folder:a\x7fb"])
def test_the_suite_to_repeat_a_run_is_toml(make_spec: Callable[..., Any], name: str) -> None:
    text = suite_text(make_spec(case={"dataset": {"name": name}}))
    assert tomllib.loads(text)["grid"][0]["dataset"] == name


def test_every_option_of_data_can_be_stored(
    make_spec: Callable[..., Any], make_environment: Callable[..., Any],
    make_result: Callable[..., Any],
) -> None:  # fmt: skip
    rules = FileRules(True, True, ("train", 0.15), 10**9), FileRules(test_from=("val", 1.0))
    for options in (rule.options() for rule in rules):
        assert make_result(make_spec(), make_environment(), data_options=options)


def test_a_link_in_place_of_the_folder_for_several_is_not_followed(
    here: Cli, save_run: Save, make_spec: Callable[..., Any], tmp_path: Path
) -> None:
    for seed, name in enumerate("ABC"):
        save_run(Store(tmp_path / name), make_spec(seed=seed))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "report.html").write_text("precious")
    (tmp_path / "A" / "with-B-C").symlink_to(outside)
    done = here("report", *(str(tmp_path / name) for name in "ABC"))
    assert done.returncode == 2
    assert "is a link, which may lead anywhere" in done.stderr
    assert (outside / "report.html").read_text() == "precious"


def test_runs_that_agree_in_everything_but_answers_or_origin_do_not_stop_a_report(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    def answers(images: int) -> dict[str, Any]:
        right = np.arange(images) < images // 2
        bits = base64.b64encode(np.packbits(right).tobytes()).decode()
        return {"images": images, "labels_sha256": "a" * 64, "right_bits": bits}

    sizes = [
        make_run(seed=seed, result={"test_top1": 0.5, "test_answers": answers(images)})
        for seed, images in enumerate((8, 16))
    ]
    origins = [
        make_run(backend=backend, weights={"source": source})
        for backend, source in (("torch", "one"), ("torch", "two"), ("keras-tensorflow", "one"))
    ]
    for runs in (sizes, origins):
        assert len(make_report(runs, tmp_path, []).rows) == len(runs)


def test_what_is_nested_too_deep_is_a_missing_result(save_run: Save, tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = save_run(store)
    (folder / "result.json").write_text("[" * 100_000 + "]" * 100_000)
    assert store.is_missing(folder.parent.name, folder.name)
    assert not store.has_other_environment(folder.parent.name)
    folder.rename(store.partial_folder() / "old")
    store.discard_partials()
    assert list((tmp_path / ".partial").iterdir()) == []


def test_folders_that_are_no_runs_are_counted(here: Cli, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / "runs" / f"r{number}" / "e").mkdir(parents=True)
    done = here("report", str(tmp_path))
    assert done.returncode == 2
    assert "22 more could not be read" in done.stderr
    assert len(done.stderr.splitlines()) < 15


def test_very_many_reasons_and_differences_are_counted(make_run: Callable[..., Any]) -> None:
    def crashed(number: int) -> dict[str, Any]:
        failure = {"kind": "Bad", "message": f"reason {number}"}
        return {"status": "crashed", "test_top1": None, "failure": failure}

    failed = rows_of([make_run(seed=n, result=crashed(n)) for n in range(30)])
    odd = rows_of(
        [
            make_run(seed=n, backend=backend, result={"total_parameters": parameters})
            for n in range(30)
            for backend, parameters in (("torch", 10), ("keras-tensorflow", 11))
        ]
    )
    for lines, what in ((reasons(failed), "reasons"), (mismatches(odd), "differences")):
        assert len(lines) == MOST_LINES + 1
        assert lines[-1].startswith(f"… and 10 more {what}, see ")


def test_temporary_names_cannot_be_guessed(tmp_path: Path, private: Path) -> None:
    replace_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "private.txt"]


# Company


def test_a_partial_folder_of_another_machine_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    theirs = store.partial_folder()
    monkeypatch.undo()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours = store.partial_folder()
    host = ours.name.partition("-")[0]
    abandoned = ours.with_name(f"{host}-{dead.pid}-x")
    abandoned.mkdir()
    store.discard_partials()
    assert [theirs.exists(), ours.exists(), abandoned.exists()] == [True, False, False]
    os.utime(theirs, (0, 0))
    store.discard_partials()
    assert not theirs.exists()


def test_containers_that_share_a_host_name_are_different_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = owner()
    monkeypatch.setattr("os.readlink", lambda _: "pid:[1]")
    assert owner().partition("-")[0] != here.partition("-")[0]


def test_a_result_that_was_being_replaced_when_the_process_died_is_put_back(
    tmp_path: Path, save_run: Save
) -> None:
    store = Store(tmp_path)
    final = save_run(store, test_top1=0.25)
    final.rename(store.partial_folder() / "old")
    assert store.load()[0] == []
    store.discard_partials()
    (run,), problems = store.load()
    assert (run.result.test_top1, problems) == (0.25, [])


def test_what_another_process_uses_is_not_pruned(tmp_path: Path) -> None:
    for name in ("used", "free"):
        (tmp_path / "packed" / name).mkdir(parents=True)
        (tmp_path / "packed" / name / "x").write_bytes(bytes(1000))
    code = (
        "import sys; from pathlib import Path; from bench.storage.cache import mark_used\n"
        f"print(mark_used(Path({str(tmp_path / 'packed' / 'used')!r})), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert prune(tmp_path, set(), 0) == [tmp_path / "packed" / "free"]
        other.communicate()
    assert prune(tmp_path, set(), 0) == [tmp_path / "packed" / "used"]
    assert mark_used(tmp_path / "packed" / "used") is False


@pytest.mark.parametrize("given", ["inf", "-5", "abc", "nan", "1e400"])
def test_a_wrong_size_of_the_cache_is_told(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAWBENCH_CACHE_GB", given)
    with pytest.raises(UserError, match=f"THAWBENCH_CACHE_GB is '{given}'"):
        limit_bytes()


def test_a_cache_that_is_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="(?s)file' is a file, not a folder.*THAWBENCH_CACHE"):
        cache_root()


# The command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--timeout inf", "--timeout inf: a time limit must be above 0"),
        ("--timeout nan", "--timeout nan: a time limit"),
        ("--learning-rates 1e308 --tune lr", "--learning-rates: it should be less than"),
        ("--learning-rates nan", "--learning-rates: 'nan' is not a number"),
        ("--learning-rates 0", "--learning-rates: it should be greater than"),
        ("--seeds " + "9" * 5000, "--seeds: '9999"),
        ("--epochs 10000000", "--epochs: it should be less than or equal to 1000000"),
        ("--batch-size 100000000000", "--batch-size: it should be less than"),
        ("--seeds " + "9" * 4000, "--seeds: '9999"),
        ("--learning-rates 5e-324", "--learning-rates: it should be greater than"),
        ("--train-images 100000000000000", "--train-images: it should be less than"),
        ("--head dense:999999,999999", "a layer has at most 65,536 units"),
        ("--test-from val", "--test-from val is about images of your own"),
        ("--skip-unreadable", "--skip-unreadable is about images of your own"),
        ("--weights ~nosuch/w.pth", "~nosuch/w.pth"),
        ("--backbones module:~nosuch/n.py:f", "~nosuch/n.py"),
        ("--python torch=~nosuch/python", "'~nosuch/python' is not an interpreter"),
    ],
)
def test_numbers_that_no_run_can_have_are_named_as_the_user_wrote_them(
    here: Cli, arguments: str, said: str
) -> None:
    done = here("run", "--datasets", "photos", "--dry-run", *arguments.split())
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr) < 500


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = 0", "epochs of grid 1: it should be greater than 0"),
        (f"epochs = {'9' * 5000}", "cannot be read"),
        (f"epochs = {'[' * 50_000}", "cannot be read"),
        ("learning_rate = inf", "learning_rate of grid 1"),
        (f"size_bounds = [1, {'9' * 400}]", "size_bounds of grid 1"),
        ("val_images = 100000000000000", "val_images of grid 1"),
    ],
)
def test_numbers_in_a_suite_are_named_by_key_and_grid(
    here: Cli, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f'name = "s"\n[[grid]]\ndataset = "photos"\n{text}\n')
    done = here("run", "--suite", str(path), "--dry-run")
    assert done.returncode == 2
    assert said in done.stderr


def test_a_plan_of_a_million_runs_is_counted_before_it_is_made(here: Cli) -> None:
    seeds = ",".join(map(str, range(2500)))
    done = here("run", "--datasets", "photos", "--seeds", seeds, "--dry-run")
    assert done.returncode == 2
    assert "runs, before devices are counted" in done.stderr
    assert "--yes" in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "2>&- >&-"])
def test_closed_streams_do_not_fail_a_command(tmp_path: Path, closed: str) -> None:
    root = Path(__file__).parents[2]
    command = f"{sys.executable} run_bench.py list cases {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=root, capture_output=True, timeout=120)
    assert done.returncode == 0


def test_a_fault_of_thawbench_leaves_its_traceback_in_a_file(
    here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> bool:
        raise KeyError("a fault")

    monkeypatch.setattr("bench.cli.list.list_command", broken)
    done = here("list", "cases")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    file = Path(done.stderr.rsplit(" in ", 1)[1].strip().removesuffix("."))
    assert "a fault" in file.read_text()
    file.unlink()


def test_a_report_can_be_made_of_what_is_left(stranger: Path) -> None:
    runs, problems = Store(stranger).load()
    assert make_report(runs, stranger, problems).rows


def test_a_report_that_cannot_be_written_prints_one_document(here: Cli, stranger: Path) -> None:
    (stranger / "tables").write_text("in the way")
    done = here("report", str(stranger), "--json")
    assert done.returncode == 2
    assert len(json.loads(done.stdout)["rows"]) == 2
    assert "tables: a file of that name is in the way" in done.stderr


def test_a_link_in_place_of_partial_folders_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "old-1-x").mkdir(parents=True)
    os.utime(outside / "old-1-x", (0, 0))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".partial").symlink_to(outside)
    Store(tmp_path / "results").discard_partials()
    assert (outside / "old-1-x").is_dir()


def test_the_page_of_very_many_runs_holds_no_details_of_those_that_are_ok(
    stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, problems = Store(stranger).load()
    whole = make_report(runs, stranger, problems).page
    monkeypatch.setattr(sys.modules["bench.report.document"], "MOST_DETAILS", 1)
    page = make_report(runs, stranger, problems).page
    assert whole is not None
    assert page is not None
    assert (len(whole["runs"]), len(page["runs"])) == (2, 0)
    assert len(page["rows"]) == 2
    assert page["notes"][0].startswith("Details of 2 runs are left out")
    write_page(page, stranger / "page.html")
    again, problems = load_page(stranger / "page.html")
    assert problems == []
    assert [run.spec for run in again] == [run.spec for run in runs]
