"""Real DICOM peers as processes on free loopback ports: DCMTK, Orthanc and pynetdicom.

Servers are context managers: they return once the port accepts a connection and end with the
block. Senders run to completion and return what they printed. ``nodelay`` selects whether
``TCP_NODELAY=1`` is in the peer's environment: DCMTK and Orthanc as shipped write a response in two
small pieces with Nagle on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"

_DCMTK = ("storescp", "storescu", "dcmsend", "echoscu", "findscu", "getscu", "movescu", "dcmqrscp",
          "wlmscpfs", "dcmconv", "dcmdump", "dump2dcm")  # fmt: skip
INSTALL = {
    **dict.fromkeys(_DCMTK, "apt-get install dcmtk"),
    "Orthanc": "apt-get install orthanc",
    "strace": "apt-get install strace",
    "pynetdicom": "pip install pynetdicom",
}
"""The line that installs each program a peer needs."""

START_SECONDS = 30.0
"""A server that does not listen by then has failed; Orthanc takes one second here."""

RUN_SECONDS = 120.0
"""A sender that has not ended by then hangs."""

# Below the range from which the kernel gives ports to outgoing connections (32768 and up), so that
# no client of another test takes the port between our look and the server's bind.
_PORTS = range(20000, 32768)


class PeerError(Exception):
    """A peer did not start, did not end, or ended with an error; carries what it printed."""


@dataclass(frozen=True)
class Server:
    """A peer that is listening.

    ``directory`` is where it keeps what it receives, ``log`` what it printed, ``http_port`` the
    port of its REST interface (Orthanc only).
    """

    name: str
    ae_title: str
    port: int
    process: subprocess.Popen[bytes]
    directory: Path
    log: Path
    http_port: int | None = None
    host: str = HOST

    @property
    def pid(self) -> int:
        """Return the process id of the server, the root of its process tree."""
        return self.process.pid

    def output(self, last: int = 4000) -> str:
        """Return the end of what the server printed, for failure messages."""
        return self.log.read_bytes()[-last:].decode(errors="replace")

    def files(self) -> list[Path]:
        """Return the files below the directory, in order of their names."""
        return sorted(path for path in self.directory.rglob("*") if path.is_file())

    def rest(self, path: str, body: object = None) -> Any:
        """Return the decoded answer of the REST interface to a GET, or a POST when a body is given.

        Raises:
            urllib.error.HTTPError: the interface answered with an error.
        """
        url = f"http://{self.host}:{self.http_port}{path}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as answer:
            return json.load(answer)


@dataclass(frozen=True)
class Finished:
    """A program that ran to completion."""

    command: Sequence[str]
    returncode: int
    output: str
    seconds: float

    def check(self) -> Finished:
        """Return itself.

        Raises:
            PeerError: the program ended with another code than 0.
        """
        if self.returncode:
            line = " ".join(self.command[:8])
            raise PeerError(f"{line} ended with {self.returncode}:\n{self.output[-4000:]}")
        return self


@dataclass(frozen=True)
class Modality:
    """An AE that Orthanc knows and may open associations to."""

    ae_title: str
    port: int
    host: str = HOST
    options: Mapping[str, object] = field(default_factory=dict)


def missing(program: str) -> str | None:
    """Return the line that installs a program (or Python package) that is not here, else None."""
    if program == "pynetdicom":
        found = importlib.util.find_spec(program) is not None
    else:
        found = program_path(program) is not None
    return None if found else INSTALL[program]


def program_path(program: str) -> str | None:
    """Return where a native program is, also in the folders that only root's PATH has.

    Scripts are passed over: pynetdicom installs Python scripts named storescp, storescu and echoscu
    into the virtual environment, where they come before DCMTK's programs of the same name.
    """
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]
    for folder in folders:
        found = shutil.which(program, path=folder) if folder else None
        if found and not _is_script(found):
            return found
    return None


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def native(program: str) -> str:
    """Return the path of a native program.

    Raises:
        PeerError: it is not installed.
    """
    found = program_path(program)
    if found is None:
        raise PeerError(f"{program} is not installed; install it with: {INSTALL[program]}")
    return found


def free_port() -> int:
    """Return a loopback port that nobody listens on and no outgoing connection will take."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise PeerError(f"no free port among 200 tried in {_PORTS.start}-{_PORTS.stop - 1}")


def environment(nodelay: bool) -> dict[str, str]:
    """Return our environment with ``TCP_NODELAY`` set to 1, or without it."""
    result = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return result | ({"TCP_NODELAY": "1"} if nodelay else {})


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Return True once the port accepts a connection, False when the process ended or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.02)
    return False


def stop(process: subprocess.Popen[bytes], seconds: float = 10.0) -> None:
    """End a process that was started in a session of its own, and all its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    # Children of storescp --fork outlive their parent, so the group is killed in any case.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def serve(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    directory: Path,
    ae_title: str,
    nodelay: bool = True,
    http_port: int | None = None,
    start_seconds: float = START_SECONDS,
) -> Iterator[Server]:
    """Run a server command for the length of the block.

    The command's output goes to a file beside ``directory``, which is created when missing.

    Raises:
        PeerError: the program is missing, ended, or does not listen within ``start_seconds``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log = directory.with_name(f"{directory.name}.{port}.log")
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(nodelay),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise PeerError(f"{name} cannot be started: {error}") from error
    try:
        server = Server(name, ae_title, port, process, directory, log, http_port)
        for wanted in filter(None, (port, http_port)):
            if not wait_for_port(wanted, process, start_seconds):
                raise PeerError(f"{name} does not listen on port {wanted}:\n{server.output()}")
        yield server
    finally:
        stop(process)


@contextmanager
def storescp(
    directory: Path, *options: str, nodelay: bool = True, port: int | None = None
) -> Iterator[Server]:
    """Run DCMTK's storescp, which keeps what it receives flat in ``directory``."""
    port = port or free_port()
    command = [native("storescp"), "-od", str(directory), *options, str(port)]
    with serve(
        "storescp", command, port=port, directory=directory, ae_title="STORESCP", nodelay=nodelay
    ) as server:
        yield server


@contextmanager
def pynetdicom_storescp(
    directory: Path, *options: str, nodelay: bool = True, port: int | None = None
) -> Iterator[Server]:
    """Run pynetdicom's storescp application, which serves ten associations at a time."""
    port = port or free_port()
    command = [sys.executable, "-m", "pynetdicom", "storescp", "-ba", HOST]
    command += ["-od", str(directory), *options, str(port)]
    with serve(
        "pynetdicom", command, port=port, directory=directory, ae_title="STORESCP", nodelay=nodelay
    ) as server:
        yield server


@contextmanager
def dcmqrscp(
    directory: Path,
    *,
    moves: Mapping[str, int] | None = None,
    max_pdu: int = 16384,
    options: Sequence[str] = (),
    nodelay: bool = True,
    port: int | None = None,
) -> Iterator[Server]:
    """Run DCMTK's dcmqrscp as ``ARCHIVE``, which keeps at most 500 studies.

    ``moves`` are the AE titles that it may send to, with their ports on the loopback.
    """
    port = port or free_port()
    directory.mkdir(parents=True, exist_ok=True)
    file = directory.with_name(f"{directory.name}.{port}.cfg")
    hosts = [
        f"m{n} = ({title}, {HOST}, {at})" for n, (title, at) in enumerate((moves or {}).items())
    ]
    lines = [f"NetworkTCPPort = {port}", f"MaxPDUSize = {max_pdu}", "MaxAssociations = 32"]
    lines += ["HostTable BEGIN", *hosts, "HostTable END", "VendorTable BEGIN", "VendorTable END"]
    lines += ["AETable BEGIN", f"ARCHIVE {directory} RW (500, 1024mb) ANY", "AETable END", ""]
    file.write_text("\n".join(lines))
    command = [native("dcmqrscp"), *options, "-c", str(file)]
    with serve(
        "dcmqrscp", command, port=port, directory=directory, ae_title="ARCHIVE", nodelay=nodelay
    ) as server:
        yield server


@contextmanager
def wlmscpfs(directory: Path, *, port: int | None = None) -> Iterator[Server]:
    """Run DCMTK's wlmscpfs; ``directory`` has a folder for each called AE title."""
    port = port or free_port()
    command = [native("wlmscpfs"), "-dfp", str(directory), str(port)]
    with serve(
        "wlmscpfs", command, port=port, directory=directory, ae_title="WORKLIST", nodelay=True
    ) as server:
        yield server


@contextmanager
def pynetdicom_qrscp(
    directory: Path, *, moves: Mapping[str, int] | None = None, port: int | None = None
) -> Iterator[Server]:
    """Run pynetdicom's qrscp application; ``moves`` as for ``dcmqrscp``."""
    port = port or free_port()
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["[DEFAULT]", "ae_title: QRSCP", f"port: {port}", "max_pdu: 16382", "acse_timeout: 30",
             "dimse_timeout: 30", "network_timeout: 30", f"bind_address: {HOST}",
             f"instance_location: {directory}/instances",
             f"database_location: {directory}/instances.sqlite", ""]  # fmt: skip
    for title, at in (moves or {}).items():
        lines += [f"[{title}]", f"address: {HOST}", f"port: {at}", ""]
    file = directory.with_name(f"{directory.name}.{port}.ini")
    file.write_text("\n".join(lines))
    command = [sys.executable, "-m", "pynetdicom", "qrscp", "-c", str(file)]
    with serve(
        "pynetdicom", command, port=port, directory=directory, ae_title="QRSCP", nodelay=True
    ) as server:
        yield server


def orthanc_configuration(
    directory: Path,
    *,
    port: int,
    http_port: int,
    modalities: Mapping[str, Modality] | None = None,
    settings: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return Orthanc's configuration: its defaults, open to any caller on the loopback."""
    known = {
        name: [item.ae_title, item.host, item.port] if not item.options else
        {"AET": item.ae_title, "Host": item.host, "Port": item.port, **item.options}
        for name, item in (modalities or {}).items()
    }  # fmt: skip
    return {
        "Name": "peer",
        "StorageDirectory": str(directory),
        "IndexDirectory": str(directory),
        "HttpPort": http_port,
        "DicomPort": port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": known,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        **(settings or {}),
    }


@contextmanager
def orthanc(
    directory: Path,
    *,
    modalities: Mapping[str, Modality] | None = None,
    settings: Mapping[str, object] | None = None,
    nodelay: bool = True,
    port: int | None = None,
) -> Iterator[Server]:
    """Run Orthanc with its storage and index in ``directory``."""
    port, http_port = port or free_port(), free_port()
    directory.mkdir(parents=True, exist_ok=True)
    file = directory.with_name(f"{directory.name}.{port}.json")
    configuration = orthanc_configuration(
        directory, port=port, http_port=http_port, modalities=modalities, settings=settings
    )
    file.write_text(json.dumps(configuration, indent=2))
    with serve(
        "Orthanc",
        [native("Orthanc"), str(file)],
        port=port,
        directory=directory,
        ae_title="ORTHANC",
        nodelay=nodelay,
        http_port=http_port,
    ) as server:
        yield server


def run(
    command: Sequence[str],
    *,
    nodelay: bool = True,
    seconds: float = RUN_SECONDS,
    directory: Path | None = None,
) -> Finished:
    """Run a program to completion.

    Raises:
        PeerError: the program is missing, or was killed because it had not ended in time.
    """
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(nodelay),
            timeout=seconds,
            cwd=directory,
        )
    except FileNotFoundError as error:
        raise PeerError(f"{command[0]} cannot be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        output = (error.output or b"")[-4000:].decode(errors="replace")
        raise PeerError(f"{command[0]} did not end within {seconds} s:\n{output}") from error
    elapsed = time.perf_counter() - began
    return Finished(command, done.returncode, done.stdout.decode(errors="replace"), elapsed)


def _dcmtk(
    program: str, called: str, port: int, before: Sequence[str], after: Sequence[Path | str]
) -> list[str]:
    return [native(program), "-aec", called, *before, HOST, str(port), *map(str, after)]


def storescu(
    called: str, port: int, files: Sequence[Path | str], *options: str, nodelay: bool = True
) -> Finished:
    """Send files with DCMTK's storescu; options such as ``+sd`` let ``files`` be folders."""
    return run(_dcmtk("storescu", called, port, options, files), nodelay=nodelay)


def dcmsend(
    called: str, port: int, files: Sequence[Path | str], *options: str, nodelay: bool = True
) -> Finished:
    """Send files with DCMTK's dcmsend, which derives its contexts from them."""
    return run(_dcmtk("dcmsend", called, port, options, files), nodelay=nodelay)


def echoscu(called: str, port: int, *options: str, nodelay: bool = True) -> Finished:
    """Send a C-ECHO with DCMTK's echoscu."""
    return run(_dcmtk("echoscu", called, port, options, ()), nodelay=nodelay)


def findscu(called: str, port: int, *options: str) -> Finished:
    """Query with DCMTK's findscu."""
    return run(_dcmtk("findscu", called, port, options, ()))


def getscu(called: str, port: int, directory: Path, *options: str) -> Finished:
    """Retrieve into a folder with DCMTK's getscu."""
    directory.mkdir(parents=True, exist_ok=True)
    return run(_dcmtk("getscu", called, port, ("-od", str(directory), *options), ()))


def movescu(called: str, port: int, *options: str) -> Finished:
    """Have something sent with DCMTK's movescu; ``-aem`` says where to."""
    return run(_dcmtk("movescu", called, port, options, ()))


def _pynetdicom(program: str, called: str, port: int, *after: str) -> list[str]:
    return [sys.executable, "-m", "pynetdicom", program, HOST, str(port), *after, "-aec", called]


def pynetdicom_storescu(
    called: str, port: int, files: Sequence[Path | str], *options: str
) -> Finished:
    """Send files with pynetdicom's storescu application."""
    return run(_pynetdicom("storescu", called, port, *map(str, files), *options))


def pynetdicom_echoscu(called: str, port: int, *options: str) -> Finished:
    """Send a C-ECHO with pynetdicom's echoscu application."""
    return run(_pynetdicom("echoscu", called, port, *options))


def pynetdicom_findscu(called: str, port: int, *options: str) -> Finished:
    """Query with pynetdicom's findscu application."""
    return run(_pynetdicom("findscu", called, port, *options))


def pynetdicom_getscu(called: str, port: int, directory: Path, *options: str) -> Finished:
    """Retrieve into a folder with pynetdicom's getscu application."""
    directory.mkdir(parents=True, exist_ok=True)
    return run(_pynetdicom("getscu", called, port, *options), directory=directory)


def pynetdicom_movescu(called: str, port: int, *options: str) -> Finished:
    """Have something sent with pynetdicom's movescu application."""
    return run(_pynetdicom("movescu", called, port, *options))
