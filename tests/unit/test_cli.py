"""The command line: exit codes, standard output and error, one JSON document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.catalog.backbones import BACKBONES
from bench.cli.list import LISTS
from bench.cli.main import app
from bench.cli.options import names, numbers
from bench.errors import Unavailable, UserError
from bench.network import weights
from bench.network.backbones import weights_choice
from bench.network.blueprint import Network
from bench.network.blueprint_files import write_checksums
from bench.spec.backbone import WeightsSource
from bench.storage.results import Store

ROOT = Path(__file__).resolve().parents[2]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Call the command line in a process, from an empty folder, without cache and weights."""
    work = tmp_path / "work"
    work.mkdir()
    variables = {
        **os.environ,
        "THAWBENCH_CACHE": str(tmp_path / "cache"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "COLUMNS": "100",
    }

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "run_bench.py"), *arguments],
            cwd=work,
            env={**variables, **more},
            capture_output=True,
            text=True,
            timeout=900,
        )

    return call


def _no_traceback(done: subprocess.CompletedProcess[str]) -> None:
    assert "Traceback" not in done.stderr
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run --cases 9", "Unknown case in suite quick '9'"),
        ("run --datasets photos --cases 1", "no grid of custom has a case"),
        ("run --cases one", "--cases: 'one' is not a whole number"),
        ("run --suite standart", "Did you mean 'standard'?"),
        ("run --suite absent.toml", "'absent.toml' does not exist"),
        ("run --backbones resnet5O", "Did you mean 'resnet50'?"),
        ("run --policies freeze-all", "Did you mean 'freeze_all'?"),
        ("run --backends troch", "Did you mean 'torch'?"),
        ("run --device gpu", "Unknown device 'gpu'. Did you mean 'cpu'?"),
        ("run --datasets photo", "Did you mean 'photos'?"),
        ("run --datasets folder:absent", "absent"),
        ("run --head dense:x", "Unknown head 'dense:x'"),
        ("run --px 20", "needs at least 32"),
        ("run --timeout 0", "--timeout 0: a time limit must be above 0 seconds"),
        ("run --weights randm", "Unknown weights 'randm'. Did you mean 'random'?"),
        ("run --precision fp8", "Unknown value of --precision 'fp8'. Did you mean 'fp"),
        ("run --optimizer sdg", "Unknown value of --optimizer 'sdg'. Did you mean 'sgd'?"),
        ("run --augmentation flip", "Unknown value of --augmentation 'flip'."),
        ("run --schedule cosin", "Unknown value of --schedule 'cosin'. Did you mean 'cosine'?"),
        ("run --warmup 1", "--warmup: it should be less than 1"),
        ("run --warmup much", "Invalid value for '--warmup'"),
        ("run --momentum 1.5", "--momentum: it should be less than 1"),
        ("run --views 0", "--views: it should be greater than or equal to 1"),
        ("run --train-images 0", "Invalid value for '--train-images'"),
        ("run --weights vgg_16=random", "Did you mean 'vgg16'?"),
        ("run --weights absent.pth", "'absent.pth' does not exist"),
        ("run --python torch=absent", "'absent' is not an interpreter"),
        ("run --suit quick", "No such option"),
        ("list polices", "Did you mean 'policies'?"),
        ("list backbones --policy freeze", "Did you mean 'freeze_all'?"),
        ("report absent", "it does not exist"),
        ("report .", "No results in"),
        ("report . --format mdd", "Did you mean 'md'?"),
        ("dance", "No such command"),
    ],
)
def test_a_usage_error_ends_with_2_and_one_message(here: Cli, arguments: str, said: str) -> None:
    done = here(*arguments.split())
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", ["run --cases 9 --json", "list polices"])
def test_a_process_prints_the_same(cli: Cli, here: Cli, arguments: str) -> None:
    done = cli(*arguments.split())
    inside = here(*arguments.split())
    _no_traceback(done)
    assert (done.returncode, done.stdout, done.stderr) == (2, inside.stdout, inside.stderr)
    if "--json" in arguments:
        assert json.loads(done.stdout)["error"]["message"] in done.stderr
    else:
        assert done.stdout == ""


@pytest.mark.parametrize("arguments", ["run --nonsense --json", "report nowhere --json"])
def test_with_json_an_error_is_a_document(here: Cli, arguments: str) -> None:
    done = here(*arguments.split())
    assert done.returncode == 2
    assert set(json.loads(done.stdout)["error"]) == {"message", "hint"}


def test_an_unknown_key_in_a_suite_file_ends_with_2(here: Cli, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('name = "s"\n[[grid]]\ndataset="photos"\nepoch=3\n')
    done = here("run", "--suite", str(path), "--json")
    assert done.returncode == 2
    assert "s.toml 'epoch'. Did you mean 'epochs'?" in done.stderr
    assert "Did you mean 'epochs'?" in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize("line", ["seeds = [-1]\n[[grid]]", "[[grid]]\nlearning_rate = inf"])
def test_a_value_that_no_run_can_have_ends_with_2(
    here: Cli, images: Path, tmp_path: Path, line: str
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f'name = "s"\n{line}\ndataset="folder:{images}"\nweights = "random"\n')
    assert here("run", "--suite", str(path), "--dry-run").returncode == 2


def test_a_results_folder_that_cannot_be_written_ends_with_2(
    here: Cli, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    given = ("--datasets", f"folder:{images}", "--weights", "random")
    done = here("run", *given, "--out", str(tmp_path / "file"))
    assert done.returncode == 2
    assert "Cannot write results to" in done.stderr


def test_paragraphs_of_help_have_no_line_breaks_of_the_source() -> None:
    texts = [command.callback.__doc__ for command in app.registered_commands if command.callback]
    assert len(texts) == 8
    for text in texts:
        assert text
        assert not any("\n" in paragraph for paragraph in text.split("\n\n"))


def test_help_names_the_commands(cli: Cli) -> None:
    done = cli("--help")
    assert done.returncode == 0
    for command in ("run", "report", "list", "parity", "speed", "gate", "advise", "doctor"):
        assert command in done.stdout


@pytest.mark.parametrize("arguments", [(), ("run",), ("report",), ("gate",), ("advise",)])
def test_help_is_whole_on_a_terminal_of_80_columns(
    arguments: tuple[str, ...], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli(*arguments, "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    cut = [one for one in lines if one.endswith(("…", "...")) and not one.startswith("Usage")]
    assert cut == []


@pytest.mark.parametrize("what", ["cases", "policies", "datasets", "suites", "backends"])
def test_a_list_as_json_is_one_document(here: Cli, what: str) -> None:
    done = here("list", what, "--json")
    assert done.returncode == 0
    items = json.loads(done.stdout)[what]
    assert items
    assert all(isinstance(item, dict) for item in items)


def test_list_alone_names_the_lists(here: Cli) -> None:
    done = here("list", "--json")
    assert done.returncode == 0
    names = [item["list"] for item in json.loads(done.stdout)["lists"]]
    assert names == list(LISTS)
    assert all(name in here("list").stdout for name in names)


def test_a_list_for_people_names_everything(here: Cli) -> None:
    done = here("list", "policies")
    assert done.returncode == 0
    for name in ("freeze_all", "fine_tune_last", "fine_tune_all", "retrain_all", "from_scratch"):
        assert name in done.stdout
    for name, thawed in (("linear_probe_then_fine_tune", "head, all"),
                         ("gradual_unfreeze", "head, …, all")):  # fmt: skip
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
        assert line.removeprefix(name).strip().startswith(f"{thawed}  ")
        assert "schedule restarted" in line


COUNTING_STUB = """
import json, os, sys
task = json.loads(sys.stdin.readline())
answer = {{"event": "done"}}
if task["task"] == "environment":
    from bench.workers.environment import environment_here
    found = environment_here(*sys.argv[4:6], task["packages"], task["device"])
    answer["environment"] = found.model_dump(mode="json")
elif {crashes}:
    os.abort()
elif task["task"] == "count":
    one = {{"total_parameters": 30, "trainable_parameters": 20, "state_values": 10}}
    answer["counts"] = [one] * len(task["architectures"])
print(json.dumps(answer), flush=True)
"""


def _interpreter(folder: Path, code: str) -> Path:
    """Return an interpreter that runs ``code`` in the place of the worker."""
    (folder / "stub.py").write_text(code)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder / "stub.py"}" "$@"\n')
    python.chmod(0o755)
    return python


def test_backbones_are_listed_with_an_empty_cache(here: Cli, tmp_path: Path) -> None:
    python = _interpreter(tmp_path, COUNTING_STUB.format(crashes=False))
    assert not (tmp_path / "cache").exists()
    done = here("list", "backbones", "--python", f"torch={python}", "--json")
    assert done.returncode == 0, done.stderr
    items = json.loads(done.stdout)["backbones"]
    assert {item["name"] for item in items} == set(BACKBONES)
    assert {item["trainable_parameters"] for item in items} == {20}


def test_a_crashed_worker_of_a_list_ends_with_1(cli: Cli, tmp_path: Path) -> None:
    python = _interpreter(tmp_path, COUNTING_STUB.format(crashes=True))
    done = cli("list", "backbones", "--python", f"torch={python}")
    assert (done.returncode, done.stdout) == (1, "")
    _no_traceback(done)
    count = len(BACKBONES)
    assert f"error: exporting {count} networks failed: the worker ended by signal" in done.stderr
    log = tmp_path / "cache" / "logs" / f"exporting-{count}-networks-torch.txt"
    assert f"(the worker's output: {log})" in done.stderr
    assert log.is_file()


# Runs, with a worker that needs no framework


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Create a folder of two classes of eight images."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(8):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{index}.png")
    return tmp_path / "pets"


STUB = """
import json, os, pathlib, shutil, signal, sys
assert sys.argv[1:4] == ["-P", "-m", "backends.worker"]
task = json.loads(sys.stdin.readline())
print("a framework's chatter")
answer = {{"event": "done"}}
if task["task"] == "environment":
    from bench.workers.environment import environment_here
    found = environment_here(
        *sys.argv[4:6], task["packages"], task["device"], task["variables"])
    answer["environment"] = found.model_dump(mode="json")
elif task["task"] == "export":
    folder = pathlib.Path(os.environ["THAWBENCH_CACHE"]) / "blueprints" / task["key"]
    shutil.copytree({network!r}, folder)
elif task["specs"][0]["seed"] == 1:
    os.kill(os.getpid(), signal.SIGTERM)
else:
    from bench.spec.run import RunSpec
    if task["specs"][0]["seed"] == 2:
        for result in pathlib.Path(task["folders"][0]).parents[1].glob("runs/*/*/result.json"):
            result.write_text("damaged")
    run_id = RunSpec.model_validate(task["specs"][0]).run_id
    identity = {{"run_id": run_id, "environment_id": task["environment_id"]}}
    answer["results"] = [{{**identity, "status": "ok", "test_top1": 0.5, "fit_s": 1.0}}]
print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def run(cli: Cli, images: Path, network: Network, tmp_path: Path) -> Cli:
    """Call ``run`` on the images, with a stub in the place of the torch worker."""
    (tmp_path / "network").mkdir()
    network.save(tmp_path / "network")
    write_checksums(tmp_path / "network")
    python = _interpreter(tmp_path, STUB.format(network=str(tmp_path / "network")))

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        given = (
            "--datasets", f"folder:{images}", "--backends", "torch", "--policies", "freeze_all",
            "--weights", "random", "--python", f"torch={python}", "--device", "cpu",
            "--px", "32", "--out", str(tmp_path / "out"),
        )  # fmt: skip
        return cli("run", *given, *arguments)

    return call


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the only document on standard output."""
    _no_traceback(done)
    return json.loads(done.stdout)


def test_a_dry_run_lists_the_runs_and_does_nothing(run: Cli, tmp_path: Path) -> None:
    done = run("--dry-run", "--json", "--seeds", "0,1")
    assert done.returncode == 0
    runs = _json(done)["runs"]
    assert [r["missing"] for r in runs] == [True, True]
    assert all(r["run_id"].startswith("folder-pets-efficientnet-lite0-freeze-all") for r in runs)
    assert str(tmp_path) not in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "results"])
def test_results_are_never_written_among_images(run: Cli, images: Path, below: str) -> None:
    before = sorted(images.rglob("*"))
    done = run("--out", str(images / below))
    assert done.returncode == 2
    assert "would be taken for classes" in done.stderr
    assert "--out" in done.stderr
    assert sorted(images.rglob("*")) == before


def test_a_run_gives_one_document_and_a_second_call_runs_nothing(run: Cli, tmp_path: Path) -> None:
    done = run("--json")
    document = _json(done)
    assert done.returncode == 0, done.stderr
    (row,) = document["rows"]
    assert (row["status"], row["test_top1"], row["weights"]) == ("ok", 0.5, "random")
    assert "1 of 1 runs to do" in done.stderr
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} >= {"runs", "tables", "report.html"}
    assert {p.name for p in (out / "tables").iterdir()} >= {"table.md", "table.csv"}
    ((stored,), _) = Store(out).load()
    assert str(tmp_path) not in (stored.folder / "spec.json").read_text()
    again = run("--json")
    assert _json(again) == document
    assert "to do" not in again.stderr
    fresh = run("--json", "--fresh")
    assert "1 of 1 runs to do" in fresh.stderr


def test_a_run_that_is_not_ok_is_a_row_and_ends_with_1(run: Cli, cli: Cli, tmp_path: Path) -> None:
    done = run("--seeds", "0,1")
    assert done.returncode == 1
    assert "crashed: the worker ended by signal SIGTERM" in done.stdout
    assert "crashed" in (tmp_path / "out" / "tables" / "table.md").read_text()
    again = cli("report", str(tmp_path / "out"), "--json", "--format", "md,csv,html,latex")
    assert again.returncode == 0
    rows = _json(again)["rows"]
    assert [(r["seed"], r["status"]) for r in rows] == [(0, "ok"), (1, "crashed")]
    names = {p.name for p in (tmp_path / "out" / "tables").iterdir()}
    assert {f"{table}.{form}" for table in ("table", "failed") for form in ("md", "tex")} <= names


def test_a_run_without_a_readable_row_ends_with_1(run: Cli) -> None:
    done = run("--seeds", "0,2", "--json")
    assert [(r["seed"], r["status"]) for r in _json(done)["rows"]] == [(2, "ok")]
    assert "skipped: not a run of Thawbench" in done.stderr
    assert done.returncode == 1


def test_images_that_are_left_out_are_listed_and_counted(
    run: Cli, images: Path, tmp_path: Path
) -> None:
    (images / "cat" / "broken.png").write_bytes(b"no image")
    dry = run("--dry-run", "--skip-unreadable", "--json")
    done = run("--skip-unreadable", "--json")
    for answer in (dry, done):
        assert answer.returncode == 0
        (line,) = [line for line in answer.stderr.splitlines() if line.startswith("left out: ")]
        assert "broken.png: " in line
    assert _json(done)["rows"][0]["status"] == "ok"
    ((stored,), _) = Store(tmp_path / "out").load()
    assert (stored.result.unreadable_images, stored.result.notes) == (1, ())


def test_a_dry_run_never_downloads(
    here: Cli, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def network_of_weights(source: WeightsSource) -> Path:
        asked.append(source.location)
        raise Unavailable("no network")

    monkeypatch.setattr(weights, "_from_network", network_of_weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    given = (
        "run", "--datasets", f"folder:{images}", "--backends", "torch", "--backbones", "vgg16",
        "--policies", "freeze_all", "--device", "cpu", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    dry = here(*given, "--dry-run")
    assert dry.returncode == 0
    assert "to do, but unavailable" in dry.stdout
    assert dry.stdout.count("unavailable: no pretrained weights for vgg16") == 1
    assert asked == []
    assert here(*given).returncode == 1, "the run itself asks"
    assert asked != []


def test_a_report_does_not_depend_on_the_locale(
    cli: Cli, save_run: Callable[..., Path], tmp_path: Path
) -> None:
    failure = {"kind": "x", "message": "Blüte – gone"}
    save_run(Store(tmp_path / "out"), status="oom", failure=failure, test_top1=None)
    latin = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = cli("report", str(tmp_path / "out"), "--json", **latin)
    assert done.returncode == 0
    assert "Blüte –" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


# Reading options


def test_lists_are_comma_separated_and_a_comma_can_be_kept() -> None:
    assert names(None) is None
    assert names(" a, b,a,,") == ["a", "b"]
    assert names("folder:a\\,b,c") == ["folder:a,b", "c"]
    for nothing in ("", ",", " , "):
        with pytest.raises(UserError, match="empty list"):
            names(nothing)


def test_numbers_are_whole_and_not_negative() -> None:
    assert numbers("--seeds", int, "0,12") == [0, 12]
    for wrong in ("-1", "1.5", "x", "²"):
        with pytest.raises(UserError, match="--seeds"):
            numbers("--seeds", int, wrong)


def test_weights_are_for_all_or_for_one_backbone() -> None:
    assert weights_choice("random") == ("", "random")
    assert weights_choice("vgg16=pretrained") == ("vgg16", "pretrained")
    assert weights_choice("alexnet=/a=b.pth") == ("alexnet", "/a=b.pth")
    assert weights_choice("/folder=x/w.pth") == ("", "/folder=x/w.pth")
