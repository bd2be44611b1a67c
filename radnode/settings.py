"""Frozen settings, a class for each section of the file that `radnode.configuration` reads.

`data_dir` is relative to the folder of the file; every other path is relative to `data_dir`.
"""

from __future__ import annotations

import os
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

MAX_AUTO_LISTENERS = 2  # four would hold more than the 250 MB that all of them are to hold at most
MAX_AE_TITLE = 16  # PS3.5 Table 6.2-1, VR AE


def ae_title(value: str) -> str:
    """Check one AE title: PS3.5 Table 6.2-1 (no backslash, no control characters, not only spaces).

    Raises:
        ValueError: it is none; the text says why.
    """
    title = value.strip(" ")
    if len(title) > MAX_AE_TITLE:
        raise ValueError(f"{title!r} has {len(title)} characters; an AE title has 1 to {MAX_AE_TITLE}")
    if not title or "\\" in title or not (title.isascii() and title.isprintable()):
        raise ValueError(f"an AE title has 1 to {MAX_AE_TITLE} printable ASCII characters and no backslash")
    return title


def _fingerprint(value: str) -> str:
    """Check one SHA-256 fingerprint and return it as 64 lower-case hex digits."""
    digits = value.replace(":", "").lower()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ValueError("a certificate fingerprint is 64 hex digits (openssl x509 -noout -fingerprint -sha256)")
    return digits


def _member(value: str) -> str:
    """Return a member of a role as `radnode.access` compares it: a certificate as its fingerprint or a name it has."""
    kind, _, name = value.partition(":")
    return f"sha256:{_fingerprint(name)}" if kind == "sha256" else value.lower() if kind == "san" else value


AETitle = Annotated[str, AfterValidator(ae_title)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
Members = tuple[Annotated[str, AfterValidator(_member)], ...]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Precision = Literal["float32", "bfloat16", "auto"]
SecondaryKind = Literal["sc", "gsps", "kos", "seg"]
SECONDARY_KINDS: tuple[SecondaryKind, ...] = get_args(SecondaryKind)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeSettings(_Section):
    """The listener: who it is, where it listens, and the limits every peer is held to."""

    ae_title: AETitle = "RADNODE"
    bind_address: str = "127.0.0.1"
    port: Port = 2762
    plain_port: Port = 0
    max_associations: int = Field(default=50, ge=1)
    max_associations_per_peer: int = Field(default=10, ge=1)
    max_pdu: int = Field(default=131072, ge=4096)
    max_object_bytes: int = Field(default=2**31, ge=1)
    handshake_seconds: Seconds = 10.0
    request_seconds: Seconds = 10.0
    idle_seconds: Seconds = 60.0
    drain_seconds: Seconds = 20.0


class NetworkSettings(_Section):
    """What the listener accepts and how it reads it; `radnode.network.contexts` resolves the names."""

    listeners: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    fast_lane: bool = True
    sop_classes: tuple[str, ...] = Field(default=("storage",), min_length=1)
    transfer_syntaxes: tuple[str, ...] = Field(default=("all",), min_length=1)
    unanalysable: Literal["store", "refuse"] = "store"

    @property
    def processes(self) -> int:
        """How many processes listen: as many as were asked for, or one for each core that may be used, at most two."""
        if self.listeners == "auto":
            return min(MAX_AUTO_LISTENERS, len(os.sched_getaffinity(0)))
        return self.listeners


class TLSSettings(_Section):
    """Certificates of this node and the authority that peers must come from (PEM files)."""

    certificate: Path = Path("pki/server.crt")
    key: Path = Path("pki/server.key")
    ca: Path = Path("pki/ca.crt")
    crl: Path | None = None
    require_client_certificate: bool = True


class CommitSettings(_Section):
    """Where a peer takes the answers to its storage commitments when the association on which it asked has ended."""

    host: str
    port: Port
    tls: bool = True


class PeerSettings(_Section):
    """One AE that may connect, and the certificate its title is bound to."""

    ae_title: AETitle
    certificate_sha256: Fingerprint | None = None
    san: str | None = None
    addresses: tuple[str, ...] = ()
    may: tuple[Literal["store", "echo", "query", "commit"], ...] = ("store", "echo")
    commit: CommitSettings | None = None

    @model_validator(mode="after")
    def _may_commit(self) -> PeerSettings:
        if self.commit is not None and "commit" not in self.may:
            raise ValueError(f'the peer {self.ae_title!r} has `commit`, but "commit" is not in its `may`')
        return self


class DestinationSettings(_Section):
    """One AE that receives reports, forwarded images, and of the secondary objects these kinds."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    ae_title: AETitle
    host: str
    port: Port
    tls: bool = True
    commitment: bool = False
    secondary: tuple[SecondaryKind, ...] = SECONDARY_KINDS

    @property
    def recipient(self) -> str:
        """Who that is, as the audit trail says it: a name may be given to another machine later."""
        return f"{self.ae_title} at {self.host}:{self.port}"


class RuleSettings(_Section):
    """Which detectors see an image, where its report and it itself go, how urgent that is; see `radnode.rules`.

    `secondary` are the secondary objects of its results; None: those of `[report]`.
    """

    match: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    detect: tuple[str, ...] = ()
    deliver: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    priority: Literal["routine", "high", "stat"] = "routine"
    secondary: tuple[SecondaryKind, ...] | None = None


class QueueSettings(_Section):
    """How many analyses may wait before images are refused (A700; 0: any number), and when they are accepted again."""

    max_waiting: int = Field(default=50_000, ge=0)
    resume_percent: float = Field(default=90.0, gt=0, le=100)


class StorageSettings(_Section):
    """How much of the disk stays free (below that, images are refused, A700), and how long studies are kept.

    0 refuses none, and keeps all.
    """

    low_disk_percent: float = Field(default=5.0, ge=0, lt=100)
    retention_days: float = Field(default=0.0, ge=0)


class KeysSettings(_Section):
    """Who holds the key-encryption keys, how long study keys stay open, and where the other keys are kept."""

    provider: Literal["file", "env", "command", "aws-kms", "vault"] = "file"
    directory: Path = Path("keys")
    cache_seconds: Seconds = 300.0
    timeout_seconds: Seconds = 5.0
    variable: str = Field(default="RADNODE_KEK_", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    command: tuple[str, ...] = ()
    aws_key: str = ""
    aws_region: str = ""
    aws_endpoint: str = ""
    vault_address: str = ""
    vault_mount: str = "transit"
    vault_key: str = ""
    vault_token_file: Path | None = None
    vault_ca: Path | None = None


class AccessSettings(_Section):
    """Who may use which commands: users, "@group", "sha256:..." and "san:..." of certificates; see `radnode.access`."""

    administrators: Members = ()
    operators: Members = ()
    readers: Members = ()
    auditors: Members = ()
    owner_is_administrator: bool = True
    require_reason: bool = False


class SyslogSettings(_Section):
    """The audit repository that takes the trail as DICOM audit messages (PS3.15 A.5) over TLS (RFC 5425).

    `identity` sends real patient and study identifiers in place of pseudonyms. `on_failure`: whether images are refused
    once the oldest entry that it has not taken is older than `refuse_after_seconds`.
    """

    host: str
    port: Port = 6514
    identity: bool = False
    timeout_seconds: Seconds = 10.0
    on_failure: Literal["spool", "refuse"] = "spool"
    refuse_after_seconds: Seconds = 3600.0


class AuditSettings(_Section):
    """How often the trail is sealed by a signed checkpoint and anchored, and how long it is kept (0: for ever).

    Six years (45 CFR 164.316(b)(2)) are 2192 days at most, two of their Februaries having 29. `on_failure` has one
    value: what cannot be audited does not happen.
    """

    checkpoint_seconds: Seconds = 1.0
    retention_days: int = Field(default=2192, ge=0)
    on_failure: Literal["refuse"] = "refuse"
    anchor: tuple[str, ...] = ()
    anchor_seconds: Seconds = 60.0
    syslog: SyslogSettings | None = None

    @model_validator(mode="after")
    def _syslog_is_there(self) -> AuditSettings:
        if "syslog" in self.anchor and self.syslog is None:
            raise ValueError('"syslog" is an anchor, but there is no audit.syslog')
        return self


class DetectionSettings(_Section):
    """What in the trail is out of the ordinary, and alerted (0, no hours: not watched); see `radnode.audit.detection`.

    `hours` are those in which people read, by the clock of the machine, such as "07:00-19:00", on every day.
    """

    refusals: int = Field(default=20, ge=0)
    refusals_seconds: Seconds = 600.0
    images_per_hour: int = Field(default=20_000, ge=0)
    patients_per_hour: int = Field(default=100, ge=0)
    hours: str = Field(default="", pattern=r"^$|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")
    certificate_days: int = Field(default=30, ge=0)
    quiet_seconds: Seconds = 3600.0

    def is_working(self, moment: datetime) -> bool:
        """Say whether a local moment is within `hours`, which may reach over midnight."""
        if not self.hours:
            return True
        begin, end = (time.fromisoformat(part) for part in self.hours.split("-"))
        now = moment.time()
        return begin <= now < end if begin <= end else now >= begin or now < end


class DetectSettings(_Section):
    """The model packages and what an analysis may cost."""

    models: Path = Path("models")
    device: str = "auto"
    precision: Precision = "float32"
    threads: int = Field(default=1, ge=1)
    batch: int = Field(default=8, ge=1)
    load_seconds: Seconds = 120.0
    timeout_seconds: Seconds = 60.0
    decode_seconds: Seconds = 30.0
    series_seconds: Seconds = 600.0
    max_attempts: int = Field(default=3, ge=1)


class CompletionSettings(_Section):
    """When a series is complete, for detectors that look at whole series; see `radnode.readiness`."""

    quiet_seconds: Seconds = 20.0
    expected_instances: int = Field(default=0, ge=0)
    force_seconds: Seconds = 600.0

    @model_validator(mode="after")
    def _force_is_last(self) -> CompletionSettings:
        if self.force_seconds < self.quiet_seconds:
            raise ValueError("force_seconds is at least quiet_seconds: it is for series that are never quiet")
        return self


class ReportSettings(_Section):
    """What every report carries in its header, and which secondary objects go with it (`radnode.report.secondary`)."""

    content_qualification: Literal["RESEARCH", "PRODUCT", "SERVICE"] = "RESEARCH"
    secondary: tuple[SecondaryKind, ...] = ("sc",)


class DeliverSettings(_Section):
    """How patiently reports and images are offered to their destinations."""

    retry_seconds: Seconds = 2.0
    retry_max_seconds: Seconds = 300.0
    breaker_failures: int = Field(default=3, ge=1)
    probe_seconds: Seconds = 30.0
    warn_after_seconds: Seconds = 3600.0
    timeout_seconds: Seconds = 30.0
    commitment_seconds: Seconds = 3600.0


class MetricsSettings(_Section):
    """Where numbers for a monitoring system are served (HTTP, `radnode.metrics`); port 0: nowhere."""

    bind: str = "127.0.0.1"
    port: Port = 0


class Settings(BaseSettings):
    """The whole configuration of one node."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="RADNODE_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    data_dir: Path = Path("var")
    node: NodeSettings = NodeSettings()
    network: NetworkSettings = NetworkSettings()
    tls: TLSSettings = TLSSettings()
    peers: tuple[PeerSettings, ...] = ()
    destinations: tuple[DestinationSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
    queue: QueueSettings = QueueSettings()
    storage: StorageSettings = StorageSettings()
    keys: KeysSettings = KeysSettings()
    access: AccessSettings = AccessSettings()
    audit: AuditSettings = AuditSettings()
    detection: DetectionSettings = DetectionSettings()
    detect: DetectSettings = DetectSettings()
    completion: CompletionSettings = CompletionSettings()
    report: ReportSettings = ReportSettings()
    deliver: DeliverSettings = DeliverSettings()
    metrics: MetricsSettings = MetricsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file; nothing else."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _names_agree(self) -> Settings:
        names = [destination.name for destination in self.destinations]
        known = set(names)
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the destination {name!r} is listed twice in [[destinations]]")
        for rule in self.rules:
            for verb, targets in (("delivers", rule.deliver), ("forwards", rule.forward)):
                for name in targets:
                    if name not in known:
                        raise ValueError(f"a rule {verb} to {name!r}, but no [[destinations]] has that name")
        titles = [peer.ae_title for peer in self.peers]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"the peer {title!r} is listed twice in [[peers]]")
        return self

    def path(self, relative: Path) -> Path:
        """Return `relative` as seen from `data_dir`; an absolute path stays as it is."""
        return self.data_dir / relative

    def destination(self, name: str) -> DestinationSettings | None:
        """Return the destination of that name, or None."""
        return next((item for item in self.destinations if item.name == name), None)
