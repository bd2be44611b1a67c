"""results list, show, export."""

from __future__ import annotations

import os
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
)
from radnode.errors import RadnodeError
from radnode.model import Reason

Document = dict[str, Any]


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
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@accountable
def export(result: str, config: Path | None, output: Path) -> None:
    """Write the structured report of one result, decrypted, to a DICOM file."""
    node = open_node(config)
    report = node.results.export(result, user())
    node.settle_trail()
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise RadnodeError(f"{output} exists already; choose another name.") from error
    except OSError as error:
        raise RadnodeError(f"{output} cannot be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(report)
    click.echo(f"{output}: DICOM structured report {result}, readable by you alone")


def describe(document: Document) -> list[str]:
    """Return the lines that tell a person what a result says."""
    model = document["model"]
    lines = [f"Result {document['id']}: {_headline(document)}"]
    for number, finding in enumerate(document["findings"], 1):
        site = f", {finding['site']['meaning'].lower()}" if finding["site"] else ""
        size = f", {finding['diameter_mm']:.0f} mm" if finding["diameter_mm"] is not None else ""
        lines.append(f"  {number}. {finding['meaning']}{site}, score {finding['score']:.2f}{size}{_where(finding)}")
    if document["score"] is not None:
        score = f"score {document['score']:.2f}"
        if document["peak"] is None:
            lines.append(f"  series:      {score}, {len(document['source']['images'])} images")
        else:
            column, row = document["peak"]
            lines.append(f"  whole image: {score}, highest at column {column:.0f}, row {row:.0f}")
    lines.append(f"  model:       {model['name']} {model['version']} (device {model['device_uid']}), research use only")
    lines.append(f"  source:      SOP instance {document['source']['SOPInstanceUID']}")
    lines.append(f"  report:      SOP instance {document['report']['SOPInstanceUID']}")
    lines.append(f"  delivered:   {_delivered(document)}")
    return lines


def _headline(document: Document) -> str:
    outcome = document["outcome"].replace("_", " ")
    return outcome if document["reason"] is None else f"{outcome}. {Reason(document['reason']).text}"


def _where(finding: Document) -> str:
    if finding["region"] is None:
        return ""
    columns, rows = zip(*finding["region"]["points"], strict=True)
    place = "" if finding["region"]["frame"] is None else f" image {finding['region']['frame']},"
    return f":{place} columns {min(columns):.0f} to {max(columns):.0f}, rows {min(rows):.0f} to {max(rows):.0f}"


def _score(document: Document) -> str:
    return "" if document["score"] is None else f"{document['score']:.2f}"


def _delivered(document: Document) -> str:
    return ", ".join(map(_delivery, document["delivered"])) or "to no destination"


def _delivery(item: Document) -> str:
    tries = "1 try" if item["tries"] == 1 else f"{item['tries']} tries"
    counted = f", {tries}" if item["state"] == "waiting" and item["tries"] else ""
    return f"{item['destination']} {item['state']}{counted}"
