"""``report`` with filters, chosen columns and order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.analysis.rows import rows_of
from bench.cli.options import heads
from bench.errors import UserError
from bench.report.selection import Filters, Selection, chosen_columns, in_order
from bench.report.tables.runs import standard_table, to_csv
from bench.storage.results import StoredRun

Make = Callable[..., StoredRun]


@pytest.fixture
def runs(make_run: Make) -> list[StoredRun]:
    return [
        make_run(seed=0, result={"test_top1": 0.7}),
        make_run(seed=1, result={"test_top1": 0.9}),
        make_run(seed=0, backend="keras-tensorflow", result={"test_top1": None, "status": "oom"}),
        make_run(seed=0, recipe={"px": 64}, case={"number": None}),
    ]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (Filters(), 4),
        (Filters(backends=["torch"]), 3),
        (Filters(backends=["torch"], seeds=[1]), 1),
        (Filters(cases=[1]), 3),
        (Filters(px=[64, 96]), 4),
        (Filters(status=["oom"]), 1),
        (
            Filters(policies=["freeze_all"], datasets=["photos"], backbones=["efficientnet_lite0"]),
            4,
        ),
    ],
)
def test_filters_keep_what_has_all(runs: list[StoredRun], filters: Filters, left: int) -> None:
    assert len(Selection(filters, runs).kept(runs)) == left


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (Filters(policies=["freeze_al"]), "Unknown policy among these runs 'freeze_al'. Did you "
         "mean 'freeze_all'?"),
        (Filters(backbones=["resnet5"]), "Unknown backbone among these runs 'resnet5'. Did you "
         "mean 'resnet50'?"),
        (Filters(cases=[5]), "Unknown case among these runs '5'"),
        (Filters(status=["ok", "okay"]), "Unknown status among these runs 'okay'"),
        (Filters(head=["dense"]), "Unknown head among these runs 'dense'"),
        (Filters(device=["gpu"]), "Unknown device among these runs 'gpu'"),
        (Filters(weights=["pretraind"]), "Unknown weights among these runs 'pretraind'. Did you "
         "mean 'pretrained'?"),
        (Filters(weights=["vgg1=random"]), "Unknown backbone in --weights 'vgg1'"),
        (Filters(backbones=["resnet50"]), "--backbones: no run here has the backbone 'resnet50'."),
        (Filters(cases=[2, 3]), "--cases: no run here has the case '2' or '3'."),
        (Filters(batch_size=[33]), "--batch-size: no run here has the batch size '33'."),
        (Filters(tune=["lr"]), "--tune: no run here has the tuning 'lr'."),
        (Filters(head=["dense:512,256"]), "--head: no run here has the head 'dense:512,256'."),
        (Filters(weights=["nets/w.pth"]), "--weights: no run here has the weights 'nets/w.pth'."),
        (Filters(backends=["keras-tensorflow"], seeds=[1]),
         "No run here has all of --backends keras-tensorflow --seeds 1."),
    ],
)  # fmt: skip
def test_a_wrong_name_is_told(runs: list[StoredRun], filters: Filters, words: str) -> None:
    with pytest.raises(UserError) as error:
        Selection(filters, runs).kept(runs)
    assert words in error.value.message


def test_known_names_that_no_run_has_are_told_and_the_others_kept(runs: list[StoredRun]) -> None:
    asked = Filters(policies=["retrain_all", "freeze_all"], status=["ok", "crashed", "timeout"],
                    px=[96, 224])  # fmt: skip
    selection = Selection(asked, runs)
    assert len(selection.kept(runs)) == 2
    assert selection.absent == [
        "No run here has the px '224'.",
        "No run here has the policy 'retrain_all'.",
        "No run here has the status 'crashed' or 'timeout'.",
    ]
    assert Selection(Filters(status=["ok"]), runs).absent == []


def test_names_are_looked_for_among_all_runs_and_kept_of_some(runs: list[StoredRun]) -> None:
    selection = Selection(Filters(seeds=[1]), runs)
    assert selection.of(runs[2:]) == []
    with pytest.raises(UserError, match="No run here has all of --seeds 1"):
        selection.kept(runs[2:])


def _with_weights(make_run: Make) -> list[StoredRun]:
    file = {"kind": "file", "source": "w.pth", "sha256": "12345678ff"}
    random = {"kind": "random", "source": "random", "sha256": None}
    return [make_run(), make_run(weights=random), make_run(weights=file),
            make_run(backbone="vgg16"), make_run(backbone="vgg16", weights=random)]  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "places"),
    [
        (["pretrained"], [0, 3]),
        (["random", "pretrained"], [0, 1, 3, 4]),
        (["efficientnet_lite0=random"], [1, 3, 4]),
        (["pretrained", "efficientnet_lite0=random"], [1, 3]),
        (["some/folder/w.pth"], [2]),
        (["file w.pth 12345678"], [2]),
        (["efficientnet_lite0=w.pth", "vgg16=random"], [2, 4]),
    ],
)
def test_weights_are_chosen_as_run_takes_them(
    make_run: Make, weights: list[str], places: list[int]
) -> None:
    runs = _with_weights(make_run)
    assert Selection(Filters(weights=weights), runs).kept(runs) == [runs[n] for n in places]


@pytest.mark.parametrize(
    ("device", "left"),
    [("auto", ["cuda:1"]), ("all", ["cpu", "cuda:1", "cuda:2"]), ("cpu", ["cpu"]),
     ("cuda:2", ["cuda:2"])],
)  # fmt: skip
def test_a_device_is_chosen_as_run_takes_it(make_run: Make, device: str, left: list[str]) -> None:
    runs = [make_run(device=name) for name in ("cuda:2", "cpu", "cuda:1")]
    kept = Selection(Filters(device=[device]), runs).kept(runs)
    assert sorted(run.spec.device for run in kept) == left
    cpu = [run for run in runs if run.spec.device == "cpu"]
    assert Selection(Filters(device=["auto"]), cpu).kept(cpu) == cpu


@pytest.mark.parametrize(
    "asked", ["folder:some/where/flowers", "folder:flowers/", "folder:flowers"]
)
def test_a_folder_of_images_is_known_by_its_name(make_run: Make, asked: str) -> None:
    runs = [make_run(), make_run(case={"number": None, "dataset": {"name": "folder:flowers"}})]
    assert Selection(Filters(datasets=[asked]), runs).kept(runs) == runs[1:]


def test_a_user_s_own_network_is_known_by_its_file(make_run: Make) -> None:
    own = make_run(backbone="module:net.py:build", code_sha256="ab" * 32)
    asked = Filters(backbones=["module:my/folder/net.py:build"])
    assert Selection(asked, [make_run(), own]).kept([make_run(), own]) == [own]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dense:512,256", ["dense:512,256"]),
        ("linear,flatten+dense:512,256,original", ["linear", "flatten+dense:512,256", "original"]),
        ("linear", ["linear"]),
        (None, None),
    ],
)
def test_a_head_is_one_value_whatever_commas_it_has(text: str | None, found: Any) -> None:
    assert heads(text) == found


def test_rows_in_another_order_those_without_a_value_last(runs: list[StoredRun]) -> None:
    rows = rows_of(runs)
    assert [r["test_top1"] for r in in_order(rows, ["-test_top1"])] == [0.9, 0.7512, 0.7, None]
    assert [r["test_top1"] for r in in_order(rows, ["test_top1"])] == [0.7, 0.7512, 0.9, None]
    assert [(r["px"], r["seed"]) for r in in_order(rows, ["px", "-seed"])][:2] == [(64, 0), (96, 1)]
    with pytest.raises(UserError, match="Did you mean 'test_top1'"):
        in_order(rows, ["-test_top"])


def test_columns_of_choice(runs: list[StoredRun]) -> None:
    rows = rows_of(runs)
    names = chosen_columns(["seed", "test_macro_f1", "test_top1"])
    table = standard_table(rows, names)
    assert list(table.columns) == ["seed", "test macro f1", "test top-1"]
    assert table["test top-1"].tolist().count("–") == 1
    assert to_csv(rows, names).splitlines()[0] == "seed,test_macro_f1,test_top1"
    with pytest.raises(UserError, match="Unknown column 'tops'"):
        chosen_columns(["tops"])
