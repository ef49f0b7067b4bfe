"""Digests of the code that decides or measures a number.

A digest covers whole rooms (folders), never a list of files, and reads syntax trees rather than
text. Docstrings, comments, formatting, annotations of functions, descriptions of fields and the
words of raised errors do not enter it, and neither does the file of a room in which a definition
stands. So a digest changes when a number could change, and seldom otherwise.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from bench.system import project_root

PACKAGES = ("bench", "backends")
RUN_ROOMS = (
    "bench/spec", "bench/system", "bench/storage", "bench/data", "bench/workers", "bench/network",
    "bench/training", "bench/native",
)  # fmt: skip
"""Rooms whose code decides or measures a number of every run, as do the files of ``PACKAGES`` that
lie in no room."""
EXPORT_ROOM = "backends/torch_adapter/export"
"""Folder that turns a network into a Blueprint, which every backend's run starts from."""
ROOMS = {
    "blueprint": ("bench/spec", "bench/network", EXPORT_ROOM),
    "pixels": ("bench/data",),
    "proof": ("bench/parity",),
    "benchmark": ("bench/speed",),
}
"""Rooms whose code decides a product, by the product's name; the adapters are not among them."""
ENGINES = "engines"
"""Folder of an adapter with a module for each engine."""
DIGITS = 12
VERSION = ("bench.system", ["VERSION"])
"""Module and names of the statement that holds the release."""
DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
"""Statements whose order in a file does not count, if they bind a single name."""
UNUSED_FIELDS = ("ctx", "kind", "type_comment", "type_params")
"""Fields of syntax trees that say nothing here, or that not every version of Python has."""


@functools.cache
def shared_digest() -> str:
    """Return 12 hex digits over the code that decides a run's numbers in every backend."""
    return digest_of(shared_files())


@functools.cache
def adapter_digest(backend: str, adapter: str) -> str:
    """Return 12 hex digits over the code that decides a run's numbers in one backend alone: of its
    ``adapter``, such as 'backends.keras_adapter', without the engines of other backends."""
    return digest_of(adapter_files(backend, adapter))


@functools.cache
def digest_of_rooms(made: str) -> str:
    """Return 12 hex digits over the code that decides what is ``made``, a key of ``ROOMS``."""
    return digest_of(_room_files(ROOMS[made]))


def shared_files() -> list[Path]:
    """Return the source files behind ``shared_digest``."""
    root = project_root()
    packages = [path for package in PACKAGES for path in sorted((root / package).glob("*.py"))]
    return [*packages, *_room_files([*RUN_ROOMS, EXPORT_ROOM])]


def adapter_files(backend: str, adapter: str) -> list[Path]:
    """Return the source files behind ``adapter_digest``."""
    shared = set(shared_files())
    engine = backend.partition("-")[2]
    return [
        path
        for path in _room_files([adapter.replace(".", "/")])
        if path not in shared and (path.parent.name != ENGINES or path.stem in ("__init__", engine))
    ]


def _room_files(rooms: Iterable[str]) -> list[Path]:
    return [path for room in rooms for path in sorted((project_root() / room).rglob("*.py"))]


class _Module(NamedTuple):
    """A parsed source file of a room."""

    room: str
    name: str
    tree: ast.Module


def digest_of(files: Iterable[Path]) -> str:
    """Return 12 hex digits over what source files of this project do, see the module's docstring;
    raise SyntaxError if one is not Python."""
    modules = {path: _parsed(path) for path in files}
    rooms = {m.room.replace(".", "/") for m in modules.values()}
    beside = [
        _parsed(path)
        for path in _room_files(rooms)
        if path not in modules and path.parent.name != ENGINES
    ]
    known = Counter((m.room, n) for m in (*modules.values(), *beside) for n in _defined(m.tree))
    ambiguous = {key for key, count in known.items() if count > 1}
    sources: dict[tuple[str, str], set[str]] = {key: {""} for key in known}
    for module in modules.values():
        imports = map(_Writer(module, ambiguous).imports, module.tree.body)
        for name, text in chain.from_iterable(imports):
            sources.setdefault((module.room, name), set()).add(text)
    shadowed = {key for key, texts in sources.items() if len(texts) > 1}
    items = {item for m in modules.values() for item in _items(m, ambiguous, shadowed)}
    return hashlib.sha256("\0".join(sorted(items)).encode()).hexdigest()[:DIGITS]


def _parsed(path: Path) -> _Module:
    inside = path.relative_to(project_root())
    name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
    return _Module(_room_of(name), name, ast.parse(path.read_bytes()))


def _room_of(module: str) -> str:
    """Return the room of a module: 'bench.data' for 'bench.data.photos'."""
    return ".".join(module.split(".")[:2])


def _defined(tree: ast.Module) -> list[str]:
    return [name for statement in tree.body for name in _names(statement)]


def _names(statement: ast.stmt) -> list[str]:
    """Return the names that a top-level statement binds, imports apart."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    bound = []
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.append(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.append(node.id)
    return bound


Names = set[tuple[str, str]]
"""Pairs of a room and a name."""


def _items(module: _Module, ambiguous: Names, shadowed: Names) -> Iterator[str]:
    """Yield what a module adds to its room's digest: a text for each definition and import, and one
    for all statements whose order in the file counts.

    Args:
        ambiguous: Names that several files of a room define, so that the file counts.
        shadowed: Names that mean different imports in the files of a room, likewise.
    """
    writer = _Writer(module, ambiguous)
    count = Counter(_defined(module.tree))
    ordered: list[str] = []
    bound: list[str] = []
    for statement in module.tree.body:
        names = _names(statement)
        if (module.name, names) == VERSION:
            continue  # a release by itself changes no number
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, text in writer.imports(statement):
                where = module.name if (module.room, name) in shadowed else module.room
                yield f"{where} {text}"
        elif isinstance(statement, DEFINITIONS) and [count[name] for name in names] == [1]:
            where = module.name if (module.room, names[0]) in ambiguous else module.room
            yield f"{where} {writer.text(statement)}"
        elif text := writer.text(statement):
            ordered.append(text)
            bound += names
    if ordered:
        is_ambiguous = any((module.room, name) in ambiguous for name in bound)
        yield f"{module.name if is_ambiguous else module.room} {' '.join(ordered)}"


class _Writer:
    """Writes syntax trees as texts that leave out what cannot change a number."""

    def __init__(self, module: _Module, ambiguous: Names) -> None:
        self._module = module
        self._ambiguous = ambiguous

    def imports(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        """Yield the names that a statement imports, each with a text of where it comes from, but
        none of those that only say in which file of a room a name stands."""
        source = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        if source == "__future__" or not isinstance(node, ast.Import | ast.ImportFrom):
            return
        is_own = source.partition(".")[0] in PACKAGES
        room = _room_of(source) if is_own else source
        for alias in node.names:
            name, is_ambiguous = alias.asname or alias.name, (room, alias.name) in self._ambiguous
            if is_own and room == self._module.room and name == alias.name and not is_ambiguous:
                continue
            place = source if is_ambiguous else room
            yield name, f"from {place} {alias.name} {alias.asname or ''}"

    def text(self, node: ast.AST) -> str:
        """Return a syntax tree as text; empty if nothing of it counts."""
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                return ""
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
                return ""
            case ast.Import() | ast.ImportFrom():
                return " ".join(text for _, text in self.imports(node))
            case ast.Raise() | ast.Call(func=ast.Name(id="Failure" | "UserError" | "Unavailable")):
                node = _WordsRemover().visit(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                node.returns = None
            case ast.arg():
                node.annotation = None
            case ast.Call(func=ast.Name(id="_reported")):
                node.args = []  # the description of a result's field
            case ast.Call(func=ast.Name(id="RecipeOption")):
                return ""  # a spec holds the values that are chosen by it
            case ast.keyword(
                arg="description" | "help",
                value=ast.Constant(value=str()) | ast.JoinedStr(),
            ):
                return ""
            case ast.ClassDef():
                methods = [s for s in node.body if isinstance(s, ast.FunctionDef)]
                methods.sort(key=lambda method: method.name)
                others = [s for s in node.body if not isinstance(s, ast.FunctionDef)]
                node.body = [*others, *methods]
        fields = (self._field(v) for name, v in ast.iter_fields(node) if name not in UNUSED_FIELDS)
        return f"({type(node).__name__} {' '.join(fields)})"

    def _field(self, value: object) -> str:
        if isinstance(value, ast.AST):
            return self.text(value)
        if isinstance(value, list):
            # None stands for a keyword without a default, and for ** in a dictionary.
            texts = ("None" if part is None else self._field(part) for part in value)
            return f"[{' '.join(filter(None, texts))}]"
        return "" if value is None else repr(value)


class _WordsRemover(ast.NodeTransformer):
    """Replaces the texts of a syntax tree, which only readers see, by empty ones."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        return ast.Constant("")
