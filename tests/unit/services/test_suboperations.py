from __future__ import annotations

import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.services.status import Status
from hilum.services.suboperations import Counts, SubOperations, encode_failed_uids
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from hilum.wire.command import Command, CommandField

UNCOMPRESSED = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


def performed(*statuses: int, left: int = 0) -> SubOperations:
    counters = SubOperations(len(statuses) + left)
    for number, status in enumerate(statuses):
        counters.ended(status, f"1.2.{number}")
    return counters


def read(data: bytes, transfer_syntax: str) -> pydicom.Dataset:
    """A data set as pydicom reads it out of a file."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax)
    file = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=False)
    return pydicom.dcmread(io.BytesIO(file.getvalue() + data), force=True)


@pytest.mark.parametrize(
    ("statuses", "final"),
    [
        ((), 0x0000),
        ((0, 0), 0x0000),
        ((0, 0xB000), 0xB000),
        ((0xB007, 0xB006), 0xB000),
        ((0, 0xA700), 0xB000),
        ((0xB000, 0x0110), 0xB000),
        ((0xA900,), 0xA702),
        ((0xC000, 0x0124), 0xA702),
        ((0xFF00,), 0xA702),  # no final answer of a C-STORE
    ],
)
def test_the_final_status_follows_from_the_counters(statuses: tuple[int, ...], final: int) -> None:
    counters = performed(*statuses)
    assert counters.final_status() == final
    assert counters.final_status(cancelled=True) == final  # the cancel came too late
    assert counters.remaining == 0


@pytest.mark.parametrize("statuses", [(), (0,), (0xA700,), (0, 0xB000)])
def test_cancelled_is_what_left_something_undone(statuses: tuple[int, ...]) -> None:
    assert performed(*statuses, left=1).final_status(cancelled=True) == Status.CANCEL


def test_counters() -> None:
    counters = performed(0, 0, 0xB000, 0xA700, left=3)
    counters.expect(2)
    counters.lost("1.3")
    assert counters.elements(0xFF00) == {
        "number_of_remaining_suboperations": 4,
        "number_of_completed_suboperations": 2,
        "number_of_failed_suboperations": 2,
        "number_of_warning_suboperations": 1,
    }
    assert counters.failed_uids == ("1.2.3", "1.3")


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA702, 0xC000])
def test_only_pending_and_cancelled_responses_say_how_many_remain(status: int) -> None:
    elements = performed(0, 0xA700, left=1).elements(status)
    assert "number_of_remaining_suboperations" not in elements
    assert len(elements) == 3
    assert "number_of_remaining_suboperations" in performed(left=1).elements(0xFE00)


def test_a_response_is_a_command_of_ours() -> None:
    counters = performed(0, left=70_000)
    response = Command(CommandField.C_MOVE_RSP, status=0xFF00, **counters.elements(0xFF00))
    assert Counts.of(response) == Counts(65_535, 1, 0, 0)
    assert Counts.of(Command(CommandField.C_MOVE_RSP)) == Counts(None, None, None, None)


def test_counters_stop_at_65535_in_responses_only() -> None:
    counters = SubOperations(70_001)
    for _ in range(70_000):
        counters.ended(0, "1.2")
    assert counters.elements(0xFF00)["number_of_completed_suboperations"] == 65_535
    assert (counters.completed, counters.remaining) == (70_000, 1)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_no_failed_list_while_pending_after_success_and_without_failures(syntax: str) -> None:
    assert performed(0, 0xB000).identifier(0xB000, syntax) is None
    assert performed(0, 0xA700, left=1).identifier(0xFF00, syntax) is None
    assert performed(0, 0xA700).identifier(0x0000, syntax) is None
    for status in (0xB000, 0xA702, 0xFE00):
        assert performed(0, 0xA700).identifier(status, syntax) is not None


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_a_uid_that_failed_twice_is_listed_once_and_counted_twice(syntax: str) -> None:
    counters = SubOperations(3)
    for uid in ("1.2.3", "1.2", "1.2.3"):
        counters.ended(0xA700, uid)
    data = counters.identifier(0xA702, syntax)
    assert data is not None
    assert len(data) % 2 == 0
    assert read(data, syntax).FailedSOPInstanceUIDList == ["1.2.3", "1.2"]
    assert counters.failed == 3


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@pytest.mark.parametrize("count", [1_008, 1_009])
def test_a_list_too_long_for_ui_is_un_where_vrs_are_written(syntax: str, count: int) -> None:
    uids = [f"{number:063}." for number in range(count)]
    element = read(encode_failed_uids(uids, syntax), syntax)[0x00080058]
    if count == 1_008 or syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        assert element.VR == "UI"
        assert element.value == uids
    else:  # pydicom leaves a value as it is that has a UN's length (PS3.5 6.2.2)
        assert element.VR == "UN"
        assert element.value.rstrip(b"\0").decode().split("\\") == uids


@given(st.lists(st.text("0123456789.", min_size=1, max_size=64), min_size=1, max_size=5))
def test_any_failed_list_is_read_by_pydicom(uids: list[str]) -> None:
    for syntax in UNCOMPRESSED:
        found = read(encode_failed_uids(uids, syntax), syntax)[0x00080058]
        assert ([found.value] if found.VM == 1 else list(found.value)) == uids
