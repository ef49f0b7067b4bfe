"""The data of a page can be read back; anything else is rejected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.analysis.folders import load_runs
from bench.errors import UserError
from bench.report import make_report
from bench.report.page import DATA_START, ESCAPED_IN_JSON, read_document, write_page
from bench.spec.base import SCHEMA_VERSION
from tests.browser.conftest import Document, Made, Results


def without_runs_table(document: Document) -> Document:
    tables = [t | {"rows": []} if t["name"] == "runs" else t for t in document["tables"]]
    return json.loads(json.dumps(document | {"tables": tables}))


@pytest.mark.parametrize("name", ["few", "hostile", "failed", "machines"])
def test_the_document_comes_back(results: Results, name: str, tmp_path: Path) -> None:
    (folder,) = results(name)
    runs, problems = load_runs([folder])
    document = make_report(runs, folder, problems).page
    assert document is not None
    write_page(document, tmp_path / "report.html")
    assert read_document(tmp_path / "report.html") == without_runs_table(document)


def test_the_data_stand_in_the_page_once(made: Made, tmp_path: Path) -> None:
    write_page(made("usual"), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count(DATA_START) == 1
    for run in list(made("usual")["runs"].values())[:3]:
        assert text.count(json.dumps(run["suite"]).translate(ESCAPED_IN_JSON)) == 1


@pytest.mark.parametrize("share", [0.001, 0.005, 0.5, 0.9999])
def test_a_page_that_is_cut_off_is_told(made: Made, share: float, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(made("usual"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"cut off|holds no data"):
        read_document(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!doctype html><html><body>Hello</body></html>", "not a Thawbench report"),
        (b"\xff\xfe\x00", "not a Thawbench report"),
        (b"", "not a Thawbench report"),
        (f"{DATA_START}{{</script></html>".encode(), "damaged"),
        (f"{DATA_START}[]</script></html>".encode(), "of another kind"),
        (f'{DATA_START}{{"kind": "recipe"}}</script></html>'.encode(), "of another kind"),
    ],
)
def test_what_is_no_report_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "other.html"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_document(path)


def test_a_file_that_is_not_there_and_a_newer_report_are_told(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_document(tmp_path / "absent.html")
    newer = made("usual") | {"schema_version": SCHEMA_VERSION + 1}
    write_page(newer, tmp_path / "newer.html")
    with pytest.raises(UserError, match="newer Thawbench"):
        read_document(tmp_path / "newer.html")


def test_a_number_that_is_none_is_refused_and_the_old_page_stays(
    made: Made, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    write_page(made("usual"), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_page(made("usual") | {"asked_s": float("nan")}, path)
    assert path.read_bytes() == before


def test_documents_without_tables_plots_or_runs_make_a_page(made: Made, tmp_path: Path) -> None:
    first = {"headline": "Nothing was run.", "subline": "", "boxes": [], "notes": [],
             "shape": "none", "bars": None, "matrix": None, "squares": None,
             "plot": None}  # fmt: skip
    bare = made("usual") | {"tables": [], "plots": [], "rows": [], "runs": {}, "first": first,
                            "environments": {}, "knobs": [], "notes": []}  # fmt: skip
    write_page(bare, tmp_path / "report.html")
    assert "Nothing was run." in (tmp_path / "report.html").read_text("utf-8")
