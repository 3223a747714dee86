"""The receiver's report to the other processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hilum.gateway import heartbeat
from hilum.gateway.heartbeat import FRESH, Heartbeat


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert heartbeat.read(tmp_path) is None
    beat = Heartbeat(version="1", listeners=["127.0.0.1:11112"], stored=5)
    heartbeat.write(tmp_path, beat)
    found = heartbeat.read(tmp_path)
    assert found == beat
    assert found.pid == os.getpid()
    assert found.is_fresh
    heartbeat.write(tmp_path, Heartbeat(stored=6))
    again = heartbeat.read(tmp_path)
    assert again is not None
    assert again.stored == 6
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["receiver.json"]


def test_an_old_report_is_not_fresh() -> None:
    beat = Heartbeat()
    assert not beat.is_fresh, "never written"
    beat.written = Heartbeat().started - FRESH - 1
    assert not beat.is_fresh


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"colour": 1}', "\xff"])
def test_a_report_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    heartbeat.write(tmp_path, Heartbeat())
    (tmp_path / "run" / "receiver.json").write_bytes(text.encode("latin-1"))
    assert heartbeat.read(tmp_path) is None
