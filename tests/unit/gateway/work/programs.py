"""What the pool's processes run in tests."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Any

from hilum.errors import NotFound


def echo(payload: Any) -> Any:
    print("not for the parent's ears")
    sys.stdout.flush()
    return {"pid": os.getpid(), "payload": payload}


def fail(payload: Any) -> Any:
    raise ValueError("it cannot be done") if payload["how"] == "badly" else NotFound("not here")


def die(payload: Any) -> Any:
    os.kill(os.getpid(), payload["signal"])


def crash(_payload: Any) -> Any:
    ctypes.string_at(0)


def hang(payload: Any) -> Any:
    with open(payload["started"], "a") as file:
        file.write(f"{os.getpid()}\n")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Event().wait()


def eat(payload: Any) -> Any:
    return len(bytearray(payload["bytes"]))
