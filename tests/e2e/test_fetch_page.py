"""Every command of docs/fetch.md, in its order, against DCMTK's dcmqrscp."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests import peers
from tests.conftest import require
from tests.e2e.gateway import HILUM, Gateway, environment, hilum, prepare
from tests.studies import Series, make

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "fetch.md"


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_page_is_true(tmp_path: Path) -> None:
    require("dcmqrscp")
    data, port = tmp_path / "data", peers.free_port()
    prepare(data)
    ct = make(tmp_path / "files", Series("CT", 2))
    mr = make(tmp_path / "files", Series("MR", 1))
    lines = commands()
    assert len(lines) > 8
    with (
        peers.dcmqrscp(tmp_path / "archive", moves={"HILUM": port}) as archive,
        Gateway(data, words=("--dicom", f"127.0.0.1:{port}")) as gateway,
    ):
        for study in (ct, mr):
            peers.storescu("ARCHIVE", archive.port, study.files).check()
        for line in lines:
            line = line.replace("11113", str(archive.port)).replace("1.2.3.4", mr.uid)
            program, *words = shlex.split(line)
            assert program == "hilum"
            done = subprocess.run(
                [*HILUM, *words, "--data", data],
                env=environment(), capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert done.returncode == 0, (line, done.stderr)
        here = {row["sop_uid"] for row in hilum("ls", "--level", "instance", "--data", data)}
        assert here == ct.uids | mr.uids
        assert gateway.process.poll() is None


def test_every_option_is_on_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hilum", "fetch", "run", "--help"],
        env=environment({"COLUMNS": "200", "TERM": "dumb"}), capture_output=True, text=True,
    )  # fmt: skip
    options = set(re.findall(r"--[a-z][a-z-]+", done.stdout))
    options -= {"--data", "--json", "--help", "--no-dose"}
    page = PAGE.read_text()
    missing = {o for o in options if o not in page and not o.startswith("--no-")}
    assert not missing
