"""The programs of docs/sync.md and of the README, run as they stand there but for the port."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from tests.peers import echoscu, free_port, missing, serve, storescp, storescu

ROOT = Path(__file__).parents[2]
CT = get_testdata_file("CT_small.dcm")
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)

needs_dcmtk = pytest.mark.skipif(
    missing("storescp") is not None, reason=f"needs {missing('storescp')}"
)


def program(page: str, *words: str) -> str:
    """The one program of a page that has all of the words."""
    blocks = _BLOCK.findall((ROOT / page).read_text())
    found = [block for block in blocks if all(word in block for word in words)]
    assert len(found) == 1, f"{len(found)} programs with {words} in {page}"
    return str(found[0])


def run(text: str, port: int, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text.replace("11112", str(port)), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(text: str, folder: Path, **replaced: str) -> Iterator[int]:
    port = free_port()
    file = folder / "program.py"
    for old, new in replaced.items():
        text = text.replace(old, new)
    file.write_text(text.replace("11112", str(port)))
    with serve(
        "program", [sys.executable, str(file)], port=port, directory=folder / "none", ae_title="X"
    ):
        yield port


on_both_pages = pytest.mark.parametrize("page", ["docs/sync.md", "README.md"])


@needs_dcmtk
@on_both_pages
def test_verification_scu(page, tmp_path):
    with storescp(tmp_path / "received") as server:
        text = program(page, "send_c_echo", "add_requested_context")
        assert run(text, server.port) == "C-ECHO: 0x0000\n"


@needs_dcmtk
@on_both_pages
def test_verification_scp(page, tmp_path):
    with running(program(page, "def handle_echo"), tmp_path) as port:
        echoscu("ECHOSCP", port).check()


@needs_dcmtk
@on_both_pages
def test_ct_image_storage_scu(page, tmp_path):
    with storescp(tmp_path / "received") as server:
        text = program(page, "send_c_store", "sys.argv")
        assert run(text, server.port, CT) == "C-STORE: 0x0000\n"
        (stored,) = server.files()
    assert dcmread(stored).SOPInstanceUID == dcmread(CT).SOPInstanceUID


@needs_dcmtk
def test_first_generation(tmp_path):
    received = tmp_path / "received.dcm"
    text = program("docs/sync.md", "hilum.sync.legacy")
    with running(text, tmp_path, **{'"received.dcm"': repr(str(received))}) as port:
        storescu("STORE", port, [CT]).check()
    assert dcmread(received).PixelData == dcmread(CT).PixelData


def test_the_programs_are_short():
    page = (ROOT / "docs/sync.md").read_text()
    three = _BLOCK.findall(page.partition("## Three programs")[2].partition("\n## ")[0])
    for text in three:
        code = [line for line in text.splitlines() if line and not line.startswith(("from", "imp"))]
        assert len(code) <= 10


def test_the_first_block_imports():
    text = program("docs/sync.md", "UserIdentityNegotiation")
    assert run(text, 1) == ""
