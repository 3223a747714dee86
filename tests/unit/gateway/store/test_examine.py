"""What a data set says about itself, held against the command it came with."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.gateway.store.archive_world import DEFLATED, EXPLICIT, IMPLICIT, encode, image

from hilum.gateway.store.examine import HEADER_KEYS, Examined, Mismatch, examine
from hilum.gateway.store.states import InstanceFlag, MissingUidPolicy
from hilum.services.header import HeaderScanner

CT = "1.2.840.10008.5.1.4.1.1.2"
PALETTE = "1.2.840.10008.5.1.4.39.1"
SCANNER = HeaderScanner(HEADER_KEYS)


def look(
    data: bytes,
    transfer_syntax: str = EXPLICIT,
    *,
    sop: str = "1.2.3",
    missing: MissingUidPolicy = MissingUidPolicy.REFUSE,
    sop_class: str = CT,
) -> Examined:
    scan = SCANNER.scan(data, transfer_syntax, final=True)
    return examine(scan, sop_class_uid=sop_class, sop_instance_uid=sop, missing=missing)


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2"])
def test_a_good_data_set_passes_without_flags(transfer_syntax: str) -> None:
    found = look(encode(image(), transfer_syntax), transfer_syntax)
    assert (found.study_uid, found.series_uid, found.flags) == ("1.2", "1.2.1", InstanceFlag(0))
    assert found.values["PatientName"] == b"Doe^Jane"


@pytest.mark.parametrize("missing", MissingUidPolicy)
def test_an_object_of_no_patient_needs_no_study(missing: MissingUidPolicy) -> None:
    palette = image(SOPClassUID=PALETTE, StudyInstanceUID=None, SeriesInstanceUID=None)
    found = look(encode(palette), missing=missing, sop_class=PALETTE)
    assert (found.study_uid, found.series_uid, found.flags) == ("", "", InstanceFlag(0))
    nameless = image(None, SOPClassUID=PALETTE, StudyInstanceUID=None)
    with pytest.raises(Mismatch, match="SOPInstanceUID is missing"):
        look(encode(nameless), sop_class=PALETTE)


def test_padding_is_no_difference() -> None:
    data = encode(image("1.2.33"))  # six characters
    assert look(data, sop="1.2.33").flags == 0
    assert look(encode(image("1.2.3")), sop="1.2.3").flags == 0  # padded with NUL
    spaces = encode(image("1.2.3")).replace(b"1.2.3\0", b"1.2.3 ")
    assert look(spaces, sop="1.2.3").flags == 0


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SOPInstanceUID": "1.2.4"}, "SOPInstanceUID differs from the command's"),
        ({"SOPInstanceUID": "1.2.3.0"}, "SOPInstanceUID differs from the command's"),
        ({"SOPClassUID": CT + ".1"}, "SOPClassUID differs from the command's"),
        ({"SOPInstanceUID": None}, "SOPInstanceUID is missing"),
        ({"StudyInstanceUID": None}, "StudyInstanceUID is missing"),
        ({"StudyInstanceUID": ""}, "StudyInstanceUID is missing"),
        ({"SeriesInstanceUID": None}, "SeriesInstanceUID is missing"),
    ],
)
def test_what_does_not_fit_is_refused_with_a900(elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(Mismatch) as refused:
        look(encode(image(**elements)))
    assert refused.value.status == 0xA900
    assert str(refused.value) == reason
    assert len(reason) <= 64, "an error comment has 64 characters"


@pytest.mark.parametrize("padding", [b"\0\0\0\0", b"    ", b"\0 \0 "])
def test_a_uid_of_nothing_but_padding_is_missing(padding: bytes) -> None:
    data = encode(image(StudyInstanceUID="9.99")).replace(b"9.99", padding)
    with pytest.raises(Mismatch, match="StudyInstanceUID is missing"):
        look(data)
    found = look(data, missing=MissingUidPolicy.QUARANTINE)
    assert found.flags == InstanceFlag.QUARANTINED
    assert found.study_uid == ""


def test_differences_are_refused_whatever_the_policy() -> None:
    with pytest.raises(Mismatch):
        look(encode(image("1.2.4")), missing=MissingUidPolicy.QUARANTINE)


def test_a_class_that_the_data_set_does_not_name_is_the_commands() -> None:
    assert look(encode(image(SOPClassUID=None))).flags == 0


def test_what_is_odd_is_flagged() -> None:
    import zlib

    plain = encode(image())
    squeeze = zlib.compressobj(wbits=-15)
    deflated = squeeze.compress(plain) + squeeze.flush()
    assert look(deflated, DEFLATED).flags == InstanceFlag.DEFLATED
    assert look(plain, DEFLATED).flags == InstanceFlag.MISLABELLED
    both = InstanceFlag.DEFLATED | InstanceFlag.MISLABELLED
    assert look(deflated, EXPLICIT).flags == both
    assert look(encode(image(), IMPLICIT), EXPLICIT).flags == InstanceFlag.MISLABELLED
    meta = b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"
    assert look(meta + plain).flags == InstanceFlag.GROUP_2
    cut = encode(image(pixels=0)) + b"\x28\0\x10\0US\xff\xff"
    assert look(cut).study_uid == "1.2"


def test_garbage_is_refused_because_it_names_nothing() -> None:
    for garbage in (b"", b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n" * 20):
        with pytest.raises(Mismatch, match="is missing"):
            look(garbage)
        found = look(garbage, missing=MissingUidPolicy.QUARANTINE)
        assert InstanceFlag.QUARANTINED & found.flags
