"""The ceilings: python -m benchmarks.raw_receiver {discard,file,fsync} PORT PKI FOLDER.

What a Python program can do at most with bytes that come over mutual TLS: read and drop them, write a file for each
object, or write and fsync it. A thread for each connection; a byte answers each object (or the last of a stream).
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from pathlib import Path

from benchmarks.client import RAW_HEADER


def main(arguments: list[str]) -> None:
    """Receive until ended."""
    mode, port, pki, folder = arguments
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(pki, "server.crt"), Path(pki, "server.key"))
    context.load_verify_locations(Path(pki, "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        number = 0
        while True:
            connection, _ = listener.accept()
            number += 1
            target = None if mode == "discard" else Path(folder, str(number))
            arguments_ = (context, connection, target, mode == "fsync")
            threading.Thread(target=_receive, args=arguments_, daemon=True).start()


def _receive(context: ssl.SSLContext, raw: socket.socket, target: Path | None, sync: bool) -> None:
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(raw, server_side=True) as connection:
        size, answer_every = RAW_HEADER.unpack(connection.recv(RAW_HEADER.size))
        view = memoryview(bytearray(size))
        number = 0
        while _fill(connection, view):
            number += 1
            if target is not None:
                _keep(f"{target}-{number}", view, sync)
            if number % answer_every == 0:
                connection.sendall(b"\1")


def _fill(connection: ssl.SSLSocket, view: memoryview) -> bool:
    """Read one object; False when the peer has closed."""
    filled = 0
    while filled < len(view):
        received = connection.recv_into(view[filled:])
        if not received:
            return False
        filled += received
    return True


def _keep(name: str, view: memoryview, sync: bool) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        written = os.write(descriptor, view)
        if written != len(view):
            raise OSError("a short write")
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
