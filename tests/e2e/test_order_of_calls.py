"""Files, folders and the index are flushed before success is answered: a lint over system calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.conftest import require
from tests.e2e.gateway import Gateway, prepare, traced
from tests.e2e.order_of_calls import CALLS, Trace, violations
from tests.e2e.senders import LARGE, SMALL, TITLES, Image, Ledger, image, send

# ── the lint itself ─────────────────────────────────────────────────────────────────────────

UID = "2.25.77"
ROOT = "/data/objects/2026/11/21-001/global"
FOLDER = f"{ROOT}/2.25.7/2.25.8"
FILE = f"{FOLDER}/{UID}.dcm"
WAL = "/data/hilum.db-wal"


def _hex(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return "".join(f"\\x{byte:02x}" for byte in raw)


def call(name: str, on: str, data: bytes = b"", result: int = 0, thread: int = 5) -> str:
    text = f', "{_hex(data)}", {len(data)}' if data else ""
    return f"{thread} {name}(7<{_hex(on)}>{text}) = {result}"


def create(path: str) -> str:
    flags = "O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0640"
    return f'5 openat(AT_FDCWD<{_hex("/")}>, "{_hex(path)}", {flags}) = 7<{_hex(path)}>'


def mkdir(path: str) -> str:
    return f'5 mkdir("{_hex(path)}", 0777) = 0'


def frame(page: bytes, *, commit: bool) -> list[str]:
    header = bytes(7) + bytes([commit]) + bytes(16)
    return [call("pwrite64", WAL, header, 24, 6), call("pwrite64", WAL, page, len(page), 6)]


def response(status: int = 0, name: str = "write") -> str:
    def element(number: int, value: bytes) -> bytes:
        return bytes(2) + number.to_bytes(2, "little") + len(value).to_bytes(4, "little") + value

    command = (
        element(0x0002, b"1.2.840.10008.5.1.4.1.1.2\0")
        + element(0x0100, b"\x01\x80")
        + element(0x0120, b"\x01\0")
        + element(0x0800, b"\x01\x01")
        + element(0x0900, status.to_bytes(2, "little"))
        + element(0x1000, UID.encode() + b"\0")
    )
    return call(name, "socket:[1]", b"\x04\0\0\0\0\x99\0\0\0\x95\x01\x03" + command, 160, 4)


MAKE_FOLDERS = [mkdir(f"{ROOT}/2.25.7"), mkdir(FOLDER)]
WRITE = [create(FILE), call("writev", FILE, b"header", 6), call("pwrite64", FILE, b"header", 6)]
FLUSH_FILE = [call("fdatasync", FILE)]
FLUSH_FOLDERS = [call("fsync", folder) for folder in (FOLDER, f"{ROOT}/2.25.7", ROOT)]
ROW = frame(b"page with " + UID.encode(), commit=False)
COMMIT = frame(b"last page", commit=True)
FLUSH_LOG = [call("fdatasync", WAL, thread=6)]
SYNCFS = [call("syncfs", "/data/objects")]
BY_FILE = MAKE_FOLDERS + WRITE + FLUSH_FILE + FLUSH_FOLDERS
INDEX = ROW + COMMIT + FLUSH_LOG

UNFINISHED = [FLUSH_FILE[0].replace(") = 0", " <unfinished ...>")]
RESUMED = ["5 <... fdatasync resumed>) = 0"]

GOOD = {
    "every file": BY_FILE + INDEX + [response()],
    "whole file system": MAKE_FOLDERS + WRITE + SYNCFS + INDEX + [response()],
    "folders that were there": WRITE + FLUSH_FILE + FLUSH_FOLDERS[:1] + INDEX + [response()],
    "one frame": BY_FILE + frame(UID.encode(), commit=True) + FLUSH_LOG + [response()],
    "another's call in between": (
        MAKE_FOLDERS + WRITE + UNFINISHED + ROW + RESUMED + FLUSH_FOLDERS + COMMIT + FLUSH_LOG
        + [response(name="sendto")]
    ),
    "a refusal needs nothing": [response(0xA700)],
}  # fmt: skip

BAD = {
    "its file was not flushed": MAKE_FOLDERS + WRITE + FLUSH_FOLDERS + INDEX + [response()],
    "its file was not flushed after its last": (
        MAKE_FOLDERS + WRITE[:2] + FLUSH_FILE + WRITE[2:] + FLUSH_FOLDERS + INDEX + [response()]
    ),
    "its file was not": (
        MAKE_FOLDERS + WRITE + [call("fdatasync", FILE, result=-1)] + FLUSH_FOLDERS + INDEX
        + [response()]
    ),
    "file was not flushed": (
        MAKE_FOLDERS + WRITE + UNFINISHED + FLUSH_FOLDERS + INDEX + [response()] + RESUMED
    ),
    "its folder was not flushed": (
        MAKE_FOLDERS + WRITE + FLUSH_FILE + FLUSH_FOLDERS[1:] + INDEX + [response()]
    ),
    "folder was not flushed after its creation": (
        MAKE_FOLDERS + FLUSH_FOLDERS + WRITE + FLUSH_FILE + INDEX + [response()]
    ),
    "that has the new folder": (
        MAKE_FOLDERS + WRITE + FLUSH_FILE + FLUSH_FOLDERS[:2] + INDEX + [response()]
    ),
    "the log was not flushed": BY_FILE + ROW + COMMIT + [response()],
    "the log was not flushed after": BY_FILE + ROW + COMMIT[:1] + FLUSH_LOG + COMMIT[1:]
    + [response()],
    "log was not flushed": BY_FILE + ROW + FLUSH_LOG + COMMIT + [response()] + FLUSH_LOG,
    "not committed": BY_FILE + ROW + FLUSH_LOG + [response()],
    "its row was not written": BY_FILE + COMMIT + FLUSH_LOG + [response()],
    "no file": [*INDEX, response()],
    "nothing was written": MAKE_FOLDERS + WRITE[:1] + FLUSH_FILE + FLUSH_FOLDERS + INDEX
    + [response()],
    "folder was not flushed": MAKE_FOLDERS + SYNCFS + WRITE + FLUSH_FILE + INDEX + [response()],
}  # fmt: skip


@pytest.mark.parametrize("lines", GOOD.values(), ids=GOOD)
def test_the_lint_passes_what_is_good(lines: list[str]) -> None:
    trace = Trace.parse(lines)
    assert violations(trace) == []
    assert [uid for _, uid, _ in trace.responses()] == [UID]


@pytest.mark.parametrize(("message", "lines"), BAD.items(), ids=BAD)
def test_the_lint_finds_what_is_bad(message: str, lines: list[str]) -> None:
    found = violations(Trace.parse(lines))
    assert len(found) == 1
    assert message in found[0]


# ── the gateway ─────────────────────────────────────────────────────────────────────────────


def series(size: int, count: int) -> list[Image]:
    """Some in one study, the last one in another."""
    first = image(size)
    rest = [image(size, first.study_instance_uid) for _ in range(count - 2)]
    return [first, *rest, image(size)]


async def trace_of(
    tmp_path: Path, sizes: Sequence[int], strategy: str, faults: dict[str, str] | None = None
) -> tuple[Trace, Ledger]:
    """Eight senders at a gateway that is traced from before they come."""
    require("strace")
    data, log, ledger = tmp_path / "data", tmp_path / "trace", Ledger()
    prepare(data)
    settings = {"HILUM_STORE_STRATEGY": strategy}
    with Gateway(data, settings=settings, faults=faults) as gateway:
        options = ("-y", "-xx", "-s", "9000", "-e", f"trace={CALLS}", "-o", log)
        with traced(gateway, *options):
            titles = [list(TITLES)[number % len(TITLES)] for number in range(8)]
            work = [
                send(gateway.port, title, series(sizes[number % len(sizes)], 6), ledger)
                for number, title in enumerate(titles)
            ]
            await asyncio.gather(*work)
        assert set(ledger.statuses()) == {0}
    with log.open() as lines:
        return Trace.parse(lines), ledger


@pytest.mark.crash
@pytest.mark.parametrize("strategy", ["fsync", "syncfs", "auto"])
async def test_success_is_answered_last(tmp_path: Path, strategy: str) -> None:
    trace, ledger = await trace_of(tmp_path, (SMALL, LARGE, 70_000), strategy)
    assert violations(trace) == []
    answered = Counter(uid for _, uid, status in trace.responses() if status == 0)
    assert answered == Counter(ledger.acknowledged.keys()), "the trace has not every response"
    assert len(answered) == 48


@pytest.mark.crash
async def test_a_gateway_that_does_not_flush_is_found_out(tmp_path: Path) -> None:
    trace, ledger = await trace_of(tmp_path, (SMALL,), "fsync", {"HILUM_TEST_NO_FLUSH": "1"})
    found = violations(trace)
    for uid in ledger.acknowledged:
        assert any(uid in line and "its file was not flushed" in line for line in found)
