from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from hilum.services import transfer_syntaxes
from hilum.services.transfer_syntaxes import (
    ALL_TRANSFER_SYNTAXES,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES,
    Compression,
    TransferSyntax,
    choose,
    is_known,
    properties,
)

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPIP = "1.2.840.10008.1.2.4.94"
JPIP_DEFLATE = "1.2.840.10008.1.2.4.95"
MPEG2 = "1.2.840.10008.1.2.4.100"
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
RLE = "1.2.840.10008.1.2.5"
XML = "1.2.840.10008.1.2.6.2"
PRIVATE = "1.2.826.0.1.3680043.9.9999.1"
TOO_NEW = "1.2.840.10008.1.2.4.999"

NOT_FOR_ASSOCIATIONS = {
    "1.2.840.10008.1.2.6.1",
    "1.2.840.10008.1.2.6.2",
    "1.2.840.10008.1.2.7.1",
    "1.2.840.10008.1.2.7.2",
    "1.2.840.10008.1.2.7.3",
    "1.2.840.10008.1.20",
}
YOUNGER_THAN_THE_DICTIONARY = {
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.4.111",
    "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.8.1",
}


def standard() -> dict[str, str]:
    """PS3.6's transfer syntaxes as pydicom lists them: UID to name.

    Without the young ones: pydicom lacks them until pynetdicom, once imported, adds them.
    """
    return {
        uid: name
        for uid, (name, uid_type, *_) in UID_dictionary.items()
        if uid_type == "Transfer Syntax" and uid not in YOUNGER_THAN_THE_DICTIONARY
    }


def test_the_table_holds_the_standard_ones_that_can_be_negotiated() -> None:
    assert set(standard()) - set(TRANSFER_SYNTAXES) == NOT_FOR_ASSOCIATIONS
    assert set(TRANSFER_SYNTAXES) - set(standard()) == YOUNGER_THAN_THE_DICTIONARY
    assert len(ALL_TRANSFER_SYNTAXES) == len(set(ALL_TRANSFER_SYNTAXES)) == 57


def test_encoding_agrees_with_pydicom() -> None:
    for uid in set(TRANSFER_SYNTAXES) & set(standard()):
        ours, theirs = properties(uid), UID(uid)
        assert ours.uid == uid
        assert ours.explicit == (not theirs.is_implicit_VR), uid
        assert ours.little_endian == theirs.is_little_endian, uid
        if not ours.referenced:  # pydicom counts JPIP as encapsulated and not as deflated
            assert ours.deflated == theirs.is_deflated, uid
            assert ours.encapsulated == theirs.is_encapsulated, uid


def test_loss_video_and_reference_agree_with_the_standards_names() -> None:
    for uid, name in standard().items():
        if uid in NOT_FOR_ASSOCIATIONS:
            assert not is_known(uid)
            continue
        syntax = properties(uid)
        assert syntax.video == any(word in name for word in ("MPEG", "HEVC")), name
        assert syntax.referenced == ("JPIP" in name), name
        assert syntax.deflated == ("Deflate" in name), name
        assert syntax.compression is compression_of(name, syntax), name


def compression_of(name: str, syntax: TransferSyntax) -> Compression:
    if "Lossless" in name and "Near" not in name:
        return Compression.LOSSLESS
    if syntax.video or "JPEG " in name.replace("JPEG 2000", "") or "JPEG-LS" in name:
        return Compression.LOSSY
    return Compression.UNKNOWN if "2000" in name or syntax.referenced else Compression.NONE


def test_the_young_ones() -> None:
    found = {uid: properties(uid).compression for uid in YOUNGER_THAN_THE_DICTIONARY}
    assert found == {
        "1.2.840.10008.1.2.4.110": Compression.LOSSLESS,
        "1.2.840.10008.1.2.4.111": Compression.LOSSY,
        "1.2.840.10008.1.2.4.112": Compression.UNKNOWN,
        "1.2.840.10008.1.2.8.1": Compression.LOSSLESS,
    }
    for uid in YOUNGER_THAN_THE_DICTIONARY:
        assert properties(uid).encapsulated
        # Each frame is deflated, not the data set.
        assert not properties(uid).deflated


def test_jpip() -> None:
    assert not properties(JPIP).encapsulated
    assert not properties(JPIP).deflated
    assert properties(JPIP_DEFLATE).deflated


def test_an_unknown_syntax_is_taken_for_a_compression_of_unknown_loss() -> None:
    syntax = properties(PRIVATE)
    assert not is_known(PRIVATE)
    assert (syntax.uid, syntax.name) == (PRIVATE, PRIVATE)
    assert syntax.explicit and syntax.little_endian and syntax.encapsulated
    assert not syntax.deflated
    assert syntax.compression is Compression.UNKNOWN


@pytest.mark.parametrize(
    ("constant", "keyword"),
    [
        ("IMPLICIT_VR_LITTLE_ENDIAN", "ImplicitVRLittleEndian"),
        ("EXPLICIT_VR_LITTLE_ENDIAN", "ExplicitVRLittleEndian"),
        ("DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN", "DeflatedExplicitVRLittleEndian"),
        ("EXPLICIT_VR_BIG_ENDIAN", "ExplicitVRBigEndian"),
    ],
)
def test_constant(constant: str, keyword: str) -> None:
    assert UID_dictionary[getattr(transfer_syntaxes, constant)][4] == keyword


def test_the_default_order() -> None:
    assert ALL_TRANSFER_SYNTAXES[:4] == (
        EXPLICIT_VR_LITTLE_ENDIAN,
        IMPLICIT_VR_LITTLE_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
    )
    kinds = [
        (syntax.referenced, syntax.video, [*Compression].index(syntax.compression))
        for syntax in TRANSFER_SYNTAXES.values()
    ]
    order = [Compression.NONE, Compression.LOSSLESS, Compression.UNKNOWN, Compression.LOSSY]
    kinds = [(ref, video, order.index([*Compression][loss])) for ref, video, loss in kinds]
    assert kinds == sorted(kinds)


def test_choice_by_default() -> None:
    cases: list[tuple[list[str], str | None]] = [
        ([IMPLICIT_VR_LITTLE_ENDIAN], IMPLICIT_VR_LITTLE_ENDIAN),
        ([IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN),
        ([JPEG_2000_LOSSLESS, EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN),
        ([EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN], IMPLICIT_VR_LITTLE_ENDIAN),
        ([RLE, EXPLICIT_VR_BIG_ENDIAN], EXPLICIT_VR_BIG_ENDIAN),
        (
            [EXPLICIT_VR_BIG_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN],
            DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        ),
        # All lossless ones are equals: what the requestor named first.
        ([JPEG_2000_LOSSLESS, JPEG_LOSSLESS], JPEG_2000_LOSSLESS),
        ([JPEG_LOSSLESS, JPEG_2000_LOSSLESS], JPEG_LOSSLESS),
        ([RLE, JPEG_XL_LOSSLESS, JPEG_LS_LOSSLESS], RLE),
        # Lossless before either before lossy before video before a mere reference.
        ([JPEG_BASELINE, JPEG_2000, RLE], RLE),
        ([JPEG_BASELINE, JPEG_2000], JPEG_2000),
        ([JPIP, MPEG2, JPEG_BASELINE], JPEG_BASELINE),
        ([JPIP, MPEG2], MPEG2),
        ([JPIP], JPIP),
        ([PRIVATE, JPIP], JPIP),
        ([PRIVATE, TOO_NEW], None),
        ([XML], None),
        ([], None),
    ]
    assert [case for case in cases if choose(case[0]) != case[1]] == []


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([PRIVATE, JPIP], JPIP),
        ([PRIVATE, TOO_NEW], PRIVATE),
        ([TOO_NEW, PRIVATE], TOO_NEW),
        ([XML, "1.2.840.10008.1.20", "1.2.840.10008.1.2.7.1"], None),
        (["1.2.840.10008.5.1.4.1.1.2", ""], None),  # a SOP class is no transfer syntax
    ],
)
def test_unknown_syntaxes_come_last_where_allowed(proposed: list[str], chosen: str | None) -> None:
    assert choose(proposed, allow_unknown=True) == chosen


def test_a_preference_is_an_order_and_a_limit() -> None:
    preference = [JPEG_2000_LOSSLESS, IMPLICIT_VR_LITTLE_ENDIAN]
    assert choose([IMPLICIT_VR_LITTLE_ENDIAN, JPEG_2000_LOSSLESS], preference) == JPEG_2000_LOSSLESS
    assert choose([EXPLICIT_VR_LITTLE_ENDIAN, RLE], preference) is None
    assert choose([EXPLICIT_VR_LITTLE_ENDIAN], []) is None


def test_a_preference_with_a_private_syntax_and_with_a_repetition() -> None:
    assert choose([RLE, PRIVATE], [PRIVATE, RLE]) == PRIVATE
    assert choose([RLE, JPEG_2000], [JPEG_2000, RLE, JPEG_2000]) == JPEG_2000


def test_a_preference_and_unknown_ones() -> None:
    """What we know and the preference leaves out stays out; only unknown ones come in."""
    assert choose([PRIVATE, RLE], [RLE], allow_unknown=True) == RLE
    assert choose([PRIVATE, JPEG_2000], [RLE], allow_unknown=True) == PRIVATE
    assert choose([JPEG_2000], [RLE], allow_unknown=True) is None


@given(
    st.lists(st.sampled_from([*ALL_TRANSFER_SYNTAXES, PRIVATE, TOO_NEW, XML])),
    st.none() | st.lists(st.sampled_from([*ALL_TRANSFER_SYNTAXES, PRIVATE])),
    st.booleans(),
)
def test_the_choice_is_always_one_of_those_proposed(
    proposed: list[str], preference: list[str] | None, allow_unknown: bool
) -> None:
    chosen = choose(proposed, preference, allow_unknown=allow_unknown)
    if chosen is not None:
        assert chosen in proposed
    elif not allow_unknown:
        accepted = ALL_TRANSFER_SYNTAXES if preference is None else preference
        assert set(proposed).isdisjoint(accepted)
