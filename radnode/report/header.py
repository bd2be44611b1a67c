"""The header of a report: whose it is and what it comes from (as received), who made it and when (ours)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian

from radnode.model import ModelIdentity
from radnode.report import codes, items, received

SERIES_DESCRIPTION = "AI result, not for primary diagnosis"
_SERIES_NUMBER = 9900  # above what modalities give, so that results sort last
_MANUFACTURER = "radnode"
_PURPOSE_OF_REFERENCE = 0x0040A170
_EVIDENCE, _OTHER_EVIDENCE, _PREDECESSORS = 0x0040A375, 0x0040A385, 0x0040A360

# Type 1 and 2 of the Patient and General Study modules (PS3.3 C.7.1.1 and C.7.2.1): there, empty if need be.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip

# The rest of the Patient, Clinical Trial Subject, General Study, Patient Study and Clinical Trial Study
# modules (PS3.3 C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2, C.7.2.3).
_OPTIONAL = (
    "ReferencedPatientSequence", "IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence",
    "SourcePatientGroupIdentificationSequence", "GroupOfPatientsIdentificationSequence", "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar", "PatientAlternativeCalendar",
    "QualityControlSubject", "StrainDescription", "StrainNomenclature", "StrainStockSequence",
    "StrainAdditionalInformation", "StrainCodeSequence", "GeneticModificationsSequence", "OtherPatientNames",
    "OtherPatientIDsSequence", "ReferencedPatientPhotoSequence", "EthnicGroup", "EthnicGroupCodeSequence",
    "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence",
    "BreedRegistrationSequence", "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization",
    "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "IssuerOfClinicalTrialProtocolID", "OtherClinicalTrialProtocolIDsSequence", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "IssuerOfClinicalTrialSiteID", "ClinicalTrialSubjectID", "IssuerOfClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "IssuerOfClinicalTrialSubjectReadingID",
    "ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialProtocolEthicsCommitteeApprovalNumber",
    "IssuerOfAccessionNumberSequence", "ReferringPhysicianIdentificationSequence", "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence", "StudyDescription", "ProcedureCodeSequence", "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence", "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence", "ReferencedStudySequence", "RequestingService",
    "RequestingServiceCodeSequence", "ReasonForPerformedProcedureCodeSequence",
    "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "PatientAge", "PatientSize",
    "PatientSizeCodeSequence", "PatientBodyMassIndex", "MeasuredAPDimension", "MeasuredLateralDimension",
    "PatientWeight", "MedicalAlerts", "Allergies", "Occupation", "SmokingStatus", "AdditionalPatientHistory",
    "PregnancyStatus", "LastMenstrualDate", "PatientSexNeutered", "ReasonForVisit", "ReasonForVisitCodeSequence",
    "AdmissionID", "IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "ServiceEpisodeDescription",
    "IssuerOfServiceEpisodeIDSequence", "PatientState",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription", "LongitudinalTemporalOffsetFromEvent",
    "LongitudinalTemporalEventType", "ClinicalTrialTimePointTypeCodeSequence", "IssuerOfClinicalTrialTimePointID",
    "ConsentForClinicalTrialUseSequence",
)  # fmt: skip

# Type 2 of the Referenced Request Sequence (PS3.3 C.17.2).
_REQUEST = (
    "AccessionNumber", "RequestedProcedureID", "RequestedProcedureDescription",
    "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
)  # fmt: skip


def file_meta(SOPInstanceUID: UID) -> FileMetaDataset:
    """PS3.10 section 7.1; the writer adds version, group length and implementation."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = Comprehensive3DSRStorage
    meta.MediaStorageSOPInstanceUID = SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def add_patient_and_study(report: Dataset, source: Dataset) -> None:
    """Copy the patient and study modules and their character set from the source, bytes as received.

    What identifies patient and study is copied whatever it is; of the rest, a value that its VR forbids (a Patient Age
    of "62") is left out, because the report would not be valid with it.
    """
    for keyword in _REQUIRED:
        setattr(report, keyword, "")
    for item in received.elements(source, ("SpecificCharacterSet", *_REQUIRED)):
        report[item.tag] = item
    for item in filter(received.is_legal, received.elements(source, _OPTIONAL)):
        report[item.tag] = item


def add_document(report: Dataset, source: Dataset, accepted_at: datetime, content_qualification: str) -> None:
    """SOP Common, SR Document Series and SR Document General (PS3.3 C.12.1, C.17.1, C.17.2) of a fresh AI result.

    `accepted_at` is written in the time zone that the source states, else in its own: Timezone Offset From UTC
    speaks for the copied study date and time as well.
    """
    moment = accepted_at.astimezone(zone(source) or accepted_at.tzinfo)
    report.SOPClassUID = Comprehensive3DSRStorage
    report.TimezoneOffsetFromUTC = f"{moment:%z}"[:5]
    report.InstanceCreationDate = report.ContentDate = f"{moment:%Y%m%d}"
    report.InstanceCreationTime = report.ContentTime = f"{moment:%H%M%S.%f}"
    number = received.text(source, "InstanceNumber")
    report.InstanceNumber = number if re.fullmatch(r"[0-9]{1,9}", number) else "1"
    report.Modality = "SR"
    report.SeriesNumber = _SERIES_NUMBER
    report.SeriesDescription = SERIES_DESCRIPTION
    report.ReferencedPerformedProcedureStepSequence = []
    report.PerformedProcedureCodeSequence = []
    report.CompletionFlag = "COMPLETE"
    report.PreliminaryFlag = "PRELIMINARY"
    report.VerificationFlag = "UNVERIFIED"
    report.ContentQualification = content_qualification


def add_equipment(report: Dataset, model: ModelIdentity, software_version: str, station_name: str) -> None:
    """The node as the equipment that wrote the report, the model as the algorithm that contributed to it.

    General and Enhanced General Equipment (PS3.3 C.7.5.1 and C.7.5.2), Contributing Equipment (C.12.1).
    """
    report.Manufacturer = report.ManufacturerModelName = _MANUFACTURER
    report.DeviceSerialNumber = report.StationName = codes.ascii_text(station_name, 16)
    report.SoftwareVersions = [codes.ascii_text(software_version)]
    algorithm = Dataset()
    purpose = items.code_sequence(_PURPOSE_OF_REFERENCE, codes.PROCESSING_ALGORITHM)
    algorithm[purpose.tag] = purpose
    algorithm.Manufacturer = codes.ascii_text(model.manufacturer)
    algorithm.ManufacturerModelName = codes.ascii_text(model.name)
    algorithm.SoftwareVersions = [codes.ascii_text(model.version)]
    algorithm.DeviceSerialNumber = model.digest
    algorithm.DeviceUID = model.device_uid
    report.ContributingEquipmentSequence = [algorithm]


def add_coding_scheme(report: Dataset) -> None:
    """Say whose the codes of our own are (PS3.3 C.12.1, Coding Scheme Identification)."""
    report.CodingSchemeIdentificationSequence = [
        _dataset(
            CodingSchemeDesignator=codes.SCHEME,
            CodingSchemeName="radnode reasons for no result",
            CodingSchemeResponsibleOrganization=_MANUFACTURER,
        )
    ]


def add_evidence(report: Dataset, sources: Sequence[Dataset]) -> None:
    """Name every source instance (PS3.3 C.17.2.3), apart where it belongs to another study than the report."""
    studies = _references(sources)
    current = items.raw(_EVIDENCE, [studies.pop(received.text(sources[0], "StudyInstanceUID"))])
    report[current.tag] = current
    if studies:
        other = items.raw(_OTHER_EVIDENCE, studies.values())
        report[other.tag] = other


def add_predecessors(report: Dataset, predecessors: Sequence[Dataset]) -> None:
    """Name the earlier reports on the same sources (PS3.3 C.17.2.4); a report that is made again is not its own."""
    earlier = [each for each in predecessors if received.text(each, "SOPInstanceUID") != report.SOPInstanceUID]
    if earlier:
        sequence = items.raw(_PREDECESSORS, _references(earlier).values())
        report[sequence.tag] = sequence


def add_request(report: Dataset, source: Dataset) -> None:
    """Name the request that the source fulfils (PS3.3 C.17.2), where it says which."""
    attributes = received.items(source, "RequestAttributesSequence")
    if not attributes and not received.text(source, "AccessionNumber"):
        return
    empty = _dataset(ReferencedStudySequence=[], RequestedProcedureCodeSequence=[], **dict.fromkeys(_REQUEST, ""))
    charset = received.encodings(source)
    requests = []
    for request in attributes or [Dataset()]:
        found = (
            *received.elements(empty, empty.dir()),
            *received.elements(source, ("StudyInstanceUID", "AccessionNumber")),
            *received.elements(request, ("RequestedProcedureCodeSequence", *_REQUEST), charset),
        )
        requests.append({each.tag: each for each in found}.values())
    sequence: RawDataElement = received.sequence("ReferencedRequestSequence", requests)
    report[sequence.tag] = sequence


def _references(instances: Sequence[Dataset]) -> dict[str, bytes]:
    """Hierarchical references (PS3.3 C.17.2.1) to the instances by their Study Instance UID, each instance once."""
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    studies: dict[str, dict[str, list[bytes]]] = {}
    for study, series, instance, SOPClassUID in dict.fromkeys(
        tuple(received.text(instance, keyword) for keyword in uids) for instance in instances
    ):
        studies.setdefault(study, {}).setdefault(series, []).append(items.reference(SOPClassUID, instance))
    return {study: items.study_references(study, series) for study, series in studies.items()}


def _dataset(**values: object) -> Dataset:
    """A data set with these elements, by keyword."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def zone(source: Dataset) -> timezone | None:
    """Timezone Offset From UTC (PS3.3 C.12.1) of the source; None when it says none or nonsense."""
    offset = re.fullmatch(r"([+-])(0\d|1[0-4])([0-5]\d)", received.text(source, "TimezoneOffsetFromUTC"))
    if offset is None:
        return None
    sign, hours, minutes = offset.groups()
    return timezone(timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1))
