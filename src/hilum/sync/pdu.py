"""PDUs as observers get them: ``event.pdu`` of ``EVT_PDU_RECV`` and ``EVT_PDU_SENT``.

Standard: PS3.8 9.3.
"""

from __future__ import annotations

from typing import Any

from hilum.errors import RemoteProtocolError
from hilum.wire import pdu as wire

__all__ = [
    "A_ABORT_RQ",
    "A_ASSOCIATE_AC",
    "A_ASSOCIATE_RJ",
    "A_ASSOCIATE_RQ",
    "A_RELEASE_RP",
    "A_RELEASE_RQ",
    "PDU",
    "P_DATA_TF",
    "decode",
]


class PDU:
    """A PDU: its bytes, and what they say."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self.pdu_type = encoded[0]
        self.pdu_length = len(encoded) - 6

    def encode(self) -> bytes:
        """Its bytes."""
        return self._encoded

    @property
    def decoded(self) -> wire.PDU | None:
        """The same as ``hilum.wire`` reads it; None for P-DATA-TF and what cannot be read."""
        try:
            return None if self.pdu_type == 4 else wire.decode_pdu(self.pdu_type, self._encoded[6:])
        except RemoteProtocolError:
            return None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.decoded, name)

    def __len__(self) -> int:
        return len(self._encoded)

    def __str__(self) -> str:
        return f"{type(self).__name__.replace('_', '-')} PDU of {len(self)} bytes: {self.decoded}"


class A_ASSOCIATE_RQ(PDU):
    """PS3.8 9.3.2."""


class A_ASSOCIATE_AC(PDU):
    """PS3.8 9.3.3."""


class A_ASSOCIATE_RJ(PDU):
    """PS3.8 9.3.4."""


class P_DATA_TF(PDU):
    """PS3.8 9.3.5."""


class A_RELEASE_RQ(PDU):
    """PS3.8 9.3.6."""


class A_RELEASE_RP(PDU):
    """PS3.8 9.3.7."""


class A_ABORT_RQ(PDU):
    """PS3.8 9.3.8."""


_KINDS = {
    1: A_ASSOCIATE_RQ,
    2: A_ASSOCIATE_AC,
    3: A_ASSOCIATE_RJ,
    4: P_DATA_TF,
    5: A_RELEASE_RQ,
    6: A_RELEASE_RP,
    7: A_ABORT_RQ,
}


def decode(encoded: bytes) -> PDU:
    """The PDU that the bytes are."""
    return _KINDS.get(encoded[0], PDU)(encoded)
