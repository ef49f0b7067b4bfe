"""Any backbone's entry by its name: the catalogue's, or what a torch worker tells of the others.

``torchvision:NAME`` and ``timm:NAME`` are described once for each version of the libraries.
``module:FILE:FUNCTION`` is asked for once in each command, for what it builds may depend on more
than its file.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.cache import cache_root
from bench.catalog.backbones import BACKBONES, BackboneEntry
from bench.catalog.backends import EXPORTER
from bench.data.atomic import build_folder
from bench.environment import environment_of
from bench.errors import Unavailable, UserError, choose
from bench.launch import Finished, Interpreters, run_job
from bench.spec import canonical_hash

LIBRARIES = ("torchvision", "timm")
OWN = "module"
FORMS = "torchvision:NAME, timm:NAME, module:FILE:FUNCTION"
"""Names that need no catalogue entry."""
FILE = "entry.json"

_asked: dict[tuple[str, Path, Path], BackboneEntry] = {}
"""(name, cache, interpreter) → what this process was told."""


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if it can be a backbone's: in the catalogue, or of one of the ``FORMS``.

    Args:
        kind: What the name stands for and where, as in "backbone in my.toml".

    Raises:
        UserError: It cannot; the nearest known name is told.
    """
    library, colon, rest = name.partition(":")
    if not colon:
        try:
            return choose(kind, name, BACKBONES)
        except UserError as error:
            raise UserError(error.message, f"{error.hint} Or one of {FORMS}.") from None
    choose(f"kind of {kind}", library, (*LIBRARIES, OWN))
    file, _, function = rest.rpartition(":")
    if library == OWN and not (file.endswith(".py") and function.isidentifier()):
        raise UserError(f"Backbone '{name}' is not of the form module:FILE.py:FUNCTION.")
    if not rest:
        raise UserError(f"Backbone '{name}' names no network.", f"Say {library}:NAME.")
    return name


def is_dynamic(name: str) -> bool:
    """Whether a name has no catalogue entry of its own."""
    return ":" in name


def public_name(name: str) -> str:
    """A backbone's name without folders of this machine: ``module:my_net.py:build``."""
    library, _, rest = name.partition(":")
    return f"{OWN}:{Path(rest).name}" if library == OWN else name


def folder_name(name: str) -> str:
    """A backbone's name as a part of a path."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", public_name(name))


def backbone(name: str, interpreters: Interpreters, cache: Path | None = None) -> BackboneEntry:
    """The entry of any backbone.

    Args:
        name: In the catalogue, or one of the ``FORMS``.
        interpreters: Which Python is asked.
        cache: Root of the cache; None: the user's.

    Raises:
        UserError: No such network, or one that cannot be used.
        Unavailable: Its library is not installed.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    check_name("backbone", name)
    cache = cache or cache_root()
    key = (name, cache, interpreters.of(EXPORTER))
    if key not in _asked:
        own = name.startswith(f"{OWN}:")
        _asked[key] = _describe(_absolute(name) if own else name, cache, interpreters, keep=not own)
    return _asked[key]


def check_px(name: str, entry: BackboneEntry, px: int) -> None:
    """
    Raises:
        UserError: The backbone cannot take images of this size.
    """
    least, most = entry.min_px, entry.native_px
    if entry.fixed_px and least == most and px != most:
        raise UserError(f"{name} cannot take {px} px: it takes {most} only.", f"Use --px {most}.")
    if px < least:
        raise UserError(
            f"{name} cannot take {px} px: it needs at least {least}.", f"Use --px {least}."
        )


def worker_failure(finished: Finished, what: str, log: Path) -> UserError | Unavailable:
    """Why a torch worker gave no answer, as an exception to raise.

    Args:
        finished: How its job ended.
        what: What it was to do, as in "exporting vgg16".
        log: What it printed.
    """
    if finished.status == "unavailable":
        return Unavailable(finished.message)
    if finished.status == "bad_input":
        return UserError(finished.message, finished.hint)
    where = f"{log.parent.name}/{log.name} in Thawbench's cache"
    return Unavailable(f"{what} failed: {finished.message}; see {where}")


def _absolute(name: str) -> str:
    """A user's own network with the whole path of its file, which must be there."""
    file, _, function = name.removeprefix(f"{OWN}:").rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"Backbone '{name}': file '{file}' {what}.")
    return f"{OWN}:{path.resolve()}:{function}"


def _describe(name: str, cache: Path, interpreters: Interpreters, keep: bool) -> BackboneEntry:
    if not keep:
        return _ask(name, cache, interpreters)
    environment = environment_of(EXPORTER, "cpu", interpreters.of(EXPORTER))
    key = canonical_hash([name, environment.packages, environment.thawbench])[:24]
    folder = cache / "backbones" / f"{folder_name(name)}-{key}"
    entry = _read(folder)
    if entry is None:
        entry = _ask(name, cache, interpreters)
        text = entry.model_dump_json(indent=1)
        build_folder(
            folder,
            lambda content: _write(content, text),
            lambda whole: _read(whole) is not None,
        )
    return entry


def _write(folder: Path, text: str) -> None:
    (folder / FILE).write_text(text, encoding="utf-8")


def _read(folder: Path) -> BackboneEntry | None:
    try:
        return BackboneEntry.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _ask(name: str, cache: Path, interpreters: Interpreters) -> BackboneEntry:
    log = cache / "logs" / f"describe-{folder_name(name)}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    finished = run_job(EXPORTER, {"task": "describe", "backbone": name}, log, interpreters)
    if finished.answer is None:
        raise worker_failure(finished, f"describing {public_name(name)}", log)
    return BackboneEntry.model_validate(finished.answer["entry"])
