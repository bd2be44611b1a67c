"""An Orthanc with handles for what can be wrong with a PACS: away, frozen, slow, refusing, forgetful."""

from __future__ import annotations

import json
import signal
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from support.node import Orthanc, free_port

OUT_OF_RESOURCES = 0xA700  # PS3.4 Table B.2-1
_SLICE_SECONDS = 0.1


class TroubledOrthanc(Orthanc):
    """Orthanc, and what becomes of it. Each trouble ends with its block, or with `over`."""

    def __init__(self, folder: Path, port: int, pki: Path, node_port: int) -> None:
        """`node_port` is where it answers storage commitments that RADNODE asked for."""
        super().__init__(folder, port, pki)
        self._port = port
        self._pki = pki
        node = {"AET": "RADNODE", "Host": "127.0.0.1", "Port": node_port, "UseDicomTls": True}
        self._configure(DicomModalities={"radnode": node}, SaveJobs=False)  # no answer is given after a restart

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Its process stands still: connections stay open or wait to be accepted, and nothing is answered."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """kill -9: connections are refused."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def refusing(self, status: int = OUT_OF_RESOURCES) -> Iterator[None]:
        """It is stopped, and another SCP in its place answers each C-STORE with this status."""
        self.stop()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pki / "pacs.crt", self._pki / "pacs.key")
        context.load_verify_locations(self._pki / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        ae = AE("PACS")
        ae.add_supported_context(Verification)
        for storage in AllStoragePresentationContexts:
            ae.add_supported_context(storage.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        handlers = [(evt.EVT_C_STORE, lambda _event: status)]
        server = ae.start_server(("127.0.0.1", self._port), block=False, ssl_context=context, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()
            self.start()

    def crawl(self, over: Callable[[], bool]) -> None:
        """Let its process run a quarter of the time only, until `over`."""
        while not over():
            with self.frozen():
                time.sleep(3 * _SLICE_SECONDS)
            time.sleep(_SLICE_SECONDS)

    def lose(self, SOPInstanceUID: str) -> bool:
        """Forget an instance while it is down: nobody reaches it before its return. False: it had it not."""
        self._configure(DicomPort=free_port())
        self.start()
        found = self._rest("POST", "/tools/lookup", SOPInstanceUID)
        for instance in found:
            self._rest("DELETE", instance["Path"])
        self.stop()
        self._configure(DicomPort=self._port)
        return bool(found)

    def _configure(self, **changes: object) -> None:
        """Change its settings for the next start."""
        self._config.write_text(json.dumps(json.loads(self._config.read_text()) | changes))

    def _rest(self, method: str, path: str, body: str = "") -> Any:
        """Ask its REST interface for something that changes it."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._http}{path}", body.encode(), method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 (on this machine)
            return json.loads(answer.read())

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
