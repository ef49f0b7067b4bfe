"""Suites: products of lists, from TOML files and from the command line's options."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    create_model,
    field_validator,
)
from pydantic_core import ErrorDetails

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS
from bench.catalog.cases import CASES
from bench.catalog.policies import DEFAULT_POLICIES, POLICIES
from bench.errors import UserError, choose
from bench.network.backbones import check_name, check_px
from bench.network.head import hidden_units
from bench.spec.run import RECIPE_OPTIONS, Mode, Similarity, Size, TuneName

SWEPT = ("learning_rate", "weight_decay")
"""Recipe fields in which the runs of a sweep may differ, beside the seed."""
COMMAND_LINE = "the command line"
BUILT_IN = resources.files("bench.catalog") / "suites"


class Strict(BaseModel):
    """A table of a suite file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_recipe_fields: Any = {
    name: (declared.suite_annotation, declared.suite_default)
    for name, declared in RECIPE_OPTIONS.items()
}
RecipeKeys = create_model("RecipeKeys", __base__=Strict, **_recipe_fields)
"""Keys of a suite that are declared with the fields of ``Recipe``."""


class Grid(RecipeKeys):  # made from the declarations of Recipe
    """One ``[[grid]]``: the product of its lists; a key that is left out has its default."""

    case: int | None = Field(default=None, description="1 to 4.")
    dataset: str = Field(description="'photos', 'mnist5k', 'folder:PATH', 'rvl_cdip[:PATH]'.")
    train_images: int | None = Field(default=None, gt=0, description="All if left out.")
    val_images: int | None = Field(default=None, gt=0, description="All if left out.")
    test_images: int | None = Field(default=None, gt=0, description="All if left out.")
    size: Size | None = Field(default=None, description="Instead of train_images.")
    size_bounds: tuple[int, int] | None = Field(
        default=None, description="Most images that are small, and medium."
    )
    similarity: Similarity | None = Field(default=None, description="Of a user's own data.")
    backbones: tuple[str, ...] = Field(default=("efficientnet_lite0",), min_length=1)
    policies: tuple[str, ...] = Field(default=DEFAULT_POLICIES, min_length=1)
    boundary: str | None = Field(default=None, description="First part that fine_tune_last trains.")
    weights: str = Field(default="pretrained", description="'pretrained', 'random' or a file.")
    tune: TuneName | None = Field(
        default=None, description="'lr': validation chooses the learning rate from a small grid."
    )
    mode: tuple[Mode, ...] = ("matched",)

    @field_validator("mode")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if not value:
            raise ValueError("an empty list means no runs")
        return value

    @field_validator("size_bounds")
    @classmethod
    def _ascending(cls, bounds: tuple[int, int] | None) -> tuple[int, int] | None:
        if bounds is not None and not 0 < bounds[0] < bounds[1]:
            raise ValueError("the bounds of small and medium must ascend from 1")
        return bounds

    def recipe_value(self, name: str) -> Any:
        """Return what the grid says of a recipe field."""
        return getattr(self, name)

    def recipe_values(self, name: str) -> tuple[Any, ...]:
        """Return the values of a recipe field, one or several."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,)

    def recipes(self) -> list[dict[str, Any]]:
        """Return every combination of the values of recipe fields."""
        values = (self.recipe_values(name) for name in RECIPE_OPTIONS)
        return [dict(zip(RECIPE_OPTIONS, each, strict=True)) for each in product(*values)]

    @property
    def is_swept(self) -> bool:
        """True if it lists several learning rates or weight decays."""
        return any(len(self.recipe_values(name)) > 1 for name in SWEPT)


class Suite(Strict):
    """A named list of grids, each run by every backend with every seed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Names its folder.")
    description: str = Field(default="", description="For ``list suites``.")
    backends: tuple[str, ...] = Field(default=DEFAULT_BACKENDS, min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    grid: tuple[Grid, ...] = Field(min_length=1)


RecipeChoices: Any = make_dataclass(
    "RecipeChoices", [(name, Any, None) for name in RECIPE_OPTIONS], frozen=True, kw_only=True
)
"""Values of recipe fields on the command line, None where it says nothing."""


@dataclass(frozen=True, kw_only=True)
class Options(RecipeChoices):  # type: ignore[misc]  # made from the declarations of Recipe
    """What the command line says, None where it says nothing."""

    cases: Sequence[int] | None = None
    datasets: Sequence[str] | None = None
    backbones: Sequence[str] | None = None
    policies: Sequence[str] | None = None
    backends: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    train_images: int | None = None
    mode: Sequence[str] | None = None
    tune: str | None = None


OVERRIDING = (*RECIPE_OPTIONS, "train_images", "mode", "tune")
"""Options that replace the value of every grid."""


@dataclass(frozen=True)
class GridPoint:
    """One combination of a grid, before data, weights and device are looked at."""

    grid: Grid
    backbone: str
    policy: str
    mode: Mode
    backend: str
    seed: int
    recipe: Mapping[str, Any]
    """Recipe field → value; learning_rate is the base rate, None for the optimizer's own."""


def suite_names() -> list[str]:
    """Names of the suites that come with Thawbench."""
    return sorted(
        p.name.removesuffix(".toml") for p in BUILT_IN.iterdir() if p.name[-5:] == ".toml"
    )


def load_suite(name: str) -> Suite:
    """A built-in suite by name, or a file by its path ending in ``.toml``.

    Raises:
        UserError: There is no such suite, or the file is wrong.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise UserError(f"Suite file '{name}' {what}.")
        return _parse(path.read_bytes(), name)
    choose("suite", name, suite_names())
    return _parse((BUILT_IN / f"{name}.toml").read_bytes(), f"{name}.toml")


def _parse(text: bytes, where: str) -> Suite:
    try:
        data = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is not valid TOML: {error}") from error
    suite = _validate(Suite, data, where)
    check_names(suite, where)
    return suite


def _validate(model: type[Suite], data: dict[str, Any], where: str) -> Suite:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = min(error.errors(), key=_how_telling)
        if first["loc"] == ("grid",) and first["type"] != "extra_forbidden":
            raise UserError(
                f"{where}: a suite needs one or more tables [[grid]], with two brackets."
            ) from error
        place = ".".join(str(part) for part in first["loc"])
        if where == COMMAND_LINE:
            names = [p for p in first["loc"] if p in Grid.model_fields or p in Suite.model_fields]
            place = _flag(str(names[-1]))
        if first["type"] == "extra_forbidden":
            table = Grid if first["loc"][0] == "grid" else Suite
            try:
                choose(f"key in {where}", str(first["loc"][-1]), table.model_fields)
            except UserError as known:
                raise known from error
        if first["type"] == "literal_error":
            key = next(str(p) for p in reversed(first["loc"]) if p in Grid.model_fields)
            names = re.findall(r"'([^']*)'", first.get("ctx", {}).get("expected", ""))
            choose(f"{key} in {where}", str(first["input"]), names)
        raise UserError(f"{where}: '{place}': {first['msg']}.") from error


def _flag(key: str) -> str:
    """Return the option of the command line that sets a key of a suite."""
    declared = RECIPE_OPTIONS.get(key)
    return declared.option.flag if declared else f"--{key}".replace("_", "-")


def _how_telling(error: ErrorDetails) -> int:
    """Rank of an error among those of one file; what says most comes first."""
    if error["type"] == "extra_forbidden":
        return 0
    # A value that may be one or a list has an error for each; that of the value itself is meant.
    return 1 if error["type"] == "literal_error" and isinstance(error["input"], str) else 2


def check_names(suite: Suite, where: str) -> None:
    """
    Raises:
        UserError: A name that the catalogue does not know, with the nearest that it does.
    """
    for backend in suite.backends:
        choose(f"backend in {where}", backend, BACKENDS)
    for grid in suite.grid:
        hidden_units(grid.recipe_value("head"))
        if grid.case is not None:
            choose(f"case in {where}", str(grid.case), [str(c) for c in CASES])
        for backbone in grid.backbones:
            check_name(f"backbone in {where}", backbone)
            if backbone in BACKBONES:  # of others the size is known once a worker was asked
                check_px(backbone, BACKBONES[backbone], grid.recipe_value("px"))
        views = grid.recipe_value("views")
        if views is not None and grid.recipe_value("augmentation") == "none":
            raise UserError(
                f"{where}: views = {views} repeats augmented views, but augmentation is "
                "'none': all views would be the same.",
                "Leave out views, or write augmentation = 'crop' or 'crop_flip'.",
            )
        for policy in grid.policies:
            choose(f"policy in {where}", policy, POLICIES)


def options_suite(options: Options) -> Suite:
    """The grid of just the options given, at the defaults of ``Grid``; needs data sets."""
    grids = tuple(Grid(dataset=dataset) for dataset in options.datasets or ())
    return Suite(name="custom", grid=grids)


def apply_options(suite: Suite, options: Options) -> Suite:
    """Narrow or override a suite.

    ``cases`` narrows. ``datasets``, ``backbones`` and ``policies`` narrow where the suite has all
    of the names, and replace every grid's list where it does not. All others override.

    Raises:
        UserError: An unknown name, or nothing is left.
    """
    grids = list(suite.grid)
    if options.cases:
        known = sorted({g.case for g in grids if g.case is not None})
        if not known:
            raise UserError(
                f"--cases narrows a suite to some of its cases, but {suite.name} has none: no grid "
                "says which case it is.",
                "Leave out --cases, write case = 1 to 4 into the grids, or take --suite quick.",
            )
        for case in options.cases:
            choose(f"case in suite {suite.name}", str(case), [str(c) for c in known])
        grids = [g for g in grids if g.case in options.cases]
    grids = _narrow(grids, "backbones", options.backbones)
    grids = _narrow(grids, "policies", options.policies)
    grids = _datasets(grids, options.datasets)
    changes: dict[str, Any] = {
        key: value for key in OVERRIDING if (value := getattr(options, key)) is not None
    }
    lists: dict[str, Any] = {
        key: value for key in ("backends", "seeds") if (value := getattr(options, key)) is not None
    }
    data = {**suite.model_dump(exclude_none=True), **lists}
    data["grid"] = [{**g.model_dump(exclude_none=True), **changes} for g in grids]
    narrowed = _validate(Suite, data, COMMAND_LINE)
    check_names(narrowed, COMMAND_LINE)
    return narrowed


def _narrow(grids: list[Grid], key: str, wanted: Sequence[str] | None) -> list[Grid]:
    """Keep the wanted names of each grid's list and add those that no grid has; grids that are
    left with none go."""
    if wanted is None:
        return grids
    known = {name for grid in grids for name in getattr(grid, key)}
    kept = [
        (grid, tuple(n for n in wanted if n in getattr(grid, key) or n not in known))
        for grid in grids
    ]
    return [grid.model_copy(update={key: names}) for grid, names in kept if names]


def _datasets(grids: list[Grid], wanted: Sequence[str] | None) -> list[Grid]:
    """Keep the grids of wanted data sets, and put each data set that no grid has in place of every
    grid's.

    A path for a kind that the suite has without one (``rvl_cdip:PATH``) keeps the grid as it is;
    another kind is other data, so that case, size and similarity no longer hold.
    """
    if wanted is None:
        return grids
    known = {grid.dataset for grid in grids}
    kept = [grid for grid in grids if grid.dataset in wanted]
    for grid, dataset in product(grids, (name for name in wanted if name not in known)):
        same_kind = dataset.partition(":")[0] == grid.dataset.partition(":")[0]
        change: dict[str, Any] = {"dataset": dataset}
        if not same_kind:
            gone = ("case", "size", "similarity", "size_bounds", "train_images", "val_images")
            change.update(dict.fromkeys((*gone, "test_images")))
        kept.append(grid.model_copy(update=change))
    return list(dict.fromkeys(kept))


def cells(suite: Suite) -> Iterator[GridPoint]:
    """Yield every combination, backends innermost so that rows to compare are run side by side."""
    for grid in suite.grid:
        for backbone, policy, mode, recipe, seed, backend in product(
            grid.backbones, grid.policies, grid.mode, grid.recipes(), suite.seeds, suite.backends
        ):
            yield GridPoint(grid, backbone, policy, mode, backend, seed, recipe)
