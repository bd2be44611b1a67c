"""What a report says, for each outcome."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from support import films
from support.analyses import (
    ACCEPTED_AT,
    ANALYSES,
    BOX,
    FAILED,
    FINDING,
    MODEL,
    NO_FINDING,
    NOT_ATTEMPTED,
    OPACITY,
    report,
)
from support.report_checks import children, name, problems, walk

from radnode.model import Analysis, Code, Finding, Outcome, Reason, Region
from radnode.report.sr import encode_report
from radnode.spacing import Basis


@pytest.fixture
def source() -> Dataset:
    return films.received(pydicom.dcmread(films.OPACITY))


def reread(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(encode_report(dataset)))


def groups(dataset: Dataset) -> list[Dataset]:
    return [item for item in walk(dataset) if name(item) == "125007"]


def value(group: Dataset, code: str) -> str:
    (item,) = children(group, code)
    return str(item.ConceptCodeSequence[0].CodeValue)


def number(group: Dataset, code: str) -> tuple[float, str]:
    (item,) = children(group, code)
    measured = item.MeasuredValueSequence[0]
    return float(measured.NumericValue), str(measured.MeasurementUnitsCodeSequence[0].CodeValue)


def test_finding_is_reported_with_region_site_size_and_certainty(source: Dataset) -> None:
    source.PixelSpacing, source.PixelSpacingCalibrationType = [0.5, 0.5], "FIDUCIAL"
    result = reread(report(source))
    image, box, contour, whole = groups(result)
    assert value(image, "111017") == "111242"
    assert value(image, "111064") == "111222"
    assert value(image, "112001") == "52101004"  # present
    assert number(image, "111012") == (93.12, "%")

    assert box.ContentTemplateSequence[0].TemplateIdentifier == "1410"
    assert value(box, "121071") == "112001"
    assert value(box, "363698007") == "39607008"
    assert value(children(box, "363698007")[0], "272741003") == "7771000"
    assert number(box, "111012") == (87.34, "%")
    assert number(box, "81827009") == (85.6, "mm")
    (region,) = children(box, "111030")
    assert region.GraphicType == "POLYLINE"
    assert list(region.GraphicData) == [315.0, 106.0, 436.5, 106.0, 436.5, 318.0, 315.0, 318.0, 315.0, 106.0]
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID

    assert number(contour, "81827009") == (24.925, "mm")
    assert children(contour, "121106")[0].TextValue == Basis.FIDUCIAL.value
    assert whole.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert children(whole, "111030") == children(whole, "81827009") == []
    assert problems(result) == []


def test_size_of_a_box_in_pixels_is_its_longer_side(source: Dataset) -> None:
    analysis = replace(FINDING, findings=(Finding(OPACITY, 0.9, region=BOX),))
    assert number(groups(report(source, analysis))[1], "81827009") == (212.0, "{pixels}")


def test_mm_of_a_detector_are_not_reported_where_no_spacing_holds_in_the_patient(source: Dataset) -> None:
    findings = (Finding(OPACITY, 0.9, region=BOX, diameter_mm=85.6), Finding(OPACITY, 0.8, diameter_mm=85.6))
    _, box, whole = groups(report(source, replace(FINDING, findings=findings)))
    assert number(box, "81827009") == (212.0, "{pixels}")
    assert children(box, "121106")[0].TextValue == Basis.DETECTOR.value
    assert children(whole, "81827009") == children(whole, "121106") == []


def test_reason_is_coded_in_a_scheme_that_the_header_explains(source: Dataset) -> None:
    result = reread(report(source, FAILED))
    (scheme,) = result.CodingSchemeIdentificationSequence
    reason = children(groups(result)[0], "100")[0]
    assert reason.ConceptCodeSequence[0].CodeValue == "202"
    assert reason.ConceptCodeSequence[0].CodingSchemeDesignator == scheme.CodingSchemeDesignator == "99RADNODE"
    assert "CodingSchemeIdentificationSequence" not in report(source, FINDING)


def test_no_finding_says_absent_and_keeps_the_score(source: Dataset) -> None:
    (group,) = groups(reread(report(source, NO_FINDING)))
    assert value(group, "121071") == "112001"
    assert value(group, "112001") == "272519000"  # absent
    assert value(group, "111017") == "111241"
    assert value(group, "111064") == "111222"
    assert number(group, "111012") == (3.21, "%")
    assert children(group, "121112")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


@pytest.mark.parametrize(("analysis", "status"), [(FAILED, "111224"), (NOT_ATTEMPTED, "111225")])
def test_an_analysis_without_result_is_never_a_negative(source: Dataset, analysis: Analysis, status: str) -> None:
    (group,) = groups(reread(report(source, analysis)))
    assert value(group, "111064") == status
    assert value(group, "111017") == "111245"
    assert analysis.reason is not None
    assert children(group, "121106")[0].TextValue == analysis.reason.text
    for code in ("121071", "112001", "111012"):  # neither finding, nor presence, nor score
        assert children(group, code) == []


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_reported(source: Dataset, reason: Reason) -> None:
    assert problems(report(source, Analysis.without_result(reason, MODEL, OPACITY))) == []


def test_header_says_who_made_it_and_what_it_is_not(source: Dataset) -> None:
    result = reread(report(source))
    assert result.SOPClassUID == result.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert result.SOPInstanceUID == result.file_meta.MediaStorageSOPInstanceUID
    assert result.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert result.Modality == "SR"
    assert (result.CompletionFlag, result.PreliminaryFlag, result.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )
    assert result.ContentQualification == "RESEARCH"
    assert result.SeriesDescription == "AI result, not for primary diagnosis"
    assert result.StudyInstanceUID == source.StudyInstanceUID
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    (algorithm,) = result.ContributingEquipmentSequence
    purpose = algorithm.PurposeOfReferenceCodeSequence[0]
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("Newcode1", "99IHE")
    assert algorithm.DeviceUID == MODEL.device_uid
    assert (algorithm.ManufacturerModelName, algorithm.SoftwareVersions) == ("cxr-opacity", "1.0.0")
    observer = {name(item): item for item in result.ContentSequence}
    assert MODEL.device_uid == observer["121012"].UID
    assert observer["121058"].ConceptCodeSequence[0].CodeValue == "363679005"


def test_same_input_gives_the_same_bytes(source: Dataset) -> None:
    again = films.received(pydicom.dcmread(films.OPACITY))
    for analysis in ANALYSES.values():
        assert encode_report(report(source, analysis)) == encode_report(report(again, analysis))


def test_a_retrained_model_makes_another_report_in_another_series(source: Dataset) -> None:
    first = report(source)
    second = report(source, replace(FINDING, model=replace(MODEL, digest="00" * 32)))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_two_detectors_speak_of_one_film_in_series_of_their_own(source: Dataset) -> None:
    other = replace(MODEL, name="cxr-effusion", device_uid="2.25.24680", digest="70" * 32)
    one, two = reread(report(source)), reread(report(source, replace(FINDING, model=other)))
    assert one.StudyInstanceUID == two.StudyInstanceUID == source.StudyInstanceUID
    assert len({one.SeriesInstanceUID, two.SeriesInstanceUID, source.SeriesInstanceUID}) == 3
    tracked = [item.UID for each in (one, two) for item in walk(each) if name(item) == "112040"]
    assert len(set(tracked)) == len(tracked) == 8
    observers = [item.UID for each in (one, two) for item in walk(each) if name(item) == "121012"]
    assert observers == [MODEL.device_uid, other.device_uid]


def test_another_process_makes_the_same_bytes(source: Dataset) -> None:
    program = (
        "import hashlib, pydicom; from support import films; from support.analyses import FINDING, report;"
        "from radnode.report.sr import encode_report;"
        "made = encode_report(report(films.received(pydicom.dcmread(films.OPACITY)), FINDING));"
        "print(hashlib.sha256(made).hexdigest())"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == hashlib.sha256(encode_report(report(source))).hexdigest()


def test_a_success_after_a_failure_is_another_instance_of_the_same_series(source: Dataset) -> None:
    failed, found, absent = report(source, FAILED), report(source, FINDING), report(source, NO_FINDING)
    assert failed.SOPInstanceUID != found.SOPInstanceUID == absent.SOPInstanceUID
    assert failed.SeriesInstanceUID == found.SeriesInstanceUID


@pytest.mark.parametrize(
    ("modality", "code"),
    [("CT", "25045-6"), ("MR", "25056-3"), ("DX", "363679005"), ("US", "363679005"), ("OT", "363679005")],
)
def test_procedure_reported_is_that_of_the_source(source: Dataset, modality: str, code: str) -> None:
    source.Modality = modality
    assert {name(item): item for item in report(source).ContentSequence}["121058"].ConceptCodeSequence[0].CodeValue == (
        code
    )


def test_a_class_nobody_knows_is_referenced_as_it_is(source: Dataset) -> None:
    source.SOPClassUID = "1.2.3.4.5"
    result = reread(report(source))
    references = {
        item.ReferencedSOPSequence[0].ReferencedSOPClassUID for item in walk(result) if "IMAGE" in item.ValueType
    }
    assert references == {"1.2.3.4.5"}


def test_region_on_a_frame_names_the_frame(source: Dataset) -> None:
    analysis = replace(FINDING, findings=(Finding(OPACITY, 0.9, region=replace(BOX, frame=7)),))
    (region,) = children(groups(report(source, analysis))[1], "111030")
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 7


def test_series_result_refers_to_the_slice_and_names_all_as_evidence() -> None:
    slices = [films.received(pydicom.dcmread(path)) for path in films.CT]
    analysis = replace(FINDING, findings=(Finding(OPACITY, 0.9, region=replace(BOX, frame=8)),))
    result = reread(report(slices, analysis))
    (region,) = children(groups(result)[1], "111030")
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == slices[7].SOPInstanceUID
    assert "ReferencedFrameNumber" not in reference
    (series,) = result.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert len(series.ReferencedSOPSequence) == 16
    assert problems(result) == []


def test_a_source_of_another_study_is_other_evidence(source: Dataset) -> None:
    prior = films.received(films.fresh(films.NORMAL))
    result = reread(report([source, prior]))
    (current,) = result.CurrentRequestedProcedureEvidenceSequence
    (other,) = result.PertinentOtherEvidenceSequence
    assert (current.StudyInstanceUID, other.StudyInstanceUID) == (source.StudyInstanceUID, prior.StudyInstanceUID)


def test_a_report_needs_a_source() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        report([])


def test_a_later_report_names_its_predecessor(source: Dataset) -> None:
    earlier = reread(report(source, FAILED))
    later = reread(report(source, predecessors=[earlier]))
    reference = later.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == earlier.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in earlier
    again = encode_report(report(source, FAILED, predecessors=[earlier]))
    assert again == encode_report(earlier)  # made again, it names itself no predecessor


def test_times_are_those_of_acceptance_in_the_zone_the_source_states(source: Dataset) -> None:
    result = report(source)
    assert (result.ContentDate, result.ContentTime) == ("20260304", "050607.891011")
    assert result.TimezoneOffsetFromUTC == "+0000"
    source.TimezoneOffsetFromUTC = "-0930"
    result = report(source)
    assert (result.InstanceCreationDate, result.InstanceCreationTime) == ("20260303", "193607.891011")
    assert result.TimezoneOffsetFromUTC == "-0930"
    source.TimezoneOffsetFromUTC = "UTC"
    here = ACCEPTED_AT.astimezone(timezone(timedelta(hours=2)))
    assert report(source, accepted_at=here).TimezoneOffsetFromUTC == "+0200"
    assert report(source, accepted_at=datetime(2026, 1, 1, tzinfo=UTC)).ContentTime == "000000.000000"


def test_our_own_text_is_ascii_whatever_the_model_is_called(source: Dataset) -> None:
    model = replace(MODEL, name="Lungenhelfer\\größer" * 5, manufacturer="山田医療", version="")
    target = Code("1", "99X", "Überraschung\n")
    analysis = Analysis(Outcome.FINDING, model, target, 0.9, findings=(Finding(target, 0.9),))
    del source.SpecificCharacterSet
    result = reread(report(source, analysis))
    (algorithm,) = result.ContributingEquipmentSequence
    assert algorithm.Manufacturer == "????"
    assert algorithm.SoftwareVersions == "?"
    assert algorithm.ManufacturerModelName.startswith("Lungenhelfer?gr??er")
    assert groups(result)[1].ContentSequence[2].ConceptCodeSequence[0].CodeMeaning == "?berraschung?"


def test_highdicom_reads_every_outcome_back(source: Dataset) -> None:
    for outcome, analysis in ANALYSES.items():
        document = highdicom.sr.srread(io.BytesIO(encode_report(report(source, analysis))))
        planar = document.content.get_planar_roi_measurement_groups()
        image = document.content.get_image_measurement_groups()
        assert (len(planar), len(image)) == ((2, 2) if outcome == "finding" else (0, 1))


def test_region_kinds_are_closed_polylines(source: Dataset) -> None:
    triangle = Region("contour", ((1.0, 2.0), (3.0, 2.0), (2.0, 5.0)))
    analysis = replace(FINDING, findings=(Finding(OPACITY, 0.9, region=triangle),))
    (region,) = children(groups(report(source, analysis))[1], "111030")
    assert list(region.GraphicData) == [1.0, 2.0, 3.0, 2.0, 2.0, 5.0, 1.0, 2.0]
