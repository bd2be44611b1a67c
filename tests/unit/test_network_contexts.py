"""Presentation contexts: nothing a modality sends is turned away, nothing without pixels is promised."""

from __future__ import annotations

import pytest
from pydicom import uid

from radnode.errors import ConfigError
from radnode.network.contexts import (
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION,
    Contexts,
    keyword,
    proposed,
)
from radnode.settings import NetworkSettings

CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
PRIVATE = "1.3.12.2.1107.5.9.1"


def made(analysable=None, **values) -> Contexts:
    return Contexts(NetworkSettings(**values), analysable)


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
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
        uid.MPEG2MPML,
        uid.MPEG4HP41,
        uid.HEVCMP51,
        "1.2.840.10008.1.2.4.53",
        "1.2.840.10008.1.2.1.98",
    ],
)
def test_every_storage_context_takes_the_syntax(syntax):
    contexts = [context for context in made().supported(True, True) if context.abstract_syntax != VERIFICATION]
    assert len(contexts) == len(STORAGE_SOP_CLASSES) > 190
    assert all(syntax in context.transfer_syntax for context in contexts)


@pytest.mark.parametrize(
    "retired",
    [
        "1.2.840.10008.5.1.4.1.1.3",  # ultrasound multi-frame and single frame before 1994, nuclear medicine
        "1.2.840.10008.5.1.4.1.1.6",
        "1.2.840.10008.5.1.4.1.1.5",
        "1.2.840.10008.5.1.4.1.1.8",  # standalone overlay, curve, look-up tables
        "1.2.840.10008.5.1.4.1.1.9",
        "1.2.840.10008.5.1.4.1.1.10",
        "1.2.840.10008.5.1.4.1.1.12.3",
        "1.2.840.10008.5.1.1.29",  # hardcopy
    ],
)
def test_retired_classes_that_old_modalities_send_are_accepted(retired):
    assert retired in made().sop_classes


def test_what_belongs_to_no_study_is_not_accepted():
    hanging_protocol, dicomdir, commitment = "1.2.840.10008.5.1.4.38.1", "1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1"
    assert not {hanging_protocol, dicomdir, commitment} & made().sop_classes


def test_references_to_pixels_elsewhere_are_not_taken():
    assert not {"1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.7.1"} & set(TRANSFER_SYNTAXES)


def test_permissions_choose_the_contexts():
    contexts = made()
    assert [context.abstract_syntax for context in contexts.supported(True, False)] == [VERIFICATION]
    assert VERIFICATION not in {context.abstract_syntax for context in contexts.supported(False, True)}
    assert contexts.supported(False, False) == []


def test_configured_order_is_the_order_of_preference():
    contexts = made(transfer_syntaxes=("JPEGLSLossless", "1.2.840.10008.1.2", "all"))
    assert contexts.transfer_syntaxes[:3] == (
        uid.JPEGLSLossless,
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
    )
    assert set(contexts.transfer_syntaxes) == set(TRANSFER_SYNTAXES)
    assert contexts.supported(False, True)[0].transfer_syntax == list(contexts.transfer_syntaxes)


def test_classes_are_named_by_keyword_uid_or_word_and_private_ones_by_uid():
    assert made(sop_classes=("ComputedRadiographyImageStorage", DX, CR)).sop_classes == {CR, DX}
    assert made(sop_classes=("storage", PRIVATE)).sop_classes == STORAGE_SOP_CLASSES | {PRIVATE}


@pytest.mark.parametrize(
    ("key", "name", "nearest"),
    [
        ("sop_classes", "CTImageStorag", "CTImageStorage"),
        ("sop_classes", "Storage", "storage"),
        ("sop_classes", "1.2.840.10008.1.1", "1.2.840.10008.5"),  # Verification is no storage class
        ("sop_classes", "1.02.3", ""),
        ("transfer_syntaxes", "JPEGLSLosless", "JPEGLSLossless"),
        ("transfer_syntaxes", "JPIPReferenced", ""),
        ("transfer_syntaxes", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.9"),
        ("transfer_syntaxes", "1.2.3", ""),
    ],
)
def test_name_that_is_none_is_an_error_that_names_the_nearest(key, name, nearest):
    with pytest.raises(ConfigError, match=f"network.{key}: '{name}' is none .*; did you mean '{nearest}"):
        made(**{key: (name,)})


def test_policy_refuse_offers_what_a_detector_takes_and_store_offers_all():
    assert made({CR, DX}, unanalysable="refuse").sop_classes == {CR, DX}
    assert made({CR, DX}, unanalysable="refuse", sop_classes=(DX, PRIVATE)).sop_classes == {DX}
    assert made({CR, DX}).sop_classes == STORAGE_SOP_CLASSES
    assert made(None, unanalysable="refuse").sop_classes == STORAGE_SOP_CLASSES


def test_policy_that_leaves_nothing_is_an_error():
    with pytest.raises(ConfigError, match="leaves nothing to accept"):
        made(frozenset(), unanalysable="refuse")


def test_keyword_of_a_class_that_is_newer_than_pydicom():
    assert keyword("1.2.840.10008.5.1.4.1.1.66.7") == "LabelMapSegmentationStorage"
    assert keyword(PRIVATE) == PRIVATE
    assert all(keyword(one).isidentifier() for one in (*STORAGE_SOP_CLASSES, *TRANSFER_SYNTAXES))


def test_one_context_per_pair_with_odd_ids():
    contexts = proposed(
        [("1.2.3", "1.2.840.10008.1.2"), ("1.2.3", "1.2.840.10008.1.2.1"), ("1.2.3", "1.2.840.10008.1.2")]
    )
    assert [context.context_id for context in contexts] == [1, 3]
