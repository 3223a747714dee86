"""The examples of docs/tools.md for the DICOM tools are run as they are written.

Only what they talk to is replaced: the address, a study's UID, and ports to listen on.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from tests import peers, samples

TOOLS = Path(__file__).parents[2] / "docs" / "tools.md"
SECTIONS = ("hilum echo", "hilum store", "hilum dump", "hilum find and hilum mwl",
            "hilum get and hilum move", "hilum scp", "hilum conformance")  # fmt: skip
HILUM = [sys.executable, "-m", "hilum"]
HOST = "127.0.0.1"


def examples() -> Iterator[tuple[str, str]]:
    """Section and command line of every example."""
    for section in re.split(r"^## ", TOOLS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = section.splitlines()[0]
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
            for line in block.splitlines():
                if line.startswith("$ hilum"):
                    yield title, line.removeprefix("$ hilum ")


COMMANDS = [line for title, line in examples() if title in SECTIONS]


def test_every_section_has_examples() -> None:
    assert {title for title, _ in examples()} >= set(SECTIONS)
    assert len(COMMANDS) > 15


@contextmanager
def serving(*words: str, cwd: Path) -> Iterator[int]:
    process = subprocess.Popen(
        [*HILUM, "scp", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("listening on"):
                break
        else:
            raise AssertionError(f"hilum scp {words} did not listen")
        yield int(line.rpartition(":")[2])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The files and folders that the examples name."""
    for name in ("folder", "archive", "worklist", "received"):
        (tmp_path / name).mkdir()
    ct = samples.named("CT_small.dcm").path
    for target in ("image.dcm", "folder/ct.dcm", "archive/ct.dcm", "worklist/ct.wl"):
        shutil.copyfile(ct, tmp_path / target)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(ct, "ct.dcm")
    return tmp_path


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("scp ")])
def test_a_tool(command: str, world: Path) -> None:
    receiver = peers.free_port()
    study = str(pydicom.dcmread(world / "image.dcm").StudyInstanceUID)
    kind = "mwl" if command.startswith("mwl") or " -W " in command else "qr"
    words = ["qr", "--folder", "archive", "--destination", f"ME@{HOST}:{receiver}"]
    words = ["mwl", "--folder", "worklist"] if kind == "mwl" else words
    with serving(*words, "--host", HOST, "--port", "0", cwd=world) as port:
        if "-aem ARCHIVE" in command:
            # The destination is one that the archive knows.
            command = command.replace("-aem ARCHIVE", "-aem ME")
            receiver_words = ["--port", str(receiver), "--host", HOST, "--out", "received"]
            context = serving("store", *receiver_words, cwd=world)
        else:
            context = serving("echo", "--host", HOST, "--port", "0", cwd=world)
        command = command.replace("11112", str(port)).replace("11113", str(receiver))
        command = command.replace("1.2.3", study)
        with context:
            done = subprocess.run(
                [*HILUM, *shlex.split(command)],
                cwd=world,
                capture_output=True,
                text=True,
                timeout=120,
            )
    assert done.returncode == 0, done.stderr
    assert done.stdout or "-o " in command
    if "-od received" in command:
        assert [
            pydicom.dcmread(path).StudyInstanceUID for path in (world / "received").iterdir()
        ] == [study]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("scp ")])
def test_a_provider(command: str, world: Path) -> None:
    words = shlex.split(command.replace("11113", "0"))[1:]
    with serving(*words, "--host", HOST, cwd=world) as port:
        done = subprocess.run(
            [*HILUM, "echo", f"{HOST}:{port}"],
            cwd=world,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
