"""A sender that costs next to nothing: prebuilt streams, one request outstanding per association.

One thread and one edge-triggered epoll serve all associations. Of what the peer sends only the
status of each response is read; any status but 0000H, a rejection or an abort fails the run.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.streams import ABORT, ECHO_CONTEXT, RELEASE_RQ, STORE_CONTEXT, Tail

HOST = "127.0.0.1"

_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA, _RELEASE_RP, _ABORT = 0x02, 0x03, 0x04, 0x06, 0x07

_STATUS = 0x0900

_SENDFILE_AT_ONCE = 4 << 20
"""More than a socket buffer takes (4 MiB here), so that one call fills it."""


class ReplayError(Exception):
    """The peer rejected, aborted, answered with another status than 0000H, or not in time."""


@dataclass
class Outcome:
    """What one replay measured; times in seconds.

    ``responded`` is from the first connect to the last response, ``finished`` to the end of the
    last association. ``latencies`` are from the first byte of a request to its response.
    """

    responded: float = 0.0
    finished: float = 0.0
    latencies: list[float] = field(default_factory=list)
    sender_cpu: float = 0.0


Association = Sequence[bytes]
"""The heads of the requests that one association sends."""


def maximum_length(port: int, request: bytes, seconds: float = 30.0) -> int:
    """Return the maximum PDU length the peer announces when asked for an association."""
    with socket.create_connection((HOST, port), timeout=seconds) as sock:
        body = _associate(sock, request)
        sock.sendall(RELEASE_RQ)
        _read_pdu(sock)
    accepted = _accepted(body)
    if STORE_CONTEXT not in accepted:
        raise ReplayError("peer accepts no context for CT Image Storage, Explicit VR Little Endian")
    user = body.find(b"\x51\0\0\x04")
    return int(struct.unpack_from(">L", body, user + 4)[0]) if user >= 0 else 0


def idle(port: int, request: bytes, count: int, seconds: float) -> list[socket.socket]:
    """Return the sockets of as many associations as the peer accepts, at most ``count``."""
    deadline = time.monotonic() + seconds
    opened: list[socket.socket] = []
    while len(opened) < count and (left := deadline - time.monotonic()) > 0:
        sock = socket.socket()
        sock.settimeout(min(left, 5.0))
        try:
            sock.connect((HOST, port))
            _associate(sock, request)
        except (OSError, ReplayError):
            sock.close()
            break
        opened.append(sock)
    return opened


def abort(sockets: Sequence[socket.socket]) -> None:
    """End idle associations."""
    for sock in sockets:
        with contextlib.suppress(OSError), sock:
            sock.sendall(ABORT)


def replay(
    port: int,
    request: bytes,
    lanes: Sequence[Iterator[Association]],
    tail: Tail,
    seconds: float,
) -> Outcome:
    """Send all associations of all lanes: lanes side by side, the associations of a lane in turn.

    Raises:
        ReplayError: an association failed, or not all were done within ``seconds``.
    """
    outcome = Outcome()
    with select.epoll() as epoll, contextlib.ExitStack() as stack:
        runners = [_Lane(port, request, lane, tail, epoll, outcome) for lane in lanes]
        for runner in runners:
            stack.callback(runner.close)
        cpu, began = time.process_time(), time.perf_counter()
        active = {runner.start(): runner for runner in runners}
        while active:
            for descriptor, _ in epoll.poll(1.0):
                runner = active[descriptor]
                new = runner.advance()
                if new != descriptor:
                    del active[descriptor]
                    if new is not None:
                        active[new] = runner
            if time.perf_counter() - began > seconds:
                raise ReplayError(f"not done after {seconds:.0f} s: {outcome_so_far(outcome)}")
        outcome.finished = time.perf_counter() - began
        outcome.sender_cpu = time.process_time() - cpu
        outcome.responded = max(runner.responded for runner in runners) - began
    return outcome


def outcome_so_far(outcome: Outcome) -> str:
    """Return a phrase that says how far a replay came."""
    return f"{len(outcome.latencies)} responses had come"


class _Lane:
    """One association at a time, on one socket."""

    def __init__(
        self,
        port: int,
        request: bytes,
        associations: Iterator[Association],
        tail: Tail,
        epoll: select.epoll,
        outcome: Outcome,
    ) -> None:
        self._port, self._request, self._tail, self._epoll = port, request, tail, epoll
        self._associations = associations
        self._latencies = outcome.latencies
        self._sock: socket.socket | None = None
        self.responded = 0.0

    def start(self) -> int | None:
        """Connect for the next association and return its descriptor, or None after the last."""
        heads = next(self._associations, None)
        if heads is None:
            return None
        self._heads = iter(heads)
        self._received = bytearray()
        self._pending: list[memoryview] = [memoryview(self._request)]
        self._file_left = 0
        self._sent_at = 0.0
        self._sock = sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            sock.connect((HOST, self._port))
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        return sock.fileno()

    def close(self) -> None:
        """Close the socket; closing also removes it from the epoll."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def advance(self) -> int | None:
        """Send and receive what is possible; return the descriptor to wait for, None at the end."""
        assert self._sock is not None
        if self._pending or self._file_left:
            self._send()
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return self._sock.fileno()
        except OSError as error:
            raise ReplayError(f"connection failed: {error}") from error
        if not data:
            raise ReplayError("peer closed the connection")
        self._received += data
        while (end := self._whole_pdu()) is not None:
            released = self._handle(self._received[0], bytes(self._received[6:end]))
            if released:
                self.close()
                return self.start()
            del self._received[:end]
        # Quick acknowledgement is not sticky: without it a peer that writes a response in two
        # pieces with Nagle on waits for our delayed ACK.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return self._sock.fileno()

    def _whole_pdu(self) -> int | None:
        received = self._received
        if len(received) < 6:
            return None
        end = 6 + int.from_bytes(received[2:6], "big")
        return end if len(received) >= end else None

    def _handle(self, kind: int, body: bytes) -> bool:
        """Act on a PDU; True when the association is over."""
        if kind == _P_DATA:
            self._response(body)
            self._next()
        elif kind == _ASSOCIATE_AC:
            self._next()
        elif kind == _RELEASE_RP:
            return True
        else:
            raise ReplayError(_refusal(kind, body))
        return False

    def _response(self, body: bytes) -> None:
        status = _status(body)
        if status:
            raise ReplayError(f"response with status {status:04X}H")
        self.responded = time.perf_counter()
        self._latencies.append(self.responded - self._sent_at)

    def _next(self) -> None:
        head = next(self._heads, None)
        if head is None:
            self._pending = [memoryview(RELEASE_RQ)]
        else:
            self._pending = [memoryview(head)]
            if self._tail.memory:
                self._pending.append(memoryview(self._tail.memory))
            elif self._tail.length:
                self._file_left = self._tail.length
            self._sent_at = time.perf_counter()
        self._send()

    def _send(self) -> None:
        assert self._sock is not None
        try:
            while self._pending:
                flags = socket.MSG_MORE if self._file_left else 0
                sent = self._sock.sendmsg(self._pending, (), flags)
                while self._pending and sent >= len(self._pending[0]):
                    sent -= len(self._pending.pop(0))
                if sent:
                    self._pending[0] = self._pending[0][sent:]
            while self._file_left:
                self._file_left -= os.sendfile(
                    self._sock.fileno(),
                    self._tail.file,
                    self._tail.length - self._file_left,
                    min(self._file_left, _SENDFILE_AT_ONCE),
                )
        except BlockingIOError:
            pass
        except OSError as error:
            # Reading comes next and tells why, when the peer said so before it closed.
            self._pending, self._file_left = [], 0
            if isinstance(error, ConnectionRefusedError):
                raise ReplayError(f"connection refused: {error}") from error


def _status(body: bytes) -> int:
    """Return Status (0000,0900) of a response that is one PDV in a P-DATA-TF of its own."""
    position = 6
    while body[5] & 2 and position + 10 <= len(body):
        group, number, length = struct.unpack_from("<HHL", body, position)
        if (group, number) == (0, _STATUS):
            return int.from_bytes(body[position + 8 : position + 10], "little")
        position += 8 + length
    raise ReplayError("response without a status, or not in one fragment")


def _associate(sock: socket.socket, request: bytes) -> bytes:
    sock.sendall(request)
    kind, body = _read_pdu(sock)
    if kind != _ASSOCIATE_AC:
        raise ReplayError(_refusal(kind, body))
    return body


def _read_pdu(sock: socket.socket) -> tuple[int, bytes]:
    header = _read(sock, 6)
    return header[0], _read(sock, int.from_bytes(header[2:6], "big"))


def _read(sock: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise ReplayError("peer closed the connection")
        data += piece
    return bytes(data)


def _accepted(body: bytes) -> set[int]:
    accepted = set()
    position = 68
    while position + 4 <= len(body):
        kind, length = struct.unpack_from(">BxH", body, position)
        if kind == 0x21 and body[position + 6] == 0:
            accepted.add(body[position + 4])
        position += 4 + length
    return accepted & {STORE_CONTEXT, ECHO_CONTEXT}


def _refusal(kind: int, body: bytes) -> str:
    values = "/".join(str(value) for value in body[1:4])
    names = {_ASSOCIATE_RJ: "association rejected", _ABORT: "association aborted"}
    return f"{names.get(kind, f'unexpected PDU of type {kind:02X}H')} ({values})"
