"""One object in every transfer syntax: a real one where pydicom ships it or a codec here makes it, else one whose
fragments only look compressed. The receiver decodes nothing, so to it they are the same.
"""

from __future__ import annotations

import itertools
import subprocess
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGLSNearLossless

from radnode.part10 import read_file_meta

FILES = Path(pydicom.__file__).parent / "data/test_files"
DCMCJPEG = "/usr/bin/dcmcjpeg"

# Made by the devices and codecs of others
REAL = {
    "ImplicitVRLittleEndian": "MR_small_implicit.dcm",
    "ExplicitVRLittleEndian": "CT_small.dcm",
    "ExplicitVRBigEndian": "MR_small_bigendian.dcm",
    "DeflatedExplicitVRLittleEndian": "image_dfl.dcm",
    "JPEGBaseline8Bit": "SC_rgb_small_odd_jpeg.dcm",
    "JPEGExtended12Bit": "JPGExtended.dcm",
    "JPEGLosslessSV1": "SC_rgb_jpeg_gdcm.dcm",
    "JPEGLSLossless": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG2000Lossless": "MR_small_jp2klossless.dcm",
    "JPEG2000": "SC_rgb_gdcm_KY.dcm",
    "RLELossless": "MR_small_RLE.dcm",
}
_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"  # bytes that end a sequence, within a fragment
_numbers = itertools.count(10**9)


def sample(keyword: str, folder: Path) -> bytes:
    """Return a Part 10 file in the transfer syntax of that keyword (or UID), with a SOP Instance UID of its own."""
    if keyword in REAL:
        return _with_own_uid((FILES / REAL[keyword]).read_bytes())
    if keyword == "JPEGLossless":
        target = folder / f"process14-{next(_numbers)}.dcm"
        subprocess.run([DCMCJPEG, "+el", FILES / "CT_small.dcm", target], check=True, timeout=30)
        return _with_own_uid(target.read_bytes())
    dataset = pydicom.dcmread(FILES / "CT_small.dcm")
    if keyword == "JPEGLSNearLossless":  # by pyjpegls; pydicom's own samples belong to no study
        dataset.compress(JPEGLSNearLossless, jls_error=2)
        return _with_own_uid(_encoded(dataset))
    frame = dataset.PixelData
    if keyword == "DeflatedImageFrameCompression":
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        frame = deflate.compress(frame) + deflate.flush()
    elif keyword != "EncapsulatedUncompressedExplicitVRLittleEndian":
        frame = frame[:5001] + _DELIMITER + frame[5001:10001]
    dataset.PixelData = encapsulate([frame, frame[:1000]])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = _uid(keyword)
    return _with_own_uid(_encoded(dataset))


def _uid(keyword: str) -> UID:
    entry = next((uid for uid, (*_, name) in pydicom.uid.UID_dictionary.items() if name == keyword), keyword)
    return UID(entry)


def _encoded(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _with_own_uid(part10: bytes) -> bytes:
    """Give an object another SOP Instance UID of the same length, in place; a deflated one keeps its own."""
    meta = read_file_meta(part10)
    old = meta.sop_instance_uid.encode()
    if meta.transfer_syntax_uid == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return part10
    new = old[:-10] + str(next(_numbers)).encode()
    assert len(new) == len(old)
    return part10.replace(old, new)
