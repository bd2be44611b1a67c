"""UIDs of results."""

from __future__ import annotations

import re
import uuid

import pytest

from radnode.report import uids


def test_derived_uid_is_a_uuid_under_2_25() -> None:
    uid = uids.derive_uid("a", "b")
    assert re.fullmatch(r"2\.25\.[1-9][0-9]*", uid)
    assert len(uid) <= 64
    derived = uuid.UUID(int=int(uid.removeprefix("2.25.")))
    assert derived.version == 8
    assert derived.variant == uuid.RFC_4122


def test_derived_uid_never_changes() -> None:
    assert uids.derive_uid("a", "b") == "2.25.288614873227151403586931634095251737027"


@pytest.mark.parametrize("other", [("ab",), ("b", "a"), ("a", "b", ""), ("", "ab"), ("a", "B")])
def test_derived_uid_depends_on_every_part_and_its_place(other: tuple[str, ...]) -> None:
    assert uids.derive_uid(*other) != uids.derive_uid("a", "b")


def test_uids_of_one_result_differ() -> None:
    found = {
        uids.series_uid("1.2", "d"),
        uids.document_uid(["1.2"], "d", "report"),
        uids.document_uid(["1.2"], "d", "picture"),
        uids.document_uid(["1.2", "1.3"], "d", "report"),
        uids.document_uid(["1.2"], "e", "report"),
        uids.tracking_uid(["1.2"], "d", 0),
        uids.tracking_uid(["1.2"], "d", 1),
    }
    assert len(found) == 7
