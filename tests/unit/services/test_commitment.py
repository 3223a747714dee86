"""Action and Event Information against pydicom's writer and reader, and what is wrong with them."""

from __future__ import annotations

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from hilum.errors import InvalidDicom, LimitExceeded
from hilum.services.commitment import (
    ALL_COMMITTED,
    FAILURES_EXIST,
    TRANSFER_SYNTAXES,
    Action,
    Failure,
    FailureReason,
    Reference,
    Result,
    describe,
    encode_action,
    encode_result,
    failed_as_a_whole,
    parse_action,
    parse_result,
)
from hilum.services.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"

uids = st.lists(st.integers(0, 10**12).map(str), min_size=1, max_size=5).map(".".join)
references = st.lists(st.builds(Reference, uids, uids), min_size=1, max_size=4).map(tuple)
failures = st.lists(
    st.builds(Failure, uids, uids, st.integers(0, 0xFFFF)), min_size=1, max_size=4
).map(tuple)
syntaxes = st.sampled_from(TRANSFER_SYNTAXES)


def written(dataset: Dataset, syntax: str, *, undefined: bool = False) -> bytes:
    """By pydicom; with sequences and items of undefined length where asked for."""
    if undefined:
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    out = DicomBytesIO()
    out.is_implicit_VR = syntax == IMPLICIT_VR_LITTLE_ENDIAN
    out.is_little_endian = syntax != EXPLICIT_VR_BIG_ENDIAN
    write_dataset(out, dataset)
    return out.getvalue()


def read(data: bytes, syntax: str) -> Dataset:
    return read_dataset(
        BytesIO(data), syntax == IMPLICIT_VR_LITTLE_ENDIAN, syntax != EXPLICIT_VR_BIG_ENDIAN
    )


def item(sop_class: str, instance: str, **more: object) -> Dataset:
    dataset = Dataset()
    dataset.ReferencedSOPClassUID = sop_class
    dataset.ReferencedSOPInstanceUID = instance
    for name, value in more.items():
        setattr(dataset, name, value)
    return dataset


def action(*items: Dataset, transaction: str = "2.25.1") -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction
    dataset.ReferencedSOPSequence = Sequence(items)
    return dataset


@given(references, uids, syntaxes)
def test_an_action_is_read_as_it_was_written(
    refs: tuple[Reference, ...], transaction: str, syntax: str
) -> None:
    asked = Action(transaction, refs)
    assert parse_action(encode_action(asked, syntax), syntax) == asked


@given(references, failures, uids, syntaxes)
def test_a_result_is_read_as_it_was_written(
    refs: tuple[Reference, ...], failed: tuple[Failure, ...], transaction: str, syntax: str
) -> None:
    for result in (
        Result(transaction, refs),
        Result(transaction, (), failed),
        Result(transaction, refs, failed, "HILUM"),
    ):
        assert parse_result(encode_result(result, syntax), syntax) == result
        assert result.event_type_id == (FAILURES_EXIST if result.failed else ALL_COMMITTED)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_pydicoms_encoding_is_read(syntax: str, undefined: bool) -> None:
    """Items with more in them, between usual ones, too."""
    odd = item(MR, "1.2.3.4", StorageMediaFileSetID="DISC 1")
    odd.PurposeOfReferenceCodeSequence = Sequence([Dataset(), item("1.2", "1.9")])
    data = written(action(item(CT, "1.2.3"), odd, item(CT, "1.2.33")), syntax, undefined=undefined)
    expected = (Reference(CT, "1.2.3"), Reference(MR, "1.2.3.4"), Reference(CT, "1.2.33"))
    assert parse_action(data, syntax) == Action("2.25.1", expected)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_pydicoms_results_are_read(syntax: str, undefined: bool) -> None:
    dataset = action(item(CT, "1.2.3"))
    dataset.RetrieveAETitle = "PACS "
    dataset.FailedSOPSequence = Sequence(
        [item(CT, "1.2.4", FailureReason=0x0112), item(CT, "1.2.5")]
    )
    assert parse_result(written(dataset, syntax, undefined=undefined), syntax) == Result(
        "2.25.1",
        (Reference(CT, "1.2.3"),),
        (Failure(CT, "1.2.4", 0x0112), Failure(CT, "1.2.5", 0x0110)),
        "PACS",
    )


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_pydicom_reads_ours(syntax: str) -> None:
    result = Result("2.25.7", (Reference(CT, "1.2.3"),), (Failure(CT, "1.2.44", 0x0131),), "HILUM")
    dataset = read(encode_result(result, syntax), syntax)
    assert dataset.TransactionUID == "2.25.7"
    assert dataset.RetrieveAETitle == "HILUM"
    assert dataset.FailedSOPSequence[0].FailureReason == 0x0131
    assert dataset.FailedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.44"
    assert dataset.ReferencedSOPSequence[0].ReferencedSOPClassUID == CT
    none = read(encode_result(Result("2.25.7", (), result.failed), syntax), syntax)
    assert "ReferencedSOPSequence" not in none and len(none.FailedSOPSequence) == 1
    # A type 1 report has no Failed SOP Sequence (PS3.4 Table J.3-2).
    alone = read(encode_result(Result("2.25.7", result.committed), syntax), syntax)
    assert "FailedSOPSequence" not in alone


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_what_an_item_lacks_is_empty(syntax: str) -> None:
    """To be judged, and not to lose what stands beside it."""
    bare, classless, nameless = Dataset(), Dataset(), Dataset()
    classless.ReferencedSOPInstanceUID = "1.2.3.4.5.6.7.8.9.10.11.12"
    nameless.ReferencedSOPClassUID = CT
    nameless.StorageMediaFileSetID = "DISC 1"
    data = written(action(item(CT, "1.2"), classless, nameless, bare, item(CT, "1.3")), syntax)
    assert parse_action(data, syntax).references == (
        Reference(CT, "1.2"),
        Reference("", "1.2.3.4.5.6.7.8.9.10.11.12"),
        Reference(CT, ""),
        Reference("", ""),
        Reference(CT, "1.3"),
    )


def test_a_request_that_fails_as_a_whole_names_each_instance_once() -> None:
    a, b = Reference(CT, "1.2"), Reference(MR, "1.3")
    reason = FailureReason.RESOURCE_LIMITATION
    result = failed_as_a_whole(Action("2.25.9", (b, a, b)), reason)
    assert result == Result("2.25.9", (), (Failure(*b, reason), Failure(*a, reason)))
    assert result.event_type_id == FAILURES_EXIST


def test_order_and_repetition_make_no_other_request() -> None:
    a, b = Reference(CT, "1.2"), Reference(MR, "1.3")
    assert Action("1", (a, b)).digest == Action("2", (b, a, b)).digest
    assert Action("1", (a, b)).digest != Action("1", (a,)).digest
    assert Action("1", (a,)).digest != Action("1", (Reference(MR, "1.2"),)).digest


def test_more_references_than_allowed_are_said_so() -> None:
    for syntax in TRANSFER_SYNTAXES:
        data = encode_action(Action("1", (Reference(CT, "1.2"),) * 11), syntax)
        with pytest.raises(LimitExceeded, match="more than 10 references"):
            parse_action(data, syntax, max_references=10)
        assert len(parse_action(data, syntax, max_references=11).references) == 11


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_what_is_no_request_is_refused(syntax: str) -> None:
    whole = encode_action(Action("2.25.1", (Reference(CT, "1.2"), Reference(CT, "1.3"))), syntax)
    for end in range(len(whole)):
        with pytest.raises(InvalidDicom):
            parse_action(whole[:end], syntax)
    with pytest.raises(InvalidDicom, match="Transaction UID"):
        parse_action(written(action(item(CT, "1"), transaction=""), syntax), syntax)
    with pytest.raises(InvalidDicom, match="0008,1199"):
        parse_action(written(action(), syntax), syntax)
    with pytest.raises(InvalidDicom, match="names no instance"):
        parse_result(written(action(), syntax), syntax)


@given(st.binary(max_size=300), syntaxes)
def test_any_bytes_are_read_or_refused(data: bytes, syntax: str) -> None:
    for parse in (parse_action, parse_result):
        with contextlib.suppress(InvalidDicom):
            parse(data, syntax)


@given(references, syntaxes, st.data())
def test_damaged_requests_are_read_or_refused(
    refs: tuple[Reference, ...], syntax: str, data: st.DataObject
) -> None:
    whole = bytearray(encode_action(Action("2.25.1", refs), syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidDicom):
        parse_action(bytes(whole), syntax)


def test_a_uid_without_a_length_is_refused() -> None:
    data = b"\x08\x00\x95\x11" + b"\xff" * 4 + b"2.25.1"
    with pytest.raises(InvalidDicom, match="without length"):
        parse_action(data, IMPLICIT_VR_LITTLE_ENDIAN)


def test_what_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Action("2.25.1", (Reference(CT, "1.2"),) * 3)
    with pytest.raises(InvalidDicom, match="cannot be written"):
        encode_action(Action("2.25.一", asked.references), IMPLICIT_VR_LITTLE_ENDIAN)
    long = Action("1" * 0x10000, asked.references)
    with pytest.raises(InvalidDicom, match="a value of 65536 bytes"):
        encode_action(long, EXPLICIT_VR_LITTLE_ENDIAN)
    implicit = encode_action(long, IMPLICIT_VR_LITTLE_ENDIAN)
    assert parse_action(implicit, IMPLICIT_VR_LITTLE_ENDIAN) == long
    monkeypatch.setattr("hilum.services.commitment.UNDEFINED", 100)  # to fill 4 GiB takes long
    with pytest.raises(InvalidDicom, match="a sequence of"):
        encode_action(asked, IMPLICIT_VR_LITTLE_ENDIAN)


def test_only_uncompressed_syntaxes() -> None:
    with pytest.raises(InvalidDicom, match=r"1\.2\.840\.10008\.1\.2\.5"):
        parse_action(b"", "1.2.840.10008.1.2.5")
    with pytest.raises(InvalidDicom):
        encode_action(Action("1", ()), "1.2.840.10008.1.2.5")
    assert EXPLICIT_VR_LITTLE_ENDIAN in TRANSFER_SYNTAXES


def test_nesting_has_an_end() -> None:
    """A sequence in a sequence in … of undefined length."""
    nested = (
        b"".join((b"\x08\x00\x40\x11\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff")) * 200
    )
    with pytest.raises(InvalidDicom, match="nested"):
        parse_action(nested, IMPLICIT_VR_LITTLE_ENDIAN)


def test_reasons_have_names() -> None:
    assert describe(FailureReason.DUPLICATE_TRANSACTION_UID) == "0131H duplicate transaction UID"
    assert describe(0x0999) == "0999H reason not in the standard"
