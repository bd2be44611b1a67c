"""conformance: the DICOM conformance statement of the configuration, as text for people or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from radnode.cli.common import config_option, json_option, open_node, print_json
from radnode.conformance import statement


@click.command()
@config_option
@json_option
def conformance(config: Path | None, as_json: bool) -> None:
    """Print the DICOM conformance statement (PS3.2) of this configuration."""
    values = statement(open_node(config))
    if as_json:
        print_json(values)
        return
    for line in _lines(values):
        click.echo(line)


def _lines(values: dict[str, Any]) -> Iterator[str]:
    """Yield the statement in the order of PS3.2 Annex A, as Markdown."""
    implementation, entity = values["implementation"], values["application_entity"]
    yield f"# DICOM conformance statement: {implementation['name']} {implementation['version']}"
    yield ""
    yield f"Application Entity {entity['ae_title']}: Storage, Verification and Storage Commitment,"
    yield "SCP and SCU of each."
    yield f"Implementation Class UID {implementation['class_uid']},"
    yield f"Implementation Version Name {implementation['version_name']}, on the network and in stored objects."
    yield from ("", "## Associations that it accepts", "")
    plain = f", and {entity['plain_port']} without TLS" if entity["plain_port"] else ""
    yield f"Port {entity['tls_port']} (DICOM over TLS){plain}, address {entity['bind_address']}."
    yield "The application context name is 1.2.840.10008.3.1.1.1. Operations are synchronous."
    yield "Extended negotiation: SCP/SCU role selection of Storage Commitment. Role selection of other SOP classes,"
    yield "asynchronous operations window, SOP class extended and common extended negotiation and user identity are"
    yield "ignored, as are unknown user information items (PS3.8 D.2)."
    yield ""
    yield from _table(("limit", "value"), values["acceptor"].items())
    yield from _services("## As SCP", values["scp"])
    yield from ("", "What a peer may not use (`may` in [[peers]]) is answered with result 3 (PS3.8 Table 9-18).")
    policy = "is stored" if values["unanalysable"] == "store" else "is not accepted (result 3)"
    yield f"A SOP class that no detector of a rule takes {policy}. Data sets are kept as received (level 2, full)."
    yield f"Detectors that rules name: {', '.join(values['detectors']) or 'none, so that nothing is analysed'}."
    yield "An image for which no rule names one is kept, forwarded where a rule says so, and not reported on."
    yield from ("", "### Statuses of C-STORE responses", "")
    rows = values["store_statuses_sent"]
    yield from _table(("status", "name", "when"), [(row["status"], row["title"], row["meaning"]) for row in rows])
    yield from _commitment(values["commitment"])
    yield from ("", "## Associations that it requests", "")
    requestor = values["requestor"]
    yield f"To deliver reports; PDUs up to {requestor['max_pdu_bytes']} bytes are received, each step is given"
    yield f"{requestor['timeout_seconds']:g} s. Destinations:"
    yield ""
    rows = [
        (row["name"], row["ae_title"], f"{row['host']}:{row['port']}", row["tls"], row["commitment"])
        for row in requestor["destinations"]
    ]
    yield from _table(("name", "AE title", "address", "TLS", "commitment"), rows)
    yield ""
    yield "Where commitment is yes, every batch of reports is followed by one N-ACTION on the same association, which"
    yield "is kept for a second. The N-EVENT-REPORT is taken there or on an association that the destination requests"
    yield "in the role of SCP; a report that is not committed is sent again. Without an answer within"
    yield f"{values['commitment']['commitment_seconds']:g} s it is asked for again, in a new transaction, then sent."
    yield from _services("## As SCU", values["scu"])
    yield from ("", "`radnode send` proposes the SOP classes and transfer syntaxes of the files that it is given.")
    yield from ("", "### Statuses of C-STORE that it understands", "")
    rows = values["store_statuses_received"]
    yield from _table(("status", "name", "the report is"), [tuple(row.values()) for row in rows])
    yield from ("", "## Character sets", "")
    yield "Data sets of any character set are kept as received. Patient IDs are read, and reports written, in:"
    yield ", ".join(values["character_sets"]) + "."
    yield from ("", "## Security", "")
    rows = [(key, ", ".join(value) if isinstance(value, list) else value) for key, value in values["security"].items()]
    yield from _table(("property", "value"), rows)


def _commitment(values: dict[str, Any]) -> Iterator[str]:
    """Yield how storage commitments are answered."""
    yield from ("", "### Storage Commitment Push Model (PS3.4 Annex J)", "")
    yield "An N-ACTION is answered 0000 once the request is durable; committed is an instance whose object was opened"
    yield "and authenticated. The N-EVENT-REPORT comes on the same association when that is quiet for"
    yield f"{values['quiet_seconds']:g} s, else on one that the node requests in the role of SCP, and again after each"
    yield "failure, without end. Media file-sets and the Retrieve AE Title are not used. A request names at most"
    yield f"{values['max_references']} instances in {values['max_bytes']} bytes. Peers that may ask:"
    yield ""
    rows = [(row["ae_title"], row["address"] or "none: same association only", row["tls"]) for row in values["peers"]]
    yield from _table(("AE title", "address for answers", "TLS"), rows)
    yield ""
    yield from _table(("status", "name"), [tuple(row.values()) for row in values["statuses_sent"]])
    yield ""
    yield from _table(("failure reason", "name"), [tuple(row.values()) for row in values["failure_reasons"]])


def _services(heading: str, services: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the SOP classes and transfer syntaxes of a role."""
    yield from ("", heading)
    for service in services:
        for key, title in (("sop_classes", "SOP classes"), ("transfer_syntaxes", "transfer syntaxes, by preference")):
            rows = [(row["keyword"], row["uid"]) for row in service[key]]
            yield from ("", f"### {service['service']}: {title} ({len(rows)})", "")
            yield from _table(("keyword", "UID"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| " + " | ".join(header) + " |"
    yield "|---" * len(header) + "|"
    for row in rows:
        yield "| " + " | ".join(_word(cell) for cell in row) + " |"


def _word(value: object) -> str:
    """Return one cell: yes and no for what is true or not."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
