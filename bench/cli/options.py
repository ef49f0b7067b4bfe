"""Options that ``run`` and ``report`` share, and lists on the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import typer

from bench.errors import UserError
from bench.spec.run import RECIPE_OPTIONS

Command = TypeVar("Command", bound=Callable[..., None])


class SharedOption(NamedTuple):
    """An option that sets a key of a suite in ``run`` and selects runs in ``report``."""

    field: str
    """Field of ``bench.runner.suite.Options``."""
    flag: str
    help: str
    """Help text in ``run``."""
    kind: type = str
    """int, float or str."""
    is_list: bool = True
    """True if ``run`` takes several values; ``report`` always does."""
    least: int | None = None

    @property
    def parameter(self) -> str:
        """The flag as a name in Python, and field of ``bench.report.selection.Filters``."""
        return self.flag.removeprefix("--").replace("-", "_")

    def parse(self, text: str | None) -> list[Any] | None:
        """Return the values of a list; None if the option was not given."""
        if self.field == "head":
            return heads(text)
        if self.kind is int:
            return numbers(self.flag, text)
        return decimals(self.flag, text) if self.kind is float else names(text)


BACKBONES_HELP = "See `list backbones`; or torchvision:NAME, timm:NAME, module:FILE:FUNCTION."
MODE_HELP = "matched: same arithmetic in every framework. native: each framework's own."
BEFORE_RECIPE = (
    SharedOption("cases", "--cases", "Cases of the article, 1 to 4.", int),
    SharedOption("datasets", "--datasets", "photos, mnist5k, folder:PATH or rvl_cdip[:PATH]."),
    SharedOption("backbones", "--backbones", BACKBONES_HELP),
    SharedOption("policies", "--policies", "See `list policies`."),
    SharedOption("backends", "--backends", "See `list backends`."),
    SharedOption("seeds", "--seeds", "Random seeds, such as 0,1,2.", int),
    SharedOption(
        "train_images", "--train-images", "Number of training images. Default: the suite's.",
        int, is_list=False, least=1,
    ),
)  # fmt: skip
TUNE_HELP = "lr: choose each run's learning rate on validation data."
AFTER_RECIPE = (
    SharedOption("mode", "--mode", MODE_HELP),
    SharedOption("tune", "--tune", TUNE_HELP, is_list=False),
)


def shared_options() -> list[SharedOption]:
    """Return all shared options; those between the others are declared with ``Recipe``."""
    recipe = [
        SharedOption(d.name, d.option.flag, d.option.help, d.kind, d.option.is_list)
        for d in RECIPE_OPTIONS.values()
    ]
    return [*BEFORE_RECIPE, *recipe, *AFTER_RECIPE]


def with_shared_options(*, as_filters: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the shared options, before its option ``weights``.

    The command takes them as ``**shared``; see ``run_choices`` and, if they are filters, each a
    list of wanted values, ``report_filters``.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        shared = [_parameter(option, as_filters) for option in shared_options()]
        place = next((i for i, p in enumerate(own) if p.name == "weights"), len(own))
        parameters = [*own[:place], *shared, *own[place:]]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(option: SharedOption, as_filter: bool) -> inspect.Parameter:
    kind = str if as_filter or option.is_list else option.kind
    least = None if as_filter else option.least
    text = "Keep only runs with these values." if as_filter else option.help
    return inspect.Parameter(
        option.parameter,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None,
        annotation=Annotated[kind | None, typer.Option(option.flag, help=text, min=least)],
    )


def run_choices(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values given to ``run`` by the fields of ``Options``; lists are parsed."""
    values = {o.field: (o, given[o.parameter]) for o in shared_options()}
    return {name: o.parse(value) if o.is_list else value for name, (o, value) in values.items()}


def report_filters(given: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the values given to ``report``, parsed, by the fields of ``Filters``."""
    return {o.parameter: o.parse(given[o.parameter]) for o in shared_options()}


def names(text: str | None) -> list[str] | None:
    """Return the items of a comma-separated list, where a comma in a path is written as ``\\,``;
    raise UserError if there are none."""
    if text is None:
        return None
    parts = text.replace("\\,", "\0").split(",")
    found = [p.strip().replace("\0", ",") for p in parts if p.strip()]
    if not found:
        raise UserError("An empty list was given.", "Lists are comma-separated: a,b,c.")
    return list(dict.fromkeys(found))


def heads(text: str | None) -> list[str] | None:
    """Return heads, which may hold lists themselves: ``linear,dense:512,256`` is two."""
    parts = names(None if text is None else re.sub(r",(?=\s*\d)", r"\\,", text))
    return None if parts is None else [re.sub(r"\s", "", part) for part in parts]


def numbers(option: str, text: str | None) -> list[int] | None:
    """Return the whole numbers of a list; raise UserError for anything else."""
    found = names(text)
    for name in found or ():
        if not (name.isascii() and name.isdigit()):
            raise UserError(f"{option}: '{name}' is not a whole number of 0 or more.")
    return None if found is None else [int(name) for name in found]


def decimals(option: str, text: str | None) -> list[float] | None:
    """Return the numbers of a list; raise UserError for anything else."""
    found = names(text)
    try:
        return None if found is None else [float(name) for name in found]
    except ValueError as error:
        reason = str(error).replace("could not convert", "cannot read")
        raise UserError(f"{option}: {reason}.") from error
