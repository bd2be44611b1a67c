"""The composition root: settings -> parts -> roles. The only module that knows every adapter.

Each role is a function that runs in a process of its own until `stop` is set. `torch` is imported by the worker alone,
`pynetdicom` by intake, deliver and the SCU commands, `highdicom` where reports are built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from pydicom.dataset import Dataset
from sqlalchemy import Engine

import radnode
from radnode.access import caller
from radnode.audit import events
from radnode.audit import log as audit_log
from radnode.audit.checkpoint import Signer
from radnode.audit.events import Actor, AuditRecord, Event
from radnode.audit.log import AuditLog
from radnode.audit.sequencer import Sequencer
from radnode.commitments import Commitments
from radnode.errors import ConfigError, KeyUnavailable
from radnode.intake import Intake
from radnode.jobs import destinations, schema
from radnode.jobs.completion import Completion
from radnode.jobs.database import create_tables, open_database, reading, transaction
from radnode.jobs.destinations import Unaddressed
from radnode.jobs.index import objects_beginning
from radnode.jobs.queue import Queue
from radnode.jobs.wake import Bell
from radnode.listening import Place
from radnode.model import Analysis, JobKind, View
from radnode.observe import logger
from radnode.pressure import Pressure
from radnode.reasons import ReasonedLog
from radnode.results import Report, Results, Secondary
from radnode.rules import Rules
from radnode.settings import DestinationSettings, PeerSettings, Settings
from radnode.storage import keys
from radnode.storage.keys import KeyProvider, StudyKeys, read_key
from radnode.storage.providers import key_provider
from radnode.storage.pseudonyms import Pseudonyms
from radnode.storage.segments import SegmentStore
from radnode.storage.vault import Vault
from radnode.stores import Stores

if TYPE_CHECKING:
    from radnode.deliver.commitment import Reporter
    from radnode.deliver.promises import Promises
    from radnode.detect.analyser import Analyser
    from radnode.detect.catalogue import Catalogue
    from radnode.detect.lifecycle import Lifecycle
    from radnode.detect.loading import Loading
    from radnode.network.commitment import CommittingAssociation, ReportAssociation

ORIGIN = "radnode/audit"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


class Node:
    """The parts of one node, each made at its first use and shared after."""

    def __init__(self, settings: Settings, place: Place | None = None, reason: str | None = None) -> None:
        self.settings = settings
        self.place = place or Place()
        self.reason = reason  # why its user does what it does: sealed into every audit entry

    @cached_property
    def engine(self) -> Engine:
        """The database, its tables made where they are missing."""
        if not self.settings.data_dir.is_dir():
            raise ConfigError(f"There is no folder {self.settings.data_dir}; make a node with `radnode init`.")
        engine = open_database(self.database_path)
        create_tables(engine, schema.metadata, destinations.metadata, keys.metadata, audit_log.metadata)
        return engine

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return self.settings.data_dir / "node.db"

    @property
    def audit_folder(self) -> Path:
        """Where the trail and its checkpoints are."""
        return self.settings.data_dir / "audit"

    @property
    def key_folder(self) -> Path:
        """Where the keys are."""
        return self.settings.path(self.settings.keys.directory)

    @cached_property
    def bell(self) -> Bell:
        """Wakes the other processes of the node."""
        return Bell(self.settings.data_dir / "run")

    @cached_property
    def queue(self) -> Queue:
        """The jobs."""
        return Queue(self.engine)

    @cached_property
    def pseudonyms(self) -> Pseudonyms:
        """How this node names patients."""
        return Pseudonyms(read_key(self.key_folder / "pseudonym.key"))

    @cached_property
    def audit(self) -> AuditLog:
        """Writes audit records into open transactions."""
        key = read_key(self.key_folder / "audit.key")
        return AuditLog(key) if self.reason is None else ReasonedLog(key, self.reason)

    @cached_property
    def key_provider(self) -> KeyProvider:
        """Whoever holds the key-encryption keys."""
        return key_provider(self.settings.keys, self.settings.data_dir)

    @cached_property
    def study_keys(self) -> StudyKeys:
        """The data keys of the studies."""
        return StudyKeys(self.engine, self.key_provider, cache_seconds=self.settings.keys.cache_seconds)

    @cached_property
    def vault(self) -> Vault:
        """Sealed objects."""
        return Vault(self.study_keys, SegmentStore(self.settings.data_dir / "objects"))

    @cached_property
    def rules(self) -> Rules:
        """The compiled rules."""
        return Rules(self.settings.rules, self.settings.report.secondary)

    @cached_property
    def stores(self) -> Stores:
        """All of it, for those who commit."""
        return Stores(self.engine, self.queue, self.vault, self.audit, self.pseudonyms, self.bell.ring)

    @cached_property
    def intake(self) -> Intake:
        """Keeps what arrives."""
        return Intake(self.stores, self.settings.node.max_object_bytes, self.rules)

    @cached_property
    def commitments(self) -> Commitments:
        """What peers ask this node to commit."""
        return Commitments(self.stores)

    @cached_property
    def pressure(self) -> Pressure:
        """Whether there is room for images."""
        settings = self.settings
        return Pressure(self.stores, settings.data_dir, settings.queue, settings.storage, self.actor(), logger())

    @cached_property
    def completion(self) -> Completion:
        """Knows which series are complete."""
        return Completion(self.engine, self.queue, self.settings.completion)

    @cached_property
    def results(self) -> Results:
        """Keeps what was found."""
        return Results(self.stores, {item.name: item.secondary for item in self.settings.destinations})

    def actor(self) -> Actor:
        """The node itself, acting as the operating-system user it runs as."""
        return Actor(ae=self.settings.node.ae_title, user=user_name())

    def record(
        self,
        event: Event,
        actor: Actor,
        *,
        patient: str | None = None,
        study: str | None = None,
        instance: str | None = None,
        **detail: str | int,
    ) -> None:
        """Audit one event that stands for itself, about these pseudonyms, in a transaction of its own."""
        record = AuditRecord(event, actor, patient=patient, study=study, instance=instance, detail=detail)
        with transaction(self.engine) as tx:
            self.audit.record(tx, record)

    def compose(
        self, header: Dataset, analysis: Analysis, received: float, predecessors: Sequence[Dataset] = ()
    ) -> Report:
        """Build and encode the report of one analysis; `received` (epoch seconds) dates it."""
        return self.compose_series([header], analysis, received, predecessors)

    def compose_series(
        self, headers: Sequence[Dataset], analysis: Analysis, received: float, predecessors: Sequence[Dataset]
    ) -> Report:
        """Build and encode the report of one analysis of several images; `predecessors` are reports before it."""
        from radnode.report.sr import build_report, encode_report  # noqa: PLC0415 (highdicom takes a second to import)

        report = build_report(
            headers,
            analysis,
            accepted_at=datetime.fromtimestamp(received, UTC).astimezone(),
            content_qualification=self.settings.report.content_qualification,
            software_version=radnode.__version__,
            station_name=self.settings.node.ae_title,
            predecessors=predecessors,
        )
        return Report(str(report.SOPInstanceUID), encode_report(report))

    def compose_secondary(
        self,
        headers: Sequence[Dataset],
        analysis: Analysis,
        received: float,
        report: Report,
        kinds: Sequence[str],
        views: Mapping[int, View],
    ) -> list[Secondary]:
        """Build and encode the secondary objects of these kinds; arguments as of `detect.illustrating`."""
        from radnode.report.secondary import build_secondary  # noqa: PLC0415 (as above)
        from radnode.report.secondary_header import Origin  # noqa: PLC0415
        from radnode.report.sr import encode_report  # noqa: PLC0415

        origin = Origin(
            headers,
            analysis,
            accepted_at=datetime.fromtimestamp(received, UTC).astimezone(),
            software_version=radnode.__version__,
            station_name=self.settings.node.ae_title,
        )
        made = build_secondary(origin, kinds, views, pydicom.dcmread(BytesIO(report.part10), stop_before_pixels=True))
        return [
            Secondary(kind, int(item.InstanceNumber), str(item.SOPInstanceUID), encode_report(item))
            for kind, item in made
        ]

    def export(self, result: str, actor: Actor, form: str) -> list[bytes]:
        """Return the files of a result: its report (sr), its objects of a kind (sc, ...), json, or a page (html, pdf).

        Raises:
            NotFoundError: there is no such result, or it has no object of that kind.
        """
        found = self.results.export(result, actor, form)
        if form == "sr":
            return [found.report]
        if form == "json":
            return [json.dumps(found.document, indent=2).encode()]
        if form not in ("html", "pdf"):
            return list(found.secondary)
        from radnode.report.page import compose_page  # noqa: PLC0415 (as above)

        page = compose_page(found.document, found.report, next(iter(found.secondary), None))
        if form == "html":
            from radnode.report.page_html import html_page  # noqa: PLC0415

            return [html_page(page)]
        from radnode.report.page_pdf import pdf_page  # noqa: PLC0415

        return [pdf_page(page)]

    def warm_reports(self) -> None:
        """Import what builds reports, so that the first one need not wait for it."""
        import radnode.report.secondary  # noqa: PLC0415
        import radnode.report.sr  # noqa: F401, PLC0415

    def analyser(self, loading: Loading | None = None, ready: Callable[[str], None] = lambda _model: None) -> Analyser:
        """Make the detectors; they load at their first use, watched by `loading`; `ready` is told which one did."""
        from radnode.detect.analyser import Analyser  # noqa: PLC0415 (only the worker may need torch)
        from radnode.detect.decoding import DecoderChild  # noqa: PLC0415

        detect = self.settings.detect
        return Analyser(
            self.catalogue(),
            DecoderChild(detect.decode_seconds),
            device=detect.device,
            threads=detect.threads,
            precision=detect.precision,
            refused=self._model_refused,
            ready=ready,
            loading=loading,
        )

    def catalogue(self) -> Catalogue:
        """Make what knows the model packages and which of them are active."""
        from radnode.detect.catalogue import Catalogue  # noqa: PLC0415

        return Catalogue(self.settings.path(self.settings.detect.models), self.engine)

    def lifecycle(self, actor: Actor) -> Lifecycle:
        """Make what adds, activates and rolls back models on behalf of somebody."""
        from radnode.detect.lifecycle import Lifecycle  # noqa: PLC0415
        from radnode.detect.trial import try_package  # noqa: PLC0415

        folder = self.settings.path(self.settings.detect.models)
        return Lifecycle(self.stores, folder, actor, lambda path: try_package(path, folder, self.settings.detect))

    def analysable(self) -> frozenset[str] | None:
        """Return the SOP classes that the detectors of the rules accept; None where the policy does not ask.

        Raises:
            NotFoundError: a detector that a rule names is not installed.
            PackageError: its package cannot be used.
        """
        if self.settings.network.unanalysable != "refuse":
            return None
        from radnode.detect.package import load_package, load_trusted  # noqa: PLC0415 (imports no torch)

        catalogue = self.catalogue()
        names = dict.fromkeys(name for rule in self.settings.rules for name in rule.detect)
        trusted = load_trusted(catalogue.folder)
        packages = [load_package(catalogue.active(name), trusted) for name in names]
        return frozenset(uid for package in packages for uid in package.manifest.accepts.sop_classes)

    def _model_refused(self, model: str, sentence: str) -> None:
        logger().error("model_refused", model=model, message=sentence)
        reason = {"reason": sentence[: events.MAX_DETAIL_LENGTH]}
        with transaction(self.engine) as tx:
            self.audit.record(tx, AuditRecord(events.MODEL_REFUSED, self.actor(), model=model, detail=reason))

    def promises(self, destination: DestinationSettings) -> Promises:
        """Make what keeps account of what a destination is still to commit."""
        from radnode.deliver.promises import Promises  # noqa: PLC0415

        log = logger().bind(destination=destination.name)
        return Promises(destination, self.stores, settings=self.settings.deliver, actor=self.actor(), log=log)

    def connect(self, destination: DestinationSettings, offers: Iterable[tuple[str, str]]) -> CommittingAssociation:
        """Open an association that offers these SOP classes and transfer syntaxes, and to commit where it is to."""
        from radnode.network.commitment import OFFERS, CommittingAssociation  # noqa: PLC0415
        from radnode.network.tls import client_context  # noqa: PLC0415

        return CommittingAssociation(
            destination,
            context=client_context(self.settings) if destination.tls else None,
            calling_ae_title=self.settings.node.ae_title,
            offers=[*offers, *(OFFERS if destination.commitment else ())],
            timeout_seconds=self.settings.deliver.timeout_seconds,
        )

    def call(self, peer: PeerSettings) -> ReportAssociation:
        """Open an association that tells a peer what became of its storage commitments."""
        from radnode.network.commitment import ReportAssociation  # noqa: PLC0415
        from radnode.network.tls import client_context  # noqa: PLC0415

        return ReportAssociation(
            peer,
            context=client_context(self.settings) if peer.commit is not None and peer.commit.tls else None,
            calling_ae_title=self.settings.node.ae_title,
            timeout_seconds=self.settings.deliver.timeout_seconds,
        )

    def reporter(self, ae_title: str, owner: str) -> Reporter:
        """Make what tells one peer about its storage commitments."""
        from radnode.deliver.commitment import Reporter  # noqa: PLC0415

        return Reporter(
            ae_title,
            self.stores,
            self.commitments,
            settings=self.settings.deliver,
            actor=self.actor(),
            owner=owner,
            log=logger(),
        )

    def unaddressed(self) -> list[Unaddressed]:
        """Return what waits for a destination or a peer that the configuration does not name any more."""
        names = [destination.name for destination in self.settings.destinations]
        titles = [peer.ae_title for peer in self.settings.peers if "commit" in peer.may]
        with reading(self.engine) as tx:
            return destinations.unaddressed(tx, names, titles)

    def has_analyses(self) -> bool:
        """Say whether a worker has something to do: a rule names a detector, or work from before is still there."""
        if self.rules.detectors or self.completion.next_due() is not None:
            return True
        return self.queue.has_unfinished(JobKind.ANALYSE, JobKind.SERIES)

    def sweep(self) -> int:
        """Give back the room that dead processes left in the object store; return how many stretches."""

        def named(segment: bytes) -> list[bytes]:
            with reading(self.engine) as tx:
                return objects_beginning(tx, segment)

        return self.vault.sweep(named)

    @cached_property
    def signer(self) -> Signer:
        """Signs the checkpoints of the trail."""
        path = self.key_folder / "audit-sign.key"
        try:
            return Signer.from_string(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise KeyUnavailable(f"The key file {path} cannot be read; restore it from its backup.") from error

    def sequencer(self) -> Sequencer:
        """Make the sequencer; it works once it has acquired the trail's lock."""
        return Sequencer(self.engine, self.audit_folder, self.signer, ORIGIN, self.settings.audit.checkpoint_seconds)

    def settle_trail(self) -> None:
        """Bring the trail up to date where no node is running that would; used by commands that add entries."""
        sequencer = self.sequencer()
        if sequencer.acquire(blocking=False):
            sequencer.close()


def user_name() -> str:
    """Return the operating-system user, by number where the number has no name (as in many containers)."""
    return caller().user
