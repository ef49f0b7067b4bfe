"""Comma-separated lists on the command line."""

from __future__ import annotations

import re

from bench.errors import UserError


def names(text: str | None) -> list[str] | None:
    """Return the items of a comma-separated list; a comma in a path is written as ``\\,``.

    Raises:
        UserError: The list is empty.
    """
    if text is None:
        return None
    parts = text.replace("\\,", "\0").split(",")
    found = [p.strip().replace("\0", ",") for p in parts if p.strip()]
    if not found:
        raise UserError("An empty list was given.", "Lists are comma-separated: a,b,c.")
    return list(dict.fromkeys(found))


def heads(text: str | None) -> list[str] | None:
    """Return heads, which may hold lists themselves: ``linear,dense:512,256`` is two.

    Raises:
        UserError: The list is empty.
    """
    parts = names(None if text is None else re.sub(r",(?=\s*\d)", r"\\,", text))
    return None if parts is None else [re.sub(r"\s", "", part) for part in parts]


def numbers(option: str, text: str | None) -> list[int] | None:
    """Return the whole numbers of a list.

    Raises:
        UserError: An item is not a whole number of 0 or more.
    """
    found = names(text)
    if found is None:
        return None
    wrong = [n for n in found if not (n.isascii() and n.isdigit())]
    if wrong:
        raise UserError(f"{option}: '{wrong[0]}' is not a whole number of 0 or more.")
    return [int(n) for n in found]


def decimals(option: str, text: str | None) -> list[float] | None:
    """Return the numbers of a list.

    Raises:
        UserError: An item is not a number.
    """
    found = names(text)
    if found is None:
        return None
    try:
        return [float(name) for name in found]
    except ValueError as error:
        raise UserError(
            f"{option}: {error}.".replace("could not convert", "cannot read")
        ) from error
