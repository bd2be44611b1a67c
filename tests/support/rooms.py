"""The rooms of a node on a real SQLite file, without processes or network."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import Engine, select

from radnode.audit import log as audit_log
from radnode.audit.log import AuditLog, audit_entries
from radnode.intake import Intake
from radnode.jobs import destinations, schema
from radnode.jobs.database import create_tables, open_database
from radnode.jobs.queue import Queue
from radnode.model import PeerIdentity, StoreRequest
from radnode.part10 import read_file_meta
from radnode.results import Results
from radnode.rules import Rules
from radnode.settings import RuleSettings
from radnode.storage import keys
from radnode.storage.keys import StudyKeys
from radnode.storage.local_keys import FileKeys
from radnode.storage.pseudonyms import Pseudonyms
from radnode.storage.segments import SegmentStore
from radnode.storage.vault import Vault
from radnode.stores import Stores
from support.segments import extents, stored_bytes

PEER = PeerIdentity("MODALITY1", "ab" * 32, "127.0.0.1")
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


class Rooms:
    """Everything between the network and the detector, in one folder. `clock` is set by the tests."""

    def __init__(
        self,
        folder: Path,
        *,
        max_object_bytes: int = 1 << 24,
        rules: Sequence[RuleSettings] = (RuleSettings(detect=("any",)),),
    ) -> None:
        self.folder = folder
        self.now = 1_000_000.0
        self.rung: list[str] = []
        self.engine: Engine = database(folder)
        (folder / "keys").mkdir(mode=0o700, exist_ok=True)
        (folder / "keys" / "kek-0001.key").write_text("11" * 32)
        self.queue = Queue(self.engine, self.clock)
        self.objects = SegmentStore(self.objects_folder)
        self.keys = StudyKeys(self.engine, FileKeys(folder / "keys"), self.clock)
        self.vault = Vault(self.keys, self.objects)
        self.pseudonyms = Pseudonyms(b"p" * 32)
        self.audit = AuditLog(b"a" * 32)
        self.stores = Stores(
            self.engine, self.queue, self.vault, self.audit, self.pseudonyms, self.rung.append, self.clock
        )
        self.intake = Intake(self.stores, max_object_bytes, Rules(rules))
        self.results = Results(self.stores)

    def clock(self) -> float:
        """Return the time of the test."""
        return self.now

    def entries(self) -> list[dict[str, Any]]:
        """Return the audit rows."""
        with self.engine.connect() as connection:
            return [json.loads(row.entry) for row in connection.execute(select(audit_entries))]

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        with self.engine.connect() as connection:
            return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())  # noqa: S608

    @property
    def objects_folder(self) -> Path:
        """Where the sealed objects are."""
        return self.folder / "objects"

    def kept_objects(self) -> list[bytes]:
        """Return the ids of the sealed objects."""
        return sorted(extents(self.objects_folder))

    def holds_nothing(self) -> bool:
        """Say whether the object store takes no room at all: no object and nothing half-written."""
        return stored_bytes(self.objects_folder) == 0

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()


def database(folder: Path) -> Engine:
    """A database with every table in a folder."""
    engine = open_database(folder / "node.db")
    create_tables(engine, schema.metadata, destinations.metadata, keys.metadata, audit_log.metadata)
    return engine


def encoded(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set alone, as it travels in a C-STORE."""
    copy = Dataset()
    copy.update({element.tag: element for element in dataset})
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = io.BytesIO()
    dcmwrite(buffer, copy, enforce_file_format=True)
    part10 = buffer.getvalue()
    return part10[read_file_meta(part10).offset :]


def request_for(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> StoreRequest:
    """The C-STORE command of a data set."""
    class_uid = str(dataset.SOPClassUID)
    return StoreRequest(PEER, class_uid, str(dataset.SOPInstanceUID), class_uid, syntax)


def small(number: int = 1, **elements: object) -> Dataset:
    """A tiny data set with an identity, its UIDs counted."""
    dataset = Dataset()
    dataset.SOPClassUID = CT_IMAGE
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    dataset.Modality = "CT"
    dataset.PatientName = "Secret^Name"
    dataset.PatientID = "SECRET-1"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.0"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def modes(paths: Iterable[Path]) -> set[int]:
    """The permission bits of these paths."""
    return {path.stat().st_mode & 0o777 for path in paths}
