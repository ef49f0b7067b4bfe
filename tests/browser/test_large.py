"""Benchmark of a browser that opens and sorts a report of 300 runs."""

from __future__ import annotations

from playwright.sync_api import Page, expect
from pytest_benchmark.fixture import BenchmarkFixture

from tests.browser.conftest import Open


def test_300_runs_are_shown_and_sorted(open_page: Open, benchmark: BenchmarkFixture) -> None:
    def open_and_sort() -> Page:
        page = open_page("300", draws=True).page
        page.locator('#runs-table-region th[data-name="test_top1"] button').click()
        expect(page.locator('th[aria-sort="ascending"]')).to_have_count(1)
        return page

    page = benchmark.pedantic(open_and_sort)
    painted_ms = page.evaluate("""() => new Promise(resolve => {
        const name = "first-contentful-paint";
        new PerformanceObserver(list => resolve(list.getEntriesByName(name)[0].startTime))
            .observe({type: "paint", buffered: true});
    })""")
    sortable_ms = page.evaluate("performance.getEntriesByName('thawbench-sortable')[0].startTime")
    benchmark.extra_info.update(painted_ms=painted_ms, sortable_ms=sortable_ms)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
