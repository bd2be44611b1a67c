"""The key-encryption key in HashiCorp Vault's transit secrets engine (or OpenBao's): it never leaves it.

Plain HTTPS with the standard library. A key's id here is NAME:vN, N the version that Vault puts into its ciphertext.
The token is read from its file for each call, so that an agent may renew it.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from radnode.errors import ConfigError, KeyUnavailable, SealBroken

MAX_ANSWER = 65536
_CIPHERTEXT = re.compile(r"vault:v(\d{1,9}):[A-Za-z0-9+/=]+")
_BROKEN = ("message authentication failed", "invalid ciphertext")


class VaultTransitKeys:
    """One named key of type aes256-gcm96. Each step of a call is given `timeout_seconds`; there is no second try."""

    def __init__(
        self,
        address: str,
        key: str,
        timeout_seconds: float,
        *,
        mount: str = "transit",
        token_file: Path | None = None,
        ca: Path | None = None,
    ) -> None:
        parts = urlsplit(address)
        local = parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not key or not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
            raise ConfigError('The key provider "vault" needs [keys] vault_address (https://...) and vault_key.')
        self._scheme, self._host, self._port = parts.scheme, parts.hostname, parts.port
        self._key = key
        self._mount = mount.strip("/")
        self._token_file = token_file
        self._ca = ca
        self._timeout_seconds = timeout_seconds

    def keys(self) -> list[str]:
        """Return the versions that can still decrypt, oldest first."""
        data = self._call("GET", f"keys/{quote(self._key, safe='')}")
        latest = data.get("latest_version")
        if not isinstance(latest, int):
            raise KeyUnavailable("Vault does not say which version of the key is current.")
        oldest = max(1, int(data.get("min_decryption_version") or 1))
        return [self._id(version) for version in range(min(oldest, latest), latest + 1)]

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """Wrap under the latest version, with `context` as associated data."""
        data = self._call("POST", f"encrypt/{quote(self._key, safe='')}", plaintext=_b64(key), **_bound(context))
        ciphertext = str(data.get("ciphertext", ""))
        match = _CIPHERTEXT.fullmatch(ciphertext)
        if match is None:
            raise KeyUnavailable("Vault answers with something that is no ciphertext.")
        return self._id(int(match[1])), ciphertext.encode()

    def unwrap(self, kek_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap under the version that is named in the ciphertext."""
        name, separator, _ = kek_id.rpartition(":v")
        if not separator:
            raise KeyUnavailable(f"The study keys are wrapped under {kek_id}, a key of another provider ([keys]).")
        ciphertext = wrapped.decode("ascii", "replace")
        data = self._call("POST", f"decrypt/{quote(name, safe='')}", ciphertext=ciphertext, **_bound(context))
        try:
            return base64.b64decode(data["plaintext"], validate=True)
        except (KeyError, ValueError, TypeError) as error:
            raise KeyUnavailable("Vault answers with something that is no plaintext.") from error

    def create(self) -> str | None:
        """Rotate the key: the new version wraps from now on."""
        self._call("POST", f"keys/{quote(self._key, safe='')}/rotate")
        return self.keys()[-1]

    def destroy(self, kek_id: str) -> bool:
        """Forbid every version up to this one and trim them: Vault then holds them no more.

        Raises:
            KeyUnavailable: Vault does not answer, or the token may not do that.
        """
        name, separator, version = kek_id.rpartition(":v")
        if not separator or not version.isdigit():
            return False
        path, least = f"keys/{quote(name, safe='')}", int(version) + 1
        data = self._call("GET", path)
        if int(data.get("min_available_version") or 0) >= least:
            return True
        decryption = max(least, int(data.get("min_decryption_version") or 0))
        encryption = max(least, int(data.get("min_encryption_version") or 0))
        self._call("POST", f"{path}/config", min_decryption_version=decryption, min_encryption_version=encryption)
        self._call("POST", f"{path}/trim", min_available_version=least)
        return True

    def _id(self, version: int) -> str:
        return f"{self._key}:v{version}"

    def _call(self, method: str, path: str, **body: object) -> dict[str, Any]:
        """Return the `data` of Vault's answer; what Vault says in error is never quoted.

        Raises:
            KeyUnavailable: no answer, or no leave.
            SealBroken: Vault says that a ciphertext was changed.
        """
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true", "Content-Type": "application/json"}
        connection = self._connection()
        try:
            connection.request(method, f"/v1/{self._mount}/{path}", json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            text = answer.read(MAX_ANSWER).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise KeyUnavailable(f"Vault does not answer ({type(error).__name__}).") from error
        finally:
            connection.close()
        if answer.status == 400 and any(word in text for word in _BROKEN):
            raise SealBroken("A study key does not open with its key in Vault; it was changed.")
        if answer.status not in (200, 204):
            raise KeyUnavailable(f"Vault refuses {path.partition('/')[0]} with status {answer.status}.")
        try:
            found = json.loads(text or "{}")
        except ValueError as error:
            raise KeyUnavailable("Vault answers with something that is no JSON.") from error
        data = found.get("data") if isinstance(found, dict) else None
        return data if isinstance(data, dict) else {}

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "http":  # on this machine only, for an agent
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_seconds)
        try:
            context = ssl.create_default_context(cafile=None if self._ca is None else str(self._ca))
        except (OSError, ssl.SSLError) as error:
            raise KeyUnavailable(f"The authority of Vault, {self._ca}, cannot be used.") from error
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_seconds, context=context)

    def _token(self) -> str:
        if self._token_file is None:
            token = os.environ.get("VAULT_TOKEN", "")
        else:
            try:
                token = self._token_file.read_text(encoding="ascii").strip()
            except (OSError, ValueError) as error:
                raise KeyUnavailable(f"The token of Vault cannot be read from {self._token_file}.") from error
        if not token.isprintable():
            raise KeyUnavailable("The token of Vault holds characters that no token has.")
        return token


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bound(context: bytes) -> dict[str, str]:
    """Bind to `context`: as associated data, as Vault has it for AES-GCM."""
    return {"associated_data": _b64(context)}
