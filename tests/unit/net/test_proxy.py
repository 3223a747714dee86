"""The PROXY v2 header: what it says, and how little of it is enough to refuse it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import RemoteProtocolError
from hilum.net.proxy import MAX_HEADER, SIGNATURE, parse_proxy_header

V4 = bytes((198, 51, 100, 7, 10, 0, 0, 1)) + struct.pack(">HH", 40000, 104)
V6 = bytes.fromhex("20010db8000000000000000000000007") + bytes(16) + struct.pack(">HH", 40000, 104)


def header(body: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


@pytest.mark.parametrize(
    ("data", "original"),
    [
        (header(V4), ("198.51.100.7", 40000)),
        (header(V4 + b"\4\0\1x"), ("198.51.100.7", 40000)),
        (header(V6, 0x21), ("2001:db8::7", 40000)),
        (header(b"", 0, 0x20), None),
        (header(V4, 0x11, 0x20), None),
        (header(V4, 0x12), None),
        (header(V4[:11]), None),
        (header(V6[:35], 0x21), None),
        (header(bytes(216), 0x31), None),
    ],
)
def test_headers(data: bytes, original: tuple[str, int] | None) -> None:
    assert parse_proxy_header(data) == (len(data), original)
    assert parse_proxy_header(data + b"\1\0\0") == (len(data), original)
    for cut in range(len(data)):
        assert parse_proxy_header(data[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [b"P", b"PROXY TCP4", SIGNATURE[:5] + b"X", b"\1\0", header(V4, command=0x11),
     header(V4, command=0x22), header(bytes(MAX_HEADER))],
)  # fmt: skip
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_proxy_header(data)
    assert caught.value.reason == 1


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes(data: bytes, signed: bool) -> None:
    try:
        parsed = parse_proxy_header(SIGNATURE + data if signed else data)
    except RemoteProtocolError:
        return
    assert parsed is None or parsed[0] <= MAX_HEADER
