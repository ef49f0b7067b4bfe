"""Data sets of the record that are made from Debian packages: letters of fonts, and game figures.

Each is a folder in the cache, divided so that the test has fonts, or figures, of its own.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.data.model import SplitName
from bench.errors import Unavailable

LETTERS = "ABCDEFGHIJ"
LETTER_PX, MARGIN_PX = 64, 6
LEAST_FONTS = 40
"""Fewest font families from which letters are drawn."""
MOST_STYLES = 4
"""Most styles of a font family, such as bold and italic."""
FIGURES = Path("/usr/share/games/wesnoth/1.16/data/core/images/units")
RACES = ("drakes", "dunefolk", "dwarves", "elves-wood", "human-loyalists", "human-magi", "monsters",
         "orcs", "saurians", "undead-skeletal")  # fmt: skip
MOST_FIGURES = 240
"""Most pictures of a race: those of a figure are alike, so that more say little."""
TEST_SHARE, VAL_SHARE = 0.35, 0.15
UNIT_END = "--"
GROUP_BY = f"([^/]+?){UNIT_END}"
"""Regular expression for what a file belongs to."""


def letters(cache: Path) -> Path:
    """Return the folder of ten capital letters, drawn in each installed font with Latin letters;
    raise Unavailable if there are few."""
    fonts = _fonts()
    if len(fonts) < LEAST_FONTS:
        raise Unavailable(
            f"{len(fonts)} font families with Latin letters are installed, letters need "
            f"{LEAST_FONTS}: CONTRIBUTING.md names Debian's packages"
        )
    return _made(cache / "record" / "letters", _letters(fonts))


def figures(cache: Path) -> Path:
    """Return the folder of the figures of ten races of a game; raise Unavailable if its package is
    not installed."""
    if not FIGURES.is_dir():
        raise Unavailable("apt-get install wesnoth-1.16-data")
    return _made(cache / "record" / "figures", _figures())


Made = tuple[str, str, str, Image.Image]
"""Class, what it belongs to (a font, a figure), name of the file without its ending, picture."""


def _made(root: Path, pictures: Iterator[Made]) -> Path:
    """Write pictures as a data set in the layout of ``folder:``, unless it is there already; return
    its path."""
    if root.is_dir():
        return root
    part = root.with_name(f"{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    found = list(pictures)
    units: dict[str, set[str]] = defaultdict(set)
    for label, unit, _, _ in found:
        units[label].add(unit)
    split_of = {
        (label, unit): split for label, own in units.items() for unit, split in _split(sorted(own))
    }
    for label, unit, name, picture in found:
        folder = part / split_of[label, unit] / label
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{unit}{UNIT_END}{name}.png")
    part.rename(root)
    return root


def _split(units: Sequence[str]) -> Iterator[tuple[str, SplitName]]:
    """Yield each unit with its split, by the hash of its name."""
    ordered = sorted(units, key=_hash)
    for number, unit in enumerate(ordered):
        place = (number + 0.5) / len(ordered)
        if place < TEST_SHARE:
            yield unit, "test"
        else:
            yield unit, "val" if place < TEST_SHARE + VAL_SHARE else "train"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _fonts() -> dict[str, list[Path]]:
    """Return font family → its files, of all that have Latin letters, as fontconfig knows them."""
    if shutil.which("fc-list") is None:
        return {}
    asked = ["fc-list", "--format", "%{family[0]}\t%{file}\n", ":lang=en"]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, list[Path]] = defaultdict(list)
    for line in sorted(lines):
        family, _, file = line.partition("\t")
        if file.endswith((".ttf", ".otf")):
            found[family].append(Path(file))
    return found


def _letters(fonts: dict[str, list[Path]]) -> Iterator[Made]:
    for family, files in sorted(fonts.items()):
        for file in files[:MOST_STYLES]:
            for letter in LETTERS:
                yield letter, family, f"{file.stem}-{_hash(str(file))[:6]}", _drawn(file, letter)


def _drawn(file: Path, letter: str) -> Image.Image:
    """Return a letter, black on white, as large as the picture allows."""
    font = ImageFont.truetype(str(file), LETTER_PX)
    left, top, right, bottom = font.getbbox(letter)
    free = LETTER_PX - 2 * MARGIN_PX
    size = max(1, int(LETTER_PX * free / max(right - left, bottom - top, 1)))
    font = ImageFont.truetype(str(file), size)
    left, top, right, bottom = font.getbbox(letter)
    picture = Image.new("RGB", (LETTER_PX, LETTER_PX), "white")
    corner = (LETTER_PX - left - right) / 2, (LETTER_PX - top - bottom) / 2
    ImageDraw.Draw(picture).text(corner, letter, "black", font)
    return picture


def _figures() -> Iterator[Made]:
    for race in RACES:
        files = sorted((FIGURES / race).rglob("*.png"), key=lambda file: _hash(file.name))
        for file in files[:MOST_FIGURES]:
            name = f"{file.parent.name}-{file.stem}" if file.parent.name != race else file.stem
            with Image.open(file) as opened:
                drawn = opened.convert("RGBA")
            picture = Image.new("RGBA", drawn.size, "white")
            picture.alpha_composite(drawn)
            yield race, f"{race} {file.stem.split('-')[0]}", name, picture.convert("RGB")
