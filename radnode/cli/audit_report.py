"""audit report: the trail for compliance officers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from radnode.audit import accounts, events, read
from radnode.audit.accounts import Account
from radnode.audit.log import open_sealed
from radnode.audit.rendering import FORMATS
from radnode.cli.common import accountable, config_option, open_node, user, write_private
from radnode.node import Node
from radnode.reasons import REASON
from radnode.storage.keys import read_key

SIX_YEARS = timedelta(days=2192)  # 45 CFR 164.528(a)(3)
_DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%SZ"])


@click.command()
@config_option
@click.option("--patient", help="Accounting of disclosures of this Patient ID (45 CFR 164.528).")
@click.option("--issuer", default="", help="Issuer of that Patient ID.")
@click.option("--incident", is_flag=True, help="Whose data was touched in the time given (45 CFR 164.404, 164.408).")
@click.option("--activity", is_flag=True, help="Review of activity (45 CFR 164.308(a)(1)(ii)(D)).")
@click.option("--since", type=_DATE, help="From this UTC day or moment on.")
@click.option("--until", type=_DATE, help="Before this UTC day or moment.")
@click.option("--discovered", type=_DATE, help="Of an incident: the day it was discovered; today when left out.")
@click.option("--identity", is_flag=True, help="Of an incident: real Patient IDs (needs the audit key).")
@click.option("--format", "form", default="text", show_default=True, type=click.Choice(list(FORMATS)), help="How.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write, for you alone.")
@accountable
def report(
    config: Path | None,
    patient: str | None,
    issuer: str,
    incident: bool,
    activity: bool,
    since: datetime | None,
    until: datetime | None,
    discovered: datetime | None,
    identity: bool,
    form: str,
    output: Path | None,
) -> None:
    """Print what the law asks the trail for; the use is audited.

    \b
    radnode audit report --patient 4711 --format pdf -o accounting.pdf
    radnode audit report --incident --since 2026-11-01 --until 2026-11-08 --identity
    radnode audit report --activity --since 2026-11-01
    """
    if (patient is not None) + incident + activity != 1:
        raise click.UsageError("Name --patient, --incident or --activity.")
    if incident and since is None:
        raise click.UsageError("An incident has a time: name --since, and --until where it has ended.")
    if form == "pdf" and output is None:
        raise click.UsageError("A PDF goes to a file: name it with -o.")
    node, now = open_node(config), datetime.now(UTC)
    begin, end = _aware(since), _aware(until)
    if patient is not None:
        begin = begin or now - SIX_YEARS
    pseudonym = None if patient is None else node.pseudonyms.patient(issuer, patient)
    purpose = {"purpose": "identity"} if identity else {}
    node.record(events.TRAIL_READ, user(), patient=pseudonym, command="report", format=form, **purpose)
    node.settle_trail()
    found = read.entries(node.audit_folder, read.Filter(patient=pseudonym, since=begin, until=end))
    period = accounts.describe_period(begin, end)
    if patient is not None:
        whole = f"{patient} (issuer {issuer})" if issuer else patient
        account = accounts.disclosures(found, whole, _recipients(node), period, _opener(node, _reason))
    elif incident:
        account = accounts.incident(
            found, period, _opener(node, _person) if identity else None, _aware(discovered) or now
        )
    else:
        account = accounts.activity(found, period)
    _write(account, form, output, f"Made {now:%Y-%m-%d %H:%M}Z by {user().user} from {node.settings.node.ae_title}.")


def _write(account: Account, form: str, output: Path | None, made: str) -> None:
    document = FORMATS[form](account, made)
    if output is None:
        click.echo(document, nl=False)
        return
    write_private(output, document)
    click.echo(f"{output}: {account.title}, readable by you alone")


def _aware(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _recipients(node: Node) -> dict[str, str]:
    """Return who each destination is now."""
    return {
        destination.name: f"{destination.name}: {destination.recipient}" for destination in node.settings.destinations
    }


def _opener(node: Node, say: Callable[[dict[str, str]], str]) -> Callable[[accounts.Entry], str]:
    """Return what opens the sealed part of an entry and says something of it."""
    key = read_key(node.key_folder / "audit.key")
    return lambda entry: say(open_sealed(entry, key) or {})


def _reason(sealed: dict[str, str]) -> str:
    return sealed.get(REASON, "")


def _person(sealed: dict[str, str]) -> str:
    number, issuer = sealed.get("PatientID", ""), sealed.get("IssuerOfPatientID", "")
    return f"{number} (issuer {issuer})" if number and issuer else number
