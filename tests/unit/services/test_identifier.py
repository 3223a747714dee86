"""Reading and writing identifiers, judged by pydicom."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset
from pydicom.filewriter import DicomIO, write_dataset

from hilum.errors import InvalidDicom
from hilum.services.answers import AnswerWriter
from hilum.services.identifier import (
    Attribute,
    Writer,
    choose_character_set,
    encode_attributes,
    multiplicity,
    read_attributes,
    vr_of,
)

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNCOMPRESSED = [IMPLICIT, EXPLICIT, BIG]


def encode(dataset, syntax=EXPLICIT):
    buffer = io.BytesIO()
    file = DicomIO(buffer)
    file.is_implicit_VR, file.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(file, dataset)
    data = buffer.getvalue()
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(data) + packer.flush()
    return data


def decode(data, syntax=EXPLICIT):
    if syntax == DEFLATED:
        data = zlib.decompress(data, -zlib.MAX_WBITS)
    found = read_dataset(io.BytesIO(data), syntax == IMPLICIT, syntax != BIG)
    list(found.iterall())  # pydicom decodes what is looked at
    return found


def sample():
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.StudyDate = "20240101-20241231"
    ds.ModalitiesInStudy = ["CT", "SR"]
    ds.PatientName = "Jäger^Ünal"
    ds.PatientID = ""
    ds.StudyInstanceUID = ["1.2", "1.2.3"]
    ds.Rows = 512
    ds.PixelSpacing = [0.5, 0.25]
    ds.FrameIncrementPointer = [0x00181063, 0x00181065]
    ds.DisplayedAreaTopLeftHandCorner = [-1, 2]
    item = Dataset()
    item.CodeValue = "T-1"
    item.CodeMeaning = "Kopfübung"
    ds.ProcedureCodeSequence = [item]
    ds.RequestAttributesSequence = []
    return ds


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, DEFLATED])
def test_reading(syntax):
    found = {one.tag: one for one in read_attributes(encode(sample(), syntax), syntax)}
    assert found[0x00080020].value == "20240101-20241231"
    assert found[0x00080061].value == "CT\\SR"
    assert found[0x00100010] == Attribute(0x00100010, "PN", "Jäger^Ünal")
    assert found[0x00100020].value == ""
    assert found[0x0020000D].value == "1.2\\1.2.3"
    assert found[0x00280010].value == "512"
    assert found[0x00280009].value == "00181063\\00181065"
    assert found[0x00700052].value == "-1\\2"
    ((code, meaning),) = found[0x00081032].value
    assert (code.value, meaning.value) == ("T-1", "Kopfübung")
    assert found[0x00400275] == Attribute(0x00400275, "SQ", ())


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, DEFLATED])
def test_what_is_read_can_be_written(syntax):
    attributes = read_attributes(encode(sample(), syntax), syntax)
    again = encode_attributes(attributes, syntax, preferred=b"ISO_IR 100")
    assert decode(again, syntax) == sample()
    assert len(again) % 2 == 0


def test_only_what_is_wanted_is_read():
    data = encode(sample()) + b"\xff" * 7  # never looked at
    wanted = frozenset({0x00080020, 0x00081032})
    with pytest.raises(InvalidDicom):
        read_attributes(data)
    assert [one.tag for one in read_attributes(data, wanted=wanted)] == sorted(wanted)


def test_encapsulated_pixels_are_passed_over_wherever_they_stand():
    ds = sample()
    ds.IconImageSequence = [Dataset()]
    ds.IconImageSequence[0].is_undefined_length_sequence_item = True
    ds["IconImageSequence"].is_undefined_length = True
    for place in (ds, ds.IconImageSequence[0]):
        place.add_new(0x7FE00010, "OB", encapsulate([b"frame"]))
        place["PixelData"].is_undefined_length = True
    ds.add_new(0x7FE10010, "LO", "behind")
    data = encode(ds)
    found = {one.tag: one for one in read_attributes(data)}
    assert 0x7FE00010 not in found and found[0x00880200].value == ((),)
    assert found[0x7FE10010].value == "behind"
    # What is not wanted is passed over likewise.
    wanted = frozenset({0x00100010, 0x7FE10010})
    assert [one.tag for one in read_attributes(data, wanted=wanted)] == sorted(wanted)


def test_bytes_and_ascii_are_written_as_they_are():
    attributes = (Attribute(0x00100020, "LO", "ID"), Attribute(0x00420011, "OB", b"\1\2\xe4"))
    data = encode_attributes(attributes)
    ds = decode(data)
    assert "SpecificCharacterSet" not in ds
    assert (ds.PatientID, ds.EncapsulatedDocument) == ("ID", b"\1\2\xe4\0")
    named = encode_attributes((Attribute(0x00100010, "PN", "Jäger"), *attributes))
    assert decode(named).EncapsulatedDocument == b"\1\2\xe4\0"


def test_mislabelled_bytes_are_read_as_they_are():
    assert read_attributes(encode(sample(), IMPLICIT), EXPLICIT) == read_attributes(
        encode(sample(), IMPLICIT), IMPLICIT
    )


def test_undefined_lengths_and_private_elements():
    ds = sample()
    ds.ProcedureCodeSequence[0].is_undefined_length_sequence_item = True
    ds["ProcedureCodeSequence"].is_undefined_length = True
    block = ds.private_block(0x0009, "ACME", create=True)
    block.add_new(1, "UN", b"\1\2")
    for syntax in UNCOMPRESSED:
        found = {one.tag: one for one in read_attributes(encode(ds, syntax), syntax)}
        assert len(found[0x00081032].value) == 1
        assert found[0x00091001].value == b"\1\2" and found[0x00091001].vr == "UN"


def test_no_data_and_broken_data():
    assert read_attributes(b"") == ()
    for broken in (b"\x08", encode(sample())[:-3], b"x" * 100, bytes(50)):
        with pytest.raises(InvalidDicom):
            read_attributes(broken)
    with pytest.raises(InvalidDicom, match="deflated"):
        read_attributes(encode(sample(), DEFLATED)[:20], DEFLATED)


def test_sequences_are_followed_so_deep_and_no_deeper():
    inner = b""
    for _ in range(20):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = struct.pack("<HH2sHI", 0x0008, 0x1032, b"SQ", 0, len(item)) + item
    with pytest.raises(InvalidDicom, match="sequences"):
        read_attributes(inner)


@pytest.mark.parametrize(
    ("value", "preferred", "term"),
    [
        ("Jäger", None, b"ISO_IR 100"),
        ("Jäger", b"ISO_IR 192", b"ISO_IR 192"),
        ("Łódź", b"ISO_IR 101", b"ISO_IR 101"),
        ("Łódź", b"ISO_IR 100", b"ISO_IR 192"),
        ("山田", b"ISO_IR 100", b"ISO_IR 192"),
        ("山田", b"GB18030 ", b"GB18030"),
        ("山田", b"\\ISO 2022 IR 87", b"ISO_IR 192"),
        ("山田", b"ISO_IR 13", b"ISO_IR 192"),
        ("Jäger", b"nonsense", b"ISO_IR 100"),
    ],
)
def test_the_character_set_that_is_chosen(value, preferred, term):
    found, encoder = choose_character_set(value, preferred)
    assert found == term
    ds = decode(
        Writer(explicit=True, little_endian=True).data_set(
            [
                Attribute(0x00080005, "CS", term.decode()),
                Attribute(0x00100010, "PN", value),
            ],
            encoder,
        )
        if value.isascii()
        else encode_attributes([Attribute(0x00100010, "PN", value)], preferred=preferred)
    )
    assert str(ds.PatientName) == value


def test_what_the_dictionary_says():
    assert vr_of(0x00100010) == "PN" and vr_of(0x00280106) == "US" and vr_of(0x00091001) == "UN"
    assert multiplicity(0x00080061) == "1-n" and multiplicity(0x00080050) == "1"


def test_numbers_that_are_none_are_left_out():
    writer = Writer(explicit=True, little_endian=True)
    assert writer.binary("US", "x") == b"" and writer.binary("US", "70000") == b""
    assert writer.binary("OB", "1") == b"" and writer.binary("AT", "00181063") == b"\x18\0\x63\x10"
    assert writer.binary("FD", "1.5") == struct.pack("<d", 1.5)


# ── many answers of one shape ─────────────────────────────────────────────────────────────────

COLUMNS = [
    (0x0020000D, "UI"), (0x00100010, "PN"), (0x00201208, "IS"), (0x00280010, "US"),
    (0x00081032, "SQ"), (0x00104000, "LT"),
]  # fmt: skip
CONSTANTS = {0x00080052: ("CS", "STUDY"), 0x00080054: ("AE", "HILUM"), 0xFFFC0001: ("LO", "end")}
ITEM = ((Attribute(0x00080100, "SH", "T-1"), Attribute(0x00080104, "LO", "Übung")),)


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, DEFLATED])
@pytest.mark.parametrize(
    ("row", "charset"),
    [
        (("1.2.3", "Doe^Jane", 0, "512", (), ""), None),
        (("1.2.3", "Jäger", 12, None, None, None), "ISO_IR 100"),
        (("1.2", "山田", 1, "1", (), "x" * 3001), "ISO_IR 192"),
        (("1.2", "Doe", 1, "1", ITEM, "x"), "ISO_IR 100"),
        (("1.2", "Doe", 1, "1", ((Attribute(0x00080100, "SH", "T-1"),),), "x"), None),
    ],
)
def test_answers(syntax, row, charset):
    data = AnswerWriter(COLUMNS, CONSTANTS, syntax).encode(row)
    assert len(data) % 2 == 0
    ds = decode(data, syntax)
    uid, name, count, rows, items, comments = row
    assert ds.get("SpecificCharacterSet") == charset
    assert ds.QueryRetrieveLevel == "STUDY" and ds.RetrieveAETitle == "HILUM"
    assert ds.StudyInstanceUID == uid and ds.PatientName == name
    assert ds.NumberOfStudyRelatedInstances == count
    assert ds.Rows == (int(rows) if rows else None)
    assert (ds.PatientComments or "") == (comments or "")
    assert len(ds.ProcedureCodeSequence) == len(items or ())
    assert ds[0xFFFC0001].value in ("end", b"end ")
    assert [e.tag for e in ds] == sorted(e.tag for e in ds)


def test_columns_of_one_vr_have_values_of_their_own():
    columns = [(0x0020000D, "UI"), (0x0020000E, "UI"), (0x00081030, "LO"), (0x0008103E, "LO")]
    ds = decode(AnswerWriter(columns, {}, EXPLICIT).encode(("1.2", "1.2.33", "study", "axial")))
    assert (ds.StudyInstanceUID, ds.SeriesInstanceUID) == ("1.2", "1.2.33")
    assert (ds.StudyDescription, ds.SeriesDescription) == ("study", "axial")


def test_a_value_that_is_too_long_for_its_length_is_cut():
    ds = decode(AnswerWriter([(0x00081030, "LO")], {}, EXPLICIT).encode(("x" * 70_001,)))
    assert len(ds.StudyDescription) == 0xFFFE
