"""Names from files and folders stay text, in tables, details and plots."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Made, Open, Opened
from tests.browser.stores import HOSTILE, HOSTILE_FOLDERS

INJECTED = (
    "img, h1 ~ h1, b, [onerror], [onmouseover], [onfocus], [autofocus], iframe, object, embed, "
    "a[href^='javascript:'], svg a"
)


def is_clean(opened: Opened) -> None:
    """Nothing in the page is there that a page of plain names has not."""
    page = opened.page
    assert page.locator(INJECTED).count() == 0
    assert page.locator("h1").count() == 1
    assert page.locator("script").count() == 3
    assert page.title() == "Thawbench report"
    assert opened.dialogs == []
    assert opened.errors == []


@pytest.fixture
def whole_page(open_page: Open) -> Opened:
    """All plots drawn, all details open."""
    opened = open_page("hostile", draws=True)
    opened.draw_all()
    opened.open_details()
    return opened


def test_hostile_names_stay_text_everywhere(whole_page: Opened, made: Made) -> None:
    page = whole_page.page
    expect(page.locator(".fold")).to_have_count(4 * len(HOSTILE))
    is_clean(whole_page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    places = {
        "#table-1-region tbody td": "folder:{}, 216",
        "#runs-table-region tbody td": "folder:{}",
        "#failed-table-region tbody td": "at {} in folder-?",
        "#knobs-region th[scope=row]": "{}",
        "#environments-region th[scope=row]": "variables: {}",
        ".confusion tbody th": "{}",
        ".menu option": "folder:{}, 216 images",
    }
    for place, form in places.items():
        texts = page.locator(place).all_text_contents()
        assert [name for name in HOSTILE if form.format(name) not in texts] == []
    assert set(page.locator("pre[aria-label^='End of the log']").all_text_contents()) == {
        "\n".join(HOSTILE)
    }
    commands = [run["repeat"] for run in made("hostile")["runs"].values()]
    assert page.locator("pre[aria-label^=Command]").all_text_contents() == commands
    problems = page.locator("section#failed > ul:last-child li").all_text_contents()
    assert len(problems) == len(HOSTILE)
    for text in problems:
        assert "folder-?: skipped: not a run of Thawbench" in text


def test_hostile_names_can_be_filtered_by(open_page: Open) -> None:
    page = open_page("hostile").page
    backbones = page.get_by_label("backbone", exact=True)
    options = backbones.locator("option").all_text_contents()
    for name in (HOSTILE[1], HOSTILE[5], "__proto__"):
        wanted = name if name in options else f"module:{name}.py:{name}"
        backbones.select_option(index=options.index(wanted))
        expect(page.locator("form[aria-label='Filter the runs'] + .count")).to_have_text(
            f"4 of {4 * len(HOSTILE)} runs"
        )


def hover(page: Page, figure: int) -> tuple[str, list[str]]:
    """Texts that appear over the first mark of each visible trace, and those of the legend."""
    texts, legend = page.evaluate(
        """async (number) => {
        const canvas = document.querySelectorAll("figure.plot .canvas")[number];
        const texts = [];
        for (const [curveNumber, trace] of canvas.data.entries()) {
            if (trace.visible === false || trace.hoverinfo === "skip") continue;
            Plotly.Fx.hover(canvas, [{curveNumber, pointNumber: 0}]);
            texts.push(canvas.querySelector(".hoverlayer").textContent);
            // Plotly shows no two of them within 50 ms.
            await new Promise(resolve => setTimeout(resolve, 60));
        }
        const legend = [...canvas.querySelectorAll(".legendtext")].map(t => t.textContent);
        return [texts.join("\\n"), legend];
    }""",
        figure,
    )
    return texts, legend


def test_hostile_names_stay_text_where_a_plot_shows_them(open_page: Open) -> None:
    opened = open_page("hostile")
    page = opened.page
    figure = page.locator("figure.plot").first
    figure.scroll_into_view_if_needed()
    menu = figure.get_by_label("shown")
    for place, option in enumerate(menu.locator("option").all_text_contents()):
        name = option.removeprefix("folder:").removesuffix(", 216 images")
        assert name in HOSTILE
        menu.select_option(index=place)
        texts, legend = hover(page, 0)
        assert name in texts
        assert f"freeze_all, file {name} cdcdcdcd weights from {name}" in legend
    is_clean(opened)


def test_names_of_folders_stay_text_beside_each_other(open_page: Open) -> None:
    opened = open_page("upgrade", draws=True)
    opened.draw_all()
    opened.open_details()
    is_clean(opened)
    beside, changed = opened.page.locator("#beside"), opened.page.locator("#answer .answer").first
    expect(beside.locator("h3").first).to_have_text(
        f"Test top-1: {HOSTILE_FOLDERS[0]} and {HOSTILE_FOLDERS[1]}"
    )
    for name in HOSTILE_FOLDERS:
        expect(changed.locator("li").first).to_contain_text(f"'{name}'")
        expect(beside.locator("thead").first).to_contain_text(name)
    expect(beside.locator("td", has_text=f"variable {HOSTILE[1]}")).to_be_visible()
    expect(changed).to_contain_text(f"'{HOSTILE_FOLDERS[1]}' is faster in ")


def test_a_script_that_is_not_the_pages_own_does_not_run(open_page: Open) -> None:
    opened = open_page("usual")
    ran = opened.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        return window.ran === true;
    }""")
    assert not ran
    assert any("Content Security Policy" in error for error in opened.errors)
