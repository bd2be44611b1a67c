"""The summary of a result as one HTML file: no script, nothing fetched, to be read on a phone and to be printed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from string import Template

from radnode.report.page import COLUMNS, WARNING, Page

_DOCUMENT = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$warning</title>
<style>
  body { font: 16px/1.4 system-ui, sans-serif; color: #111; background: #fff; margin: 0 auto; max-width: 860px; }
  .warning { background: #ffbf00; font-size: 20px; font-weight: 600; padding: 10px 16px; text-align: center; }
  main { padding: 8px 16px; }
  h1 { font-size: 22px; margin: 14px 0 8px; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 8px 0; }
  dt { color: #555; }
  dd { margin: 0; overflow-wrap: anywhere; }
  table { border-collapse: collapse; width: 100%; margin: 8px 0; }
  th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid #ccc; }
  th { color: #555; font-weight: normal; }
  img { display: block; width: 100%; max-width: 640px; height: auto; margin: 12px auto; }
  .facts { font-size: 13px; }
  @page { size: A4; margin: 12mm; }
  @media print {
    body { font-size: 12px; max-width: none; }
    .warning { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
    img { width: auto; max-height: 150mm; }
  }
</style>
</head>
<body>
<div class="warning">$warning</div>
<main>
<dl>$identity</dl>
<h1>$headline</h1>
$findings
$picture
<dl class="facts">$facts</dl>
</main>
</body>
</html>
""")


def html_page(page: Page) -> bytes:
    """Return the page in UTF-8; every text of it is escaped."""
    return _DOCUMENT.substitute(
        warning=escape(WARNING),
        headline=escape(page.headline),
        identity=_pairs(page.identity),
        findings=_table(page),
        picture=_picture(page),
        facts=_pairs(page.facts),
    ).encode()


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)


def _table(page: Page) -> str:
    if not page.findings:
        return ""
    head = "".join(f"<th>{escape(COLUMNS[column])}</th>" for column in page.filled)
    cells = ("".join(f"<td>{escape(row[column])}</td>" for column in page.filled) for row in page.findings)
    rows = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _picture(page: Page) -> str:
    if page.picture is None:
        return "<p>No picture was made of this result.</p>"
    buffer = io.BytesIO()
    page.picture.save(buffer, "PNG", optimize=True)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode("ascii")}">'
