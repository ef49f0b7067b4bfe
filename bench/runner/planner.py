"""Turn the grid points of a suite into runs: open data, find weights, resolve devices."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from bench.catalog.backends import BACKENDS
from bench.catalog.cases import CASES, SIZE_BOUNDS, size_of
from bench.catalog.policies import TUNE_FACTORS, default_rate, policy_of
from bench.data import Dataset, FileRules, SplitSizes, has_path, open_dataset
from bench.data.image_files import first_of
from bench.errors import Unavailable, UserError, choose, in_a_list
from bench.native.applications import Application, application_of, is_keras, why_not_native
from bench.native.weights import native_ref, native_weights, native_weights_from_file
from bench.network.backbones import backbone, backbones, check_px, public_name
from bench.network.blueprint import HEAD
from bench.network.phases import check_epochs, needs_stages
from bench.network.weights import (
    Weights,
    pretrained_weights,
    published_weights,
    random_weights,
    weights_from_file,
)
from bench.runner.devices import resolve_devices
from bench.runner.suite import Grid, GridPoint, Suite, grid_points
from bench.spec.backbone import BackboneEntry
from bench.spec.run import (
    Case,
    DatasetRef,
    Environment,
    Initialisation,
    Policy,
    Recipe,
    RunSpec,
    why_not_on_a_cpu,
)
from bench.storage.cache import cache_root
from bench.system.gpu import has_gpu
from bench.training.sweep import may_sweep
from bench.workers.process import Interpreters, environment_of, install_command

WEIGHTS = get_args(Initialisation)
"""Values of ``--weights`` that are not files."""
CLASSES_NAMED = 12
"""Classes of a data set that are printed before the runs."""


@dataclass(frozen=True)
class PlannedRun:
    """A run that can be started, or the reason why it cannot."""

    spec: RunSpec
    environment: Environment
    backbone: str
    """Name of the backbone as given, with the folder of a user's own file."""
    dataset: Dataset
    weights: Weights | None
    """Initial weights of the backbone; None if they are not available."""
    unavailable: str | None = None
    """Reason why it cannot run, and what mends that; None if it can."""
    given_dataset: str = ""
    """Name of the data set as given, with its path; empty if no name opens these images."""
    given_weights: str | None = None
    """Path of the file of weights as given; None: no file."""

    @property
    def key(self) -> tuple[str, str]:
        """Ids of the run and of its environment."""
        return self.spec.run_id, self.environment.environment_id


@dataclass
class Planner:
    """Plans suites; looks each data set and weights file up once."""

    interpreters: Interpreters
    weights_choices: dict[str, str] = field(default_factory=dict)
    """Backbone, or '' for all → 'pretrained', 'random' or a path, from the command line."""
    device: str = "auto"
    """auto, cpu, cuda:N or all."""
    file_rules: FileRules = field(default_factory=FileRules)
    """What to do with files of a data set that are not as expected."""
    download: bool = True
    """True to fetch missing weights over the network."""
    cache: Path = field(default_factory=cache_root)
    folds: int | None = None
    """Number of folds of a cross-validation; None: one split."""
    opened: dict[str, Dataset] = field(default_factory=dict)
    """Data sets that are open already, by the names that grids give them."""

    _device_remark: str | None = None
    _own_networks: dict[str, BackboneEntry] = field(default_factory=dict)
    _datasets: dict[tuple[str, SplitSizes, tuple[int, int] | None], Dataset] = field(
        default_factory=dict
    )
    _weights: dict[tuple[str, str], tuple[Weights | None, str | None]] = field(default_factory=dict)

    def plan(self, suite: Suite) -> list[PlannedRun]:
        """Return all runs of a suite, without repetitions.

        Raises:
            UserError: Data, weights, device or network are unknown, or do not fit.
            Unavailable: The package of an embedded data set is not installed.
        """
        used = {name for grid in suite.grid for name in grid.backbones}
        if unused := sorted(self.weights_choices.keys() - {"", *used}):
            message = f"--weights {unused[0]}=…: no run uses {unused[0]}."
            raise UserError(message, f"The backbones of these runs are {', '.join(sorted(used))}.")
        entries = backbones(sorted(used), self.interpreters, self.cache)
        self._own_networks.update({name: e for name, e in entries.items() if e.code is not None})
        for grid in suite.grid:
            for name in grid.backbones:
                check_px(name, entries[name], grid.recipe_value("px"))
        devices, self._device_remark = resolve_devices(self.device, self.interpreters)
        runs: dict[tuple[str, str], PlannedRun] = {}
        folds: list[tuple[int, int] | None] = [None]
        if self.folds is not None:
            folds = [(number, self.folds) for number in range(1, self.folds + 1)]
        for point in grid_points(suite):
            for fold in folds:
                case, dataset = self._case(point.grid, fold)
                for device in devices:
                    run = self._plan_point(point, case, dataset, device)
                    runs.setdefault(run.key, run)
        return list(runs.values())

    def _plan_point(
        self, point: GridPoint, case: Case, dataset: Dataset, device: str
    ) -> PlannedRun:
        policy = policy_of(point.policy, point.grid.boundary)
        check_epochs(policy, point.recipe["epochs"])
        entry = self._entry(point.backbone)
        found, reason = self._find_weights(point, policy)
        environment = environment_of(point.backend, device, self.interpreters)
        spec = RunSpec(
            case=case,
            backbone=public_name(point.backbone),
            code_sha256=None if entry.code is None else entry.code.sha256,
            network_digest=entry.digest,
            weights=(found or _pretrained(point, entry)).recorded,
            policy=policy,
            recipe=_recipe(point, policy),
            mode=point.mode,
            backend=point.backend,
            device=device,
            seed=point.seed,
        )
        if point.mode == "native":
            head, px = point.recipe["head"], point.recipe["px"]
            reason = why_not_native(point.backend, point.backbone, head, px) or reason
            if needs_stages(policy):
                reason = f"native mode has no stages for {policy.name}; use --mode matched"
        if device == "cpu":
            reason = why_not_on_a_cpu(spec.recipe.precision) or reason
        reason = missing_packages(environment) or reason
        path = self._weights_choice(point, policy) if spec.weights.kind == "file" else None
        given = "" if point.grid.dataset in self.opened else point.grid.dataset
        return PlannedRun(spec, environment, point.backbone, dataset, found, reason, given, path)

    def skipped(self) -> list[str]:
        """Return the unreadable images that were left out, each with its reason."""
        return list(dict.fromkeys(s for d in self._datasets.values() for s in d.skipped))

    def remarks(self) -> list[str]:
        """Return sentences on a GPU that is not used; on the data sets: what was left out or taken
        otherwise than usual, and the classes of a user's own data in the order of their labels; and
        on a user's own networks: what is taken for the classifier."""
        said = [self._device_remark] if self._device_remark else []
        said += [f"{d.name}: {r}" for d in self._datasets.values() for r in d.remarks]
        said += [
            f"{d.name}: {len(d.classes):,} classes, label 0 to {len(d.classes) - 1}: "
            f"{first_of([*map(in_a_list, d.classes)], CLASSES_NAMED)}"
            for d in self._datasets.values()
            if has_path(d.name)
        ]
        for name, entry in self._own_networks.items():
            paths = ", ".join(dict(entry.stages)[HEAD])
            what = "no classifier was found; the head is put behind the whole network"
            if paths:
                what = f"a new head takes the place of {paths}"
            said.append(f"{public_name(name)}: {what}")
        return list(dict.fromkeys(said))

    def _case(self, grid: Grid, fold: tuple[int, int] | None) -> tuple[Case, Dataset]:
        train = grid.train_images
        if grid.size is not None and train is None:
            whole = self._open(grid, None, fold)
            small, medium = grid.size_bounds or whole.size_bounds or SIZE_BOUNDS
            most = {"small": small, "medium": medium, "large": whole.train_images}[grid.size]
            train = min(most, whole.train_images)
        dataset = self._open(grid, train, fold)
        ref = DatasetRef(**{name: getattr(dataset, name) for name in DatasetRef.model_fields})
        bounds = grid.size_bounds or dataset.size_bounds or SIZE_BOUNDS
        similarity = grid.similarity or dataset.similarity
        size = size_of(dataset.train_images, bounds)
        case = Case(number=grid.case, dataset=ref, size=size, similarity=similarity)
        _check_case(case, grid, bounds)
        return case, dataset

    def _open(self, grid: Grid, train: int | None, fold: tuple[int, int] | None) -> Dataset:
        """Open the data of a grid with this number of training images (None: all), and as one fold
        of a cross-validation."""
        if grid.dataset in self.opened:
            return self.opened[grid.dataset]
        sizes = SplitSizes(train=train, val=grid.val_images, test=grid.test_images)
        key = (grid.dataset, sizes, fold)
        if key not in self._datasets:
            rules = replace(self.file_rules, fold=fold)
            self._datasets[key] = open_dataset(
                grid.dataset, sizes, cache_dir=self.cache, rules=rules
            )
        return self._datasets[key]

    def _find_weights(self, point: GridPoint, policy: Policy) -> tuple[Weights | None, str | None]:
        """Return the weights of a grid point, or None and the reason why there are none."""
        choice = self._weights_choice(point, policy)
        if choice not in WEIGHTS and not any(sign in choice for sign in "./~"):
            choose("weights", choice, WEIGHTS)
        application, px = _application(point), point.recipe["px"]
        key = (point.backbone, choice if application is None else f"native {px} {choice}")
        if key not in self._weights:
            try:
                self._weights[key] = self._load_weights(point, choice, application), None
            except Unavailable as error:
                self._weights[key] = None, str(error)
        return self._weights[key]

    def _weights_choice(self, point: GridPoint, policy: Policy) -> str:
        """Return pretrained, random or the path of a file."""
        if policy.initialisation == "random":
            return "random"
        everywhere = self.weights_choices.get("", point.grid.weights)
        return self.weights_choices.get(point.backbone, everywhere)

    def _load_weights(
        self, point: GridPoint, choice: str, application: Application | None
    ) -> Weights:
        name, entry = point.backbone, self._entry(point.backbone)
        if choice == "random":
            return random_weights(entry)
        if application is None:
            if choice == "pretrained":
                return pretrained_weights(name, entry, self.download)
            return weights_from_file(entry, Path(os.path.expanduser(choice)))
        if choice == "pretrained":
            return native_weights(name, application, entry, point.recipe["px"], self.download)
        return native_weights_from_file(entry, Path(os.path.expanduser(choice)))

    def _entry(self, name: str) -> BackboneEntry:
        return backbone(name, self.interpreters, self.cache)


def _check_case(case: Case, grid: Grid, bounds: tuple[int, int]) -> None:
    """Raise UserError if the grid states a case or size that does not match its data."""
    images, size = case.dataset.train_images, case.size
    found = f"{images} training images are {size} (bounds {bounds[0]} and {bounds[1]})"
    hint = "Change train_images or case, or set size_bounds in the grid."
    if grid.size is not None and grid.size != size:
        raise UserError(f"{case.dataset.name}: size is given as {grid.size}, but {found}.", hint)
    if case.number is None:
        return
    wanted_size, wanted_similarity = CASES[case.number]
    if wanted_size != size:
        raise UserError(f"Case {case.number} is about {wanted_size} data, but {found}.", hint)
    if case.similarity is not None and case.similarity != wanted_similarity:
        raise UserError(
            f"Case {case.number} is about data {wanted_similarity.replace('_', ' ')} to ImageNet, "
            f"but {case.dataset.name} is {case.similarity.replace('_', ' ')}.",
            "Change case, or similarity in the grid.",
        )


def _application(point: GridPoint) -> Application | None:
    """Return the class of ``keras.applications`` that a grid point runs, if it runs one."""
    if point.mode == "native" and is_keras(point.backend):
        return application_of(point.backbone)
    return None


def _pretrained(point: GridPoint, entry: BackboneEntry) -> Weights:
    """Return the weights that a grid point would have if they were available."""
    application = _application(point)
    if application is None:
        return published_weights(entry)
    return Weights(native_ref(application, point.recipe["px"]), entry.preprocessing)


def _recipe(point: GridPoint, policy: Policy) -> Recipe:
    grid, freezes = point.grid, policy.boundary != "all" or bool(policy.phases)
    values = dict(point.recipe)
    given = values["learning_rate"]
    rate = default_rate(policy.name, values["optimizer"]) if given is None else given
    values["learning_rate"] = rate = rate * policy.learning_rate_scale
    if not freezes or point.mode == "native":
        # 'off' changes nothing if nothing is frozen, or the framework's own loop runs.
        values["prefix_cache"] = "auto"
    if grid.tune and point.mode == "native":
        raise UserError(
            "tune = 'lr' works in matched mode only: native loops cannot go back to their start.",
            "Leave out --tune, or --mode native.",
        )
    tuned = tuple(rate * factor for factor in TUNE_FACTORS) if grid.tune else ()
    recipe = Recipe(**values, learning_rate_grid=tuned)
    is_compiled = BACKENDS[point.backend].always_compiled
    if is_compiled:
        # Where nothing runs uncompiled, 'plain' would be another word for the same run.
        recipe = recipe.model_copy(update={"compile": "plain"})
    sweep = grid.is_swept and may_sweep(policy.boundary, recipe, point.mode)
    compiled = {"compile": "compiled"} if is_compiled else {}
    return recipe.model_copy(update={"sweep": sweep, **compiled})


def missing_packages(environment: Environment) -> str | None:
    """Return which packages a backend lacks in an environment, and how to install them."""
    needs = BACKENDS[environment.backend].packages
    missing = [name for name in needs if name not in environment.packages]
    if not missing:
        return None
    names = " and ".join(missing)
    install = f"pip install {' '.join(missing)}"
    if has_gpu():  # what a package index gives by default may lack CUDA
        install = install_command(environment.backend, Interpreters({}))
    return f"{environment.backend} needs {names}, not installed here: {install}"
