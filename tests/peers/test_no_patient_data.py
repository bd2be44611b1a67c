"""After all that can happen to an image, nothing on the disk and nothing that is printed tells whose it was."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from support import films
from support.node import NodeProcess, free_port, radnode, wait_for
from support.strangers import scripted_pacs
from support.traces import needles, too_open, traces, traces_in, values

from radnode.audit.events import Actor
from radnode.audit.log import open_sealed
from radnode.configuration import load_settings
from radnode.errors import AuditError, KeyUnavailable, SealBroken
from radnode.initialise import initialise
from radnode.jobs.index import every_object
from radnode.node import Node
from radnode.storage.keys import read_key

RUN = f"{os.getpid()}{time.time_ns() % 10**6}"  # makes the values of this run unlike those of any other
PATIENTS = {
    "latin": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": f"Müllerßohn{RUN}^Jörgüber"},
    "japanese": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": f"Yamada{RUN}^Tarou=山田桜子^太郎左衛門",
    },
    "utf8": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": f"佐藤花{RUN}^大二郎丸"},
}
PATHS = [Path(path) for path in ("/tmp", "/var/tmp", "/dev/shm")]  # noqa: S108 (what is searched, not what is used)


@dataclass
class Story:
    """A node to which everything has happened, the films that were sent, and what commands printed."""

    node: NodeProcess
    temporary: Path
    began: float
    films: list[Path] = field(default_factory=list)
    output: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> dict[bytes, str]:
        return needles(values(self.films))

    def film(self, label: str, content: bytes) -> Path:
        path = self.node.folder.parent / "films" / f"{label}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        self.films.append(path)
        return path

    def command(self, *arguments: str | Path, code: int = 0) -> str:
        done = self.node.run(*arguments)
        assert done.returncode == code, done.stdout + done.stderr
        self.output.append(done.stdout + done.stderr)
        return done.stdout

    def send(self, *paths: Path, code: int = 0) -> None:
        pki = self.node.folder / "pki"
        own = ("--ae", "MODALITY1", "--certificate", pki / "modality.crt", "--key", pki / "modality.key")
        self.command("send", *paths, *own, code=code)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("private")
    temporary = folder / "tmp"
    temporary.mkdir()
    port = free_port()
    overrides = {"TMPDIR": str(temporary), "RADNODE_DELIVER__RETRY_SECONDS": "0.5"}
    with NodeProcess(folder / "node", pacs_port=port, overrides=overrides) as node:
        story = Story(node, temporary, time.time())
        node.start()
        with scripted_pacs(port, node.folder / "pki", 0xA900):
            _tell(story)
        yield story


def _tell(story: Story) -> None:
    """Good films, films that cannot be read, films that are refused, and every command that lists."""
    kept = []
    for label, patient in PATIENTS.items():
        elements = {**patient, "PatientID": f"PID-{label}-{RUN}", "AccessionNumber": f"ACC{label[:3]}{RUN[:8]}"}
        elements |= {"PatientBirthDate": "19110207", "StudyDate": "19870319"}  # of nobody else here
        film = films.file_bytes(films.fresh(films.OPACITY, **elements))
        kept += [
            story.film(f"{label}-opacity", film),
            story.film(f"{label}-mr", films.file_bytes(films.fresh(films.MR, **elements))),
            story.film(f"{label}-ct", films.file_bytes(films.fresh(films.CT[3], **elements))),
            story.film(f"{label}-broken", films.file_bytes(films.undecodable(films.NORMAL, **elements))),
        ]
        story.film(f"{label}-truncated", films.file_bytes(films.fresh(films.NORMAL, **elements))[:-1000])
        story.film(f"{label}-altered", film.replace(b"Chest AP", b"Chest PA"))
        uid = str(pydicom.dcmread(kept[-4]).SOPInstanceUID).encode()
        story.film(f"{label}-bad-uid", film.replace(uid, f"../{RUN}/../no/uid".encode().ljust(len(uid), b"x")))
    story.send(*kept)
    story.send(*(path for path in story.films if path not in kept), code=1)
    node = story.node
    sent = len(kept) + len(kept) // 4  # a report on each, and a picture of each film with an opacity
    wait_for(lambda: _refused(node) == sent, 30, "every report and picture is refused by the PACS")
    dead = node.rows("jobs", "list")
    story.command("jobs", "list")
    story.command("jobs", "list", "--all", "--json")
    story.command("jobs", "show", str(dead[1]["job"]))
    story.command("jobs", "retry", str(dead[1]["job"]))
    story.command("jobs", "retry", "999999", code=1)
    story.command("jobs", "discard", str(dead[2]["job"]))
    story.command("results", "list")
    story.command(
        "results", "export", dead[0]["subject"].partition(".")[0], "-o", node.folder.parent / "films" / "exported.dcm"
    )
    story.command("audit", "tail", "-n", "500")
    story.command("audit", "tail", "-n", "500", "--json")
    story.command("audit", "show", "3")
    story.command("audit", "verify")
    story.command("check", code=1)  # the reports that the PACS refused are dead letters
    refused = radnode("send", story.films[0], "-c", node.config, "--ae", "STRANGER")
    assert refused.returncode == 1
    story.output.append(refused.stdout + refused.stderr)
    wait_for(lambda: _refused(node) == sent + 1, 30, "what was retried is refused again")


def _refused(node: NodeProcess) -> int:
    return sum(line["event"] == "report_refused" for line in node.log())


def test_search_finds_what_it_is_to_find(story: Story) -> None:
    for path in story.films:
        assert traces(path.read_bytes(), story.wanted)
    assert {"19110207", "1911-02-07", "19870319"} <= values(story.films)
    coded = base64.b64encode(b"xy" + f"PID-utf8-{RUN}".encode())
    assert any("base64" in label for label in traces(coded, story.wanted))
    assert any("utf-16" in label for label in traces("山田桜子".encode("utf-16-le"), story.wanted))


def test_every_kind_of_refusal_has_happened(story: Story) -> None:
    statuses = [line["status"] for line in story.node.log() if line["event"] == "image_refused"]
    assert set(statuses) == {"C000", "0111", "0117"}
    outcomes = {line["outcome"] for line in story.node.log() if line["event"] == "image_analysed"}
    assert outcomes == {"finding", "not_attempted", "failed"}


def test_data_folder_holds_no_patient_data_while_the_node_runs(story: Story) -> None:
    assert traces_in(story.node.folder, story.wanted) == {}


def test_log_holds_no_patient_data(story: Story) -> None:
    assert traces(story.node.log_path.read_bytes(), story.wanted) == []


def test_commands_print_no_patient_data(story: Story) -> None:
    assert traces("\n".join(story.output).encode(), story.wanted) == []


def test_temporary_folder_stays_without_patient_data(story: Story) -> None:
    assert traces_in(story.temporary, story.wanted) == {}


def test_no_new_file_in_shared_temporary_folders_holds_patient_data(story: Story, tmp_path_factory) -> None:
    ours = tmp_path_factory.getbasetemp()
    wanted = {needle: label for needle, label in story.wanted.items() if RUN in label}  # others run beside this test
    found = {}
    for top in PATHS:
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if Path(folder, name) != ours]
            for path in (Path(folder, name) for name in names):
                if labels := traces(_new_bytes(path, story.began), wanted):
                    found[str(path)] = labels
    assert found == {}


def test_processes_hold_no_deleted_file_open(story: Story) -> None:
    handles = [handle for pid in story.node.pids() for handle in Path(f"/proc/{pid}/fd").iterdir()]
    deleted = [str(target) for handle in handles if (target := handle.readlink()).name.endswith(" (deleted)")]
    assert set(deleted) == {"/memfd:listeners (deleted)"}  # counts of connections; never was a file


def test_every_file_is_0600_and_every_folder_0700(story: Story) -> None:
    assert too_open(story.node.folder) == []


def test_data_folder_holds_no_patient_data_after_the_node_has_stopped(story: Story) -> None:
    assert story.node.stop() == 0
    assert traces_in(story.node.folder, story.wanted) == {}
    assert traces(story.node.log_path.read_bytes(), story.wanted) == []
    assert too_open(story.node.folder) == []


def test_stranger_with_a_copy_of_the_data_folder_and_keys_of_their_own_opens_nothing(
    story: Story, tmp_path: Path
) -> None:
    copy = shutil.copytree(story.node.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("keys", "run"))
    assert traces_in(copy, story.wanted) == {}
    without = Node(load_settings(copy / "radnode.toml"))
    with pytest.raises(KeyUnavailable):
        without.results.listing(Actor(user="stranger"))
    shutil.copytree(initialise(tmp_path / "own", 2762, None).parent / "keys", copy / "keys")
    stranger = Node(load_settings(copy / "radnode.toml"))
    with stranger.engine.connect() as tx:
        objects = every_object(tx)
    assert len(objects) > 20
    for object_id in objects:
        with pytest.raises(SealBroken):
            stranger.vault.get(object_id)
    key = read_key(copy / "keys" / "audit.key")
    sealed = [entry for entry in story.node.trail() if entry["sealed"]]
    assert len(sealed) > 20
    for entry in sealed:
        with pytest.raises(AuditError):
            open_sealed(entry, key)
    for node in (without, stranger):
        node.engine.dispose()


def _new_bytes(path: Path, since: float) -> bytes:
    """The content of a file that was written since then; nothing of any other."""
    try:
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_mtime >= since and found.st_size < 2**28:
            return path.read_bytes()
    except OSError:  # gone meanwhile
        pass
    return b""
