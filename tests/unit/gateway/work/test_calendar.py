from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from hilum.errors import ConfigurationError
from hilum.gateway.work import calendar
from hilum.gateway.work.calendar import Cron, Window, machine_zone, zone

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, where=BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=where).timestamp() * 1e6)


def shown(moment: int, where=BERLIN) -> str:
    return f"{datetime.fromtimestamp(moment / 1e6, where):%Y-%m-%d %H:%M%z}"


@pytest.mark.parametrize(
    ("expression", "after", "following"),
    [
        ("30 2 * * *", "2026-01-10 02:29", "2026-01-10 02:30+0100"),
        ("30 2 * * *", "2026-01-10 02:30", "2026-01-11 02:30+0100"),
        ("*/20 * * * *", "2026-01-10 23:50", "2026-01-11 00:00+0100"),
        ("0 6 * * mon-fri", "2026-01-10 12:00", "2026-01-12 06:00+0100"),
        ("0 0 29 2 *", "2026-01-10 12:00", "2028-02-29 00:00+0100"),
        ("@daily", "2026-01-10 12:00", "2026-01-11 00:00+0100"),
        # the hour that is left out, and the one that comes twice
        ("30 2 * * *", "2026-03-28 03:00", "2026-03-29 03:00+0200"),
        ("30 2 * * *", "2026-10-24 03:00", "2026-10-25 02:30+0200"),
        ("0 4 * * *", "2026-10-25 02:30", "2026-10-25 04:00+0100"),
    ],
)
def test_cron(expression, after, following):
    found = Cron(expression, BERLIN).next(at(after))
    assert shown(found) == following


def test_an_hour_that_comes_twice_has_one_run():
    cron = Cron("30 2 * * *", BERLIN)
    first = cron.next(at("2026-10-25 00:00"))
    assert shown(cron.next(first)) == "2026-10-26 02:30+0100"


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "0 0 31 2 *", "@never"]
)
def test_expressions_that_cannot_be(expression):
    with pytest.raises(ConfigurationError):
        Cron(expression, BERLIN)


@pytest.mark.parametrize(
    ("span", "now", "opens"),
    [
        ("20:00-06:00", "2026-01-10 19:59", "2026-01-10 20:00+0100"),
        ("20:00-06:00", "2026-01-10 20:00", None),
        ("20:00-06:00", "2026-01-10 05:59", None),
        ("20:00-06:00", "2026-01-10 06:00", "2026-01-10 20:00+0100"),
        ("08:00-17:30", "2026-01-10 17:30", "2026-01-11 08:00+0100"),
        ("08:00-17:30", "2026-01-10 17:29", None),
        ("00:00-24:00", "2026-01-10 23:59", None),
        ("", "2026-01-10 23:59", None),
        ("22:00-24:00", "2026-01-10 00:00", "2026-01-10 22:00+0100"),
    ],
)
def test_windows(span, now, opens):
    window = Window(span, BERLIN)
    assert window.is_open(at(now)) is (opens is None)
    assert shown(window.opens(at(now))) == (opens or shown(at(now)))


@pytest.mark.parametrize(
    "span", ["8-17", "08:00", "25:00-06:00", "08:60-09:00", "08:00-08:00", "x"]
)
def test_windows_that_cannot_be(span):
    with pytest.raises(ConfigurationError, match="time window"):
        Window(span, BERLIN)


def test_zones(monkeypatch):
    assert zone("Europe/Berlin") == BERLIN
    for wrong in ("Europe/Nowhere", "../etc/passwd", "/etc/localtime"):
        with pytest.raises(ConfigurationError, match="Europe/Berlin"):
            zone(wrong)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    calendar.machine_zone.cache_clear()
    assert str(machine_zone()) == "Asia/Tokyo"
    monkeypatch.delenv("TZ")
    calendar.machine_zone.cache_clear()
    machine_zone()


def test_without_a_zone_the_systems_own_is_used():
    first = Cron("30 2 * * *", None).next(0)
    assert datetime.fromtimestamp(first / 1e6).strftime("%H:%M") == "02:30"
    assert Window("00:00-24:00", None).is_open(0)
