"""Key-encryption keys that this machine sees: in files, in the environment, or printed by a command.

All three wrap alike: AES-256-GCM under the key of the highest number, a nonce of 12 bytes in front, the context as
associated data. A key is called `kek-` and its number; numbers count, so that kek-10000 follows kek-9999.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from radnode.durable import sync_folder
from radnode.errors import ConfigError, KeyUnavailable, SealBroken, StoreUnavailable
from radnode.storage.keys import KEY, read_key

MAX_OUTPUT = 65536  # bytes that a command may print
_NONCE = 12
_NAME = re.compile(r"kek-(\d{1,9})")
_LINE = re.compile(r"(kek-\d{1,9})[ \t=:]+([0-9A-Fa-f]{64})")


class LocalKeys:
    """What the three have in common; each says which keys there are and reads one."""

    def names(self) -> list[str]:
        """Return the ids of the keys, in any order; KeyUnavailable when nobody can tell."""
        raise NotImplementedError

    def read(self, kek_id: str) -> bytes:
        """Return one key; KeyUnavailable when it is not there or is none."""
        raise NotImplementedError

    def where(self) -> str:
        """Say where the keys are to be."""
        raise NotImplementedError

    def keys(self) -> list[str]:
        """Return the ids, the lowest number first; the last one is current."""
        names = sorted((name for name in self.names() if _NAME.fullmatch(name)), key=number_of)
        if not names:
            raise KeyUnavailable(f"There is no key-encryption key {self.where()}; restore it from its backup.")
        return names

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """Wrap under the current key: nonce (12 bytes) + AES-256-GCM."""
        current, nonce = self.keys()[-1], os.urandom(_NONCE)
        return current, nonce + AESGCM(self.read(current)).encrypt(nonce, key, context)

    def unwrap(self, kek_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap under the key that wrapped it."""
        if not _NAME.fullmatch(kek_id):
            raise KeyUnavailable(f"The study keys are wrapped under {kek_id}, a key of another provider ([keys]).")
        kek = self.read(kek_id)
        try:
            return AESGCM(kek).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], context)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"A study key does not open with {kek_id} {self.where()}; is it the right key?") from error

    def create(self) -> str | None:
        """Return None: a new key is the operator's to make."""
        return None

    def destroy(self, kek_id: str) -> bool:
        """Return False unless the key is gone already: to remove it is the operator's."""
        return kek_id not in self.names()


class FileKeys(LocalKeys):
    """Files of 0600 in one folder, `kek-NNNN.key`, each 32 bytes as hex."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the stems of the files."""
        try:
            return [path.stem for path in self._folder.iterdir() if path.suffix == ".key"]
        except OSError as error:
            raise KeyUnavailable(f"The key folder {self._folder} cannot be read ({error.strerror}).") from error

    def read(self, kek_id: str) -> bytes:
        """Read one file."""
        return read_key(self._folder / f"{kek_id}.key")

    def where(self) -> str:
        """Name the folder."""
        return f"in {self._folder}"

    def create(self) -> str | None:
        """Write the file of the next number, whole and durable before it has its name.

        Raises:
            KeyUnavailable: the folder cannot be read.
            StoreUnavailable: it cannot be written.
        """
        name = f"kek-{number_of(self.keys()[-1]) + 1:04d}"
        path = self._folder / f"{name}.key"
        fresh = path.with_suffix(f".{os.getpid()}.new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, secrets.token_hex(KEY).encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                path.hardlink_to(fresh)  # unlike a rename, it replaces nothing
            finally:
                fresh.unlink()
            sync_folder(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"The key file {path} cannot be made ({error.strerror}).") from error
        return name

    def destroy(self, kek_id: str) -> bool:
        """Overwrite one file and remove it.

        Raises:
            StoreUnavailable: it cannot be removed.
        """
        path = self._folder / f"{kek_id}.key"
        try:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_WRONLY)
                try:
                    os.write(descriptor, secrets.token_hex(KEY).encode())
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                path.unlink()
                sync_folder(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"The key file {path} cannot be removed ({error.strerror}).") from error
        return True


class EnvironmentKeys(LocalKeys):
    """Environment variables: a prefix and the number, each 64 hex digits."""

    def __init__(self, prefix: str, environment: Mapping[str, str] | None = None) -> None:
        self._prefix = prefix
        self._environment = os.environ if environment is None else environment

    def names(self) -> list[str]:
        """Return the ids of the variables that have the prefix."""
        return list(self._variables())

    def read(self, kek_id: str) -> bytes:
        """Read one variable."""
        name = self._variables().get(kek_id)
        try:
            key = bytes.fromhex(self._environment[name or ""])
        except (KeyError, ValueError):
            key = b""
        if len(key) != KEY:
            raise KeyUnavailable(f"The key {kek_id} is not {2 * KEY} hex digits {self.where()}.")
        return key

    def where(self) -> str:
        """Name the variables."""
        return f"in the environment ({self._prefix}0001 and so on)"

    def _variables(self) -> dict[str, str]:
        """Return the names of the variables by the ids of their keys."""
        found = {}
        for name in self._environment:
            digits = name.removeprefix(self._prefix)
            if name.startswith(self._prefix) and digits.isascii() and digits.isdigit() and len(digits) < 10:
                found[f"kek-{digits}"] = name
        return found


class CommandKeys(LocalKeys):
    """What a command prints: one key a line, its id and 64 hex digits. It is run for each use, without a shell.

    Its standard error goes nowhere, its output is never logged, and what it starts dies with it.
    """

    def __init__(self, argv: Sequence[str], timeout_seconds: float) -> None:
        if not argv:
            raise ConfigError('The key provider "command" needs [keys] command: a program and its arguments.')
        self._argv = list(argv)
        self._timeout_seconds = timeout_seconds

    def names(self) -> list[str]:
        """Return the ids that it prints."""
        return list(self._run())

    def read(self, kek_id: str) -> bytes:
        """Return one of the keys that it prints."""
        key = self._run().get(kek_id)
        if key is None:
            raise KeyUnavailable(f"The key {kek_id} is not {self.where()}.")
        return key

    def where(self) -> str:
        """Name the command."""
        return f"in what {Path(self._argv[0]).name} prints"

    def _run(self) -> dict[str, bytes]:
        """Run the command and return the keys it prints, by their ids.

        Raises:
            KeyUnavailable: it does not start, takes too long, prints too much, fails, or prints anything else.
        """
        name = Path(self._argv[0]).name
        try:
            process = subprocess.Popen(  # noqa: S603 (what the operator configured, without a shell)
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                close_fds=True,
            )
        except OSError as error:
            raise KeyUnavailable(f"The key command {name} cannot be started ({error.strerror}).") from error
        with process:
            try:
                output = _read(process.stdout, time.monotonic() + self._timeout_seconds)
                status = process.wait(1.0) if output is not None else None
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if output is None or status is None:
            raise KeyUnavailable(
                f"The key command {name} took over {self._timeout_seconds:g} s or printed over {MAX_OUTPUT} bytes."
            )
        if status:
            raise KeyUnavailable(f"The key command {name} ended with status {status}.")
        found = {}
        for line in output.decode("ascii", "replace").split("\n"):
            match = _LINE.fullmatch(line.strip())
            if match is not None:
                found[match[1]] = bytes.fromhex(match[2])
            elif line.strip():
                raise KeyUnavailable(
                    f"The key command {name} prints a line that is not an id and {2 * KEY} hex digits."
                )
        return found


def number_of(kek_id: str) -> int:
    """Return the number in the id of a key."""
    return int(kek_id.removeprefix("kek-"))


def _read(stream: IO[bytes] | None, deadline: float) -> bytes | None:
    """Return everything up to the end; None at the deadline (monotonic seconds) or after too much."""
    data = b""
    if stream is None:
        return None
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while len(data) <= MAX_OUTPUT:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            more = os.read(stream.fileno(), 4096)
            if not more:
                return data
            data += more
    return None
