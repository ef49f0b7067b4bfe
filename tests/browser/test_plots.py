"""Plots are drawn when they are wanted, can be chosen in, and are all printed."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Made, Open

DRAWN = """() => {
    const canvases = [...document.querySelectorAll(".plot .canvas")];
    return canvases.map(canvas => [
        canvas.closest("figure").querySelector("h2, h3").textContent,
        canvas.querySelectorAll(".main-svg .trace, .main-svg .point").length,
        canvas.querySelector(".bglayer rect, .plotbg rect, .bg").getBBox().height,
        Number(canvas.querySelector(".legend .scrollbar")?.getAttribute("height") ?? 0),
    ]);
}"""
"""Title, marks, height and length of the legend's scroll bar of each plot."""


def test_plots_far_from_the_screen_wait_until_the_browser_is_idle(open_page: Open) -> None:
    opened = open_page("usual")
    figures = opened.page.locator("figure.plot")
    assert figures.last.get_attribute("data-drawn") is None
    figures.last.scroll_into_view_if_needed()
    expect(figures.last).to_have_attribute("data-drawn", "light")


def heights(figure: Locator) -> list[float]:
    """Of the marks that are seen."""
    found: list[float] = figure.locator(".canvas").evaluate(
        "c => c.data.filter(trace => trace.visible !== false).flatMap(trace => trace.y)"
    )
    return found


def test_a_plots_choices_are_a_menu_of_the_page_and_all_of_them_are_printed(
    open_page: Open, made: Made
) -> None:
    page = open_page("usual").page
    figure = page.locator("figure.plot").first
    figure.scroll_into_view_if_needed()
    expect(figure).to_have_attribute("data-drawn", "light")
    content = made("usual")["plots"][0]["figure"]
    wanted = {
        button["label"]: [
            y
            for trace, is_seen in zip(content["data"], button["args"][0]["visible"], strict=True)
            for y in trace["y"]
            if is_seen
        ]
        for button in content["layout"]["updatemenus"][0]["buttons"]
    }
    labels = list(wanted)
    assert len(labels) == 4
    assert heights(figure) == wanted[labels[0]]
    figure.get_by_label("shown").select_option(label=labels[2])
    assert heights(figure) == wanted[labels[2]]
    page.locator("#theme").click()
    assert heights(figure) == wanted[labels[2]]
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = [labels[2], *(label for label in labels if label != labels[2])]
    expect(figure.locator("p.extra")).to_have_text(printed)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(figure.locator(".extra")).to_have_count(0)


def test_what_a_plot_shows_is_named_where_there_is_nothing_to_choose(open_page: Open) -> None:
    page = open_page("few").page
    figure = page.locator("figure.plot").first
    figure.scroll_into_view_if_needed()
    expect(figure.locator("p.menu")).to_have_text("photos (stand-in), 720 images")
    expect(figure.locator("select")).to_have_count(0)
    page.locator("#theme").click()
    expect(figure.locator("p.menu")).to_have_count(1)


def test_printing_draws_every_plot_in_light_at_once(open_page: Open, made: Made) -> None:
    page = open_page("few", color_scheme="dark").page
    count = len(made("few")["plots"])
    assert page.locator("figure.plot:not([data-drawn])").count() > 0
    at_once = page.evaluate("""() => {
        dispatchEvent(new Event("beforeprint"));
        const drawn = document.querySelectorAll(".plot .main-svg .trace, .plot .main-svg .point");
        const plots = new Set([...drawn].map(one => one.closest("figure")));
        const looks = [plots.size, getComputedStyle(document.body).backgroundColor];
        dispatchEvent(new Event("afterprint"));
        return looks;
    }""")
    assert at_once == [count, "rgb(252, 252, 251)"]
    expect(page.locator('figure.plot[data-drawn="dark"]')).to_have_count(count)
    page.emulate_media(media="print")
    expect(page.locator("nav")).to_be_hidden()
    expect(page.locator(".filters:visible")).to_have_count(0)
    expect(page.locator("details[open]")).to_have_count(0)


def are_whole(found: list[tuple[str, int, float, float]]) -> None:
    for title, marks, height_px, scroll_bar_px in found:
        assert marks > 0, title
        assert height_px > 80, title
        assert scroll_bar_px == 0, f"the legend of {title} is not seen whole"


def test_no_plot_of_many_runs_is_lost_on_paper(open_page: Open, made: Made) -> None:
    page = open_page("300").page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = page.evaluate(DRAWN)
    wanted = []
    first = made("300")["first"]["plot"]
    for plot in sorted(made("300")["plots"], key=lambda plot: plot["name"] != first):
        menus = plot["figure"]["layout"].get("updatemenus")
        wanted += [plot["title"]] * (len(menus[0]["buttons"]) if menus else 1)
    assert [title for title, *_ in printed] == wanted
    are_whole(printed)


def test_a_long_legend_is_seen_whole_on_screen_and_on_paper(open_page: Open) -> None:
    opened = open_page("sweep", draws=True)
    opened.draw_all()
    are_whole(opened.page.evaluate(DRAWN))
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    are_whole(opened.page.evaluate(DRAWN))


def test_a_browser_that_prints_calls_for_every_plot(
    open_page: Open, made: Made, tmp_path: Path
) -> None:
    page = open_page("few").page
    printed = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert page.locator("figure.plot[data-drawn]").count() == len(made("few")["plots"])
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 4
