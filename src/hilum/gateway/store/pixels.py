"""Whether two encodings of pixel data hold the same image: asked of a process of its own.

The receiving process never decodes pixel data. Digests come from ``pixels_process``, which is
started when the first is wanted, and killed when one takes too long.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress

from hilum.gateway.store.child import Child
from hilum.gateway.store.pixels_process import ANSWER, HEAD, NONE
from hilum.services.elements import Buffer

__all__ = ["PixelDigests"]

log = logging.getLogger("hilum.store")

COMMAND = (sys.executable, "-P", "-m", "hilum.gateway.store.pixels_process")
# The index thread waits for it; a CT or MR image takes 0.1 s, a mammography or a cine run a few.
PATIENCE = 10.0
# After something that could not be decoded in time nothing is decoded for so long: a sender of
# such images must not hold up the others. Until then both encodings are kept.
PAUSE = 60.0
# The process holds it in memory, beside its frames.
LARGEST = 512 << 20
_PIECE = 1 << 20


class PixelDigests:
    """Digests of pixel data; belongs to one thread.

    Args:
        patience: seconds that one digest may take.
        pause: seconds without any after one that took longer.
    """

    def __init__(self, patience: float = PATIENCE, pause: float = PAUSE) -> None:
        self._patience = patience
        self._pause = pause
        self._process: Child | None = None
        self._not_before = 0.0

    def of(self, data: Buffer, transfer_syntax: str) -> bytes | None:
        """The digest of a data set's frames, equal for equal images; None if it cannot be had."""
        if len(data) > LARGEST:
            return None
        # The process may have ended by itself just now; a second one has not.
        for _ in range(2):
            if time.monotonic() < self._not_before:
                return None
            answer = self._ask(data, transfer_syntax.encode("ascii", "replace"))
            if len(answer) == ANSWER:
                return None if answer == NONE else answer
        return None

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _ask(self, data: Buffer, transfer_syntax: bytes) -> bytes:
        """What the process answers; less than an answer where it ended."""
        process = self._process or self._start()
        answer = b""
        with process.within(self._patience) as late, suppress(OSError):
            process.asked.write(HEAD.pack(len(transfer_syntax), len(data)) + transfer_syntax)
            for start in range(0, len(data), _PIECE):
                process.asked.write(bytes(data[start : start + _PIECE]))
            process.asked.flush()
            answer = process.answers.read(ANSWER)
        if late.is_set():
            self._too_long()
        if len(answer) < ANSWER:
            self.close()
        return answer

    def _start(self) -> Child:
        self._process = Child(COMMAND)
        return self._process

    def _too_long(self) -> None:
        self._not_before = time.monotonic() + self._pause
        log.warning("pixel data was not decoded within %.0f s: both are kept", self._patience)
