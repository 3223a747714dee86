"""Imported by the interpreter of a gateway under test, before anything of the gateway.

Changes what the environment says, and nothing without it:

``HILUM_TEST_WITHOUT``      modules that cannot be imported, as on another platform.
``HILUM_TEST_NO_FLUSH``     files are never flushed: a gateway that must be found out.
``HILUM_TEST_PATIENCE``     seconds that the database's lock is waited for.
``HILUM_TEST_PLAN``         a file with ``ID CALL N ERRNO``: the N-th CALL since that ID was read
                            fails. When it did, ``ID`` is appended to the file beside it, ``.fired``.

A CALL is a function of ``posix``, ``mkdir``, or a COMMIT of SQLite that fails before or after it
was carried out (``commit-before``, ``commit-after``).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Absent(MetaPathFinder):
    """Modules that are not there."""

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


class Plan:
    """Which call fails next; read anew at every call, so that a test can change it at any time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._id = ""
        self._calls = 0

    def strike(self, call: str) -> int | None:
        """Count a call; the errno it fails with, or None."""
        with open(self._path) as file:
            words = file.read().split()
        if not words or words[1] != call:
            return None
        with self._lock:
            if words[0] != self._id:
                self._id, self._calls = words[0], 0
            self._calls += 1
            if self._calls != int(words[2]):
                return None
        with open(self._path + ".fired", "a") as file:
            file.write(f"{words[0]}\n")
        return int(getattr(errno, words[3]))

    def fail(self, call: str) -> None:
        """Count a call and raise its error when it is its turn."""
        number = self.strike(call)
        if number is not None:
            raise OSError(number, f"{os.strerror(number)} (on purpose)")


def failing(plan: Plan, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        plan.fail(name)
        return function(*args, **keywords)

    return call


def half_written(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """A failing write leaves half of its bytes behind, as a full disk does."""

    def write_all(fd: int, views: Sequence[Any]) -> Any:
        number = plan.strike("write_all")
        if number is not None:
            whole = b"".join(views)
            os.write(fd, whole[: len(whole) // 2])
            raise OSError(number, f"{os.strerror(number)} (on purpose)")
        return function(fd, views)

    return write_all


def fail_by(plan: Plan) -> None:
    from hilum.gateway.store import posix

    for name in ("create_file", "write_at", "data_sync", "fsync_directory", "syncfs"):
        setattr(posix, name, failing(plan, name, getattr(posix, name)))
    posix.write_all = half_written(plan, posix.write_all)
    mkdir = os.mkdir

    def mkdir_below_objects(path: Any, *args: Any, **keywords: Any) -> None:
        if "/objects/" in os.fspath(path):  # others make folders too, the heartbeat for one
            plan.fail("mkdir")
        mkdir(path, *args, **keywords)

    os.mkdir = mkdir_below_objects
    fail_commits(plan)


def fail_commits(plan: Plan) -> None:
    class Connection(sqlite3.Connection):
        writing = False  # reading ends with a commit too

        def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
            if statement == "BEGIN IMMEDIATE":
                self.writing = True
            return super().execute(statement, *args)

        def rollback(self) -> None:
            self.writing = False
            super().rollback()

        def commit(self) -> None:
            if self.writing and plan.strike("commit-before") is not None:
                raise sqlite3.OperationalError("disk I/O error (on purpose)")
            super().commit()
            wrote, self.writing = self.writing, False
            if wrote and plan.strike("commit-after") is not None:
                raise sqlite3.OperationalError("disk I/O error (on purpose)")

    connect = sqlite3.dbapi2.connect

    def connect_ours(*args: Any, **keywords: Any) -> Any:
        return connect(*args, factory=Connection, **keywords)

    sqlite3.dbapi2.connect = connect_ours


def never_flush() -> None:
    from hilum.gateway.store import posix

    def nothing(_what: object) -> None:
        """Say that it is durable."""

    posix.data_sync = posix.fsync_directory = posix.syncfs = nothing


def set_up(environ: Any) -> None:
    if "HILUM_TEST_WITHOUT" in environ:
        sys.meta_path.insert(0, Absent(set(environ["HILUM_TEST_WITHOUT"].split(","))))
    if "HILUM_TEST_NO_FLUSH" in environ:
        never_flush()
    if "HILUM_TEST_PATIENCE" in environ:
        from hilum.gateway.store import commit

        commit.INDEX_PATIENCE = float(environ["HILUM_TEST_PATIENCE"])
    if "HILUM_TEST_PLAN" in environ:
        fail_by(Plan(environ["HILUM_TEST_PLAN"]))


set_up(os.environ)
