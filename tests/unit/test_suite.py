"""Suites: files, defaults, mistakes, and how options of the command line change them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import DEFAULT_POLICIES, POLICIES, PRESCRIBED
from bench.errors import UserError
from bench.runner.suite import (
    Grid,
    Options,
    Suite,
    apply_options,
    grid_points,
    load_suite,
    options_suite,
    suite_names,
)

GRID = '\n[[grid]]\ndataset = "photos"\n'


def _load(folder: Path, text: str) -> Suite:
    path = folder / "mine.toml"
    path.write_text(text)
    return load_suite(str(path))


def _two_grids() -> Suite:
    return Suite(
        name="two",
        grid=(
            Grid(
                case=1,
                dataset="photos",
                train_images=216,
                backbones=("efficientnet_lite0", "squeezenet1_1"),
                policies=("freeze_all", "from_scratch"),
            ),
            Grid(case=4, dataset="mnist5k", size="large", policies=("retrain_all",), px=64),
        ),
    )


def test_there_are_the_built_in_suites_of_the_design() -> None:
    assert {"quick", "standard", "article", "article-backbones"} <= set(suite_names())


@pytest.mark.parametrize("name", suite_names())
def test_a_built_in_suite_parses_under_its_own_name_and_says_what_it_is(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.description
    assert suite.backends == ("torch", "keras-tensorflow")
    assert list(grid_points(suite))


@pytest.mark.parametrize("name", suite_names())
def test_a_built_in_suite_is_unchanged_without_options(name: str) -> None:
    assert apply_options(load_suite(name), Options()) == load_suite(name)


def test_quick_runs_every_case_under_its_prescribed_policy() -> None:
    there = {(g.case, p) for g in load_suite("quick").grid for p in g.policies}
    assert set(PRESCRIBED.items()) | {(1, "from_scratch")} == there


def test_quick_holds_two_kinds_of_network() -> None:
    assert {b for g in load_suite("quick").grid for b in g.backbones} == {
        "efficientnet_lite0",
        "squeezenet1_1",
    }


def test_standard_is_every_case_and_policy_with_three_seeds() -> None:
    suite = load_suite("standard")
    assert suite.seeds == (0, 1, 2)
    assert {(g.case, p) for g in suite.grid for p in g.policies} == set(
        product((1, 2, 3, 4), DEFAULT_POLICIES)
    )
    # 4 cases × 2 networks × 6 policies × 3 seeds × 2 backends
    assert len(list(grid_points(suite))) == 288


def test_article_backbones_are_the_seven_with_random_weights_written_down() -> None:
    (grid,) = load_suite("article-backbones").grid
    assert set(grid.backbones) == {
        "alexnet", "vgg16", "vgg19", "resnet34", "resnet50", "resnet101", "resnet152",
    }  # fmt: skip
    assert grid.weights == "random"
    assert grid.policies == DEFAULT_POLICIES


def test_the_article_never_has_random_weights_silently() -> None:
    assert [g.weights for g in load_suite("article").grid] == ["pretrained"]
    assert [g.weights for g in load_suite("article-random").grid] == ["random"]
    assert "random" in load_suite("article-random").description


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    suite = _load(tmp_path, f'name = "mine"{GRID}')
    # Other engines run only if they are named.
    assert (suite.backends, suite.seeds) == (("torch", "keras-tensorflow"), (0,))
    (grid,) = suite.grid
    assert grid == Grid(dataset="photos")
    assert (grid.policies, grid.head, grid.weights) == (DEFAULT_POLICIES, "linear", "pretrained")
    assert (grid.case, grid.train_images, grid.recipe_values("precision")) == (
        None,
        None,
        ("fp32",),
    )


def test_the_example_of_the_design_parses(tmp_path: Path) -> None:
    text = """
name = "mine"
backends = ["torch", "keras-tensorflow"]
seeds = [0, 1, 2]
[[grid]]
case = 1
dataset = "folder:flowers"
train_images = 216
similarity = "similar"
backbones = ["efficientnet_lite0", "squeezenet1_1"]
policies = ["freeze_all", "from_scratch"]
head = "linear"
weights = "pretrained"
px = 96
epochs = 20
batch_size = 32
optimizer = "sgd"
learning_rate = 0.1
weight_decay = 0.0
momentum = 0.5
augmentation = "crop_flip"
precision = "bf16"
"""
    assert len(list(grid_points(_load(tmp_path, text)))) == 2 * 2 * 3 * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'name = "m"\nbackend = ["torch"]{GRID}', "'backend'. Did you mean 'backends'?"),
        (f'name = "m"{GRID}epoch = 3', "'epoch'. Did you mean 'epochs'?"),
        (f'name = "m"\nbackends = ["torhc"]{GRID}', "'torhc'. Did you mean 'torch'?"),
        (f'name = "m"{GRID}backbones = ["resnet51"]', "'resnet51'. Did you mean 'resnet"),
        (f'name = "m"{GRID}policies = ["freeze"]', "'freeze'. Did you mean 'freeze_all'?"),
        (f'name = "m"{GRID}case = 5', "Unknown case in"),
        (f'name = "m"{GRID}head = "dense"', "Unknown head 'dense'"),
        (f'name = "m"{GRID}epochs = 0', "epochs"),
        (f'name = "m"{GRID}epochs = "many"', "epochs"),
        (f'name = "m"{GRID}px = 8', "px"),
        (f'name = "m"{GRID}learning_rate = nan', "learning_rate"),
        (f'name = "m"{GRID}optimizer = "adam"', "optimizer"),
        (f'name = "../m"{GRID}', "name"),
        ('name = "m"', "grid"),
        ('name = "m"\n[[grid]]', "dataset"),
        ('name = "m"\n[[grid]\n', "not valid TOML"),
        ('name = "m\n', "not valid TOML"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        _load(tmp_path, text)
    assert message in str(error.value)
    assert "mine.toml" in str(error.value) or "head" in str(error.value)


def test_a_file_that_is_not_text_is_not_valid_toml(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid TOML"):
        load_suite(str(tmp_path / "a.toml"))


def test_an_unknown_suite_gets_the_nearest_and_a_missing_file_its_name() -> None:
    with pytest.raises(UserError, match="Did you mean 'quick'"):
        load_suite("quik")
    with pytest.raises(UserError, match="'absent.toml' does not exist"):
        load_suite("absent.toml")


@pytest.mark.parametrize(
    "line",
    [
        "learning_rate = inf",
        "weight_decay = inf",
        "size_bounds = [100, 10]",
        "policies = []",
        "backbones = []",
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError):
        _load(tmp_path, f'name = "m"{GRID}{line}')


@pytest.mark.parametrize(
    "line",
    [
        "seeds = []",
        "seeds = [-1]",
        "backends = []",
    ],
)
def test_a_suite_that_cannot_be_run_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError):
        _load(tmp_path, f'name = "m"\n{line}{GRID}')


@pytest.mark.parametrize(("key", "value"), [("optimizer", "adamm"), ("precision", "fp23")])
def test_unknown_words_of_a_grid_list_the_known_ones(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(UserError) as error:
        _load(tmp_path, f'name = "m"{GRID}{key} = "{value}"')
    assert {"optimizer": "adamw", "precision": "fp32"}[key] in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('optimizer = "sdg"', "Unknown optimizer in {} 'sdg'. Did you mean 'sgd'?"),
        ('precision = "fp8"', "Unknown precision in {} 'fp8'. Did you mean 'fp"),
        ('size = "smal"', "Unknown size in {} 'smal'. Did you mean 'small'?"),
        ('similarity = "similr"', "Unknown similarity in {} 'similr'. Did you mean 'similar'?"),
        ('schedule = "cosin"', "Unknown schedule in {} 'cosin'. Did you mean 'cosine'?"),
        ("views = 0", "views of grid 1: it should be greater than or equal to 1"),
        ("views = 2", "{}: views = 2 repeats augmented views, but augmentation is 'none'"),
        ('prefix_cache = "on"', "prefix_cache"),
        ('augmentation = "cropp"', "Unknown augmentation in {} 'cropp'. Did you mean 'crop'?"),
        ('mode = ["mached"]', "Unknown mode in {} 'mached'. Did you mean 'matched'?"),
        ('precision = ["fp32", "fp8"]', "Unknown precision in {} 'fp8'. Did you mean 'fp"),
    ],
)
def test_a_value_of_a_closed_list_gets_the_nearest(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        _load(tmp_path, f'name = "m"{GRID}{line}')
    assert message.format(tmp_path / "mine.toml") in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        Options(mode=["mached"]),
        Options(precision=["fp8"]),
        Options(precision=["fp32", "fp8"]),
    ],
    ids=["mode", "precision", "precisions"],
)
def test_an_option_of_a_closed_list_gets_the_nearest(options: Options) -> None:
    wanted = r"value of --(mode|precision) '(fp8|mached)'\. Did you mean '"
    with pytest.raises(UserError, match=wanted):
        apply_options(_two_grids(), options)


@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_a_backbone_is_refused_below_its_least_input(tmp_path: Path, backbone: str) -> None:
    least = BACKBONES[backbone].min_px
    text = f'name = "m"{GRID}backbones = ["{backbone}"]\npx = '
    assert _load(tmp_path, f"{text}{least}").grid[0].px == least
    with pytest.raises(UserError, match=f"needs at least {least}") as error:
        _load(tmp_path, f"{text}{least - 1}")
    assert error.value.hint == f"Use --px {least}."


def test_cases_narrow() -> None:
    left = apply_options(_two_grids(), Options(cases=[4]))
    assert [g.case for g in left.grid] == [4]
    with pytest.raises(UserError, match="Unknown case in suite two '3'"):
        apply_options(_two_grids(), Options(cases=[3]))


def test_names_that_the_suite_has_narrow_it() -> None:
    left = apply_options(_two_grids(), Options(backbones=["squeezenet1_1"]))
    assert [(g.case, g.backbones) for g in left.grid] == [(1, ("squeezenet1_1",))]
    left = apply_options(_two_grids(), Options(policies=["retrain_all", "freeze_all"]))
    assert [g.policies for g in left.grid] == [("freeze_all",), ("retrain_all",)]
    left = apply_options(_two_grids(), Options(datasets=["mnist5k"]))
    assert left.grid == _two_grids().grid[1:]


def test_names_that_the_suite_lacks_are_added_to_every_grid_and_others_narrow_it() -> None:
    left = apply_options(_two_grids(), Options(backbones=["squeezenet1_1", "vgg16"]))
    assert [(g.case, g.backbones) for g in left.grid] == [
        (1, ("squeezenet1_1", "vgg16")),
        (4, ("vgg16",)),
    ], "a network of one grid does not enter another, because a third name is new"
    left = apply_options(_two_grids(), Options(datasets=["mnist5k", "folder:a"]))
    assert [(g.case, g.dataset) for g in left.grid] == [
        (4, "mnist5k"), (None, "folder:a"), (None, "folder:a"),
    ]  # fmt: skip
    left = apply_options(_two_grids(), Options(policies=["fine_tune_all"]))
    assert [(g.case, g.policies) for g in left.grid] == [
        (1, ("fine_tune_all",)),
        (4, ("fine_tune_all",)),
    ]


def test_other_data_lose_case_size_and_numbers_of_images() -> None:
    left = apply_options(_two_grids(), Options(datasets=["folder:a", "folder:b"]))
    assert [g.dataset for g in left.grid] == ["folder:a", "folder:b"] * 2
    for grid in left.grid:
        assert (grid.case, grid.size, grid.train_images, grid.similarity) == (None,) * 4
    assert left.grid[2].px == 64


def test_a_path_for_the_same_kind_of_data_keeps_the_grid() -> None:
    before = load_suite("article").grid[0]
    (grid,) = apply_options(load_suite("article"), Options(datasets=["rvl_cdip:/x"])).grid
    assert grid == before.model_copy(update={"dataset": "rvl_cdip:/x"})


def test_all_other_options_override() -> None:
    options = Options(
        backends=["torch"], seeds=[7, 8], head="dense:8", epochs=3, batch_size=5, px=40,
        precision=["fp32", "bf16"],
    )  # fmt: skip
    left = apply_options(_two_grids(), options)
    assert (left.backends, left.seeds) == (("torch",), (7, 8))
    for grid, before in zip(left.grid, _two_grids().grid, strict=True):
        assert (grid.head, grid.epochs, grid.batch_size, grid.px) == ("dense:8", 3, 5, 40)
        assert grid.recipe_values("precision") == ("fp32", "bf16")
        assert (grid.case, grid.dataset, grid.policies) == (
            before.case, before.dataset, before.policies,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(backbones=["vg16"]), "backbone in --backbones 'vg16'. Did you mean 'vgg16'"),
        (Options(policies=["fine_tune"]), "policy in --policies .* Did you mean 'fine_tune_"),
        (Options(backends=["tensorflow"]), "in --backends .* Did you mean 'keras-tensorflow'"),
        (Options(backends=["keras"]), "Did you mean 'keras-tensorflow'"),
        (Options(head="conv:3"), "Unknown head"),
        (Options(px=31), "needs at least 32"),
        (Options(px=5), "^--px: "),
        (Options(epochs=0), "^--epochs: "),
        (Options(batch_size=-1), "^--batch-size: "),
        (Options(precision=["fp23"]), "value of --precision"),
        (Options(mode=["nativ"]), "value of --mode"),
        (Options(optimizer="sdg"), "value of --optimizer 'sdg'. Did you mean 'sgd'?"),
        (Options(schedule="cosin"), "value of --schedule 'cosin'. Did you mean 'cosine'?"),
        (Options(augmentation="cropp"), "of --augmentation 'cropp'. Did you mean 'crop'?"),
        (Options(warmup_fraction=1.5), "^--warmup: it should be less than 1"),
        (Options(momentum=-0.1), "^--momentum: it should be greater than or equal to 0"),
        (Options(views=0, augmentation="crop"), "^--views: it should be greater than or"),
        (Options(views=2), "^--views 2 repeats augmented views(.|\n)*--augmentation crop"),
        (Options(train_images=0), "^--train-images: it should be greater than 0"),
        (Options(weight_decay=[-1.0]), "^--weight-decays: "),
    ],
)
def test_wrong_options_are_named(options: Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        apply_options(_two_grids(), options)


def test_with_data_sets_only_the_grid_has_the_documented_defaults() -> None:
    options = Options(datasets=["folder:a", "photos"], epochs=2)
    suite = apply_options(options_suite(options), options)
    assert suite.grid == (Grid(dataset="folder:a", epochs=2), Grid(dataset="photos", epochs=2))


def _subset(names: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple)


@given(
    backbones=_subset([b for b in BACKBONES if b != "alexnet"]),
    policies=_subset(list(POLICIES)),
    precisions=_subset(["fp32", "bf16", "fp16", "fp64"]),
    backends=_subset(list(BACKENDS)),
    seeds=st.lists(st.integers(0, 99), min_size=1, unique=True).map(tuple),
)
def test_grid_points_are_the_product_with_backends_side_by_side(
    backbones: tuple[str, ...],
    policies: tuple[str, ...],
    precisions: tuple[str, ...],
    backends: tuple[str, ...],
    seeds: tuple[int, ...],
) -> None:
    data = {
        "name": "p",
        "backends": backends,
        "seeds": seeds,
        "grid": [
            {"dataset": d, "backbones": backbones, "policies": policies, "precision": precisions}
            for d in ("photos", "mnist5k")
        ],
    }
    found = list(grid_points(Suite.model_validate(data)))
    assert len(found) == 2 * len(backbones) * len(policies) * len(precisions) * len(backends) * len(
        seeds
    )
    assert len({(*list(vars(c).values())[:-1], *c.recipe.values()) for c in found}) == len(found)
    for start in range(0, len(found), len(backends)):
        neighbours = found[start : start + len(backends)]
        assert tuple(p.backend for p in neighbours) == backends
        first = neighbours[0]
        assert all(replace(p, backend=first.backend) == first for p in neighbours)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('backbones = "squeezenet1_1"', "backbones of grid 1: it should be a list, in brackets"),
        ("epochs = [1, 2]", "epochs of grid 1: it should be"),
        ("head = 3", "head of grid 1: it should be"),
        ("batch_size = true", "'batch_size' is true or false"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f'name = "s"\n[[grid]]\ndataset = "photos"\n{line}\n')
    with pytest.raises(UserError, match=re.escape(said)):
        load_suite(str(path))
