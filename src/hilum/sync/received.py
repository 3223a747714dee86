"""Data sets that arrive by C-STORE, kept until their handler has returned.

In memory up to ``_config.STORE_MEMORY_LIMIT`` bytes, in a temporary file beyond that; in a DICOM
file from the first byte with ``_config.STORE_RECV_CHUNKED_DATASET``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from hilum.net.service import Context, Outcome, Part
from hilum.services.part10 import encode_head
from hilum.sync import _config
from hilum.wire.command import Command

__all__ = ["Received", "Sink"]


class Received:
    """One data set, whole."""

    def __init__(self, command: Command, context: Context) -> None:
        self.command = command
        self.context = context
        #: The file it is in; None while it is in memory.
        self.path: Path | None = None
        #: Whether that file begins with preamble and file meta information.
        self.is_part10 = False
        self._parts: list[bytes] = []
        self._head = 0

    def read(self) -> bytes:
        """The data set's bytes, without file meta."""
        if self.path is not None:
            with open(self.path, "rb") as file:
                file.seek(self._head)
                return file.read()
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    def remove(self) -> None:
        """Nobody needs it any more; idempotent."""
        self._parts = []
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()

    # Called in an I/O thread, one after another.

    def _open(self) -> None:
        handle, name = tempfile.mkstemp(suffix=".dcm")
        self.path = Path(name)
        with os.fdopen(handle, "wb") as file:
            if self.is_part10:
                command, context = self.command, self.context
                head = encode_head(
                    command.affected_sop_class_uid,
                    command.affected_sop_instance_uid,
                    context.transfer_syntax,
                )
                self._head = len(head)
                file.write(head)

    def append(self, parts: Sequence[Part]) -> None:
        """More of it, to the file."""
        if self.path is None:
            self._open()
        assert self.path is not None
        with open(self.path, "ab", buffering=0) as file:
            for part in parts:
                view = memoryview(part)
                while len(view):
                    view = view[file.write(view) :]


class Sink:
    """Where one data set goes while it arrives.

    Args:
        command: the C-STORE request.
        context: its presentation context.
        done: gets the whole data set and gives the answer; it removes the data set.
    """

    def __init__(
        self, command: Command, context: Context, done: Callable[[Received], Awaitable[Outcome]]
    ) -> None:
        self._received = Received(command, context)
        self._done = done
        self._size = 0
        self._in_file = self._received.is_part10 = _config.STORE_RECV_CHUNKED_DATASET
        self._writing: asyncio.Future[None] | None = None
        self._given = False

    def write(self, parts: Sequence[Part]) -> bool:
        """Take the next parts; see ``StoreSink``."""
        received = self._received
        self._size += sum(map(len, parts))
        if not self._in_file and self._size <= _config.STORE_MEMORY_LIMIT:
            received._parts += [bytes(part) for part in parts]
            return True
        before, received._parts = received._parts, []
        self._in_file = True
        self._append([*before, *parts])
        return False

    def _append(self, parts: Sequence[Part]) -> None:
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._received.append, parts)

    def drained(self) -> Awaitable[None]:
        """Done when the last parts are written; see ``StoreSink``."""
        assert self._writing is not None
        return self._writing

    async def commit(self) -> Outcome:
        """The data set is whole: let the handler have it."""
        if self._in_file and self._writing is None:
            self._append(())
        if self._writing is not None:
            await self._writing
        self._given = True
        return await self._done(self._received)

    def abort(self, cause: BaseException) -> None:
        """The data set will not be completed."""
        if self._given:
            return  # a handler may be reading it; it is removed when that has returned
        received = self._received
        writing = self._writing
        if writing is None:
            received.remove()
        elif writing.done():
            asyncio.get_running_loop().run_in_executor(None, received.remove)
        else:
            loop = asyncio.get_running_loop()
            writing.add_done_callback(lambda _: loop.run_in_executor(None, received.remove))
