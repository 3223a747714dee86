"""Numbers for people."""

from __future__ import annotations

import pytest

from hilum.gateway.heartbeat import Heartbeat
from hilum.gateway.store.entries import Listener, Snapshot
from hilum.gateway.store.results import Statistics
from hilum.gateway.web.page import bytes_text, duration_text, render
from hilum.gateway.web.status import Report


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (5 << 29, "2.5 GiB"),
        (1 << 50, "1.0 PiB"),
        (1 << 60, "1024.0 PiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (93784, "1 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_reloading_can_be_stopped() -> None:
    assert 'http-equiv="refresh"' in render(Report())
    assert 'http-equiv="refresh"' not in render(Report(), reload=False)


def test_a_listener_that_is_not_open_is_said() -> None:
    beat = Heartbeat(opened={"dicom": ["0.0.0.0:11112"]}, not_open={"tls": "no certificate"})
    beat.written = beat.started
    listeners = (Listener("dicom", 11112), Listener("tls", 2762, tls={"enabled": True}))
    directory = Snapshot(0, (), (), listeners, (), {})
    page = render(Report(beat=beat, directory=directory, looked=beat.started))
    assert "open on 0.0.0.0:11112" in page
    assert 'class="bad">not open' in page


def test_a_full_disk_is_said() -> None:
    beat = Heartbeat(free_bytes=100)
    beat.written = beat.started
    page = render(Report(beat=beat, reserve=200, looked=beat.started))
    assert "nothing more is taken" in page
    assert "nothing more is taken" not in render(
        Report(beat=beat, reserve=99, looked=beat.started, totals=Statistics(1, 2, 3, 4, 5))
    )
