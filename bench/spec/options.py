"""Declarations of the keys, options and columns by which users see a field of ``Recipe``.

A recipe field is declared once, in ``bench.spec.run.Recipe``, with a ``RecipeOption`` in its
annotation. Suites, command-line options, filters, columns and labels are derived from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class RecipeOption:
    """Option, help, heading and suite default of a recipe field.

    Flag and heading that are left out are the field's name, the help its description.
    """

    flag: str = ""
    """Option of ``run`` and of ``report``."""
    heading: str = ""
    """Heading of its column, and its name in labels."""
    help: str = ""
    default: Any = None
    """Value in a suite that leaves the key out; None: chosen by the planner, or the field's own
    default."""
    is_list: bool = False
    """True if a suite may list several values, which multiplies the runs."""
    competes: bool = False
    """True if runs that differ in it alone compete for the best accuracy, as policies do."""
    always_shown: bool = False
    """True if its column stands in every table."""
    shown_if_unusual: bool = False
    """True if its column stands in every table with a value other than the suite's default."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Limits of a suite's value that are narrower than the field's own, such as {'ge': 16}."""

    @property
    def parameter(self) -> str:
        """The flag as a name in Python, and the name of a filter of reports."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class DeclaredOption:
    """A recipe field with its option, as derived from the declaration."""

    name: str
    """Name of the field, and key of a suite."""
    option: RecipeOption
    info: FieldInfo

    @property
    def kind(self) -> type:
        """int, float or str."""
        return str if self.names else _without_none(self.info.annotation)

    @property
    def names(self) -> tuple[str, ...]:
        """The values that it can have, where they are few words."""
        inner = _without_none(self.info.annotation)
        return get_args(inner) if get_origin(inner) is Literal else ()

    @property
    def suite_default(self) -> Any:
        """Value in a suite that leaves the key out."""
        if self.option.default is None and not self.info.is_required():
            return self.info.default
        return self.option.default

    @property
    def suite_annotation(self) -> Any:
        """Type of the key in a suite."""
        limits = [m for m in self.info.metadata if not isinstance(m, RecipeOption)]
        value: Any = Annotated[(self.info.annotation, Field(**self.option.limits), *limits)]
        if self.option.is_list:
            value = value | Annotated[tuple[value, ...], Field(min_length=1)]
        return value | None if self.suite_default is None else value


def declared_options(model: type[BaseModel]) -> dict[str, DeclaredOption]:
    """Return the fields of a model that carry a ``RecipeOption``, in the order of declaration."""
    found = {}
    for name, info in model.model_fields.items():
        for extra in info.metadata:
            if isinstance(extra, RecipeOption):
                option = replace(
                    extra,
                    flag=extra.flag or f"--{name}".replace("_", "-"),
                    heading=extra.heading or name.replace("_", " "),
                    help=extra.help or info.description or "",
                )
                found[name] = DeclaredOption(name, option, info)
    return found


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not NoneType)
    return annotation
