"""Fixtures: reports of made-up runs, written by the command ``report`` and opened in Chromium."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from bench.cli.options import ReportOptions
from bench.cli.report import report_command
from bench.report.page import read_document, write_page
from bench.system import project_root
from tests.browser import stores

NOTHING_IDLE = "window.requestIdleCallback = () => 0;"
INSTALL = "make chromium, or as root: apt-get install chromium"
PUBLISHED = project_root() / "results" / "examples" / "standard" / "report.html"

Document = dict[str, Any]


@dataclass
class Opened:
    """An open page, and what happened in it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Errors of the console and of scripts, including refused requests."""
    requests: list[str] = field(default_factory=list)
    """Addresses requested, including the page's own."""
    dialogs: list[str] = field(default_factory=list)
    """Texts of alerts."""

    def draw_all(self) -> int:
        """Wait until the idle browser has drawn every plot; return their number."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('figure.plot')].every(f => f.dataset.drawn)"
        )
        return self.page.locator("figure.plot .main-svg:first-child").count()

    def open_details(self) -> None:
        """Open the details of all runs, and wait until they are filled."""
        folds = "[...document.querySelectorAll('.folds details')]"
        self.page.evaluate(f"{folds}.forEach(one => {{ one.open = true; }})")
        self.page.wait_for_function(f"{folds}.every(one => one.querySelector('.fold'))")


Open = Callable[..., Opened]
Made = Callable[[str], Document]
Results = Callable[[str], list[Path]]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start Chromium for this package only: Playwright blocks asyncio for other tests."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail(f"There is no 'chromium' here. Install it: {INSTALL}", pytrace=False)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return results folders by the name of a function of stores.py, or by a number of runs."""
    root = tmp_path_factory.mktemp("results")

    @functools.cache
    def folders(name: str) -> list[Path]:
        made = root / name
        return stores.many(made, int(name)) if name.isdigit() else getattr(stores, name)(made)

    return folders


@pytest.fixture(scope="session")
def pages(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the page of ``results``, or ``precise``, or ``published`` in today's layout."""
    apart = tmp_path_factory.mktemp("pages")

    @functools.cache
    def page(name: str) -> Path:
        if name == "precise":
            document = read_document(page("few")) | {"tables": [PRECISE], "rows": [], "runs": {}}
            write_page(document, apart / "precise.html")
            return apart / "precise.html"
        if name == "published":
            out = apart / "published"
            report_command(ReportOptions(folders=[PUBLISHED], formats="csv", out=out))
            return out / "report.html"
        folders = results(name)
        report_command(ReportOptions(folders=folders, formats="csv"))
        (written,) = folders[0].glob("report*.html")
        return written

    return page


@pytest.fixture(scope="session")
def made(pages: Callable[[str], Path]) -> Made:
    """Return the document of a page, shared by all tests and not to be changed."""
    return functools.cache(lambda name: read_document(pages(name)))


@pytest.fixture
def open_page(browser: Browser, pages: Callable[[str], Path]) -> Iterator[Open]:
    """Return a function: ``open_page("usual", color_scheme="dark")``, with browser context options.

    With ``draws``, all plots are drawn when the browser is idle; otherwise only those near the
    screen, to save time.
    """
    contexts = []

    def open_it(name: str, draws: bool = False, **options: Any) -> Opened:
        usual = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**usual, **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        opened = Opened(context.new_page())
        page = opened.page
        page.on("console", lambda message: _keep_error(opened, message.type, message.text))
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("dialog", lambda dialog: (opened.dialogs.append(dialog.message), dialog.dismiss()))
        if not draws:
            page.add_init_script(NOTHING_IDLE)
        page.goto(pages(name).as_uri())
        return opened

    yield open_it
    for context in contexts:
        context.close()


def _keep_error(opened: Opened, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        opened.errors.append(text)


def _figure(text: str, value: float | None) -> dict[str, Any]:
    return {"text": text, "sort": value}


PRECISE: dict[str, Any] = {
    "name": "speed", "title": "Speed", "caption": "Training, end to end.", "notes": [],
    "columns": [{"name": "backend", "heading": "backend", "right": False},
                {"name": "train", "heading": "train images/s", "right": True},
                {"name": "data", "heading": "data", "right": False}],
    "rows": [
        [_figure(name, name), figure, _figure(data, data)]
        for name, figure, data in (
            ("torch", _figure("1,012", 1012.3), "10"),
            ("keras-tensorflow", _figure("987", 987.1), "pages"),
            ("keras-jax", _figure("not run", "not run"), "9"),
            ("native", _figure("–", None), "2 pages"),
            ("keras-torch", _figure("99.5", 99.5), "10 pages"),
        )
    ],
}  # fmt: skip
"""A table whose texts and values sort differently."""
