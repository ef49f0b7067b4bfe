"""What a reader does with a report: sort, filter, open a fold, change the theme, print."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import documents
from tests.browser.conftest import Open


def column(page: Page, region: str, name: str) -> list[str]:
    """Texts of a column, rows that are hidden left out."""
    table = page.locator(f"#{region}-region table")
    headings: list[str] = table.locator("thead th").evaluate_all(
        "all => all.map(h => h.dataset.name)"
    )
    cells = table.locator(f"tbody tr:visible td:nth-child({headings.index(name) + 1})")
    return cells.all_inner_texts()


def heading(page: Page, region: str, name: str) -> Locator:
    return page.locator(f'#{region}-region th[data-name="{name}"]')


def test_the_first_screen_asks_answers_and_shows_the_four_cases(open_page: Open) -> None:
    page = open_page("small").page
    for text in (documents.small()["asked"], *documents.small()["answer"], "The four cases"):
        expect(page.get_by_text(text, exact=True).first).to_be_in_viewport()
    expect(page.locator("#cases-region tbody tr").last).to_be_in_viewport()


def test_the_four_cases_of_a_real_report_are_read_without_scrolling_aside(open_page: Open) -> None:
    page = open_page("published").page
    region = page.locator("#cases-region")
    expect(region.locator("tbody tr").first).to_be_in_viewport()
    assert region.evaluate("r => r.scrollWidth <= r.clientWidth")


def test_no_error_and_no_request_whatever_is_done(open_page: Open) -> None:
    opened = open_page("small", draws=True)
    assert opened.draw_all() == 4
    opened.page.locator("#run-0 summary").click()
    opened.page.locator("#theme").click()
    opened.page.locator("th button").first.click()
    opened.page.locator("#filter-text").fill("torch")
    opened.page.mouse.move(300, 300)
    opened.page.pdf()
    assert opened.errors == []
    schemes = {urlsplit(address).scheme for address in opened.requests}
    assert schemes <= {"file", "data", "blob"}
    assert [a for a in opened.requests if a.startswith("file:")] == [opened.page.url]


def test_a_heading_sorts_up_and_down_and_what_is_absent_stays_last(open_page: Open) -> None:
    page = open_page("small").page
    head = heading(page, "table-1", "train")
    expect(head).to_have_attribute("aria-sort", "none")
    head.locator("button").click()
    assert column(page, "table-1", "train") == ["99.5", "987", "1,012", "–"]
    expect(head).to_have_attribute("aria-sort", "ascending")
    head.locator("button").click()
    assert column(page, "table-1", "train") == ["1,012", "987", "99.5", "–"]
    expect(head).to_have_attribute("aria-sort", "descending")
    other = heading(page, "table-1", "backend")
    other.locator("button").click()
    assert column(page, "table-1", "backend")[0] == "keras-jax"
    expect(head).to_have_attribute("aria-sort", "none")
    expect(page.get_by_role("status")).to_contain_text("Sorted by backend, ascending")


def test_the_runs_are_filtered_by_text_and_by_choices(open_page: Open) -> None:
    page = open_page("300").page
    count = page.locator("form[aria-label='Filter the runs'] + .count")
    expect(count).to_have_attribute("aria-live", "polite")
    expect(count).to_have_text("300 of 300 runs")
    page.get_by_label("policy", exact=True).select_option(label="fine_tune_all")
    expect(count).to_have_text("60 of 300 runs")
    assert set(column(page, "runs-table", "policy")) == {"fine_tune_all"}
    page.get_by_label("any text").fill("VGG16")
    assert set(column(page, "runs-table", "backbone")) == {"vgg16"}
    shown = len(column(page, "runs-table", "backbone"))
    expect(count).to_have_text(f"{shown} of 300 runs")
    assert page.locator(".folds details:visible").count() == shown
    page.get_by_label("any text").fill("no such run")
    expect(count).to_have_text("0 of 300 runs")
    page.get_by_role("button", name="Show all").click()
    expect(count).to_have_text("300 of 300 runs")
    for name in ("backbone", "policy", "backend", "status"):
        expect(page.get_by_label(name, exact=True)).to_be_visible()


def test_a_long_table_has_a_filter_and_a_short_one_none(open_page: Open) -> None:
    page = open_page("small").page
    expect(page.get_by_role("search", name="Filter the table Speed")).to_have_count(0)
    form = page.get_by_role("search", name="Filter the table Cost")
    form.get_by_label("rows with").fill("KERAS")
    assert column(page, "table-2", "epochs") == ["2", "4", "6", "8", "10"]
    expect(page.locator("form:has(#table-2-region-text) + .count")).to_have_text("5 of 10 rows")
    assert len(column(page, "runs-table", "backend")) == 16
    form.get_by_label("rows with").fill("")
    assert len(column(page, "table-2", "epochs")) == 10


def test_a_sorted_table_is_filtered_all_the_same(open_page: Open) -> None:
    page = open_page("small").page
    heading(page, "runs-table", "test_top1").locator("button").click()
    page.get_by_label("backend", exact=True).select_option(label="torch")
    values = [float(text) for text in column(page, "runs-table", "test_top1")]
    assert values == sorted(values)
    assert len(values) == 8


def test_a_fold_is_filled_when_it_is_first_opened(open_page: Open) -> None:
    page = open_page("small").page
    fold = page.locator("#run-0")
    assert fold.locator(".fold").count() == 0
    fold.locator("summary").click()
    key, run = next(iter(documents.small()["runs"].items()))
    for text in (run["repeat"], run["log_tail"], key.split("/")[0], "channels_last", "3,347,966"):
        expect(fold).to_contain_text(text)
    expect(fold.locator("svg.curve")).to_have_count(2)
    expect(fold.locator(".confusion tbody tr")).to_have_count(len(documents.CLASSES))
    fold.locator("summary").click()
    fold.locator("summary").click()
    expect(fold.locator(".fold")).to_have_count(1)


def test_a_run_in_the_table_leads_to_its_own_fold(open_page: Open) -> None:
    page = open_page("300").page
    heading(page, "runs-table", "test_top1").locator("button").click()
    link = page.locator("#runs-table-region tbody tr a").nth(7)
    name = link.inner_text()
    link.click()
    fold = page.locator(".folds details[open]")
    expect(fold).to_have_count(1)
    expect(fold).to_be_in_viewport()
    expect(fold).to_contain_text(name)


def test_a_failed_run_says_why_in_its_fold_and_among_what_failed(open_page: Open) -> None:
    page = open_page("small").page
    fold = page.locator(".folds details", has_text="oom")
    fold.locator("summary").click()
    for place in (fold, page.locator("section#failed")):
        expect(place).to_contain_text("oom: SIGKILL: memory ran out")


def test_the_command_can_be_copied(open_page: Open) -> None:
    page = open_page("small", permissions=["clipboard-read", "clipboard-write"]).page
    page.locator("#run-0 summary").click()
    page.get_by_role("button", name="Copy the command").click()
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == next(iter(documents.small()["runs"].values()))["repeat"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_chosen(open_page: Open, scheme: str) -> None:
    opened = open_page("small", draws=True, color_scheme=scheme)
    opened.draw_all()
    page = opened.page

    def look() -> tuple[str, str]:
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        text = page.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill")
        return paper, text

    own = look()
    page.locator("#theme").click()
    other = look()
    assert own[0] != other[0]
    assert own[1] != other[1]
    expect(page.locator(f'figure.plot:not([data-drawn="{scheme}"])')).to_have_count(4)
    page.locator("#theme").click()
    assert look() == own


def test_the_map_shows_ties_hatched_beside_the_article(open_page: Open) -> None:
    page = open_page("small").page
    maps = page.locator(".map")
    expect(maps).to_have_count(2)
    tie = maps.first.locator("td.tie").first
    expect(tie).to_contain_text("tie: freeze_all, fine_tune_last")
    assert "repeating-linear-gradient" in tie.evaluate("e => getComputedStyle(e).backgroundImage")
    expect(maps.first.locator("td.none")).to_have_text("not compared")
    expect(maps.last).to_contain_text("retrain_all")


def test_a_plots_choices_are_a_menu_of_the_page_and_all_of_them_are_printed(
    open_page: Open,
) -> None:
    opened = open_page("small", draws=True)
    opened.draw_all()
    page = opened.page
    figure = page.locator("figure.plot").last
    expect(figure.locator(".ytick")).to_have_text(["freeze_all"])
    figure.get_by_label("shown").select_option(label="fine_tune_all")
    expect(figure.locator(".ytick")).to_have_text(["fine_tune_all"])
    page.locator("#theme").click()
    expect(figure.locator(".ytick")).to_have_text(["fine_tune_all"])
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(figure.locator(".ytick")).to_have_text(["fine_tune_all", "freeze_all"])
    expect(figure.locator("p.extra")).to_have_text(["fine_tune_all", "freeze_all"])
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(figure.locator(".extra")).to_have_count(0)


def test_what_a_plot_shows_is_named_where_there_is_nothing_to_choose(open_page: Open) -> None:
    opened = open_page("few", draws=True)
    opened.draw_all()
    figure = opened.page.locator("figure.plot").last
    expect(figure.locator("p.menu")).to_have_text("freeze_all")
    expect(figure.locator("select")).to_have_count(0)
    opened.page.locator("#theme").click()
    expect(figure.locator("p.menu")).to_have_count(1)


def test_a_tall_plots_legend_is_near_its_bars(open_page: Open) -> None:
    opened = open_page("published", draws=True)
    opened.draw_all()
    figure = opened.page.locator("figure.plot", has_text="Throughput")
    assert (figure.bounding_box() or {})["height"] > 1500
    gap_px = figure.evaluate("""f => f.querySelector(".plot .points").getBoundingClientRect().top
        - f.querySelector(".legend").getBoundingClientRect().bottom""")
    assert 0 < gap_px < 25


def test_everything_is_reached_by_keyboard(open_page: Open) -> None:
    page = open_page("small").page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_be_focused()
    head = heading(page, "cases", "test_top1")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("Space")
    expect(head).to_have_attribute("aria-sort", "descending")
    outline = head.locator("button").evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"
    page.locator("#run-1 summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#run-1 .fold")).to_be_visible()


def test_without_its_script_the_page_still_has_its_tables(open_page: Open) -> None:
    page = open_page("small", java_script_enabled=False).page
    expect(page.locator("#cases-region tbody tr")).to_have_count(4)
    expect(page.locator("#runs-table-region tbody tr")).to_have_count(16)
    expect(page.locator("button:visible")).to_have_count(0)


def test_plots_far_from_the_screen_wait_until_the_browser_is_idle(open_page: Open) -> None:
    opened = open_page("small")
    figures = opened.page.locator("figure.plot")
    assert figures.last.get_attribute("data-drawn") is None
    figures.last.scroll_into_view_if_needed()
    expect(figures.last).to_have_attribute("data-drawn", "light")


def test_printing_draws_every_plot_in_light_at_once(open_page: Open, tmp_path: Path) -> None:
    opened = open_page("small", color_scheme="dark")
    page = opened.page
    assert page.locator("figure.plot:not([data-drawn])").count() > 0
    at_once = page.evaluate("""() => {
        dispatchEvent(new Event("beforeprint"));
        const drawn = document.querySelectorAll(".plot .main-svg .trace, .plot .main-svg .point");
        const plots = new Set([...drawn].map(one => one.closest("figure")));
        const looks = [plots.size, getComputedStyle(document.body).backgroundColor];
        dispatchEvent(new Event("afterprint"));
        return looks;
    }""")
    assert at_once == [4, "rgb(252, 252, 251)"]
    expect(page.locator('figure.plot[data-drawn="dark"]')).to_have_count(4)
    page.emulate_media(media="print")
    expect(page.locator("nav")).to_be_hidden()
    expect(page.locator(".filters:visible")).to_have_count(0)
    expect(page.locator("details[open]")).to_have_count(0)


def test_a_browser_that_prints_calls_for_every_plot(open_page: Open, tmp_path: Path) -> None:
    opened = open_page("small")
    printed = opened.page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert opened.page.locator("figure.plot[data-drawn]").count() == 4
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 4
