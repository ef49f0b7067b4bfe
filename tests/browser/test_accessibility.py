"""axe-core on whole reports, in both themes and on a phone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Open


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [("few", "light", 1280), ("few", "dark", 1280), ("upgrade", "dark", 1280),
     ("failed", "dark", 1280), ("hostile", "light", 1280), ("published", "light", 1280),
     ("published", "light", 390), ("small", "dark", 390), ("networks", "light", 1280)],
)  # fmt: skip
def test_axe_finds_nothing(open_page: Open, name: str, scheme: str, width: int) -> None:
    opened = open_page(name, draws=True, color_scheme=scheme)
    opened.page.set_viewport_size({"width": width, "height": 800})
    opened.draw_all()
    for number in (0, 1):
        opened.page.locator(f"#run-{number} summary").click()
    opened.page.locator("th button").first.click()
    # Without every node that passes: to tell of those takes twice as long as to find them.
    found = Axe().run(opened.page, options={"resultTypes": ["violations"]}).response
    assert opened.errors == []
    assert len(found["passes"]) > 20
    violations = {
        v["id"]: [node["html"][:200] for node in v["nodes"][:3]] for v in found["violations"]
    }
    assert violations == {}
