"""Anchors: copies of checkpoints elsewhere, out of reach of whoever could put back an earlier trail and its database.

An anchor needs no more than the newest checkpoint now and then: one that was away misses nothing that the next does not
cover. It holds notes in the same form as the trail's own folder of checkpoints, and a verifier reads both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from urllib.parse import urlsplit

from radnode.audit.checkpoint import Checkpoint, Signer
from radnode.audit.files import AppendFile
from radnode.errors import AuditError

SYSLOG = "syslog"  # in `audit.anchor`: the audit repository
NEWEST = 500  # checkpoints of a bucket that are fetched to verify
PATIENCE_SECONDS = 10.0
KEEP_FOREVER_DAYS = 36_500  # a lock needs an end


class Anchor(Protocol):
    """A place where checkpoints are put; `name` is what a person calls it."""

    name: str

    def put(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint there, durably. Raises AuditError when it cannot be."""

    def notes(self) -> AbstractContextManager[Path]:
        """Give, for a verifier, a folder that holds its newest notes. Raises AuditError when it is away."""

    def look(self) -> datetime | None:
        """Return when its newest checkpoint came; None when none has. Raises AuditError when it is away."""


def anchor_of(place: str, base: Path, signer: Signer | None, retention_days: int) -> Anchor:
    """Return the anchor that `audit.anchor` names: `s3://bucket/prefix`, or a folder, seen from `base`.

    Without a `signer` it can be read alone.
    """
    if place.startswith("s3://"):
        return BucketAnchor(place, signer, retention_days)
    return FolderAnchor(base / place, signer)


class FolderAnchor:
    """A folder on another disk or machine. It must be there: one that is not mounted is not made in its place."""

    def __init__(self, folder: Path, signer: Signer | None) -> None:
        self.name = str(folder)
        self._folder = folder
        self._signer = signer

    def put(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint there, durably. Raises AuditError when it cannot be."""
        self.look()
        try:
            file = AppendFile(self._folder / f"{datetime.now(UTC).date().isoformat()}.notes")
            try:
                file.append(_note(self._signer, checkpoint))
            finally:
                file.close()
        except OSError as error:
            raise AuditError(f"The anchor {self._folder} cannot be written: {error.strerror}.") from None

    def notes(self) -> AbstractContextManager[Path]:
        """Give the folder itself."""
        return nullcontext(self._folder)

    def look(self) -> datetime | None:
        """Return when its newest checkpoint came; None when none has. Raises AuditError when it is away."""
        if not self._folder.is_dir():
            raise AuditError(f"The anchor {self._folder} is not there; mount it, or make the folder.")
        newest = max((path.stat().st_mtime for path in self._folder.glob("*.notes")), default=None)
        return None if newest is None else datetime.fromtimestamp(newest, UTC)


class BucketAnchor:
    """A bucket of S3 with object lock: what is put there nobody can change or remove before its time (needs boto3).

    Credentials, region and endpoint are those of the environment, as AWS names them (`AWS_ENDPOINT_URL`). A checkpoint
    is an object `prefix/<size, 20 digits>.note`, locked in compliance mode for `retention_days`. The lock keeps what
    was put first; a later version of it and the mark of a deletion lie over it, and are passed over.
    """

    def __init__(self, uri: str, signer: Signer | None, retention_days: int) -> None:
        parts = urlsplit(uri)
        self.name = uri
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        self._signer = signer
        self._days = retention_days or KEEP_FOREVER_DAYS
        self._made: Any = None

    def put(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint there, locked. Raises AuditError when it cannot be."""
        with self._asking("written") as client:
            client.put_object(
                Bucket=self._bucket,
                Key=f"{self._prefix}{checkpoint.size:020d}.note",
                Body=_note(self._signer, checkpoint),
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(days=self._days),
                ChecksumAlgorithm="SHA256",
            )

    @contextmanager
    def notes(self) -> Iterator[Path]:
        """Fetch the newest notes into a folder for as long as the block lasts. Raises AuditError."""
        with TemporaryDirectory(prefix="radnode-anchor-") as name:
            with self._asking("read") as client:
                first = {item["Key"]: item["VersionId"] for item in self._listed(client)}  # the newest come first
                asked = [{"Key": key, "VersionId": first[key]} for key in sorted(first)[-NEWEST:]]
                fetched = [client.get_object(Bucket=self._bucket, **one)["Body"].read() for one in asked]
            folder = Path(name) / self._bucket
            folder.mkdir()
            (folder / "bucket.notes").write_bytes(b"".join(fetched))
            yield folder

    def look(self) -> datetime | None:
        """Return when its newest checkpoint came; None when none has. Raises AuditError when it is away."""
        with self._asking("read") as client:
            newest: datetime | None = max((item["LastModified"] for item in self._listed(client)), default=None)
        return newest

    def _listed(self, client: Any) -> Iterator[Any]:
        """Yield every version of every note, of one note the newest first, whatever marks of deletion say."""
        for page in client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=self._prefix):
            yield from page.get("Versions", ())

    @contextmanager
    def _asking(self, verb: str) -> Iterator[Any]:
        """Give the client; what goes wrong is an AuditError that names the error of S3, and nothing that it quotes."""
        try:
            from boto3 import client  # noqa: PLC0415 (an extra, which this anchor alone needs)
            from botocore.config import Config  # noqa: PLC0415
            from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
        except ImportError:
            raise AuditError("An anchor in S3 needs boto3: install radnode[aws].") from None
        patience = {"connect_timeout": PATIENCE_SECONDS, "read_timeout": PATIENCE_SECONDS}
        try:
            self._made = self._made or client("s3", config=Config(retries={"total_max_attempts": 2}, **patience))
            yield self._made
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise AuditError(f"The anchor {self.name} cannot be {verb} ({code}).") from None
        except BotoCoreError as error:
            raise AuditError(f"The anchor {self.name} cannot be {verb} ({type(error).__name__}).") from None


def _note(signer: Signer | None, checkpoint: Checkpoint) -> bytes:
    """Return a signed checkpoint as it stands in a drawer: with an empty line behind it."""
    if signer is None:
        raise AuditError("This anchor was opened to be read.")
    return f"{signer.sign(checkpoint.text())}\n".encode()
