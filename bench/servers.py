"""The servers that are measured beside each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests import peers

CALLED = "HILUM"
"""The called AE title; the peers accept any."""

SERVE, SCP = "hilum serve", "hilum scp"
STORESCP, FORK, BIT_PRESERVING = "storescp", "storescp --fork", "storescp +B"
ORTHANC, PYNETDICOM, PYNETDICOM_APP = "orthanc", "pynetdicom", "pynetdicom app"


@dataclass(frozen=True)
class Kind:
    """A server that can be measured.

    ``start`` takes a folder for what it receives and whether TCP_NODELAY is in its environment.
    ``portion`` is the share of a scenario's small instances it gets: a slow one needs fewer for the
    same precision. ``parallel`` is False for a server that serves one association after another.
    An ``extra`` one is measured only when ``--servers`` names it.
    """

    name: str
    start: Callable[[Path, bool], AbstractContextManager[peers.Server]]
    ours: bool = False
    portion: float = 1.0
    parallel: bool = True
    idle: int = 1000
    extra: bool = False


def _command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@contextmanager
def _serve(folder: Path, nodelay: bool) -> Iterator[peers.Server]:
    port = peers.free_port()
    # Every sender has the same address here, which one of ours may not fill by default.
    for limit in ("MAX_ASSOCIATIONS", "MAX_PER_ADDRESS", "MAX_PER_TITLE"):
        os.environ.setdefault(f"HILUM_LIMITS_{limit}", "2000")
    # A folder that does not exist yet: an existing empty one may be an unmounted volume.
    command = [_command("hilum"), "serve", "--data", str(folder / "data")]
    command += ["--dicom", f"{peers.HOST}:{port}", "--web", f"{peers.HOST}:{peers.free_port()}"]
    with peers.serve(
        SERVE, command, port=port, directory=folder, ae_title=CALLED, nodelay=nodelay
    ) as server:
        yield server


@contextmanager
def _scp(folder: Path, nodelay: bool) -> Iterator[peers.Server]:
    port = peers.free_port()
    command = [_command("hilum"), "scp", "store", "--port", str(port), "--out", str(folder)]
    with peers.serve(
        SCP, command, port=port, directory=folder, ae_title=CALLED, nodelay=nodelay
    ) as server:
        yield server


def _pynetdicom(app: bool) -> Callable[[Path, bool], AbstractContextManager[peers.Server]]:
    def start(folder: Path, nodelay: bool) -> AbstractContextManager[peers.Server]:
        port = peers.free_port()
        command = [sys.executable, "-m", "bench.pynetdicom_scp"]
        if app:
            command += ["app", "-q", "-ba", peers.HOST, "-od", str(folder), str(port)]
        else:
            command += ["library", peers.HOST, str(port), str(folder)]
        name = PYNETDICOM_APP if app else PYNETDICOM
        return peers.serve(
            name, command, port=port, directory=folder, ae_title=CALLED, nodelay=nodelay
        )

    return start


def _storescp(*options: str) -> Callable[[Path, bool], AbstractContextManager[peers.Server]]:
    return lambda folder, nodelay: peers.storescp(folder, *options, nodelay=nodelay)


def _orthanc(folder: Path, nodelay: bool) -> AbstractContextManager[peers.Server]:
    return peers.orthanc(folder, nodelay=nodelay)


KINDS = (
    Kind(SERVE, _serve, ours=True),
    Kind(SCP, _scp, ours=True),
    Kind(STORESCP, _storescp(), parallel=False),
    Kind(FORK, _storescp("--fork")),
    Kind(BIT_PRESERVING, _storescp("+B"), parallel=False),
    Kind(ORTHANC, _orthanc),
    Kind(PYNETDICOM, _pynetdicom(app=False), portion=0.25, idle=100),
    Kind(PYNETDICOM_APP, _pynetdicom(app=True), portion=0.05, idle=100, extra=True),
)


@contextmanager
def running(kind: Kind, folder: Path, nodelay: bool) -> Iterator[peers.Server]:
    """Run a server for the length of the block, and kill it at the end.

    Its folder is thrown away, so nothing is gained by the seconds that Orthanc takes to stop.

    Raises:
        tests.peers.PeerError: it does not start.
    """
    with kind.start(folder, nodelay) as server:
        try:
            yield server
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def versions() -> dict[str, str]:
    """Return the first line that each program prints about its version."""
    commands = {
        "hilum": [_command("hilum"), "--version"],
        "DCMTK": [peers.program_path("storescp") or "storescp", "--version"],
        "Orthanc": [peers.program_path("Orthanc") or "Orthanc", "--version"],
        "pynetdicom": [sys.executable, "-m", "pynetdicom", "--version"],
    }
    return {name: _first_line(command) for name, command in commands.items()}


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "not installed"
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return lines[0].strip("$ ") if lines else "not installed"
