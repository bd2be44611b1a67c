"""Every one of the 65,536 statuses has one verdict, and pynetdicom's table agrees about success and warnings."""

from __future__ import annotations

from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from radnode.network.statuses import Verdict, classify


def test_agrees_with_pynetdicom_on_what_is_stored():
    for status, (category, _) in STORAGE_SERVICE_CLASS_STATUS.items():
        assert (classify(status)[0] is Verdict.STORED) == (category in {"Success", "Warning"}), f"{status:04X}"


def test_every_status_has_a_verdict():
    verdicts = [classify(status)[0] for status in range(0x10000)]
    assert verdicts.count(Verdict.STORED) == 0x1000 + 3
    assert all(verdict is Verdict.RETRY for verdict in verdicts[0xA700:0xA800])
    assert all(verdict is Verdict.REFUSED for verdict in verdicts[0xC000:0xD000])
    assert verdicts[0xFE00] is Verdict.RETRY
