"""Digests of code: which edits move them, and which do not.

tests/end_to_end/test_code_digest.py tests that they cover what a run imports.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bench.catalog.backends import BACKENDS
from bench.storage import code_digest
from bench.storage.code_digest import (
    ROOMS,
    adapter_digest,
    digest_of_rooms,
    shared_digest,
    shared_files,
)
from bench.system import project_root

Digests = Mapping[str, str]
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def untouched() -> Digests:
    """Compute the digests of the sources as they stand, which are those of a copy."""
    return _digests()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the sources and let digests be computed of the copy."""
    for package in ("bench", "backends"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project_root() / package, tmp_path / package, ignore=ignored)
    monkeypatch.setattr(code_digest, "project_root", lambda: tmp_path)
    return tmp_path


def _digests() -> Digests:
    """Compute all digests without their memory."""
    return {
        "shared": shared_digest.__wrapped__(),
        **{made: digest_of_rooms.__wrapped__(made) for made in ROOMS},
        **{name: adapter_digest.__wrapped__(name, e.adapter) for name, e in BACKENDS.items()},
    }


def _replaced(file: str, old: str, new: str) -> Edit:
    def edit(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text, f"{file} no longer holds {old!r}"
        (root / file).write_text(text.replace(old, new, 1))

    return edit


def _appended(file: str, text: str) -> Edit:
    def edit(root: Path) -> None:
        with (root / file).open("a") as source:
            source.write(text)

    return edit


def _moved(name: str, source: str, target: str) -> Edit:
    """Move a top-level function between files of a room and import it where it was."""

    def edit(root: Path) -> None:
        before, after = root / source, root / target
        head, _, rest = before.read_text().partition(f"\ndef {name}(")
        body, separator, tail = rest.partition("\n\n\n")
        module = source.removesuffix(".py").replace("/", ".")
        assert body, f"{source} defines no {name}"
        new = target.removesuffix(".py").replace("/", ".")
        first, _, others = head.partition("from __future__ import annotations\n")
        head = f"{first}from __future__ import annotations\n\nfrom {new} import {name}\n{others}"
        before.write_text(f"{head}{separator}{tail}")
        with after.open("a") as file:
            file.write(f"\n\ndef {name}({body}\n")
        assert module != new

    return edit


def _reformatted(root: Path) -> None:
    """Write every deciding file from its syntax tree: other line breaks and quotes, no comments."""
    for path in [*shared_files(), *(root / "backends").rglob("*.py")]:
        path.write_text(ast.unparse(ast.parse(path.read_text())))


NOTHING: frozenset[str] = frozenset()
EDITS: dict[str, tuple[Edit, frozenset[str]]] = {
    "the warm-up of a benchmark": (
        _replaced("bench/speed/timing.py", "(durations, 1 + WARMUP_STEPS)", "(durations, 1)"),
        frozenset({"benchmark"}),
    ),
    "a docstring": (
        _replaced("bench/training/schedule.py", '"""', '"""Read this twice. '),
        NOTHING,
    ),
    "a comment": (_appended("bench/training/fit.py", "# a comment\n"), NOTHING),
    "line breaks and quotes": (_reformatted, NOTHING),
    "words of an error": (
        _replaced("bench/errors.py", 'f"Unknown {kind} \'{name}\'.{guess}"', '"Unknown."'),
        NOTHING,
    ),
    "a description of a field": (
        _replaced("bench/spec/run.py", 'description="', 'description="Note: '),
        NOTHING,
    ),
    "help texts of options and headings of columns": (
        _replaced("bench/spec/run.py", 'help="', 'help="Note: '),
        NOTHING,
    ),
    "a description of a result's field": (
        _replaced("bench/spec/result.py", "Accuracy on the test split", "Top-1 on test"),
        NOTHING,
    ),
    "the name of an option": (
        _replaced("bench/spec/run.py", 'flag="--learning-rates"', 'flag="--rates"'),
        NOTHING,
    ),
    "which columns a table shows": (
        _replaced("bench/spec/run.py", "always_shown=True", "always_shown=False"),
        NOTHING,
    ),
    "the text about a data set": (
        _replaced("bench/data/registry.py", "5,000 handwritten digits", "Digits"),
        NOTHING,
    ),
    "how a network is exported": (
        _replaced("backends/torch_adapter/export/tasks.py", "seed=task.seed", "seed=7"),
        frozenset({"shared", "blueprint"}),
    ),
    "a release": (_replaced("bench/system/__init__.py", 'VERSION = "', 'VERSION = "9.'), NOTHING),
    "a function's annotation": (
        _replaced("bench/training/schedule.py", "-> float", "-> object"),
        NOTHING,
    ),
    "a local variable of an unrelated room": (
        _replaced("bench/report/format.py", "digits", "places_shown"),
        NOTHING,
    ),
    "a message of the command line": (_appended("bench/cli/main.py", "\nX = 1\n"), NOTHING),
    "an entry of the catalogue": (
        _appended("bench/catalog/backbones.py", '\nBACKBONES["mine"] = BACKBONES["vgg16"]\n'),
        NOTHING,
    ),
    "a move within a room": (
        _moved("learning_rate", "bench/training/schedule.py", "bench/training/augment.py"),
        NOTHING,
    ),
    "the Keras adapter": (
        _appended("backends/keras_adapter/trainer.py", "\nX = 1\n"),
        frozenset({"keras-tensorflow", "keras-torch", "keras-jax"}),
    ),
    "one engine of the Keras adapter": (
        _appended("backends/keras_adapter/engines/jax.py", "\nX = 1\n"),
        frozenset({"keras-jax"}),
    ),
    "the torch adapter": (
        _appended("backends/torch_adapter/trainer.py", "\nX = 1\n"),
        frozenset({"torch"}),
    ),
    "the exporter, from which every run starts": (
        _appended("backends/torch_adapter/export/translator.py", "\nX = 1\n"),
        frozenset({"shared", "blueprint"}),
    ),
    "another filter in decoding": (
        _replaced("bench/data/decode.py", "BILINEAR", "BICUBIC"),
        frozenset({"shared", "pixels"}),
    ),
    "another setting of workers": (
        _replaced("bench/workers/process.py", '"PCI_BUS_ID"', '"FASTEST_FIRST"'),
        frozenset({"shared"}),
    ),
    "the loop": (_appended("bench/training/run.py", "\nX = 1\n"), frozenset({"shared"})),
    "the head": (
        _appended("bench/network/head.py", "\nX = 1\n"),
        frozenset({"shared", "blueprint"}),
    ),
    "how proofs are judged": (
        _replaced("bench/parity/tolerances.py", "SEED = ", "SEED = 1 + "),
        frozenset({"proof"}),
    ),
    "a default value": (
        _replaced("bench/spec/run.py", "default=1.0,", "default=0.5,"),
        frozenset({"shared", "blueprint"}),
    ),
    "a new file": (
        lambda root: (root / "bench" / "training" / "more.py").write_text("X = 1\n"),
        frozenset({"shared"}),
    ),
}  # fmt: skip
"""Name of an edit → the edit, and the digests that it must move."""


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_moves_the_digests_of_what_it_can_change(
    untouched: Digests, sources: Path, name: str
) -> None:
    edit, wanted = EDITS[name]
    edit(sources)
    after = _digests()
    assert {key for key in after if untouched[key] != after[key]} == wanted


def test_same_names_of_two_files_are_not_mistaken_for_each_other(sources: Path) -> None:
    folder = sources / "bench" / "training"
    for name, value in (("one", 1), ("two", 2)):
        (folder / f"{name}.py").write_text(f"def twice():\n    return {value}\n")
    before = shared_digest.__wrapped__()
    for name, value in (("one", 2), ("two", 1)):
        (folder / f"{name}.py").write_text(f"def twice():\n    return {value}\n")
    assert shared_digest.__wrapped__() != before


def test_a_name_that_two_files_import_from_different_places_is_each_files_own(
    sources: Path,
) -> None:
    folder = sources / "bench" / "training"
    imports = (
        "from PIL.Image import BILINEAR as FILTER\n",
        "from PIL.Image import BICUBIC as FILTER\n",
    )
    found = []
    for texts in (imports, imports[::-1]):
        for name, text in zip(("one", "two"), texts, strict=True):
            (folder / f"{name}.py").write_text(
                f"{text}\ndef filter_of_{name}():\n    return FILTER\n"
            )
        found.append(shared_digest.__wrapped__())
    assert found[0] != found[1]


def test_a_name_taken_from_another_file_of_the_room_counts_outside_the_digests_files(
    sources: Path,
) -> None:
    """The exporter is part of the shared digest, the rest of the torch adapter is not."""
    before = shared_digest.__wrapped__()
    file = sources / "backends/torch_adapter/export/weights_files.py"
    old = "from backends.torch_adapter.export.constructors import AUXILIARY"
    assert old in file.read_text()
    new = "from backends.torch_adapter.native.knobs import AUXILIARY"
    file.write_text(file.read_text().replace(old, new))
    assert shared_digest.__wrapped__() != before


def test_the_order_of_statements_that_act_counts(sources: Path) -> None:
    file = sources / "bench" / "training" / "more.py"
    file.write_text("X = {}\nX['a'] = 1\nX['a'] = 2\n")
    before = shared_digest.__wrapped__()
    file.write_text("X = {}\nX['a'] = 2\nX['a'] = 1\n")
    assert shared_digest.__wrapped__() != before


@pytest.mark.parametrize(("value", "counts"), [("'words'", False), ("True", True), ("X", True)])
def test_only_texts_are_words_for_readers(sources: Path, value: str, counts: bool) -> None:
    """An argument named ``help`` may also decide something."""
    file = sources / "bench" / "training" / "more.py"
    file.write_text("Y = dict(help='')\n")
    before = shared_digest.__wrapped__()
    file.write_text(f"Y = dict(help={value})\n")
    assert (shared_digest.__wrapped__() != before) == counts


TUPLES = ("A, B = 1, 2\n", "A, B = 9, 2\n")
PAIRS_OF_FILES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "the file of a name that a tuple binds": (
        {"one": TUPLES[0], "two": TUPLES[1], "three": "from bench.training.one import A\n"},
        {"one": TUPLES[0], "two": TUPLES[1], "three": "from bench.training.two import A\n"},
    ),
    "tuples that change places": (
        {"one": TUPLES[0], "two": TUPLES[1]},
        {"one": TUPLES[1], "two": TUPLES[0]},
    ),
    "a name that a condition binds": (
        {"one": "if X:\n    A = 1\n", "two": "if X:\n    A = 2\n"},
        {"one": "if X:\n    A = 2\n", "two": "if X:\n    A = 1\n"},
    ),
    "which keyword has a default": (
        {"one": "def f(*, a, b=1): pass\n"},
        {"one": "def f(*, a=1, b): pass\n"},
    ),
    "the place of what fills a dictionary": (
        {"one": "Y = {'x': a, **b}\n"},
        {"one": "Y = {**a, 'x': b}\n"},
    ),
    "what takes the place of imports for types": (
        {"one": "if TYPE_CHECKING:\n    import a\nelse:\n    A = 1\n"},
        {"one": "if TYPE_CHECKING:\n    import a\nelse:\n    A = 2\n"},
    ),
}


@pytest.mark.parametrize("name", PAIRS_OF_FILES)
def test_files_that_do_other_things_have_other_digests(sources: Path, name: str) -> None:
    found = []
    for files in PAIRS_OF_FILES[name]:
        for stem, text in files.items():
            (sources / "bench" / "training" / f"{stem}.py").write_text(text)
        found.append(shared_digest.__wrapped__())
    assert found[0] != found[1]


def test_digests_are_those_of_every_supported_python(sources: Path) -> None:
    """Ignore a field that newer versions of Python add to functions."""
    before = shared_digest.__wrapped__()
    code = (
        "import ast\n"
        "for kind in (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef):\n"
        "    kind._fields = (*kind._fields, 'type_params')\n"
        "    kind.type_params = []\n"
        "from bench.storage.code_digest import shared_digest\n"
        "print(shared_digest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == before
