"""A recipe field is declared in one place: suite key, option, filter and ids follow from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from bench.cli import options
from bench.spec.options import RecipeOption, declared_options
from bench.spec.run import RECIPE_OPTIONS, Recipe, RunSpec


class More(Recipe):
    """A recipe with a field more."""

    label_smoothing: Annotated[
        float,
        RecipeOption(
            flag="--label-smoothing",
            heading="label smoothing",
            help="Probability that is spread over the other classes.",
            limits={"le": 0.5},
        ),
    ] = Field(default=0.0, ge=0, lt=1, description="Probability spread over the other classes.")


class MoreSpec(RunSpec):
    """A spec with a recipe field more."""

    recipe: More


ADDED = declared_options(More)["label_smoothing"]


def test_every_recipe_field_is_declared_with_its_option() -> None:
    """Without one, rows that differ in the field would look alike; these two have row fields."""
    assert set(Recipe.model_fields) - set(RECIPE_OPTIONS) == {"learning_rate_grid", "sweep"}


def test_an_added_field_is_a_key_of_suites_with_its_default_and_limits() -> None:
    assert list(declared_options(More)) == [*RECIPE_OPTIONS, "label_smoothing"]
    assert (ADDED.kind, ADDED.option.parameter, ADDED.suite_default) == (
        float,
        "label_smoothing",
        0.0,
    )
    key = TypeAdapter(ADDED.suite_annotation)
    assert key.validate_python(0.1) == 0.1
    for wrong in (-0.1, 0.6, "much", None):
        with pytest.raises(ValidationError):
            key.validate_python(wrong)


def test_an_added_field_is_an_option_of_run_and_a_filter_of_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options, "RECIPE_OPTIONS", {"label_smoothing": ADDED})

    for declared, kind in ((options.RunOptions, float), (options.ReportOptions, str)):
        command = options.as_command(declared, print)
        parameter = inspect.signature(command).parameters["label_smoothing"]
        assert parameter.default is None
        assert parameter.annotation.__origin__ == kind | None
        (option,) = parameter.annotation.__metadata__
        assert "--label-smoothing" in (option.default, *option.param_decls)
    choices = options.run_choices({"label_smoothing": 0.1})
    assert choices["label_smoothing"] == 0.1
    filters = options.report_filters({"label_smoothing": "0,0.1"})
    assert filters["label_smoothing"] == [0.0, 0.1]


def test_an_added_field_changes_the_id_only_of_runs_that_use_it(
    make_spec: Callable[..., RunSpec],
) -> None:
    spec = make_spec()
    fields = spec.model_dump()
    same = MoreSpec.model_validate(fields)
    assert same.model_dump_json() == spec.model_dump_json()
    assert same.run_id == spec.run_id
    used = MoreSpec.model_validate(
        {**fields, "recipe": {**fields["recipe"], "label_smoothing": 0.1}}
    )
    assert used.model_dump()["recipe"]["label_smoothing"] == 0.1
    assert used.run_id != spec.run_id
