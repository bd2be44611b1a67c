"""The summary of a result as one page of PDF, A4, with its font in it (`radnode.print_font`)."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas

from radnode.print_font import NAME, glyphs, shown
from radnode.report.page import COLUMNS, WARNING, Page

_MARGIN = 40.0  # points, as all lengths here
_BAND = 34.0
_LINE = 1.45  # of the size of the text
_TEXT, _HEAD, _SMALL = 10.0, 15.0, 8.0
_EDGES = (0.0, 24.0, 180.0, 330.0, 390.0, 455.0)  # of the columns of the table, from the margin
_FINDINGS = 10  # rows of the table; the picture needs the rest of the page
_AMBER, _BLACK, _GRAY = (1.0, 0.75, 0.0), (0.0, 0.0, 0.0), (0.35, 0.35, 0.35)


def pdf_page(page: Page) -> bytes:
    """Return the page; the same page gives the same bytes."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4, invariant=1)
    canvas.setTitle(WARNING)
    sheet = _Sheet(canvas)
    sheet.band(WARNING)
    sheet.pairs(page.identity, _TEXT, 110.0)
    sheet.gap(8.0)
    sheet.line([(0.0, page.headline)], _HEAD)
    sheet.gap(2.0)
    if page.findings:
        sheet.table(page)
    facts = len(page.facts) * _SMALL * _LINE
    if page.picture is None:
        sheet.line([(0.0, "No picture was made of this result.")], _TEXT, _GRAY)
    else:
        sheet.picture(page.picture, facts + 12.0)
    sheet.y = _MARGIN + facts
    sheet.pairs(page.facts, _SMALL, 110.0)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


class _Sheet:
    """A page that is filled from the top; `y` is where the next thing begins."""

    def __init__(self, canvas: Any) -> None:
        self._canvas = canvas
        glyphs()
        self._width, height = A4
        self.y = height

    def band(self, text: str) -> None:
        """Write a text on amber, from edge to edge."""
        self.y -= _BAND
        self._canvas.setFillColorRGB(*_AMBER)
        self._canvas.rect(0, self.y, self._width, _BAND, stroke=0, fill=1)
        self._canvas.setFillColorRGB(*_BLACK)
        self._canvas.setFont(NAME, 16)
        self._canvas.drawCentredString(self._width / 2, self.y + 11, text)
        self.y -= 14

    def gap(self, height: float) -> None:
        """Leave room."""
        self.y -= height

    def line(self, cells: Iterable[tuple[float, str]], size: float, color: tuple[float, ...] = _BLACK) -> None:
        """Write texts, each from so far right of the margin to the next one or to the other margin."""
        self.y -= size * _LINE
        self._canvas.setFont(NAME, size)
        self._canvas.setFillColorRGB(*color)
        cells = list(cells)
        ends = [left for left, _ in cells[1:]] + [self._width - 2 * _MARGIN]
        for (left, text), end in zip(cells, ends, strict=True):
            self._canvas.drawString(_MARGIN + left, self.y, self._fitted(text, size, end - left - 4))

    def pairs(self, pairs: Iterable[tuple[str, str]], size: float, width: float) -> None:
        """Write names, and their values beside them."""
        for name, value in pairs:
            self.line([(0.0, name), (width, value)], size)

    def table(self, page: Page) -> None:
        """Write the findings."""
        self.line([(_EDGES[column], COLUMNS[column]) for column in page.filled], _TEXT, _GRAY)
        for row in page.findings[:_FINDINGS]:
            self.line([(_EDGES[column], row[column]) for column in page.filled], _TEXT)
        if (rest := len(page.findings) - _FINDINGS) > 0:
            self.line([(_EDGES[1], f"and {rest} more, see the structured report")], _TEXT)

    def picture(self, picture: Any, below: float) -> None:
        """Draw a picture as large as the page allows above so much that is still to come."""
        self.gap(12.0)
        room = self.y - _MARGIN - below
        scale = min(room / picture.height, (self._width - 2 * _MARGIN) / picture.width)
        width, height = picture.width * scale, picture.height * scale
        self.y -= height
        self._canvas.drawImage(ImageReader(picture), (self._width - width) / 2, self.y, width, height)

    def _fitted(self, text: str, size: float, width: float) -> str:
        """Return a text that the font has, cut with an ellipsis where it is too long."""
        letters = shown(text)
        if pdfmetrics.stringWidth("".join(letters), NAME, size) <= width:
            return "".join(letters)
        while letters and pdfmetrics.stringWidth("".join(letters) + "...", NAME, size) > width:
            letters.pop()
        return "".join(letters) + "..."
