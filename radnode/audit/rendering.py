"""An account of the trail as text, CSV, JSON or PDF."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from textwrap import wrap
from typing import Final
from xml.sax.saxutils import escape

from radnode.audit.accounts import Account, Table
from radnode.print_font import NAME, glyphs, shown

WIDTH = 100  # characters of a paragraph of text


def text(account: Account, made: str) -> bytes:
    """Return an account for a terminal or an editor; `made` says when and by whom."""
    lines = [account.title, f"{account.basis}. {made}", ""]
    widest = max(len(name) for name, _ in account.facts)
    lines += [f"{name + ':':<{widest + 1}} {value}" for name, value in account.facts]
    for table in account.tables:
        lines += ["", f"{table.title} ({len(table.rows)})", ""]
        if table.rows:
            every = [table.columns, *table.rows]
            widths = [max(len(row[column]) for row in every) for column in range(len(table.columns))]
            lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in every]
        else:
            lines.append("none")
    for note in account.notes:
        lines += ["", *wrap(note, WIDTH)]
    return ("\n".join(_printable(line) for line in lines) + "\n").encode()


def comma_separated(account: Account, made: str) -> bytes:
    """Return an account for a spreadsheet (RFC 4180): facts, then each table behind an empty line and its title."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow((account.title, account.basis, made))
    writer.writerows(tuple(map(_inert, row)) for row in account.facts)
    for table in account.tables:
        writer.writerow(())
        writer.writerow((table.title,))
        writer.writerow(table.columns)
        writer.writerows(tuple(map(_inert, row)) for row in table.rows)
    return stream.getvalue().encode("utf-8-sig")


def as_json(account: Account, made: str) -> bytes:
    """Return an account for a program: each row an object by column."""
    document = {
        "title": account.title,
        "basis": account.basis,
        "made": made,
        "facts": dict(account.facts),
        "tables": {
            table.title: [dict(zip(table.columns, row, strict=True)) for row in table.rows] for table in account.tables
        },
        "notes": list(asdict(account)["notes"]),
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def pdf(account: Account, made: str) -> bytes:
    """Return an account for print: A4, landscape, a header and page numbers."""
    from reportlab.lib import colors  # noqa: PLC0415 (as everything of reportlab: this format alone needs it)
    from reportlab.lib.pagesizes import A4, landscape  # noqa: PLC0415
    from reportlab.lib.styles import ParagraphStyle  # noqa: PLC0415
    from reportlab.lib.units import mm  # noqa: PLC0415
    from reportlab.platypus import CondPageBreak, LongTable, Paragraph, SimpleDocTemplate, Spacer, TableStyle  # noqa: PLC0415

    glyphs()
    body = ParagraphStyle("body", fontName=NAME, fontSize=8.5, leading=11)
    small = ParagraphStyle("small", body, textColor=colors.HexColor("#555555"))
    head = ParagraphStyle("head", body, fontName=NAME, textColor=colors.white)
    title = ParagraphStyle("title", body, fontName=NAME, fontSize=17, leading=22)
    section = ParagraphStyle("section", body, fontName=NAME, fontSize=11, leading=15)
    section.spaceBefore, section.spaceAfter = 10, 4
    stream = io.BytesIO()
    margin = 15 * mm
    page = SimpleDocTemplate(
        stream,
        pagesize=landscape(A4),
        title=account.title,
        author="radnode",
        invariant=1,
        **{f"{side}Margin": margin for side in ("left", "right", "top", "bottom")},
    )
    width = landscape(A4)[0] - 2 * margin - 12  # what reportlab's frames keep free, in points

    def cell(value: str, style: ParagraphStyle = body) -> Paragraph:
        return Paragraph(escape("".join(shown(_printable(value)))), style)

    def grid(table: Table) -> LongTable:
        rows = [[cell(name, head) for name in table.columns], *([cell(value) for value in row] for row in table.rows)]
        lengths = [
            min(40, max(len(row[column]) for row in (table.columns, *table.rows))) + 5
            for column in range(len(table.columns))
        ]
        made_of = LongTable(rows, [width * length / sum(lengths) for length in lengths], repeatRows=1)
        stripes = (colors.white, colors.HexColor("#f1f4f8"))
        made_of.setStyle(
            TableStyle(
                [
                    ("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#24425f")),
                    ("ROWBACKGROUNDS", (0, 1), (-1, -1), stripes),
                    ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("TOPPADDING", (0, 0), (-1, -1), 2),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
                ]
            )
        )
        return made_of

    def footer(canvas: object, document: SimpleDocTemplate) -> None:
        canvas.setFont(NAME, 7.5)  # type: ignore[attr-defined]
        canvas.drawString(margin, 9 * mm, f"{account.title}, {account.basis}")  # type: ignore[attr-defined]
        canvas.drawRightString(landscape(A4)[0] - margin, 9 * mm, f"Page {document.page}")  # type: ignore[attr-defined]

    story = [cell(account.title, title), cell(f"{account.basis}. {made}", small), Spacer(1, 4 * mm)]
    facts = LongTable([[cell(name, small), cell(value)] for name, value in account.facts], [50 * mm, width - 50 * mm])
    facts.setStyle(TableStyle([("LEFTPADDING", (0, 0), (0, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 1)]))
    story.append(facts)
    for table in account.tables:
        story += [CondPageBreak(30 * mm), cell(f"{table.title} ({len(table.rows)})", section)]
        story.append(grid(table) if table.rows else cell("none", small))
    story.append(Spacer(1, 5 * mm))
    story += [cell(note, small) for note in account.notes]
    page.build(story, onFirstPage=footer, onLaterPages=footer)
    return stream.getvalue()


FORMATS: Final[Mapping[str, Callable[[Account, str], bytes]]] = {
    "text": text,
    "csv": comma_separated,
    "json": as_json,
    "pdf": pdf,
}


def _printable(value: str) -> str:
    """Return a text of which nothing moves a cursor or ends a line."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in value)


def _inert(value: str) -> str:
    """Return a value that a spreadsheet takes for text and not for a formula, whoever chose it."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
