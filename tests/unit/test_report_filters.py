"""``report`` of some runs, with columns and an order of the reader's choice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.errors import UserError
from bench.report.filters import Filters, chosen_columns, in_order, kept
from bench.report.rows import rows_of
from bench.report.tables import standard_table, to_csv
from bench.store import StoredRun

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
    assert len(kept(runs, filters)) == left


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (Filters(policies=["freeze_al"]), "Unknown policy among these runs 'freeze_al'. Did you "
         "mean 'freeze_all'?"),
        (Filters(backbones=["resnet50"]), "Unknown backbone among these runs"),
        (Filters(cases=[2]), "Unknown case among these runs '2'"),
        (Filters(batch_size=[33]), "Unknown batch size among these runs '33'"),
        (Filters(backends=["keras-tensorflow"], seeds=[1]),
         "No run here has all of --backends keras-tensorflow --seeds 1."),
    ],
)  # fmt: skip
def test_a_wrong_name_is_told(runs: list[StoredRun], filters: Filters, words: str) -> None:
    with pytest.raises(UserError) as error:
        kept(runs, filters)
    assert words in error.value.message


def test_rows_in_another_order_those_without_a_value_last(runs: list[StoredRun]) -> None:
    rows = rows_of(runs)
    assert [r["test_top1"] for r in in_order(rows, ["-test_top1"])] == [0.9, 0.7512, 0.7, None]
    assert [r["test_top1"] for r in in_order(rows, ["test_top1"])] == [0.7, 0.7512, 0.9, None]
    assert [(r["px"], r["seed"]) for r in in_order(rows, ["px", "-seed"])][:2] == [(64, 0), (96, 1)]
    with pytest.raises(UserError, match="Did you mean 'test_top1'"):
        in_order(rows, ["-test_top"])


def test_columns_of_choice(runs: list[StoredRun]) -> None:
    rows = rows_of(runs)
    names = chosen_columns(["seed", "test_macro_f1", "test_top1"], rows)
    table = standard_table(rows, names)
    assert list(table.columns) == ["seed", "test macro f1", "test top-1"]
    assert table["test top-1"].tolist().count("–") == 1
    assert to_csv(rows, names).splitlines()[0] == "seed,test_macro_f1,test_top1"
    with pytest.raises(UserError, match="Unknown column 'tops'"):
        chosen_columns(["tops"], rows)
