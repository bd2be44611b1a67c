"""Peers that a node must turn away, byte by byte on the wire, and PACSes that refuse."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, Verification

from radnode.network import wire
from radnode.network.contexts import VERIFICATION, proposed

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
ANSWER_SECONDS = 15.0


def tls(authority: Path, certificate: Path | None) -> ssl.SSLContext:
    """The TLS context of a peer: whom it trusts, and its certificate (with the key beside it), or none."""
    context = ssl.create_default_context(cafile=str(authority))
    if certificate is not None:
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


def associate_rq(calling: str, called: str) -> bytes:
    """An A-ASSOCIATE-RQ that asks for Verification."""
    return bytes(wire.associate_rq(calling, called, proposed([(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)])))


def connect(port: int) -> socket.socket:
    """A TCP connection to a node on this machine."""
    return socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)


def answer(port: int, context: ssl.SSLContext | None, said: bytes) -> bytes:
    """What comes back, up to the end of the connection or of one PDU, for these bytes; a TLS alert raises SSLError."""
    with connect(port) as raw:
        connection = raw if context is None else context.wrap_socket(raw, server_hostname="localhost")
        with connection:
            connection.sendall(said)
            heard = b""
            try:
                while len(heard) < 6 or len(heard) < 6 + int.from_bytes(heard[2:6]):
                    part = connection.recv(4096)
                    if not part:
                        break
                    heard += part
            except ConnectionResetError:
                pass  # closed, with our bytes unread
            return heard


def context_results(pdu: bytes) -> dict[int, int]:
    """The result of each presentation context of an A-ASSOCIATE-AC (PS3.8 Table 9-18)."""
    results, offset = {}, 74
    while offset < len(pdu):
        if pdu[offset] == 0x21:
            results[pdu[offset + 4]] = pdu[offset + 6]
        offset += 4 + int.from_bytes(pdu[offset + 2 : offset + 4])
    return results


@contextmanager
def scripted_pacs(port: int, pki: Path, status: int | None = 0x0000) -> Iterator[list[bytes]]:
    """A PACS over mutual TLS that answers every C-STORE with `status`; None means that it accepts no report at all.

    Gives the SOP Instance UIDs that it was sent.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki / "pacs.crt", pki / "pacs.key")
    heard: list[bytes] = []

    def store(event: evt.Event) -> int:
        heard.append(str(event.request.AffectedSOPInstanceUID).encode())
        return status or 0

    ae = AE("PACS")
    ae.add_supported_context(Verification)
    if status is not None:
        ae.add_supported_context(Comprehensive3DSRStorage, ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", port), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    try:
        yield heard
    finally:
        server.shutdown()
