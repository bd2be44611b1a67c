"""HashiCorp Vault's transit secrets engine as its API documents it, as far as radnode asks: on loopback, in the clear.

Keys of type aes256-gcm96 with versions, associated data, rotate, config and trim; a token that may be revoked; a seal
that may be closed; and answers that may be late.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "s.token-of-the-test"  # noqa: S105 (of no server but this one)


class Refusal(Exception):
    """What Vault answers instead of data."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status)
        self.status, self.errors = status, errors


@dataclass
class TransitKey:
    """One named key."""

    versions: dict[int, bytes] = field(default_factory=lambda: {1: os.urandom(32)})
    min_decryption_version: int = 1
    min_encryption_version: int = 0
    min_available_version: int = 0

    @property
    def latest(self) -> int:
        return max(self.versions)


class VaultServer:
    """A context manager; `address` is where it listens."""

    def __init__(self) -> None:
        self.keys = {"radnode": TransitKey()}
        self.sealed = False
        self.token = TOKEN
        self.delay = 0.0
        self.calls = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._serve({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._serve(json.loads(body or b"{}"))

            def _serve(self, body: dict[str, Any]) -> None:
                server.calls += 1
                time.sleep(server.delay)
                try:
                    server.check(self.headers.get("X-Vault-Token"))
                    status, answer = 200, {"data": server.answer(self.command, self.path, body)}
                except Refusal as refusal:
                    status, answer = refusal.status, {"errors": list(refusal.errors)}
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                with contextlib.suppress(OSError):  # who asked has gone
                    self.wfile.write(text)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._handler = Handler
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.up()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listen, on the same port as before."""
        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def check(self, token: str | None) -> None:
        if self.sealed:
            raise Refusal(503, "Vault is sealed")
        if token != self.token:
            raise Refusal(403, "permission denied")

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        words = path.removeprefix("/v1/transit/").split("/")
        match method, words:
            case "GET", ["keys", name]:
                key = self._key(name)
                times = {str(version): 1 for version in key.versions if version >= key.min_decryption_version}
                return {
                    "type": "aes256-gcm96",
                    "latest_version": key.latest,
                    "keys": times,
                    "min_decryption_version": key.min_decryption_version,
                    "min_encryption_version": key.min_encryption_version,
                    "min_available_version": key.min_available_version,
                }
            case "POST", ["keys", name, "rotate"]:
                key = self._key(name)
                key.versions[key.latest + 1] = os.urandom(32)
                return {}
            case "POST", ["keys", name, "config"]:
                key = self._key(name)
                key.min_decryption_version = body.get("min_decryption_version", key.min_decryption_version)
                key.min_encryption_version = body.get("min_encryption_version", key.min_encryption_version)
                return {}
            case "POST", ["keys", name, "trim"]:
                self._trim(self._key(name), body["min_available_version"])
                return {}
            case "POST", ["encrypt", name]:
                key = self._key(name)
                nonce, plain = os.urandom(12), base64.b64decode(body["plaintext"])
                sealed = nonce + AESGCM(key.versions[key.latest]).encrypt(nonce, plain, _bound(body))
                return {"ciphertext": f"vault:v{key.latest}:{base64.b64encode(sealed).decode()}", "key_version": 1}
            case "POST", ["decrypt", name]:
                return {"plaintext": base64.b64encode(self._open(self._key(name), body)).decode()}
        raise Refusal(404, "no handler for route")

    def _key(self, name: str) -> TransitKey:
        if name not in self.keys:
            raise Refusal(404)
        return self.keys[name]

    def _open(self, key: TransitKey, body: dict[str, Any]) -> bytes:
        try:
            _, version, encoded = body["ciphertext"].split(":")
            sealed, number = base64.b64decode(encoded, validate=True), int(version[1:])
        except ValueError:
            raise Refusal(400, "invalid ciphertext: no prefix") from None
        if number < key.min_decryption_version:
            raise Refusal(400, "ciphertext or signature version is disallowed by policy (too old)")
        if number not in key.versions:
            raise Refusal(400, "invalid ciphertext: version is too new")
        try:
            return AESGCM(key.versions[number]).decrypt(sealed[:12], sealed[12:], _bound(body))
        except InvalidTag:
            raise Refusal(400, "cipher: message authentication failed") from None

    def _trim(self, key: TransitKey, least: int) -> None:
        if not key.min_encryption_version:
            raise Refusal(400, "minimum available version cannot be set when minimum encryption version is not set")
        if least > min(key.min_encryption_version, key.min_decryption_version):
            raise Refusal(400, "minimum available version cannot be greater than minmum encryption version")
        key.min_available_version = least
        key.versions = {number: key.versions[number] for number in key.versions if number >= least}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.down()


def _bound(body: dict[str, Any]) -> bytes | None:
    return base64.b64decode(body["associated_data"]) if "associated_data" in body else None
