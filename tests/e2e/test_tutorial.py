"""Every command of docs/tutorial.md, in its order, on a fresh data directory.

Ports are replaced by free ones. ``&`` starts in the background, ``# exit code 1`` means so, and
lines after a command are what it has to print.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests import peers, samples

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
_EXIT_CODE = re.compile(r"#\s*exit code (\d+)")


@dataclass
class Step:
    """A command line of the page, and what it says that the command prints."""

    line: str
    output: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        found = _EXIT_CODE.search(self.line)
        return int(found[1]) if found else 0

    @property
    def in_background(self) -> bool:
        return self.line.split("#")[0].rstrip().endswith("&")


def steps() -> list[Step]:
    found: list[Step] = []
    for block in _BLOCK.findall(PAGE.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            elif line.strip():
                found[-1].output.append(line)
    return found


class Shell:
    """A folder with images/, where ``hilum`` is ours and storescu is DCMTK's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"11112": str(peers.free_port()), "8484": str(peers.free_port())}
        self.started: list[subprocess.Popen[bytes]] = []
        programs = folder / "bin"
        programs.mkdir()
        (programs / "hilum").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hilum "$@"\n')
        (programs / "hilum").chmod(0o755)
        for name in ("echoscu", "storescu"):
            (programs / name).symlink_to(peers.native(name))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HILUM_")}
        self.environment = clean | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HILUM_DICOM": f"127.0.0.1:{self.ports['11112']}",
            "HILUM_WEB": f"127.0.0.1:{self.ports['8484']}",
            "HILUM_STORE_RESERVE": "0",
        }

    def line(self, step: Step) -> str:
        line = step.line
        for ours, free in self.ports.items():
            line = re.sub(rf"\b{ours}\b", free, line)
        return line

    def run(self, step: Step) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", self.line(step)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        return done.returncode, done.stdout.decode()

    def start(self, step: Step) -> None:
        """What the page starts with ``&``; returns when it serves."""
        command = self.line(step).split("#")[0].rstrip().removesuffix("&")
        with open(self.folder / "log", "wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        for port in self.ports.values():
            assert peers.wait_for_port(int(port), process, 30), (self.folder / "log").read_text()

    def end(self) -> list[int]:
        """End what was started, in order; the exit codes."""
        for process in self.started:
            process.send_signal(signal.SIGTERM)
        try:
            return [process.wait(30) for process in self.started]
        finally:
            for process in self.started:
                process.kill()
                process.wait()


@pytest.fixture
def shell(tmp_path: Path, dcmtk: None) -> Iterator[Shell]:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm", "waveform_ecg.dcm", "image_dfl.dcm"):
        shutil.copy(samples.named(name).path, images)
    (images / "readme.txt").write_text("not DICOM")
    shutil.make_archive(str(tmp_path / "more"), "zip", images)
    shutil.move(tmp_path / "more.zip", images / "more.zip")
    made = Shell(tmp_path)
    yield made
    made.end()


def test_the_page_has_commands() -> None:
    lines = [step.line for step in steps()]
    assert len(lines) > 15
    assert lines[0].startswith("hilum serve")
    assert any(step.output for step in steps())
    assert any(step.exit_code for step in steps())


def test_every_command_does_what_the_page_says(shell: Shell) -> None:
    printed: dict[str, str] = {}
    for step in steps():
        if step.in_background:
            shell.start(step)
            continue
        code, output = shell.run(step)
        printed[step.line] = output
        assert code == step.exit_code, (
            f"$ {step.line}\n{output}\n{(shell.folder / 'log').read_text()}"
        )
        for expected in step.output:
            for ours, free in shell.ports.items():
                expected = expected.replace(ours, free)
            assert expected.strip() in output, f"$ {step.line}\n{output}"
    with urlopen(f"http://127.0.0.1:{shell.ports['8484']}/readyz", timeout=10) as answer:
        assert answer.status == 200
    assert "CompressedSamples^MR1" in printed["hilum ls --user alice"]
    assert "NOWHERE" in (shell.folder / "log").read_text()
    assert len(list((shell.folder / "out").rglob("*.dcm"))) == 1
    assert shell.end() == [0], (shell.folder / "log").read_text()
