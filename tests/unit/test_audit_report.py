"""Reports of the trail for people: disclosures, incidents, activity; as text, CSV, JSON and PDF."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from radnode.audit import accounts, events
from radnode.audit.events import Actor, AuditOutcome, AuditRecord, Event
from radnode.audit.rendering import FORMATS
from radnode.cli import cli
from radnode.configuration import load_settings
from radnode.initialise import initialise
from radnode.jobs.database import transaction
from radnode.node import Node
from radnode.settings import DestinationSettings

PEER = Actor(ae="CT1", certificate="ab" * 32, address="192.0.2.7")
NODE = Actor(ae="RADNODE", user="radnode")
PERSON = Actor(user="=HYPERLINK(1)")
DISCOVERED = datetime(2026, 11, 9, tzinfo=UTC)


def entry(event: Event, actor: Actor, *, patient: str | None = "p", outcome: str = "success", **detail: Any) -> dict:
    entry.seq += 1
    return {
        "seq": entry.seq,
        "timestamp": f"2026-11-0{1 + entry.seq % 8}T10:00:00.000000Z",
        "event": event.label,
        "action": event.action.value,
        "outcome": outcome,
        "actor": {name: getattr(actor, name) for name in Actor.__slots__},
        "patient": patient and patient * 32,
        "study": patient and f"s{patient}" * 16,
        "instance": patient and f"i{patient}" * 16,
        "detail": detail,
    }


entry.seq = 0


def story() -> list[dict]:
    entry.seq = 0
    return [
        entry(events.IMAGE_RECEIVED, PEER),
        entry(events.REPORT_CREATED, NODE, result="r1"),
        entry(events.DELIVERY_FAILED, NODE, outcome="serious", destination="pacs", result="r1", reason="away"),
        entry(events.REPORT_SENT, NODE, destination="pacs", result="r1"),
        entry(events.REPORT_DELIVERED, NODE, destination="pacs", result="r1"),
        entry(events.REPORT_DELIVERED, NODE, destination="pacs", result="r1", object="sc.1"),
        entry(events.IMAGE_FORWARDED, NODE, destination="archive"),
        entry(events.RESULT_EXPORTED, PERSON, format="sr", result="r1"),
        entry(events.RESULT_READ, PERSON, patient="q", command="show"),
        entry(events.PEER_REFUSED, Actor(address="192.0.2.66"), patient=None, rule="tls_plain_tcp", outcome="minor"),
        entry(events.ALERT, NODE, patient=None, rule="images_not_kept", outcome="serious"),
    ]


def test_accounting_lists_each_disclosure_once_with_date_recipient_kind_and_purpose() -> None:
    account = accounts.disclosures(story(), "4711", {"pacs": "pacs: PACS at 192.0.2.9:104"}, "always")
    rows = account.tables[0].rows
    pacs, person = "pacs: PACS at 192.0.2.9:104", f"{PERSON.user} (a file on this node's machine)"
    assert [row[1] for row in rows] == [pacs, pacs, "archive", person]
    assert rows[1][2].endswith(": sc.1")
    assert [row[2].split()[0] for row in rows] == ["report", "report", "image", "report"]
    assert all(row[0].startswith("2026-11-0") and row[3] for row in rows)
    assert [row[4] for row in rows] == ["4", "6", "7", "8"]
    assert ("Disclosures", "4") in account.facts
    assert rows[3][3] == "not stated"
    reasoned = accounts.disclosures(story(), "4711", {}, "always", lambda _entry: "asked for by the patient")
    assert reasoned.tables[0].rows[3][3] == "asked for by the patient"
    assert "164.528" in account.basis


def test_recipient_is_who_it_was_then_and_not_who_has_the_name_now() -> None:
    sent = entry(events.REPORT_DELIVERED, NODE, destination="pacs", result="r1", recipient="OLD at 192.0.2.1:104")
    account = accounts.disclosures([sent, *story()], "4711", {"pacs": "pacs: NEW at 192.0.2.9:104"}, "always")
    to = [row[1] for row in account.tables[0].rows]
    assert to[:2] == ["pacs: OLD at 192.0.2.1:104", "pacs: NEW at 192.0.2.9:104"]  # the same report, to both


def test_incident_counts_persons_and_kinds_and_says_what_is_due() -> None:
    account = accounts.incident(story(), "a week", None, DISCOVERED)
    facts = dict(account.facts)
    assert facts["Persons"] == "2"
    assert facts["Notice to the persons"].endswith("2027-01-08 at the latest (164.404(b))")
    assert facts["Notice to the Secretary"].startswith("fewer than 500")
    kinds, people = account.tables
    assert dict(kinds.rows) == {"image": "1", "analysis result": "2", "report": "1"}
    assert [row[0] for row in people.rows] == ["p" * 32, "q" * 32]
    assert people.rows[1][3:] == ("analysis result", "1", "1", PERSON.user)


@pytest.mark.parametrize(("count", "says"), [(499, "fewer than 500"), (500, "500 or more")])
def test_five_hundred_persons_are_the_mark(count: int, says: str) -> None:
    many = [{**entry(events.IMAGE_RECEIVED, PEER), "patient": f"{number:032x}"} for number in range(count)]
    account = accounts.incident(many, "a day", None, DISCOVERED)
    assert dict(account.facts)["Notice to the Secretary"].startswith(says)
    assert ("164.406" in dict(account.facts)["Notice to the Secretary"]) == (count >= 500)


def test_identities_are_opened_only_where_they_are_asked_for() -> None:
    account = accounts.incident(story(), "a week", lambda found: found["patient"][:1].upper(), DISCOVERED)
    assert [row[0] for row in account.tables[1].rows] == ["P", "Q"]


def test_activity_says_who_did_how_much_what_was_refused_and_alerted() -> None:
    account = accounts.activity(story(), "a week")
    tables = {table.title: table.rows for table in account.tables}
    assert ("image_received", "success", "1") in tables["Events"]
    assert next(row[:3] for row in tables["Who"] if row[0].startswith("RADNODE")) == ("RADNODE (this node)", "7", "1")
    assert tables["Refused"] == (("192.0.2.66", "peer_refused", "tls_plain_tcp", "1"),)
    assert [row[2] for row in tables["Alerts and failures"]] == ["delivery_failed", "alert"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_holds_every_row(form: str) -> None:
    account = accounts.activity(story(), "a week")
    document = FORMATS[form](account, "Made today.")
    if form == "json":
        read = json.loads(document)
        assert [len(rows) for rows in read["tables"].values()] == [len(table.rows) for table in account.tables]
    elif form == "csv":
        rows = list(csv.reader(io.StringIO(document.decode("utf-8-sig"))))
        assert len(rows) == 1 + len(account.facts) + sum(3 + len(table.rows) for table in account.tables)
        assert not [cell for row in rows for cell in row if cell.startswith("=")]  # no formula that a peer has named
    elif form == "text":
        assert all(row[0] in document.decode() for table in account.tables for row in table.rows)
    else:
        assert document.startswith(b"%PDF")
        assert document == FORMATS[form](account, "Made today.")


def test_hostile_text_stays_text_in_every_format() -> None:
    hostile = 'A\x1b[2J<para>&"\n山田'
    account = accounts.activity([entry(events.ALERT, Actor(ae=hostile), rule=hostile)], "a week")
    assert b"\x1b" not in FORMATS["text"](account, "")
    assert FORMATS["pdf"](account, "").startswith(b"%PDF")
    assert json.loads(FORMATS["json"](account, ""))["tables"]["Who"][0]["Who"].startswith("A\x1b")


def test_pdf_holds_names_of_every_script_that_its_font_has_and_others_as_code_points(tmp_path: Path) -> None:
    account = accounts.incident(story(), "a week", lambda _found: "Ωνάσης Иванов 山田太郎 홍길동 สม", DISCOVERED)
    path = tmp_path / "incident.pdf"
    path.write_bytes(FORMATS["pdf"](account, "Made today."))
    told = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, text=True, check=True).stdout
    for word in ("Ωνάσης", "Иванов", "山田太郎", "홍길동", "[U+0E2A][U+0E21]"):
        assert word in told


# --- the command


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pacs = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
    config = initialise(tmp_path_factory.mktemp("report") / "node", 2762, pacs)
    node = Node(load_settings(config))
    names = node.pseudonyms
    for number in range(3):
        identity = {"PatientID": f"47{number}", "IssuerOfPatientID": "CITY", "StudyInstanceUID": "1.2.3"}
        about = {"patient": names.patient("CITY", f"47{number}"), "study": names.study("1.2.3"), "identity": identity}
        with transaction(node.engine) as tx:
            node.audit.record(tx, AuditRecord(events.IMAGE_RECEIVED, PEER, **about))
            sent = {"destination": "pacs", "result": f"r{number}"}
            node.audit.record(
                tx, AuditRecord(events.REPORT_DELIVERED, NODE, outcome=AuditOutcome.SUCCESS, detail=sent, **about)
            )
    node.settle_trail()
    node.engine.dispose()
    yield config


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["audit", "report", "-c", str(config), *arguments])


def test_patient_is_found_by_id_and_issuer_and_the_use_is_in_the_trail(config: Path) -> None:
    done = run(config, "--patient", "471", "--issuer", "CITY", "--format", "json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)["tables"]["Disclosures"]
    assert [row["To whom"] for row in rows] == ["pacs: PACS at 127.0.0.1:104"]
    none = json.loads(run(config, "--patient", "471", "--format", "json").output)
    assert none["tables"]["Disclosures"] == []
    assert "Issuer of Patient ID" in none["notes"][0]
    assert "Issuer of Patient ID" not in "".join(json.loads(done.output)["notes"])
    listed = CliRunner().invoke(cli, ["audit", "tail", "-c", str(config), "--json", "-n", "2"])
    told = json.loads(listed.output.splitlines()[0])
    assert (told["event"], told["detail"]) == ("110101 trail_read", {"command": "report", "format": "json"})


def test_tail_names_a_refused_peer_without_a_title_by_its_address(config: Path) -> None:
    node = Node(load_settings(config))
    node.record(events.PEER_REFUSED, Actor(address="192.0.2.66"), rule="tls_plain_tcp")
    node.settle_trail()
    node.engine.dispose()
    listed = CliRunner().invoke(cli, ["audit", "tail", "-c", str(config), "-n", "2"])
    assert "peer_refused E minor by 192.0.2.66" in listed.output


def test_exported_trail_is_verified_without_the_node_and_without_radnode(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trail"
    arguments = ["audit", "export", str(folder), "-c", str(config)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"audit", "audit-sign.pub", "verify.py"}
    assert {path.stat().st_mode & 0o77 for path in [folder, *folder.rglob("*")]} == {0}

    def verified() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "verify.py", "audit", "audit-sign.pub"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert verified().returncode == 0, verified().stdout
    [segment] = (folder / "audit").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"CT1"', b'"CT2"', 1))
    assert (verified().returncode, "Entry 1 " in verified().stdout) == (1, True)
    again = CliRunner().invoke(cli, arguments)
    assert "exists already" in str(again.exception)


def test_incident_names_persons_with_the_audit_key_alone(config: Path) -> None:
    since = ("--incident", "--since", "2020-01-01")
    assert "470" not in run(config, *since).output.replace("2470", "")
    named = run(config, *since, "--identity", "--format", "json")
    assert [row["Person"] for row in json.loads(named.output)["tables"]["Persons"]] == [
        f"47{number} (issuer CITY)" for number in range(3)
    ]


def test_pdf_is_written_for_the_caller_alone_and_holds_the_words(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "accounting.pdf"
    done = run(config, "--patient", "471", "--issuer", "CITY", "--format", "pdf", "-o", str(path))
    assert done.exit_code == 0, done.output
    assert path.stat().st_mode & 0o777 == 0o600
    told = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, text=True, check=True).stdout
    assert "Accounting of disclosures" in told
    assert "471 (issuer CITY)" in told
    again = run(config, "--patient", "471", "--format", "pdf", "-o", str(path))
    assert "exists already" in str(again.exception)


@pytest.mark.parametrize(
    "arguments", [(), ("--incident",), ("--activity", "--incident"), ("--activity", "--format", "pdf")], ids=str
)
def test_wrong_use_is_said(config: Path, arguments: tuple[str, ...]) -> None:
    done = run(config, *arguments)
    assert done.exit_code == 2
