"""A modality that asks a node for storage commitments (PS3.4 Annex J), by pynetdicom, and hears what comes of it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Self

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from radnode.commitment_sets import IMPLICIT, STORAGE_COMMITMENT_INSTANCE, write_request
from radnode.model import CommitmentRequest

SUCCESS = 0x0000

# Transaction UID, the SOP instances that are committed, and those that are not.
Heard = Callable[[str, frozenset[str], frozenset[str]], None]


class Requester:
    """Asks the node on `node_port`; `heard` is told every answer, on the association of the question or on `port`."""

    def __init__(self, ae_title: str, pki: Path, certificate: str, node_port: int, port: int, heard: Heard) -> None:
        self._node_port = node_port
        self._heard = heard
        self._handlers = [(evt.EVT_N_EVENT_REPORT, self._hear)]
        self._context = _context(ssl.PROTOCOL_TLS_CLIENT, pki, certificate)
        self._ae = AE(ae_title)
        self._ae.add_requested_context(StorageCommitmentPushModel)
        self._ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = 10
        context = _context(ssl.PROTOCOL_TLS_SERVER, pki, "pacs")  # which names this machine as its host
        where = ("127.0.0.1", port)
        self._server = self._ae.start_server(where, block=False, evt_handlers=self._handlers, ssl_context=context)

    def ask(self, request: CommitmentRequest, stay_seconds: float = 0.0) -> int | None:
        """Ask once and keep the association that long; return the status of the N-ACTION, None where none came."""
        association = self._ae.associate(
            "127.0.0.1",
            self._node_port,
            ae_title="RADNODE",
            evt_handlers=self._handlers,
            tls_args=(self._context, "localhost"),
        )
        if not association.is_established:
            return None
        about = read_dataset(BytesIO(write_request(request, IMPLICIT)), is_implicit_VR=True, is_little_endian=True)
        said, _ = association.send_n_action(about, 1, StorageCommitmentPushModel, STORAGE_COMMITMENT_INSTANCE)
        if "Status" in said:
            time.sleep(stay_seconds)
        if association.is_established:
            association.release()
        return int(said.Status) if "Status" in said else None

    def close(self) -> None:
        """Hear nothing more."""
        self._server.shutdown()

    def _hear(self, event: evt.Event) -> tuple[int, None]:
        said = event.event_information
        self._heard(str(said.TransactionUID), _uids(said, "ReferencedSOPSequence"), _uids(said, "FailedSOPSequence"))
        return SUCCESS, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _uids(said: Dataset, sequence: str) -> frozenset[str]:
    return frozenset(str(item.ReferencedSOPInstanceUID) for item in said.get(sequence, ()))


def _context(protocol: int, pki: Path, certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(pki / "ca.crt")
    context.load_cert_chain(pki / f"{certificate}.crt", pki / f"{certificate}.key")
    return context
