"""Tables sort and filter."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Document, Made, Open

RUNS = 300
COUNT = "form[aria-label='Filter the runs'] + .count"
FIELDS = (
    "backbone",
    "policy",
    "backend",
    "status",
    "case",
    "similarity",
    "dataset_label",
    "pairing",
)
"""Of rows, by which a page of a usual grid can be filtered."""


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


def test_a_heading_sorts_up_and_down_and_what_is_absent_stays_last(open_page: Open) -> None:
    page = open_page("precise").page
    head = heading(page, "table-1", "train")
    expect(head).to_have_attribute("aria-sort", "none")
    head.locator("button").click()
    assert column(page, "table-1", "train") == ["99.5", "987", "1,012", "not run", "–"]
    expect(head).to_have_attribute("aria-sort", "ascending")
    head.locator("button").click()
    assert column(page, "table-1", "train") == ["1,012", "987", "99.5", "not run", "–"]
    expect(head).to_have_attribute("aria-sort", "descending")
    heading(page, "table-1", "data").locator("button").click()
    assert column(page, "table-1", "data") == ["2 pages", "9", "10", "10 pages", "pages"]
    other = heading(page, "table-1", "backend")
    other.locator("button").click()
    assert column(page, "table-1", "backend")[0] == "keras-jax"
    expect(head).to_have_attribute("aria-sort", "none")
    expect(page.get_by_role("status")).to_contain_text("Sorted by backend, ascending")


SORT_ALL = """() => [...document.querySelectorAll("table.sortable")].map(table => {
    const rows = [...table.tBodies[0].rows];
    return [...table.tHead.rows[0].cells].map(heading => [1, 2].map(() => {
        heading.querySelector("button").click();
        return [...table.tBodies[0].rows].map(row => rows.indexOf(row));
    }));
})"""
"""For each table and heading: places of the rows after a first click and after a second."""


def keys_of(document: Document) -> list[list[list[Any]]]:
    """For each table, in the order of the page, and column: what its cells are sorted by."""
    tables = {
        table["name"]: [[row[place]["sort"] for row in table["rows"]]
                        for place in range(len(table["columns"]))]
        for table in document["tables"]
    }  # fmt: skip
    (runs,) = (table for table in document["tables"] if table["name"] == "runs")
    names = ["train_images" if c["name"] == "size" else c["name"] for c in runs["columns"]]
    tables["runs"] = [[row[name] for row in document["rows"]] for name in names]
    last = [tables.pop(name) for name in ("runs", "failed") if name in tables]
    return [*tables.values(), *last]


@pytest.mark.parametrize("name", ["usual", "machines"])
def test_every_column_sorts_by_its_figures_not_by_its_texts(
    open_page: Open, made: Made, name: str
) -> None:
    tables = keys_of(made(name))
    orders = open_page(name).page.evaluate(SORT_ALL)
    assert len(orders) == len(tables)
    for columns, headings in zip(tables, orders, strict=True):
        for keys, (up, down) in zip(columns, headings, strict=True):
            figures = [key for key in keys if isinstance(key, int | float)]
            if not figures:
                texts = [keys[n] for n in up if keys[n] is not None]
                assert len(list(groupby(texts))) == len(set(texts))
                assert len(texts) == len(keys) or keys[up[-1]] is None
                continue
            shown = [keys[n] for n in up][: len(figures)]
            assert shown == sorted(figures)
            assert [keys[n] for n in down][: len(figures)] == sorted(figures, reverse=True)


def test_the_runs_are_filtered_by_text_and_by_choices(open_page: Open, made: Made) -> None:
    page = open_page("300").page
    rows = made("300")["rows"]
    count = page.locator(COUNT)
    expect(count).to_have_attribute("aria-live", "polite")
    expect(count).to_have_text(f"{RUNS} of {RUNS} runs")
    page.get_by_label("policy", exact=True).select_option(label="fine_tune_all")
    wanted = [row for row in rows if row["policy"] == "fine_tune_all"]
    expect(count).to_have_text(f"{len(wanted)} of {RUNS} runs")
    assert set(column(page, "runs-table", "policy")) == {"fine_tune_all"}
    page.get_by_label("any text").fill("SQUEEZE")
    wanted = [row for row in wanted if row["backbone"] == "squeezenet1_1"]
    assert sorted(column(page, "runs-table", "run_id")) == sorted(r["run_id"] for r in wanted)
    expect(count).to_have_text(f"{len(wanted)} of {RUNS} runs")
    assert page.locator(".folds details:visible").count() == len(wanted)
    page.get_by_label("any text").fill("no such run")
    expect(count).to_have_text(f"0 of {RUNS} runs")
    page.get_by_role("button", name="Show all").click()
    expect(count).to_have_text(f"{RUNS} of {RUNS} runs")


def test_every_choice_shows_just_the_runs_that_have_it(open_page: Open, made: Made) -> None:
    page = open_page("usual").page
    found = page.evaluate("""(counter) => {
        const headings = [...document.querySelectorAll("#runs-table-region th")];
        const form = document.querySelector("form[aria-label='Filter the runs']");
        const shown = {};
        for (const select of form.querySelectorAll("select")) {
            const name = headings[Number(select.id.slice("filter-".length))].dataset.name;
            shown[name] = [...select.options].map((option, number) => {
                select.selectedIndex = number;
                form.dispatchEvent(new Event("input"));
                return [option.text, document.querySelector(counter).textContent];
            });
            select.selectedIndex = 0;
        }
        return shown;
    }""", COUNT)  # fmt: skip
    assert set(FIELDS) <= set(found)
    rows = made("usual")["rows"]
    for field in FIELDS:
        values = ["–" if row[field] is None else str(row[field]) for row in rows]
        spaced = field in ("similarity", "pairing")
        texts = Counter(text.replace("_", " ") if spaced else text for text in values)
        told = {text: count for text, count in found[field] if text != "all"}
        assert told == {text: f"{n} of {len(rows)} runs" for text, n in texts.items()}


def test_a_long_table_has_a_filter_and_a_short_one_none(open_page: Open, made: Made) -> None:
    page = open_page("usual").page
    policies = next(t for t in made("usual")["tables"] if t["name"] == "policies")
    expect(page.get_by_role("search", name="Filter the table Failed")).to_have_count(0)
    form = page.get_by_role("search", name=f"Filter the table {policies['title']}")
    everything = len(policies["rows"])
    form.get_by_label("rows with").fill("KERAS")
    shown = column(page, "table-3", "backend")
    assert set(shown) == {"keras-tensorflow"}
    assert 0 < len(shown) < everything
    expect(page.locator("form:has(#table-3-region-text) + .count")).to_have_text(
        f"{len(shown)} of {everything} rows"
    )
    assert len(column(page, "runs-table", "backend")) == 16
    form.get_by_label("rows with").fill("")
    assert len(column(page, "table-3", "backend")) == everything


def test_a_sorted_table_is_filtered_all_the_same(open_page: Open) -> None:
    page = open_page("usual").page
    heading(page, "runs-table", "fit_s").locator("button").click()
    page.get_by_label("backend", exact=True).select_option(label="torch")
    values = [float(text) for text in column(page, "runs-table", "fit_s")]
    assert values == sorted(values)
    assert len(values) == 8


def test_runs_of_two_machines_are_told_apart(open_page: Open) -> None:
    page = open_page("machines").page
    page.get_by_label("device", exact=True).select_option(label="cuda:0")
    expect(page.locator(COUNT)).to_have_text("12 of 24 runs")
    settings = column(page, "table-2", "setting")
    assert sorted(Counter(text.split(",")[0] for text in settings).items()) == [
        ("device cpu", 4), ("device cuda:0", 4),
    ]  # fmt: skip
    differing = page.locator("#environments-region .differs")
    expect(differing.locator("tr", has_text="device_model")).to_contain_text("A GPU")
    expect(page.locator("#answer .subline >> nth=0")).to_contain_text("2 cores of A CPU and A GPU")
