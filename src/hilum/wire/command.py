"""Command sets of the DIMSE messages.

A command set is always Implicit VR Little Endian (PS3.7 6.3.1). ``Command`` keeps each element's
bytes as they came and decodes them when asked, so that what some peers need echoed exactly
(a space-padded Affected SOP Instance UID) can be.

Standard: PS3.7 9.3, 10.3 and annex E.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, Final

from hilum.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError

__all__ = ["MAX_COMMAND_LENGTH", "NO_DATA_SET", "REQUIRED", "Command", "CommandField", "Priority"]

# A command set is a few hundred bytes; the only value without a bound in the standard is the
# Attribute Identifier List of N-GET, and 16,000 tags fit here.
MAX_COMMAND_LENGTH = 65_536
MAX_COMMAND_ELEMENTS = 256

NO_DATA_SET = 0x0101
HAS_DATA_SET = 0x0001

_RESPONSE = 0x8000


class CommandField(IntEnum):
    """(0000,0100), PS3.7 annex E."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RQ = 0x0110
    N_GET_RSP = 0x8110
    N_SET_RQ = 0x0120
    N_SET_RSP = 0x8120
    N_ACTION_RQ = 0x0130
    N_ACTION_RSP = 0x8130
    N_CREATE_RQ = 0x0140
    N_CREATE_RSP = 0x8140
    N_DELETE_RQ = 0x0150
    N_DELETE_RSP = 0x8150
    C_CANCEL_RQ = 0x0FFF


class Priority(IntEnum):
    """(0000,0700), PS3.7 annex E."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


# What a message cannot be understood without, by command field. The standard requires more
# (Priority, the SOP class and instance of a response); peers leave those out and are served.
_RSP = ("message_id_being_responded_to", "status")
_N_RQ = ("message_id", "requested_sop_class_uid", "requested_sop_instance_uid")
REQUIRED: dict[int, tuple[str, ...]] = {
    CommandField.C_STORE_RQ: ("message_id", "affected_sop_class_uid", "affected_sop_instance_uid"),
    CommandField.C_GET_RQ: ("message_id", "affected_sop_class_uid"),
    CommandField.C_FIND_RQ: ("message_id", "affected_sop_class_uid"),
    CommandField.C_MOVE_RQ: ("message_id", "affected_sop_class_uid", "move_destination"),
    CommandField.C_ECHO_RQ: ("message_id",),
    CommandField.N_EVENT_REPORT_RQ: (
        "message_id",
        "affected_sop_class_uid",
        "affected_sop_instance_uid",
        "event_type_id",
    ),
    CommandField.N_GET_RQ: _N_RQ,
    CommandField.N_SET_RQ: _N_RQ,
    CommandField.N_ACTION_RQ: (*_N_RQ, "action_type_id"),
    CommandField.N_CREATE_RQ: ("message_id", "affected_sop_class_uid"),
    CommandField.N_DELETE_RQ: _N_RQ,
    CommandField.C_CANCEL_RQ: ("message_id_being_responded_to",),
    CommandField.C_STORE_RSP: _RSP,
    CommandField.C_GET_RSP: _RSP,
    CommandField.C_FIND_RSP: _RSP,
    CommandField.C_MOVE_RSP: _RSP,
    CommandField.C_ECHO_RSP: _RSP,
    CommandField.N_EVENT_REPORT_RSP: _RSP,
    CommandField.N_GET_RSP: _RSP,
    CommandField.N_SET_RSP: _RSP,
    CommandField.N_ACTION_RSP: _RSP,
    CommandField.N_CREATE_RSP: _RSP,
    CommandField.N_DELETE_RSP: _RSP,
}

# What a response repeats of its request, and as which element: SOP class, SOP instance, Message ID.
_ECHOED = {0x0002: 0x0002, 0x0003: 0x0002, 0x1000: 0x1000, 0x1001: 0x1000, 0x0110: 0x0120}

_HEADER = struct.Struct("<HHI")
_US = struct.Struct("<H")
_GROUP_LENGTH = struct.Struct("<HHII")


def _text(raw: bytes) -> str:
    # Latin-1 cannot fail; what is not a UID or an AE title is refused by whoever needs one.
    return raw.decode("latin-1").rstrip("\0 ")


def _decode_us(raw: bytes) -> int:
    if len(raw) != 2:
        raise RemoteProtocolError(f"command element of VR US has {len(raw)} bytes, expected 2", 6)
    return int.from_bytes(raw, "little")


def _decode_at(raw: bytes) -> tuple[int, ...]:
    if len(raw) % 4:
        raise RemoteProtocolError(f"command element of VR AT has {len(raw)} bytes", 6)
    words = struct.unpack(f"<{len(raw) // 2}H", raw)
    return tuple(
        group << 16 | element for group, element in zip(words[::2], words[1::2], strict=True)
    )


def _encode_ui(value: str) -> bytes:
    raw = value.encode("latin-1")
    return raw + b"\0" if len(raw) % 2 else raw


def _encode_text(value: str) -> bytes:
    raw = value.encode("latin-1", "replace")
    return raw + b" " if len(raw) % 2 else raw


def _encode_at(value: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)


_CODECS: Final[dict[str, tuple[Any, Any]]] = {
    "US": (_decode_us, _US.pack),
    "UI": (_text, _encode_ui),
    "AE": (lambda raw: _text(raw).strip(" "), _encode_text),
    "LO": (_text, _encode_text),
    "AT": (_decode_at, _encode_at),
}

# PS3.7 annex E.1 without the group length. Tags are the element number of group 0000.
ELEMENTS: Final[dict[str, tuple[int, str]]] = {
    "affected_sop_class_uid": (0x0002, "UI"),
    "requested_sop_class_uid": (0x0003, "UI"),
    "command_field": (0x0100, "US"),
    "message_id": (0x0110, "US"),
    "message_id_being_responded_to": (0x0120, "US"),
    "move_destination": (0x0600, "AE"),
    "priority": (0x0700, "US"),
    "command_data_set_type": (0x0800, "US"),
    "status": (0x0900, "US"),
    "offending_element": (0x0901, "AT"),
    "error_comment": (0x0902, "LO"),
    "error_id": (0x0903, "US"),
    "affected_sop_instance_uid": (0x1000, "UI"),
    "requested_sop_instance_uid": (0x1001, "UI"),
    "event_type_id": (0x1002, "US"),
    "attribute_identifier_list": (0x1005, "AT"),
    "action_type_id": (0x1008, "US"),
    "number_of_remaining_suboperations": (0x1020, "US"),
    "number_of_completed_suboperations": (0x1021, "US"),
    "number_of_failed_suboperations": (0x1022, "US"),
    "number_of_warning_suboperations": (0x1023, "US"),
    "move_originator_application_entity_title": (0x1030, "AE"),
    "move_originator_message_id": (0x1031, "US"),
}
_NAMES = {tag: name for name, (tag, _) in ELEMENTS.items()}
_ENCODERS: Final[dict[str, tuple[int, Any]]] = {
    name: (tag, _CODECS[vr][1]) for name, (tag, vr) in ELEMENTS.items()
}
# By the bytes of the command field: tag and name of what is required, and whether its VR is US.
_REQUIRED: Final = {
    _US.pack(field): tuple((ELEMENTS[name][0], name, ELEMENTS[name][1] == "US") for name in names)
    for field, names in REQUIRED.items()
}


class _Element:
    """An element of a command set as an attribute, decoded when it is read."""

    __slots__ = ("decode", "name", "tag")

    def __init__(self, name: str) -> None:
        self.name = name
        self.tag, vr = ELEMENTS[name]
        self.decode = _CODECS[vr][0]

    def __get__(self, command: Command, owner: type[Command]) -> Any:
        raw = command.raw.get(self.tag)
        if raw is None:
            raise RemoteProtocolError(f"{command.name} without {self.name}", 6)
        return self.decode(raw)


class Command:
    """One command set, read or about to be sent.

    Every name of ``ELEMENTS`` is an attribute. Reading one that is absent or malformed raises
    ``RemoteProtocolError``; ``get`` returns None where it is absent.

    Standard: PS3.7 6.3.1, annex E.

    Args:
        field: Command Field (0000,0100).
        has_data_set: whether a data set follows (0000,0800).
        elements: further elements by name; None leaves one out.

    Raises:
        LocalProtocolError: a name or value that no command element can have.
    """

    __slots__ = ("raw",)
    raw: dict[int, bytes]

    # Declared for readers and type checkers; each is an ``_Element``.
    affected_sop_class_uid: str
    requested_sop_class_uid: str
    command_field: int
    message_id: int
    message_id_being_responded_to: int
    move_destination: str
    priority: int
    command_data_set_type: int
    status: int
    offending_element: tuple[int, ...]
    error_comment: str
    error_id: int
    affected_sop_instance_uid: str
    requested_sop_instance_uid: str
    event_type_id: int
    attribute_identifier_list: tuple[int, ...]
    action_type_id: int
    number_of_remaining_suboperations: int
    number_of_completed_suboperations: int
    number_of_failed_suboperations: int
    number_of_warning_suboperations: int
    move_originator_application_entity_title: str
    move_originator_message_id: int

    def __init__(self, field: int, *, has_data_set: bool = False, **elements: Any) -> None:
        raw = self.raw = {
            0x0100: _US.pack(field),
            0x0800: _US.pack(HAS_DATA_SET if has_data_set else NO_DATA_SET),
        }
        name, value = "", None
        try:
            for name, value in elements.items():
                if value is not None:
                    tag, encode = _ENCODERS[name]
                    raw[tag] = value if isinstance(value, bytes) else encode(value)
        except (KeyError, struct.error, UnicodeError, TypeError, AttributeError) as error:
            raise LocalProtocolError(f"command element {name}={value!r}: {error}") from error

    def get(self, name: str) -> Any:
        """The decoded element, or None where it is absent."""
        return getattr(self, name) if ELEMENTS[name][0] in self.raw else None

    def __contains__(self, name: str) -> bool:
        return ELEMENTS[name][0] in self.raw

    def __repr__(self) -> str:
        return f"<{self.name} {' '.join(map(self._shown, sorted(_NAMES.keys() & self.raw)))}>"

    def _shown(self, tag: int) -> str:
        name = _NAMES[tag]
        try:
            return f"{name}={self.get(name)!r}"
        except RemoteProtocolError:
            return f"{name}=<{self.raw[tag].hex()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Command) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]  # mutable while it is being built

    @property
    def name(self) -> str:
        """The message's name, such as ``C-STORE-RQ``."""
        raw = self.raw.get(0x0100, b"")
        try:
            return CommandField(int.from_bytes(raw, "little")).name.replace("_", "-")
        except ValueError:
            return f"message {raw.hex()}"

    @property
    def is_response(self) -> bool:
        """Whether this answers a request of ours."""
        return bool(self.command_field & _RESPONSE)

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows: any type other than 0101H (PS3.7 9.3.1.1)."""
        return self.raw.get(0x0800) != b"\x01\x01"

    def response(self, status: int, *, has_data_set: bool = False, **elements: Any) -> Command:
        """The response to this request, SOP class and instance echoed byte for byte.

        Standard: PS3.7 9.3.1.2 and its siblings.
        """
        answer = Command(self.command_field | _RESPONSE, has_data_set=has_data_set, **elements)
        said = answer.raw
        for tag, value in self.raw.items():
            echoed = _ECHOED.get(tag)
            if echoed is not None and echoed not in said:
                said[echoed] = value
        said[0x0900] = _US.pack(status)
        return answer

    def encode(self) -> bytes:
        """Implicit VR Little Endian, group length first."""
        raw, pack = self.raw, _HEADER.pack
        body = b"".join([pack(0, tag, len(raw[tag])) + raw[tag] for tag in sorted(raw)])
        return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Command:
        """Read a command set; a wrong or missing group length is not minded.

        Raises:
            RemoteProtocolError: not a command set, or one that lacks what ``REQUIRED`` names.
            LimitExceeded: over ``MAX_COMMAND_LENGTH`` or ``MAX_COMMAND_ELEMENTS``.
        """
        end = len(data)
        if end > MAX_COMMAND_LENGTH:
            raise LimitExceeded(f"command set of {end} bytes, at most {MAX_COMMAND_LENGTH}", 6)
        data = bytes(data)
        raw: dict[int, bytes] = {}
        position = 0
        unpack = _HEADER.unpack_from
        while position < end:
            if position + 8 > end:
                raise RemoteProtocolError("command set ends inside an element header", 6)
            group, tag, length = unpack(data, position)
            start = position + 8
            position = start + length
            if group or position > end:
                raise RemoteProtocolError(
                    f"command element ({group:04X},{tag:04X}) of length {length} does not fit", 6
                )
            if tag:
                raw[tag] = data[start:position]
        if len(raw) > MAX_COMMAND_ELEMENTS:
            raise LimitExceeded(f"more than {MAX_COMMAND_ELEMENTS} command elements", 6)
        command = cls.__new__(cls)
        command.raw = raw
        command._check()
        return command

    def _check(self) -> None:
        """What every message needs, so that nobody below has to ask again."""
        raw = self.raw
        required = _REQUIRED.get(raw.get(0x0100, b""))
        if required is None:
            raise RemoteProtocolError(f"unknown command field {self.command_field:04X}H", 6)
        for tag, name, is_number in required:
            value = raw.get(tag)
            if value is None:
                raise RemoteProtocolError(f"{self.name} without {name}", 6)
            if is_number and len(value) != 2:
                raise RemoteProtocolError(f"{self.name}: {name} has {len(value)} bytes", 6)


for _name in ELEMENTS:
    setattr(Command, _name, _Element(_name))
