"""Names for seed groups, and the fields that distinguish those that would look alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

from bench.analysis.groups import (
    COMPETING_FIELDS,
    OUTCOME_FIELDS,
    SeedGroup,
    policy_variant,
    settings_of,
)
from bench.analysis.rows import FIELDS, Row
from bench.spec.run import RECIPE_OPTIONS

ANSWERS = frozenset(
    {*COMPETING_FIELDS, "backend", "device", "device_model", "environment_id", "seed"}
)
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
    rows: Sequence[Row] | Sequence[Mapping[str, Any]],
    fields: Sequence[str],
    looks: Sequence[Hashable] | None = None,
    all_fields: bool = True,
) -> list[str]:
    """Return the fields in which rows differ that look alike.

    Args:
        rows: Rows to compare.
        fields: Candidates, in the order of the answer.
        looks: What else is shown of each row; None: all rows look alike.
        all_fields: False to leave out fields that add nothing to those before them, as digests
            of definitions (``DIGESTS``) are in any case.
    """
    groups = finest = _numbered(looks if looks is not None else [0] * len(rows))
    found = []
    for field in fields:
        values = [str(row[field]) for row in rows]
        coarse = groups if all_fields and field not in DIGESTS else finest
        if len(set(_numbered(zip(coarse, values, strict=True)))) > len(set(coarse)):
            found.append(field)
            finest = _numbered(zip(finest, values, strict=True))
    return found


def _numbered(values: Any) -> list[int]:
    """Return a number for each value, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def differences(
    rows: Sequence[Row], looks: Sequence[Hashable], fields: Sequence[str] = SETTINGS
) -> list[str]:
    """Return for each row the fields, with its values, in which rows of the same looks differ."""
    alike: dict[Hashable, list[Row]] = {}
    for row, look in zip(rows, looks, strict=True):
        alike.setdefault(look, []).append(row)
    named = {look: distinguishing_fields(same, fields) for look, same in alike.items()}
    return [
        ", ".join(_with_value(field, row[field]) for field in named[look])
        for row, look in zip(rows, looks, strict=True)
    ]


def _with_value(field: str, value: object) -> str:
    name = re.sub("_(id|sha256|hash|digest)$", "", field).replace("_", " ")
    is_hash = name != field.replace("_", " ")
    return f"{name} {str(value)[:HASH_DIGITS] if is_hash else value}"


def settings(groups: Sequence[SeedGroup], by_policy: bool = True) -> list[str]:
    """Return for each seed group what distinguishes it from others of the same data, network,
    policy and backend; empty if there are no others.

    Args:
        groups: Seed groups of one table or plot.
        by_policy: False if the policy is not shown beside, so that all policies look alike.
    """
    looks = [
        (
            group.row.dataset.label,
            group.row.dataset.train_images,
            group.row.spec.backbone,
            policy_variant(group) if by_policy else "",
            group.row.spec.backend,
        )
        for group in groups
    ]
    return differences([group.row for group in groups], looks)


def choices(
    groups: Sequence[SeedGroup], differing: Collection[str], named: Callable[[Row], str]
) -> dict[str, list[SeedGroup]]:
    """Return the choices of a plot that shows one question at a time: unique name → seed groups.

    Args:
        groups: Seed groups in the order of the report.
        differing: Fields in which the seed groups of one choice may differ.
        named: Returns the beginning of a choice's name; what distinguishes it is appended.
    """
    by_choice: dict[tuple[Hashable, ...], list[SeedGroup]] = {}
    for group in groups:
        by_choice.setdefault(settings_of(group.row, differing), []).append(group)
    rows = [members[0].row for members in by_choice.values()]
    names = [named(row) for row in rows]
    fields = [
        f for f in dict.fromkeys([*SETTINGS, *FIELDS]) if f not in {*OUTCOME_FIELDS, *differing}
    ]
    found: dict[str, list[SeedGroup]] = {}
    taken: Counter[str] = Counter()
    for members, name, more in zip(
        by_choice.values(), names, differences(rows, names, fields), strict=True
    ):
        label = f"{name}, {more}" if more else name
        taken[label] += 1  # hashes are shortened and may look alike
        found[label + (f" ({taken[label]})" if taken[label] > 1 else "")] = members
    return found


def data_of(row: Row) -> str:
    """Return the name of a data set with its number of training images."""
    return f"{row.dataset.label}, {row.dataset.train_images:,} images"


def question_name(row: Row) -> str:
    """Return the name of a data set, its number of training images and the network."""
    return f"{data_of(row)}, {row.spec.backbone}"
