"""The user-information sub-items of A-ASSOCIATE-RQ and -AC.

Each class is one sub-item with ``encode`` and ``decode``; the byte layouts stand beside the fields.
All numbers are big-endian.

Standard: PS3.8 annex D.1 (maximum length), PS3.7 annex D.3.3.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from hilum.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "AsynchronousOperationsWindow",
    "CommonExtendedNegotiation",
    "ExtendedNegotiation",
    "ImplementationClassUID",
    "ImplementationVersionName",
    "MaximumLength",
    "RoleSelection",
    "UnknownItem",
    "UserIdentityRQ",
    "UserIdentityResponse",
    "UserIdentityType",
    "UserItem",
    "decode_uid",
    "decode_user_items",
    "encode_item",
    "encode_uid",
    "split_items",
]

_ITEM = struct.Struct(">BBH")
_H = struct.Struct(">H")


def encode_item(item_type: int, body: bytes) -> bytes:
    """An item or sub-item: type, reserved byte, 16-bit length, body.

    Raises:
        LocalProtocolError: the body is over 65,535 bytes, which the length cannot express.
    """
    if len(body) > 0xFFFF:
        raise LocalProtocolError(f"item {item_type:02X}H of {len(body)} bytes, at most 65535")
    return _ITEM.pack(item_type, 0, len(body)) + body


def split_items(data: bytes, what: str) -> Iterator[tuple[int, bytes]]:
    """The items laid end to end in ``data``, as (type, body).

    Raises:
        RemoteProtocolError: a header or body that does not fit.
    """
    position, end = 0, len(data)
    while position < end:
        if position + 4 > end:
            raise RemoteProtocolError(f"{what} ends inside an item header", 6)
        item_type, _, length = _ITEM.unpack_from(data, position)
        position += 4
        if length > end - position:
            raise RemoteProtocolError(
                f"{what}: item {item_type:02X}H announces {length} bytes, {end - position} are left",
                6,
            )
        yield item_type, data[position : position + length]
        position += length


def decode_uid(raw: bytes) -> str:
    """A UID as text, trailing NULs and spaces stripped (some peers pad; PS3.5 9.1)."""
    # Interned: every association has the same few, and an idle one should hold little.
    return sys.intern(raw.decode("latin-1").rstrip("\0 ").lstrip(" "))


def encode_uid(uid: str) -> bytes:
    """A UID without padding: in A-ASSOCIATE it is never padded (PS3.8 annex F)."""
    try:
        return uid.encode("ascii")
    except UnicodeError:
        raise LocalProtocolError(f"not a UID: {uid!r}") from None


class _Cursor:
    """Reads length-prefixed fields; every overrun is the peer's error."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.position = data, what, 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise RemoteProtocolError(f"{self.what} is cut short at byte {len(self.data)}", 6)
        taken, self.position = self.data[self.position : end], end
        return taken

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def byte(self) -> int:
        return self.take(1)[0]

    def field(self) -> bytes:
        return self.take(self.short())

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)


def _field(raw: bytes, what: str) -> bytes:
    if len(raw) > 0xFFFF:
        raise LocalProtocolError(f"{what} of {len(raw)} bytes, at most 65535")
    return _H.pack(len(raw)) + raw


@dataclass(frozen=True, slots=True)
class MaximumLength:
    """51H: the longest P-DATA-TF body its sender takes; 0 means no limit (PS3.8 D.1)."""

    item_type: ClassVar[int] = 0x51
    length: int = 0

    def encode(self) -> bytes:
        """Bytes 5-8: maximum length received."""
        return encode_item(self.item_type, struct.pack(">I", self.length))

    @classmethod
    def decode(cls, data: bytes) -> MaximumLength:
        """From the item's body."""
        return cls(int.from_bytes(_Cursor(data, "maximum length item").take(4), "big"))


@dataclass(frozen=True, slots=True)
class ImplementationClassUID:
    """52H (PS3.7 D.3.3.2.1)."""

    item_type: ClassVar[int] = 0x52
    uid: str = ""

    def encode(self) -> bytes:
        """Bytes 5-: the UID."""
        return encode_item(self.item_type, encode_uid(self.uid))

    @classmethod
    def decode(cls, data: bytes) -> ImplementationClassUID:
        """From the item's body."""
        return cls(decode_uid(data))


@dataclass(frozen=True, slots=True)
class ImplementationVersionName:
    """55H, up to 16 characters (PS3.7 D.3.3.2.3)."""

    item_type: ClassVar[int] = 0x55
    name: str = ""

    def encode(self) -> bytes:
        """Bytes 5-: the name."""
        return encode_item(self.item_type, self.name.encode("latin-1", "replace")[:16])

    @classmethod
    def decode(cls, data: bytes) -> ImplementationVersionName:
        """From the item's body."""
        return cls(data.decode("latin-1").strip("\0 "))


@dataclass(frozen=True, slots=True)
class AsynchronousOperationsWindow:
    """53H: outstanding operations invoked and performed; 0 means unlimited (PS3.7 D.3.3.3)."""

    item_type: ClassVar[int] = 0x53
    invoked: int = 1
    performed: int = 1

    def encode(self) -> bytes:
        """Bytes 5-6: invoked; 7-8: performed."""
        return encode_item(self.item_type, struct.pack(">HH", self.invoked, self.performed))

    @classmethod
    def decode(cls, data: bytes) -> AsynchronousOperationsWindow:
        """From the item's body."""
        cursor = _Cursor(data, "asynchronous operations window item")
        return cls(cursor.short(), cursor.short())


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """54H: which roles the requestor proposes, or the acceptor grants (PS3.7 D.3.3.4)."""

    item_type: ClassVar[int] = 0x54
    sop_class_uid: str
    scu: bool
    scp: bool

    def encode(self) -> bytes:
        """Bytes 5-6: UID length; UID; SCU role; SCP role."""
        body = _field(encode_uid(self.sop_class_uid), "SOP class UID") + bytes((self.scu, self.scp))
        return encode_item(self.item_type, body)

    @classmethod
    def decode(cls, data: bytes) -> RoleSelection:
        """From the item's body."""
        cursor = _Cursor(data, "role selection item")
        return cls(decode_uid(cursor.field()), cursor.byte() == 1, cursor.byte() == 1)


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """56H: service-class application information (PS3.7 D.3.3.5)."""

    item_type: ClassVar[int] = 0x56
    sop_class_uid: str
    information: bytes

    def encode(self) -> bytes:
        """Bytes 5-6: UID length; UID; information."""
        body = _field(encode_uid(self.sop_class_uid), "SOP class UID") + self.information
        return encode_item(self.item_type, body)

    @classmethod
    def decode(cls, data: bytes) -> ExtendedNegotiation:
        """From the item's body."""
        cursor = _Cursor(data, "extended negotiation item")
        return cls(decode_uid(cursor.field()), cursor.rest())


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """57H: service class and related general SOP classes (PS3.7 D.3.3.6)."""

    item_type: ClassVar[int] = 0x57
    sop_class_uid: str
    service_class_uid: str
    related_general_sop_class_uids: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """SOP class UID, service class UID, related classes; each with its 16-bit length."""
        related = b"".join(
            _field(encode_uid(uid), "related SOP class UID")
            for uid in self.related_general_sop_class_uids
        )
        body = (
            _field(encode_uid(self.sop_class_uid), "SOP class UID")
            + _field(encode_uid(self.service_class_uid), "service class UID")
            + _field(related, "related SOP class identification")
        )
        return encode_item(self.item_type, body)

    @classmethod
    def decode(cls, data: bytes) -> CommonExtendedNegotiation:
        """From the item's body; what follows the related classes is reserved and ignored."""
        cursor = _Cursor(data, "common extended negotiation item")
        sop_class, service_class = decode_uid(cursor.field()), decode_uid(cursor.field())
        inner = _Cursor(cursor.field(), "related general SOP classes")
        related = []
        while inner.position < len(inner.data):
            related.append(decode_uid(inner.field()))
        return cls(sop_class, service_class, tuple(related))


class UserIdentityType(IntEnum):
    """PS3.7 Table D.3-14."""

    USERNAME = 1
    USERNAME_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@dataclass(frozen=True, slots=True)
class UserIdentityRQ:
    """58H: who asks (PS3.7 D.3.3.7.1). Its representation never shows the fields' bytes."""

    item_type: ClassVar[int] = 0x58
    identity_type: int
    primary: bytes
    secondary: bytes = b""
    response_requested: bool = False

    def __repr__(self) -> str:
        return (
            f"UserIdentityRQ(identity_type={self.identity_type}, primary=<{len(self.primary)} bytes>, "
            f"secondary=<{len(self.secondary)} bytes>, response_requested={self.response_requested})"
        )

    def encode(self) -> bytes:
        """Byte 5: type; 6: response requested; primary and secondary field with lengths."""
        body = (
            bytes((self.identity_type, self.response_requested))
            + _field(self.primary, "primary field")
            + _field(self.secondary, "secondary field")
        )
        return encode_item(self.item_type, body)

    @classmethod
    def decode(cls, data: bytes) -> UserIdentityRQ:
        """From the item's body."""
        cursor = _Cursor(data, "user identity item")
        identity_type, response = cursor.byte(), cursor.byte() == 1
        return cls(identity_type, cursor.field(), cursor.field(), response)


@dataclass(frozen=True, slots=True)
class UserIdentityResponse:
    """59H: the acceptor's answer (PS3.7 D.3.3.7.2)."""

    item_type: ClassVar[int] = 0x59
    server_response: bytes = b""

    def __repr__(self) -> str:
        return f"UserIdentityResponse(server_response=<{len(self.server_response)} bytes>)"

    def encode(self) -> bytes:
        """Bytes 5-6: length; server response."""
        return encode_item(self.item_type, _field(self.server_response, "server response"))

    @classmethod
    def decode(cls, data: bytes) -> UserIdentityResponse:
        """From the item's body."""
        return cls(_Cursor(data, "user identity response item").field())


@dataclass(frozen=True, slots=True)
class UnknownItem:
    """A sub-item no edition of the standard we know of defines; kept, never acted on."""

    item_type: int
    data: bytes

    def encode(self) -> bytes:
        """As it came."""
        return encode_item(self.item_type, self.data)


UserItem = (
    MaximumLength
    | ImplementationClassUID
    | ImplementationVersionName
    | AsynchronousOperationsWindow
    | RoleSelection
    | ExtendedNegotiation
    | CommonExtendedNegotiation
    | UserIdentityRQ
    | UserIdentityResponse
    | UnknownItem
)

_DECODERS: dict[int, Callable[[bytes], UserItem]] = {
    0x51: MaximumLength.decode,
    0x52: ImplementationClassUID.decode,
    0x53: AsynchronousOperationsWindow.decode,
    0x54: RoleSelection.decode,
    0x55: ImplementationVersionName.decode,
    0x56: ExtendedNegotiation.decode,
    0x57: CommonExtendedNegotiation.decode,
    0x58: UserIdentityRQ.decode,
    0x59: UserIdentityResponse.decode,
}


def decode_user_items(data: bytes) -> tuple[UserItem, ...]:
    """The sub-items of a user-information item, in order.

    Raises:
        RemoteProtocolError: a known sub-item that does not hold what it must.
    """
    return tuple(
        decoder(body) if (decoder := _DECODERS.get(kind)) else UnknownItem(kind, body)
        for kind, body in split_items(data, "user information item")
    )
