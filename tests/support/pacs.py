"""An Orthanc with handles for what can be wrong with a PACS: away, frozen, slow, refusing, forgetful."""

from __future__ import annotations

import random
import signal
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, Verification

from support.node import Orthanc

OUT_OF_RESOURCES = 0xA700  # PS3.4 Table B.2-1
_SLICE_SECONDS = 0.1


class TroubledOrthanc(Orthanc):
    """Orthanc, and what becomes of it. Each trouble ends with its block, or with `over`."""

    def __init__(self, folder: Path, port: int, pki: Path) -> None:
        super().__init__(folder, port, pki)
        self._port = port
        self._pki = pki

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
        ae.add_supported_context(Comprehensive3DSRStorage)
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

    def lose(self, chance: random.Random) -> bool:
        """Forget one instance that it had taken; False where it holds none."""
        held = self.get("/instances")
        if held:
            path = f"http://127.0.0.1:{self._http}/instances/{chance.choice(held)}"
            with urllib.request.urlopen(urllib.request.Request(path, method="DELETE"), timeout=30) as answer:
                answer.read()
        return bool(held)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
