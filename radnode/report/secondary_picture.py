"""The picture of a result: the source as a monitor shows it, findings outlined, and bands that say what it is.

It is made to be read on a screen of one megapixel without zooming and on a phone: at most about 1,000 pixels high, text
of 24 pixels and more, thick lines with a dark edge that stand out on black and on white. The bands lie outside of the
image; no patient data is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from radnode.model import Analysis, Finding, Outcome, View
from radnode.report.codes import ascii_text

WARNING = "AI result - not for primary diagnosis"
_WIDTH = 640  # pixels; no picture is narrower, so that its bands can be read
_LINES = 3  # findings that are listed under the image

_TITLE_BAND, _LINE, _SMALL_LINE, _MARGIN = 50, 34, 32, 14  # pixels
_TITLE_SIZE, _TEXT_SIZE, _LABEL_SIZE, _SMALL_SIZE = 32, 28, 26, 24  # pixels
_AMBER, _BLACK, _WHITE, _GRAY, _BAND = (255, 191, 0), (0, 0, 0), (255, 255, 255), (190, 190, 190), (24, 24, 24)
_OUTLINES = ((255, 221, 51), (90, 225, 255), (255, 150, 230))  # yellow, cyan, pink: apart for the colour-blind too

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Point = tuple[float, float]
_Box = tuple[float, float, float, float]


def draw(view: View, analysis: Analysis, frame: int | None, images: int) -> Image.Image:
    """Return the picture, RGB, of one analysed image; `frame` says which of the `images` it is, from 1.

    Findings that lie on another image are listed, not outlined.
    """
    lines = _lines(analysis, frame, images)
    band = 2 * _MARGIN + _LINE * len(lines) + _SMALL_LINE
    width = max(view.columns, _WIDTH)
    picture = Image.new("RGB", (width, _TITLE_BAND + view.rows + band), _BLACK)
    left, top = (width - view.columns) // 2, _TITLE_BAND
    picture.paste(Image.frombytes("L", (view.columns, view.rows), view.pixels).convert("RGB"), (left, top))
    pen = ImageDraw.Draw(picture)
    _outline_findings(pen, view, analysis, frame if images > 1 else None, (left, top))
    pen.rectangle((0, 0, width, _TITLE_BAND - 1), fill=_AMBER)
    _text(pen, (width / 2, _TITLE_BAND / 2), WARNING, _TITLE_SIZE, _BLACK, width - 2 * _MARGIN, anchor="mm")
    pen.rectangle((0, top + view.rows, width, picture.height), fill=_BAND)
    y = top + view.rows + _MARGIN
    for text, color in lines:
        _text(pen, (_MARGIN, y), text, _TEXT_SIZE, color, width - 2 * _MARGIN)
        y += _LINE
    _text(pen, (_MARGIN, y), _provenance(analysis, frame, images), _SMALL_SIZE, _GRAY, width - 2 * _MARGIN)
    return picture


def _lines(analysis: Analysis, frame: int | None, images: int) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the lines under the image with their colours."""
    if analysis.outcome is not Outcome.FINDING:
        score = "" if analysis.score is None else f", score {analysis.score:.2f}"
        return [(f"No {ascii_text(analysis.target.meaning).lower()} above the threshold{score}", _WHITE)]
    shown = analysis.findings[: _LINES if len(analysis.findings) <= _LINES else _LINES - 1]
    lines = [
        (_sentence(number, finding, frame, images), outline_color(number)) for number, finding in enumerate(shown, 1)
    ]
    if rest := len(analysis.findings) - len(shown):
        lines.append((f"and {rest} more, see the structured report", _WHITE))
    return lines


def _sentence(number: int, finding: Finding, frame: int | None, images: int) -> str:
    words = [code.meaning for code in (finding.laterality, finding.site) if code is not None]
    site = f", {ascii_text(' '.join(words)).lower()}" if words else ""
    size = "" if finding.diameter_mm is None else f", {finding.diameter_mm:.0f} mm"
    other = images > 1 and finding.region is not None and finding.region.frame != frame
    place = f", image {finding.region.frame}" if other and finding.region is not None else ""
    return f"{number}  {ascii_text(finding.code.meaning)}{site}, score {finding.score:.2f}{size}{place}"


def _provenance(analysis: Analysis, frame: int | None, images: int) -> str:
    which = f", image {frame} of {images}" if images > 1 else ""
    return f"{ascii_text(analysis.model.name)} {ascii_text(analysis.model.version)}{which}"


def _outline_findings(
    pen: ImageDraw.ImageDraw, view: View, analysis: Analysis, frame: int | None, origin: tuple[int, int]
) -> None:
    """Outline the findings on this image, the first ones on top, each with a label that covers no other label."""
    across, down = view.columns / view.source_columns, view.rows / view.source_rows
    bounds = origin[0], origin[1], origin[0] + view.columns, origin[1] + view.rows
    here = [
        (number, finding, finding.region)
        for number, finding in enumerate(analysis.findings, 1)
        if finding.region is not None and (frame is None or finding.region.frame == frame)
    ]
    outlines = {
        number: [(origin[0] + column * across, origin[1] + row * down) for column, row in region.points]
        for number, _, region in here
    }
    for number, _, _ in reversed(here):
        closed = [*outlines[number], *outlines[number][:2]]  # once round and on, so that the first corner is round too
        pen.line(closed, fill=_BLACK, width=7, joint="curve")
        pen.line(closed, fill=outline_color(number), width=3, joint="curve")
    taken: list[_Box] = []
    for number, finding, _ in here:
        text = f"{number}  {ascii_text(finding.code.meaning)} {finding.score:.2f}"
        taken.append(_label(pen, text, outlines[number], outline_color(number), bounds, taken))


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    outline: Sequence[_Point],
    color: tuple[int, int, int],
    bounds: _Box,
    taken: Sequence[_Box],
) -> _Box:
    """Write a label beside an outline: above it, else below, else wherever nothing is written yet; return its place."""
    width, height = pen.textlength(text, font=_font(_LABEL_SIZE)) + 16, _LABEL_SIZE + 10.0
    xs, ys = [x for x, _ in outline], [y for _, y in outline]
    left = min(max(min(xs) - 3, bounds[0]), max(bounds[2] - width, bounds[0]))
    above, below = min(ys) - height - 5, max(ys) + 5
    places = [above, below, *(bounds[1] + step * height for step in range(int((bounds[3] - bounds[1]) // height)))]
    for top in places:
        box = (left, top, left + width, top + height)
        if top >= bounds[1] and box[3] <= bounds[3] and not any(_overlap(box, other) for other in taken):
            break
    pen.rectangle(box, fill=_BLACK, outline=color, width=2)
    pen.text((box[0] + 8, (box[1] + box[3]) / 2), text, font=_font(_LABEL_SIZE), fill=color, anchor="lm")
    return box


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def outline_color(number: int) -> tuple[int, int, int]:
    """Return the colour (RGB, 0 to 255) of a finding by its number from 1."""
    return _OUTLINES[(number - 1) % len(_OUTLINES)]


def _text(
    pen: ImageDraw.ImageDraw, at: _Point, text: str, size: int, fill: Any, width: float, anchor: str = "la"
) -> None:
    """Write a line, cut with an ellipsis where it does not fit."""
    font = _font(size)
    while len(text) > 1 and pen.textlength(text, font=font) > width:
        text = text.removesuffix("...")[:-1].rstrip() + "..."
    pen.text(at, text, font=font, fill=fill, anchor=anchor)


@cache
def _font(size: int) -> _Font:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size)
