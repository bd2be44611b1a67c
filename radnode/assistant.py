"""The Python API: analyse an image, store the result, retrieve it, read who had access.

The same rooms as the node itself: what is stored is sealed, every use is audited, and a node that serves the same
folder delivers what was stored here.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from radnode.audit import events, read
from radnode.audit.events import Actor, AuditRecord
from radnode.configuration import find_config, load_settings
from radnode.detect.illustrating import Illustrator
from radnode.detect.worker import elements, reports_before
from radnode.errors import ConfigError, MalformedDataSet, RadnodeError
from radnode.identify import identify
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import get_instance
from radnode.model import Analysis, PeerIdentity, StoreRequest, View
from radnode.node import Node, user_name
from radnode.observe import logger
from radnode.part10 import read_file_meta
from radnode.permission import admit
from radnode.rules import CALLING_AE, Decision

LOCAL = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class AnalyzedImage:
    """What the detectors said about one image that is not stored yet."""

    analyses: tuple[Analysis, ...]
    header: Dataset
    request: StoreRequest
    data_set: bytes
    decision: Decision
    views: tuple[View | None, ...]


class RadiologistAssistant:
    """One node's detectors, store and trail for use from Python. A context manager.

    Args:
        config: the node's `radnode.toml`; without it the file that the commands would use.
        reason: why it is used; sealed into the audit entries.

    Raises:
        ConfigError: there is no such configuration, or it cannot be used.
    """

    def __init__(self, config: str | Path | None = None, reason: str | None = None) -> None:
        self._node = Node(load_settings(find_config(None if config is None else Path(config))), reason=reason)
        self._analyser = self._node.analyser()
        self._actor = Actor(user=user_name())
        self._illustrator = Illustrator(self._node.compose_secondary, logger())

    def analyze_image(self, image: Dataset | str | Path) -> AnalyzedImage:
        """Show an image to the detectors that the rules name; the access is audited, nothing is stored.

        Args:
            image: a data set with pixels, or the path of a DICOM file.

        Raises:
            InputError: the image is not one that the node would accept from a peer.
            ConfigError: no rule names a detector of images for it; those of whole series work in a serving node.
        """
        part10 = _encode(image)
        meta = read_file_meta(part10)
        syntax, offset = meta.transfer_syntax_uid, meta.offset
        limit, rules = self._node.settings.node.max_object_bytes, self._node.rules
        identity = identify(memoryview(part10)[offset:], syntax, limit, rules.attributes)
        header = pydicom.dcmread(BytesIO(part10), stop_before_pixels=True)  # only now is it known to be readable
        title = self._node.settings.node.ae_title
        request = StoreRequest(
            PeerIdentity(title, None, LOCAL),
            identity.SOPClassUID,
            identity.SOPInstanceUID,
            identity.SOPClassUID,
            syntax,
        )
        decision = rules.decide({**identity.attributes, CALLING_AE: title})
        self._analyser.refresh()
        names = [name for name in decision.detect if not self._analyser.looks_at_series(name)]
        if not names:
            raise ConfigError("No rule names a detector of images for this one; see [[rules]] in the configuration.")
        side = self._illustrator.view_side(decision)
        tasks = [self._analyser.task(name, header, part10, side) for name in names]
        for batch in self._analyser.decode(tasks):
            batch.run()
        pseudonyms = self._node.pseudonyms
        record = AuditRecord(
            events.IMAGE_ANALYSED,
            self._actor,
            patient=pseudonyms.patient(identity.IssuerOfPatientID, identity.PatientID),
            study=pseudonyms.study(identity.StudyInstanceUID),
            instance=pseudonyms.instance(identity.SOPInstanceUID),
            model=", ".join(f"{task.analysis.model.name} {task.analysis.model.version}" for task in tasks),
            detail={"command": "analyze_image"},
            identity={"PatientID": identity.PatientID, "StudyInstanceUID": identity.StudyInstanceUID},
        )
        with transaction(self._node.engine) as tx:
            self._node.audit.record(tx, record)
        analyses, views = tuple(task.analysis for task in tasks), tuple(task.view for task in tasks)
        return AnalyzedImage(analyses, header, request, part10[offset:], decision, views)

    def store_results(self, analyzed: AnalyzedImage) -> list[str]:
        """Keep image, findings and reports sealed, hand the reports to delivery, and return the ids of the results.

        Raises:
            DuplicateInstance: the image is stored already with other bytes.
            StorageError: it cannot be stored now.
        """
        node = self._node
        receipt = node.intake.receive(analyzed.request, analyzed.data_set, actor=self._actor, enqueue=False)
        with reading(node.engine) as tx:
            instance = get_instance(tx, receipt.instance)
        source = elements(analyzed.header, ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
        reports = [
            (item, node.compose(analyzed.header, item, instance.received, reports_before(node.results, instance, item)))
            for item in analyzed.analyses
        ]
        prepared = []
        for (item, report), view in zip(reports, analyzed.views, strict=True):
            views = {} if view is None else {1: view}
            about = [analyzed.header], item, instance.received, report
            secondary = self._illustrator.objects(*about, analyzed.decision, views)
            prepared.append(node.results.prepare(instance, source, item, report, secondary=secondary))
        new = [item for item in prepared if item is not None]
        try:
            with transaction(node.engine) as tx:
                node.results.commit(tx, new, analyzed.decision, self._actor)
        except RadnodeError:
            node.results.discard(new)
            raise
        node.results.announce()
        return [node.pseudonyms.result(receipt.instance, report.SOPInstanceUID) for _item, report in reports]

    def retrieve_results(self, patient_id: str, issuer: str = "") -> list[dict[str, Any]]:
        """Return every result of a patient, newest first, as `radnode results show --json` prints them; audited.

        Raises:
            RefusedError: the user of this process has no role that reads results (`[access]`).
        """
        admit(self._node, "results list")
        return self._node.results.listing(self._actor, self._node.pseudonyms.patient(issuer, patient_id))

    def access_logs(self, patient_id: str, issuer: str = "") -> list[dict[str, Any]]:
        """Return every audit entry about a patient, oldest first; the reading is itself audited.

        Raises:
            AuditError: the trail is damaged; `radnode audit verify` says where.
            RefusedError: the user of this process has no role that reads the trail (`[access]`).
        """
        admit(self._node, "audit tail")
        patient = self._node.pseudonyms.patient(issuer, patient_id)
        self._node.record(events.TRAIL_READ, self._actor, patient=patient, command="access_logs")
        self._node.settle_trail()
        return read.access_logs(self._node.audit_folder, patient)

    def close(self) -> None:
        """End the decoding process and bring the trail up to date."""
        self._analyser.close()
        self._node.settle_trail()

    def __enter__(self) -> RadiologistAssistant:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _encode(image: Dataset | str | Path) -> bytes:
    """Return an image as a DICOM file (Part 10)."""
    if not isinstance(image, Dataset):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise MalformedDataSet(f"The image file cannot be read: {error.strerror}.") from error
    buffer = BytesIO()
    try:
        pydicom.dcmwrite(buffer, image, enforce_file_format=True)
    except (ValueError, AttributeError, TypeError, KeyError, NotImplementedError) as error:
        raise MalformedDataSet("The data set cannot be encoded; it lacks UIDs or a transfer syntax.") from error
    return buffer.getvalue()
