"""Every example runs, as its own text says, and ends as it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
SECONDS = 60


@contextmanager
def listening(*command: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server that prints where it listens; yields its port."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on"), line + process.stdout.read()
        yield int(line.replace(":", " ").split()[-1]), process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def receiver(folder: Path, *options: str) -> Iterator[int]:
    """A bare receiver that writes files to a folder."""
    command = ["-m", "hilum", "scp", "store", "--host", "127.0.0.1", "--port", "0"]
    with listening(*command, "--out", str(folder), *options) as (port, _):
        yield port


def example(name: str, *words: object, **environment: object) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if "UPLOAD" not in name}
    variables |= {name: str(value) for name, value in environment.items()}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=variables,
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"):
        (folder / "series" / name).write_bytes((FILES / name).read_bytes())
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_push_sends_a_folder(study: Path, out: Path) -> None:
    with receiver(out, "-aet", "RAIVEN", "--require-called") as port:
        settings = {"UPLOAD_HOST": "127.0.0.1", "UPLOAD_PORT": port, "UPLOAD_DIR": study}
        done = example("push.py", UPLOAD_AE_TITLE="RAIVEN", **settings)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "3 of 3 DICOM files sent to RAIVEN\n"
        assert len(list(out.iterdir())) == 3

        refused = example("push.py", UPLOAD_AE_TITLE="NOBODY", **settings)
        assert refused.returncode == 1
        assert "called AE title not recognised" in refused.stderr

        (study / "cut.dcm").write_bytes((FILES / "CT_small.dcm").read_bytes()[:300])
        damaged = example("push.py", UPLOAD_AE_TITLE="RAIVEN", **settings)
        assert damaged.returncode == 1
        assert "cut.dcm" in damaged.stderr
        assert damaged.stdout == "3 of 4 DICOM files sent to RAIVEN\n"


def test_push_says_what_it_needs() -> None:
    done = example("push.py")
    assert done.returncode == 1
    assert done.stderr == "set UPLOAD_DIR in the environment\n"


def test_verification_scu(out: Path, unused_tcp_port: int) -> None:
    with receiver(out) as port:
        done = example("verification_scu.py", "127.0.0.1", port, "PACS")
    assert (done.returncode, done.stdout) == (0, "PACS answered 0000H\n"), done.stderr
    assert example("verification_scu.py", "127.0.0.1", unused_tcp_port).returncode == 1


def test_store_scu(out: Path) -> None:
    with receiver(out) as port:
        done = example("store_scu.py", "127.0.0.1", port, FILES / "CT_small.dcm")
    assert (done.returncode, done.stdout) == (0, "0000H success\n"), done.stderr
    assert len(list(out.iterdir())) == 1


def test_store_scp() -> None:
    with listening(str(EXAMPLES / "store_scp.py"), "0") as (port, process):
        done = example("store_scu.py", "127.0.0.1", port, FILES / "CT_small.dcm")
        assert (done.returncode, done.stdout) == (0, "0000H success\n"), done.stderr
        assert process.stdout is not None
        assert process.stdout.readline() == "CT 1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322\n"
        if os.name == "posix":
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
