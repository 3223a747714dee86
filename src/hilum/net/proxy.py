"""PROXY protocol version 2: the peer's address as a load balancer saw it.

Read only from balancers that the configuration lists, before anything else, a TLS handshake
included; from anyone else the same bytes are an unrecognised PDU. Version 1 (text) is not read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct

from hilum.errors import ConnectionLost, RemoteProtocolError

__all__ = ["MAX_HEADER", "SIGNATURE", "parse_proxy_header", "read_proxy_header"]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# 16 bytes, addresses of at most 216 (Unix sockets) and TLVs; balancers send fewer than 600.
MAX_HEADER = 2048
_FIXED = struct.Struct(">12sBBH")


def parse_proxy_header(data: bytes) -> tuple[int, tuple[str, int] | None] | None:
    """The header's length and the original (address, port).

    Returns:
        None while more bytes are needed; an address of None for LOCAL (a balancer's own health
        check) and for families other than IPv4 and IPv6.

    Raises:
        RemoteProtocolError: not a PROXY v2 header, or one over ``MAX_HEADER`` bytes.
    """
    if not data.startswith(SIGNATURE[: len(data)]):
        raise RemoteProtocolError("no PROXY v2 header from a listed balancer", 1)
    if len(data) < _FIXED.size:
        return None
    _, version, family, length = _FIXED.unpack_from(data)
    if version >> 4 != 2 or version & 0xF > 1:
        raise RemoteProtocolError(f"PROXY header of version and command {version:02X}H", 1)
    total = _FIXED.size + length
    if total > MAX_HEADER:
        raise RemoteProtocolError(f"PROXY header of {total} bytes, at most {MAX_HEADER}", 1)
    if len(data) < total:
        return None
    body = data[_FIXED.size : total]
    if version & 0xF == 0:
        return total, None
    if family == 0x11 and len(body) >= 12:
        return total, (str(ipaddress.IPv4Address(body[:4])), int.from_bytes(body[8:10], "big"))
    if family == 0x21 and len(body) >= 36:
        return total, (str(ipaddress.IPv6Address(body[:16])), int.from_bytes(body[32:34], "big"))
    return total, None


async def read_proxy_header(sock: socket.socket) -> tuple[str, int] | None:
    """Take the header off a socket, and nothing of what follows it.

    Returns:
        As ``parse_proxy_header``: the original address, or None where it names none.

    Raises:
        RemoteProtocolError: not a PROXY v2 header.
        ConnectionLost: the connection ended within it.
    """
    loop = asyncio.get_running_loop()
    data = b""
    while (parsed := parse_proxy_header(data)) is None:
        size = _FIXED.size
        if len(data) >= size:
            size += _FIXED.unpack_from(data)[3]
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise ConnectionLost("the connection ended within the PROXY header")
        data += piece
    return parsed[1]
