"""results list, show, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from radnode.cli.common import (
    accountable,
    config_option,
    json_option,
    local_time,
    open_node,
    print_json,
    print_table,
    user,
    write_private,
)
from radnode.model import Reason

Document = dict[str, Any]
_USE = "research use only, not for primary diagnosis"
FORMS = {
    "sr": "DICOM structured report",
    "sc": "DICOM Secondary Capture",
    "gsps": "DICOM presentation state",
    "kos": "DICOM key object selection",
    "seg": "DICOM segmentation",
    "json": "findings as JSON",
    "html": "summary",
    "pdf": "summary",
}


@click.group()
def results() -> None:
    """Stored results; every use is audited."""


@results.command("list")
@config_option
@json_option
@click.option("--patient", help="Only this Patient ID.")
@click.option("--issuer", default="", help="Issuer of that Patient ID.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="How many at most.")
@accountable
def list_(config: Path | None, as_json: bool, patient: str | None, issuer: str, limit: int) -> None:
    """List results, newest first."""
    node = open_node(config)
    pseudonym = None if patient is None else node.pseudonyms.patient(issuer, patient)
    documents = node.results.listing(user(), pseudonym, limit)
    node.settle_trail()
    if as_json:
        print_json(documents)
        return
    rows = [
        (
            document["id"],
            local_time(document["created"]),
            document["outcome"],
            _score(document),
            f"{document['model']['name']} {document['model']['version']}",
            _delivered(document),
        )
        for document in documents
    ]
    print_table(("ID", "CREATED", "OUTCOME", "SCORE", "MODEL", "DELIVERED"), rows, "no results")


@results.command()
@click.argument("result", metavar="ID")
@config_option
@json_option
@accountable
def show(result: str, config: Path | None, as_json: bool) -> None:
    """Show the findings of one result."""
    node = open_node(config)
    document = node.results.show(result, user())
    node.settle_trail()
    if as_json:
        print_json(document)
    else:
        click.echo("\n".join(describe(document)))


@results.command()
@click.argument("result", metavar="ID")
@config_option
@click.option("--as", "form", default="sr", show_default=True, type=click.Choice(list(FORMS)), help="What to write.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@accountable
def export(result: str, config: Path | None, form: str, output: Path) -> None:
    """Write one result, decrypted: report (sr), secondary objects (sc, gsps, kos, seg), json, or a page (html, pdf).

    It names the patient. Of several pictures the second goes to FILE-2, and so on.
    """
    node = open_node(config)
    files = node.export(result, user(), form)
    node.settle_trail()
    for number, content in enumerate(files, 1):
        path = output if number == 1 else output.with_stem(f"{output.stem}-{number}")
        write_private(path, content)
        click.echo(f"{path}: {FORMS[form]} of {result}, readable by you alone")


def describe(document: Document) -> list[str]:
    """Return the lines that tell a person what a result says."""
    model, source = document["model"], document["source"]
    lines = [f"Result {document['id']}: {_headline(document)}"]
    for number, finding in enumerate(document["findings"], 1):
        parts = [finding["meaning"], _site(finding), f"score {finding['score']:.2f}", _size(finding)]
        lines.append(f"  {number}. {', '.join(part for part in parts if part)}{_where(finding, source)}")
    if document["score"] is not None:
        score = f"score {document['score']:.2f}"
        if document["peak"] is None:
            lines.append(f"  series:      {score}, {len(source['images'])} images")
        else:
            column, row = document["peak"]
            lines.append(f"  whole image: {score}, highest at column {column:.0f}, row {row:.0f}")
    lines.append(f"  model:       {model['name']} {model['version']} (device {model['device_uid']}), {_USE}")
    lines.append(f"  made:        {local_time(document['created'])}")
    lines.append(f"  source:      SOP instance {source['SOPInstanceUID']}")
    lines.append(f"  study:       {source['StudyInstanceUID']}")
    lines.append(f"  report:      SOP instance {document['report']['SOPInstanceUID']}")
    lines.append(f"  delivered:   {_delivered(document)}")
    for item in document["secondary"]:
        lines.append(f"  {item['object'] + ':':<12} {FORMS[item['kind']]}, SOP instance {item['SOPInstanceUID']}")
        lines.append(f"  {'':<12} {_delivered(item)}")
    return lines


def _headline(document: Document) -> str:
    outcome = document["outcome"].replace("_", " ")
    if document["reason"] is not None:
        return f"{outcome}. {Reason(document['reason']).text} This says nothing about the patient."
    count = len(document["findings"])
    return f"{outcome}, {count} {'place' if count == 1 else 'places'}" if count else outcome


def _site(finding: Document) -> str:
    """Return where in the body, with its side: "left lung"."""
    words = [finding[key]["meaning"].lower() for key in ("laterality", "site") if finding[key]]
    return " ".join(words)


def _size(finding: Document) -> str:
    """Return the diameter in mm, else what the region measures in pixels of the source."""
    if finding["diameter_mm"] is not None:
        return f"{finding['diameter_mm']:.0f} mm"
    if finding["region"] is None:
        return ""
    columns, rows = zip(*finding["region"]["points"], strict=True)
    return f"{max(columns) - min(columns):.0f} x {max(rows) - min(rows):.0f} pixels"


def _where(finding: Document, source: Document) -> str:
    region = finding["region"]
    if region is None:
        return ""
    columns, rows = zip(*region["points"], strict=True)
    place = ""
    if region["frame"] is not None:
        place = (
            f" image {region['frame']} of {len(source['images'])},"
            if "images" in source
            else f" frame {region['frame']},"
        )
    return f":{place} columns {min(columns):.0f} to {max(columns):.0f}, rows {min(rows):.0f} to {max(rows):.0f}"


def _score(document: Document) -> str:
    return "" if document["score"] is None else f"{document['score']:.2f}"


def _delivered(document: Document) -> str:
    """Return where a report, or another object, went."""
    return ", ".join(map(_delivery, document["delivered"])) or "to no destination"


def _delivery(item: Document) -> str:
    tries = "1 try" if item["tries"] == 1 else f"{item['tries']} tries"
    counted = f", {tries}" if item["state"] == "waiting" and item["tries"] else ""
    return f"{item['destination']} {item['state']}{counted}"
