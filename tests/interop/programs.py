"""pynetdicom's applications with their import lines changed, made from the installed package.

Nothing of theirs is kept here: the modules are read from the installed package when the tests run,
their imports rewritten as a program's would be that moves over, and put into a folder of the test.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pynetdicom
from tests.peers import HOST, Finished, Server, free_port, run, serve

_IMPORTS = (
    (re.compile(r"^(\s*)from pynetdicom\.apps\b", re.MULTILINE), r"\1from apps"),
    (re.compile(r"^(\s*)from pynetdicom\b", re.MULTILINE), r"\1from hilum.sync"),
    (re.compile(r"^(\s*)import pynetdicom\b", re.MULTILINE), r"\1import hilum.sync as pynetdicom"),
    # Not an import, but the name of the library's logger.
    (re.compile(r'getLogger\("pynetdicom"\)'), 'getLogger("hilum")'),
)


def moved_over(text: str) -> str:
    """A program's text with its imports changed."""
    for pattern, replacement in _IMPORTS:
        text = pattern.sub(replacement, text)
    return text


@dataclass(frozen=True)
class Programs:
    """The applications, in a folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Programs:
        """Rewrite the installed applications into a folder."""
        source = Path(pynetdicom.__file__).parent / "apps"
        shutil.copytree(
            source, folder / "apps", ignore=shutil.ignore_patterns("tests", "__pycache__")
        )
        for file in (folder / "apps").rglob("*.py"):
            text = moved_over(file.read_text())
            assert "from pynetdicom" not in text and "import pynetdicom" not in text
            file.write_text(text)
        return cls(folder)

    def command(self, name: str, *arguments: object) -> list[str]:
        """The command line of an application."""
        # The folder is where the modules are found, whatever the current one is.
        start = f"import sys; sys.path.insert(0, {str(self.folder)!r}); sys.argv[0] = {name!r}; "
        start += f"from apps.{name}.{name} import main; main()"
        return [sys.executable, "-c", start, *map(str, arguments)]

    def run(self, name: str, port: int, *arguments: object, folder: Path | None = None) -> Finished:
        """Run a user's application to its end against a port."""
        return run(self.command(name, HOST, port, *arguments), directory=folder)

    @contextmanager
    def serving(self, name: str, directory: Path, *arguments: object) -> Iterator[Server]:
        """Run a provider's application for the length of the block."""
        port = free_port()
        command = self.command(name, *arguments, str(port))
        if name == "qrscp":
            command = self.command(name, *arguments, "--port", str(port))
        with serve(name, command, port=port, directory=directory, ae_title=name.upper()) as server:
            yield server


def environment_is_clean() -> bool:
    """Whether nothing of pynetdicom's can be found by accident."""
    return "PYTHONPATH" not in os.environ
