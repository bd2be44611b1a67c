"""The Secondary Capture Image (PS3.3 A.8.1): a picture of the result for viewers that show no report."""

from __future__ import annotations

import numpy as np
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Concept
from pydicom.uid import SecondaryCaptureImageStorage

from radnode.model import View
from radnode.report import codes, received
from radnode.report.secondary_header import Origin, begin, reference
from radnode.report.secondary_picture import WARNING, draw

_SOURCE_IMAGE = Concept("121322", "DCM", "Source image for image processing operation")  # PS3.16 CID 7202
# What was compressed with loss once stays so in what is made of it (PS3.3 C.7.6.1.1.5).
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def secondary_capture(origin: Origin, number: int, view: View, frame: int | None) -> Dataset:
    """Return the picture of one analysed image; `frame` says which of several sources it is, from 1."""
    source, model = origin.source_of(frame), origin.analysis.model
    picture = np.asarray(draw(view, origin.analysis, frame, len(origin.sources)))  # (rows, columns, 3), uint8
    made = begin(origin, "sc", number, SecondaryCaptureImageStorage, "OT")
    made.ConversionType = "WSD"
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = made.ContentDate, made.ContentTime
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.PatientOrientation = ""
    for item in filter(received.is_legal, received.elements(source, ("PatientOrientation", *_LOSSY))):
        made[item.tag] = item
    made.BurnedInAnnotation = "YES"
    made.ImageComments = WARNING
    made.DerivationDescription = f"Findings of {codes.ascii_text(f'{model.name} {model.version}')} drawn on the image"
    made.SourceImageSequence = [reference(source)]
    made.SourceImageSequence[0].PurposeOfReferenceCodeSequence = [CodedConcept.from_code(_SOURCE_IMAGE)]
    made.SamplesPerPixel = 3
    made.PhotometricInterpretation = "RGB"
    made.PlanarConfiguration = 0
    made.Rows, made.Columns = picture.shape[:2]
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.PixelRepresentation = 0
    pixels = picture.tobytes()
    made.PixelData = pixels + bytes(len(pixels) % 2)
    made["PixelData"].VR = "OB"
    return made
