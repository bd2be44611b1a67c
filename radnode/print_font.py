"""The font of every PDF that radnode writes, embedded in it: Latin, Greek, Cyrillic, Han, kana and Hangul.

A character that it lacks, as those of Thai, Arabic and Hebrew, stands there as its code point in brackets, so that
nothing is lost and nothing looks like another name. reportlab is imported at the first use.
"""

from __future__ import annotations

import io
import lzma
from functools import cache
from importlib import resources
from typing import Final

NAME: Final = "WenQuanYi Micro Hei"  # as reportlab knows it once `glyphs` was called


@cache
def glyphs() -> frozenset[int]:
    """Make the font known to reportlab and return the code points that it has."""
    from reportlab.pdfbase import pdfmetrics  # noqa: PLC0415 (takes a while, and few commands print)
    from reportlab.pdfbase.ttfonts import TTFont  # noqa: PLC0415

    packed = resources.files("radnode").joinpath("fonts/wqy-microhei.ttf.xz").read_bytes()
    font = TTFont(NAME, io.BytesIO(lzma.decompress(packed)))
    pdfmetrics.registerFont(font)
    return frozenset(font.face.charToGlyph)


def shown(text: str) -> list[str]:
    """Return how each character of a text is written: as itself, or as [U+ABCD]."""
    known = glyphs()
    return [letter if ord(letter) in known else f"[U+{ord(letter):04X}]" for letter in text]
