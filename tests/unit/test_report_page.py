"""The summary page: what it says, that hostile names stay text, and that names come out in their own script."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from pydicom.dataset import Dataset
from support import films
from support.analyses import ANALYSES, FINDING, report
from support.secondary import secondary

from radnode.model import Analysis
from radnode.print_font import glyphs
from radnode.report.page import Page, clean, compose_page, person_name
from radnode.report.page_html import html_page
from radnode.report.page_pdf import pdf_page
from radnode.report.sr import encode_report
from radnode.results import analysis_document

HOSTILE = "<script>alert(1)</script>^\"'&<img/onerror>"


class Texts(HTMLParser):
    """The tags and texts that a browser sees."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page(analysis: Analysis = FINDING, picture: bool = True, **elements: object) -> Page:
    film = films.fresh(films.OPACITY, **elements)
    part10 = encode_report(report(films.received(film), analysis))
    document = {"id": "ab" * 8, **analysis_document(analysis), "report": {"SOPInstanceUID": "2.25.1"}}
    document["source"] = {"SOPInstanceUID": str(film.SOPInstanceUID)}
    capture = secondary(film, analysis, ["sc"]).get("sc1") if picture else None
    return compose_page(document, part10, None if capture is None else encode_report(capture))


def small(**changes: object) -> Page:
    """A page that is made without an image."""
    values = {"headline": "1 finding", "identity": [("Patient", "A")], "findings": [], "facts": [], "picture": None}
    return Page(**{**values, **changes})


def test_page_says_whose_result_it_is_what_was_found_and_by_which_model() -> None:
    made = page(**films.JAPANESE)
    assert dict(made.identity)["Patient"] == "Yamada Tarou / 山田 太郎"
    assert dict(made.identity)["Study date"].count("-") == 2
    assert made.headline == "3 findings, score 0.93"
    assert made.findings[0] == ["1", "Opacity", "left lung", "0.87", "86 mm", ""]
    assert dict(made.facts)["Model"] == "cxr-opacity 1.0.0"
    assert dict(made.facts)["Image accepted"] == "2026-03-04 05:06 UTC+00:00"
    assert made.picture is not None
    assert made.picture.width == 808


def test_column_that_says_nothing_of_any_finding_is_left_out() -> None:
    rows = [["1", "Opacity", "lung", "0.63", "", ""], ["2", "Opacity", "", "0.52", "", ""]]
    seen = Texts(html_page(small(findings=rows))).texts
    assert [text for text in seen if text in {"Finding", "Site", "Score", "Size", "Image"}] == [
        "Finding",
        "Site",
        "Score",
    ]
    assert small(findings=[*rows, ["3", "Nodule", "", "0.5", "9 mm", "7"]]).filled == [0, 1, 2, 3, 4, 5]
    assert pdf_page(small(findings=rows)).count(b"/Type /Page\n") == 1


@pytest.mark.parametrize("name", ["failed", "not_attempted"])
def test_page_without_result_says_why_and_has_no_picture(name: str) -> None:
    made = page(ANALYSES[name])
    assert made.headline.startswith(name.replace("_", " ").capitalize() + ". The ")
    assert made.picture is None
    assert "No picture was made" in html_page(made).decode()
    assert pdf_page(made).startswith(b"%PDF-")


def test_page_of_no_finding_does_not_say_that_there_is_nothing() -> None:
    assert page(ANALYSES["no_finding"]).headline == "No finding above the threshold, score 0.03"


def test_hostile_name_stays_text_in_html() -> None:
    made = html_page(page(SpecificCharacterSet="ISO_IR 192", PatientName=HOSTILE, StudyDescription=HOSTILE))
    seen = Texts(made)
    assert "script" not in seen.tags
    assert any("<script>alert(1)</script> \"'&<img/onerror>" in text for text in seen.texts)
    assert made.count(b"<img") == 1
    assert b"default-src 'none'" in made


def test_html_has_the_picture_in_it_and_fetches_nothing() -> None:
    made = page()
    text = html_page(made).decode()
    [encoded] = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert shown.convert("RGB").tobytes() == made.picture.tobytes()
    assert not re.search(r"(src|href)=\"?(https?:|//)", text)
    assert "AI result - not for primary diagnosis" in text


def test_same_page_gives_the_same_bytes() -> None:
    made = page()
    assert (html_page(made), pdf_page(made)) == (html_page(made), pdf_page(made))


@pytest.mark.parametrize(
    "name", ["山田 太郎", "홍 길동", "王小東", "Müller Jörg", "Иванов Пётр", "Nguyễn Thị", "Ωνάσης"]
)
def test_font_of_the_pdf_has_every_letter_of_a_name(name: str) -> None:
    assert {ord(letter) for letter in name} <= glyphs()


def test_letters_that_the_font_lacks_stand_as_their_code_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from reportlab.pdfgen.canvas import Canvas  # noqa: PLC0415

    written: list[str] = []
    monkeypatch.setattr(Canvas, "drawString", lambda _self, _x, _y, text: written.append(text))
    pdf_page(small(identity=[("Patient", "สม A")]))
    assert "[U+0E2A][U+0E21] A" in written


def test_pdf_cuts_what_is_too_long_and_counts_what_does_not_fit() -> None:
    row = ["1", "Opacity " * 30, "lung", "0.50", "5 mm", "3"]
    assert pdf_page(small(findings=[row] * 40, identity=[("Patient", "A" * 500)])).count(b"/Type /Page\n") == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Doe^Jane", "Doe Jane"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada Tarou / 山田 太郎 / やまだ たろう"),
        ("=홍^길동", "홍 길동"),
        ("^^^^", ""),
        ("", ""),
    ],
)
def test_person_name_is_written_as_people_write_it(value: str, shown: str) -> None:
    assert person_name(value) == shown


def test_controls_and_changes_of_direction_do_not_pass() -> None:
    assert clean("a\x1b[31m\u202egnp.exe\nb") == "a\ufffd[31m\ufffdgnp.exe\ufffdb"


def test_sloppy_header_has_a_page_all_the_same() -> None:
    film: Dataset = films.fresh(films.OPACITY, StudyDate=None, PatientID=None)
    film = films.with_raw(film, "StudyDate", "DA", b"yesterday")
    film = films.with_raw(film, "PatientName", "PN", b"\xff\xfe\x1b$B")
    part10 = encode_report(report(films.received(film), FINDING))
    document = {"id": "ab" * 8, **analysis_document(FINDING), "report": {"SOPInstanceUID": "2.25.1"}}
    made = compose_page({**document, "source": {"SOPInstanceUID": "1.2"}}, part10, None)
    assert html_page(made)
    assert pdf_page(made)
