"""The clocks that work is timed by: the database server's, or the machine's; never a worker's own.

A lease on SQLite is told by the machine's monotonic clock, which setting the time does not move,
and which all processes of the machine share; it means nothing in another boot, so the boot's id
stands beside it. When something is to begin is wall-clock time: that outlives a boot.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, text

__all__ = ["Moment", "boot_id", "moment"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Moment(NamedTuple):
    """One moment by the clocks that count.

    Args:
        now: µs since 1970.
        lease: µs, comparable with leases of the same `boot` only.
        boot: which boot of the machine; "" where the database server keeps the clock.
    """

    now: int
    lease: int
    boot: str


def moment(connection: Connection) -> Moment:
    """Now, by the clock of this database.

    Raises:
        DBAPIError: the server did not say.
    """
    if connection.dialect.name != "sqlite":
        now = int(
            connection.scalar(text("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint"))
            or 0
        )
        return Moment(now, now, "")
    return Moment(time.time_ns() // 1000, time.monotonic_ns() // 1000, boot_id())


@functools.cache
def boot_id() -> str:
    """What is another one after every start of the machine, and the same until then."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        found = subprocess.run(
            ["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            return found.stdout.strip()
    # Setting the time moves it by as much, which voids leases early: jobs run again, and what
    # is fenced off cannot finish. Minutes, because the two clocks drift.
    return f"up since {round((time.time() - time.monotonic()) / 60)}"
