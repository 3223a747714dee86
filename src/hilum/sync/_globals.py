"""Names and defaults that programs take from ``pynetdicom._globals``."""

from __future__ import annotations

from pydicom.uid import UID

from hilum.services.dictionary import uid_dictionary
from hilum.wire.pdu import APPLICATION_CONTEXT

__all__ = [
    "ALL_TRANSFER_SYNTAXES",
    "APPLICATION_CONTEXT_NAME",
    "DEFAULT_MAX_LENGTH",
    "DEFAULT_TRANSFER_SYNTAXES",
    "MODE_ACCEPTOR",
    "MODE_REQUESTOR",
    "STATUS_CANCEL",
    "STATUS_FAILURE",
    "STATUS_PENDING",
    "STATUS_SUCCESS",
    "STATUS_UNKNOWN",
    "STATUS_WARNING",
    "OptionalUIDType",
]

OptionalUIDType = str | bytes | UID | None

DEFAULT_MAX_LENGTH = 16382
"""Maximum length for P-DATA-TF bodies where a program names none, bytes."""

APPLICATION_CONTEXT_NAME = APPLICATION_CONTEXT

DEFAULT_TRANSFER_SYNTAXES: list[str] = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
]
"""Implicit, Explicit, Deflated Explicit VR Little Endian and Explicit VR Big Endian."""

# Younger than the dictionary of the oldest pydicom that we accept.
_YOUNGER = (
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
)

# Encapsulated Uncompressed: no peer asks for it, and programs count on the list as it is.
_UNUSED = {"1.2.840.10008.1.2.1.98"}


def _all_transfer_syntaxes() -> list[str]:
    current = {
        uid
        for uid, (_, uid_type, _, retired, _) in uid_dictionary().items()
        if uid_type == "Transfer Syntax" and not retired
    }
    rest = (current | set(_YOUNGER)) - set(DEFAULT_TRANSFER_SYNTAXES) - _UNUSED
    ordered = sorted(rest, key=lambda uid: [int(part) for part in uid.split(".")])
    return DEFAULT_TRANSFER_SYNTAXES + ordered


ALL_TRANSFER_SYNTAXES: list[str] = _all_transfer_syntaxes()
"""Every current transfer syntax of PS3.6, and Explicit VR Big Endian."""

MODE_ACCEPTOR = "acceptor"
MODE_REQUESTOR = "requestor"

STATUS_SUCCESS = "Success"
STATUS_FAILURE = "Failure"
STATUS_WARNING = "Warning"
STATUS_CANCEL = "Cancel"
STATUS_PENDING = "Pending"
STATUS_UNKNOWN = "Unknown"
