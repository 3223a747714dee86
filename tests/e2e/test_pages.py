"""The commands of README.md, docs/gateway.md, query.md, commitment.md and of tools.md that need a store.

Only what they talk to is replaced: addresses, ports, paths, a study's UID and a job's number. What
they call a PACS is a second gateway.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from tests import peers, samples
from tests.e2e.gateway import HILUM, Gateway, environment, prepare
from tests.e2e.pages import DOCS, Shell, Step, steps
from tests.net.certificates import Authority

pytestmark = [pytest.mark.interop, pytest.mark.slow]

README = DOCS.parent / "README.md"
RUN_ELSEWHERE = {"tutorial.md", "fetch.md", "tools.md"}


def hilum(shell: Shell, *words: str) -> str:
    done = subprocess.run(
        [*HILUM, *words], cwd=shell.folder, env=shell.environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(shell: Shell, found: list[Step]) -> dict[str, str]:
    """Every command has to end with 0; what they printed."""
    assert found
    printed = {}
    for step in found:
        code, printed[step.line] = shell.run(step)
        assert code == step.exit_code, f"$ {shell.line(step)}\n{printed[step.line]}"
    return printed


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Gateway]:
    prepare(tmp_path / "pacs")
    with Gateway(tmp_path / "pacs") as gateway:
        subprocess.run(
            [*HILUM, "ae", "add", "PACS", "--data", tmp_path / "pacs"],
            env=environment(), check=True, timeout=60,
        )  # fmt: skip
        yield gateway


@pytest.fixture
def shell(tmp_path: Path, dcmtk: None) -> Iterator[Shell]:
    """The gateway that docs/gateway.md starts, with TLS as it says."""
    folder, etc = tmp_path / "here", tmp_path / "etc"
    for path in (folder, etc):
        path.mkdir()
    authority = Authority(etc)
    certificate, key = authority.issue("gateway")
    (etc / "tls.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    for name in ("clients.pem", "hospital.pem"):
        shutil.copy(authority.ca, etc / name)
    page = (DOCS / "gateway.md").read_text(encoding="utf-8")
    settings = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]
    tomllib.loads(settings)
    (folder / "hilum.toml").write_text(settings.replace("/etc/hilum", etc.as_posix()))
    made = Shell(folder, {"/srv/hilum": "hilum-data", "0.0.0.0": "127.0.0.1",
                          "/etc/hilum": etc.as_posix(), ".venv/bin/hilum": "hilum"})  # fmt: skip
    for port in ("8104", "2762", "11113"):
        made.ports[port] = str(peers.free_port())
    first, *_ = steps(DOCS / "gateway.md")
    made.start(first)
    yield made
    made.end()


@pytest.fixture
def image(shell: Shell) -> Path:
    target = shell.folder / "image.dcm"
    shutil.copy(samples.named("CT_small.dcm").path, target)
    return target


def test_every_page_with_commands_is_run() -> None:
    ours = {"gateway.md", "query.md", "commitment.md"}
    for page in DOCS.glob("*.md"):
        if re.search(r"^\$ ", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert page.name in ours | RUN_ELSEWHERE


def test_the_readme(shell: Shell, image: Path) -> None:
    printed = run(shell, [s for s in steps(README) if not s.line.startswith("make")])
    assert "CompressedSamples^CT1" in printed[".venv/bin/hilum ls"]
    block = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0]
    done = subprocess.run(
        [sys.executable, "-c", block.replace("11112", shell.ports["11112"])],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "status=0" in done.stdout


def test_gateway(shell: Shell) -> None:
    _, *found = steps(DOCS / "gateway.md")
    before = [step for step in found if "jobs" not in step.line]
    run(shell, before)
    states = {line.split("\t")[0]: line for line in hilum(shell, "listener", "ls").splitlines()}
    for name in ("dose", "secure"):
        assert "open on" in states[name]

    # A job: a fetch from where nobody answers, which is tried again later.
    hilum(shell, "peer", "add", "far", f"FAR@127.0.0.1:{peers.free_port()}")
    hilum(shell, "fetch", "far", "--study", "1.2.3")
    until = time.monotonic() + 60
    while True:
        jobs = json.loads(hilum(shell, "jobs", "ls", "--json"))
        if jobs and jobs[0]["state"] == "waiting" and jobs[0]["attempts"]:
            break
        assert time.monotonic() < until, jobs
        time.sleep(0.2)
    number = str(jobs[0]["id"])
    lines = [step for step in found if "jobs" in step.line]
    for step in lines:
        step.line = re.sub(r"\b17\b", number, step.line)
    run(shell, lines)
    assert json.loads(hilum(shell, "jobs", "show", number, "--json"))["state"] == "cancelled"


def test_query(shell: Shell, image: Path, tmp_path: Path) -> None:
    uid = str(pydicom.dcmread(image).StudyInstanceUID)
    hilum(shell, "store", f"RAIVEN@127.0.0.1:{shell.ports['11112']}", str(image))
    received = tmp_path / "received"
    received.mkdir()
    with peers.storescp(received) as workstation:
        shell.instead |= {
            "10.0.0.7:104": f"127.0.0.1:{workstation.port}",
            "pacs 11112": "127.0.0.1 11112",
            "StudyInstanceUID=1.2.3": f"StudyInstanceUID={uid}",
            "doe*": "compressed*",
            "20260101-": "20040101-",
        }
        printed = run(shell, steps(DOCS / "query.md"))
        assert any(uid in text for line, text in printed.items() if "findscu" in line)
        assert len(list(received.iterdir())) == 1


def test_commitment(shell: Shell, image: Path, pacs: Gateway) -> None:
    page = DOCS / "commitment.md"
    (shell.folder / "study").mkdir()
    shutil.copy(image, shell.folder / "study")
    hilum(shell, "peer", "add", "pacs", f"PACS@127.0.0.1:{pacs.port}")
    hilum(shell, "store", f"PACS@127.0.0.1:{pacs.port}", str(image))
    printed = run(shell, steps(page))
    assert any("1 committed" in text for text in printed.values())
    assert not list((shell.folder / "study").iterdir()), "it was committed, and to be deleted"
    assert "pacs" in hilum(shell, "commitments", "--ours")

    for name in ("a.dcm", "b.dcm"):
        shutil.copy(image, shell.folder / name)
    block = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[0]
    block = block.replace("11113", shell.ports["11113"])
    block = block.replace('"10.1.0.9", 104', f'"127.0.0.1", {pacs.port}')
    done = subprocess.run(
        [sys.executable, "-c", f"{block}\nimport asyncio\nasyncio.run(main())"],
        cwd=shell.folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 committed, 0 not")


def test_tools_that_use_a_store(shell: Shell, image: Path, pacs: Gateway, tmp_path: Path) -> None:
    uid = str(pydicom.dcmread(image).StudyInstanceUID)
    folder, cdrom = shell.folder, tmp_path / "cdrom"
    for name in ("images", "study", "old-archive"):
        (folder / name).mkdir()
        shutil.copy(image, folder / name)
    shutil.make_archive(str(folder / "study"), "zip", folder / "images")
    (folder / "another").mkdir()
    shutil.copy(samples.named("MR_small.dcm").path, folder / "another")
    shutil.make_archive(str(folder / "more"), "zip", folder / "another")
    hilum(shell, "dicomdir", str(image), "-o", str(cdrom))
    hilum(shell, "user", "add", "alice")
    hilum(shell, "peer", "add", "pacs", f"PACS@127.0.0.1:{pacs.port}")
    for title, port in (("RAIVEN", shell.ports["11112"]), ("PACS", str(pacs.port))):
        hilum(shell, "store", f"{title}@127.0.0.1:{port}", str(image))
    shell.instead |= {"PACS@10.1.0.9:104": f"PACS@127.0.0.1:{pacs.port}",
                      "1.2.826.0.1.3680043": uid, "/media/cdrom": cdrom.as_posix()}  # fmt: skip
    page = DOCS / "tools.md"
    run(shell, steps(page, "hilum dicomdir"))
    assert (folder / "medium" / "DICOMDIR").is_file()
    assert (folder / "study.iso").is_file()
    printed = run(shell, steps(page, "hilum commit"))
    assert all("1 committed, 0 not" in text for text in printed.values())
    assert hilum(shell, "ls") == "", "committed, and to be deleted here"
    run(shell, steps(page, "hilum import"))
    assert uid in hilum(shell, "ls", "--user", "alice")
    assert os.listdir(folder / "images") == ["image.dcm"]
