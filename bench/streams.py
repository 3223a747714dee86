"""What the replaying sender puts on the wire, encoded before the clock starts.

An instance is a *head* of its own (command PDU and the first part of the data set, with its UIDs
patched in) and a *tail* that all instances of a run share.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.objects import (
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    MIB,
    Identity,
    Image,
    patched,
    pixels,
)

STORE_CONTEXT, ECHO_CONTEXT = 1, 3

UNLIMITED_MEANS = MIB
"""The PDU length we use with a peer that announces no limit (0)."""

IN_MEMORY = 64 << 10
"""Tails up to this size are sent from memory, longer ones with sendfile from a memory file."""

_VERIFICATION = "1.2.840.10008.1.1"
_IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def pdu(kind: int, body: bytes) -> bytes:
    """Return a PDU (PS3.8 9.3.1)."""
    return struct.pack(">BxL", kind, len(body)) + body


def associate_rq(called: str, calling: str = "REPLAY") -> bytes:
    """Return an A-ASSOCIATE-RQ with a context for CT Image Storage and one for Verification."""

    def context(identifier: int, abstract: str, transfer: str) -> bytes:
        syntaxes = _item(0x30, abstract.encode()) + _item(0x40, transfer.encode())
        return _item(0x20, bytes([identifier, 0, 0, 0]) + syntaxes)

    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"2.25.7433")
    return pdu(
        0x01,
        b"\0\1\0\0"
        + called.encode().ljust(16)
        + calling.encode().ljust(16)
        + bytes(32)
        + _item(0x10, b"1.2.840.10008.3.1.1.1")
        + context(STORE_CONTEXT, CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN)
        + context(ECHO_CONTEXT, _VERIFICATION, _IMPLICIT_VR_LITTLE_ENDIAN)
        + _item(0x50, user + _item(0x55, b"REPLAY")),
    )


RELEASE_RQ = pdu(0x05, bytes(4))
ABORT = pdu(0x07, bytes(4))


def command_pdu(context_id: int, *elements: tuple[int, bytes]) -> bytes:
    """Return a command set of group 0000 in a PDU of its own (PS3.7 6.3.1)."""
    body = b"".join(
        struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements
    )
    command = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    return pdu(0x04, struct.pack(">LBB", len(command) + 2, context_id, 3) + command)


def _us(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _padded(uid: bytes) -> bytes:
    return uid + b"\0" * (len(uid) % 2)


def echo_pdu() -> bytes:
    """Return a C-ECHO-RQ."""
    return command_pdu(
        ECHO_CONTEXT,
        (0x0002, _padded(_VERIFICATION.encode())),
        (0x0100, _us(0x0030)),
        (0x0110, _us(1)),
        (0x0800, _us(0x0101)),
    )


def store_pdu(message_id: int, sop_instance_uid: bytes) -> bytes:
    """Return the command PDU of a C-STORE-RQ."""
    return command_pdu(
        STORE_CONTEXT,
        (0x0002, _padded(CT_IMAGE_STORAGE.encode())),
        (0x0100, _us(0x0001)),
        (0x0110, _us(message_id)),
        (0x0700, _us(0)),
        (0x0800, _us(0)),
        (0x1000, _padded(sop_instance_uid)),
    )


@dataclass(frozen=True)
class Tail:
    """The end of every instance's stream: bytes, or a memory file and its length."""

    memory: bytes = b""
    file: int = -1
    length: int = 0

    def close(self) -> None:
        """Free the memory file."""
        if self.file >= 0:
            os.close(self.file)


class Encoding:
    """An image encoded for one maximum PDU length.

    Standard: PS3.8 9.3.5: the maximum bounds the PDU length field, so that one PDV carries at most
    six bytes less.
    """

    def __init__(self, image: Image, maximum: int) -> None:
        self._image = image
        self._payload = ((maximum or UNLIMITED_MEANS) - 6) & ~1
        if len(image.header) > self._payload:
            raise ValueError(f"maximum PDU length {maximum} is below {len(image.header)} + 6 bytes")
        self._first_pdv = self._pdv_header(0)
        self.tail = self._tail()

    def head(self, message_id: int, identity: Identity) -> bytes:
        """Return the bytes of one instance that come before the tail."""
        header = patched(self._image, identity)
        return store_pdu(message_id, identity.sop_instance_uid) + self._first_pdv + header

    def heads(self, identities: Iterable[Identity]) -> list[bytes]:
        """Return the heads of the instances that one association sends, in order."""
        return [self.head(index % 65535 + 1, each) for index, each in enumerate(identities)]

    def close(self) -> None:
        """Free the tail."""
        self.tail.close()

    def _pdv_header(self, offset: int) -> bytes:
        length = min(self._payload, self._image.length - offset)
        last = offset + length == self._image.length
        return struct.pack(">BxLLBB", 0x04, length + 6, length + 2, STORE_CONTEXT, 2 if last else 0)

    def _tail_parts(self) -> Iterator[bytes | memoryview]:
        offset = len(self._image.header)
        boundary = self._payload
        while offset < self._image.length:
            if offset == boundary:
                yield self._pdv_header(offset)
                boundary += self._payload
            end = min(boundary, self._image.length, offset + MIB)
            yield pixels(offset - len(self._image.header), end - offset)
            offset = end

    def _tail(self) -> Tail:
        parts = self._tail_parts()
        if self._image.pixel_bytes <= IN_MEMORY:
            memory = b"".join(parts)
            return Tail(memory, length=len(memory))
        descriptor = os.memfd_create("tail")
        length = 0
        with os.fdopen(descriptor, "wb", buffering=MIB, closefd=False) as file:
            for part in parts:
                length += file.write(part)
        return Tail(file=descriptor, length=length)
