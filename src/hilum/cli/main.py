"""``hilum``: the first word says which command; nothing is imported that it does not need."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from hilum import __version__

__all__ = ["main"]

# Exit codes of every command.
OK, FAILED, USAGE = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT, as shells say it

_TOOLS = {
    "echo": ("hilum.cli.echo", "ask a peer whether it answers (C-ECHO)"),
    "store": ("hilum.cli.store", "send files, folders and zip archives (C-STORE)"),
    "find": ("hilum.cli.find", "query a peer (C-FIND)"),
    "mwl": ("hilum.cli.find:worklist", "query a modality worklist (C-FIND)"),
    "get": ("hilum.cli.retrieve:get", "retrieve over the same association (C-GET)"),
    "move": ("hilum.cli.retrieve:move", "have a peer send elsewhere, or to us (C-MOVE)"),
    "commit": ("hilum.cli.commit", "ask for storage commitment of what was sent"),
    "dump": ("hilum.cli.dump", "show what is in DICOM files"),
    "dicomdir": ("hilum.cli.dicomdir", "write a medium: folder, zip archive or ISO image"),
    "conformance": ("hilum.cli.conformance", "print the DICOM conformance statement (PS3.2)"),
    "scp": ("hilum.cli.scp", "bare providers for tests: scp store, echo, qr, mwl"),
}

_GATEWAY = {
    "serve": "start the gateway",
    "ls": "list patients, studies, series, instances",
    "user": "add, list and remove users",
    "ae": "AE titles that are served",
    "listener": "addresses that are listened on",
    "peer": "peers that may call, and that are called",
    "commitments": "storage commitments: what was promised, and to whom",
    "fetch": "fetch studies from a peer (C-FIND, C-MOVE, C-GET)",
    "schedule": "fetches that are repeated",
    "jobs": "background work: list, hold, retry, cancel",
    "config": "show and check the settings; export and import the directory",
    "import-settings": "take over the settings of an earlier system",
    "verify": "check everything that is stored",
    "reindex": "rebuild the database from the files",
    "import": "take in folders, zip archives and media",
    "export": "copy stored objects out",
    "rm": "remove stored objects",
}

# Processes that stay; they do without the framework of the other commands.
_PROCESSES = {"serve": "hilum.cli.serve", "web": "hilum.cli.web"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``hilum``; None takes the process's own.

    Returns:
        The exit code: 0 it went well, 1 it failed, 2 it was not understood.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _write_whole()
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(), file=sys.stdout if words else sys.stderr)
        return OK if words else USAGE
    if words[0] in ("--version", "-V"):
        print(f"hilum {__version__}")
        return OK
    try:
        tool = _TOOLS.get(words[0])
        return _gateway(words) if tool is None else _command(tool[0])(words[1:])
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:  # argparse and click say their exit code so
        return stop.code if isinstance(stop.code, int) else FAILED if stop.code else OK


def _write_whole() -> None:
    """Buffer standard output by lines where ``PYTHONUNBUFFERED`` made it raw.

    A raw one drops what a short write left, and writes to a pipe are short while the kernel takes
    an io_uring of uvloop's apart: a long document would have holes.
    """
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        encoding, errors = sys.stdout.encoding, sys.stdout.errors
        fd = sys.stdout.fileno()
        sys.stdout = open(fd, "w", 1, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115


def _command(module: str) -> Callable[[list[str]], int]:
    name, _, function = module.partition(":")
    command: Callable[[list[str]], int] = getattr(import_module(name), function or "main")
    return command


def _gateway(words: list[str]) -> int:
    own = _PROCESSES.get(words[0])
    if own is None and words[0] not in _GATEWAY and not words[0].startswith("-"):
        import difflib  # only for a word that nobody knows

        near = difflib.get_close_matches(words[0], [*_TOOLS, *_GATEWAY], n=1)
        meant = f"did you mean '{near[0]}'? " if near else ""
        print(f"hilum: no command '{words[0]}'; {meant}see hilum --help", file=sys.stderr)
        return USAGE
    try:
        command = _command(own or "hilum.cli.gateway")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "hilum":
            raise
        print(
            f"hilum: '{words[0]}' needs the gateway: pip install \"hilum[gateway]\"",
            file=sys.stderr,
        )
        return USAGE
    return command(words[1:] if own else words)


def _help() -> str:
    lines = [
        "usage: hilum COMMAND …      (hilum COMMAND --help says more)",
        "",
        "DICOM tools:",
        *(f"  {name:<15} {text}" for name, (_, text) in _TOOLS.items()),
        "",
        'Gateway (pip install "hilum[gateway]"):',
        *(f"  {name:<15} {text}" for name, text in _GATEWAY.items()),
        "",
        "options:",
        "  -V, --version   print the version",
        "",
        "A peer is written AETITLE@HOST:PORT, HOST:PORT or HOST PORT.",
    ]
    return "\n".join(lines)
