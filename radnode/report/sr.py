"""The report of one analysis: a Comprehensive 3D SR with the root TID 1500, as IHE AI Results asks.

    source header -> header (patient and study as received) \
                                                              > data set -> Part 10 bytes
    analysis      -> content (TID 1500, 1501, 1410, 4019)   /

The same sources, analysis and acceptance time give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info

from radnode.model import Analysis
from radnode.report import content, header, received, uids


def build_report(
    sources: Sequence[Dataset],
    analysis: Analysis,
    *,
    accepted_at: datetime,
    content_qualification: str,
    software_version: str,
    station_name: str = "RADNODE",
    predecessors: Sequence[Dataset] = (),
) -> Dataset:
    """The report that says what `analysis` found in `sources`.

    `sources` are the headers of the analysed images (no Pixel Data needed), at least one; patient and study come
    from the first. A detector that looked at several says in `Region.frame` which of them (from 1) it means.
    `accepted_at` is when the node accepted the source, aware; `content_qualification` a value of (0018,9004);
    `predecessors` are the headers of earlier reports on the same sources. Sloppy values in a source never raise.
    """
    if not sources:
        raise ValueError("A report needs at least one source image.")
    StudyInstanceUID = received.text(sources[0], "StudyInstanceUID")
    SOPInstanceUIDs = [received.text(source, "SOPInstanceUID") for source in sources]
    digest = analysis.model.digest

    report = Dataset()
    header.add_patient_and_study(report, sources[0])
    header.add_document(report, sources[0], accepted_at, content_qualification)
    header.add_equipment(report, analysis.model, software_version, station_name)
    header.add_request(report, sources[0])
    if analysis.reason is not None:
        header.add_coding_scheme(report)
    header.add_evidence(report, sources)
    report.SeriesInstanceUID = uids.series_uid(StudyInstanceUID, digest)
    report.SOPInstanceUID = uids.document_uid(SOPInstanceUIDs, digest, uids.report_role(analysis))
    header.add_predecessors(report, predecessors)
    for element in content.measurement_report(sources, analysis):
        report[element.tag] = element
    report.file_meta = header.file_meta(report.SOPInstanceUID)
    return report


def encode_report(dataset: Dataset) -> bytes:
    """A report as a DICOM file (PS3.10) in Explicit VR Little Endian.

    Values as received are written as they are; our own text is ASCII, so it is right in any character set.
    """
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    buffer.write(bytes(128) + b"DICM")
    write_file_meta_info(buffer, dataset.file_meta, enforce_standard=True)
    charset = received.encodings(dataset)
    for tag in sorted(dataset.keys()):
        write_data_element(buffer, dataset.get_item(tag), charset)
    return buffer.getvalue()
