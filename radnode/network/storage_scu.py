"""Verification and Storage SCU: what becomes of an object at its destination, told apart for the outbox."""

from __future__ import annotations

import contextlib
import itertools
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from radnode.errors import DestinationHolds, DestinationRefused, DestinationUnavailable
from radnode.network import wire
from radnode.network.command_set import (
    MAX_COMMAND_BYTES,
    NO_DATA_SET,
    RESPONSE,
    WITH_DATA_SET,
    Command,
    CommandSet,
    MalformedCommand,
)
from radnode.network.command_set import Tag as _Tag
from radnode.network.command_set import encode as _encode
from radnode.network.contexts import VERIFICATION, keyword, proposed
from radnode.network.statuses import DUPLICATE_SOP_INSTANCE, Verdict, classify
from radnode.network.tls import matches_host
from radnode.part10 import read_file_meta

if TYPE_CHECKING:
    from radnode.settings import DestinationSettings

_VERIFICATION_OFFERS = ((VERIFICATION, "1.2.840.10008.1.2"), (VERIFICATION, "1.2.840.10008.1.2.1"))
_PERMANENT = 1  # result of A-ASSOCIATE-RJ, PS3.8 Table 9-21
_REJECTIONS = {  # source and reason of A-ASSOCIATE-RJ, PS3.8 Table 9-21
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


class DestinationAssociation:
    """An association with a destination; a context manager that releases it, or aborts it after an error.

    Errors call it `name`, or "the destination" and the name it has in the configuration. `scp_of` is the SOP class of
    which this node, which requests the association, is to be the SCP.

    Raises, here and in every method:
        DestinationUnavailable: try the same later: no connection, TLS failure, timeout, abort, rejected-transient,
            out of resources.
        DestinationRefused: the destination says that the same would fail again: rejected-permanent, presentation
            context not accepted, a permanent failure status.
    """

    def __init__(
        self,
        destination: DestinationSettings,
        *,
        context: ssl.SSLContext | None,
        calling_ae_title: str,
        offers: Iterable[tuple[str, str]],
        timeout_seconds: float,
        name: str | None = None,
        scp_of: str | None = None,
    ) -> None:
        self._name = name or f"the destination {destination.name}"
        contexts = proposed(offers)
        with self._told_apart():
            self._wire = wire.Wire.connect(destination.host, destination.port, context, timeout_seconds)
        try:
            if context is not None:
                self._check_host(destination.host)
            with self._told_apart():
                self._wire.send(wire.associate_rq(calling_ae_title, destination.ae_title, contexts, scp_of))
                accepted, self._max_length = wire.read_associate_ac(
                    self._expect(wire.ASSOCIATE_AC, self._wire.deadline())
                )
        except BaseException:
            self._wire.close()
            raise
        # each context was proposed with one transfer syntax, so that an accepted ID tells both
        self._accepted = {
            (str(item.abstract_syntax), str(item.transfer_syntax[0])): int(item.context_id)
            for item in contexts
            if int(item.context_id) in accepted
        }
        self._message_id = 0

    def _check_host(self, host: str) -> None:
        """Hold the certificate, whose chain has verified, to the host that was called."""
        if not matches_host(self._wire.certificate, host):
            raise DestinationUnavailable(
                f"The certificate of {self._name} is not that of its host; correct `host` or renew the certificate."
            )

    @property
    def _subject(self) -> str:
        """Who it is, at the beginning of a sentence."""
        return self._name[0].upper() + self._name[1:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release, except after an error that leaves the association in doubt; what was stored stays stored."""
        with contextlib.suppress(OSError, wire.ProtocolError, DestinationUnavailable, DestinationRefused):
            if error is None or isinstance(error, DestinationRefused):
                self._wire.send(wire.RELEASE_RQ_PDU)
                self._expect(wire.RELEASE_RP, self._wire.deadline())
            else:
                self._wire.send(wire.ABORT_PDU)
        self._wire.close()

    def _context(self, offers: Iterable[tuple[str, str]]) -> tuple[int, str]:
        """Return ID and transfer syntax of the first of these contexts that was accepted.

        Raises:
            DestinationRefused: none was.
        """
        for sop_class_uid, transfer_syntax_uid in offers:
            context_id = self._accepted.get((sop_class_uid, transfer_syntax_uid))
            if context_id is not None:
                return context_id, transfer_syntax_uid
        raise DestinationRefused(f"{self._subject} does not accept {keyword(sop_class_uid)}; enable it there.")

    def store(self, part10: bytes) -> int:
        """Send one Part 10 object; result and errors as of `store_chunks`."""
        return self.store_chunks([part10])

    def store_chunks(self, chunks: Iterable[bytes]) -> int:
        """Send one Part 10 object that comes in pieces, its data set byte for byte; return 0000 or a warning status.

        The first piece holds the whole File Meta Information. Whatever `chunks` raises leaves the association unusable.

        Raises:
            MalformedDataSet: it is not in the DICOM File Format.
            DestinationUnavailable, DestinationRefused: as above; DestinationHolds for 0111.
        """
        pieces = iter(chunks)
        first = next(pieces, b"")
        meta = read_file_meta(first)
        context_id = self._accepted.get((meta.sop_class_uid, meta.transfer_syntax_uid))
        if context_id is None:
            raise DestinationRefused(
                f"{self._subject} does not accept SOP class {meta.sop_class_uid} in transfer syntax "
                f"{meta.transfer_syntax_uid}; enable it there."
            )
        values: dict[_Tag, int | str] = {
            _Tag.AFFECTED_SOP_CLASS_UID: meta.sop_class_uid,
            _Tag.AFFECTED_SOP_INSTANCE_UID: meta.sop_instance_uid,
            _Tag.PRIORITY: 0,  # medium
            _Tag.COMMAND_DATA_SET_TYPE: WITH_DATA_SET,
        }
        status = self._request(
            Command.C_STORE, context_id, values, itertools.chain([memoryview(first)[meta.offset :]], pieces)
        )
        verdict, meaning = classify(status)
        if verdict is Verdict.STORED:
            return status
        kind = DestinationUnavailable if verdict is Verdict.RETRY else DestinationRefused
        if status == DUPLICATE_SOP_INSTANCE:
            kind = DestinationHolds
        raise kind(f"{self._subject} answered {status:04X} ({meaning}) to C-STORE.")

    def echo(self) -> float:
        """Send a C-ECHO and return its round trip in milliseconds."""
        context_id, _ = self._context(_VERIFICATION_OFFERS)
        began = time.perf_counter()
        values: dict[_Tag, int | str] = {
            _Tag.AFFECTED_SOP_CLASS_UID: VERIFICATION,
            _Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
        }
        status = self._request(Command.C_ECHO, context_id, values, None)
        if status != 0:
            raise DestinationRefused(f"{self._subject} answered {status:04X} to C-ECHO.")
        return (time.perf_counter() - began) * 1000

    def _request(
        self,
        command: Command,
        context_id: int,
        values: dict[_Tag, int | str],
        data_set: Iterable[bytes | memoryview] | None,
    ) -> int:
        """Send one request and return the status of its response."""
        self._message_id = self._message_id % 65535 + 1
        values |= {_Tag.COMMAND_FIELD: int(command), _Tag.MESSAGE_ID: self._message_id}
        with self._told_apart():
            for pdu in wire.p_data(context_id, _encode(values), command=True, max_length=self._max_length):
                self._wire.send(pdu)
            if data_set is not None:
                for pdu in wire.data_set(context_id, data_set, max_length=self._max_length):
                    self._wire.send(pdu)
            response = self._response()
            if (
                response.ushort(_Tag.COMMAND_FIELD) != command | RESPONSE
                or response.ushort(_Tag.MESSAGE_ID_BEING_RESPONDED_TO) != self._message_id
            ):
                raise wire.ProtocolError("a response to another request")
            return response.ushort(_Tag.STATUS)

    def _response(self) -> CommandSet:
        """Read P-DATA until a command set is complete: one deadline for all of it, however many PDUs it comes in."""
        encoded, deadline = bytearray(), self._wire.deadline()
        room = MAX_COMMAND_BYTES
        while room >= 0:
            body = self._expect(wire.P_DATA, deadline)
            room -= len(body)
            for is_last, fragment in wire.read_p_data(body):
                encoded += fragment
                if is_last:
                    return CommandSet.parse(bytes(encoded))
        raise wire.ProtocolError("an endless command set")

    def _expect(self, pdu_type: int, deadline: float) -> bytes:
        """Return the variable field of the next PDU, which must be of this type, and whole at `deadline`."""
        received, body = self._wire.receive(deadline)
        if received == pdu_type:
            return body
        if received == wire.ASSOCIATE_RJ and len(body) == 4:
            result, source, reason = body[1:]
            kind = DestinationRefused if result == _PERMANENT else DestinationUnavailable
            why = _REJECTIONS.get((source, reason), "reason unknown")
            raise kind(
                f"{self._subject} rejected the association: {why} ({result}/{source}/{reason}, PS3.8 Table 9-21); "
                "its log says why."
            )
        if received == wire.ABORT and len(body) == 4:
            raise DestinationUnavailable(
                f"{self._subject} aborted the association ({body[2]}/{body[3]}, PS3.8 Table 9-26)."
            )
        raise wire.ProtocolError("an unexpected PDU")

    @contextlib.contextmanager
    def _told_apart(self) -> Iterator[None]:
        """Turn what the network does into DestinationUnavailable, in words without the peer's text."""
        try:
            yield
        except TimeoutError as error:
            raise DestinationUnavailable(f"{self._subject} did not answer in time.") from error
        except ssl.SSLCertVerificationError as error:
            raise DestinationUnavailable(
                f"The certificate of {self._name} does not verify (OpenSSL error {error.verify_code}); "
                "check tls.ca and its expiry."
            ) from error
        except ssl.SSLError as error:
            raise DestinationUnavailable(
                f"TLS with {self._name} failed ({error.reason or 'closed'}); check both certificates."
            ) from error
        except OSError as error:
            raise DestinationUnavailable(f"{self._subject} cannot be reached ({type(error).__name__}).") from error
        except (wire.ProtocolError, MalformedCommand) as error:
            raise DestinationUnavailable(f"{self._subject} broke the protocol: {error}.") from error


def open_destination(
    destination: DestinationSettings,
    *,
    context: ssl.SSLContext | None,
    calling_ae_title: str,
    objects: Sequence[bytes],
    timeout_seconds: float,
    name: str | None = None,
) -> DestinationAssociation:
    """Return an association that offers what `objects` (Part 10) need; `context` None means without TLS.

    Raises:
        MalformedDataSet: one of the objects is not in the DICOM File Format.
        DestinationUnavailable, DestinationRefused: see DestinationAssociation.
    """
    metas = [read_file_meta(part10) for part10 in objects]
    return DestinationAssociation(
        destination,
        context=context,
        calling_ae_title=calling_ae_title,
        offers=[(meta.sop_class_uid, meta.transfer_syntax_uid) for meta in metas],
        timeout_seconds=timeout_seconds,
        name=name,
    )


def echo(
    destination: DestinationSettings,
    *,
    context: ssl.SSLContext | None,
    calling_ae_title: str,
    timeout_seconds: float,
    name: str | None = None,
) -> float:
    """Associate, send one C-ECHO, release, and return the round trip of the C-ECHO in milliseconds.

    Raises:
        DestinationUnavailable, DestinationRefused: see DestinationAssociation.
    """
    with DestinationAssociation(
        destination,
        context=context,
        calling_ae_title=calling_ae_title,
        offers=_VERIFICATION_OFFERS,
        timeout_seconds=timeout_seconds,
        name=name,
    ) as association:
        return association.echo()
