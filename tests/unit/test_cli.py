"""The commands: exit codes, JSON that is JSON, help that exists, and never a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from support import films
from support.analyses import FINDING

import radnode
from radnode.audit.events import Actor
from radnode.cli import cli, main
from radnode.cli.results import describe
from radnode.configuration import load_settings
from radnode.errors import DuplicateTransaction
from radnode.initialise import initialise
from radnode.intake import Intake
from radnode.jobs.database import reading, transaction
from radnode.jobs.destinations import mark_out_of_reach
from radnode.jobs.index import get_instance, get_result
from radnode.model import CommitmentRequest, JobKind, PeerIdentity, Reference, StoreRequest
from radnode.node import Node
from radnode.part10 import read_file_meta
from radnode.results import Report
from radnode.rules import Decision


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands())
DESTINATION = 'name = "{}"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 1\n'


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RADNODE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("radnode.cli.quiet", lambda: None)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that holds one result, a dead delivery and a waiting one."""
    config = initialise(tmp_path_factory.mktemp("cli") / "node", 2762, None)
    with config.open("a") as file:
        file.write("".join(f"\n[[destinations]]\n{DESTINATION.format(name)}" for name in ("pacs", "archive")))
    made = Node(load_settings(config))
    part10 = films.OPACITY.read_bytes()
    meta = read_file_meta(part10)
    peer = PeerIdentity("MODALITY1", None, "127.0.0.1")
    request = StoreRequest(
        peer, meta.sop_class_uid, meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax_uid
    )
    intake: Intake = made.intake
    receipt = intake.receive(request, part10[meta.offset :], enqueue=False)
    with reading(made.engine) as tx:
        instance = get_instance(tx, receipt.instance)
    source = {"PatientID": "P", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": "1.4"}
    prepared = made.results.prepare(instance, source, FINDING, Report("2.25.1", b"the report"))
    assert prepared is not None
    with transaction(made.engine) as tx:
        made.results.commit(tx, [prepared], Decision(deliver=("pacs", "archive")), Actor(user="t"))
    (lease,) = made.queue.lease(JobKind.DELIVER, "t:1", 60, 1, "pacs")
    with transaction(made.engine) as tx:
        made.queue.bury(tx, lease, "refused")
    yield made
    made.engine.dispose()


class Run:
    """Runs `radnode ...` as the entry point does."""

    def __init__(self, node: Node, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.config = str(node.settings.data_dir / "radnode.toml")
        self._capture, self._patch = capture, patch

    def __call__(self, *arguments: str, configured: bool = True) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["radnode", *arguments, *(("-c", self.config) if configured else ())])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capture.readouterr()
        assert "Traceback" not in printed.err
        return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def run(node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(node, capsys, monkeypatch)


def tail(run: Run, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("audit", "tail", "--json", "-n", "500", *arguments)[1].splitlines()]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_option_explains_itself(path: tuple[str, ...], run: Run) -> None:
    command = COMMANDS[path]
    assert command.help
    assert command.help.strip().split("\n")[0].endswith(".")
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name
    code, out, _ = run(*path, "--help", configured=False)
    assert code == 0
    assert out.startswith("Usage: ")


def test_version_and_help_of_the_whole(run: Run) -> None:
    assert run("--version", configured=False) == (0, f"radnode, version {radnode.__version__}\n", "")
    _, out, _ = run("-h", configured=False)
    for name in cli.list_commands(click.Context(cli)):
        assert f"  {name} " in out
    assert "Exit codes" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("jobs", "show"),
        ("jobs", "show", "x"),
        ("results", "list", "--limit", "0"),
        ("audit", "show", "0"),
    ],
)
def test_wrong_usage_is_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def test_unknown_role_and_address_are_wrong_usage(run: Run) -> None:
    assert run("serve", "--role", "cook")[0] == 2
    assert run("init", "x", "--pacs", "nonsense", configured=False)[0] == 2
    assert run("echo", "--to", "nonsense")[0] == 2


def test_missing_or_broken_configuration_is_3_in_one_sentence(run: Run, tmp_path: Path) -> None:
    code, out, err = run("results", "list", configured=False)
    assert (code, out) == (3, "")
    assert err == "radnode: No radnode.toml here or in var/; make one with `radnode init`, or name one with -c.\n"
    (tmp_path / "broken.toml").write_text("[node]\nprot = 1")
    code, _, err = run("check", "-c", "broken.toml", configured=False)
    assert (code, err.count("\n")) == (3, 1)
    assert "did you mean 'node.port'" in err


def test_what_is_not_there_is_1_in_one_sentence(run: Run) -> None:
    for arguments in (
        ("results", "show", "0" * 16),
        ("jobs", "show", "99"),
        ("jobs", "retry", "99"),
        ("audit", "show", "999"),
    ):
        code, _, err = run(*arguments)
        assert (code, err.count("\n")) == (1, 1), arguments
        assert err.startswith("radnode: ")


def test_destination_that_does_not_answer_is_1(run: Run) -> None:
    code, _, err = run("echo", "--to", "127.0.0.1:1", "--plain")
    assert (code, err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "arguments",
    [("results", "list"), ("jobs", "list"), ("jobs", "list", "--all"), ("models", "list"), ("models", "verify")],
)
def test_every_listing_is_a_table_or_a_list_of_json_objects(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, _ = run(*arguments, "--json")
    rows: list[dict[str, Any]] = json.loads(out)
    assert code == 0
    assert rows
    assert all(isinstance(row, dict) for row in rows)
    code, out, _ = run(*arguments)
    assert code == 0
    assert len(out.splitlines()) >= len(rows)


def test_conformance_statement_is_text_for_people_and_json_with_the_same_in_it(run: Run) -> None:
    code, out, _ = run("conformance", "--json")
    values = json.loads(out)
    assert code == 0
    code, out, _ = run("conformance")
    assert code == 0
    for service in values["scp"] + values["scu"]:
        for row in service["sop_classes"] + service["transfer_syntaxes"]:
            assert f"| {row['keyword']} | {row['uid']} |" in out
    for row in values["store_statuses_sent"]:
        assert f"| {row['status']} | {row['title']} | {row['meaning']} |" in out


def test_check_tells_each_finding_and_is_json_too(run: Run) -> None:
    code, out, _ = run("check", "--json")
    rows = {row["subject"]: row for row in json.loads(out)}
    assert {"config", "keys", "tls", "tls.certificate", "disk", "database", "destination pacs"} <= set(rows)
    assert code == (0 if all(row["fit"] for row in rows.values()) else 1)
    assert set(rows["config"]) == {"subject", "fit", "text"}


def test_result_is_shown_exported_and_never_over_a_file(run: Run, tmp_path: Path) -> None:
    (listed,) = json.loads(run("results", "list", "--json")[1])
    code, out, _ = run("results", "show", listed["id"], "--json")
    assert (code, json.loads(out)) == (0, listed)
    _, out, _ = run("results", "show", listed["id"])
    assert "finding" in out
    assert ": finding, 3 places\n" in out
    assert "  1. Opacity, left lung, score 0.87, 86 mm: columns 315 to 436, rows 106 to 318\n" in out
    assert "  2. Opacity, lung, score 0.61, 40 x 40 pixels: columns 20 to 60, rows 30 to 70\n" in out
    assert "  3. Opacity, score 0.55\n" in out
    assert "  whole image: score 0.93, highest at column 370, row 210\n" in out
    assert "research use only, not for primary diagnosis" in out
    assert run("results", "export", listed["id"], "-o", "report.dcm")[0] == 0
    assert (tmp_path / "report.dcm").read_bytes() == b"the report"
    assert (tmp_path / "report.dcm").stat().st_mode & 0o777 == 0o600
    code, _, err = run("results", "export", listed["id"], "-o", "report.dcm")
    assert (code, err) == (1, "radnode: report.dcm exists already; choose another name.\n")


def test_delivery_is_told_in_words_with_the_tries_where_it_waits(run: Run, node: Node) -> None:
    assert "pacs refused, archive waiting" in run("results", "list")[1]
    (lease,) = node.queue.lease(JobKind.DELIVER, "t:1", 60, 1, "archive")
    (listed,) = json.loads(run("results", "list", "--json")[1])
    assert [item["state"] for item in listed["delivered"]] == ["refused", "sending"]
    with transaction(node.engine) as tx:
        node.queue.postpone(tx, lease, 0, "down")
    assert "delivered:   pacs refused, archive waiting, 1 try\n" in run("results", "show", listed["id"])[1]


def test_series_that_is_not_complete_is_listed_by_its_pseudonym(run: Run, node: Node) -> None:
    with reading(node.engine) as tx:
        [row] = [get_instance(tx, name) for name in tx.exec_driver_sql("SELECT instance FROM instances").scalars()]
    with transaction(node.engine) as tx:
        node.completion.touch(tx, row, 12)
    [waiting] = [item for item in json.loads(run("jobs", "list", "--json")[1]) if item["state"] == "waiting"]
    assert (waiting["kind"], waiting["series"]) == ("series", row.series)
    assert (waiting["waiting"], waiting["kept"], waiting["expected"]) == (1, 1, 12)
    assert waiting["since"] == waiting["last"] == row.received
    out = run("jobs", "list")[1]
    assert "SERIES NOT COMPLETE" in out
    assert row.series in out
    with transaction(node.engine) as tx:  # the node is that of every test here
        tx.exec_driver_sql("DELETE FROM series")


def test_result_on_a_series_is_told_with_the_image_that_a_finding_is_on() -> None:
    region = {"points": [[1.0, 2.0], [30.0, 40.0]], "frame": 7}
    finding = {"meaning": "Nodule", "site": None, "laterality": None, "score": 0.75, "diameter_mm": 9.0}
    finding["region"] = region
    document = {
        "id": "r",
        "outcome": "finding",
        "reason": None,
        "score": 0.75,
        "peak": None,
        "findings": [finding],
        "model": {"name": "m", "version": "1.0.0", "device_uid": "2.25.1"},
        "created": 0.0,
        "source": {"StudyInstanceUID": "1.1", "SOPInstanceUID": "1.2", "images": ["1.2", "1.3"]},
        "report": {"SOPInstanceUID": "1.4"},
        "delivered": [],
        "secondary": [
            {"object": "sc1", "kind": "sc", "SOPInstanceUID": "1.5", "delivered": []},
            {
                "object": "seg1",
                "kind": "seg",
                "SOPInstanceUID": "1.6",
                "delivered": [{"destination": "pacs", "state": "waiting", "tries": 2}],
            },
        ],
    }
    told = describe(document)
    assert told[-4:] == [
        "  sc1:         DICOM Secondary Capture, SOP instance 1.5",
        "               to no destination",
        "  seg1:        DICOM segmentation, SOP instance 1.6",
        "               pacs waiting, 2 tries",
    ]
    assert "  1. Nodule, score 0.75, 9 mm: image 7 of 2, columns 1 to 30, rows 2 to 40" in told
    assert "  series:      score 0.75, 2 images" in told


def test_a_failure_is_told_as_no_statement_on_the_patient() -> None:
    document = {
        "id": "r",
        "outcome": "failed",
        "reason": "pixels_undecodable",
        "score": None,
        "peak": None,
        "findings": [],
        "model": {"name": "m", "version": "1.0.0", "device_uid": "2.25.1"},
        "created": 0.0,
        "source": {"StudyInstanceUID": "1.1", "SOPInstanceUID": "1.2"},
        "report": {"SOPInstanceUID": "1.4"},
        "delivered": [],
        "secondary": [],
    }
    told = describe(document)
    assert told[0] == "Result r: failed. The pixel data could not be decoded. This says nothing about the patient."
    assert told[1].startswith("  model:")


def test_ae_title_that_is_too_long_says_so(run: Run) -> None:
    for arguments in (("init", "x", "--pacs", f"{'P' * 17}@h:1"), ("echo", "--called", "P" * 17, "-c", run.config)):
        code, _, err = run(*arguments, configured=False)
        assert code == 2
        assert "has 17 characters; an AE title has 1 to 16" in " ".join(err.split())


def test_dead_job_is_retried_and_discarded_under_audit(run: Run, node: Node) -> None:
    jobs = {row["destination"]: row for row in json.loads(run("jobs", "list", "--json")[1])}
    dead, waiting = str(jobs["pacs"]["job"]), str(jobs["archive"]["job"])
    assert json.loads(run("jobs", "show", dead, "--json")[1])["error"] == "refused"
    assert "refused" in run("jobs", "show", dead)[1]
    assert run("jobs", "discard", waiting)[0] == 1
    assert run("jobs", "retry", dead)[0] == 0
    assert node.queue.show(int(dead)).state == "ready"
    changed = [entry for entry in tail(run) if entry["event"].endswith("job_changed")]
    assert [entry["detail"] for entry in changed] == [{"change": "retried", "job": int(dead), "job_kind": "deliver"}]
    with reading(node.engine) as tx:
        result = get_result(tx, jobs["pacs"]["subject"])
    about = [(entry["patient"], entry["study"], entry["instance"]) for entry in changed]
    assert about == [(result.patient, result.study, result.instance)]


def test_jobs_of_a_destination_that_was_removed_are_said_retried_and_discarded(run: Run, node: Node) -> None:
    peer, references = PeerIdentity("CT9", None, "127.0.0.1"), (Reference("1.2", "1.2.3"),)
    node.commitments.accept(peer, CommitmentRequest("2.25.77", references))
    with transaction(node.engine) as tx:
        for subject in ("gone-1", "gone-2", "gone-3"):
            node.queue.add(tx, JobKind.DELIVER, subject, "removed")
    (lease,) = node.queue.lease(JobKind.DELIVER, "t:1", 60, 1, "removed")
    with transaction(node.engine) as tx:
        node.queue.bury(tx, lease, "refused")
        mark_out_of_reach(tx, "removed", JobKind.DELIVER, 1.0, "is down")
    said = run("jobs", "list")[2]
    assert "2 jobs wait for removed, which the configuration does not name." in said
    assert "1 job waits for CT9, which the configuration does not name." in said
    assert "out of reach" not in said
    code, out, said = run("jobs", "retry", "--destination", "removed")
    assert (code, out) == (0, "1 dead letters are due now.\n")
    assert said == "The configuration does not name removed: they wait until it does.\n"
    waiting = [row["job"] for row in json.loads(run("jobs", "list", "--json")[1]) if row["destination"] == "removed"]
    assert run("jobs", "discard", str(waiting[0]))[1] == f"Job {waiting[0]} is discarded.\n"
    assert run("jobs", "discard", "--destination", "removed")[1] == "2 jobs are discarded.\n"
    assert run("jobs", "discard", "--destination", "CT9")[1] == "1 jobs are discarded.\n"
    assert not {"removed", "CT9"} & {row["destination"] for row in json.loads(run("jobs", "list", "--json")[1])}
    with pytest.raises(DuplicateTransaction):  # it stays known, as one that was answered
        node.commitments.accept(peer, CommitmentRequest("2.25.77", references))
    changes = [entry["detail"]["change"] for entry in tail(run) if "job_changed" in entry["event"]]
    assert changes[-5:] == ["retried", *["discarded"] * 4]
    assert run("jobs", "discard")[0] == run("jobs", "discard", "1", "--destination", "pacs")[0] == 2


def test_stage_is_paused_and_resumed_under_audit_and_the_listing_and_check_say_so(run: Run, node: Node) -> None:
    assert run("jobs", "pause", "deliver")[:2] == (0, "deliver is paused.\n")
    assert run("jobs", "pause")[1] == "analyse is paused.\ndeliver was paused already.\n"
    assert node.queue.lease(JobKind.DELIVER, "t:1", 60, 1, "archive") == []
    assert "Deliveries are paused (`radnode jobs resume deliver` goes on) since 20" in run("jobs", "list")[2]
    code, out, _ = run("check")
    assert code == 1 and "BAD  holds: Deliveries are paused" in out
    assert run("jobs", "resume", "deliver", "analyse")[:2] == (0, "deliver is resumed.\nanalyse is resumed.\n")
    assert run("jobs", "resume", "analyse")[1] == "analyse was resumed already.\n"
    assert "paused" not in run("jobs", "list")[2]
    assert len(node.queue.lease(JobKind.DELIVER, "t:1", 60, 1, "archive")) == 1
    node.queue.release("t")
    details = [entry["detail"] for entry in tail(run) if entry["event"].endswith("job_changed")]
    assert details[-4:] == [
        {"change": "paused", "job_kind": "deliver"},
        {"change": "paused", "job_kind": "analyse"},
        {"change": "resumed", "job_kind": "deliver"},
        {"change": "resumed", "job_kind": "analyse"},
    ]
    assert run("jobs", "pause", "receive")[0] == 2


def test_trail_is_shown_and_verified_and_a_changed_byte_is_1(run: Run, node: Node) -> None:
    run("results", "list")
    assert json.loads(run("audit", "show", "1", "--identity")[1])["identity"]["PatientID"]
    (opened,) = [entry for entry in tail(run) if entry["detail"].get("purpose") == "identity"]
    (first,) = json.loads("[" + run("audit", "show", "1")[1] + "]")
    assert opened["detail"] == {"command": "show", "first": 1, "last": 1, "purpose": "identity"}
    assert all(opened[name] == first[name] for name in ("patient", "study", "instance"))
    assert run("audit", "tail")[0] == 0
    code, out, _ = run("audit", "verify")
    assert (code, out.split(",")[0]) == (0, "audit verify: ok")
    verified = json.loads(run("audit", "verify", "--json")[1])
    assert (verified["ok"], verified["folder"]) == (True, str(node.audit_folder))
    (trail,) = node.audit_folder.glob("*.jsonl")
    before = trail.read_bytes()
    trail.write_bytes(before.replace(b"result_read", b"result_reaD", 1))
    code, out, _ = run("audit", "verify")
    assert code == 1
    assert "BROKEN, entry " in out
    trail.write_bytes(before)
    assert run("audit", "verify")[0] == 0


def test_trail_of_one_patient_is_only_theirs_and_its_reading_names_them(run: Run, node: Node) -> None:
    patient = json.loads(run("audit", "show", "1", "--identity")[1])["identity"]
    asked = ("--patient", patient["PatientID"], "--issuer", patient["IssuerOfPatientID"])
    entries = tail(run, *asked)
    pseudonym = node.pseudonyms.patient(patient["IssuerOfPatientID"], patient["PatientID"])
    assert {entry["patient"] for entry in entries} == {pseudonym}
    assert (entries[0]["event"], entries[-1]["event"]) == ("110104 image_received", "110101 trail_read")
    assert [entry["detail"] for entry in tail(run, "--patient", "NOBODY")] == [{"command": "tail"}]


def test_keys_that_are_gone_are_one_sentence(run: Run, node: Node) -> None:
    folder = node.key_folder
    folder.rename(folder.with_name("away"))
    try:
        for arguments in (
            ("results", "list"),
            ("audit", "tail"),
            ("audit", "verify"),
            ("jobs", "retry", "1"),
            ("check",),
        ):
            code, _, err = run(*arguments)
            assert code in (1, 3), arguments
            assert err.count("\n") <= 1
    finally:
        folder.with_name("away").rename(folder)


def test_init_says_what_it_made_and_refuses_to_do_it_twice(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("init", "fresh", "--port", "104", "--pacs", "PACS@[::1]:4242", "--pacs-plain", configured=False)
    assert code == 0
    assert "MODALITY1" in out
    settings = load_settings(tmp_path / "fresh/radnode.toml")
    assert (settings.node.port, settings.destinations[0].host, settings.destinations[0].tls) == (104, "::1", False)
    code, _, err = run("init", "fresh", configured=False)
    assert (code, err.count("\n")) == (3, 1)


@pytest.mark.parametrize("name", ["kek-0001.key", "pseudonym.key", "audit.key", "audit-sign.key"])
@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 64])
def test_key_that_is_damaged_is_one_sentence(run: Run, node: Node, name: str, content: bytes) -> None:
    path = node.key_folder / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        code, _, err = run("results", "list", "--patient", "P")
        assert code in (0, 1)  # 0: the command had no use for that key
        assert err.count("\n") == code
        assert run("check")[0] == 1
    finally:
        path.write_bytes(before)


def test_database_that_is_damaged_is_one_sentence(run: Run, tmp_path: Path) -> None:
    config = initialise(tmp_path / "broken", 2762, None)
    (config.parent / "node.db").write_bytes(b"no database " * 400)
    for arguments in (("results", "list"), ("jobs", "list"), ("audit", "tail"), ("check",)):
        code, _, err = run(*arguments, "-c", str(config), configured=False)
        assert code == 1, arguments
        assert err.count("\n") == (0 if arguments == ("check",) else 1)
