"""What a `hilum.wire.connection.Connection` tells of: the whole vocabulary between it and its user.

Standard: PS3.8 7.1 to 7.5 (indications and confirmations), PS3.7 6.3.
"""

from __future__ import annotations

from typing import NamedTuple

from hilum.errors import RemoteProtocolError
from hilum.wire.command import Command
from hilum.wire.pdu import AssociateAC, AssociateRJ, AssociateRQ

__all__ = [
    "Aborted",
    "Accepted",
    "CommandReceived",
    "DataFragment",
    "Established",
    "Lost",
    "Rejected",
    "ReleaseRequested",
    "Released",
    "Requested",
    "WireEvent",
]


class Requested(NamedTuple):
    """A-ASSOCIATE indication: answer with ``AssociateAC`` or ``AssociateRJ``."""

    rq: AssociateRQ


class Accepted(NamedTuple):
    """A-ASSOCIATE confirmation, positive."""

    ac: AssociateAC


class Rejected(NamedTuple):
    """A-ASSOCIATE confirmation, negative; the transport is to be closed."""

    rj: AssociateRJ


class Established(NamedTuple):
    """We accepted: P-DATA may flow."""


class CommandReceived(NamedTuple):
    """A command set; with ``command.has_data_set``, fragments follow."""

    context_id: int
    command: Command


class DataFragment(NamedTuple):
    """Part of the current message's data set; a view that ends with the next ``receive_data``."""

    data: memoryview
    last: bool


class ReleaseRequested(NamedTuple):
    """A-RELEASE indication: answer with ``ReleaseRP``, except in Sta10 (collision, acceptor)."""


class Released(NamedTuple):
    """A-RELEASE confirmation; after a collision, in Sta12, ``ReleaseRP`` is still to be sent."""


class Aborted(NamedTuple):
    """The association is over: A-ABORT from the peer, or sent to it because of ``error``.

    ``error`` is None where the peer aborted.
    """

    source: int
    reason: int
    error: RemoteProtocolError | None = None


class Lost(NamedTuple):
    """The transport closed without release or abort."""


WireEvent = (
    Requested
    | Accepted
    | Rejected
    | Established
    | CommandReceived
    | DataFragment
    | ReleaseRequested
    | Released
    | Aborted
    | Lost
)
