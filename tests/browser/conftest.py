"""Reports in Debian's Chromium, opened from disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from bench.report.page import write_page
from tests.browser import documents

NOTHING_IDLE = "window.requestIdleCallback = () => 0;"
INSTALL = "make chromium, or as root: apt-get install chromium"


@dataclass
class Opened:
    """A page, and what happened in it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Of the console and of scripts; refused requests are among them."""
    requests: list[str] = field(default_factory=list)
    """Addresses that the page asked for, its own among them."""
    dialogs: list[str] = field(default_factory=list)
    """Texts of alerts."""

    def draw_all(self) -> int:
        """Wait until the idle browser has drawn every plot; returns their number."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('figure.plot')].every(f => f.dataset.drawn)"
        )
        return self.page.locator("figure.plot .main-svg:first-child").count()


Open = Callable[..., Opened]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, for this package only: while Playwright runs, nobody else can run asyncio."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail(f"There is no 'chromium' here. Install it: {INSTALL}", pytrace=False)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of the page of a document: a function of documents.py, or a number of runs."""
    folder = tmp_path_factory.mktemp("pages")

    def page(name: str) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            made = documents.many(int(name)) if name.isdigit() else getattr(documents, name)()
            write_page(made, path)
        return path

    return page


@pytest.fixture
def open_page(browser: Browser, pages: Callable[[str], Path]) -> Iterator[Open]:
    """``open_page("small", color_scheme="dark")``; options are those of a browser context.

    With ``draws`` all plots are drawn, as soon as the browser is idle; else, to save time, those
    near the screen.
    """
    contexts = []

    def open_it(name: str, draws: bool = False, **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
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
