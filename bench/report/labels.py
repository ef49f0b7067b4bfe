"""Names for seed groups, and the fields that distinguish those that would look alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from bench.analysis.groups import (
    COMPETING_FIELDS,
    OUTCOME_FIELDS,
    SeedGroup,
    policy_variant,
    settings_of,
)
from bench.analysis.rows import FIELDS, Row, grouped
from bench.spec.run import RECIPE_OPTIONS

ANSWERS = COMPETING_FIELDS | {"backend", "device", "device_model", "environment_id", "seed"}
"""Fields in which the answers to one question may differ, whatever the backend."""
NETWORKS = frozenset({"backbone", "code_sha256", "network_digest"})
"""Fields that identify the network."""
SETTINGS = (
    "mode", *RECIPE_OPTIONS, "tune", "sweep", "weights", "dataset_hash", "val_images",
    "test_images", "code_sha256", "device", "device_model", "environment_id", "policy_digest",
    "weights_sha256", "reading_digest", "network_digest",
)  # fmt: skip
"""Fields that may distinguish seed groups of one data set, network, policy and backend; the best
known first."""
DIGESTS = frozenset({"policy_digest", "weights_sha256", "reading_digest", "network_digest"})
"""Fields that say whether a definition behind a name changed; names differ first."""
HASH_DIGITS = 8


def distinguishing_fields(
    rows: Sequence[Row] | Sequence[Mapping[str, Any]], fields: Sequence[str],
    looks: Sequence[Hashable] | None = None, all_fields: bool = True,
) -> list[str]:  # fmt: skip
    """Return the ones of ``fields`` in which rows differ that look alike.

    Args:
        looks: What else is shown of each row; None: all rows look alike.
        all_fields: False to leave out fields that add nothing to those before them, as digests
            of definitions (``DIGESTS``) are in any case.
    """
    groups: list[Hashable] = [None] * len(rows) if looks is None else list(looks)
    finest, found = groups, []
    for field in fields:
        own = [row[field] for row in rows]
        if own.count(own[0] if own else None) == len(
            own
        ):  # as most fields of thousands of rows are
            continue
        values = list(map(str, own))
        coarse = groups if all_fields and field not in DIGESTS else finest
        if len(set(zip(coarse, values, strict=True))) > len(set(coarse)):
            found.append(field)
            finest = [*zip(finest, values, strict=True)]
    return found


def differences(
    rows: Sequence[Row], looks: Sequence[Hashable], fields: Sequence[str] = SETTINGS
) -> list[str]:
    """Return for each row the fields, with its values, in which rows of the same looks differ."""
    alike = grouped(range(len(rows)), looks.__getitem__)
    named = {
        look: distinguishing_fields([rows[place] for place in places], fields)
        for look, places in alike.items()
    }
    return [
        ", ".join(_with_value(field, row[field]) for field in named[look])
        for row, look in zip(rows, looks, strict=True)
    ]


def _with_value(field: str, value: object) -> str:
    name = re.sub("_(id|sha256|hash|digest)$", "", field)
    return f"{name.replace('_', ' ')} {value if name == field else str(value)[:HASH_DIGITS]}"


def settings(groups: Sequence[SeedGroup], by_policy: bool = True) -> list[str]:
    """Return for each seed group of a table or plot what distinguishes it from others of the same
    data, network, backend and, if ``by_policy``, policy; empty if nothing does."""
    rows = [group.row for group in groups]
    looks = [
        (data_of(group.row), group.row.spec.backbone, group.row.spec.backend,
         policy_variant(group) if by_policy else "")
        for group in groups
    ]  # fmt: skip
    return differences(rows, looks)


def choices(
    groups: Sequence[SeedGroup], differing: Collection[str], named: Callable[[Row], str]
) -> dict[str, list[SeedGroup]]:
    """Return the choices of a plot that shows one question at a time: unique name → seed groups.

    Args:
        differing: Fields in which the seed groups of one choice may differ.
        named: Returns the beginning of a choice's name; what distinguishes it is appended.
    """
    by_choice = grouped(groups, lambda group: settings_of(group.row, differing)).values()
    rows = [members[0].row for members in by_choice]
    names = [named(row) for row in rows]
    ignored = {*OUTCOME_FIELDS, *differing}
    fields = [field for field in dict.fromkeys([*SETTINGS, *FIELDS]) if field not in ignored]
    more = differences(rows, names, fields)
    found: dict[str, list[SeedGroup]] = {}
    taken: Counter[str] = Counter()
    for members, name, differs in zip(by_choice, names, more, strict=True):
        label = f"{name}, {differs}" if differs else name
        taken[label] += 1  # hashes are shortened and may look alike
        found[label + (f" ({taken[label]})" if taken[label] > 1 else "")] = members
    return found


def values_of(rows: Iterable[Row], field: str) -> list[str]:
    """Return the different values of a field as text, in order of appearance."""
    return list(map(str, dict.fromkeys(row.fields[field] for row in rows)))


def data_of(row: Row) -> str:
    """Return the name of a data set with its number of training images."""
    if row.dataset.fold is not None:
        return f"{row.dataset.label}, {row.dataset.fold.of} folds"
    return f"{row.dataset.label}, {row.dataset.train_images:,} images"


def question_name(row: Row) -> str:
    """Return the name of a data set, its number of training images and the network."""
    return f"{data_of(row)}, {row.spec.backbone}"
