"""Images decoded for those who take no compressed ones: by processes, into temporary files.

The receiving process never decodes pixel data. A few processes of ``decoding_process`` do, started
when they are needed and killed when one takes too long. What they give is kept whole, in memory or
in a file without name, before its first byte is sent: an image that cannot be decoded costs its own
sub-operation and no association.

Standard: PS3.5 A.4; PS3.4 C.4.2, C.4.3.
"""

from __future__ import annotations

import logging
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from hilum.errors import InvalidDicom
from hilum.gateway.store import posix
from hilum.gateway.store.child import Child
from hilum.gateway.store.decoding_process import (
    DATA,
    END,
    FAILED,
    FRAME,
    GIVE_UP,
    GO_ON,
    HEAD,
    ICONS,
    LONGEST_REASON,
    NEED,
)
from hilum.net.sources import PIECE, Source
from hilum.services.convert import ConvertLimits, LeaveOut, convert
from hilum.services.transfer_syntaxes import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN

__all__ = ["Decoders", "DecodingLimits", "NoRoom", "Whole"]

log = logging.getLogger("hilum.store")

COMMAND = (sys.executable, "-P", "-m", "hilum.gateway.store.decoding_process")
FOLDER = "decoded"
# A process holds the compressed data set in memory, beside a frame.
LARGEST = 512 << 20
# Most images; what is larger gets a file.
IN_MEMORY = 1 << 20
_LEAST = 1 << 10
_NEED = struct.Struct(">Q")
# The process may have ended by itself just now; a second one has not.
ATTEMPTS = 2


class DecodingLimits(NamedTuple):
    """How far decoding may go.

    Args:
        processes: at once; 0: nothing is decoded.
        seconds: that one data set may take.
        size: bytes of one data set, decoded.
        room: bytes of all that are kept at one moment.
        reserve: bytes of free space that stay free.
    """

    processes: int
    seconds: float
    size: int
    room: int
    reserve: int


class NoRoom(OSError):
    """There is no room for it now; one of ``READ_ERRORS``."""


class Whole:
    """A data set that is kept until it has been sent. Close it: its room is others' then.

    Args:
        file: it, open at its beginning.
        length: its bytes.
        given_back: called once, when it is closed.
    """

    def __init__(self, file: IO[bytes], length: int, given_back: Callable[[], None]) -> None:
        self.length = length
        self._file = file
        self._given_back = given_back
        self._closing = threading.Lock()
        self._closed = False

    def pieces(self) -> Iterator[bytes]:
        """The data set; it is closed at the end, also when nobody wants the rest."""
        try:
            while piece := self._file.read(PIECE):
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it; idempotent."""
        with self._closing:
            closed, self._closed = self._closed, True
        if not closed:
            self._file.close()
            self._given_back()


class Decoders:
    """Makes whole data sets in other transfer syntaxes; used from any thread.

    Args:
        data: the data directory; files are in a folder of it, which is emptied here.
        limits: see ``DecodingLimits``.
    """

    def __init__(self, data: Path, limits: DecodingLimits) -> None:
        self.limits = limits
        self._folder = data / FOLDER
        self._changed = threading.Condition()
        # All below under the condition's lock.
        self._used = 0
        self._idle: list[Child] = []
        self._children: set[Child] = set()
        self._closed = False
        #: For decoding ahead. As many threads as processes: a thread waits for its process.
        self.threads = ThreadPoolExecutor(max(1, limits.processes), "decode")
        _empty(self._folder)

    @property
    def pids(self) -> list[int]:
        """Of the processes, idle ones too."""
        with self._changed:
            return [child.pid for child in self._children]

    @property
    def used(self) -> int:
        """Bytes that are spoken for."""
        with self._changed:
            return self._used

    def close(self) -> None:
        """Kill the processes; whoever waits for one gets an error."""
        with self._changed:
            self._closed = True
            children = tuple(self._children)
            self._changed.notify_all()
        for child in children:
            child.kill()
        self.threads.shutdown(cancel_futures=True)
        for child in children:
            child.close()

    def decode(self, source: Source, *, ahead: bool = False) -> Whole:
        """A data set in an encapsulated transfer syntax, in explicit VR little endian.

        Args:
            source: read here, in pieces.
            ahead: nobody waits for it: no room is waited for, and half of the room stays free.

        Raises:
            NoRoom: there is none now, and ``ahead`` says not to wait; or none for too long.
            InvalidDicom: it cannot be decoded, or not within the limits.
            One of ``READ_ERRORS``: it cannot be read.
        """
        if self.limits.processes < 1:
            raise InvalidDicom("nothing is decoded here: retrieve.decoders is 0")
        if source.length > LARGEST:
            raise InvalidDicom(
                f"{source.length:,} bytes compressed; at most {LARGEST:,} are decoded"
            )
        for attempt in range(1, ATTEMPTS + 1):
            child = self._take_child()
            fit = False
            try:
                found = self._ask(child, source, ahead)
                fit = True
                return found
            except (EOFError, BrokenPipeError):
                if attempt == ATTEMPTS or self._closed:
                    raise InvalidDicom("the process that decoded it ended") from None
            except NoRoom:
                fit = True
                raise
            except _Failed as error:
                fit = True
                raise InvalidDicom(str(error)) from None
            finally:
                self._give_child(child, fit)
        raise AssertionError  # the last attempt returns or raises

    def convert(
        self,
        pieces: Iterator[bytes],
        length: int,
        source: str,
        target: str,
        *,
        leave_out: LeaveOut | None = None,
    ) -> Whole:
        """A data set in one uncompressed transfer syntax, in another.

        Args:
            pieces: the data set.
            length: how many bytes they have.
            source: its transfer syntax; a deflated one is inflated within the limits.
            target: the transfer syntax wanted.
            leave_out: see ``services.convert``; little is expected to be left then.

        Raises:
            NoRoom, InvalidDicom, one of ``READ_ERRORS``: see ``decode``.
        """
        # Explicit elements are longer than implicit ones, and undefined lengths take most of all.
        need = 2 * length + _LEAST
        if source == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            need = self.limits.size
        elif leave_out is not None:
            need = min(need, self.limits.size)
        limits = ConvertLimits(max_length=self.limits.size)
        return self._keep(convert(pieces, source, target, limits=limits, leave_out=leave_out), need)

    # ── processes ───────────────────────────────────────────────────────────────────────────

    def _take_child(self) -> Child:
        with self._changed:
            while not self._idle and len(self._children) >= self.limits.processes:
                self._must_be_open()
                self._changed.wait()
            self._must_be_open()
            if self._idle:
                return self._idle.pop()
            child = Child((*COMMAND, str(self.limits.seconds)))
            self._children.add(child)
            return child

    def _give_child(self, child: Child, fit: bool) -> None:
        with self._changed:
            if fit:
                self._idle.append(child)
            else:
                self._children.discard(child)
            self._changed.notify_all()
        if not fit:
            child.close()

    def _must_be_open(self) -> None:
        if self._closed:
            raise InvalidDicom("nothing is decoded any more: the gateway ends")

    def _ask(self, child: Child, source: Source, ahead: bool) -> Whole:
        syntax = source.head.transfer_syntax_uid.encode("ascii", "replace")
        began = time.monotonic()
        with child.within(self.limits.seconds) as late:
            try:
                child.asked.write(HEAD.pack(len(syntax), source.length) + syntax)
                for piece in source.pieces():
                    child.asked.write(piece)
                child.asked.flush()
                need = _need(child)
            except (EOFError, OSError):
                self._if_late(late)
                raise
        took = time.monotonic() - began
        try:
            if need > self.limits.size + source.length + ICONS:
                raise _Failed(f"{need:,} bytes decoded; at most {self.limits.size:,} are taken")
            self._speak_for(need, ahead)
        except (_Failed, NoRoom):
            child.asked.write(GIVE_UP)
            child.asked.flush()
            raise
        try:
            with child.within(max(self.limits.seconds - took, 1.0)) as late:
                try:
                    child.asked.write(GO_ON)
                    child.asked.flush()
                    return self._kept(_decoded(child), need)
                except (EOFError, OSError):
                    self._if_late(late)
                    raise
        except BaseException:
            self._give_room(need)
            raise

    def _if_late(self, late: threading.Event) -> None:
        if late.is_set():
            raise InvalidDicom(f"it was not decoded within {self.limits.seconds:g} s") from None

    # ── room ────────────────────────────────────────────────────────────────────────────────

    def _keep(self, pieces: Iterator[bytes], need: int) -> Whole:
        self._speak_for(need, ahead=False)
        try:
            return self._kept(pieces, need)
        except BaseException:
            self._give_room(need)
            raise

    def _kept(self, pieces: Iterator[bytes], need: int) -> Whole:
        """What comes, kept whole; ``need`` bytes have been spoken for."""
        file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self._folder))  # noqa: SIM115 - a Whole's
        try:
            for piece in pieces:
                if file.tell() + len(piece) > need:
                    raise InvalidDicom("more bytes were decoded than announced")
                file.write(piece)
            # What it does not take is others' already while it waits to be sent.
            length = file.tell()
            file.seek(0)
        except BaseException:
            file.close()
            raise
        self._give_room(need - length)
        return Whole(file, length, partial(self._give_room, length))

    def _speak_for(self, need: int, ahead: bool) -> None:
        room = self.limits.room // 2 if ahead else self.limits.room
        deadline = time.monotonic() + self.limits.seconds
        with self._changed:
            while self._used + need > room:
                if ahead or not self._changed.wait(deadline - time.monotonic()):
                    raise NoRoom(f"no room for {need:,} bytes beside {self._used:,} others'")
                self._must_be_open()
            if posix.free_space(str(self._folder)).bytes < self.limits.reserve + need:
                raise NoRoom(f"no space for {need:,} bytes on the disk")
            self._used += need

    def _give_room(self, length: int) -> None:
        with self._changed:
            self._used -= length
            self._changed.notify_all()


class _Failed(Exception):
    """What the process says; it is fit for the next one."""


# What a codec that was taken over answers is believed no further than what an honest one says.


def _need(child: Child) -> int:
    kind, length = _head(child)
    if kind != NEED or length != _NEED.size:
        raise EOFError
    (need,) = _NEED.unpack(_exactly(child, length))
    return int(need)


def _decoded(child: Child) -> Iterator[bytes]:
    while True:
        kind, length = _head(child)
        if kind == END:
            return
        if kind != DATA:
            raise EOFError
        while length:
            piece = _exactly(child, min(length, PIECE))
            length -= len(piece)
            yield piece


def _head(child: Child) -> tuple[bytes, int]:
    """What comes next, and how long it is.

    Raises:
        EOFError: the process ended.
        _Failed: it could not decode it.
    """
    kind, length = FRAME.unpack(_exactly(child, FRAME.size))
    if kind == FAILED:
        if length > LONGEST_REASON:
            raise EOFError
        raise _Failed(_exactly(child, length).decode("ascii", "replace"))
    return kind, length


def _exactly(child: Child, length: int) -> bytes:
    found = child.answers.read(length)
    if len(found) < length:
        raise EOFError
    return found


def _empty(folder: Path) -> None:
    """Files have no name where the system can do that; elsewhere a crash leaves them behind."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for entry in folder.iterdir():
        with suppress(OSError):
            entry.unlink()
