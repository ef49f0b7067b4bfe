"""From grid points to runs: sizes, cases, policies, rates, weights, devices, options of ``run``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.catalog.backbones import BACKBONES
from bench.catalog.cases import CASES, SIZE_BOUNDS, size_of
from bench.catalog.policies import POLICIES, TUNE_FACTORS
from bench.cli.options import RunOptions, run_choices
from bench.data import Dataset, SplitSizes
from bench.errors import Unavailable, UserError
from bench.network.weights import Weights, pretrained_weights, published_weights
from bench.runner import devices, planner
from bench.runner.devices import resolve_devices
from bench.runner.planner import PlannedRun, Planner
from bench.runner.suite import Options, Suite, apply_options, options_suite
from bench.spec.run import Environment, WeightsRef
from bench.system.gpu import Gpu
from bench.workers.process import Interpreters
from tests.unit.conftest import Cli

WHOLE = 20_000


@dataclass
class _Fakes:
    """Stands for data, weights and installed packages."""

    dataset: dict[str, Any] = field(default_factory=dict)
    opened: list[SplitSizes] = field(default_factory=list)
    packages: tuple[str, ...] = ("torch", "torchvision", "keras", "tensorflow", "numpy")
    weights_missing: str | None = None
    downloads: list[bool] = field(default_factory=list)
    skipped: tuple[str, ...] = ()

    def open(self, name: str, sizes: SplitSizes, **_: Any) -> Dataset:
        self.opened.append(sizes)
        fields: dict[str, Any] = {
            "name": name,
            "content_hash": f"{sizes}",
            "classes": ("a", "b"),
            "train_images": sizes.train or WHOLE,
            "val_images": sizes.val or 50,
            "test_images": sizes.test or 60,
            "similarity": None,
            "size_bounds": None,
            "source": None,
            "skipped": self.skipped,
        }
        return Dataset(**{**fields, **self.dataset})

    def pretrained(self, name: str, entry: Any, download: bool) -> Weights:
        self.downloads.append(download)
        if self.weights_missing is not None:
            raise Unavailable(self.weights_missing)
        ref = WeightsRef(kind="pretrained", source=entry.sources[0].distribution, sha256="aa")
        return Weights(ref, entry.preprocessing, Path("weights.pth"))

    def environment(self, backend: str, device: str, python: Path) -> Environment:
        return Environment(
            backend=backend,
            python="3",
            packages=dict.fromkeys(self.packages, "1"),
            thawbench="0",
            system="s",
            processor="p",
            cores=1,
            device=device,
            device_model="p",
            driver=None,
            variables={},
        )


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> _Fakes:
    fakes = _Fakes()
    monkeypatch.setattr(planner, "open_dataset", fakes.open)
    monkeypatch.setattr(planner, "pretrained_weights", fakes.pretrained)
    monkeypatch.setattr(planner, "environment_of", fakes.environment)
    monkeypatch.setattr(devices, "gpus", lambda: ())
    return fakes


def _plan(*grids: dict[str, Any], backends: tuple[str, ...] = ("torch",), **more: Any) -> Any:
    suite = Suite.model_validate(
        {"name": "t", "backends": backends, "grid": [{"dataset": "folder:x", **g} for g in grids]}
    )
    return Planner(Interpreters({}), cache=Path("unused"), **more).plan(suite)


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--optimizer sgd", "optimizer", "sgd"),
        ("--augmentation crop", "augmentation", "crop"),
        ("--schedule constant", "schedule", "constant"),
        ("--optimizer sgd --momentum 0.5", "momentum", 0.5),
        ("--warmup 0.25", "warmup_fraction", 0.25),
        ("--augmentation crop_flip --views 3", "views", 3),
        ("--weight-decays 0.5", "weight_decay", 0.5),
        ("--prefix-cache off", "prefix_cache", "off"),
        ("--train-images 40", "train_images", 40),
    ],
)
def test_an_option_of_run_reaches_the_specs(
    fakes: _Fakes,
    here: Cli,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    field: str,
    value: object,
) -> None:
    given: list[Options] = []

    def run_command(options: RunOptions) -> bool:
        given.append(run_choices(options.shared))
        return True

    monkeypatch.setattr("bench.cli.run.run_command", run_command)
    done = here("run", "--datasets", "folder:x", "--policies", "freeze_all", *option.split())
    assert done.returncode == 0, done.stderr
    (options,) = given
    suite = apply_options(options_suite(options), options)
    specs = [run.spec for run in Planner(Interpreters({}), cache=Path("unused")).plan(suite)]
    assert len(specs) == 2, "one for each default backend"
    for spec in specs:
        values = {**vars(spec.recipe), "train_images": spec.case.dataset.train_images}
        assert values[field] == value


def _one(policy: str = "freeze_all", download: bool = True, **grid: Any) -> PlannedRun:
    (run,) = _plan({"policies": [policy], **grid}, download=download)
    planned: PlannedRun = run
    return planned


def test_an_edited_entry_of_the_catalogue_is_another_run(
    fakes: _Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = _one(backbones=["vgg16"]).spec
    entry = BACKBONES["vgg16"]
    (first, paths), *others = entry.stages
    moved = ((first, paths[:-1]), (others[0][0], (paths[-1], *others[0][1])), *others[1:])
    monkeypatch.setitem(BACKBONES, "vgg16", entry.model_copy(update={"stages": moved}))
    edited = _one(backbones=["vgg16"]).spec
    assert edited.network_digest != usual.network_digest
    assert edited.run_id != usual.run_id
    assert edited.weights == usual.weights


def test_a_run_without_weights_is_planned_as_the_one_with_them(
    monkeypatch: pytest.MonkeyPatch, fakes: _Fakes, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(planner, "pretrained_weights", pretrained_weights)
    absent = _one(backbones=["alexnet"], download=False)
    assert absent.unavailable is not None
    assert absent.spec.weights == published_weights(BACKBONES["alexnet"]).recorded


@given(images=st.integers(1, 10**6), bounds=st.tuples(st.integers(1, 10**5), st.integers(1, 10**5)))
def test_the_articles_word_for_a_size(images: int, bounds: tuple[int, int]) -> None:
    small, medium = sorted(bounds)
    expected = "small" if images <= small else "medium" if images <= medium else "large"
    assert size_of(images, (small, medium)) == expected


def test_the_bounds_of_the_design() -> None:
    assert SIZE_BOUNDS == (1_000, 10_000)
    assert [size_of(n) for n in (1, 1000, 1001, 10_000, 10_001)] == [
        "small", "small", "medium", "medium", "large",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("grid", "images", "size"),
    [
        ({}, WHOLE, "large"),
        ({"train_images": 1000}, 1000, "small"),
        ({"train_images": 1001}, 1001, "medium"),
        ({"size": "small"}, 1000, "small"),
        ({"size": "medium"}, 10_000, "medium"),
        ({"size": "large"}, WHOLE, "large"),
        ({"size": "small", "size_bounds": (7, 90)}, 7, "small"),
        ({"size": "medium", "size_bounds": (7, 90)}, 90, "medium"),
        ({"train_images": 91, "size_bounds": (7, 90)}, 91, "large"),
        ({"size": "medium", "train_images": 4000}, 4000, "medium"),
    ],
)
def test_size_words_and_numbers_of_images(
    fakes: _Fakes, grid: dict[str, Any], images: int, size: str
) -> None:
    case = _one(**grid).spec.case
    assert (case.dataset.train_images, case.size) == (images, size)


def test_a_size_follows_the_data_sets_own_bounds_and_the_grids_before_them(fakes: _Fakes) -> None:
    fakes.dataset = {"size_bounds": (300, 900)}
    assert _one(size="small").spec.case.dataset.train_images == 300
    assert _one(size="small", size_bounds=(5, 9)).spec.case.dataset.train_images == 5


def test_sizes_of_all_splits_are_asked_for(fakes: _Fakes) -> None:
    _one(train_images=11, val_images=12, test_images=13)
    assert fakes.opened == [SplitSizes(11, 12, 13)]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"size": "small", "train_images": 5000}, "size is given as small, but 5000"),
        ({"size": "large", "train_images": 5000}, "size is given as large, but 5000"),
        ({"case": 1, "train_images": 5000}, "Case 1 is about small data, but 5000 .* medium"),
        ({"case": 2, "train_images": 10}, "Case 2 is about large data"),
        ({"case": 1, "train_images": 9, "similarity": "not_similar"}, "Case 1 .* similar"),
        ({"case": 4, "similarity": "similar"}, "Case 4 is about data not similar"),
    ],
)
def test_a_case_that_its_data_are_not_is_refused(
    fakes: _Fakes, grid: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        _one(**grid)
    assert error.value.hint


@pytest.mark.parametrize("number", list(CASES))
def test_a_case_may_be_named_for_data_of_unknown_similarity(fakes: _Fakes, number: int) -> None:
    size, similarity = CASES[number]
    assert _one(case=number, size=size).spec.case.similarity is None
    assert _one(case=number, size=size, similarity=similarity).spec.case.number == number


def test_a_boundary_is_for_fine_tune_last_only(fakes: _Fakes) -> None:
    for name, policy in POLICIES.items():
        planned = _one(name, boundary="features.28").spec.policy
        wanted = "features.28" if name == "fine_tune_last" else policy.boundary
        assert planned == policy.model_copy(update={"boundary": wanted})


@pytest.mark.parametrize(
    ("optimizer", "rates"),
    [
        ("sgd", dict.fromkeys(POLICIES, 0.02)),
        ("adamw", {"freeze_all": 0.01, "fine_tune_last": 0.01, "fine_tune_all": 0.003,
                   "discriminative_lr": 0.003, "linear_probe_then_fine_tune": 0.003,
                   "gradual_unfreeze": 0.003, "retrain_all": 0.001, "from_scratch": 0.001}),
    ],
)  # fmt: skip
def test_each_policy_has_its_own_default_rate_and_takes_a_given_one_as_it_is(
    fakes: _Fakes, optimizer: str, rates: dict[str, float]
) -> None:
    for name, expected in rates.items():
        rate = _one(name, optimizer=optimizer).spec.recipe.learning_rate
        assert rate == pytest.approx(expected)
        given = _one(name, optimizer=optimizer, learning_rate=0.3).spec.recipe.learning_rate
        assert given == pytest.approx(0.3)


def test_tuned_runs_have_a_grid_around_the_policys_rate(fakes: _Fakes) -> None:
    for name in POLICIES:
        rate = _one(name).spec.recipe.learning_rate
        grid = _one(name, tune="lr").spec.recipe.learning_rate_grid
        assert grid == pytest.approx([rate * factor for factor in TUNE_FACTORS])
        assert _one(name).spec.recipe.learning_rate_grid == ()
    with pytest.raises(UserError, match="tune = 'lr' works in matched mode only"):
        _one("freeze_all", tune="lr", mode=("native",))


def test_a_prefix_cache_without_effect_makes_no_other_run(fakes: _Fakes) -> None:
    """'off' changes nothing if nothing is frozen."""
    for name, policy in POLICIES.items():
        kept = _one(name, prefix_cache="off").spec.recipe.prefix_cache
        assert kept == ("off" if policy.boundary != "all" or policy.phases else "auto")
        assert _one(name, views=3, augmentation="crop").spec.recipe.views == 3


@pytest.mark.parametrize("name", [n for n, p in POLICIES.items() if p.phases])
def test_a_policy_in_phases_needs_epochs_for_them_and_matched_mode(
    fakes: _Fakes, name: str
) -> None:
    assert _one(name, epochs=2).unavailable is None
    with pytest.raises(UserError, match=f"Policy {name} needs 2 epochs or more"):
        _one(name, epochs=1)
    native = _one(name, epochs=2, mode=("native",), weights="random", backbones=["resnet50"])
    assert native.unavailable == f"native mode has no stages for {name}; use --mode matched"


def test_fine_tuning_everything_is_gentler_than_retraining(fakes: _Fakes) -> None:
    gentle, new = POLICIES["fine_tune_all"], POLICIES["retrain_all"]
    backbone_rate, full_rate = (p.learning_rate_scale * p.backbone_scale for p in (gentle, new))
    assert backbone_rate <= full_rate / 10
    assert gentle.backbone_scale < 1, "early stages are gentler than the head"
    scratch = POLICIES["from_scratch"]
    assert scratch.initialisation == "random"
    same = {"name": new.name, "initialisation": new.initialisation}
    assert scratch.model_copy(update=same) == new


@pytest.mark.parametrize("choice", ["pretrained", "random", "w.pth"])
def test_from_scratch_is_always_random(fakes: _Fakes, choice: str) -> None:
    (run,) = _plan({"policies": ["from_scratch"]}, weights_choices={"": choice})
    assert run.spec.weights.kind == "random"


def test_the_command_lines_weights_come_before_the_grids(fakes: _Fakes, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"x")
    grid = {"policies": ["freeze_all"], "backbones": ["vgg16", "vgg19"], "weights": "random"}
    kinds = [r.spec.weights.kind for r in _plan(grid)]
    assert kinds == ["random", "random"]
    runs = _plan(grid, weights_choices={"": "pretrained", "vgg19": str(file)})
    assert [r.spec.weights.kind for r in runs] == ["pretrained", "file"]
    assert str(tmp_path) not in runs[1].spec.model_dump_json()
    with pytest.raises(UserError, match="does not exist"):
        _plan(grid, weights_choices={"vgg16": str(tmp_path / "absent.pth")})


@pytest.mark.parametrize("download", [True, False])
def test_weights_are_fetched_only_where_that_is_wanted(fakes: _Fakes, download: bool) -> None:
    _plan({"policies": ["freeze_all"], "backbones": ["vgg16", "vgg19"]}, download=download)
    assert fakes.downloads == [download, download]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("randm", "Unknown weights 'randm'. Did you mean 'random'?"),
        ("pretrain", "Unknown weights 'pretrain'. Did you mean 'pretrained'?"),
        ("", "Unknown weights ''."),
    ],
)
def test_a_word_for_weights_that_is_none_gets_the_nearest(
    fakes: _Fakes, choice: str, message: str
) -> None:
    for choices in ({"": choice}, {"efficientnet_lite0": choice}):
        with pytest.raises(UserError) as error:
            _plan({"policies": ["freeze_all"]}, weights_choices=choices)
        assert message in str(error.value)
    with pytest.raises(UserError) as error:
        _one(weights=choice)
    assert message in str(error.value)


@pytest.mark.parametrize("choice", ["randm.pth", "./randm", "~/randm", "folder/randm"])
def test_what_looks_like_a_path_is_one(fakes: _Fakes, choice: str) -> None:
    with pytest.raises(UserError, match="does not exist"):
        _one(weights=choice)


def test_each_image_that_is_left_out_is_listed_once(fakes: _Fakes) -> None:
    fakes.skipped = ("a.png: broken", "b.png: empty")
    grids = [{"policies": ["freeze_all"], "train_images": n} for n in (10, 20)]
    suite = Suite.model_validate(
        {"name": "t", "backends": ["torch"], "grid": [{"dataset": "folder:x", **g} for g in grids]}
    )
    made = Planner(Interpreters({}), cache=Path("unused"))
    assert len(made.plan(suite)) == 2
    assert made.skipped() == ["a.png: broken", "b.png: empty"]


def test_weights_that_cannot_be_had_are_a_row_that_says_how_to_get_them(fakes: _Fakes) -> None:
    fakes.weights_missing = "no weights; pip install them"
    fine, scratch = _plan({"policies": ["freeze_all", "from_scratch"]})
    assert (fine.unavailable, fine.weights) == ("no weights; pip install them", None)
    assert fine.spec.weights.kind == "pretrained"
    assert scratch.unavailable is None


def test_a_run_is_the_same_run_before_and_after_its_weights_came(
    monkeypatch: pytest.MonkeyPatch, fakes: _Fakes, tmp_path: Path
) -> None:
    from bench.catalog.backbones import BACKBONES
    from bench.network import weights

    fakes.weights_missing = "none"
    before = _one(backbones=["vgg16"]).spec.run_id
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "checked_file", lambda path, digest: path)
    monkeypatch.setattr(planner, "pretrained_weights", weights.pretrained_weights)
    file = tmp_path / "hub" / "checkpoints" / BACKBONES["vgg16"].sources[0].location.split("/")[-1]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert _one(backbones=["vgg16"]).spec.run_id == before


def test_a_missing_package_is_a_row_that_says_what_to_install(fakes: _Fakes) -> None:
    fakes.packages = ("torch", "torchvision", "numpy")
    torch, keras = _plan({"policies": ["freeze_all"]}, backends=("torch", "keras-tensorflow"))
    assert torch.unavailable is None
    assert keras.unavailable == (
        "keras-tensorflow needs keras and tensorflow, not installed here: "
        "pip install keras tensorflow"
    )


def test_runs_that_are_the_same_are_planned_once(fakes: _Fakes) -> None:
    grid = {"policies": ["freeze_all"], "train_images": 10}
    assert len(_plan(grid, grid, {**grid, "epochs": 3})) == 2


def test_each_device_is_a_run(fakes: _Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: (Gpu("A", "1", 1), Gpu("B", "1", 1)))
    runs = _plan({"policies": ["freeze_all"]}, device="all")
    assert [r.spec.device for r in runs] == ["cpu", "cuda:0", "cuda:1"]
    assert len({r.spec.run_id for r in runs}) == 3
    assert [r.environment.device for r in runs] == ["cpu", "cuda:0", "cuda:1"]


GPU = Gpu("A", "1", 1)


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        (0, "auto", ["cpu"]),
        (2, "auto", ["cuda:0"]),
        (0, "all", ["cpu"]),
        (2, "all", ["cpu", "cuda:0", "cuda:1"]),
        (2, "cpu", ["cpu"]),
        (2, "cuda:1", ["cuda:1"]),
        (1, "cuda", ["cuda:0"]),
    ],
)
def test_devices(
    monkeypatch: pytest.MonkeyPatch, there: int, asked: str, expected: list[str]
) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: (GPU,) * there)
    monkeypatch.setattr(devices, "has_signs_of_a_gpu", lambda: False)
    assert resolve_devices(asked, Interpreters({})) == (expected, None)


@pytest.mark.parametrize("asked", ["gpu", "cuda:2", "cuda:x", "", "CPU"])
def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: (GPU, replace(GPU, name="B")))
    with pytest.raises(UserError, match=f"Unknown device '{asked}'"):
        resolve_devices(asked, Interpreters({}))
