"""Presentation contexts: nothing a modality sends is turned away, nothing without pixels is promised."""

from __future__ import annotations

import pytest
from pydicom import uid

from radnode.network.contexts import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, VERIFICATION, proposed, supported


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.HTJ2K,
        uid.MPEG2MPML,
        uid.MPEG4HP41,
        uid.HEVCMP51,
    ],
)
def test_every_storage_context_takes_the_syntax(syntax):
    contexts = [context for context in supported(True, True) if context.abstract_syntax != VERIFICATION]
    assert len(contexts) == len(STORAGE_SOP_CLASSES) > 150
    assert all(syntax in context.transfer_syntax for context in contexts)


def test_references_to_pixels_elsewhere_are_not_taken():
    assert not {"1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.7.1"} & set(TRANSFER_SYNTAXES)


def test_permissions_choose_the_contexts():
    assert [context.abstract_syntax for context in supported(True, False)] == [VERIFICATION]
    assert VERIFICATION not in {context.abstract_syntax for context in supported(False, True)}
    assert supported(False, False) == []


def test_one_context_per_pair_with_odd_ids():
    contexts = proposed(
        [("1.2.3", "1.2.840.10008.1.2"), ("1.2.3", "1.2.840.10008.1.2.1"), ("1.2.3", "1.2.840.10008.1.2")]
    )
    assert [context.context_id for context in contexts] == [1, 3]
