"""Deadlines and limits of associations: every number with its unit, its reason and its default."""

from __future__ import annotations

from dataclasses import dataclass, field

from hilum.wire.connection import ConnectionLimits

__all__ = ["BufferPool", "Limits", "Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None waits for ever and is never the default.

    Args:
        connect: TCP connection, and TLS handshake, each.
        artim: from the connection to a whole A-ASSOCIATE-RQ, and from the end of an association
            to the peer's closing of the connection (PS3.8 9.1.4).
        associate: our A-ASSOCIATE-RQ to its answer; the acceptor's decision likewise.
        dimse: from the end of our request to a response, and between pending responses.
        release: our A-RELEASE-RQ to its answer; the association is aborted then.
        message: a PDU or message that has begun must deliver ``Limits.min_receive_rate`` over
            each such period, so that a trickling peer does not hold its place.
        write: a peer that takes none of our bytes for so long is aborted.
        idle: an accepted association without any message; scanners keep one open for a whole
            examination, so it is long.
    """

    connect: float = 30.0
    artim: float = 30.0
    associate: float = 30.0
    dimse: float = 60.0
    release: float = 30.0
    message: float = 30.0
    write: float = 60.0
    idle: float | None = 1800.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts and bytes that peers may take.

    Args:
        max_associations: accepted associations at once; more are rejected 2/3/2 (local limit
            exceeded), which peers retry.
        max_per_address: the same for one peer address.
        max_per_title: the same for one called AE title; a title's own number goes before it.
        max_unassociated: connections that have not yet sent A-ASSOCIATE-RQ. When one more comes,
            the one that has waited longest is closed, so that a flood of silent sockets cannot
            keep a speaking peer out.
        max_length: our maximum length for P-DATA-TF bodies, bytes.
        max_message_length: longest data set of one message, bytes.
        min_receive_rate: bytes/s below which a message in progress counts as stalled; the
            slowest link in use carries some 5,000.
        buffer_size: size of each of the two receive buffers of an association that is receiving
            a large data set, bytes. An idle association has none.
        max_free_buffers: how many of those are kept for reuse.
        max_data_set_in_memory: longest data set of a message other than C-STORE-RQ, bytes. Identifiers
            and event information are a few KB; the largest that real peers send are commitment
            results with tens of thousands of references.
        max_requests_in_memory: the same of all requests of peers together, over all associations of
            the process; what comes while there is no room is passed over and refused.
        max_responses: responses to our C-FIND, C-GET or C-MOVE that are kept while nobody takes
            them; then reading pauses until half are taken.
        max_response_bytes: the same in bytes of their data sets.
        backlog: of the listening socket.
    """

    max_associations: int = 1024
    max_per_address: int = 256
    max_per_title: int = 1024
    max_unassociated: int = 128
    max_length: int = 1 << 20
    max_message_length: int | None = 64 << 30
    min_receive_rate: float = 1_000.0
    buffer_size: int = 512 << 10
    max_free_buffers: int = 32
    max_data_set_in_memory: int = 64 << 20
    max_requests_in_memory: int = 512 << 20
    max_responses: int = 4096
    max_response_bytes: int = 4 << 20
    backlog: int = 512

    def connection(self, timeouts: Timeouts) -> ConnectionLimits:
        """The part that ``wire`` enforces."""
        return ConnectionLimits(artim=timeouts.artim, max_message_length=self.max_message_length)


@dataclass(slots=True)
class BufferPool:
    """Receive buffers for associations in the middle of a large data set; one pool per loop.

    A receive buffer in every idle association would cost 1 GB for a thousand of them.
    """

    size: int
    keep: int
    _free: list[memoryview] = field(default_factory=list)

    def take(self) -> memoryview:
        """A buffer of ``size`` bytes; its content is whatever it held last."""
        return self._free.pop() if self._free else memoryview(bytearray(self.size))

    def give(self, buffer: memoryview) -> None:
        """Back for reuse; nothing may point into it any more."""
        if len(self._free) < self.keep:
            self._free.append(buffer)
