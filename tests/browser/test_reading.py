"""Reading a report: look, open details, copy, change the theme, use the keyboard."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from bench.report.method import METHOD
from tests.browser.conftest import Made, Open
from tests.browser.stores import CLASSES
from tests.browser.test_tables import heading


def test_the_first_screen_answers_without_scrolling(open_page: Open, made: Made) -> None:
    page = open_page("published", viewport={"width": 1280, "height": 800}).page
    first = made("published")["first"]
    expect(page.get_by_role("heading", level=1, name=first["headline"])).to_be_in_viewport()
    for box in first["boxes"]:
        expect(page.get_by_text(box["text"], exact=True)).to_be_in_viewport(ratio=1.0)
    figure = page.locator("figure.bars")
    for row in first["bars"]["rows"]:
        line = figure.locator("tbody tr", has=page.get_by_role("rowheader", name=row["name"]))
        expect(line).to_be_in_viewport()
        expect(line).to_contain_text(row["text"])
    for note in first["notes"]:
        text = " ".join(note["sentences"])
        expect(page.get_by_text(text, exact=True)).to_have_count(1)


def test_the_picture_of_tests_frames_the_article_s_choice(open_page: Open, made: Made) -> None:
    page = open_page("published").page
    matrix = made("published")["first"]["matrix"]
    cells = page.locator(".matrix tbody td > span")
    expect(cells).to_have_count(len(matrix["rows"]) * len(matrix["tests"]))
    framed = sum(cell["article"] for row in matrix["rows"] for cell in row["cells"])
    expect(page.locator(".matrix td > .article")).to_have_count(framed)
    expect(page.locator(".matrix td > .article .unseen").first).to_contain_text(
        "the article's choice"
    )


def test_single_images_are_drawn_where_there_are_few(open_page: Open, made: Made) -> None:
    page = open_page("small").page
    squares = made("small")["first"]["squares"]
    expect(page.locator(".squares .line")).to_have_count(len(squares["rows"]))
    expect(page.locator(".squares .images i")).to_have_count(38 * len(squares["rows"]))
    wrong = sum(sum(row["wrong"]) for row in squares["rows"])
    expect(page.locator(".squares .images .wrong")).to_have_count(wrong)
    expect(page.get_by_role("heading", level=1)).to_contain_text("38 test images are too few")


def test_many_networks_show_accuracy_against_speed_first(open_page: Open) -> None:
    page = open_page("networks", draws=True).page
    plot = page.locator("#answer figure.plot")
    expect(plot).to_have_count(1)
    expect(plot).to_have_attribute("data-drawn", "light")
    expect(plot.locator("h2")).to_have_text("Accuracy against inference speed")


@pytest.mark.parametrize("store", ["usual", "published", "small", "networks"])
def test_only_tables_scroll_aside_on_a_telephone(open_page: Open, store: str) -> None:
    page = open_page(store, viewport={"width": 390, "height": 800}).page
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
        expect(details).to_contain_text("parity proved: a separate proof found that both backends")
    other = opened.page.locator(".fold", has_text="fine_tune_all").first
    expect(other).to_contain_text("parity not shown: the first steps of both runs were not")


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
    expect(opened.page.locator("#answer")).to_contain_text("No run finished: 4 runs ended")
    for reason in ("memory ran out", "no such layer", "get them: make weights"):
        expect(opened.page.locator("section#failed")).to_contain_text(reason)
    assert opened.page.locator("figure").count() == 0
    assert opened.errors == []


def test_the_command_can_be_copied(open_page: Open, made: Made) -> None:
    page = open_page("usual", permissions=["clipboard-read", "clipboard-write"]).page
    page.locator("#run-0 summary").click()
    page.get_by_role("button", name="Copy the command").click()
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == next(iter(made("usual")["runs"].values()))["repeat"]


def test_the_method_is_explained_on_the_page(open_page: Open) -> None:
    page = open_page("usual").page
    page.get_by_role("link", name="How the numbers are made").first.click()
    terms = page.locator("#method dt")
    expect(terms.first).to_be_in_viewport()
    assert terms.all_text_contents() == [name for name, _ in METHOD]
    assert page.locator("#method dd").all_text_contents() == [text for _, text in METHOD]


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


def test_everything_is_reached_by_keyboard(open_page: Open) -> None:
    page = open_page("usual").page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_be_focused()
    head = heading(page, "table-2", "leader_top1")
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
    expect(page.locator("#table-2-region tbody tr")).to_have_count(5)
    expect(page.locator("#runs-table-region tbody tr")).to_have_count(16)
    expect(page.locator("button:visible")).to_have_count(0)
