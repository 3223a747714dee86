"""Conversion: pydicom's files in every uncompressed encoding, judged by pydicom's reading."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
import warnings
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from tests import samples

from hilum.errors import InvalidDicom
from hilum.services.convert import CONVERTIBLE, ConvertLimits, convert, convert_bytes
from hilum.services.convert_stream import PIECE, inflated
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN as DEFLATED,
)
from hilum.services.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN as BIG,
)
from hilum.services.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT,
)
from hilum.services.transfer_syntaxes import (
    IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT,
)

NATIVE = (IMPLICIT, EXPLICIT, BIG, DEFLATED)
_WORDS = {"OW": "H", "OF": "I", "OL": "I", "OD": "Q", "OV": "Q"}

# Cut or contradicting files, which are refused.
BROKEN = {"DICOMDIR-nooffset", "MR_truncated.dcm", "rtplan_truncated.dcm"}


def files() -> list[Path]:
    """Every file in an uncompressed transfer syntax; reads them all."""
    return [path for path in samples.paths() if is_convertible(path)]


def is_convertible(path: Path) -> bool:
    return path.name not in BROKEN and samples.sample(path).transfer_syntax in CONVERTIBLE


def read(data: bytes, syntax: str) -> Dataset:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    file = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(file.getvalue() + data), force=True)


def elements(ds: Dataset, *, little: bool) -> Iterator[tuple[object, str, object]]:
    """Tag, VR and value of everything in a data set, group lengths left out."""
    for element in ds:
        if element.tag.element == 0:
            continue
        value = element.value
        if element.VR == "SQ":
            value = [list(elements(item, little=little)) for item in value]
        elif element.VR in _WORDS and value and not little:
            words = array(_WORDS[element.VR], value)
            words.byteswap()
            value = words.tobytes()
        yield element.tag, element.VR, value


def agree(a: object, b: object) -> bool:
    """Whether two values, as `elements` gives them, say the same."""
    if not (isinstance(a, list) and isinstance(b, list)) or not a or not isinstance(a[0], list):
        return a == b or (a != a and b != b) or str(a) == str(b)
    return len(a) == len(b) and all(map(same, a, b))


def same(a: list[tuple[object, str, object]], b: list[tuple[object, str, object]]) -> bool:
    if [tag for tag, *_ in a] != [tag for tag, *_ in b]:
        return False
    for (tag, one, x), (_, other, y) in zip(a, b, strict=True):
        private = pydicom.tag.Tag(tag).is_private
        if one == other or {one, other} == {"OB", "OW"}:
            if not agree(x, y):
                return False
        elif {one, other} in ({"US", "OW"}, {"US", "SS"}):  # implicit VR does not tell
            if words_of(x) != words_of(y):
                return False
        elif not (private or "UN" in (one, other)):
            return False
    return True


def words_of(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    numbers = [
        int(number) & 0xFFFF for number in (value if hasattr(value, "__iter__") else [value])
    ]  # type: ignore[call-overload]
    return struct.pack(f"<{len(numbers)}H", *numbers)


@pytest.fixture(autouse=True)
def unguessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydicom would read known UN values in big endian, where PS3.5 6.2.2 says little endian."""
    monkeypatch.setattr(pydicom.config, "replace_un_with_known_vr", False)


@pytest.mark.parametrize(
    "path", list(filter(is_convertible, samples.few())), ids=lambda path: path.name
)
def test_a_file_in_every_encoding_as_pydicom_reads_it(path: Path) -> None:
    check_every_encoding(path)


def check_every_encoding(path: Path) -> None:
    sample = samples.sample(path)
    source = sample.transfer_syntax
    assert source is not None
    before = list(elements(read(sample.data, source), little=source != BIG))
    for target in NATIVE:
        data = convert_bytes(sample.data, source, target)
        assert same(before, list(elements(read(data, target), little=target != BIG))), target


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "SC_rgb_small_odd.dcm", "liver.dcm", "image_dfl.dcm"]
)
def test_pixels_stay_what_they_were(name: str) -> None:
    sample = samples.named(name)
    source = sample.transfer_syntax
    assert source is not None
    pixels = pydicom.dcmread(sample.path).pixel_array
    for target in NATIVE:
        assert (
            read(convert_bytes(sample.data, source, target), target).pixel_array == pixels
        ).all()


# Made by hand --------------------------------------------------------------------------------------


def le(group: int, number: int, vr: str, value: bytes) -> bytes:
    """An explicit VR little endian element with a 16-bit length."""
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def long(group: int, number: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """The same with a 32-bit length."""
    declared = len(value) if length is None else length
    return struct.pack("<HH2s2xI", group, number, vr.encode(), declared) + value


def implicit(group: int, number: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", group, number, len(value) if length is None else length) + value


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


UNDEFINED = 0xFFFFFFFF
END_OF_ITEM = implicit(0xFFFE, 0xE00D, b"")
END_OF_SEQUENCE = implicit(0xFFFE, 0xE0DD, b"")


def item(value: bytes, length: int | None = None) -> bytes:
    return implicit(0xFFFE, 0xE000, value, length)


def open_item(value: bytes) -> bytes:
    return item(value, UNDEFINED) + END_OF_ITEM


CLASS = le(8, 0x16, "UI", b"1.2\0")


def test_private_elements_keep_their_vr_or_become_un() -> None:
    known = le(9, 0x10, "LO", b"MAKER ") + le(9, 0x1001, "FD", struct.pack("<d", 1.5))
    plain = convert_bytes(known, EXPLICIT, IMPLICIT)
    assert plain == implicit(9, 0x10, b"MAKER ") + implicit(9, 0x1001, struct.pack("<d", 1.5))
    assert convert_bytes(plain, IMPLICIT, EXPLICIT) == le(9, 0x10, "LO", b"MAKER ") + long(
        9, 0x1001, "UN", struct.pack("<d", 1.5)
    )
    # In big endian too: the value of UN is little endian (PS3.5 6.2.2).
    assert struct.pack("<d", 1.5) in convert_bytes(plain, IMPLICIT, BIG)
    assert struct.pack(">d", 1.5) in convert_bytes(known, EXPLICIT, BIG)
    assert convert_bytes(convert_bytes(known, EXPLICIT, BIG), BIG, EXPLICIT) == known


def test_private_sequences() -> None:
    inner = implicit(9, 0x1002, b"ab")
    defined = implicit(9, 0x10, b"MAKER ") + implicit(9, 0x1001, item(inner))
    assert convert_bytes(defined, IMPLICIT, EXPLICIT)[14:] == long(9, 0x1001, "UN", item(inner))
    # Of undefined length it can be nothing else than a sequence.
    undefined = implicit(9, 0x1001, open_item(inner) + END_OF_SEQUENCE, UNDEFINED)
    assert convert_bytes(undefined, IMPLICIT, EXPLICIT) == long(
        9, 0x1001, "SQ", open_item(long(9, 0x1002, "UN", b"ab")) + END_OF_SEQUENCE, UNDEFINED
    )


def test_unknown_elements_become_un() -> None:
    unknown = implicit(8, 0x16, b"1.2\0") + implicit(8, 0x1F, b"ab")
    assert convert_bytes(unknown, IMPLICIT, EXPLICIT) == CLASS + long(8, 0x1F, "UN", b"ab")
    sequence = implicit(8, 0x1F, END_OF_SEQUENCE, UNDEFINED)
    assert convert_bytes(sequence, IMPLICIT, EXPLICIT) == long(
        8, 0x1F, "SQ", END_OF_SEQUENCE, UNDEFINED
    )


@pytest.mark.parametrize("target", NATIVE)
def test_un_of_undefined_length_stays_implicit(target: str) -> None:
    inside = open_item(implicit(0x10, 0x20, b"ab") + implicit(0x28, 0x10, b"\1\0"))
    value = inside + END_OF_SEQUENCE
    data = CLASS + long(9, 0x1001, "UN", value, UNDEFINED)
    converted = convert_bytes(data, EXPLICIT, target)
    if target == DEFLATED:
        converted = zlib.decompress(converted, wbits=-15)
    assert value in converted
    # Written explicitly in it, against the standard, but read by everyone.
    wrong = open_item(le(0x10, 0x20, "LO", b"ab") + le(0x28, 0x10, "US", b"\1\0"))
    if target in (IMPLICIT, BIG):
        wrongly = CLASS + long(9, 0x1001, "UN", wrong + END_OF_SEQUENCE, UNDEFINED)
        assert value in convert_bytes(wrongly, EXPLICIT, target)


@pytest.mark.parametrize(
    ("context", "group", "number", "value", "vr"),
    [
        (b"", 0x28, 0x106, b"\1\0", "US"),
        (implicit(0x28, 0x103, b"\0\0"), 0x28, 0x106, b"\1\0", "US"),
        (implicit(0x28, 0x103, b"\1\0"), 0x28, 0x106, b"\1\0", "SS"),
        (implicit(0x28, 0x103, b"\1\0\0\0"), 0x28, 0x106, b"\1\0", "US"),  # no US value
        (b"", 0x28, 0x3006, b"\1\0", "US"),  # US or OW
        (b"", 0x28, 0x3006, b"\1\0\2\0", "OW"),
        (implicit(0x28, 0x100, b"\x08\0"), 0x7FE0, 0x10, b"ab", "OB"),
        (implicit(0x28, 0x100, b"\x10\0"), 0x7FE0, 0x10, b"ab", "OW"),
        (b"", 0x7FE0, 0x10, b"ab", "OW"),
        (implicit(0x5400, 0x1004, b"\x08\0"), 0x5400, 0x1010, b"ab", "OB"),
        (implicit(0x5400, 0x1004, b"\x10\0"), 0x5400, 0x1010, b"ab", "OW"),
        (b"", 0x6002, 0x3000, b"ab", "OW"),
        (b"", 0x10, 0x10, b"ab", "PN"),
    ],
)
def test_the_vr_of_an_element_written_without_one(
    context: bytes, group: int, number: int, value: bytes, vr: str
) -> None:
    data = implicit(8, 0x16, b"1.2\0") + context + implicit(group, number, value)
    new = long if vr in ("OB", "OW") else le
    assert convert_bytes(data, IMPLICIT, EXPLICIT).endswith(new(group, number, vr, value))


def test_pixel_representation_holds_in_items_too() -> None:
    sequence = item(implicit(0x28, 0x106, b"\1\0"))
    data = implicit(0x28, 0x103, b"\1\0") + implicit(0x40, 0x9096, sequence)
    assert le(0x28, 0x106, "SS", b"\1\0") in convert_bytes(data, IMPLICIT, EXPLICIT)


def test_a_value_too_long_for_its_vr_becomes_un() -> None:
    value = b"1.2\\" * 20_000
    data = implicit(8, 0x16, b"1.2\0") + implicit(8, 0x58, value)
    for target in (EXPLICIT, BIG):
        element = read(convert_bytes(data, IMPLICIT, target), target)[0x00080058]
        assert (element.VR, element.value) == ("UN", value)


def test_group_lengths_are_left_out() -> None:
    lengths = le(8, 0, "UL", b"\x0c\0\0\0") + CLASS + le(0x10, 0, "UL", bytes(4))
    assert convert_bytes(lengths, EXPLICIT, IMPLICIT) == implicit(8, 0x16, b"1.2\0")
    odd = implicit(8, 0x16, b"1.2\0") + implicit(0x10, 0, b"ab")  # no length at all: kept
    assert convert_bytes(odd, IMPLICIT, EXPLICIT) == CLASS + le(0x10, 0, "UL", b"ab")


def test_empty() -> None:
    for source in NATIVE:
        for target in (IMPLICIT, EXPLICIT, BIG):
            assert convert_bytes(b"", source, target) == b""
        assert zlib.decompress(convert_bytes(b"", source, DEFLATED), wbits=-15) == b""
    sequence = CLASS + long(8, 0x1140, "SQ", b"") + long(8, 0x1199, "SQ", item(b""))
    assert convert_bytes(sequence, EXPLICIT, IMPLICIT) == (
        implicit(8, 0x16, b"1.2\0")
        + implicit(8, 0x1140, b"")
        + implicit(8, 0x1199, open_item(b"") + END_OF_SEQUENCE, UNDEFINED)
    )


def test_forgotten_and_superfluous_delimitations() -> None:
    inner = le(8, 0x1150, "UI", b"1.2\0")
    right = convert_bytes(
        long(8, 0x1199, "SQ", open_item(inner) * 2 + END_OF_SEQUENCE, UNDEFINED), EXPLICIT, IMPLICIT
    )
    forgotten = item(inner, UNDEFINED) * 2 + END_OF_SEQUENCE
    superfluous = (
        item(inner + END_OF_ITEM) + item(inner) + END_OF_ITEM + END_OF_SEQUENCE + END_OF_SEQUENCE
    )
    for value in (forgotten, superfluous):
        data = long(8, 0x1199, "SQ", value, UNDEFINED)
        assert convert_bytes(data, EXPLICIT, IMPLICIT) == right
    length = long(8, 0x1199, "SQ", item(inner) * 2 + END_OF_SEQUENCE)
    assert convert_bytes(length, EXPLICIT, IMPLICIT) == right


def test_an_implicit_element_among_explicit_ones() -> None:
    data = CLASS + implicit(0x28, 0x10, b"\1\0") + le(0x28, 0x11, "US", b"\2\0")
    assert convert_bytes(data, EXPLICIT, BIG).endswith(
        struct.pack(">HH2sHHHH2sHH", 0x28, 0x10, b"US", 2, 1, 0x28, 0x11, b"US", 2, 2)
    )
    # However the data set is cut.
    far = CLASS * 600 + data
    assert b"".join(convert(bytewise(far), EXPLICIT, BIG)) == convert_bytes(far, EXPLICIT, BIG)


def test_a_vr_younger_than_this_program_is_un() -> None:
    data = CLASS + long(9, 0x1001, "ZZ", b"ab") + le(0x28, 0x11, "US", b"\2\0")
    assert long(9, 0x1001, "UN", b"ab") in convert_bytes(
        convert_bytes(data, EXPLICIT, BIG), BIG, EXPLICIT
    )


@pytest.mark.parametrize("actual", [IMPLICIT, EXPLICIT, DEFLATED])
@pytest.mark.parametrize("said", NATIVE)
def test_a_data_set_is_read_as_what_it_is(said: str, actual: str) -> None:
    data = convert_bytes(samples.named("CT_small.dcm").data, EXPLICIT, actual)
    wanted = convert_bytes(data, actual, IMPLICIT)
    assert convert_bytes(data, said, IMPLICIT) == wanted


def test_deflated_with_zlib_header_and_padding() -> None:
    data = CLASS * 100
    assert convert_bytes(zlib.compress(data) + b"\0\0", DEFLATED, EXPLICIT) == data
    deflated = bytewise(convert_bytes(data, EXPLICIT, DEFLATED) + b"\0\0")
    assert b"".join(convert(deflated, DEFLATED, EXPLICIT)) == data
    assert b"".join(inflated(deflated, 10_000)) == data


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "source", "reason"),
    [
        (CLASS + b"\x08\0", EXPLICIT, "middle of an element"),
        (CLASS + le(8, 0x18, "UI", b"1.2\0")[:-1], EXPLICIT, "middle of an element"),
        (CLASS + long(8, 0x1199, "SQ", b"", 8), EXPLICIT, "within a sequence"),
        (CLASS + long(8, 0x1199, "SQ", item(b"", 50), 8), EXPLICIT, "longer than the item"),
        (CLASS + long(8, 0x1199, "SQ", item(CLASS[:-2])), EXPLICIT, "longer than the item"),
        (CLASS + long(8, 0x1199, "SQ", CLASS), EXPLICIT, "where an item was expected"),
        (CLASS + long(8, 0x1199, "SQ", item(b""), UNDEFINED), EXPLICIT, "within a sequence"),
        (CLASS + item(b""), EXPLICIT, "where a data element was expected"),
        (CLASS + long(8, 0x1199, "SQ", item(item(b""))), EXPLICIT, "where a data element"),
        (CLASS + long(0x7FE0, 0x10, "OB", item(b""), UNDEFINED), EXPLICIT, "encapsulated"),
        (implicit(8, 0x16, b"1.2\0") + implicit(0x7FE0, 0x10, b"", UNDEFINED), IMPLICIT, "encaps"),
        (CLASS + le(9, 0x1001, "!!", b"ab") + b"\0" * 9, EXPLICIT, "no VR"),
        (b"\xff" * 40, EXPLICIT, "no deflated stream"),
        (zlib.compress(b"\xff" * 40), EXPLICIT, "no data element"),
        (zlib.compress(CLASS * 100)[:-9], DEFLATED, "cut"),
        (b"ab", EXPLICIT, "cut"),
    ],
)
def test_refused(data: bytes, source: str, reason: str) -> None:
    with pytest.raises(InvalidDicom, match=reason):
        convert_bytes(data, source, IMPLICIT if source != IMPLICIT else EXPLICIT)


def test_unknown_syntaxes_are_refused_at_once() -> None:
    for pair in ((EXPLICIT, "1.2.840.10008.1.2.4.70"), ("1.2.3", EXPLICIT)):
        with pytest.raises(KeyError):
            convert((), *pair)


def test_depth() -> None:
    shallow = deep = b""
    for _ in range(65):
        shallow, deep = deep, long(8, 0x1199, "SQ", open_item(deep) + END_OF_SEQUENCE, UNDEFINED)
    assert convert_bytes(CLASS + shallow, EXPLICIT, IMPLICIT)
    with pytest.raises(InvalidDicom, match="deeper than 64"):
        convert_bytes(CLASS + deep, EXPLICIT, IMPLICIT)


def test_limits() -> None:
    with pytest.raises(InvalidDicom, match="more than 2 elements"):
        convert_bytes(CLASS * 3, EXPLICIT, IMPLICIT, limits=ConvertLimits(max_elements=2))
    with pytest.raises(InvalidDicom, match="more bytes than are taken"):
        convert_bytes(
            convert_bytes(CLASS * 100, EXPLICIT, DEFLATED),
            DEFLATED,
            EXPLICIT,
            limits=ConvertLimits(max_length=1000),
        )


# Streams ------------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(NATIVE), st.sampled_from(NATIVE))
def test_any_split_gives_the_same(data: st.DataObject, source: str, target: str) -> None:
    whole = convert_bytes(SPLIT, EXPLICIT, source)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=20).map(sorted))
    edges = [0, *cuts, len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(edges)]
    assert b"".join(convert(pieces, source, target)) == convert_bytes(whole, source, target)


SPLIT = (
    CLASS
    + long(8, 0x1199, "SQ", open_item(le(8, 0x1150, "UI", b"1.2\0") + CLASS) + item(CLASS))
    + le(0x28, 0x10, "US", b"\1\0")
    + long(0x7FE0, 0x10, "OW", b"abcd")
)


@pytest.mark.parametrize("target", [IMPLICIT, BIG, DEFLATED, EXPLICIT])
def test_large_pixel_data_takes_no_memory(target: str) -> None:
    size = 40 * PIECE + 6
    block = bytes(range(256)) * (PIECE // 256)

    def pieces() -> Iterator[bytes]:
        yield CLASS + long(0x7FE0, 0x10, "OW", b"", size)
        for start in range(0, size, PIECE):
            yield block[: size - start]

    tracemalloc.start()
    total, lengths = 0, set()
    for piece in convert(pieces(), EXPLICIT, target):
        total += len(piece)
        lengths.add(len(piece))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * PIECE
    assert max(lengths) <= PIECE
    assert len(lengths) <= 2  # whole pieces, and the last one
    if target != DEFLATED:
        assert total > size


# Leaving out -------------------------------------------------------------------------------------


def explicit(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element whose VR has 32 bits of length."""
    size = len(value) if length is None else length
    return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, size) + value


def marked(element: int, value: bytes = b"", length: int | None = None) -> bytes:
    """An item, or a delimitation item."""
    return struct.pack("<HHI", 0xFFFE, element, len(value) if length is None else length) + value


OPEN = 0xFFFFFFFF
UID_ELEMENT = struct.pack("<HH2sH", 8, 0x18, b"UI", 6) + b"1.2.3\0"
FRAGMENTS = explicit(
    0x7FE00010,
    b"OB",
    marked(0xE000) + marked(0xE000, b"frame ") + marked(0xE000, bytes(PIECE + 2)) + marked(0xE0DD),
    OPEN,
)
PADDING = explicit(0xFFFCFFFC, b"OB", b"\0\0")


def without(data: bytes, *tags: int, **options: bool) -> bytes:
    found = convert(
        [data], EXPLICIT, EXPLICIT, leave_out=lambda tag, within: (*within, tag) == tags, **options
    )
    return b"".join(found)


def test_what_is_left_out_leaves_its_neighbours() -> None:
    for value in (
        explicit(0x7FE00010, b"OW", b""),
        explicit(0x7FE00010, b"OW", bytes(PIECE + 2)),
        FRAGMENTS,
    ):
        assert without(UID_ELEMENT + value + PADDING, 0x7FE00010) == UID_ELEMENT + PADDING


def test_what_is_left_out_is_named_with_its_sequences() -> None:
    inner = explicit(0x54001010, b"OW", b"wave")
    data = explicit(0x54000100, b"SQ", marked(0xE000, UID_ELEMENT + inner)) + inner
    both = without(data, 0x54000100, 0x54001010)
    assert both.count(b"wave") == 1 and both.endswith(inner) and UID_ELEMENT in both
    assert without(data, 0x54001010).count(b"wave") == 1
    assert without(data, 0x00880200, 0x54001010).count(b"wave") == 2


def test_encapsulated_values_go_through_where_that_is_asked_for() -> None:
    data = UID_ELEMENT + FRAGMENTS + PADDING
    assert without(data, 0x7FE10010, keep_encapsulated=True) == data
    with pytest.raises(InvalidDicom, match="encapsulated"):
        without(data, 0x7FE10010)


@pytest.mark.parametrize(
    "value",
    [
        explicit(0x7FE00010, b"OB", marked(0xE000) + UID_ELEMENT, OPEN),
        explicit(0x7FE00010, b"OB", marked(0xE000, length=OPEN), OPEN),
        explicit(0x7FE00010, b"SQ", marked(0xE0DD), OPEN),
        explicit(0x7FE00010, b"OB", marked(0xE000, b"ab")[:-1], OPEN),
    ],
    ids=["no fragment", "a fragment without length", "a sequence", "a cut fragment"],
)
def test_what_is_left_out_has_to_be_a_value(value: bytes) -> None:
    with pytest.raises(InvalidDicom):
        without(UID_ELEMENT + value, 0x7FE00010)
