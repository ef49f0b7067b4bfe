"""Entries of backbones by name: from the catalogue, or described by a torch worker.

``torchvision:NAME`` and ``timm:NAME`` are described once for each version of the libraries.
``module:FILE:FUNCTION`` is described again by each command, since its result may depend on more
than its file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import EXPORTER
from bench.errors import UserError, check_is_file, choose
from bench.spec.backbone import BackboneEntry
from bench.spec.base import canonical_hash
from bench.storage.atomic import build_folder
from bench.storage.cache import cache_root
from bench.storage.code_digest import digest_of_rooms
from bench.workers.process import Interpreters, ask, environment_of
from bench.workers.tasks import DescribeTask

OWN = "module"
FORMS = "torchvision:NAME, timm:NAME, module:FILE:FUNCTION"
"""Names that need no catalogue entry."""
FILE = "entry.json"
_described: dict[tuple[str, Path, Path], BackboneEntry] = {}
"""(name, cache, interpreter) → entry, of the backbones that this process has looked up."""


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if it is in the catalogue or has one of the ``FORMS``; else raise UserError
    with the nearest known name. ``kind`` describes the name there, as in "backbone in my.toml"."""
    library, colon, rest = name.partition(":")
    if not colon:
        try:
            return choose(kind, name, BACKBONES)
        except UserError as error:
            raise UserError(error.message, f"{error.hint} Or one of {FORMS}.") from None
    choose(f"kind of {kind}", library, ("torchvision", "timm", OWN))
    file, _, function = rest.rpartition(":")
    if library == OWN and not (file.endswith(".py") and function.isidentifier()):
        raise UserError(f"Backbone '{name}' is not of the form module:FILE.py:FUNCTION.")
    if not rest:
        raise UserError(f"Backbone '{name}' names no network.", f"Write {library}:NAME.")
    return name


def is_own(name: str) -> bool:
    """Return True for the name of a user's own network."""
    return name.startswith(f"{OWN}:")


def public_name(name: str) -> str:
    """Return a backbone's name without folders of this machine: ``module:my_net.py:build``."""
    return f"{OWN}:{Path(name.removeprefix(f'{OWN}:')).name}" if is_own(name) else name


def folder_name(name: str) -> str:
    """Return a backbone's name in characters that a folder may have."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", public_name(name))


def weights_choice(text: str) -> tuple[str, str]:
    """Return backbone and weights of ``--weights``; the backbone is '' for weights of all. Raise
    UserError if there is no such backbone."""
    name, equals, value = text.partition("=")
    if not equals or ("/" in name and ":" not in name):
        return "", text
    return check_name("backbone in --weights", name), value


def backbone(name: str, interpreters: Interpreters, cache: Path | None = None) -> BackboneEntry:
    """Return the entry of a backbone; see ``backbones``."""
    return backbones([name], interpreters, cache)[name]


def backbones(
    names: Iterable[str], interpreters: Interpreters, cache: Path | None = None
) -> dict[str, BackboneEntry]:
    """Return the entries of backbones by name; let a worker describe those that are not known yet.
    ``cache`` is the root of the cache, by default the user's.

    Raises:
        UserError: There is no such network, or it cannot be used.
        Unavailable: Its library is not installed.
    """
    names = dict.fromkeys(check_name("backbone", name) for name in names)
    root = cache or cache_root()
    known = {name: entry for name in names if (entry := _known(name, root, interpreters))}
    own = [name for name in names if name not in known and is_own(name)]
    published = [name for name in names if name not in known and not is_own(name)]
    # Each own network has its own worker, so that their modules cannot shadow each other.
    for group in filter(None, [published, *([name] for name in own)]):
        what = public_name(group[0]) if len(group) == 1 else f"{len(group)} networks"
        task = DescribeTask(backbones=tuple(_absolute(n) if is_own(n) else n for n in group))
        limit_s = interpreters.own_code_s if is_own(group[0]) else None
        answer = ask(EXPORTER, task, interpreters, f"describing {what}", root, limit_s)
        for name, entry in zip(group, answer.entries, strict=True):
            known[name] = _described[name, root, interpreters.of(EXPORTER)] = entry
            if not is_own(name):
                _keep(entry, _folder(name, root, interpreters))
    return known


def check_px(name: str, entry: BackboneEntry, px: int) -> None:
    """Raise UserError if the backbone cannot take images of this size."""
    least, most = entry.min_px, entry.native_px
    refused = f"{name} cannot take {px} px: it"
    if entry.fixed_px and least == most and px != most:
        raise UserError(f"{refused} takes only {most}.", f"Use --px {most}.")
    if px < least:
        raise UserError(f"{refused} needs at least {least}.", f"Use --px {least}.")


def _absolute(name: str) -> str:
    """Return a user's own network with the absolute path of its file, which must exist."""
    file, _, function = name.removeprefix(f"{OWN}:").rpartition(":")
    path = Path(os.path.expanduser(file))
    check_is_file(f"Backbone '{name}': file '{file}'", path)
    return f"{OWN}:{path.resolve()}:{function}"


def _known(name: str, cache: Path, interpreters: Interpreters) -> BackboneEntry | None:
    """Return an entry from the catalogue, this process's memory or the cache, if it is there."""
    if name in BACKBONES:
        return BACKBONES[name]
    key = (name, cache, interpreters.of(EXPORTER))
    entry = _described.get(key)
    if entry is None and not is_own(name):
        entry = _read(_folder(name, cache, interpreters))
        if entry is not None:
            _described[key] = entry
    return entry


def _folder(name: str, cache: Path, interpreters: Interpreters) -> Path:
    packages = environment_of(EXPORTER, "cpu", interpreters).packages
    key = canonical_hash([name, packages, digest_of_rooms("blueprint")])[:24]
    return cache / "backbones" / f"{folder_name(name)}-{key}"


def _keep(entry: BackboneEntry, folder: Path) -> None:
    def write(content: Path) -> None:
        (content / FILE).write_text(entry.model_dump_json(indent=1), encoding="utf-8")

    build_folder(folder, write, lambda whole: _read(whole) is not None)


def _read(folder: Path) -> BackboneEntry | None:
    try:
        return BackboneEntry.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None
