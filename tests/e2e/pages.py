"""Pages of the documentation that are run: their commands, and a folder to run them in.

``&`` starts in the background, ``# exit code 1`` means so, and lines after a command are what it has
to print.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests import peers

__all__ = ["DOCS", "Shell", "Step", "steps"]

DOCS = Path(__file__).parents[2] / "docs"
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


def steps(page: Path, section: str = "") -> list[Step]:
    """The commands of a page, or of one section of it."""
    text = page.read_text(encoding="utf-8")
    if section:
        text = next(t for t in text.split("\n## ") if t.startswith(f"{section}\n"))
    found: list[Step] = []
    for block in _BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            elif line.strip():
                found[-1].output.append(line)
    return found


class Shell:
    """A folder where ``hilum`` is ours and storescu is DCMTK's.

    Args:
        folder: to run in.
        instead: texts of the pages, and what stands for them here; before ports are replaced.
    """

    def __init__(self, folder: Path, instead: Mapping[str, str] = {}) -> None:
        self.folder = folder
        self.instead = dict(instead)
        self.ports = {"11112": str(peers.free_port()), "8484": str(peers.free_port())}
        self.started: list[subprocess.Popen[bytes]] = []
        programs = folder / "bin"
        programs.mkdir()
        (programs / "hilum").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hilum "$@"\n')
        (programs / "hilum").chmod(0o755)
        for name in ("echoscu", "storescu", "findscu", "movescu"):
            (programs / name).symlink_to(peers.native(name))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HILUM_")}
        self.environment = clean | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HILUM_DICOM": f"127.0.0.1:{self.ports['11112']}",
            "HILUM_WEB": f"127.0.0.1:{self.ports['8484']}",
            "HILUM_STORE_RESERVE": "0",
        }

    def line(self, step: Step) -> str:
        """The command as it is run."""
        line = step.line
        for theirs, ours in self.instead.items():
            line = line.replace(theirs, ours)
        for port, free in self.ports.items():
            line = re.sub(rf"\b{port}\b", free, line)
        return line

    def run(self, step: Step) -> tuple[int, str]:
        """Exit code and output."""
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
        for port in ("11112", "8484"):
            assert peers.wait_for_port(int(self.ports[port]), process, 30), (
                self.folder / "log"
            ).read_text()

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
