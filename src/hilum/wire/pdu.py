"""The seven PDUs of the DICOM upper layer.

P-DATA-TF is the one PDU that is never built or read as a whole: its header and those of its PDVs
are packed by ``pdv_header`` and parsed in place by ``wire/connection.py``, so that a data set's
bytes are not copied.

Standard: PS3.8 9.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from hilum.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError

from .items import (
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    UserIdentityResponse,
    UserIdentityRQ,
    UserItem,
    decode_uid,
    decode_user_items,
    encode_item,
    encode_uid,
    split_items,
)

__all__ = [
    "APPLICATION_CONTEXT",
    "MAX_ASSOCIATE_LENGTH",
    "MAX_CONTEXTS",
    "PDU",
    "PDV_HEADER",
    "Abort",
    "AssociateAC",
    "AssociateRJ",
    "AssociateRQ",
    "ContextResult",
    "PresentationContext",
    "ReleaseRP",
    "ReleaseRQ",
    "decode_ae_title",
    "decode_pdu",
    "encode_ae_title",
    "pdv_header",
]

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

# Context ids are odd numbers from 1 to 255 (PS3.8 9.3.2.2).
MAX_CONTEXTS = 128
# 128 contexts with 60 transfer syntaxes of 64 bytes take 520 KB; a user identity 128 KB. Real
# requests stay below 30 KB, and this bounds what an unknown peer can make us hold.
MAX_ASSOCIATE_LENGTH = 1 << 20
# All standard transfer syntaxes are fewer than 70.
MAX_SYNTAXES_PER_CONTEXT = 256
MAX_USER_ITEMS = 1024

_PDU = struct.Struct(">BBI")
_FIXED = struct.Struct(">HH16s16s32s")
#: Header of a P-DATA-TF and of its first PDV (PS3.8 9.3.5, annex E.2).
PDV_HEADER = struct.Struct(">BBIIBB")


def encode_ae_title(title: str) -> bytes:
    """Sixteen bytes, padded with spaces.

    Raises:
        LocalProtocolError: empty, over 16 bytes, or not of the default repertoire.
    """
    raw = title.encode("latin-1", "replace").strip(b" ")
    if not raw or len(raw) > 16 or b"\\" in raw or any(c < 0x20 for c in raw):
        raise LocalProtocolError(f"not an AE title of 1 to 16 characters: {title!r}")
    return raw.ljust(16)


def decode_ae_title(raw: bytes) -> str:
    """Leading and trailing spaces and trailing NULs are not significant (PS3.8 9.3.2)."""
    return raw.decode("latin-1").rstrip("\0 ").lstrip(" ")


def pdv_header(context_id: int, length: int, *, command: bool, last: bool) -> bytes:
    """The twelve bytes before the only PDV of a P-DATA-TF PDU (PS3.8 9.3.5, annex E.2)."""
    return PDV_HEADER.pack(4, 0, length + 6, length + 2, context_id, command | last << 1)


class ContextResult:
    """Result of one presentation context in A-ASSOCIATE-AC (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """One presentation context: as proposed, or as answered.

    An answer has no abstract syntax, and one transfer syntax that counts only with result 0.
    """

    context_id: int
    abstract_syntax: str = ""
    transfer_syntaxes: tuple[str, ...] = ()
    result: int = ContextResult.ACCEPTANCE


Item = TypeVar("Item", bound=UserItem)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Associate:
    """What A-ASSOCIATE-RQ and -AC have in common."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[PresentationContext, ...]
    user_items: tuple[UserItem, ...] = ()
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1

    def all_items(self, kind: type[Item]) -> list[Item]:
        """Every user-information sub-item of one class, in order."""
        return [item for item in self.user_items if isinstance(item, kind)]

    def item(self, kind: type[Item]) -> Item | None:
        """The first user-information sub-item of one class."""
        return next((item for item in self.user_items if isinstance(item, kind)), None)

    @property
    def maximum_length(self) -> int:
        """Longest P-DATA-TF body the sender of this PDU takes, in bytes; 0 is no limit.

        An absent item is read as 16,384, what peers without one are known to hold.
        """
        item = self.item(MaximumLength)
        return 16_384 if item is None else item.length

    @property
    def implementation_class_uid(self) -> str:
        """Empty where the peer left it out."""
        item = self.item(ImplementationClassUID)
        return item.uid if item else ""

    @property
    def implementation_version_name(self) -> str:
        """Empty where the peer left it out."""
        item = self.item(ImplementationVersionName)
        return item.name if item else ""

    def _user_information(self) -> bytes:
        return encode_item(0x50, b"".join(item.encode() for item in self.user_items))


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRQ(_Associate):
    """A-ASSOCIATE-RQ (PS3.8 9.3.2)."""

    pdu_type: ClassVar[int] = 0x01

    @property
    def user_identity(self) -> UserIdentityRQ | None:
        """The user identity item, if any."""
        return self.item(UserIdentityRQ)

    def encode(self) -> bytes:
        """Bytes 7-8: version; 11-26: called; 27-42: calling AE title; 75-: items."""
        if not 1 <= len(self.contexts) <= MAX_CONTEXTS:
            raise LocalProtocolError(
                f"{len(self.contexts)} presentation contexts; an association has 1 to {MAX_CONTEXTS}"
            )
        contexts = b"".join(
            encode_item(
                0x20,
                bytes((c.context_id, 0, 0, 0))
                + encode_item(0x30, encode_uid(c.abstract_syntax))
                + b"".join(encode_item(0x40, encode_uid(uid)) for uid in c.transfer_syntaxes),
            )
            for c in self.contexts
        )
        return _associate_pdu(self, contexts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateAC(_Associate):
    """A-ASSOCIATE-AC (PS3.8 9.3.3). The AE titles echo the request and are never tested."""

    pdu_type: ClassVar[int] = 0x02

    @property
    def user_identity_response(self) -> UserIdentityResponse | None:
        """The acceptor's answer to a user identity, if any."""
        return self.item(UserIdentityResponse)

    def encode(self) -> bytes:
        """As A-ASSOCIATE-RQ, presentation contexts with their result."""
        contexts = b"".join(
            encode_item(
                0x21,
                bytes((c.context_id, 0, c.result, 0))
                # The peer's own bytes back to it: what it proposed need not be a UID.
                + encode_item(0x40, "".join(c.transfer_syntaxes[:1]).encode("latin-1", "replace")),
            )
            for c in self.contexts
        )
        return _associate_pdu(self, contexts)


def _echo_ae_title(title: str) -> bytes:
    """The peer's own title back to it, whatever it holds (PS3.8 9.3.3: not to be tested)."""
    return title.encode("latin-1", "replace")[:16].ljust(16)


def _associate_pdu(pdu: AssociateRQ | AssociateAC, contexts: bytes) -> bytes:
    title = encode_ae_title if isinstance(pdu, AssociateRQ) else _echo_ae_title
    body = (
        _FIXED.pack(
            pdu.protocol_version,
            0,
            title(pdu.called_ae_title),
            title(pdu.calling_ae_title),
            bytes(32),
        )
        + encode_item(0x10, encode_uid(pdu.application_context))
        + contexts
        + pdu._user_information()
    )
    return _PDU.pack(pdu.pdu_type, 0, len(body)) + body


def _decode_associate(data: bytes, context_item: int, what: str) -> dict[str, object]:
    if len(data) < _FIXED.size:
        raise RemoteProtocolError(f"{what} of {len(data)} bytes, at least {_FIXED.size}", 6)
    version, _, called, calling, _ = _FIXED.unpack_from(data)
    application_context = ""
    contexts: list[PresentationContext] = []
    user_items: tuple[UserItem, ...] = ()
    for kind, body in split_items(data[_FIXED.size :], what):
        if kind == 0x10:
            application_context = decode_uid(body)
        elif kind == context_item:
            contexts.append(_decode_context(body, what))
            if len(contexts) > 4 * MAX_CONTEXTS:
                raise LimitExceeded(f"{what} with more than {4 * MAX_CONTEXTS} contexts", 6)
        elif kind == 0x50:
            user_items += decode_user_items(body)
            if len(user_items) > MAX_USER_ITEMS:
                raise LimitExceeded(f"{what} with more than {MAX_USER_ITEMS} user items", 6)
        # Items of other types are ignored (PS3.8 9.3.1: reserved for later editions).
    return {
        "called_ae_title": decode_ae_title(called),
        "calling_ae_title": decode_ae_title(calling),
        "contexts": tuple(contexts),
        "user_items": user_items,
        "application_context": application_context,
        "protocol_version": version,
    }


def _decode_context(body: bytes, what: str) -> PresentationContext:
    if len(body) < 4:
        raise RemoteProtocolError(f"{what}: presentation context item of {len(body)} bytes", 6)
    abstract, transfer = "", []
    for kind, value in split_items(body[4:], "presentation context item"):
        if kind == 0x30:
            abstract = decode_uid(value)
        elif kind == 0x40:
            transfer.append(decode_uid(value))
            if len(transfer) > MAX_SYNTAXES_PER_CONTEXT:
                raise LimitExceeded(
                    f"{what}: context with more than {MAX_SYNTAXES_PER_CONTEXT} transfer syntaxes",
                    6,
                )
    return PresentationContext(body[0], abstract, tuple(transfer), body[2])


@dataclass(frozen=True, slots=True)
class AssociateRJ:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4). Values that the standard does not list are carried as they are."""

    pdu_type: ClassVar[int] = 0x03
    result: int
    source: int
    reason: int

    def encode(self) -> bytes:
        """Byte 8: result; 9: source; 10: reason."""
        return _PDU.pack(3, 0, 4) + bytes((0, self.result, self.source, self.reason))


@dataclass(frozen=True, slots=True)
class ReleaseRQ:
    """A-RELEASE-RQ (PS3.8 9.3.6)."""

    pdu_type: ClassVar[int] = 0x05

    def encode(self) -> bytes:
        """Bytes 7-10 are reserved."""
        return b"\x05\0\0\0\0\x04\0\0\0\0"


@dataclass(frozen=True, slots=True)
class ReleaseRP:
    """A-RELEASE-RP (PS3.8 9.3.7)."""

    pdu_type: ClassVar[int] = 0x06

    def encode(self) -> bytes:
        """Bytes 7-10 are reserved."""
        return b"\x06\0\0\0\0\x04\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT (PS3.8 9.3.8): source 0 service user, 2 service provider."""

    pdu_type: ClassVar[int] = 0x07
    source: int = 0
    reason: int = 0

    def encode(self) -> bytes:
        """Byte 9: source; 10: reason."""
        return _PDU.pack(7, 0, 4) + bytes((0, 0, self.source, self.reason))


PDU = AssociateRQ | AssociateAC | AssociateRJ | ReleaseRQ | ReleaseRP | Abort


def decode_pdu(pdu_type: int, data: bytes) -> PDU:
    """A PDU other than P-DATA-TF from its type and its body (what follows the six header bytes).

    Reserved bytes are never tested (PS3.8 9.3.1).

    Raises:
        RemoteProtocolError: unknown type (reason 1) or a body that cannot be read (reason 6).
    """
    if pdu_type == 1:
        return AssociateRQ(**_decode_associate(data, 0x20, "A-ASSOCIATE-RQ"))  # type: ignore[arg-type]  # one dict serves both
    if pdu_type == 2:
        return AssociateAC(**_decode_associate(data, 0x21, "A-ASSOCIATE-AC"))  # type: ignore[arg-type]  # one dict serves both
    if pdu_type in (3, 5, 6, 7):
        if len(data) < 4:
            raise RemoteProtocolError(
                f"PDU of type {pdu_type:02X}H has {len(data)} bytes, expected 4", 6
            )
        if pdu_type == 3:
            return AssociateRJ(data[1], data[2], data[3])
        if pdu_type == 7:
            return Abort(data[2], data[3])
        return ReleaseRQ() if pdu_type == 5 else ReleaseRP()
    raise RemoteProtocolError(f"unrecognised PDU type {pdu_type:02X}H", 1)
