"""A lint over a trace of system calls: what is answered with success was on stable storage before.

For each C-STORE response with status 0000H that goes out, in this order: the last write to the
object's file or, for a small one, the write that puts it into a segment of the spool, a successful
flush of it; its creation, a flush of its folder; the creation of each
folder above it, a flush of that one's parent; the write of the row to SQLite's log with the frame
that commits it, a flush of the log. A syncfs stands for any of the flushes. A flush counts from its
beginning and when it has returned; the response counts from the beginning of its write.

Reads what ``strace -f -y -xx -s 9000`` writes.

Standard: PS3.7 9.3.1.2 (C-STORE-RSP).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import PurePosixPath

__all__ = ["CALLS", "Call", "Trace", "violations"]

CALLS = (
    "openat,mkdir,write,writev,pwrite64,pwritev,fdatasync,fsync,syncfs,"
    "send,sendto,sendmsg,sendmmsg,sendfile,rename,renameat2"
)
"""What has to be traced."""

_WRITES = {"write", "writev", "pwrite64", "pwritev"}
_SENDS = {"write", "writev", "send", "sendto", "sendmsg", "sendmmsg"}
_FLUSHES = {"fsync", "fdatasync", "syncfs"}

_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>.*\) += (-?\d+)")
_ON = re.compile(r"-?\d+<((?:\\x[0-9a-f]{2})*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
# Command Field 8001H, Status and Affected SOP Instance UID, in the order of their tags.
_RESPONSE = re.compile(
    rb"\0\0\0\x01\x02\0\0\0\x01\x80.{0,80}?\0\0\0\x09\x02\0\0\0(..).{0,80}?\0\0\0\x10..\0\0([0-9.]+)",
    re.DOTALL,
)
_FRAME_HEADER = 24


@dataclass(slots=True)
class Call:
    """A system call. ``start`` and ``end`` are line numbers; it has not ended when ``end`` is 0."""

    thread: int
    name: str
    arguments: str
    start: int
    end: int = 0
    result: int = -1
    on: str = ""
    data: bytes = b""

    def __post_init__(self) -> None:
        if found := _ON.match(self.arguments):
            self.on = _decode(found[1]).decode(errors="replace")
        if self.name in _SENDS | _WRITES | {"mkdir", "openat"}:
            self.data = b"".join(_decode(found) for found in _STRING.findall(self.arguments))

    @property
    def path(self) -> str:
        """What a call that names a path names."""
        return self.data.decode(errors="replace")


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Trace:
    """The calls of a trace, in the order they began."""

    calls: list[Call] = field(default_factory=list)

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Trace:
        """Read what strace wrote; lines about signals and ends of threads are passed over."""
        trace, begun = cls(), dict[int, Call]()
        for number, line in enumerate(lines, 1):
            if found := _WHOLE.match(line):
                thread, name, arguments, result = found.groups()
                trace.calls.append(Call(int(thread), name, arguments, number, number, int(result)))
            elif found := _BEGUN.match(line):
                call = Call(int(found[1]), found[2], found[3], number)
                begun[call.thread] = call
                trace.calls.append(call)
            elif (found := _RESUMED.match(line)) and (call := begun.pop(int(found[1]), None)):
                call.end, call.result = number, int(found[3])
        return trace

    def responses(self) -> Iterator[tuple[Call, str, int]]:
        """Each C-STORE response: the call that sends it, SOP Instance UID and status."""
        for call in self.calls:
            if call.name in _SENDS and call.on.startswith(("socket:", "TCP:")):
                for status, uid in _RESPONSE.findall(call.data):
                    yield call, uid.decode(), int.from_bytes(status, "little")

    @cached_property
    def log_calls(self) -> list[Call]:
        """Writes to SQLite's write-ahead log, and its flushes."""
        return [
            call
            for call in self.calls
            if call.on.endswith("-wal") and call.name in {"pwrite64", *_FLUSHES}
        ]

    def flushed(self, path: str, after: int, before: int) -> bool:
        """Whether a flush of a path began after a line and had succeeded before another."""
        return any(
            call.name in _FLUSHES
            and (call.on == path or (call.name == "syncfs" and _same_store(call.on, path)))
            and call.result == 0
            and after < call.start
            and 0 < call.end < before
            for call in self.calls
        )


def _same_store(root: str, path: str) -> bool:
    """The descriptor that syncfs is given is that of the folder of all objects."""
    return path.startswith(root) or PurePosixPath(path).parent == PurePosixPath(root).parent


def violations(trace: Trace) -> list[str]:
    """Every rule that a successful response breaks, in words; see the module."""
    found = []
    for response, uid, status in trace.responses():
        if status == 0:
            for broken in (*_file(trace, response, uid), *_row(trace, response, uid)):
                found.append(f"line {response.start}: {uid} answered, but {broken}")
    return found


def _file(trace: Trace, response: Call, uid: str) -> Iterator[str]:
    before = response.start
    appended = _last(
        call
        for call in trace.calls
        if call.name in _WRITES
        and call.on.endswith(".seg")
        and _names(call.data, uid)
        and call.start < before
    )
    name = f"{uid}.dcm" if appended is None else PurePosixPath(appended.on).name
    created = _last(
        call
        for call in trace.calls
        if call.name == "openat"
        and "O_CREAT" in call.arguments
        and call.result >= 0
        and PurePosixPath(call.path).name == name
        and call.start < before
    )
    if created is None:
        yield "no file was created for it"
        return
    path = created.path
    writes = [
        call
        for call in trace.calls
        if call.on == path and call.name in _WRITES and call.start < before
    ]
    if appended is not None:  # others that come behind it in the segment have their own flushes
        writes = [appended]
    if not writes:
        yield "nothing was written to its file"
    elif not trace.flushed(path, max(call.end or before for call in writes), before):
        yield "its file was not flushed after its last write"
    folder = str(PurePosixPath(path).parent)
    if not trace.flushed(folder, created.end, before):
        yield "its folder was not flushed after its creation"
    for made in trace.calls:
        if made.name == "mkdir" and made.result == 0 and _above(made.path, path):
            parent = str(PurePosixPath(made.path).parent)
            if not trace.flushed(parent, made.end, before):
                yield f"the folder that has the new folder {made.path} was not flushed"


def _names(data: bytes, uid: str) -> bool:
    """Whether bytes hold a UID, and not only a longer one that begins with it."""
    return re.search(re.escape(uid.encode()) + rb"(?![0-9.])", data) is not None


def _above(folder: str, path: str) -> bool:
    return path.startswith(f"{folder}/")


def _row(trace: Trace, response: Call, uid: str) -> Iterator[str]:
    row = next(
        (
            call
            for call in trace.log_calls
            if uid.encode() in call.data and call.start < response.start
        ),
        None,
    )
    if row is None:
        yield "its row was not written to the log"
        return
    own = [call for call in trace.log_calls if call.thread == row.thread]
    commit = _committing(own[max(own.index(row) - 1, 0) :])
    if commit is None:
        yield "its row was not committed"
    elif not trace.flushed(row.on, commit.end or response.start, response.start):
        yield "the log was not flushed after its row was committed"


def _committing(calls: Sequence[Call]) -> Call | None:
    """The page whose frame header carries the size of the database: it makes all before it valid.

    SQLite file format, 4.1: bytes 4 to 7 of a frame header.
    """
    for header, page in pairwise(calls):
        if len(header.data) == _FRAME_HEADER and any(header.data[4:8]):
            return page
    return None


def _last(calls: Iterable[Call]) -> Call | None:
    found = None
    for call in calls:
        found = call
    return found
