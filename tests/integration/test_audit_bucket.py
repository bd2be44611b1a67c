"""Anchors in S3 with object lock, against moto's server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from support.aws import amazon

from radnode.audit.anchors import BucketAnchor
from radnode.audit.checkpoint import Checkpoint, Signer
from radnode.audit.verify import verify
from radnode.errors import AuditError

SIGNER = Signer.generate("radnode.example/audit")
URI = "s3://anchors/node-1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with amazon() as url:
        yield url


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {"ENDPOINT_URL": endpoint, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    if not client.list_buckets()["Buckets"]:
        client.create_bucket(Bucket="anchors", ObjectLockEnabledForBucket=True)
    return client


def checkpoint(size: int) -> Checkpoint:
    return Checkpoint(SIGNER.verifier.name, size, bytes(32), ("time now", f"prev {'0' * 64}"))


def test_checkpoint_is_locked_for_the_retention_and_read_back(s3: Any, tmp_path) -> None:
    anchor = BucketAnchor(URI, SIGNER, 2192)
    assert anchor.look() is None
    for size in (3, 20, 100):
        anchor.put(checkpoint(size))
    newest = anchor.look()
    assert newest is not None
    assert abs(newest - datetime.now(UTC)) < timedelta(minutes=1)
    held = s3.head_object(Bucket="anchors", Key="node-1/00000000000000000100.note")
    assert held["ObjectLockMode"] == "COMPLIANCE"
    assert held["ObjectLockRetainUntilDate"] > datetime.now(UTC) + timedelta(days=2190)
    [version] = s3.list_object_versions(Bucket="anchors", Prefix="node-1/00000000000000000100")["Versions"]
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket="anchors", Key=version["Key"], VersionId=version["VersionId"])

    (tmp_path / "audit").mkdir()
    (tmp_path / "key").write_text(str(SIGNER.verifier))
    with BucketAnchor(URI, None, 2192).notes() as folder:
        found = verify(tmp_path / "audit", tmp_path / "key", None, [folder])
    assert (found.ok, found.first_bad, found.checkpoints) == (False, 1, 3)  # the trail is gone, the anchor knows
    assert not folder.exists()


def test_note_that_was_overwritten_or_marked_as_deleted_is_read_as_it_was_put(s3: Any, tmp_path) -> None:
    uri = "s3://anchors/node-2"
    anchor = BucketAnchor(uri, SIGNER, 2192)
    for size in (3, 20):
        anchor.put(checkpoint(size))
    s3.put_object(Bucket="anchors", Key="node-2/00000000000000000003.note", Body=b"")
    s3.delete_object(Bucket="anchors", Key="node-2/00000000000000000020.note")  # no lock forbids the mark
    (tmp_path / "audit").mkdir()
    (tmp_path / "key").write_text(str(SIGNER.verifier))
    with BucketAnchor(uri, None, 2192).notes() as folder:
        found = verify(tmp_path / "audit", tmp_path / "key", None, [folder])
    assert (found.ok, found.first_bad, found.checkpoints) == (False, 1, 2)


def test_bucket_that_is_away_or_another_is_said_in_one_sentence(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuditError, match=r"^The anchor s3://nobody/x cannot be written \(NoSuchBucket\)\.$"):
        BucketAnchor("s3://nobody/x", SIGNER, 1).put(checkpoint(1))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(AuditError, match=r"cannot be read \(EndpointConnectionError\)"):
        BucketAnchor(URI, SIGNER, 1).look()
