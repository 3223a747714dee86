"""Log lines: one line each, whatever a peer said; JSON that programs can read."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from hilum.gateway import logs


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_text_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("INFO")
    log = logging.getLogger("hilum.test")
    log.debug("unseen")
    log.info("association %d: %s", 3, "'CT1'")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "association 3: 'CT1'" in err
    assert "hilum.test" in err


@pytest.mark.parametrize("as_json", [True, False])
def test_what_a_peer_sent_cannot_make_lines_or_steer_a_terminal(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    logs.set_up("INFO", json=as_json)
    logging.getLogger("hilum.test").info(
        "called %s", "X\n2026 [critical] forged\x1b[2J\r\u202e\x9b"
    )
    logging.getLogger("hilum.test").info("called\nX", extra={})
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    for bad in ("\x1b[2J", "\r", "\u202e", "\x9b"):
        assert bad not in err


def test_json_lines_carry_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("WARNING", json=True)
    log = logging.getLogger("hilum.test")
    log.info("unseen")
    try:
        raise ValueError("as asked")
    except ValueError as error:
        log.error("failed: %s", error, exc_info=error)
        log.exception("again")
    structlog.get_logger("hilum.test").warning("by structlog", count=3)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["failed: as asked", "again", "by structlog"]
    assert "Traceback" in lines[0]["exception"]
    assert "ValueError: as asked" in lines[1]["exception"]
    assert lines[2]["count"] == 3
    assert all({"timestamp", "level", "logger"} <= line.keys() for line in lines)


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_do_not_show_what_variables_hold(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    logs.set_up("INFO", json=as_json)
    try:
        name = "Doe" + "^" + "Jane"
        raise ValueError(len(name))
    except ValueError:
        logging.getLogger("hilum.test").exception("failed")
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ValueError: 8" in err
    assert "Doe^Jane" not in err


def test_text_lines_carry_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("INFO")
    try:
        raise ValueError("as asked")
    except ValueError:
        logging.getLogger("hilum.test").exception("failed")
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ValueError: as asked" in err


def test_levels_and_one_handler(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("DEBUG")
    logs.set_up("ERROR")
    logging.getLogger("hilum.test").warning("unseen")
    logging.getLogger("hilum.test").error("seen")
    assert capsys.readouterr().err.count("seen") == 1
    assert logging.getLogger().handlers[0].stream is sys.stderr  # type: ignore[attr-defined]
