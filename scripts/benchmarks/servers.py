"""The servers that are compared: each in a session of its own with a folder of its own, over mutual TLS on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks import ROOT
from benchmarks.client import Target
from benchmarks.processes import Tree, free_port

STORESCP = "/usr/bin/storescp"
ORTHANC = "/usr/sbin/Orthanc"
TUNED = {"TCP_NODELAY": "1"}  # what dcmtk and all that is built on it read; without it they leave Nagle on


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to start one server and what it keeps; `environment` is added to this process's."""

    name: str
    keeps: str
    program: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def keeps_objects(self) -> bool:
        """Say whether its objects stay until the end, because it has an index of them."""
        return self.program in ("radnode", "orthanc")


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("radnode", "sealed, durable, indexed, audited", "radnode"),
        Recipe("dcmtk", "plain file, no fsync", "dcmtk", TUNED),
        Recipe("dcmtk-shipped", "plain file, no fsync", "dcmtk"),
        Recipe("orthanc", "plain file, index", "orthanc", TUNED),
        Recipe("orthanc-shipped", "plain file, index", "orthanc"),
        Recipe("stock", "plain file, no fsync", "stock"),
        Recipe("raw-stream", "nothing; one answer at the end", "raw-discard"),
        Recipe("raw-discard", "nothing", "raw-discard"),
        Recipe("raw-file", "plain file, no fsync", "raw-file"),
        Recipe("raw-fsync", "plain file, fsync", "raw-fsync"),
    )
}


class Server:
    """One running server; a context manager that ends it."""

    def __init__(self, recipe: Recipe, home: Path, pki: Path) -> None:
        self.recipe = recipe
        self.name = recipe.name
        self._home = home / recipe.name
        self._home.mkdir(parents=True)
        self._kept = self._home / "kept"
        port = free_port()
        if recipe.program == "radnode":
            self.config = self._home / "node" / "radnode.toml"
            self.target = Target(port, self._home / "node" / "pki", "RADNODE")
            make_node(self._home / "node", port)
        elif recipe.program.startswith("raw"):
            self.target = Target(port, pki, None, answers=recipe.name != "raw-stream")
        else:
            self.target = Target(port, pki, "ANY-SCP")
        self._kept.mkdir()
        command = self._command(recipe.program, port, pki)
        self.tree = Tree(command, self._home / "log", recipe.environment)
        try:
            self.tree.wait_listening(port)
        except BaseException:
            self.tree.stop()
            raise

    def forget(self) -> None:
        """Remove the plain files that it wrote; what keeps an index keeps its objects."""
        for path in self._kept.iterdir():
            if path.is_file():
                path.unlink()

    def _command(self, program: str, port: int, pki: Path) -> list[str | Path]:
        if program == "radnode":
            return [sys.executable, "-m", "radnode", "serve", "-c", self.config, "--role", "intake"]
        if program == "dcmtk":
            tls = ["+tls", pki / "server.key", pki / "server.crt", "+cf", pki / "ca.crt", "--require-peer-cert"]
            return [STORESCP, "+B", "--fork", *tls, "-od", self._kept, str(port)]
        if program == "orthanc":
            return [ORTHANC, self._orthanc_settings(port, pki)]
        if program == "stock":
            return [sys.executable, "-m", "benchmarks.stock_receiver", str(port), pki, self._kept]
        mode = program.removeprefix("raw-")
        return [sys.executable, "-m", "benchmarks.raw_receiver", mode, str(port), pki, self._kept]

    def _orthanc_settings(self, port: int, pki: Path) -> Path:
        settings = {
            "Name": "PACS",
            "DicomPort": port,
            "DicomAlwaysAllowStore": True,
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(pki / "server.crt"),
            "DicomTlsPrivateKey": str(pki / "server.key"),
            "DicomTlsTrustedCertificates": str(pki / "ca.crt"),
            "DicomTlsRemoteCertificateRequired": True,
            "HttpPort": free_port(),
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageCompression": False,
            "StorageDirectory": str(self._home / "storage"),
            "IndexDirectory": str(self._home / "storage"),
            "Plugins": [],
        }
        path = self._home / "orthanc.json"
        path.write_text(json.dumps(settings))
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tree.stop()
        shutil.rmtree(self._home)


def make_node(folder: Path, port: int) -> Path:
    """Run `radnode init` and return the configuration file."""
    command = [sys.executable, "-m", "radnode", "init", str(folder), "--port", str(port)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return folder / "radnode.toml"


def require_disk(folder: Path, size: int) -> None:
    """Check that so many bytes, a quarter more, and 5 GB for everybody else are free.

    Raises:
        RuntimeError: they are not.
    """
    needed, free = size * 1.25 + 5e9, shutil.disk_usage(folder).free
    if free < needed:
        raise RuntimeError(f"{needed / 1e9:.0f} GB of free disk are needed and {free / 1e9:.0f} GB are there")
