"""Same content or not: pydicom's files in every encoding, one difference at a time, damaged bytes."""

from __future__ import annotations

import gzip
import io
import mmap
import sys
import tracemalloc
import warnings
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import data_store
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import _read_file_meta_info
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from tests import samples

from hilum.services import content
from hilum.services.content import same_content

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG)
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
MPEG2 = "1.2.840.10008.1.2.4.100"
RLE = "1.2.840.10008.1.2.5"
PRIVATE = "1.2.3.4.5"

_WORDS = {"OW": "H", "OF": "I", "OL": "I", "OD": "Q", "OV": "Q"}

# Cut or contradicting files, of which pydicom reads what it can: they cannot be told to be the
# same as anything but themselves.
BROKEN = {
    "DICOMDIR-nooffset",  # an item is longer than its sequence
    "MR_truncated.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm",
    "rtplan_truncated.dcm",
}
NOT_WRITABLE = {"SC_rgb_jpeg.dcm"}  # by pydicom


def read(path: Path) -> tuple[bytes, str] | None:
    """A file's data set and transfer syntax."""
    raw = path.read_bytes()
    if raw[128:132] != b"DICM":
        return None
    file = io.BytesIO(raw)
    file.seek(132)
    syntax = _read_file_meta_info(file).get("TransferSyntaxUID")
    return None if syntax is None else (raw[file.tell() :], str(syntax))


def files() -> list[Path]:
    folders = (
        Path(pydicom.__file__).parent / "data" / "test_files",
        Path(data_store.__file__).parent / "data",
    )
    found = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if read(path) is not None and path.name not in NOT_WRITABLE]


def whole() -> list[Path]:
    """Every file that can be read to its end; reads them all."""
    return [path for path in files() if path.name not in BROKEN]


FEW = [path for path in samples.few() if path.parent.name == "test_files"]
CT = samples.named("CT_small.dcm").path


def swap_words(ds: Dataset) -> None:
    """pydicom writes O* values as they are, whatever the order of bytes."""
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                swap_words(item)
        elif element.VR in _WORDS and element.value and not element.is_undefined_length:
            words = array(_WORDS[element.VR], element.value)
            words.byteswap()
            element._value = words.tobytes()


def encoded(ds: Dataset, syntax: str) -> bytes:
    if syntax == BIG:
        ds = pydicom.dcmread(io.BytesIO(as_file(ds)), force=True)
        swap_words(ds)
    file = DicomBytesIO()
    file.is_implicit_VR = syntax == IMPLICIT
    file.is_little_endian = syntax != BIG
    write_dataset(file, ds)
    data: bytes = file.getvalue()
    return deflated(data) if syntax == DEFLATED else data


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    out = deflater.compress(data) + deflater.flush()
    return out + b"\0" * (len(out) & 1)


def as_file(ds: Dataset) -> bytes:
    return (
        b"\0" * 128
        + b"DICM\x02\0\x10\0UI\x14\0"
        + EXPLICIT.encode()
        + b"\0"
        + encoded(ds, EXPLICIT)
    )


def reencoded(path: Path, syntax: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path)
        if not ds.original_encoding[1]:
            swap_words(ds)
        return encoded(ds, syntax)


def same(a: Dataset, b: Dataset) -> bool:
    """In all 16 pairs of native encodings, which have to agree."""
    of_a, of_b = ({syntax: encoded(ds, syntax) for syntax in NATIVE} for ds in (a, b))
    answers = {
        same_content(of_a[one], one, of_b[other], other) for one in NATIVE for other in NATIVE
    }
    assert len(answers) == 1
    return answers.pop()


def small() -> Dataset:
    """One element of each kind."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPInstanceUID = "1.2.3"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.StudyDate = "20261121"
    ds.PatientName = "Müller^Jörg"
    ds.PatientComments = "text"
    item = Dataset()
    item.CodeValue = "X"
    inner = Dataset()
    inner.CodeMeaning = "deep"
    item.EquivalentCodeSequence = Sequence([inner])
    ds.AnatomicRegionSequence = Sequence([item, Dataset()])
    ds.SelectorATValue = [0x00100010, 0x00100020]
    ds.SliceThickness = "1.5"
    ds.Rows, ds.Columns, ds.BitsAllocated = 2, 3, 16
    ds.PixelRepresentation = 1
    ds.add_new(0x00280120, "SS", -5)
    ds.RetrieveURL = "http://a"
    ds.ReferencePixelX0 = 7
    ds.DopplerCorrectionAngle = 1.25
    ds.add_new(0x00660016, "OF", b"\0\0\x80\x3f")
    block = ds.private_block(0x0009, "MAKER", create=True)
    block.add_new(1, "LO", "value")
    ds.add_new(0x7FE00010, "OW", bytes(range(12)))
    return ds


# Same ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FEW, ids=lambda path: path.name)
def test_a_file_in_every_encoding(path: Path) -> None:
    check_every_encoding(path)


def check_every_encoding(path: Path) -> None:
    found = read(path)
    assert found is not None
    data, syntax = found
    if syntax not in NATIVE:
        assert same_content(data, syntax, reencoded(path, EXPLICIT), syntax)
        return
    forms = {other: reencoded(path, other) for other in NATIVE} | {"": data}
    for one, a in forms.items():
        for other, b in forms.items():
            assert same_content(a, one or syntax, b, other or syntax), (one, other)


@pytest.mark.parametrize(
    "path", [p for p in samples.paths() if p.name in BROKEN], ids=lambda p: p.name
)
def test_broken_files_are_the_same_as_themselves_only(path: Path) -> None:
    found = read(path)
    assert found is not None
    data, syntax = found
    assert same_content(data, syntax, bytearray(data), syntax)
    assert not same_content(data, syntax, reencoded(path, IMPLICIT), IMPLICIT)


def test_one_element_of_each_kind() -> None:
    assert same(small(), small())


def test_defined_and_undefined_lengths() -> None:
    ds, other = small(), small()
    for sequence in (other["AnatomicRegionSequence"], other.AnatomicRegionSequence[0][0x00080121]):
        sequence.is_undefined_length = True
        for item in sequence.value:
            item.is_undefined_length_sequence_item = True
    assert encoded(ds, EXPLICIT) != encoded(other, EXPLICIT)
    assert same(ds, other)


def test_group_lengths_and_trailing_padding() -> None:
    ds, other = small(), small()
    other.add_new(0x00080000, "UL", 99)
    other.AnatomicRegionSequence[0].add_new(0x00080000, "UL", 1)
    other.add_new(0xFFFCFFFC, "OB", bytes(50))
    assert same(ds, other)


@pytest.mark.parametrize(
    ("vr", "tag", "a", "b"),
    [
        ("LO", 0x00100020, b"ID", b"ID  "),
        ("LO", 0x00100020, b"ID", b"ID\0\0"),
        ("LO", 0x00101000, b"A \\B ", b"A\\B"),
        ("CS", 0x00080008, b" A\\ B", b"A\\B "),
        ("DS", 0x00180050, b" 1.5", b"1.5 "),
        ("UI", 0x00080018, b"1.2.3\0", b"1.2.3 "),
        ("UI", 0x00080018, b"1.2.3", b"1.2.3\0"),
        ("PN", 0x00100010, b"A^B ", b"A^B"),
        ("UT", 0x00189074, b"text", b"text    "),
        ("OB", 0x00420011, b"\1\2\3", b"\1\2\3\0"),
        ("OW", 0x7FE00010, b"\1\2\3", b"\1\2\3\0"),
        ("UN", 0x00091001, b"\1\2\3", b"\1\2\3\0"),
        ("UN", 0x00091001, b"abc", b"abc "),
    ],
)
def test_padding(vr: str, tag: int, a: bytes, b: bytes) -> None:
    assert same_content(element(tag, vr, a), EXPLICIT, element(tag, vr, b), EXPLICIT)
    assert same_content(element(tag, vr, b), EXPLICIT, implicit(tag, a), IMPLICIT)


@pytest.mark.parametrize(
    ("vr", "tag", "a", "b"),
    [
        ("LO", 0x00100020, b" ID ", b"ID  "),  # leading spaces of other texts may be content
        ("LO", 0x00101000, b"A\\\\B", b"A\\B "),
        ("UT", 0x00189074, b" text ", b"text  "),
        ("DS", 0x00180050, b"1.50", b"1.5 "),
        ("OB", 0x00420011, b"\1\2", b"\1\2\0\0"),
        ("OB", 0x00420011, b"\1\2\3", b"\1\2\3\4"),
        ("OB", 0x00420011, b"\1\2\3", b"\1\2\3 "),
        ("UN", 0x00091001, b"ab  ", b"ab"),
        ("US", 0x00280010, b"\1\0\0", b"\1\0\0\0"),
    ],
)
def test_what_is_no_padding(vr: str, tag: int, a: bytes, b: bytes) -> None:
    assert not same_content(element(tag, vr, a), EXPLICIT, element(tag, vr, b), EXPLICIT)
    assert not same_content(element(tag, vr, b), EXPLICIT, implicit(tag, a), IMPLICIT)


def element(tag: int, vr: str, value: bytes, order: str = "little") -> bytes:
    """One explicit element."""
    out = b"".join((part).to_bytes(2, order) for part in (tag >> 16, tag & 0xFFFF))  # type: ignore[arg-type]
    out += vr.encode()
    if vr in ("OB", "OW", "UN", "UT", "SQ", "UC", "UR", "OF"):
        return out + b"\0\0" + len(value).to_bytes(4, order) + value  # type: ignore[arg-type]
    return out + len(value).to_bytes(2, order) + value  # type: ignore[arg-type]


def implicit(tag: int, value: bytes) -> bytes:
    out = b"".join(part.to_bytes(2, "little") for part in (tag >> 16, tag & 0xFFFF))
    return out + len(value).to_bytes(4, "little") + value


def item(value: bytes) -> bytes:
    return implicit(0xFFFEE000, value)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00091001, "LO", b"private "),
        (0x00091001, "US", b"\1\2"),
        (0x00280010, "US", b"\1\2"),
        (0x00283006, "OW", b"\1\2\3\4"),  # US or OW
        (0x00100020, "LO", b"ID"),
    ],
)
def test_un_and_implicit_against_the_vr(tag: int, vr: str, value: bytes) -> None:
    said, unsaid = element(tag, vr, value), element(tag, "UN", value)
    assert same_content(said, EXPLICIT, unsaid, EXPLICIT)
    assert same_content(implicit(tag, value), IMPLICIT, said, EXPLICIT)
    assert same_content(implicit(tag, value), IMPLICIT, unsaid, EXPLICIT)


def test_words_and_bytes_of_pixel_data() -> None:
    pixels = bytes(range(8))
    swapped = bytes((1, 0, 3, 2, 5, 4, 7, 6))
    ob, ow = element(0x7FE00010, "OB", pixels), element(0x7FE00010, "OW", pixels)
    big_ob = element(0x7FE00010, "OB", pixels, "big")
    big_ow = element(0x7FE00010, "OW", swapped, "big")
    for one, syntax in ((ob, EXPLICIT), (ow, EXPLICIT), (big_ob, BIG), (big_ow, BIG)):
        assert same_content(one, syntax, implicit(0x7FE00010, pixels), IMPLICIT)
        assert same_content(one, syntax, ow, EXPLICIT)
        assert not same_content(one, syntax, implicit(0x7FE00010, swapped), IMPLICIT)


def test_words_and_bytes_of_other_values_are_the_same_bytes() -> None:
    """Of what the dictionary knows as words (palettes), and what it does not know."""
    for tag in (0x00281201, 0x00289999, 0x00091001):
        ob, ow = element(tag, "OB", b"\1\2\3\4"), element(tag, "OW", b"\1\2\3\4")
        assert same_content(ob, EXPLICIT, ow, EXPLICIT)
        assert same_content(ob, EXPLICIT, implicit(tag, b"\1\2\3\4"), IMPLICIT)
        assert not same_content(ob, EXPLICIT, implicit(tag, b"\2\1\4\3"), IMPLICIT)


def test_vrs_that_give_the_bytes_another_meaning_differ() -> None:
    us, ss = element(0x00280106, "US", b"\xfb\xff"), element(0x00280106, "SS", b"\xfb\xff")
    assert not same_content(us, EXPLICIT, ss, EXPLICIT)
    wrong = element(0x00280010, "SS", b"\xfb\xff")
    assert not same_content(wrong, EXPLICIT, implicit(0x00280010, b"\xfb\xff"), IMPLICIT)
    assert not same_content(
        element(0x00100020, "LO", b"ID"), EXPLICIT, element(0x00100020, "SH", b"ID"), EXPLICIT
    )


@pytest.mark.parametrize(("representation", "fitting"), [(0, "US"), (1, "SS"), (None, None)])
def test_us_or_ss_unsaid_is_what_pixel_representation_says(
    representation: int | None, fitting: str | None
) -> None:
    value = b"\xfb\xff"
    explicit, unsaid = b"", b""
    if representation is not None:
        explicit = element(0x00280103, "US", bytes((representation, 0)))
        unsaid = implicit(0x00280103, bytes((representation, 0)))
    unsaid += implicit(0x00280106, value)
    for vr in ("US", "SS"):
        said = explicit + element(0x00280106, vr, value)
        assert same_content(said, EXPLICIT, unsaid, IMPLICIT) is (vr == fitting)
        nested = explicit + element(0x00091001, "SQ", item(element(0x00280106, vr, value)))
        tag = len(unsaid) - 10
        other = unsaid[:tag] + implicit(0x00091001, item(unsaid[tag:]))
        assert same_content(nested, EXPLICIT, other, IMPLICIT) is (vr == fitting)


def test_un_in_big_endian_is_not_guessed() -> None:
    # 1 or 256: nobody can tell.
    unsaid = element(0x00280010, "UN", b"\0\1", "big")
    for value in (b"\0\1", b"\1\0"):
        assert not same_content(unsaid, BIG, element(0x00280010, "US", value), EXPLICIT)
    private = element(0x00091001, "UN", b"\0\1", "big")
    assert same_content(private, BIG, element(0x00091001, "UN", b"\0\1"), EXPLICIT)


def test_sequences_read_as_un() -> None:
    inside = implicit(0x00080100, b"X ") + implicit(0x00080104, b"meaning ")
    said = element(
        0x00091001,
        "SQ",
        item(element(0x00080100, "SH", b"X ") + element(0x00080104, "LO", b"meaning ")),
    )
    end = implicit(0xFFFEE0DD, b"")
    closed = element(0x00091001, "UN", item(inside))
    open_ended = closed[:8] + b"\xff\xff\xff\xff" + closed[12:] + end
    for unsaid in (closed, open_ended):
        assert same_content(unsaid, EXPLICIT, said, EXPLICIT)
    assert same_content(implicit(0x00091001, item(inside)), IMPLICIT, said, EXPLICIT)
    assert same_content(closed, EXPLICIT, open_ended, EXPLICIT)
    other = element(0x00091001, "UN", item(inside.replace(b"meaning ", b"meaninG ")))
    assert not same_content(other, EXPLICIT, said, EXPLICIT)


def test_gzip_trailer_behind_a_deflated_data_set() -> None:
    data = encoded(small(), EXPLICIT)
    trailer = gzip.compress(data)[-8:]
    bare = deflated(data).rstrip(b"\0")
    assert same_content(bare + trailer, DEFLATED, data, EXPLICIT)
    assert same_content(zlib.compress(data), DEFLATED, data, EXPLICIT)
    assert not same_content(bare + b"12345678", DEFLATED, data, EXPLICIT)
    assert not same_content(bare[:-3], DEFLATED, data, EXPLICIT)


# Different ----------------------------------------------------------------------------------------


def change(name: str, value: object) -> Callable[[Dataset], object]:
    return lambda ds: setattr(ds, name, value)


def drop(name: str) -> Callable[[Dataset], object]:
    return lambda ds: delattr(ds, name)


CHANGES: dict[str, Callable[[Dataset], object]] = {
    "text": change("PatientName", "Müller^Jorg"),
    "one value less": change("ImageType", ["ORIGINAL"]),
    "number": change("Rows", 3),
    "tag": change("SelectorATValue", [0x00100010, 0x00100030]),
    "float": change("DopplerCorrectionAngle", 1.5),
    "character set": change("SpecificCharacterSet", "ISO_IR 100"),
    "removed": drop("StudyDate"),
    "last one removed": drop("PixelData"),
    "added": change("PatientID", "X"),
    "added behind": lambda ds: ds.add_new(0x7FE10010, "LO", "x"),
    "emptied": change("StudyDate", ""),
    "private value": lambda ds: setattr(ds[0x00091001], "value", "Value"),
    "item removed": lambda ds: ds.AnatomicRegionSequence.pop(),
    "item added": lambda ds: ds.AnatomicRegionSequence.append(Dataset()),
    "value in an item": lambda ds: setattr(ds.AnatomicRegionSequence[0], "CodeValue", "Y"),
    "value deep inside": lambda ds: setattr(
        ds.AnatomicRegionSequence[0][0x00080121].value[0], "CodeMeaning", "high"
    ),
    "one pixel": lambda ds: setattr(ds, "PixelData", bytes(range(11)) + b"\0"),
    "half the pixels": lambda ds: setattr(ds, "PixelData", bytes(range(6))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_difference(name: str) -> None:
    ds = small()
    CHANGES[name](ds)
    assert not same(small(), ds)


@pytest.mark.parametrize("path", FEW, ids=lambda path: path.name)
def test_one_byte_at_the_end(path: Path) -> None:
    check_one_byte_at_the_end(path)


def check_one_byte_at_the_end(path: Path) -> None:
    """The last element removed, or its last byte changed."""
    found = read(path)
    assert found is not None
    data, syntax = found
    if syntax in (DEFLATED,):
        data, syntax = reencoded(path, EXPLICIT), EXPLICIT
    assert not same_content(data, syntax, data[:-1], syntax)
    ds = pydicom.dcmread(path)
    tag = max(tag for tag in ds.keys() if tag != 0xFFFCFFFC)  # noqa: SIM118
    del ds[tag]
    little = ds.original_encoding[1]
    if not little:
        swap_words(ds)
    less = encoded(ds, EXPLICIT)
    assert not same_content(data, syntax, less, syntax if syntax not in NATIVE else EXPLICIT)


# Encapsulated -------------------------------------------------------------------------------------


def encapsulated(
    fragments: list[bytes], table: bytes = b"", frames: int | None = None, vr: str = "OB"
) -> bytes:
    out = b"" if frames is None else element(0x00280008, "IS", f"{frames:<2}".encode())
    out += element(0x7FE00010, vr, b"")[:8] + b"\xff\xff\xff\xff" + item(table)
    return out + b"".join(map(item, fragments)) + implicit(0xFFFEE0DD, b"")


def offsets(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


ONE, TWO, THREE = b"frame one.", b"frame 2.", b"the third frame."


def test_fragments_of_one_frame_may_be_cut_anywhere() -> None:
    whole = encapsulated([ONE + TWO])
    for cut in (
        encapsulated([ONE, TWO]),
        encapsulated([b"", ONE, TWO]),
        encapsulated([ONE + TWO], offsets(0)),
        encapsulated([ONE[:4], ONE[4:] + TWO[:2], TWO[2:]], offsets(0)),
    ):
        assert same_content(whole, RLE, cut, RLE)
    assert not same_content(whole, RLE, encapsulated([TWO, ONE]), RLE)
    assert not same_content(whole, RLE, encapsulated([ONE]), RLE)
    assert not same_content(whole, RLE, encapsulated([ONE, TWO, b"\0\0"]), RLE)


def test_frames_must_stay_whole() -> None:
    frames = [ONE, TWO, THREE]
    plain = encapsulated(frames, frames=3)
    table = encapsulated(frames, offsets(0, 18, 34), frames=3)
    cut = encapsulated([ONE[:4], ONE[4:], TWO, THREE], offsets(0, 26, 42), frames=3)
    assert same_content(plain, RLE, table, RLE)
    assert same_content(plain, RLE, cut, RLE)
    moved = encapsulated([ONE[:4], ONE[4:], TWO, THREE], offsets(0, 12, 42), frames=3)
    assert not same_content(plain, RLE, moved, RLE)
    # Which fragments make a frame is known of one only.
    unsaid = encapsulated([ONE[:4], ONE[4:], TWO, THREE], frames=3)
    assert not same_content(cut, RLE, unsaid, RLE)
    wrong = encapsulated([ONE[:4], ONE[4:], TWO, THREE], offsets(0, 13, 42), frames=3)
    assert not same_content(plain, RLE, wrong, RLE)
    assert same_content(unsaid, RLE, wrong, RLE)  # the same fragments, no frames told by either


def test_a_video_is_one_stream() -> None:
    a = encapsulated([ONE + TWO], frames=90)
    b = encapsulated([ONE, TWO], frames=90)
    assert same_content(a, MPEG2, b, MPEG2)
    assert not same_content(a, RLE, b, RLE)


def test_extended_offset_table_counts() -> None:
    plain = encapsulated([ONE], frames=1)
    extended = element(0x00280008, "IS", b"1 ")
    extended += element(0x7FE00001, "OW", bytes(8)) + plain[10:]
    assert not same_content(plain, RLE, extended, RLE)


def test_recoded_pixel_data_needs_decoding() -> None:
    calls: list[str] = []

    def decode(_: object, syntax: str) -> bytes | None:
        calls.append(syntax)
        return b"pixels"

    a, b = encapsulated([ONE]), encapsulated([TWO])
    native = element(0x7FE00010, "OW", b"pixels")
    for one, other in ((JPEG_LOSSLESS, RLE), (JPEG_BASELINE, JPEG_2000_LOSSLESS)):
        assert not same_content(a, one, b, other)
        assert same_content(a, one, b, other, decode=decode)
    assert same_content(a, JPEG_LOSSLESS, native, EXPLICIT, decode=decode)
    assert calls == [JPEG_LOSSLESS, RLE, JPEG_BASELINE, JPEG_2000_LOSSLESS, JPEG_LOSSLESS, EXPLICIT]
    calls.clear()
    # Lossy against native, one syntax with other bytes, another difference: never decoded.
    assert not same_content(a, JPEG_BASELINE, native, EXPLICIT, decode=decode)
    assert not same_content(a, JPEG_LOSSLESS, b, JPEG_LOSSLESS, decode=decode)
    assert not same_content(a, JPEG_LOSSLESS, native + native, EXPLICIT, decode=decode)
    assert not same_content(
        element(0x00280008, "IS", b"1 ") + a, JPEG_LOSSLESS, native, EXPLICIT, decode=decode
    )
    assert calls == []


@pytest.mark.parametrize("pixels", [(b"a", b"b"), (None, None), (b"", b""), (b"a", None)])
def test_decoded_pixels_that_differ_or_are_not_there(
    pixels: tuple[bytes | None, bytes | None],
) -> None:
    left: Iterator[bytes | None] = iter(pixels)
    a, b = encapsulated([ONE]), encapsulated([ONE])
    assert not same_content(a, JPEG_LOSSLESS, b, RLE, decode=lambda _, __: next(left))


def test_data_sets_without_pixel_data_have_no_compression() -> None:
    data = element(0x00100020, "LO", b"ID")
    assert same_content(data, JPEG_LOSSLESS, implicit(0x00100020, b"ID"), IMPLICIT)


def test_an_encapsulated_value_and_another_one_differ() -> None:
    native = element(0x7FE00010, "OB", ONE)
    assert not same_content(encapsulated([ONE]), RLE, native, RLE)
    # Pixel Data without a length is encapsulated, or nothing: no transfer syntax of its own helps.
    unsaid = native[:4] + b"UN\0\0" + encapsulated([ONE])[8:]
    assert not same_content(unsaid, EXPLICIT, native, EXPLICIT)
    assert not same_content(unsaid, EXPLICIT, implicit(0x7FE00010, ONE), IMPLICIT)
    assert not same_content(unsaid, JPEG_LOSSLESS, native, EXPLICIT, decode=lambda _, __: b"same")


def test_encapsulated_values_that_are_no_pixel_data_stay_as_they_are_cut() -> None:
    def value(*fragments: bytes, before: bytes = b"") -> bytes:
        return before + element(0x00091001, "OB", b"")[:8] + encapsulated(list(fragments))[8:]

    before = element(0x00080000, "UL", b"\0\0\0\0")
    assert same_content(value(ONE, TWO), RLE, value(ONE, TWO, before=before), RLE)
    assert not same_content(value(ONE, TWO), RLE, value(ONE + TWO), RLE)


def test_a_number_of_frames_that_is_none_tells_no_frames() -> None:
    number = element(0x00280008, "IS", b"many")
    plain, table = encapsulated([ONE, TWO]), encapsulated([ONE, TWO], offsets(0, 18))
    assert same_content(number + plain, RLE, number + table, RLE)
    assert not same_content(number + plain, RLE, number + encapsulated([ONE + TWO]), RLE)


def test_unknown_syntaxes_are_compared_as_bytes() -> None:
    data = element(0x00100020, "LO", b"ID")
    assert same_content(data, PRIVATE, data, PRIVATE)
    assert not same_content(data, PRIVATE, data, EXPLICIT)


def test_encapsulated_by_pydicom() -> None:
    frames = [ONE, TWO, THREE]
    ds = Dataset()
    ds.NumberOfFrames = 3
    ds.add_new(0x7FE00010, "OB", encapsulate(frames, has_bot=True))
    ds["PixelData"].is_undefined_length = True
    assert same_content(encoded(ds, EXPLICIT), RLE, encapsulated(frames, frames=3), RLE)


# Limits and damage --------------------------------------------------------------------------------


def nested(depth: int, end: bytes = b"") -> bytes:
    data = b""
    for _ in range(depth):
        data = element(0x00091001, "SQ", item(data))
    return data + end


def test_depth() -> None:
    # Another group length, so that the bytes alone do not decide.
    other = element(0x00080000, "UL", b"\0\0\0\0")
    assert same_content(nested(64), EXPLICIT, other + nested(64), EXPLICIT)
    assert not same_content(nested(65), EXPLICIT, other + nested(65), EXPLICIT)
    deep = nested(sys.getrecursionlimit() + 100)
    assert not same_content(deep, EXPLICIT, other + deep, EXPLICIT)


def test_number_of_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    data = element(0x00091001, "LO", b"") * 1000
    other = element(0x00080000, "UL", b"\0\0\0\0") + data
    assert same_content(data, EXPLICIT, other, EXPLICIT)
    monkeypatch.setattr("hilum.services.element_reader.MAX_ELEMENTS", 1000)
    assert not same_content(data, EXPLICIT, other, EXPLICIT)


def damaged() -> dict[str, bytes]:
    """What no strict reader takes; before it an element that differs in encoding alone."""
    long, short = element(0x00420011, "OB", b""), element(0x00100020, "LO", b"ID")
    bare = element(0x7FE00010, "OB", b"")[:8] + b"\xff" * 4
    end = implicit(0xFFFEE0DD, b"")
    return {
        "an element longer than its item": element(0x00091001, "SQ", item(short[:-1])) + short,
        "an element's head longer than its item": element(0x00091001, "SQ", item(long[:8])) + short,
        "an item's head longer than its sequence": element(0x00091001, "SQ", item(b"")[:4]) + short,
        "an item longer than its sequence": element(0x00091001, "SQ", item(short)[:-2]) + short,
        "the end of an item that has a length": element(
            0x00091001, "SQ", item(implicit(0xFFFEE00D, b""))
        ),
        "no item in a sequence": element(0x00091001, "SQ", short),
        "a text without a length": short[:4] + b"UT\0\0" + b"\xff" * 4 + end,
        "a fragment without a length": bare + item(b"") + item(b"")[:4] + b"\xff" * 4 + end,
        "no offset table": bare + end,
        "a VR that is none": short[:4] + b"??" + short[6:] + bytes(20),
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_data_sets_are_not_told_to_be_the_same(name: str) -> None:
    data = damaged()[name]
    before = element(0x00080000, "UL", b"\0\0\0\0")
    assert same_content(data, RLE, bytearray(data), RLE)
    assert not same_content(data, RLE, before + data, RLE)


def test_long_texts_are_compared_in_pieces() -> None:
    text = b"x" * (content._PIECE + 3)
    spaces = b" " * (content._PIECE + 5)
    for vr, tag in (("UT", 0x00189074), ("UC", 0x00189908)):
        a, b = element(tag, vr, text), element(tag, vr, text + spaces)
        assert same_content(a, EXPLICIT, b, EXPLICIT)
        assert not same_content(a, EXPLICIT, element(tag, vr, text + spaces + b"y"), EXPLICIT)
    empty, blank = element(0x00189074, "UT", b""), element(0x00189074, "UT", spaces)
    assert same_content(empty, EXPLICIT, blank, EXPLICIT)
    # Of values of a text so long the padding is content.
    assert same_content(
        element(tag, "UC", b"a \\b"), EXPLICIT, element(tag, "UC", b"a\\b"), EXPLICIT
    )
    long, other = element(tag, "UC", b"a \\" + text), element(tag, "UC", b"a\\" + text)
    assert not same_content(long, EXPLICIT, other, EXPLICIT)


def test_half_a_word_in_big_endian_is_not_turned_round() -> None:
    half = element(0x00280010, "US", b"\0\1\2", "big")
    assert not same_content(half, BIG, element(0x00280010, "US", b"\1\0\2"), EXPLICIT)


def test_deflate_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    data = element(0x7FE00010, "OW", bytes(4 << 20))
    assert same_content(deflated(data), DEFLATED, data, EXPLICIT)
    monkeypatch.setattr(content, "MAX_INFLATED", 1 << 20)
    assert not same_content(deflated(data), DEFLATED, data, EXPLICIT)


def test_large_values_are_read_in_pieces_and_maps_can_be_closed(tmp_path: Path) -> None:
    size = 24 << 20
    for name, begin in (("a", element(0x7FE00010, "OW", b"")), ("b", implicit(0x7FE00010, b""))):
        with (tmp_path / name).open("wb") as file:
            file.write(begin[:-4] + size.to_bytes(4, "little"))
            file.truncate(len(begin) + size)
    with (tmp_path / "a").open("rb") as a, (tmp_path / "b").open("r+b") as b:
        map_a = mmap.mmap(a.fileno(), 0, access=mmap.ACCESS_READ)
        map_b = mmap.mmap(b.fileno(), 0)
        tracemalloc.start()
        assert same_content(map_a, EXPLICIT, map_b, IMPLICIT)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        map_b[-1] = 1
        assert not same_content(map_a, EXPLICIT, memoryview(map_b)[:], IMPLICIT)
        map_a.close()
        map_b.close()
    assert peak < 8 << 20


@pytest.mark.parametrize("data", [b"", b"\0", b"garbage, not DICOM", bytes(1000), b"\xff" * 1000])
def test_garbage(data: bytes) -> None:
    whole = encoded(small(), EXPLICIT)
    assert not any(same_content(data, syntax, whole, EXPLICIT) for syntax in NATIVE)
