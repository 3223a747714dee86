from __future__ import annotations

import struct

import pytest

from hilum.services.json_model import JsonValue, json_values, values_of


@pytest.mark.parametrize(
    ("vr", "raw", "values"),
    [
        ("CS", b"ORIGINAL \\PRIMARY ", ["ORIGINAL", "PRIMARY"]),
        ("CS", b"A\\\\B ", ["A", None, "B"]),
        ("LO", b"", []),
        ("LO", b"  ", []),
        ("LT", b" one\\text ", [" one\\text"]),
        ("UI", b"1.2\\1.3\0", ["1.2", "1.3"]),
        ("DS", b"1.50\\ -2e3\\x ", [1.5, -2000.0, "x"]),
        ("DS", b"1e999", ["1e999"]),
        ("IS", b"+7 \\1.5\\", [7, 1.5, None]),
        ("AT", bytes.fromhex("10001000 10002000 99"), ["00100010", "00100020"]),
        ("US", b"\1\0\xff\xff\7", [1, 65535]),
        ("SL", b"\xff\xff\xff\xff", [-1]),
        ("FD", struct.pack("<3d", 1.5, float("nan"), float("inf")), [1.5, "nan", "inf"]),
        ("PN", b"Doe^John", [{"Alphabetic": "Doe^John"}]),
        ("PN", b"A==C\\", [{"Alphabetic": "A", "Phonetic": "C"}, None]),
    ],
)
def test_json_values(vr: str, raw: bytes, values: list[JsonValue]) -> None:
    assert json_values(vr, raw) == values


def test_order_of_bytes_and_character_set() -> None:
    assert values_of("US", b"\1\2", little=False) == [0x0102]
    assert values_of("AT", bytes.fromhex("00100020"), little=False) == ["00100020"]
    assert values_of("LO", "Müller ".encode(), character_set=b"ISO_IR 192") == ["Müller"]
    assert values_of("PN", b"M\xfcller", character_set=b"ISO_IR 100") == ["Müller"]
