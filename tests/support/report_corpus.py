"""The reports that other people's validators see: images of every kind, outcomes, character sets, odd headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

from radnode.model import Analysis, Finding, Region
from radnode.report.sr import encode_report
from support import films
from support.analyses import ANALYSES, BOX, FAILED, FINDING, MODEL, OPACITY, report
from support.ct import CTSeries
from support.enhanced import enhanced_ct

CHARACTER_SETS = {
    "none": films.NO_CHARACTER_SET,
    "latin": films.LATIN,
    "japanese": films.JAPANESE,
    "korean": films.KOREAN,
    "chinese": films.GB18030,
    "utf8": films.UTF_8,
}


def _small(box: int | None, contour: int | None) -> Analysis:
    """Findings on images of 64 x 64 pixels, on these frames or images."""
    lesion = Region("box", ((10.0, 12.0), (18.5, 12.0), (18.5, 20.0), (10.0, 20.0)), box)
    outline = Region("contour", ((20.25, 30.0), (60.0, 30.5), (50.0, 63.0)), contour)
    found = (
        Finding(OPACITY, 0.9, FINDING.findings[0].site, region=lesion, diameter_mm=47.8),
        Finding(OPACITY, 0.8, region=outline),
        Finding(OPACITY, 0.7),
    )
    return replace(FINDING, findings=found)


ON_SLICES = _small(2, 3)
ON_SLICE = _small(None, None)
ONE = replace(FINDING, findings=(Finding(OPACITY, 1.0, region=BOX),))
TEN = replace(
    FINDING,
    findings=tuple(replace(FINDING.findings[n % 3], score=round(0.95 - 0.04 * n, 2)) for n in range(10)),
)
RETRAINED = replace(ONE, model=replace(MODEL, version="1.1.0", device_uid="2.25.7654321", digest="6f" * 32))
OTHER_DETECTOR = replace(
    ONE,
    model=replace(MODEL, name="cxr-effusion", device_uid="2.25.24680", digest="70" * 32, parameters=("threshold 0.5",)),
)


@dataclass(frozen=True)
class Case:
    """The images of one analysis, as they came, the report on them, and the report before it where there is one."""

    sources: list[Dataset]
    report: Dataset
    earlier: Dataset | None = None

    def write(self, folder: Path, name: str) -> tuple[list[Path], Path]:
        """Write everything; return the paths of what the report refers to, and that of the report."""
        images = []
        for index, source in enumerate(self.sources):
            images.append(folder / f"{name}-{index}.dcm")
            images[-1].write_bytes(films.file_bytes(source))
        if self.earlier is not None:
            images.append(folder / f"{name}-earlier.dcm")
            images[-1].write_bytes(encode_report(self.earlier))
        path = folder / f"{name}.dcm"
        path.write_bytes(encode_report(self.report))
        return images, path


def corpus() -> dict[str, Case]:
    """All cases by name."""
    cases: dict[str, Case] = {}
    for kind, make in IMAGES.items():
        for outcome, analysis in ANALYSES.items():
            sources = make(films.LATIN)
            # PixelMed takes a second for three findings, so that not every kind of film has as many.
            small = {"CR": ONE, "MG": ONE, "series": ON_SLICES, "enhanced": ON_SLICES, "CT": ON_SLICE, "MR": ON_SLICE}
            found = small.get(kind, analysis) if outcome == "finding" else analysis
            cases[f"{kind}-{outcome}"] = _case(sources, found)
    for name, character_set in CHARACTER_SETS.items():
        if name != "latin":
            cases[f"DX-{name}"] = _case(_film(films.OPACITY)(character_set), ONE)
            cases[f"series-{name}"] = _case(_series(character_set), FAILED)
    return cases | {f"odd-{name}": make() for name, make in ODD.items()}


def _film(path: Path, **elements: object) -> Callable[[Mapping[str, object]], list[Dataset]]:
    return lambda character_set: [films.fresh(path, **{**character_set, **elements})]


def _mammogram(character_set: Mapping[str, object]) -> list[Dataset]:
    film = films.fresh(
        films.OPACITY,
        **character_set,
        SOPClassUID=DigitalMammographyXRayImageStorageForPresentation,
        Modality="MG",
        BodyPartExamined="BREAST",
        ImageLaterality="R",
        EstimatedRadiographicMagnificationFactor="1.07",
    )
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    return [film]


def _series(character_set: Mapping[str, object]) -> list[Dataset]:
    return CTSeries(**character_set).slices(1, 4)


def _enhanced(character_set: Mapping[str, object]) -> list[Dataset]:
    return [enhanced_ct(3, **character_set)]


IMAGES: dict[str, Callable[[Mapping[str, object]], list[Dataset]]] = {
    "CR": _film(films.NORMAL),
    "DX": _film(films.OPACITY),
    "MG": _mammogram,
    "CT": lambda character_set: [CTSeries(**character_set).slice(1)],
    "series": _series,
    "enhanced": _enhanced,
    "MR": _film(films.MR),
}


def _bare() -> Case:
    """Next to nothing: the UIDs, and a patient without name or number."""
    film = films.fresh(films.OPACITY)
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(film, keyword, "")
    for keyword in ("Laterality", "ImageLaterality", "BodyPartExamined", "StudyDescription", "PatientAge"):
        if keyword in film:
            delattr(film, keyword)
    return _case([film], ONE)


def _requested() -> Case:
    film = films.fresh(films.OPACITY, AccessionNumber="A1", TimezoneOffsetFromUTC="-0930")
    for index, request in enumerate(("P7", "P8"), 1):
        item = Dataset()
        item.AccessionNumber, item.RequestedProcedureID = f"A{index}", request
        film.RequestAttributesSequence = Sequence([*film.get("RequestAttributesSequence", []), item])
    return _case([film], ONE)


def _forbidden_values() -> Case:
    """Values that their VR forbids, in what a report may leave out."""
    film = films.fresh(films.OPACITY)
    films.with_raw(film, "PatientAge", "AS", b"62")
    films.with_raw(film, "PatientWeight", "DS", b"70 kg")
    films.with_raw(film, "ImagerPixelSpacing", "DS", b"0.2")
    return _case([film], ONE)


def _later() -> Case:
    film = films.fresh(films.OPACITY)
    earlier = report([films.received(film)], ONE)
    return replace(_case([film], RETRAINED, predecessors=[earlier]), earlier=earlier)


def _case(sources: list[Dataset], analysis: Analysis, **options: object) -> Case:
    return Case(sources, report([films.received(source) for source in sources], analysis, **options))


ODD: dict[str, Callable[[], Case]] = {
    "bare": _bare,
    "requested": _requested,
    "forbidden-values": _forbidden_values,
    "later": _later,
    "ten-findings": lambda: _case([films.fresh(films.OPACITY)], TEN),
    "other-detector": lambda: _case([films.fresh(films.OPACITY)], OTHER_DETECTOR),
    "calibrated": lambda: _case(
        [films.fresh(films.OPACITY, PixelSpacing=[0.7, 0.7], PixelSpacingCalibrationType="FIDUCIAL")], ONE
    ),
    "magnified": lambda: _case([films.fresh(films.OPACITY, EstimatedRadiographicMagnificationFactor="1.1")], ONE),
    "empty-laterality": lambda: _case([films.fresh(films.NORMAL, Laterality="", BodyPartExamined=None)], ONE),
    "one-region": lambda: _case([films.fresh(films.NORMAL)], ONE),
    "one-region-of-two": lambda: _case([films.fresh(films.NORMAL)], replace(ONE, findings=FINDING.findings[1:])),
    "one-lesion": lambda: _case(_series(films.LATIN), replace(ON_SLICES, findings=ON_SLICES.findings[:1])),
}
