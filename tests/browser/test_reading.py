"""Reading a report: look, open details, copy, change the theme, use the keyboard."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Made, Open
from tests.browser.stores import CLASSES
from tests.browser.test_tables import heading


def test_the_first_screen_asks_answers_and_shows_the_four_cases(
    open_page: Open, made: Made
) -> None:
    page = open_page("usual").page
    document = made("usual")
    assert len(document["answer"]) >= 2
    for text in (document["asked"], *document["answer"], "The four cases"):
        expect(page.get_by_text(text, exact=True).first).to_be_in_viewport()
    expect(page.locator("#cases-region tbody tr").first).to_be_in_viewport()


def test_the_four_cases_of_a_real_report_are_read_without_scrolling_aside(open_page: Open) -> None:
    page = open_page("published").page
    region = page.locator("#cases-region")
    expect(region.locator("tbody tr").first).to_be_in_viewport()
    assert region.evaluate("r => r.scrollWidth <= r.clientWidth")


def test_only_tables_scroll_aside_on_a_telephone(open_page: Open) -> None:
    page = open_page("usual", viewport={"width": 400, "height": 800}).page
    page.locator("figure.plot").first.scroll_into_view_if_needed()
    expect(page.locator("figure.plot").first).to_have_attribute("data-drawn", "light")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_no_error_and_no_request_whatever_is_done(open_page: Open, made: Made) -> None:
    opened = open_page("few", draws=True)
    assert opened.draw_all() == len(made("few")["plots"])
    opened.page.locator("#run-0 summary").click()
    opened.page.locator("#theme").click()
    opened.page.locator("th button").first.click()
    opened.page.locator("#runs-table-region-text").fill("torch")
    opened.page.mouse.move(300, 300)
    opened.page.pdf()
    assert opened.errors == []
    schemes = {urlsplit(address).scheme for address in opened.requests}
    assert schemes <= {"file", "data", "blob"}
    assert [a for a in opened.requests if a.startswith("file:")] == [opened.page.url]


def test_details_are_filled_when_they_are_first_opened(open_page: Open, made: Made) -> None:
    page = open_page("usual").page
    details = page.locator("#run-0")
    assert details.locator(".fold").count() == 0
    details.locator("summary").click()
    key, run = next(iter(made("usual")["runs"].items()))
    for text in (run["repeat"], run["log_tail"], key.split("/")[0], "channels_last", "3,371,024"):
        expect(details).to_contain_text(text)
    curves = details.locator("figure.curve .js-plotly-plot")
    expect(curves).to_have_count(2)
    epochs = len(run["result"]["val_top1_by_epoch"])
    expect(curves.first.locator(".scatterlayer .point")).to_have_count(epochs)
    expect(details.locator(".confusion tbody tr")).to_have_count(len(CLASSES))
    details.locator("summary").click()
    details.locator("summary").click()
    expect(details.locator(".fold")).to_have_count(1)


def test_details_say_what_was_proved_of_their_run(open_page: Open) -> None:
    opened = open_page("few")
    opened.open_details()
    proved = opened.page.locator(".fold", has_text="freeze_all")
    expect(proved).to_have_count(6)
    for details in proved.all():
        expect(details).to_contain_text("Shown: a proof in float64 found the same training steps")
    other = opened.page.locator(".fold", has_text="fine_tune_all").first
    expect(other).to_contain_text("Not shown in this environment.")


def test_a_run_in_the_table_leads_to_its_own_details(open_page: Open) -> None:
    page = open_page("300").page
    heading(page, "runs-table", "test_top1").locator("button").click()
    link = page.locator("#runs-table-region tbody tr a").nth(7)
    name = link.inner_text()
    link.click()
    details = page.locator(".folds details[open]")
    expect(details).to_have_count(1)
    expect(details).to_be_in_viewport()
    expect(details).to_contain_text(name)


def test_a_failed_run_says_why_in_its_details_and_among_what_failed(open_page: Open) -> None:
    page = open_page("usual").page
    details = page.locator(".folds details", has_text="oom")
    details.locator("summary").click()
    expect(details).to_contain_text("oom: SIGKILL: memory ran out")
    line = page.locator("section#failed tbody tr")
    for text in ("oom", "memory ran out"):
        expect(line).to_contain_text(text)


def test_runs_only_failed_make_a_page_that_says_why(open_page: Open, made: Made) -> None:
    opened = open_page("failed", draws=True)
    expect(opened.page.locator("#answer")).to_contain_text("No run is ok, so there is no answer")
    for reason in ("memory ran out", "no such layer", "get them: make weights"):
        expect(opened.page.locator("section#failed")).to_contain_text(reason)
    assert opened.page.locator("figure.plot, .map").count() == 0
    assert opened.errors == []


def test_the_command_can_be_copied(open_page: Open, made: Made) -> None:
    page = open_page("usual", permissions=["clipboard-read", "clipboard-write"]).page
    page.locator("#run-0 summary").click()
    page.get_by_role("button", name="Copy the command").click()
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == next(iter(made("usual")["runs"].values()))["repeat"]


def test_the_figures_of_the_page_are_defined_on_it(open_page: Open, made: Made) -> None:
    page = open_page("usual").page
    page.get_by_role("link", name="Glossary").first.click()
    terms = page.locator("#figures dt")
    expect(terms.first).to_be_in_viewport()
    wanted = made("usual")["glossary"]
    assert terms.all_text_contents() == [entry["name"] for entry in wanted]
    assert page.locator("#figures dd").all_text_contents() == [entry["text"] for entry in wanted]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_chosen(open_page: Open, scheme: str) -> None:
    opened = open_page("few", draws=True, color_scheme=scheme)
    count = opened.draw_all()
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
    expect(page.locator(f'figure.plot:not([data-drawn="{scheme}"])')).to_have_count(count)
    page.locator("#theme").click()
    assert look() == own


def test_the_map_shows_ties_hatched_beside_the_article(open_page: Open, made: Made) -> None:
    page = open_page("machines").page
    maps = page.locator(".map")
    expect(maps).to_have_count(2)
    tied = next(cell for cell in made("machines")["map"]["cells"] if cell["is_tie"])
    tie = maps.first.locator("td.tie").first
    expect(tie).to_contain_text(f"tie: {', '.join(tied['best'])}")
    assert "repeating-linear-gradient" in tie.evaluate("e => getComputedStyle(e).backgroundImage")
    expect(maps.first.locator("td.none").first).to_have_text("not compared")
    expect(maps.last).to_contain_text("retrain_all")


def test_everything_is_reached_by_keyboard(open_page: Open) -> None:
    page = open_page("usual").page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_be_focused()
    head = heading(page, "cases", "best_top1")
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
    page = open_page("usual", java_script_enabled=False).page
    expect(page.locator("#cases-region tbody tr")).to_have_count(8)
    expect(page.locator("#runs-table-region tbody tr")).to_have_count(16)
    expect(page.locator("button:visible")).to_have_count(0)
