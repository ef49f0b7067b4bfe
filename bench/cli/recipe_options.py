"""Options of ``run`` and ``report`` that are declared with the fields of ``Recipe``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import typer

from bench.cli.parse import decimals, heads, names, numbers
from bench.spec.options import DeclaredOption
from bench.spec.run import RECIPE_OPTIONS

Command = TypeVar("Command", bound=Callable[..., None])


def recipe_options(*, as_filters: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each recipe field.

    The command takes them as keyword arguments ``**recipe``; see ``recipe_choices`` and
    ``recipe_filters``.

    Args:
        as_filters: True where every option takes a comma-separated list of wanted values.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        derived = [_parameter(declared, as_filters) for declared in RECIPE_OPTIONS.values()]
        place = next((i for i, p in enumerate(own) if p.name == "mode"), len(own))
        parameters = [*own[:place], *derived, *own[place:]]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(declared: DeclaredOption, as_filter: bool) -> inspect.Parameter:
    takes_text = as_filter or declared.option.is_list
    kind = str if takes_text else declared.kind
    text = "Keep only runs with these values." if as_filter else declared.option.help
    return inspect.Parameter(
        declared.parameter,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None,
        annotation=Annotated[kind | None, typer.Option(declared.option.flag, help=text)],
    )


def recipe_choices(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values given to ``run``, by recipe field; lists are parsed."""
    return {
        name: _parsed(declared, given[declared.parameter])
        if declared.option.is_list
        else given[declared.parameter]
        for name, declared in RECIPE_OPTIONS.items()
    }


def recipe_filters(given: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the values given to ``report``, parsed, by the names of its options."""
    return {
        declared.parameter: _parsed(declared, given[declared.parameter])
        for declared in RECIPE_OPTIONS.values()
    }


def _parsed(declared: DeclaredOption, text: str | None) -> list[Any] | None:
    if declared.name == "head":
        return heads(text)
    if declared.kind is int:
        return numbers(declared.option.flag, text)
    if declared.kind is float:
        return decimals(declared.option.flag, text)
    return names(text)
