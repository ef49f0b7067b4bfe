"""Suites: grids of runs, from TOML files and from the options of the command line."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

from pydantic import Field, ValidationError, create_model, field_validator
from pydantic_core import ErrorDetails

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS
from bench.catalog.cases import CASES
from bench.catalog.policies import DEFAULT_POLICIES, POLICIES
from bench.errors import UserError, check_is_file, choose, first_line
from bench.network.backbones import check_name, check_px
from bench.network.head import hidden_units
from bench.spec.base import Frozen
from bench.spec.run import RECIPE_OPTIONS, Mode, Similarity, Size, TuneName
from bench.storage.regular_files import decoded, read_regular

COMMAND_LINE = "the command line"
"""Stands for the file name in messages about options."""
MOST_LETTERS = 60
"""Letters of a wrong value that a message repeats."""
MOST_IMAGES = 1_000_000_000
BUILT_IN = resources.files("bench.catalog") / "suites"
_recipe_fields: Any = {
    name: (declared.suite_annotation, declared.suite_default)
    for name, declared in RECIPE_OPTIONS.items()
}
RecipeKeys = create_model("RecipeKeys", __base__=Frozen, **_recipe_fields)
"""Keys of a grid that are declared with the fields of ``Recipe``."""


class Grid(RecipeKeys):  # made from the declarations of Recipe
    """One ``[[grid]]``: the product of its lists. Keys that are left out have their defaults."""

    case: int | None = Field(default=None, description="Case of the article, 1 to 4.")
    dataset: str = Field(
        description="'photos', 'mnist5k', 'debian:NAME', 'folder:PATH' or 'rvl_cdip[:PATH]'."
    )
    train_images: int | None = Field(
        default=None, gt=0, le=MOST_IMAGES, description="Training images; null: all."
    )
    val_images: int | None = Field(
        default=None, gt=0, le=MOST_IMAGES, description="Validation images; null: all."
    )
    test_images: int | None = Field(
        default=None, gt=0, le=MOST_IMAGES, description="Test images; null: all."
    )
    size: Size | None = Field(default=None, description="Instead of train_images.")
    size_bounds: tuple[int, int] | None = Field(
        default=None, description="Largest number of images of a small and of a medium split."
    )
    similarity: Similarity | None = Field(default=None, description="To the pretraining data.")
    backbones: tuple[str, ...] = Field(default=("efficientnet_lite0",), min_length=1)
    policies: tuple[str, ...] = Field(default=DEFAULT_POLICIES, min_length=1)
    boundary: str | None = Field(default=None, description="First part that fine_tune_last trains.")
    weights: str = Field(default="pretrained", description="'pretrained', 'random' or a file.")
    tune: TuneName | None = Field(default=None, description="'lr': validation chooses the rate.")
    mode: tuple[Mode, ...] = Field(default=("matched",), min_length=1)

    @field_validator("size_bounds")
    @classmethod
    def _ascending(cls, bounds: tuple[int, int] | None) -> tuple[int, int] | None:
        if bounds is not None and not 0 < bounds[0] < bounds[1] <= MOST_IMAGES:
            raise ValueError(
                f"the bounds of small and medium must ascend from 1 to at most {MOST_IMAGES:,}"
            )
        return bounds

    def recipe_value(self, name: str) -> Any:
        """Return the value or values of a recipe field."""
        return getattr(self, name)

    def recipe_values(self, name: str) -> tuple[Any, ...]:
        """Return the values of a recipe field as a tuple."""
        value = self.recipe_value(name)
        return value if isinstance(value, tuple) else (value,)

    def recipes(self) -> list[dict[str, Any]]:
        """Return every combination of the values of recipe fields."""
        values = (self.recipe_values(name) for name in RECIPE_OPTIONS)
        return [dict(zip(RECIPE_OPTIONS, each, strict=True)) for each in product(*values)]

    @property
    def is_swept(self) -> bool:
        """True if the grid lists several values of a field in which the runs of a sweep differ."""
        return any(len(self.recipe_values(name)) > 1 for name in ("learning_rate", "weight_decay"))


class Suite(Frozen):
    """A named list of grids, each run by every backend with every seed."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=100,
        description="Name, also of the results folder.",
    )
    description: str = Field(default="", description="Sentence for ``list suites``.")
    backends: tuple[str, ...] = Field(default=DEFAULT_BACKENDS, min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    grid: tuple[Grid, ...] = Field(min_length=1)


OVERRIDING = (*RECIPE_OPTIONS, "train_images", "mode", "tune")
"""Options that replace the value of every grid."""
Options = dict[str, Any]
"""Options of the command line that change a suite: cases, datasets, backbones, policies, backends,
seeds, or one of ``OVERRIDING`` → the given value or list; None: not given."""
ABOUT_DATA = (
    "case", "size", "similarity", "size_bounds", "train_images", "val_images", "test_images"
)  # fmt: skip
"""Keys of a grid that hold for its data set only."""


@dataclass(frozen=True)
class GridPoint:
    """One combination of a grid's values, before data, weights and device are looked up."""

    grid: Grid
    backbone: str
    policy: str
    mode: Mode
    backend: str
    seed: int
    recipe: Mapping[str, Any]
    """Recipe field → value; learning_rate is None for the policy's default."""


def suite_names() -> list[str]:
    """Return the names of the built-in suites."""
    return sorted(p.name[:-5] for p in BUILT_IN.iterdir() if p.name.endswith(".toml"))


def load_suite(name: str) -> Suite:
    """Load a built-in suite by its name, or a file by its path, which ends in ``.toml``; raise
    UserError if there is none, or the file is wrong."""
    if name.endswith(".toml"):
        path = Path(name)
        check_is_file(f"Suite file '{name}'", path)
        try:
            return _parse(read_regular(path), name)
        except OSError as error:
            raise UserError(f"Suite file '{name}' cannot be read: {error.strerror}.") from error
    choose("suite", name, suite_names())
    return _parse((BUILT_IN / f"{name}.toml").read_bytes(), f"{name}.toml")


def _parse(text: bytes, where: str) -> Suite:
    try:
        data = tomllib.loads(decoded(text))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is not valid TOML: {error}") from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number of 5,000 digits
        raise UserError(f"{where} cannot be read: {first_line(error)}.") from error
    return _validate(data, where)


def _validate(data: dict[str, Any], where: str) -> Suite:
    """Return a valid suite, from a file or ``COMMAND_LINE``; raise UserError, with the nearest
    known name, if a key, value or name is wrong."""
    for key in _keys_of_booleans(data):
        raise UserError(f"{where}: '{key}' is true or false; no key of a suite is.")
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        _raise_user_error(min(error.errors(), key=_vagueness), where)
    _check_names(suite, where)
    return suite


def _keys_of_booleans(data: Any, key: str = "") -> Iterator[str]:
    """Yield the keys that hold true or false, which Python would count as 1 and 0."""
    if isinstance(data, bool):
        yield key
    elif isinstance(data, dict):
        for name, value in data.items():
            yield from _keys_of_booleans(value, name)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _keys_of_booleans(value, key)


def _vagueness(error: ErrorDetails) -> int:
    """Rank the errors of a file; the most specific one, which is reported, has the lowest rank."""
    if error["type"] == "extra_forbidden":
        return 0
    if error["loc"] == ("grid",):
        return 4  # pydantic also counts the tables that are valid
    # A key that takes a value or a list has two errors; the one about the value is more specific.
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return 1
    return 3 if error["type"].endswith("_type") else 2


def _raise_user_error(error: ErrorDetails, where: str) -> NoReturn:
    """Raise pydantic's error as one of the user."""
    location, by_option = error["loc"], where == COMMAND_LINE
    if error["type"] == "extra_forbidden":
        table = Grid if location[0] == "grid" else Suite
        choose(f"key in {where}", str(location[-1]), table.model_fields)
    if location == ("grid",):
        raise UserError(f"{where}: a suite needs one or more tables [[grid]], with two brackets.")
    fields = {**Suite.model_fields, **Grid.model_fields}
    key = next(str(part) for part in reversed(location) if part in fields)
    if error["type"] == "literal_error":
        kind = f"value of {_flag(key)}" if by_option else f"{key} in {where}"
        choose(kind, str(error["input"]), _words(fields[key].annotation))
    place = _flag(key) if by_option else f"{where}, {_place(location, fields)}"
    given = error["input"]
    value = "" if isinstance(given, dict) else f" It is {_shortened(given)}."
    raise UserError(f"{place}: {_sentence(error)}.{value}")


def _place(location: tuple[int | str, ...], fields: Mapping[str, Any]) -> str:
    """Return the place of a key in a suite in the user's words: ``epochs of grid 2``."""
    keys = [str(part) for part in location if part in fields and part != "grid"]
    grid = f" of grid {int(location[1]) + 1}" if location[0] == "grid" and location[1:] else ""
    return f"{'.'.join(keys) or 'the table'}{grid}"


def _sentence(error: ErrorDetails) -> str:
    """Return pydantic's message without its terms."""
    said = error["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    return said.replace("a valid tuple", "a list, in brackets")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


def _words(annotation: Any) -> list[str]:
    """Return the words that a type allows, as does ``Mode | tuple[Mode, ...]``."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(parts)
    return list(dict.fromkeys(word for part in parts for word in _words(part)))


def _flag(key: str) -> str:
    """Return the option of the command line that sets a key of a suite."""
    declared = RECIPE_OPTIONS.get(key)
    return declared.option.flag if declared else f"--{key}".replace("_", "-")


def _check_names(suite: Suite, where: str) -> None:
    """Raise UserError for a name that the catalogue lacks, or values that contradict each other."""
    by_option = where == COMMAND_LINE

    def kind(name: str, key: str) -> str:
        return f"{name} in {_flag(key) if by_option else where}"

    for backend in suite.backends:
        choose(kind("backend", "backends"), backend, BACKENDS)
    for grid in suite.grid:
        hidden_units(grid.recipe_value("head"))
        if grid.case is not None:
            choose(kind("case", "cases"), str(grid.case), [str(c) for c in CASES])
        for backbone in grid.backbones:
            check_name(kind("backbone", "backbones"), backbone)
            if backbone in BACKBONES:  # only a worker knows the sizes of others
                check_px(backbone, BACKBONES[backbone], grid.recipe_value("px"))
        views = grid.recipe_value("views")
        if views is not None and grid.recipe_value("augmentation") == "none":
            key = f"--views {views}" if by_option else f"{where}: views = {views}"
            raise UserError(
                f"{key} repeats augmented views, but augmentation is 'none': all views would be "
                "the same.",
                "Leave out --views, or add --augmentation crop or crop_flip."
                if by_option
                else "Leave out views, or write augmentation = 'crop' or 'crop_flip'.",
            )
        for policy in grid.policies:
            choose(kind("policy", "policies"), policy, POLICIES)


def options_suite(options: Options) -> Suite:
    """Return a suite with a grid for each given data set, at the defaults of ``Grid``."""
    grids = tuple(Grid(dataset=dataset) for dataset in options.get("datasets") or ())
    return Suite(name="custom", grid=grids)


def apply_options(suite: Suite, options: Options) -> Suite:
    """Narrow or override a suite.

    ``cases`` narrows. ``datasets``, ``backbones`` and ``policies`` keep the names that the suite
    has, each in the grids that have it, and add the names that no grid has to every grid. All other
    options override. Raise UserError if a name or value is wrong, or nothing is left.
    """
    grids = list(suite.grid)
    if cases := options.get("cases"):
        known = sorted({g.case for g in grids if g.case is not None})
        if not known:
            raise UserError(
                f"--cases chooses among the cases of a suite, but no grid of {suite.name} has a "
                "case.",
                "Leave out --cases, write case = 1 to 4 into the grids, or use --suite quick.",
            )
        for case in cases:
            choose(f"case in suite {suite.name}", str(case), [str(c) for c in known])
        grids = [g for g in grids if g.case in cases]
    grids = _narrow(grids, "backbones", options.get("backbones"))
    grids = _narrow(grids, "policies", options.get("policies"))
    grids = _datasets(grids, options.get("datasets"))

    def given(keys: Sequence[str]) -> dict[str, Any]:
        return {key: value for key in keys if (value := options.get(key)) is not None}

    changes = given(OVERRIDING)
    data = {**suite.model_dump(exclude_none=True), **given(("backends", "seeds"))}
    data["grid"] = [{**g.model_dump(exclude_none=True), **changes} for g in grids]
    return _validate(data, COMMAND_LINE)


def _narrow(grids: list[Grid], key: str, wanted: Sequence[str] | None) -> list[Grid]:
    """Keep the wanted names of each grid's list, add those that no grid has, and drop grids that
    have no name left."""
    if wanted is None:
        return grids
    known = {name for grid in grids for name in getattr(grid, key)}
    kept = [
        (grid, tuple(n for n in wanted if n in getattr(grid, key) or n not in known))
        for grid in grids
    ]
    return [grid.model_copy(update={key: names}) for grid, names in kept if names]


def _datasets(grids: list[Grid], wanted: Sequence[str] | None) -> list[Grid]:
    """Keep the grids of wanted data sets, and copy every grid for each data set that no grid has.

    A copy for the same kind of data (``rvl_cdip:PATH`` for ``rvl_cdip``) keeps all settings; one
    for another kind drops case, size, similarity and numbers of images, which describe the data.
    """
    if wanted is None:
        return grids
    known = {grid.dataset for grid in grids}
    kept = [grid for grid in grids if grid.dataset in wanted]
    for grid, dataset in product(grids, (name for name in wanted if name not in known)):
        same_kind = dataset.partition(":")[0] == grid.dataset.partition(":")[0]
        change: dict[str, Any] = {"dataset": dataset}
        if not same_kind:
            change |= dict.fromkeys(ABOUT_DATA)
        kept.append(grid.model_copy(update=change))
    return list(dict.fromkeys(kept))


def number_of_runs(suite: Suite) -> int:
    """Return the number of grid points, without making them."""
    each = (
        math.prod(
            [len(g.backbones), len(g.policies), len(g.mode)]
            + [len(g.recipe_values(name)) for name in RECIPE_OPTIONS]
        )
        for g in suite.grid
    )
    return sum(each) * len(suite.seeds) * len(suite.backends)


def grid_points(suite: Suite) -> Iterator[GridPoint]:
    """Yield every combination; backends vary fastest, so that runs to compare follow each other."""
    for grid in suite.grid:
        for backbone, policy, mode, recipe, seed, backend in product(
            grid.backbones, grid.policies, grid.mode, grid.recipes(), suite.seeds, suite.backends
        ):
            yield GridPoint(grid, backbone, policy, mode, backend, seed, recipe)
