"""Generated pages in RVL-CDIP's layout, as a stand-in for the real ones.

Each of the sixteen kinds is drawn from lines, strokes and blocks with random variation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from bench.storage.cache import ensure_folder


class _Sheet:
    """A page while it is drawn; positions are in pixels from the top left."""

    def __init__(self, seed: int) -> None:
        # RandomState, not Generator: all releases of NumPy draw the same numbers from it.
        self._random = np.random.RandomState(seed)
        self.width = 200 + self.whole(-8, 8)
        self.height = 260 + self.whole(-8, 8)
        self.margin = self.whole(12, 24)
        self.pitch = self.whole(5, 7)
        self.paper = self.whole(225, 255)
        self.ink = self.whole(10, 90)
        self.image = Image.new("L", (self.width, self.height), self.paper)
        self.draw = ImageDraw.Draw(self.image)

    @property
    def right(self) -> int:
        """Right edge of the text."""
        return self.width - self.margin

    def whole(self, low: int, high: int) -> int:
        """Return a random integer between ``low`` and ``high``, both included."""
        return int(self._random.randint(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self._random.random_sample() < probability)

    def line(self, x: int, y: int, length: int, size: int) -> None:
        """Draw a line that looks like text, ``size`` pixels high."""
        if length < size:
            return
        strokes = self._random.random_sample((size, length)) < 0.62
        place = 0
        while place < length:  # gaps between words
            place += self.whole(2 * size, 7 * size)
            strokes[:, place : place + size] = False
            place += size
        mask = Image.fromarray((strokes * 255).astype(np.uint8))
        self.image.paste(self.ink, (x, y), mask)

    def text(self, x: int, y: int, right: int, lines: int, *, size: int = 3) -> int:
        """Draw a paragraph with a short last line; return the position below it."""
        for number in range(lines):
            last = number == lines - 1 and lines > 1
            length = (right - x) * (self.whole(30, 90) if last else self.whole(92, 100)) // 100
            self.line(x, y, length, size)
            y += self.pitch + size - 3
        return y

    def paragraphs(self, x: int, y: int, right: int, bottom: int) -> int:
        """Draw paragraphs down to ``bottom``; return the position below the last."""
        while y + 3 * self.pitch < bottom:
            lines = min(self.whole(3, 8), (bottom - y) // self.pitch)
            y = self.text(x, y, right, lines) + self.pitch // 2 + 1
        return y

    def centred(self, y: int, length: int, size: int) -> int:
        """Draw a centred line of text; return the position below it."""
        self.line((self.width - length) // 2, y, length, size)
        return y + size + 4

    def rule(self, x: int, y: int, right: int, weight: int = 1) -> None:
        self.draw.line((x, y, right, y), fill=self.ink, width=weight)

    def box(self, x: int, y: int, right: int, bottom: int) -> None:
        self.draw.rectangle((x, y, right, bottom), outline=self.ink)

    def picture(self, x: int, y: int, right: int, bottom: int) -> None:
        """Draw a block of soft tones that looks like a photograph."""
        coarse = self._random.randint(30, 230, size=(5, 5)).astype(np.uint8)
        size = (right - x, bottom - y)
        tones = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        self.image.paste(tones, (x, y))

    def scribble(self, x: int, y: int, right: int, height: int) -> None:
        """Draw a line of handwriting around ``y``."""
        steps = max(4, (right - x) // 2)
        across = np.linspace(x, right, steps) + self._random.normal(0, 1.2, steps)
        up = self._random.normal(0, height / 2, steps)
        points = [(float(a), float(y + u)) for a, u in zip(across, up, strict=True)]
        self.draw.line(points, fill=self.ink, width=1)

    def table(self, y: int, rows: int, columns: int, *, ruled: bool) -> int:
        """Draw rows of a name and right-aligned numbers; return the position below."""
        step = self.pitch + 4
        first = self.margin + (self.right - self.margin) * self.whole(32, 42) // 100
        width = (self.right - first) // columns
        for row in range(rows):
            top = y + row * step
            self.line(self.margin + 2, top + 2, self.whole(15, first - self.margin - 6), 3)
            for column in range(columns):
                length = self.whole(8, max(9, width - 5))
                self.line(first + (column + 1) * width - length - 2, top + 2, length, 3)
        bottom = y + rows * step
        if ruled:
            for row in range(rows + 1):
                self.rule(self.margin, y + row * step - 1, self.right)
            for column in range(columns + 1):
                across = first + column * width
                self.draw.line((across, y - 1, across, bottom - 1), fill=self.ink)
        return bottom

    def finished(self) -> Image.Image:
        """Return the page as a scanner leaves it: a little crooked, with specks."""
        angle = self.whole(-15, 15) / 10
        page = self.image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=self.paper)
        specks = ImageDraw.Draw(page)
        for _ in range(self.whole(0, 25)):
            at = (self.whole(0, self.width - 1), self.whole(0, self.height - 1))
            specks.point(at, fill=self.whole(0, 160))
        return page


def draw_page(kind: str, number: int) -> Image.Image:
    """Draw page ``number`` of a kind, a key of ``KINDS``: mode L, about 200 × 260 pixels; the same
    arguments give the same page."""
    seed = hashlib.sha256(f"{kind} {number}".encode()).digest()[:4]
    sheet = _Sheet(int.from_bytes(seed, "big"))
    KINDS[kind](sheet)
    return sheet.finished()


def _letter(s: _Sheet) -> None:
    y = s.text(s.margin, s.margin, s.margin + s.whole(50, 80), 3)
    s.line(s.right - s.whole(35, 55), y + 4, 35, 3)
    y = s.text(s.margin, y + 14, s.margin + s.whole(40, 70), s.whole(3, 4)) + 8
    y = s.paragraphs(s.margin, y, s.right, s.whole(165, 195))
    x = s.margin if s.chance(0.5) else s.width // 2
    s.scribble(x, y + 12, x + s.whole(40, 60), 7)
    s.line(x, y + 22, s.whole(30, 50), 3)


def _form(s: _Sheet) -> None:
    y = s.centred(s.margin, s.whole(60, 110), 5) + 4
    while y < s.height - 35:
        parts, step = s.whole(1, 3), s.whole(14, 20)
        width = (s.right - s.margin) // parts
        for part in range(parts):
            x = s.margin + part * width
            s.box(x, y, x + width, y + step)
            s.line(x + 2, y + 2, s.whole(12, width // 2), 3)
            if s.chance(0.5):
                s.scribble(x + width // 3, y + step - 5, x + width * 3 // 4, 3)
        y += step


def _email(s: _Sheet) -> None:
    y = s.margin
    for _ in range(s.whole(4, 5)):
        s.line(s.margin, y, s.whole(16, 22), 3)
        s.line(s.margin + 30, y, s.whole(40, 110), 3)
        y += s.pitch + 2
    s.rule(s.margin, y + 2, s.right, 2)
    s.paragraphs(s.margin, y + 9, s.right - s.whole(0, 25), s.whole(105, 150))


def _handwritten(s: _Sheet) -> None:
    step, height = s.whole(13, 20), s.whole(5, 9)
    ruled = s.chance(0.4)
    for y in range(s.margin + 8, s.height - s.margin, step):
        if ruled:
            s.draw.line((0, y + 6, s.width, y + 6), fill=190)
        if s.chance(0.92):
            s.scribble(s.margin + s.whole(0, 8), y, s.right - s.whole(0, 60), height)


def _advertisement(s: _Sheet) -> None:
    top = s.whole(10, 70)
    bottom = top + s.whole(100, 150)
    s.picture(s.whole(4, 20), top, s.width - s.whole(4, 20), bottom)
    s.centred(max(4, top // 2 - 6), s.whole(100, 160), s.whole(9, 13))
    y = s.centred(bottom + 8, s.whole(80, 150), s.whole(7, 10))
    s.centred(min(y + 6, s.height - 15), s.whole(60, 120), 4)


def _scientific_report(s: _Sheet) -> None:
    y = s.centred(s.margin, s.whole(80, 130), 5)
    y = s.centred(y, s.whole(40, 70), 3) + 5
    y = s.paragraphs(s.margin, y, s.right, y + s.whole(40, 70)) + 4
    bottom = y + s.whole(60, 80)
    s.box(s.margin + 20, y, s.right - 20, bottom)
    s.scribble(s.margin + 22, (y + bottom) // 2, s.right - 22, 18)
    y = s.centred(bottom + 4, s.whole(70, 110), 3)
    s.paragraphs(s.margin, y + 4, s.right, s.height - s.margin)


def _scientific_publication(s: _Sheet) -> None:
    y = s.centred(s.margin // 2 + 4, s.whole(120, 155), 6)
    y = s.centred(y, s.whole(60, 100), 3) + 4
    s.pitch = 5
    middle, gap = s.width // 2, s.whole(4, 6)
    for x, right in ((s.margin, middle - gap), (middle + gap, s.right)):
        s.paragraphs(x, y, right, s.height - s.margin)


def _specification(s: _Sheet) -> None:
    s.box(s.margin, s.margin, s.right, s.margin + 24)
    s.line(s.margin + 4, s.margin + 5, s.whole(50, 90), 4)
    s.line(s.margin + 4, s.margin + 15, s.whole(30, 60), 3)
    s.draw.line((s.right - 45, s.margin, s.right - 45, s.margin + 24), fill=s.ink)
    y = s.margin + 34
    while y < s.height - s.margin - 15:
        s.line(s.margin, y, 9, 4)
        y = s.text(s.margin + 14, y, s.margin + s.whole(50, 90), 1) + 1
        for _ in range(s.whole(1, 3)):
            s.line(s.margin + 14, y, 6, 3)
            y = s.text(s.margin + 26, y, s.right - s.whole(0, 50), s.whole(1, 2))
        y += 4


def _file_folder(s: _Sheet) -> None:
    tone = s.whole(120, 205)
    s.draw.rectangle((0, 0, s.width, s.height), fill=tone)
    x, y = s.whole(5, 110), s.whole(4, 30)
    s.draw.rectangle((x, y, x + s.whole(60, 85), y + s.whole(18, 28)), fill=s.paper)
    s.line(x + 5, y + 6, s.whole(30, 50), 4)
    if s.chance(0.5):
        s.scribble(x + 5, y + 40, x + 60, 6)
    s.draw.line((0, y + s.whole(50, 60), s.width, y + s.whole(50, 60)), fill=tone - 50, width=2)


def _news_article(s: _Sheet) -> None:
    y = s.text(8, s.whole(6, 14), s.width - 8, s.whole(1, 2), size=s.whole(9, 12)) + 8
    columns = s.whole(3, 4)
    width = (s.width - 16) // columns
    pictured = s.whole(0, columns - 1)
    s.pitch = 5
    for column in range(columns):
        x, top = 8 + column * width, y
        if column == pictured:
            top += s.whole(35, 60)
            s.picture(x, y, x + width - 4, top - 4)
        s.paragraphs(x, top, x + width - 5, s.height - s.whole(6, 25))


def _budget(s: _Sheet) -> None:
    y = s.centred(s.margin, s.whole(70, 120), 4)
    y = s.centred(y, s.whole(40, 70), 3) + 6
    columns = s.whole(3, 5)
    while y < s.height - 70:
        y = s.table(y, s.whole(4, 7), columns, ruled=False)
        s.rule(s.margin + 60, y, s.right)
        y = s.table(y + 3, 1, columns, ruled=False)
        s.rule(s.margin + 60, y, s.right, 2)
        y += 7


def _invoice(s: _Sheet) -> None:
    side = s.whole(20, 32)
    s.draw.rectangle((s.margin, s.margin, s.margin + side, s.margin + side), fill=s.ink)
    s.line(s.right - 60, s.margin + 4, 60, s.whole(7, 9))
    y = s.margin + side + 10
    s.text(s.margin, y, s.margin + 55, 4)
    s.text(s.width // 2 + 10, y, s.right, 4)
    y = s.table(y + 36, s.whole(5, 9), s.whole(2, 3), ruled=True) + 6
    s.box(s.right - 55, y, s.right, y + 16)
    s.line(s.right - 48, y + 6, 40, 4)
    s.text(s.margin, s.height - 25, s.right, 2)


def _presentation(s: _Sheet) -> None:
    if s.chance(0.6):
        s.box(6, 6, s.width - 7, s.height - 7)
    y = s.centred(s.whole(20, 34), s.whole(90, 140), 10) + 14
    for _ in range(s.whole(4, 6)):
        x = s.margin + s.whole(0, 1) * 14
        s.draw.ellipse((x, y + 1, x + 5, y + 6), fill=s.ink)
        s.line(x + 12, y, s.whole(60, 125), 7)
        y += s.whole(22, 30)


def _questionnaire(s: _Sheet) -> None:
    y = s.centred(s.margin, s.whole(60, 120), 5) + 6
    choices = s.whole(3, 5)
    while y < s.height - s.margin - 12:
        s.line(s.margin, y, 7, 3)
        s.text(s.margin + 11, y, s.right - 14 * choices - 4, s.whole(1, 2))
        for choice in range(choices):
            x = s.right - 14 * (choices - choice) + 4
            s.box(x, y, x + 7, y + 7)
            if s.chance(0.25):
                s.draw.line((x, y, x + 7, y + 7), fill=s.ink, width=2)
        y += s.whole(15, 19)


def _resume(s: _Sheet) -> None:
    y = s.centred(s.margin, s.whole(60, 90), 7)
    y = s.centred(y, s.whole(80, 120), 3) + 4
    while y < s.height - s.margin - 25:
        s.line(s.margin, y, s.whole(35, 60), 5)
        s.rule(s.margin, y + 8, s.right)
        y += 13
        for _ in range(s.whole(2, 3)):
            s.line(s.margin, y, s.whole(22, 30), 3)
            y = s.text(s.margin + 40, y, s.right - s.whole(0, 30), s.whole(2, 3)) + 3
        y += 3


def _memo(s: _Sheet) -> None:
    s.line(s.margin, s.margin, s.whole(60, 95), s.whole(9, 12))
    y = s.margin + 24
    for _ in range(4):
        s.line(s.margin, y, s.whole(18, 24), 4)
        s.line(s.margin + 38, y, s.whole(35, 75), 4)
        y += 12
    s.rule(s.margin, y + 2, s.right, 2)
    s.paragraphs(s.margin, y + 12, s.right, s.whole(170, 235))


KINDS: dict[str, Callable[[_Sheet], None]] = {
    draw.__name__.removeprefix("_").replace("_", " "): draw
    for draw in (
        _letter, _form, _email, _handwritten, _advertisement, _scientific_report,
        _scientific_publication, _specification, _file_folder, _news_article, _budget, _invoice,
        _presentation, _questionnaire, _resume, _memo,
    )
}  # fmt: skip
"""Class of RVL-CDIP → function that draws it, in the order of the labels."""
PAGE_CLASSES = tuple(KINDS)
PAGES_REVISION = 1
"""Name of the folder in the cache, which no digest of the code enters: increase it when any page
changes."""
_PER_CLASS = {"train": 50, "val": 10, "test": 65}
"""Pages of each class in each split."""
_MANIFEST = "manifest.json"


def generated_pages(cache_dir: Path) -> Path:
    """Return the folder of the generated pages; generate them if the cache has none, and raise
    UserError if it cannot be written."""
    final = cache_dir / "synthetic_rvl_cdip" / str(PAGES_REVISION)
    ensure_folder(final, _write, _is_good, "generated pages")
    return final


def _write(folder: Path) -> None:
    (folder / "labels").mkdir()
    first = 0
    for split, count in _PER_CLASS.items():
        lines: list[str] = []
        for number in range(first, first + count):
            for label, kind in enumerate(PAGE_CLASSES):
                relative = f"{split}/{label:02d}/{number:03d}.tif"
                path = folder / "images" / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                draw_page(kind, number).save(path, compression="tiff_lzw")
                lines.append(f"{relative} {label}\n")
        (folder / "labels" / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
        first += count
    files = [path for path in folder.rglob("*") if path.is_file()]
    file_bytes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / _MANIFEST).write_text(json.dumps(file_bytes), encoding="utf-8")


def _is_good(folder: Path) -> bool:
    """Return True if every file exists with the size that it was written with."""
    try:
        file_bytes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in file_bytes.items())
    except (OSError, ValueError, AttributeError):
        return False
