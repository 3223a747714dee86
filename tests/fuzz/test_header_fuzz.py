"""Whatever a peer sends, a scan ends with a result, and a prefix never contradicts the whole."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests import samples

from hilum.services.header import HeaderScanner, ScanLimits
from hilum.services.text import da, decode_person_name, decode_text, fold, integer, tm, uid

SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.70",
    "",
)
SCANNER = HeaderScanner(
    [
        "SpecificCharacterSet",
        "SOPInstanceUID",
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        '(0019,"GEMS_ACQU_01",02)',
        "ReferencedImageSequence",
        "ReferencedImageSequence.ReferencedSOPInstanceUID",
        "ReferencedStudySequence.ReferencedSOPSequence.ReferencedSOPInstanceUID",
        "RequestAttributesSequence.ScheduledProcedureStepID",
        "300A0010.300A0016",
        "NumberOfFrames",
    ],
    ScanLimits(max_elements=5_000, max_depth=16, max_value_length=2_000, max_inflated=200_000),
)
NAMES = (
    "CT_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "rtplan.dcm",
    "image_dfl.dcm",
    "JPEG2000.dcm",
    "nested_priv_SQ.dcm",
    "UN_sequence.dcm",
    "test-SR.dcm",
    "DICOMDIR",
)
SAMPLES = [samples.named(name) for name in NAMES]

# Pieces that make elements, sequences and their ends likely.
PIECES = st.one_of(
    st.sampled_from(
        [
            b"\x08\0\x05\0CS\x0a\0ISO_IR 100",
            b"\x08\0\x18\0UI\x04\x001.2\0",
            b"\x08\0\x18\0\x04\0\0\x001.2\0",
            b"\0\x08\0\x18UI\0\x041.2\0",
            b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff",
            b"\x08\0\x40\x11UN\0\0\xff\xff\xff\xff",
            b"\x08\0\x40\x11SQ\0\0\x20\0\0\0",
            b"\x08\0\x40\x11\xff\xff\xff\xff",
            b"\xfe\xff\0\xe0\xff\xff\xff\xff",
            b"\xfe\xff\0\xe0\x10\0\0\0",
            b"\xfe\xff\x0d\xe0\0\0\0\0",
            b"\xfe\xff\xdd\xe0\0\0\0\0",
            b"\x02\0\0\0UL\x04\0\0\0\0\0",
            b"\x19\0\x10\0LO\x0c\0GEMS_ACQU_01",
            b"\x19\0\x02\x10DS\x02\x001 ",
            b"\x10\0\x10\0PN\xff\xff",
            b"\x10\0\x10\0??\0\0",
            b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff",
        ]
    ),
    st.binary(max_size=12),
)


def check(data: bytes, syntax: str, cut: int) -> None:
    whole = SCANNER.scan(data, syntax, final=True)
    assert whole.complete
    for final in (False, True):
        part = SCANNER.scan(data[:cut], syntax, final=final)
        if final:
            assert part.complete
        elif part.complete:
            assert (part.values, part.nested, part.problem) == (
                whole.values,
                whole.nested,
                whole.problem,
            )
        else:
            assert part.needed > len(data[:cut])


@given(data=st.binary(max_size=300), syntax=st.sampled_from(SYNTAXES), cut=st.integers(0, 300))
@settings(max_examples=150, deadline=None)
def test_random_bytes(data: bytes, syntax: str, cut: int) -> None:
    check(data, syntax, cut)


@given(
    pieces=st.lists(PIECES, max_size=40),
    syntax=st.sampled_from(SYNTAXES),
    cut=st.integers(0, 500),
)
@settings(max_examples=300, deadline=None)
def test_pieces_of_data_sets(pieces: list[bytes], syntax: str, cut: int) -> None:
    check(b"".join(pieces), syntax, cut)


@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=9)), max_size=6),
    label=st.one_of(st.none(), st.sampled_from(SYNTAXES)),
    cut=st.integers(0, 5000),
)
@settings(max_examples=300, deadline=None)
def test_changed_files(
    sample: samples.Sample, changes: list[tuple[int, bytes]], label: str | None, cut: int
) -> None:
    data = bytearray(sample.data[:20_000])
    for position, new in changes:
        position %= len(data)
        data[position : position + len(new)] = new
    check(bytes(data), label if label is not None else sample.transfer_syntax or SYNTAXES[0], cut)


@given(
    raw=st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from(
                [b"\x1b$B", b"\x1b(B", b"\x1b(J", b"\x1b$)C", b"\x1b$)A", b"\x1b-F", b"\x1b", b"^",
                 b"=", b"\\", b"Doe", b"\xb1\xe8", b"\x3b\x33", b"\0", b" "]
            ),
            max_size=12,
        ).map(b"".join),
    ),
    character_set=st.one_of(
        st.none(),
        st.binary(max_size=30),
        st.sampled_from(
            [b"ISO_IR 100", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"ISO 2022 IR 6\\ISO 2022 IR 149",
             b"GB18030", b"\\ISO 2022 IR 58", b"ISO 2022 IR 13\\ISO 2022 IR 87\\ISO 2022 IR 159"]
        ),
    ),
    fallback=st.one_of(st.none(), st.text(max_size=12), st.sampled_from(["cp1252", "gbk", "idna"])),
    vr=st.sampled_from(["PN", "LO", "LT", "CS", "UI"]),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_text_and_values(
    raw: bytes, character_set: bytes | None, fallback: str | None, vr: str
) -> None:
    text = decode_text(raw, vr, character_set, fallback)
    name = decode_person_name(raw, character_set, fallback)
    assert not text.endswith((" ", "\0"))
    assert fold(fold(text)) == fold(text)
    assert fold(fold(name)) == fold(name)
    for parse in (da, tm, integer, uid):
        parse(raw)


@given(text=st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert fold(text.upper()) == fold(text.upper().lower())
