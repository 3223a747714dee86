"""The gateway as a process: prepared, started, killed, stopped; its log read.

::

    prepare(data)                          # a store with the users alice and bob
    with Gateway(data) as gateway:         # listens on gateway.port
        ...
        gateway.kill()
    with Gateway(data) as gateway:         # the start after a crash
        ...
        assert gateway.stop() == 0
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from hilum.gateway.app import Storage, initialise
from hilum.gateway.config import Config

__all__ = ["FAULTS", "HILUM", "USERS", "Gateway", "GatewayFailed", "hilum", "prepare", "traced"]

HILUM = (sys.executable, "-m", "hilum")

FAULTS = Path(__file__).parent / "faults"
"""A directory whose sitecustomize changes the gateway for a test; see there."""

USERS = ("alice", "bob")
_HERE = Path(__file__).parents[2]
_START_SECONDS = 30.0
_STOP_SECONDS = 40.0
_LISTENING = re.compile(r"^listening on 127\.0\.0\.1:(\d+) \(dicom\)$", re.MULTILINE)
_RECONCILED = re.compile(r"reconciled after an interruption: (\{.*?\})")


class GatewayFailed(AssertionError):
    """It ended before it listened, or did neither; with what it printed."""


def prepare(data: Path) -> None:
    """Make a data directory with its users, as 'hilum serve' and 'hilum user add' do."""
    initialise(data)
    storage = Storage(Config(data=str(data)))
    try:
        for name in USERS:
            storage.directory.add_account(name)
    finally:
        storage.close()


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's, without what a developer may have set for a gateway, and with more."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HILUM_")}
    return kept | dict(extra)


def hilum(*words: str | Path) -> Any:
    """Run a command that prints JSON; returns what it printed.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(
        [*HILUM, *words, "--json"],
        cwd=_HERE,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Gateway:
    """A running gateway; a context manager that kills what still runs at its end.

    Args:
        data: its data directory.
        settings: as in the environment, such as ``HILUM_STORE_STRATEGY``.
        faults: for the sitecustomize in `FAULTS`; None: the program as it is.
        wrapper: command that the gateway is run by, such as strace.
        words: further words of the command line.
        wait: False: do not wait until it listens.

    Raises:
        GatewayFailed: it did not come up.
    """

    def __init__(
        self,
        data: Path,
        *,
        settings: Mapping[str, str] = {},
        faults: Mapping[str, str] | None = None,
        wrapper: Sequence[str | Path] = (),
        words: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        self.data = data
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        extra = {"HILUM_STORE_RESERVE": "0", **settings}
        if faults is not None:
            path = [str(FAULTS), *filter(None, [os.environ.get("PYTHONPATH")])]
            extra |= {"PYTHONPATH": os.pathsep.join(path), **faults}
        command = [*wrapper, *HILUM, "serve", "--data", data, "--dicom", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, "--web", "off", *words],
            cwd=_HERE,
            env=environment(extra),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self.port = 0
        if wait:
            try:
                self.port = int(self.wait_for(_LISTENING)[1])
            except BaseException:
                self.kill()
                self._log.close()
                raise

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode(errors="replace")

    def wait_for(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait until its output has a pattern.

        Raises:
            GatewayFailed: it ended first, or time is up.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            ended = self.process.poll() is not None
            found = pattern.search(self.log)
            if found is not None:
                return found
            if ended or time.monotonic() > deadline:
                raise GatewayFailed(f"code {self.process.returncode}: {self.log[-4000:]}")
            time.sleep(0.005)

    @property
    def reconciled(self) -> dict[str, int]:
        """What the start after a crash says it looked at and did; empty when it says nothing."""
        found = _RECONCILED.search(self.log)
        if found is None:
            return {}
        report: dict[str, int] = json.loads(found[1].replace("'", '"'))
        return report

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as a service manager does; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.log[-4000:], file=sys.stderr)
        self.kill()
        self._log.close()


@contextmanager
def traced(gateway: Gateway, *options: str | Path) -> Iterator[None]:
    """Run strace on a running gateway, with all its threads, for the length of the block.

    Where processes cannot be traced the test is skipped; in CI as root it fails.
    """
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(gateway.process.pid), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        line = tracer.stderr.readline()
        if "attached" not in line:
            if os.environ.get("CI") == "true" and os.geteuid() == 0:
                pytest.fail(f"strace: {line}")
            pytest.skip(f"processes cannot be traced here: {line.strip()}")
        yield
    finally:
        tracer.terminate()  # it detaches first, and has written everything when it has ended
        tracer.communicate()
