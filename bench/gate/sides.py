"""The two sides of a comparison: interpreters, git revisions, or settings."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from bench.catalog.backends import BACKENDS, OWN_STEP
from bench.errors import UserError
from bench.spec.base import short_hash
from bench.speed.launch import PADDING_BYTES, Place
from bench.storage.atomic import build_folder
from bench.system import project_root

SideKind = Literal["interpreter", "revision", "setting"]
NULL_FOLDER = "a-path-of-another-length/" * 3
SOURCES = ("src", ".")
"""Folders of a repository that may hold the packages that a target imports, by precedence."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    kind: SideKind
    label: str
    """The side as the user wrote it."""
    place: Place
    target: Path | None = None
    """File of the user's own step at this side."""
    commit: str | None = None
    """Commit of a revision."""


def interpreter_side(text: str, place: Place) -> Side | None:
    """Return the side of a Python interpreter, or of an environment's folder; None if a text names
    no such file."""
    path = Path(text).expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    if not path.is_file():
        return None
    python = path.absolute()
    chosen = dict.fromkeys([*BACKENDS, OWN_STEP], python)
    interpreters = replace(place.interpreters, chosen={**place.interpreters.chosen, **chosen})
    return Side("interpreter", text, replace(place, interpreters=interpreters))


def setting_sides(
    choices: Sequence[str], place: Place, target: Path | None = None
) -> tuple[Side, Side]:
    """Return the sides of ``--ab-env NAME=A,B``, which may be given several times.

    Raises:
        UserError: A choice has another form, or a variable comes twice.
    """
    given: list[tuple[str, list[str]]] = []
    for choice in choices:
        name, equals, values = choice.partition("=")
        both = values.split(",")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or len(both) != 2:
            raise UserError(
                f"--ab-env '{choice}' is not of the form NAME=A,B.",
                "Write, for example, --ab-env OMP_NUM_THREADS=1,2.",
            )
        if name in dict(given):
            raise UserError(f"--ab-env names {name} twice.")
        given.append((name, both))

    def side(index: int) -> Side:
        variables = {name: both[index] for name, both in given}
        label = " ".join(f"{name}={value}" for name, value in variables.items())
        place_of_side = replace(place, variables={**place.variables, **variables})
        return Side("setting", label, place_of_side, target)

    return side(0), side(1)


def compared_sides(
    texts: tuple[str, str], place: Place, target: Path | None = None
) -> tuple[Side, Side]:
    """Return the sides of ``--ab A B``: interpreters if both are files, else git revisions of the
    target's repository, or of this project.

    Raises:
        UserError: A side is neither, or they are of two kinds.
    """
    found = [interpreter_side(text, place) for text in texts]
    if found[0] is not None and found[1] is not None:
        return replace(found[0], target=target), replace(found[1], target=target)
    for text, side in zip(texts, found, strict=True):
        looks_like_path = "/" in text and not _is_revision(text, _repository(target))
        if side is None and looks_like_path and (any(found) or text.startswith(("/", ".", "~"))):
            raise UserError(f"--ab: there is no interpreter '{text}'.")
    if any(found):
        wrong = texts[1] if found[0] is not None else texts[0]
        raise UserError(
            f"--ab: '{wrong}' is no Python interpreter, but the other side is.",
            "Name two interpreters (or folders of environments), or two git revisions.",
        )
    first, second = (_revision_side(text, place, target) for text in texts)
    return first, second


def null_side(side: Side) -> Side:
    """Return a side once more: its code and interpreter at another path, with an environment of
    another size. An interpreter that belongs to no virtual environment stays where it is: Python
    finds the others by the path by which it was started."""
    place = side.place
    folder = place.cache / "null" / NULL_FOLDER
    site = replace(place.site, root=_linked(place.site.root, folder))
    chosen = {}
    for backend in (*BACKENDS, OWN_STEP):
        python = place.interpreters.of(backend)
        prefix = python.parent.parent
        if (prefix / "pyvenv.cfg").is_file():
            chosen[backend] = _linked(prefix, folder) / python.relative_to(prefix)
    interpreters = replace(place.interpreters, chosen={**place.interpreters.chosen, **chosen})
    padding = (2 * PADDING_BYTES, 3 * PADDING_BYTES)
    moved = replace(place, site=site, interpreters=interpreters, padding_bytes=padding)
    target = side.target
    if target is not None:
        target = _linked(target.parent, folder) / target.name
    return replace(side, label=f"{side.label}, once more", place=moved, target=target)


def _linked(folder: Path, place: Path) -> Path:
    """Return a link to a folder, made if it is missing."""
    place.mkdir(parents=True, exist_ok=True)
    link = place / f"{short_hash(str(folder))}"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(folder.absolute(), target_is_directory=True)
    return link


def _git(folder: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("--ab with revisions needs git, which is not installed.") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"git {words[0]} in '{folder}' failed: {''.join(last)}.")
    return done.stdout


def _repository(target: Path | None) -> Path:
    return project_root() if target is None else target.absolute().parent


def _is_revision(text: str, folder: Path) -> bool:
    try:
        _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    except UserError:
        return False
    return True


def _revision_side(text: str, place: Place, target: Path | None) -> Side:
    folder = _repository(target)
    try:
        top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
    except UserError as error:
        raise UserError(
            f"--ab: '{text}' is no Python interpreter, and '{folder}' is in no git repository "
            "whose revision it could be."
        ) from error
    if not _is_revision(text, top):
        names = _git(top, "for-each-ref", "--format=%(refname:short)").decode().split()
        near = get_close_matches(text, names, n=1, cutoff=0.5)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(
            f"--ab: '{text}' is neither a Python interpreter nor a revision of '{top}'.{guess}",
            "Name two interpreters, two folders of environments, or two git revisions.",
        )
    commit = _git(top, "rev-parse", f"{text}^{{commit}}").decode().strip()
    code = revision_folder(top, commit, place.cache)
    if target is None:
        site = replace(place.site, root=code)
        return Side("revision", text, replace(place, site=site), commit=commit)
    inside = target.resolve().relative_to(top.resolve())
    if not (code / inside).is_file():
        raise UserError(f"--target: there is no '{inside}' in revision '{text}'.")
    site = replace(place.site, paths=source_paths(code))
    return Side("revision", text, replace(place, site=site), code / inside, commit)


def source_paths(code: Path) -> tuple[Path, ...]:
    """Return the folders of a repository's files from which a target imports its packages."""
    return tuple(code / source for source in SOURCES if (code / source).is_dir())


def revision_folder(repository: Path, commit: str, cache: Path) -> Path:
    """Return the files of a commit, extracted once, in a folder whose name has the same length for
    every commit."""
    folder = cache / "revisions" / commit

    def extract(into: Path) -> None:
        archive = _git(repository, "archive", "--format=tar", commit)
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(into, filter="data")
        except tarfile.TarError as error:
            raise UserError(
                f"Commit {commit[:12]} of '{repository}' cannot be extracted: {error}."
            ) from error

    if not folder.is_dir():
        build_folder(folder, extract, Path.is_dir)
    return folder


def file_of_commit(file: Path, commit: str, cache: Path) -> tuple[Path, Path]:
    """Return the folder with the files of a commit, and a file in it as it was then.

    Raises:
        UserError: The file is in no repository, or was not there.
    """
    top = Path(_git(file.resolve().parent, "rev-parse", "--show-toplevel").decode().strip())
    code = revision_folder(top, commit, cache)
    found = code / file.resolve().relative_to(top.resolve())
    if not found.is_file():
        raise UserError(f"There is no '{file.name}' in commit {commit[:12]} of '{top}'.")
    return code, found


def common_backends(
    wanted: Sequence[str] | None, lacks: Mapping[str, Mapping[str, list[str]]], usual: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the backends that both sides can run, and remarks about those that were left out.

    Args:
        wanted: Backends that the user named; None for the usual ones.
        lacks: Backend → side's label → distributions that are missing there.

    Raises:
        UserError: A backend that was named, or every usual one, lacks something on a side.
    """
    asked = list(wanted or usual)
    words = {
        backend: "; ".join(
            f"{side} lacks {', '.join(missing)}" for side, missing in lacks[backend].items()
        )
        for backend in asked
        if lacks.get(backend)
    }
    kept = [backend for backend in asked if backend not in words]
    if (wanted and words) or not kept:
        text = "; ".join(f"{backend}: {why}" for backend, why in words.items())
        raise UserError(f"Not both sides can run: {text}.", "Install it, or choose --backends.")
    return kept, [f"{backend} is left out: {why}" for backend, why in words.items()]
