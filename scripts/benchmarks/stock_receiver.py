"""The stock pynetdicom receiver, as its documentation shows it: python -m benchmarks.stock_receiver PORT PKI FOLDER."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt


def main(arguments: list[str]) -> None:
    """Receive until ended; each object becomes a file, with pydicom's `save_as`."""
    port, pki, folder = arguments
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(pki, "server.crt"), Path(pki, "server.key"))
    context.load_verify_locations(Path(pki, "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(Path(folder, dataset.SOPInstanceUID), enforce_file_format=True)
        return 0x0000

    entity = AE(ae_title="STOCK")
    entity.supported_contexts = AllStoragePresentationContexts
    handlers = [(evt.EVT_C_STORE, store)]
    entity.start_server(("127.0.0.1", int(port)), ssl_context=context, evt_handlers=handlers)


if __name__ == "__main__":
    main(sys.argv[1:])
