"""When schedules run: cron expressions, windows of the day, time zones. Pure; now is an argument.

Times are µs since 1970.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from hilum.errors import ConfigurationError

__all__ = ["Cron", "Window", "machine_zone", "zone"]

_WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
_SPAN = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")
_DAY = 24 * 60


def zone(name: str) -> tzinfo | None:
    """A time zone by its IANA name; "" for the machine's, which may be None: the system's own.

    Raises:
        ConfigurationError: no such zone.
    """
    if not name:
        return machine_zone()
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(
            f"time zone {name!r} is not known; write it like Europe/Berlin"
        ) from None


@cache
def machine_zone() -> ZoneInfo | None:
    """The machine's time zone; None where only the system's C library knows it."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        _, _, name = os.path.realpath("/etc/localtime").rpartition("zoneinfo/")
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):
        pass
    try:
        with open(Path("/etc/localtime"), "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return None


def _local(moment: int, where: tzinfo | None) -> datetime:
    if where is None:
        return datetime.fromtimestamp(moment / 1e6)
    return datetime.fromtimestamp(moment / 1e6, where)


class Cron:
    """A cron expression of five fields, as Debian's cron reads it, or ``@daily`` and the like.

    A run at an hour that the change to summer time leaves out comes right after it; one at an hour
    that comes twice runs once.

    Args:
        expression: minute, hour, day of month, month, day of week.
        where: the time zone; None for the system's own.

    Raises:
        ConfigurationError: it cannot be read, or never comes.
    """

    def __init__(self, expression: str, where: tzinfo | None) -> None:
        self.expression = " ".join(expression.split())
        self._fields = _WORDS.get(self.expression, self.expression)
        self._where = where
        if len(self._fields.split()) != 5:
            raise ConfigurationError(
                f"cron expression {expression!r} has not five fields: minute, hour, day of "
                "month, month, day of week; '30 2 * * *' is every night at half past two"
            )
        if self.next(0) is None:
            raise ConfigurationError(f"cron expression {expression!r} names a day that never comes")

    def next(self, after: int) -> int | None:
        """The first moment later than `after`; None if it never comes."""
        from cronsim import CronSim, CronSimError

        try:
            found = next(CronSim(self._fields, _local(after, self._where)), None)
        except CronSimError as error:
            raise ConfigurationError(
                f"cron expression {self.expression!r} cannot be read: {error}"
            ) from None
        return None if found is None else int(found.timestamp() * 1e6)


class Window:
    """A part of the day, such as ``20:00-06:00``; "" for the whole day.

    Args:
        span: local times; the second is not in it any more.
        where: the time zone; None for the system's own.

    Raises:
        ConfigurationError: it cannot be read, or is empty.
    """

    def __init__(self, span: str, where: tzinfo | None) -> None:
        self._where = where
        self._begin, self._end = 0, _DAY
        if not span:
            return
        found = _SPAN.fullmatch(span.strip())
        numbers = [int(number) for number in found.groups()] if found else []
        if not numbers or max(numbers[::2]) > 24 or max(numbers[1::2]) > 59:
            raise ConfigurationError(f"time window {span!r} cannot be read; write it 20:00-06:00")
        self._begin, self._end = (hour * 60 + minute for hour, minute in
                                  zip(numbers[::2], numbers[1::2], strict=True))  # fmt: skip
        if self._begin == self._end or max(self._begin, self._end) > _DAY:
            raise ConfigurationError(f"time window {span!r} is empty or over the day's end")

    def is_open(self, now: int) -> bool:
        """Whether a moment is in it."""
        local = _local(now, self._where)
        minute = local.hour * 60 + local.minute
        if self._begin < self._end:
            return self._begin <= minute < self._end
        return minute >= self._begin or minute < self._end

    def opens(self, now: int) -> int:
        """When it opens next; `now` where it is open."""
        if self.is_open(now):
            return now
        local = _local(now, self._where)
        opening = local.replace(
            hour=self._begin // 60 % 24, minute=self._begin % 60, second=0, microsecond=0
        )
        if opening <= local:
            opening += timedelta(days=1)
        if self._where is not None:
            opening = opening.astimezone(UTC)
        return int(opening.timestamp() * 1e6)
