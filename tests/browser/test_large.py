"""Reports of many runs: written, opened and sorted in time."""

from __future__ import annotations

import time

from playwright.sync_api import expect
from plotly.offline import get_plotlyjs

from bench.analysis.folders import load_runs
from bench.report import make_report
from tests.browser.conftest import Open, Results

VISIBLE_MS = 2000


def test_300_runs_can_be_read_and_sorted_within_two_seconds(open_page: Open) -> None:
    page = open_page("300", draws=True).page
    sortable_ms = page.evaluate("performance.getEntriesByName('thawbench-sortable')[0].startTime")
    painted_ms = page.evaluate("""() => new Promise(resolve => {
        const name = "first-contentful-paint";
        new PerformanceObserver(list => resolve(list.getEntriesByName(name)[0].startTime))
            .observe({type: "paint", buffered: true});
    })""")
    read_ms = page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")
    cases = page.locator("#cases-region")
    expect(cases.locator("tbody tr").first).to_be_in_viewport()
    assert cases.evaluate("region => region.scrollWidth <= region.clientWidth")
    assert max(sortable_ms, painted_ms, read_ms) < VISIBLE_MS
    start_s = time.perf_counter()
    page.locator('#runs-table-region th[data-name="test_top1"] button').click()
    expect(page.locator('th[aria-sort="ascending"]')).to_have_count(1)
    assert time.perf_counter() - start_s < VISIBLE_MS / 1000


def test_1000_runs_make_a_page_that_can_be_mailed(results: Results) -> None:
    (folder,) = results("1000")
    runs, _ = load_runs([folder])
    assert len(runs) == 1000
    start_s = time.perf_counter()
    make_report(runs, folder).write(["md", "csv"])
    assert time.perf_counter() - start_s < 10
    size_bytes = (folder / "report.html").stat().st_size
    assert size_bytes - len(get_plotlyjs().encode()) < 10e6
