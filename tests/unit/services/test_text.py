"""Text of raw values: the standard's own examples, what the field writes, and pydicom's files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import python_encoding
from tests import samples

from hilum.services.header import HeaderScanner
from hilum.services.text import (
    character_sets,
    da,
    decode_person_name,
    decode_text,
    fold,
    integer,
    is_character_set,
    tm,
    uid,
)

# PS3.5 Annexes H, I, J and K: (0008,0005), bytes of Patient's Name, text.
STANDARD_EXAMPLES = [
    (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J="
        b"\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    (
        b"\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东",
    ),
    (b"ISO_IR 192", "Wang^XiaoDong=王^小東".encode(), "Wang^XiaoDong=王^小東"),
    (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
    (b"GBK", "Wang^XiaoDong=王^小东".encode("gbk"), "Wang^XiaoDong=王^小东"),
    (
        b"\\ISO 2022 IR 159",
        b"\x1b$(D0!\x1b(B^x",
        b"\x1b$(D0!\x1b(B^x".decode("iso2022_jp_2"),
    ),
    (b"ISO 2022 IR 6\\ISO 2022 IR 100\\ISO 2022 IR 144", b"M\x1b-A\xfcller", "Müller"),
    (b"\\ISO 2022 IR 144", b"\x1b-L\xbb\xee\xda^\x1b-A\xfc", "Люк^ü"),
    (b"\\ISO 2022 IR 13", b"\x1b)I\xd4\xcf", "ﾔﾏ"),
]


@pytest.mark.parametrize(("character_set", "raw", "text"), STANDARD_EXAMPLES)
def test_the_standard_s_examples(character_set: bytes, raw: bytes, text: str) -> None:
    assert decode_person_name(raw, character_set) == text
    assert decode_person_name(raw + b" ", character_set + b" ") == text


@pytest.mark.parametrize(
    ("term", "codec"),
    [
        ("ISO_IR 100", "latin1"), ("ISO IR 100", "latin1"), ("ISO-IR 100", "latin1"),
        ("ISO_IR_100", "latin1"), ("ISO_IR100", "latin1"), ("iso_ir 100 ", "latin1"),
        ("IR 100", "latin1"), ("ISO 2022 IR 100", "latin1"), ("ISO_2022_IR_100", "latin1"),
        ("latin1", "latin1"), ("ISO-8859-1", "latin1"), ("ISO_IR 101", "iso8859_2"),
        ("ISO8859-2", "iso8859_2"), ("ISO_IR 109", "iso8859_3"), ("ISO_IR 110", "iso8859_4"),
        ("ISO_IR 126", "iso8859_7"), ("ISO_IR 127", "iso8859_6"), ("ISO_IR 138", "iso8859_8"),
        ("ISO_IR 144", "iso8859_5"), ("ISO_IR 148", "iso8859_9"), ("ISO_IR 166", "tis_620"),
        ("ISO_IR 203", "iso8859_15"), ("ISO_IR 13", "shift_jis"), ("ISO 2022 IR 149", "euc_kr"),
        ("ISO-IR 192", "utf_8"), ("ISO_IR_192", "utf_8"), ("UTF-8", "utf_8"), ("utf8", "utf_8"),
        ("ISO 2022 GBK", "gbk"), ("GB2312", "gb18030"), ("windows-1251", "cp1251"),
        ("cp1252", "cp1252"),
    ],
)  # fmt: skip
def test_defined_terms_and_how_the_field_writes_them(term: str, codec: str) -> None:
    some = (*range(0xA6, 0x600), 0xE01, 0xE02, *range(0xFF71, 0xFF80), 0x4E00, 0xD55C)
    text = "".join(map(chr, some)).encode(codec, "ignore").decode(codec)
    assert decode_text(text.encode(codec), "LT", term.encode()) == text
    # As a fallback it comes after UTF-8, which no text ending in this way is.
    assert decode_text(text.encode(codec)[-1:], "LT", None, fallback=term) == (
        text[-1] if len(text[-1].encode(codec)) == 1 else text.encode(codec)[-1:].decode("latin1")
    )


@pytest.mark.parametrize(
    ("raw", "character_set", "fallback", "text"),
    [
        ("Müller".encode(), None, "cp1252", "Müller"),  # no character set: UTF-8 if it is that
        (b"M\xfcller", None, None, "Müller"),
        (b"M\xfcller", b"ISO_IR 192", None, "Müller"),  # not what it says it is
        (b"M\xfcller", b"ISO_IR 6", "no such thing", "Müller"),
        (b"\xcf\xf0\xe8", None, "cp1251", "При"),
        (
            b"\xcf\xf0\xe8",
            b"nonsense",
            "ISO_IR 144",
            b"\xcf\xf0\xe8".decode("iso8859_5"),
        ),
        (b"\xc1\xe4", b"\\ISO 2022 IR 149", None, b"\xc1\xe4".decode("euc_kr")),  # no escape
        (b"\xff\xfe\xfd", b"\\ISO 2022 IR 87", None, "ÿþý"),
        (b"\x1b$)C\xb1\xe8^\xc8\xf1", b"\\ISO 2022 IR 149", None, "김^희"),  # escape not repeated
        (b"\x1b$B;3ED\x1b(B", None, None, "山田"),  # an escape without a character set
        (b"a\x1b%Gb", None, None, "a\x1b%Gb"),  # an escape that no table has
        (b"a\x1b", None, None, "a\x1b"),
        (b"a\x1bb\xe9", b"ISO_IR 192", None, "a\x1bbé"),
        (b"\x1b$)C\xff\xff", b"\\ISO 2022 IR 149", None, "\x1b$)Cÿÿ"),
        (b"\x1b$B;3\nx", b"\\ISO 2022 IR 87", None, "山\nx"),
    ],
)
def test_what_the_character_set_does_not_allow(
    raw: bytes, character_set: bytes | None, fallback: str | None, text: str
) -> None:
    assert decode_text(raw, "PN", character_set, fallback) == text


def test_multi_byte_characters_that_hold_a_backslash_or_an_equals_sign() -> None:
    assert decode_text(b"\xaa\x5c", "LO", b"GBK") == b"\xaa\x5c".decode("gbk")
    kanji = b"\x1b$B==\x1b(B"  # 3D3D is one character
    name = decode_person_name(kanji + b"=x", b"\\ISO 2022 IR 87")
    assert name == kanji.decode("iso2022_jp") + "=x"


@pytest.mark.parametrize(
    ("raw", "vr", "text"),
    [
        (b"1.2.3\0", "UI", "1.2.3"),
        (b"Station\0\0\0 ", "LO", "Station"),
        (b"  CT ", "CS", "CT"),
        (b"  indented ", "LT", "  indented"),
        (b" Doe^Jane ", "PN", " Doe^Jane"),
        (b"", "LO", ""),
        (b"ORIGINAL\\PRIMARY ", "CS", "ORIGINAL\\PRIMARY"),
    ],
)
def test_padding(raw: bytes, vr: str, text: str) -> None:
    assert decode_text(raw, vr, b"ISO_IR 100") == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"Doe^Jane^^^ ", "Doe^Jane^^^"),
        (b"Doe^Jane\0", "Doe^Jane"),
        (b"Doe^Jane =\0=x ", "Doe^Jane==x"),
        (b"Doe^Jane \\Roe^John ", "Doe^Jane\\Roe^John"),
        (b"Doe^Jane==", "Doe^Jane"),
        (b"=Doe^Jane", "=Doe^Jane"),
    ],
)
def test_person_names(raw: bytes, text: str) -> None:
    assert decode_person_name(raw, None) == text


CHARSET_FILES = [path for path in samples.paths() if path.parent.name == "charset_files"]


@pytest.mark.parametrize("path", CHARSET_FILES, ids=lambda path: path.name)
def test_pydicom_s_character_set_files(path: Path) -> None:
    sample = samples.sample(path)
    paths = ["SpecificCharacterSet", "PatientName", "RequestedProcedureDescription"]
    scan = HeaderScanner(paths).scan(sample.data, sample.transfer_syntax or "", final=True)
    ds = pydicom.dcmread(path)
    character_set = scan.values.get("SpecificCharacterSet")
    for keyword in scan.values.keys() & set(paths[1:]):
        raw, vr = scan.values[keyword], scan.vrs[keyword]
        decode = decode_person_name if vr == "PN" else partial(decode_text, vr=vr)
        assert decode(raw, character_set=character_set) == str(ds[keyword].value)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_utf_8_round_trip(text: str) -> None:
    assert decode_text(text.encode(), "LT", b"ISO_IR 192") == text.rstrip(" \0")


@given(raw=st.binary(max_size=30), fallback=st.sampled_from([None, "cp1252", "gbk"]))
def test_no_byte_is_lost_without_a_character_set(raw: bytes, fallback: str | None) -> None:
    text = decode_text(raw, "LT", None, fallback)
    kept = raw.rstrip(b" \0")
    assert (
        any(_encodes_to(text, codec, kept) for codec in ("utf_8", "latin1", fallback or "latin1"))
        or b"\x1b" in raw
    )


def _encodes_to(text: str, codec: str, raw: bytes) -> bool:
    try:
        return text.encode(codec) == raw
    except UnicodeEncodeError:
        return False


# Folding -----------------------------------------------------------------------------------------


def test_fold() -> None:
    cases: list[tuple[str, str]] = [
        ("MÜLLER^Jörg", "muller^jorg"),
        ("Mu\u0308ller", "muller"),
        ("  Doe   Jane ", "doe jane"),
        ("Straße", "strasse"),
        ("ﾔﾏﾀﾞ", "ヤマタ"),
        ("\uff21\uff22\uff23", "abc"),
        ("홍^길동", "홍^길동"),
        ("İstanbul", "istanbul"),
        ("Ελένη", "ελενη"),
        ("สวัสดี", fold("สวัสดี")),
        ("", ""),
    ]
    assert [fold(text) for text, _ in cases] == [folded for _, folded in cases]


def test_fold_keeps_vowels_that_are_marks() -> None:
    assert "\u0e31" in fold("สวัสดี")


# Values ------------------------------------------------------------------------------------------


def test_da() -> None:
    cases: list[tuple[bytes, str | None]] = [
        (b"20240229", "20240229"),
        (b"20240229 ", "20240229"),
        (b"1997.04.30", "19970430"),
        (b"20240101\\20250101", "20240101"),
        (b"20230229", None),
        (b"00000101", None),
        (b"20241301", None),
        (b"2024", None),
        (b"2024.0101", None),
        (b"20240101-", None),
        (b"", None),
    ]
    assert [da(raw) for raw, _ in cases] == [date for _, date in cases]


def test_tm() -> None:
    cases: list[tuple[bytes, str | None]] = [
        (b"07", "07"),
        (b"0730", "0730"),
        (b"073059", "073059"),
        (b"073059.5 ", "073059.5"),
        (b"073059.123456", "073059.123456"),
        (b"235960", "235960"),
        (b"07:30:59", "073059"),
        (b"07:30", "0730"),
        (b"07:30:59.25", "073059.25"),
        (b"073059\\120000", "073059"),
        (b"24", None),
        (b"0760", None),
        (b"073061", None),
        (b"073", None),
        (b"07:3059", None),
        (b"073059.", None),
        (b"073059.1234567", None),
        (b"", None),
    ]
    assert [tm(raw) for raw, _ in cases] == [time for _, time in cases]


def test_integer() -> None:
    cases: list[tuple[bytes, int | None]] = [
        (b"1", 1),
        (b" +12 ", 12),
        (b"-3\0", -3),
        (b"1.0", 1),
        (b"7.", 7),
        (b"5\\6", 5),
        (b"1.5", None),
        (b"1e3", None),
        (b"", None),
        (b"abc", None),
        (b"9" * 19, None),
        ("\u0661".encode(), None),
    ]
    assert [integer(raw) for raw, _ in cases] == [number for _, number in cases]


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"1.2.3\0", "1.2.3"), (b"1.2.3 \0 ", "1.2.3"), (b"1.02.x", "1.02.x"), (b"\xff", "ÿ")],
)
def test_uid(raw: bytes, text: str) -> None:
    assert uid(raw) == text


def test_a_character_set_is_known_by_any_of_its_names() -> None:
    for name in ("ISO_IR 100", "iso-8859-1", "ISO 2022 IR 87", "cp1252", "ascii", "ISO_IR 6"):
        assert is_character_set(name), name
    for name in ("", "nonsense", "ISO_IR 99", "rot13", "utf_7"):
        assert not is_character_set(name), name


def test_character_sets_are_those_that_pydicom_knows() -> None:
    terms = character_sets()
    assert len(set(terms)) == len(terms)
    assert set(terms) >= set(python_encoding) - {"", "ISO_IR 6", "ISO 2022 GBK", "ISO 2022 58"}
