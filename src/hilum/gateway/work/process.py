"""A process of the local pool: one job at a time, asked for on standard input.

Frames of four bytes of length (big-endian) and JSON. It ends when its standard input does, in the
middle of a job too: its parent is gone, and the claim with it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

from hilum.errors import HilumError

__all__ = ["FRAME", "main"]

FRAME = struct.Struct(">I")

log = logging.getLogger("hilum.work")


def main() -> None:
    """Serve jobs until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to us too
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    # What a job prints goes to the log, not between the frames.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    while True:
        answer = json.dumps(_run(requests.get())).encode()
        answers.write(FRAME.pack(len(answer)) + answer)
        answers.flush()


def _listen(source: BinaryIO, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    while True:
        head = source.read(FRAME.size)
        body = source.read(FRAME.unpack(head)[0]) if len(head) == FRAME.size else b""
        if not body:
            os._exit(0)
        requests.put(json.loads(body))


def _run(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        _limit_memory(request["memory_limit"])
        module, _, name = request["target"].partition(":")
        result = getattr(importlib.import_module(module), name)(request["payload"])
        json.dumps(result)
        return {"result": result}
    except MemoryError:
        return {"error": "it needed more memory than its limit", "spent": True}
    except HilumError as error:
        return {"error": str(error)}
    except Exception as error:
        log.exception("a job failed")
        return {"error": f"{type(error).__name__}: {error}"}


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
