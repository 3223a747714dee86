"""What the receiver tells the other processes about itself: one small file, replaced every second.

It is a report, not a record: it is not flushed, and nothing is decided by it but readiness.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["FRESH", "Heartbeat", "read", "write"]

# Written every second; five missed ones mean that the receiver hangs or is gone.
FRESH = 5.0


@dataclass(slots=True)
class Heartbeat:
    """Counters since the start, and what is going on now.

    ``changes`` is the directory's change counter that is followed; ``opened`` has the addresses of
    each listener by its name, ``not_open`` why one is not.
    """

    pid: int = field(default_factory=os.getpid)
    version: str = ""
    started: float = field(default_factory=time.time)
    written: float = 0.0
    listeners: list[str] = field(default_factory=list)
    opened: dict[str, list[str]] = field(default_factory=dict)
    not_open: dict[str, str] = field(default_factory=dict)
    associations: int = 0
    associations_accepted: int = 0
    associations_rejected: int = 0
    connections_refused: int = 0
    stored: int = 0
    stored_bytes: int = 0
    duplicates: int = 0
    refused: int = 0
    failed: int = 0
    waiting: int = 0
    batches: int = 0
    free_bytes: int = 0
    accepting: bool = True
    changes: int = -1

    @property
    def is_fresh(self) -> bool:
        """Whether it was written lately enough for its writer to be alive."""
        return abs(time.time() - self.written) < FRESH


def _file(data: Path) -> Path:
    return data / "run" / "receiver.json"


def write(data: Path, beat: Heartbeat) -> None:
    """Replace the file. Called in a thread; an error is the caller's to log."""
    target = _file(data)
    temporary = target.with_suffix(".new")
    beat.written = time.time()
    document = json.dumps({name: getattr(beat, name) for name in Heartbeat.__slots__})
    try:
        temporary.write_text(document, encoding="utf-8")
    except FileNotFoundError:  # the first one
        target.parent.mkdir(exist_ok=True)
        temporary.write_text(document, encoding="utf-8")
    temporary.replace(target)


def read(data: Path) -> Heartbeat | None:
    """The last report, or None where there is none that can be read."""
    try:
        found = json.loads(_file(data).read_text(encoding="utf-8"))
        return Heartbeat(**found)
    except (OSError, ValueError, TypeError):
        return None
