"""The header scanner against bytes written by hand and against what pydicom reads in its files."""

from __future__ import annotations

import array
import mmap
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from tests import samples

from hilum.errors import ConfigurationError
from hilum.services.header import HeaderScan, HeaderScanner, ScanLimits
from hilum.services.tag_path import TagPath

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
LONG = {"OB", "OW", "SQ", "UN", "UT", "UC"}
UNDEFINED = 0xFFFFFFFF


def tag_bytes(tag: int, order: str = "<") -> bytes:
    return struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)


def explicit(tag: int, vr: str, value: bytes, length: int | None = None, order: str = "<") -> bytes:
    size = len(value) if length is None else length
    long = vr in LONG
    head = struct.pack(order + ("HI" if long else "H"), *((0, size) if long else (size,)))
    return tag_bytes(tag, order) + vr.encode() + head + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return tag_bytes(tag) + struct.pack("<I", len(value) if length is None else length) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return implicit(0xFFFEE000, value, length)


ITEM_END = implicit(0xFFFEE00D, b"")
SEQUENCE_END = implicit(0xFFFEE0DD, b"")


def open_item(value: bytes) -> bytes:
    return item(value, UNDEFINED) + ITEM_END


def open_sequence(tag: int, value: bytes, vr: str = "SQ") -> bytes:
    return explicit(tag, vr, value, UNDEFINED) + SEQUENCE_END


def scan(
    data: bytes, *paths: str, syntax: str = EXPLICIT, final: bool = True, **limits: int
) -> HeaderScan:
    return HeaderScanner(paths, ScanLimits(**limits)).scan(data, syntax, final=final)


CHARSET = explicit(0x00080005, "CS", b"ISO_IR 100")
UID = explicit(0x00080018, "UI", b"1.2.3\0")
PATIENT = explicit(0x00100010, "PN", b"Doe^Jane")
PIXELS = explicit(0x7FE00010, "OW", b"\1\2\3\4")
PLAIN = CHARSET + UID + PATIENT + PIXELS
PLAIN_IMPLICIT = (
    implicit(0x00080005, b"ISO_IR 100")
    + implicit(0x00080018, b"1.2.3\0")
    + implicit(0x00100010, b"Doe^Jane")
    + implicit(0x7FE00010, b"\1\2\3\4")
)
PLAIN_BIG = (
    explicit(0x00080005, "CS", b"ISO_IR 100", order=">")
    + explicit(0x00080018, "UI", b"1.2.3\0", order=">")
    + explicit(0x00100010, "PN", b"Doe^Jane", order=">")
    + explicit(0x7FE00010, "OW", b"\1\2\3\4", order=">")
)
FOUND = {"SOPInstanceUID": b"1.2.3\0", "PatientName": b"Doe^Jane"}
PATHS = ("SOPInstanceUID", "PatientName", "PatientID")


def deflate(data: bytes, wbits: int = -15) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return packer.compress(data) + packer.flush()


# Encodings and labels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "syntax", "encoding"),
    [
        (PLAIN, EXPLICIT, "explicit little"),
        (PLAIN, "1.2.840.10008.1.2.4.70\0", "explicit little"),
        (PLAIN_IMPLICIT, IMPLICIT, "implicit little"),
        (PLAIN_IMPLICIT, "1.2.840.113619.5.2", "implicit little"),
        (PLAIN_BIG, BIG, "explicit big"),
        (deflate(PLAIN), DEFLATED, "explicit little"),
        (deflate(PLAIN) + b"\0", DEFLATED, "explicit little"),
        (deflate(PLAIN, 15), DEFLATED, "explicit little"),
    ],
)
def test_every_encoding_as_declared(data: bytes, syntax: str, encoding: str) -> None:
    result = scan(data, *PATHS, syntax=syntax)
    assert result.values == FOUND
    assert result.encoding == encoding
    assert result.deflated == (syntax == DEFLATED)
    assert (result.complete, result.mislabelled, result.problem) == (True, False, None)
    assert {path: result.vrs[path] for path in FOUND} == {
        "SOPInstanceUID": "UI",
        "PatientName": "PN",
    }


@pytest.mark.parametrize("declared", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize(
    ("data", "encoding", "actual"),
    [
        (PLAIN, "explicit little", EXPLICIT),
        (PLAIN_IMPLICIT, "implicit little", IMPLICIT),
        (PLAIN_BIG, "explicit big", BIG),
        (deflate(PLAIN), "explicit little", DEFLATED),
        (deflate(PLAIN_IMPLICIT), "implicit little", None),
    ],
    ids=["explicit", "implicit", "big", "deflated", "deflated implicit"],
)
def test_mislabelled_data_is_read_as_found(
    data: bytes, encoding: str, actual: str, declared: str
) -> None:
    result = scan(data, *PATHS, syntax=declared)
    assert result.values == FOUND
    assert result.encoding == encoding
    assert result.mislabelled == (actual != declared)
    assert result.problem is None


@pytest.mark.parametrize("declared", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
def test_bytes_that_are_no_data_set(declared: str) -> None:
    result = scan(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4, *PATHS, syntax=declared)
    assert result.values == {}
    assert result.complete
    assert result.problem is not None


def test_deflated_bytes_that_inflate_to_no_data_set() -> None:
    result = scan(deflate(b"\xff" * 100), *PATHS, syntax=DEFLATED)
    assert result.problem == "the bytes are not a data set in any encoding"
    noise = b"\xff\xff" + random.Random(1).randbytes(100)
    result = scan(deflate(noise), *PATHS, syntax=EXPLICIT)
    assert result.problem == "the bytes are not a data set in any encoding"
    result = scan(deflate(b"\xff\xff"), *PATHS, syntax=EXPLICIT)
    assert result.problem is not None


def test_a_first_element_of_a_high_group_is_no_contradiction() -> None:
    data = explicit(0x20000010, "IS", b"1 ") + explicit(0x20100010, "ST", b"STANDARD\\1,1")
    result = scan(data, "NumberOfCopies")
    assert (result.values, result.mislabelled) == ({"NumberOfCopies": b"1 "}, False)


def test_a_first_sequence_of_undefined_length_is_taken_as_declared() -> None:
    data = implicit(0x20100500, item(b""), UNDEFINED) + SEQUENCE_END + implicit(0x20100510, b"x ")
    result = scan(data, "20100510", syntax=IMPLICIT)
    assert (result.values, result.mislabelled) == ({"20100510": b"x "}, False)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
def test_an_empty_data_set_has_nothing_and_no_problem(syntax: str) -> None:
    data = deflate(b"") if syntax == DEFLATED else b""
    result = scan(data, *PATHS, syntax=syntax)
    assert (result.values, result.problem, result.complete) == ({}, None, True)
    assert not scan(b"", *PATHS, syntax=syntax, final=False).complete


# Group 0002 in the data set ----------------------------------------------------------------------

META = explicit(0x00020000, "UL", b"\x1a\0\0\0") + explicit(
    0x00020010, "UI", b"1.2.840.10008.1.2\0"
)


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (META + PLAIN, EXPLICIT),
        (META + PLAIN_IMPLICIT, IMPLICIT),
        (META + PLAIN_BIG, BIG),
        (META + deflate(PLAIN), DEFLATED),
        (implicit(0x00020010, b"1.2.840.10008.1.2\0") + PLAIN_IMPLICIT, IMPLICIT),
    ],
)
def test_file_meta_elements_are_skipped_and_reported(data: bytes, syntax: str) -> None:
    result = scan(data, *PATHS, syntax=syntax)
    assert (result.values, result.group2, result.mislabelled) == (FOUND, True, False)


def test_nothing_but_file_meta_elements() -> None:
    assert scan(META, *PATHS).problem is None
    assert not scan(META, *PATHS, final=False).complete
    assert scan(META, *PATHS, max_elements=1).problem is not None
    assert scan(b"\2\0\2\0\xff\xff\xff\xff", *PATHS).problem is not None


# Where a scan ends -------------------------------------------------------------------------------


def test_it_stops_behind_the_last_wanted_tag_and_never_needs_pixel_data() -> None:
    header = len(PLAIN) - len(PIXELS)
    result = scan(PLAIN[: header + 8] + b"junk", *PATHS, final=False)
    assert result.complete
    assert result.values == FOUND


@pytest.mark.parametrize("data", [PLAIN, PLAIN_IMPLICIT, PLAIN_BIG])
def test_prefixes_are_incomplete_or_the_same(data: bytes) -> None:
    syntax = {PLAIN: EXPLICIT, PLAIN_IMPLICIT: IMPLICIT, PLAIN_BIG: BIG}[data]
    for cut in range(len(data)):
        result = scan(data[:cut], *PATHS, syntax=syntax, final=False)
        assert result.complete == (cut >= len(data) - 4)
        assert result.values == FOUND or not result.complete
        assert result.needed > cut or result.complete


def test_needed_reaches_behind_a_long_value() -> None:
    data = CHARSET + explicit(0x00091001, "OB", bytes(5000)) + PATIENT
    result = scan(data[:100], *PATHS, final=False)
    assert result.needed == len(data) - len(PATIENT) + 8


@pytest.mark.parametrize(("data", "syntax"), [(PLAIN, EXPLICIT), (PLAIN_IMPLICIT, IMPLICIT)])
def test_a_cut_value_is_a_problem_and_left_out(data: bytes, syntax: str) -> None:
    cut = data.index(b"Jane")
    result = scan(data[:cut], *PATHS, syntax=syntax)
    assert result.values == {"SOPInstanceUID": b"1.2.3\0"}
    assert result.complete
    assert "ends after" in (result.problem or "")
    unwanted = scan(data[:cut], "SOPInstanceUID", "PatientID", syntax=syntax)
    assert "ends after" in (unwanted.problem or "")


def test_nuls_behind_the_last_element_are_padding() -> None:
    assert scan(PLAIN + b"\0", "7FE10010").problem is None
    assert scan(PLAIN + b"\0\1", "7FE10010").problem is not None


def test_a_cut_first_element() -> None:
    assert "first element" in (scan(CHARSET[:6], *PATHS).problem or "")
    assert "first element" in (scan(deflate(CHARSET[:6]), *PATHS, syntax=DEFLATED).problem or "")
    assert scan(CHARSET[:10], *PATHS, syntax=IMPLICIT).mislabelled
    cut_header = CHARSET + explicit(0x7FE00010, "OW", b"")[:10]
    assert "ends after" in (scan(cut_header, "7FE10010").problem or "")
    assert scan(cut_header[len(CHARSET) :], "PixelData").problem is not None
    high = explicit(0x20000010, "IS", b"1 ")
    assert not scan(high[:7], "NumberOfCopies", final=False).complete
    assert not scan(high[:9], "NumberOfCopies", final=False).complete


# Sequences ---------------------------------------------------------------------------------------

STEP_ID = "RequestAttributesSequence.ScheduledProcedureStepID"
PROCEDURE_ID = "RequestAttributesSequence.RequestedProcedureID"
ITEM_1 = explicit(0x00400009, "SH", b"S1") + explicit(0x00401001, "SH", b"P1")
ITEM_2 = explicit(0x00401001, "SH", b"P2")
AFTER = explicit(0x00540081, "US", b"\7\0")


@pytest.mark.parametrize(
    "sequence",
    [
        explicit(0x00400275, "SQ", item(ITEM_1) + item(ITEM_2)),
        explicit(0x00400275, "SQ", open_item(ITEM_1) + open_item(ITEM_2)),
        open_sequence(0x00400275, item(ITEM_1) + open_item(ITEM_2)),
        # written in other ways than it should be:
        explicit(0x00400275, "UN", item(ITEM_1) + item(ITEM_2)),
        open_sequence(0x00400275, item(ITEM_1, UNDEFINED) + item(ITEM_2)),
        open_sequence(0x00400275, item(ITEM_1, UNDEFINED) + item(ITEM_2, UNDEFINED)),
        explicit(0x00400275, "SQ", item(ITEM_1 + ITEM_END) + item(ITEM_2) + SEQUENCE_END),
        explicit(0x00400275, "SQ", item(ITEM_1) + ITEM_END + item(ITEM_2 + SEQUENCE_END)),
        explicit(0x00400275, "SQ", item(ITEM_1) + item(ITEM_2)) + SEQUENCE_END + ITEM_END,
        open_sequence(
            0x00400275,
            item(implicit(0x00400009, b"S1") + implicit(0x00401001, b"P1"))
            + open_item(implicit(0x00401001, b"P2")),
        ),
        open_sequence(
            0x00400275,
            item(implicit(0x00400009, b"S1") + implicit(0x00401001, b"P1"))
            + open_item(implicit(0x00401001, b"P2")),
            vr="UN",
        ),
        open_sequence(0x00400275, open_item(ITEM_1) + item(ITEM_2), vr="UN"),
    ],
)
def test_sequences_however_written(sequence: bytes) -> None:
    data = PLAIN[: -len(PIXELS)] + sequence + AFTER + PIXELS
    result = scan(data, *PATHS, STEP_ID, PROCEDURE_ID, "00540081")
    assert result.problem is None
    assert result.values == FOUND | {"00540081": b"\7\0"}
    assert result.nested == {STEP_ID: [b"S1", None], PROCEDURE_ID: [b"P1", b"P2"]}
    assert result.vrs[STEP_ID] == "SH"
    skipped = scan(data, *PATHS, "00540081")
    assert (skipped.values, skipped.problem) == (result.values, None)


def test_sequences_in_big_endian() -> None:
    step = explicit(0x00400009, "SH", b"S1", order=">")
    headless = struct.pack(">HHI", 0xFFFE, 0xE000, len(step)) + step
    implicit_step = struct.pack(">HHI", 0x0040, 0x0009, 2) + b"S2"
    other = struct.pack(">HHI", 0xFFFE, 0xE000, len(implicit_step)) + implicit_step
    data = PLAIN_BIG[:18] + explicit(0x00400275, "SQ", headless + other, order=">")
    result = scan(data, STEP_ID, syntax=BIG)
    assert (result.nested, result.problem) == ({STEP_ID: [b"S1", b"S2"]}, None)


def test_sequences_in_implicit() -> None:
    steps = item(implicit(0x00400009, b"S1")) + open_item(implicit(0x00400009, b"S2")) + item(b"")
    data = PLAIN_IMPLICIT[:18] + implicit(0x00400275, steps)
    result = scan(data, STEP_ID, "PatientID", syntax=IMPLICIT)
    assert (result.nested, result.problem) == ({STEP_ID: [b"S1", b"S2", None]}, None)
    assert result.vrs[STEP_ID] == "SH"


def test_explicit_items_in_an_implicit_data_set_and_a_long_value_that_looks_like_one() -> None:
    looks_explicit = implicit(0x00400009, bytes(int.from_bytes(b"SH", "little")))
    steps = item(explicit(0x00400009, "SH", b"S1")) + item(looks_explicit)
    data = PLAIN_IMPLICIT[:18] + implicit(0x00400275, steps)
    result = scan(data, STEP_ID, syntax=IMPLICIT)
    assert result.nested == {STEP_ID: [b"S1", looks_explicit[8:]]}


def test_a_vr_that_is_none_first_in_an_item() -> None:
    odd = tag_bytes(0x00091001) + b"ZZ\0\0\2\0\0\0ab"
    cut = tag_bytes(0x00091001) + b"\x09\0\0\0"
    sequence = explicit(0x00400275, "SQ", item(odd + ITEM_2) + item(cut))
    result = scan(CHARSET + sequence + AFTER, PROCEDURE_ID, "00540081")
    assert result.nested == {PROCEDURE_ID: [b"P2", None]}
    assert result.values == {"00540081": b"\7\0"}


def test_absent_empty_and_deep_sequences() -> None:
    deep = "00081140.00081199.00081155"
    assert scan(PLAIN, STEP_ID, "77770010").nested == {}
    empty = scan(CHARSET + explicit(0x00400275, "SQ", b""), STEP_ID)
    assert empty.nested == {STEP_ID: []}
    inner = explicit(0x00081199, "SQ", item(UID) + item(explicit(0x00081155, "UI", b"1.9\0")))
    data = CHARSET + explicit(0x00081140, "SQ", item(inner) + item(UID) + open_item(inner))
    assert scan(data, deep).nested == {deep: [None, b"1.9\0", None, b"1.9\0"]}


def test_the_raw_bytes_of_a_sequence() -> None:
    steps = item(ITEM_1) + open_item(ITEM_2)
    for sequence in (explicit(0x00400275, "SQ", steps), open_sequence(0x00400275, steps)):
        result = scan(CHARSET + sequence, "RequestAttributesSequence", STEP_ID)
        assert result.values == {"RequestAttributesSequence": steps}
        assert result.nested == {STEP_ID: [b"S1", None]}
        outer = explicit(0x00081140, "SQ", item(sequence))
        path = "ReferencedImageSequence.RequestAttributesSequence"
        assert scan(CHARSET + outer, path).nested == {path: [steps]}


def test_encapsulated_values_are_skipped_or_given_raw() -> None:
    fragments = item(b"") + item(b"\xff\xd8\xff\xd9")
    data = (
        CHARSET + open_sequence(0x7FE00010, fragments, vr="OB") + explicit(0x7FE10010, "LO", b"x")
    )
    assert scan(data, "7FE10010").values == {"7FE10010": b"x"}
    assert scan(data, "PixelData").values == {"PixelData": fragments}
    in_implicit = PLAIN_IMPLICIT[:18] + implicit(0x7FE00010, fragments, UNDEFINED) + SEQUENCE_END
    assert scan(in_implicit + implicit(0x7FE10010, b"x "), "7FE10010", syntax=IMPLICIT).values
    broken = CHARSET + open_sequence(0x7FE00010, item(b"", UNDEFINED), vr="OB")
    assert "fragment" in (scan(broken, "7FE10010").problem or "")


# Private elements --------------------------------------------------------------------------------

SIEMENS = '(0019,"SIEMENS CT VA0  COE",10)'


def private(block: int, creator: bytes, value: bytes) -> bytes:
    return explicit(0x00190000 | block, "LO", creator) + explicit(
        0x00190000 | block << 8 | 0x10, "DS", value
    )


@pytest.mark.parametrize("block", [0x10, 0x11, 0xFF])
def test_the_creator_says_which_block(block: int) -> None:
    data = CHARSET + private(block, b"SIEMENS CT VA0  COE ", b"1.5 ") + PIXELS
    result = scan(data, SIEMENS, STEP_ID)
    assert (result.values, result.problem) == ({SIEMENS: b"1.5 "}, None)
    assert result.vrs[SIEMENS] == "DS"
    assert scan(data, '(0019,"OTHER",10)').values == {}


def test_private_elements_beside_each_other_and_by_number() -> None:
    creators = explicit(0x00190010, "LO", b"ACME") + explicit(0x00190011, "LO", b"OTHER")
    values = explicit(0x00191010, "LO", b"one ") + explicit(0x00191110, "LO", b"two ")
    paths = ['(0019,"ACME",10)', '(0019,"OTHER",10)', "00191010", "00190010", "00190011"]
    for order in (paths, paths[::-1]):
        result = scan(CHARSET + creators + values, *order)
        assert result.values == {
            '(0019,"ACME",10)': b"one ",
            '(0019,"OTHER",10)': b"two ",
            "00191010": b"one ",
            "00190010": b"ACME",
            "00190011": b"OTHER",
        }


def test_private_elements_in_every_other_encoding_and_in_items() -> None:
    block = implicit(0x00290010, b"ACME") + implicit(0x00291020, b"in a box")
    plain, nested = '(0029,"ACME",20)', 'ReferencedImageSequence.(0029,"ACME",20)'
    data = PLAIN_IMPLICIT[:18] + implicit(0x00081140, item(block) + item(b"")) + block
    result = scan(data, plain, nested, syntax=IMPLICIT)
    assert (result.values, result.nested) == ({plain: b"in a box"}, {nested: [b"in a box", None]})
    creator = explicit(0x00290010, "LO", b"ACME", order=">")
    data = PLAIN_BIG[:18] + creator + explicit(0x00291020, "LO", b"in a box", order=">")
    assert scan(data, plain, syntax=BIG).values == {plain: b"in a box"}


def test_a_private_sequence() -> None:
    inner = item(explicit(0x00181072, "TM", b"1200"))
    data = CHARSET + explicit(0x00290010, "LO", b"ACME") + open_sequence(0x00291020, inner)
    path = '(0029,"ACME",20).00181072'
    assert scan(data, path).nested == {path: [b"1200"]}
    assert scan(data, path, "00291020.00181072").nested[path] == [b"1200"]


# Odd elements ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        tag_bytes(0x00091001) + b"ZZ\0\0\4\0\0\0" + b"abcd",  # a VR yet to come: the long form
        tag_bytes(0x00091001) + b"ZZ\4\0" + b"abcd",  # and the short one
        tag_bytes(0x00091001) + b"\4\0\0\0" + b"abcd",  # implicit among explicit ones
        tag_bytes(0x00091001) + b"??\4\0" + b"abcd",
        tag_bytes(0x00091001) + b"ZZ\0\0\xff\xff\xff\xff" + SEQUENCE_END,
    ],
)
def test_a_vr_that_is_none(odd: bytes) -> None:
    result = scan(CHARSET + odd + PATIENT, *PATHS)
    assert (result.values, result.problem) == ({"PatientName": b"Doe^Jane"}, None)
    at_the_end = scan(CHARSET + odd, *PATHS)
    assert (at_the_end.problem, at_the_end.complete) == (None, True)
    for cut in range(len(CHARSET) + 8, len(CHARSET + odd)):
        assert not scan((CHARSET + odd)[:cut], *PATHS, final=False).complete
    assert scan((CHARSET + odd)[:-1], *PATHS).problem is not None


def test_a_vr_that_is_none_and_leads_nowhere() -> None:
    odd = tag_bytes(0x00091001) + b"??\4\0" + bytes(40)
    assert "(0009,1001) has no VR" in (scan(CHARSET + odd + PATIENT, *PATHS).problem or "")


def test_un_gets_the_dictionary_s_vr() -> None:
    assert scan(CHARSET + explicit(0x00100020, "UN", b"id"), "PatientID").vrs == {"PatientID": "LO"}
    assert scan(CHARSET + explicit(0x00111020, "UN", b"id"), "00111020").vrs == {"00111020": "UN"}
    odd = CHARSET + tag_bytes(0x00111020) + b"ZZ\0\0\2\0\0\0id"
    assert scan(odd, "00111020").vrs == {}
    assert "00280106" not in scan(PLAIN_IMPLICIT, "00280106", syntax=IMPLICIT).vrs


def test_the_last_of_a_repeated_element_counts() -> None:
    twice = PATIENT + explicit(0x00100010, "PN", b"Roe^John")
    assert scan(CHARSET + twice, *PATHS).values["PatientName"] == b"Roe^John"


def test_an_item_at_the_top_is_a_problem() -> None:
    result = scan(CHARSET + UID + item(b"") + PATIENT, *PATHS)
    assert result.values == {"SOPInstanceUID": b"1.2.3\0"}
    assert "(FFFE,E000)" in (result.problem or "")


@pytest.mark.parametrize(
    "broken",
    [
        explicit(0x00400275, "SQ", item(ITEM_1)[:-1] + b"", len(item(ITEM_1)) - 1),
        explicit(0x00400275, "SQ", item(ITEM_1[:-2], len(ITEM_1) - 2)),
        explicit(0x00400275, "SQ", ITEM_1),
        explicit(0x00400275, "SQ", item(item(b""))),
        explicit(0x00400275, "SQ", item(open_sequence(0x00081140, b"nonsense"))),
    ],
)
def test_a_broken_sequence_of_known_length_costs_itself_only(broken: bytes) -> None:
    result = scan(CHARSET + broken + AFTER, STEP_ID, "00540081")
    assert result.values == {"00540081": b"\7\0"}
    assert result.problem is not None


def test_a_broken_sequence_of_undefined_length_ends_the_scan() -> None:
    result = scan(CHARSET + open_sequence(0x00400275, ITEM_1) + AFTER, "00540081")
    assert (result.values, result.complete) == ({}, True)
    assert "where an item was expected" in (result.problem or "")


def test_a_sequence_cut_in_the_middle() -> None:
    data = CHARSET + explicit(0x00400275, "SQ", item(ITEM_1) + item(ITEM_2)) + AFTER
    for cut in range(len(CHARSET) + 1, len(data)):
        assert not scan(data[:cut], STEP_ID, "00540081", final=False).complete
        problem = scan(data[:cut], STEP_ID, "00540081").problem
        assert (problem is None) == (cut == len(data) - len(AFTER))
    raw = scan(data[:40], "RequestAttributesSequence")
    assert (raw.values, raw.problem is None) == ({}, False)
    short = scan(CHARSET + explicit(0x00400275, "SQ", item(b"", 50), 58), "00400275", STEP_ID)
    assert short.problem is not None


# Limits ------------------------------------------------------------------------------------------


def test_limit_of_a_value() -> None:
    long = explicit(0x00100010, "PN", b"a" * 100)
    result = scan(CHARSET + UID + long + AFTER, *PATHS, "00540081", max_value_length=50)
    assert result.values == {"SOPInstanceUID": b"1.2.3\0", "00540081": b"\7\0"}
    assert result.problem == "a value of 100 bytes is over max_value_length 50"
    data = PLAIN_IMPLICIT[:-12] + implicit(0x00100020, b"a" * 100)
    assert scan(data, *PATHS, syntax=IMPLICIT, max_value_length=50).values == FOUND
    assert scan(CHARSET + explicit(0x00104000, "UT", b"a" * 70_000), "00104000").values == {}


@pytest.mark.parametrize(("data", "syntax"), [(PLAIN, EXPLICIT), (PLAIN_IMPLICIT, IMPLICIT),
                                              (PLAIN_BIG, BIG)])  # fmt: skip
def test_limit_of_elements(data: bytes, syntax: str) -> None:
    result = scan(data, *PATHS, syntax=syntax, max_elements=2)
    assert result.values == {"SOPInstanceUID": b"1.2.3\0"}
    assert result.problem == "more elements than max_elements 2"


def test_limit_of_elements_in_sequences() -> None:
    bomb = CHARSET + open_sequence(0x00400275, item(b"") * 100) + AFTER
    assert "max_elements 50" in (scan(bomb, "00540081", max_elements=50).problem or "")
    known = CHARSET + explicit(0x00400275, "SQ", item(b"") * 100) + AFTER
    assert "max_elements 50" in (scan(known, STEP_ID, max_elements=50).problem or "")
    assert scan(known, "00540081", max_elements=50).problem is None


@pytest.mark.parametrize("depth", [10, 64, 65, 50_000])
def test_limit_of_depth(depth: int) -> None:
    head = explicit(0x00081140, "SQ", b"", UNDEFINED) + item(b"", UNDEFINED)
    data = CHARSET + head * depth + (ITEM_END + SEQUENCE_END) * depth + AFTER
    result = scan(data, "00540081")
    if depth <= 64:
        assert (result.values, result.problem) == ({"00540081": b"\7\0"}, None)
    else:
        assert result.problem == "sequences nested deeper than max_depth 64"


def test_limit_of_depth_inside_a_known_length() -> None:
    data = b""
    for _ in range(100):
        data = explicit(0x00081140, "SQ", open_item(data))
    path = ".".join(["00081140"] * 90)
    result = scan(CHARSET + data + AFTER, path, "00540081", max_elements=1000)
    assert result.values == {"00540081": b"\7\0"}
    assert "max_depth" in (result.problem or "")


def test_limits_of_inflating() -> None:
    noise = random.Random(1).randbytes(300_000)
    long = deflate(CHARSET + explicit(0x00091001, "OB", noise) + PATIENT)
    assert scan(long, *PATHS, syntax=DEFLATED).values == {"PatientName": b"Doe^Jane"}
    limited = scan(long, *PATHS, syntax=DEFLATED, max_inflated=100_000)
    assert limited.problem == "the header is longer than max_inflated 100000"
    bomb = deflate(CHARSET + explicit(0x00091001, "OB", bytes(900_000)) + PATIENT)
    assert "max_inflate_ratio" in (scan(bomb, *PATHS, syntax=DEFLATED).problem or "")
    allowed = scan(bomb, *PATHS, syntax=DEFLATED, max_inflate_ratio=2000)
    assert allowed.values == {"PatientName": b"Doe^Jane"}


def test_deflated_data_that_is_cut_or_damaged() -> None:
    noise = random.Random(1).randbytes(100_000)
    whole = deflate(CHARSET + explicit(0x00091001, "OB", noise) + PATIENT)
    waiting = scan(whole[:5000], *PATHS, syntax=DEFLATED, final=False)
    assert (waiting.complete, waiting.needed) == (False, 5001)
    cut = scan(whole[:5000], *PATHS, syntax=DEFLATED)
    assert (cut.complete, cut.problem) == (
        True,
        "the deflated data set ends in the middle of its header",
    )
    assert scan(deflate(PLAIN)[:3], *PATHS, syntax=EXPLICIT, final=False).complete is False
    assert scan(deflate(PLAIN)[:9], *PATHS, syntax=EXPLICIT, final=False).complete is False


def test_damage_behind_the_first_elements_keeps_them() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    noise = random.Random(1).randbytes(20_000)
    head = CHARSET + UID + explicit(0x00091001, "OB", noise)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    result = scan(start + b"\xff" * 40_000, *PATHS, syntax=DEFLATED)
    assert result.values == {"SOPInstanceUID": b"1.2.3\0"}
    assert result.problem == "the deflated data set cannot be inflated to the end of its header"


# Buffers and paths -------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "syntax"), [(PLAIN, EXPLICIT), (PLAIN_IMPLICIT, IMPLICIT),
                                              (PLAIN_BIG, BIG), (deflate(PLAIN), DEFLATED)])  # fmt: skip
def test_every_kind_of_buffer(tmp_path: Path, data: bytes, syntax: str) -> None:
    file = tmp_path / "data"
    file.write_bytes(data)
    scanner = HeaderScanner(PATHS)
    padded = data + bytes(-len(data) % 2)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        for buffer in (
            bytearray(data),
            memoryview(data),
            whole,
            memoryview(array.array("H", padded)),
        ):
            result = scanner.scan(buffer, syntax, final=True)
            assert result.values == FOUND
            assert all(type(value) is bytes for value in result.values.values())


def test_one_element_named_twice() -> None:
    both = scan(PLAIN, "PatientName", "00100010", "(0010,0010)", "PatientName")
    assert both.values == dict.fromkeys(("PatientName", "00100010", "(0010,0010)"), b"Doe^Jane")
    scanner = HeaderScanner([TagPath.parse("PatientName"), "PatientName"])
    assert scanner.paths == ("PatientName",)
    assert str(TagPath.parse("PatientName")) == "PatientName"


def test_nothing_wanted() -> None:
    assert scan(PLAIN).values == {}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("NoSuchKeyword", "not a keyword"),
        ("", "cannot be read at character 1"),
        ("PatientName.", "cannot be read at character 13"),
        ("PatientName,PatientID", "where a dot was expected"),
        ('(0018,"ACME",10)', "only odd groups"),
        ("00020010", "does not occur"),
        ("FFFEE000", "does not occur"),
        ("0010001", "cannot be read"),
    ],
)
def test_paths_that_are_none(path: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        HeaderScanner([path])


# Against pydicom ---------------------------------------------------------------------------------

# What the two read differently, and why ours is right or as good.
DIFFERENT = {
    "MR_truncated.dcm",  # pydicom gives the part of a cut value that is there
    "rtplan_truncated.dcm",
    "README",  # not DICOM
    "no_meta.dcm",  # begins with a stray byte
    "DICOMDIR-nooffset",  # an item is longer than its sequence
}
GENEROUS = ScanLimits(max_value_length=1 << 30, max_inflated=1 << 28, max_inflate_ratio=2000)


def is_plain(element: object) -> bool:
    """A value that pydicom has not interpreted."""
    return (
        isinstance(element, RawDataElement) and element.VR != "SQ" and element.length != UNDEFINED
    )


def sequences(ds: Dataset) -> Iterator[tuple[int, list[Dataset]]]:
    for tag in list(ds.keys()):
        raw = ds.get_item(tag)
        if not isinstance(raw, RawDataElement) or raw.VR in ("SQ", None):
            element = ds[tag]
            if element.VR == "SQ":
                yield tag, list(element.value)


def nested_values(items: list[Dataset], prefix: str, found: dict[str, list[bytes | None]]) -> None:
    tags = {tag for each in items for tag in list(each.keys()) if is_plain(each.get_item(tag))}
    for tag in tags:
        found[f"{prefix}.{int(tag):08X}"] = [
            (each.get_item(tag).value or b"") if tag in each else None for each in items
        ]
    deeper: dict[int, list[Dataset]] = {}
    for each in items:
        for tag, inner in sequences(each):
            deeper.setdefault(tag, []).extend(inner)
    for tag, inner in deeper.items():
        nested_values(inner, f"{prefix}.{tag:08X}", found)


@pytest.mark.parametrize("path", samples.few(), ids=lambda path: path.name)
def test_every_value_of_a_file_is_what_pydicom_reads(path: Path) -> None:
    check_every_value(path)


def check_every_value(path: Path) -> None:
    sample = samples.sample(path)
    try:
        ds = pydicom.dcmread(path, force=True)
    except Exception:
        pytest.fail(f"{path.name} cannot be read by pydicom")
    little, implicit_vr = ds.original_encoding[1], ds.original_encoding[0]
    syntax = sample.transfer_syntax or (IMPLICIT if implicit_vr else EXPLICIT if little else BIG)
    expected = {
        f"{int(tag):08X}": ds.get_item(tag).value or b""
        for tag in list(ds.keys())
        if is_plain(ds.get_item(tag))
    }
    result = HeaderScanner(expected, GENEROUS).scan(sample.data, syntax, final=True)
    inside: dict[str, list[bytes | None]] = {}
    for tag, items in sequences(ds):
        nested_values(items, f"{tag:08X}", inside)
    below = HeaderScanner(inside, GENEROUS).scan(sample.data, syntax, final=True)
    if path.name in DIFFERENT:
        assert {**result.values, **expected} == expected or result.problem
        assert result.problem or below.problem
        return
    assert result.values == expected
    assert below.nested == inside
    assert (result.problem, below.problem) == (None, None)
    assert result.mislabelled == (path.name == "SC_rgb_jpeg.dcm")
