"""The frozen values that cross rooms. No room-specific library is imported here."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, Protocol


class Outcome(enum.StrEnum):
    """What one analysis came to. A failure is never a negative."""

    FINDING = "finding"
    NO_FINDING = "no_finding"
    FAILED = "failed"
    NOT_ATTEMPTED = "not_attempted"


class Reason(enum.StrEnum):
    """Why an analysis failed or was not attempted: a closed vocabulary, so that no patient data can enter."""

    UNSUPPORTED_SOP_CLASS = "unsupported_sop_class"
    UNSUPPORTED_MODALITY = "unsupported_modality"
    UNSUPPORTED_BODY_PART = "unsupported_body_part"
    UNSUPPORTED_VIEW = "unsupported_view"
    UNSUPPORTED_AGE = "unsupported_age"
    UNSUPPORTED_PHOTOMETRIC = "unsupported_photometric_interpretation"
    MULTI_FRAME = "multi_frame"
    TOO_SMALL = "image_too_small"
    TOO_FEW_IMAGES = "too_few_images"
    TOO_MANY_IMAGES = "too_many_images"
    NOT_A_VOLUME = "not_a_volume"
    IMAGE_UNREADABLE = "image_unreadable"
    PIXELS_UNDECODABLE = "pixels_undecodable"
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TIMEOUT = "decoder_timeout"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_RAISED = "model_raised"
    MODEL_OUTPUT_INVALID = "model_output_invalid"
    TOO_MANY_ATTEMPTS = "too_many_attempts"

    @property
    def text(self) -> str:
        """One sentence for a reader, the same in report, log and console."""
        return _REASON_TEXT[self]

    @property
    def outcome(self) -> Outcome:
        """NOT_ATTEMPTED when the quality gate declined the image, else FAILED."""
        return Outcome.NOT_ATTEMPTED if self in _DECLINED else Outcome.FAILED


_REASON_TEXT = {
    Reason.UNSUPPORTED_SOP_CLASS: "The detector does not accept this SOP class.",
    Reason.UNSUPPORTED_MODALITY: "The detector does not accept this modality.",
    Reason.UNSUPPORTED_BODY_PART: "The detector does not accept this body part.",
    Reason.UNSUPPORTED_VIEW: "The detector does not accept this projection.",
    Reason.UNSUPPORTED_AGE: "The detector does not accept patients of this age.",
    Reason.UNSUPPORTED_PHOTOMETRIC: "The detector does not accept this photometric interpretation.",
    Reason.MULTI_FRAME: "The detector does not accept multi-frame images.",
    Reason.TOO_SMALL: "The image is smaller than the detector needs.",
    Reason.TOO_FEW_IMAGES: "The series has fewer images than the detector needs.",
    Reason.TOO_MANY_IMAGES: "The series has more images than the detector accepts.",
    Reason.NOT_A_VOLUME: "The images of the series do not form one volume.",
    Reason.IMAGE_UNREADABLE: "An image of the series could not be read.",
    Reason.PIXELS_UNDECODABLE: "The pixel data could not be decoded.",
    Reason.DECODER_CRASHED: "The pixel decoder crashed on this image.",
    Reason.DECODER_TIMEOUT: "The pixel decoder did not finish in time.",
    Reason.MODEL_UNAVAILABLE: "The detector could not be loaded.",
    Reason.MODEL_RAISED: "The detector failed on this image.",
    Reason.MODEL_OUTPUT_INVALID: "The detector gave no usable number for this image.",
    Reason.TOO_MANY_ATTEMPTS: "The analysis was given up after repeated attempts.",
}

_DECLINED = frozenset(
    {
        Reason.UNSUPPORTED_SOP_CLASS,
        Reason.UNSUPPORTED_MODALITY,
        Reason.UNSUPPORTED_BODY_PART,
        Reason.UNSUPPORTED_VIEW,
        Reason.UNSUPPORTED_AGE,
        Reason.UNSUPPORTED_PHOTOMETRIC,
        Reason.MULTI_FRAME,
        Reason.TOO_SMALL,
        Reason.TOO_FEW_IMAGES,
        Reason.TOO_MANY_IMAGES,
        Reason.NOT_A_VOLUME,
    }
)


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: value, coding scheme designator and meaning (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Region:
    """Where a finding lies, in SCOORD units of the source image.

    `points` are (column, row) pairs; (0.0, 0.0) is the top left corner of the top left pixel
    (PS3.3 C.18.6.1.1). A box is its four corners clockwise from the top left; a contour is a polygon
    whose last point is not repeated. `frame` is 1-based, None for a single-frame image; of a series it says which of
    the analysed images, in their order.
    """

    kind: Literal["box", "contour"]
    points: tuple[tuple[float, float], ...]
    frame: int | None = None


VIEW_SIDE = 808  # pixels; the longer side of a `View`, so that a picture with its bands fits a screen of 1280 x 1024
MAX_PICTURES = 3  # of one series


@dataclass(frozen=True, slots=True)
class View:
    """One frame of a source as a monitor shows it, square pixels of 8 bits, turned to the size of a picture.

    `pixels` holds `rows` x `columns` bytes, row by row from the top left corner, 0 black and 255 white; the whole
    source frame of `source_rows` x `source_columns` is in it. `window` is (center, width) in the source's own units
    after its Modality LUT (PS3.3 C.11.2.1.2.1), None where a VOI LUT or another function made the picture.
    """

    rows: int
    columns: int
    source_rows: int
    source_columns: int
    pixels: bytes
    window: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a detector says is there. `score` is a calibrated probability in 0..1.

    `region` is the one place to look at. A detector that gives masks has the contours of the whole finding in
    `outlines`, of a series on each slice that it lies on; where contours of one slice overlap, their common part is a
    hole.
    """

    code: Code
    score: float
    site: Code | None = None
    laterality: Code | None = None
    region: Region | None = None
    diameter_mm: float | None = None
    volume_mm3: float | None = None
    outlines: tuple[Region, ...] = ()

    @property
    def mask(self) -> tuple[Region, ...]:
        """The contours that hold every pixel of the finding; none where it has a box, or no place."""
        if self.outlines or self.region is None or self.region.kind != "contour":
            return self.outlines
        return (self.region,)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which detector spoke; `digest` is the SHA-256 (hex) of its manifest, `device_uid` changes per training.

    `parameters` are the settings that it ran with, each as a report says it ("threshold 0.42").
    """

    name: str
    version: str
    device_uid: str
    digest: str
    manufacturer: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Analysis:
    """What one detector said about one image, or about one series.

    `target` is what it looks for (the concept that is absent when nothing was found). `score` (0..1) is that
    of the whole image and `peak` the (column, row) of its highest point, both also below the threshold; both
    are None when the detector did not run, and a series has no `peak`. `reason` is set exactly when the outcome
    is FAILED or NOT_ATTEMPTED.
    """

    outcome: Outcome
    model: ModelIdentity
    target: Code
    score: float | None = None
    peak: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()
    reason: Reason | None = None

    def pictured(self, images: int) -> tuple[int, ...]:
        """Return which of the analysed images, from 1, a picture is made of, at most `MAX_PICTURES`.

        Those that findings lie on, the highest score first; the middle one where nothing was found; none without
        a result.
        """
        if self.reason is not None:
            return ()
        ranked = sorted(self.findings, key=lambda finding: -finding.score)
        frames = [finding.region.frame or 1 for finding in ranked if finding.region is not None and images > 1]
        return tuple(dict.fromkeys(frames))[:MAX_PICTURES] or ((images + 1) // 2,)

    @classmethod
    def without_result(cls, reason: Reason, model: ModelIdentity, target: Code) -> Analysis:
        """The analysis that says why there is none."""
        return cls(outcome=reason.outcome, model=model, target=target, reason=reason)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who is on the other side: AE title as registered, certificate SHA-256 (hex, lower case), IP address."""

    ae_title: str
    certificate: str | None
    address: str


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """The C-STORE command as it applies to one data set (PS3.7 section 9.3.1.1)."""

    peer: PeerIdentity
    sop_class_uid: str
    sop_instance_uid: str
    context_sop_class_uid: str
    transfer_syntax_uid: str


class Reception(Protocol):
    """One data set on its way in, written straight into memory that the receiver offers.

    `room`, `advance` and `abandon` never raise for what the bytes are or for trouble of this node: what is wrong is
    remembered, the rest of the data set is taken and dropped, and `finish` raises it.
    """

    def room(self) -> memoryview:
        """Return writable memory for the bytes that come next; at least one byte, valid until `advance`."""

    def advance(self, count: int) -> None:
        """Say that `count` bytes of the data set were written to the start of `room()`."""

    def finish(self) -> object:
        """Keep the instance, of which everything came: durable when this returns (status 0000).

        Raises:
            RadnodeError: it was not kept; the error's `status` says why.
        """

    def abandon(self) -> None:
        """Forget an instance of which not everything came; nothing of it remains."""


def pour(data: memoryview, reception: Reception) -> None:
    """Copy bytes of a data set into a reception, for those that cannot read straight into its room."""
    while data:
        room = reception.room()[: len(data)]
        room[:] = data[: len(room)]
        reception.advance(len(room))
        data = data[len(room) :]


@dataclass(frozen=True, slots=True)
class Reference:
    """One SOP Instance that a storage commitment is about."""

    SOPClassUID: str
    SOPInstanceUID: str


@dataclass(frozen=True, slots=True)
class FailedReference:
    """An instance that is not committed, and why: Failure Reason (0008,1197), PS3.3 section C.14.1.1."""

    reference: Reference
    reason: int


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """What an SCU asks an SCP to commit (PS3.4 Table J.3-1); at least one reference."""

    TransactionUID: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """What the SCP answers (PS3.4 Table J.3-2): every reference of the request is in one of the two."""

    TransactionUID: str
    committed: tuple[Reference, ...]
    failed: tuple[FailedReference, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A connection or association that was turned away.

    `rule` is a stable snake_case word for the rule that refused (`tls_no_client_certificate`,
    `calling_ae_title_unknown`, ...), `advice` one sentence that says what to change. `ae_title` is what the
    peer claimed, escaped to printable ASCII. `is_alert` is False where nothing but the negotiation of what to
    exchange came to nothing: no event for the audit trail.
    """

    rule: str
    advice: str
    address: str
    ae_title: str | None = None
    certificate: str | None = None
    is_alert: bool = True


class JobKind(enum.StrEnum):
    """What a job asks for.

    Analyse an instance, or a complete series; deliver the report of a result; forward an instance as it came; tell a
    peer what became of the instances that it asked to be committed.
    """

    ANALYSE = "analyse"
    SERIES = "series"
    DELIVER = "deliver"
    FORWARD = "forward"
    COMMIT = "commit"


class Priority(enum.IntEnum):
    """How urgent a job is: the higher goes first."""

    ROUTINE = 0
    HIGH = 10
    STAT = 20


class JobState(enum.StrEnum):
    """READY and LEASED are live; DONE and DEAD are final until an operator retries a dead one."""

    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job to be enqueued; `destination` is empty where it has none."""

    kind: JobKind
    subject: str
    destination: str = ""
    priority: int = Priority.ROUTINE


@dataclass(frozen=True, slots=True)
class Lease:
    """One job held by one worker until `expires` (epoch seconds). `token` fences: only its holder may finish it."""

    job_id: int
    kind: JobKind
    subject: str
    destination: str | None
    attempt: int
    token: str
    expires: float
