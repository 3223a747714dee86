"""The decision about a schedule that is due; see `Schedules.start_due`."""

from __future__ import annotations

from dataclasses import replace

from hilum.errors import ConfigurationError
from hilum.gateway.store.schedules import Due, Plan, Schedule
from hilum.gateway.work.calendar import Cron, Window, zone

__all__ = ["checked", "decide"]


def checked(schedule: Schedule, now: int) -> Schedule:
    """A schedule with its next run.

    Raises:
        ConfigurationError: expression, zone or window cannot be read.
    """
    where = zone(schedule.time_zone)
    Window(schedule.time_window, where)
    return replace(schedule, next_at=Cron(schedule.cron, where).next(now))


def decide(due: Due) -> Plan:
    """Run, wait for the window, or pass over, and when to look again."""
    schedule, now = due.schedule, due.now
    try:
        where = zone(schedule.time_zone)
        window = Window(schedule.time_window, where)
        following = Cron(schedule.cron, where).next(now)
    except ConfigurationError as error:  # a zone that the system no longer knows
        return Plan(False, None, f"it has no next run: {error}")
    if due.busy:
        return Plan(False, following, "passed over: the run before was not over")
    if due.is_late and not schedule.catch_up:
        return Plan(False, following, "missed: nothing ran at that time")
    if not window.is_open(now):
        return Plan(False, window.opens(now), "waits for its time window")
    return Plan(True, following, "begun late" if due.is_late else "begun")
