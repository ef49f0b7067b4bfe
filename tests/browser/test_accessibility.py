"""axe-core on whole reports, in both themes."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Open


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("few", "light"), ("few", "dark"), ("upgrade", "dark"), ("failed", "dark"),
     ("hostile", "light"), ("published", "light"), ("small", "dark"), ("networks", "light")],
)  # fmt: skip
def test_axe_finds_nothing_serious(open_page: Open, name: str, scheme: str) -> None:
    opened = open_page(name, draws=True, color_scheme=scheme)
    opened.draw_all()
    for number in (0, 1):
        opened.page.locator(f"#run-{number} summary").click()
    opened.page.locator("th button").first.click()
    # Without every node that passes: to tell of those takes twice as long as to find them.
    found = Axe().run(opened.page, options={"resultTypes": ["violations"]}).response
    assert opened.errors == []
    assert len(found["passes"]) > 20
    worst = {
        v["id"]: [node["html"][:200] for node in v["nodes"][:3]]
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    }
    assert worst == {}
