"""Names from files and folders stay text, in tables, folds and plots."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.documents import HOSTILE

INJECTED = "img, h1 ~ h1, [onerror], [onmouseover], a[href^='javascript:'], iframe, object, embed"


def test_hostile_names_stay_text_everywhere(open_page: Open) -> None:
    opened = open_page("hostile", draws=True)
    page = opened.page
    opened.draw_all()
    for number in range(len(HOSTILE)):
        page.locator(f"#run-{number} summary").click()
    expect(page.locator(".fold")).to_have_count(len(HOSTILE))
    assert page.locator(INJECTED).count() == 0
    assert page.locator("h1").count() == 1
    assert page.locator("script").count() == 3
    assert opened.dialogs == []
    assert opened.errors == []
    text = page.evaluate("document.body.textContent")
    for name in HOSTILE:
        assert name in text
    assert page.title() == HOSTILE[0]
    for place in ("#not-shown li", "section#failed > ul:last-child li", "#table-1 ~ .notes li"):
        assert page.locator(place).all_text_contents()[: len(HOSTILE)] == list(HOSTILE)
    assert page.locator("#run-3 pre").last.text_content() == "\n".join(HOSTILE)


def test_hostile_names_can_be_filtered_by(open_page: Open) -> None:
    page = open_page("hostile").page
    backbones = page.get_by_label("backbone", exact=True)
    for name in (HOSTILE[1], HOSTILE[5], "__proto__"):
        backbones.select_option(index=backbones.locator("option").all_text_contents().index(name))
        expect(page.locator("form[aria-label='Filter the runs'] + .count")).to_have_text(
            f"1 of {len(HOSTILE)} runs"
        )


def test_hostile_names_stay_text_where_a_plot_shows_them(open_page: Open) -> None:
    opened = open_page("hostile", draws=True)
    opened.draw_all()
    page = opened.page
    page.locator("figure.plot").first.scroll_into_view_if_needed()
    shown = page.evaluate("""async () => {
        const canvas = document.querySelector("figure.plot .canvas");
        const texts = [];
        for (const [curveNumber] of canvas.data.entries()) {
            Plotly.Fx.hover(canvas, [{curveNumber, pointNumber: 0}]);
            texts.push(canvas.querySelector(".hoverlayer").textContent);
            // Plotly shows no two of them within 50 ms.
            await new Promise(resolve => setTimeout(resolve, 100));
        }
        const legend = [...canvas.querySelectorAll(".legendtext")].map(t => t.textContent);
        return [texts.join("\\n"), legend];
    }""")
    ok = [name for number, name in enumerate(HOSTILE) if number % 3]
    texts, legend = shown
    for name in ok:
        assert name in texts
        assert name in legend
    assert page.locator(INJECTED).count() == 0
    assert opened.dialogs == []


def test_a_script_that_is_not_the_pages_own_does_not_run(open_page: Open) -> None:
    opened = open_page("small")
    ran = opened.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        return window.ran === true;
    }""")
    assert not ran
    assert any("Content Security Policy" in error for error in opened.errors)
