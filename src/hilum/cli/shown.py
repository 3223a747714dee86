"""What the gateway's commands share: options, tables, JSON, errors as one line."""

from __future__ import annotations

import dataclasses
import json as json_module
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hilum.cli.running import reason
from hilum.errors import HilumError
from hilum.gateway import heartbeat
from hilum.gateway.config import Config, load
from hilum.gateway.store.blobs import MARKER
from hilum.gateway.store.database import Database, open_database
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.states import DuplicatePolicy, MissingUidPolicy

__all__ = [
    "ACTOR",
    "DataOption",
    "JsonOption",
    "changing",
    "readable",
    "database",
    "fail_clearly",
    "moment",
    "print_json",
    "running",
    "settings",
    "size",
    "table",
]

DATABASE = "hilum.db"
ACTOR = "command line"

# A gateway looks for changes twice a second.
_FOLLOWED_WITHIN = 5.0
# On a terminal, columns of texts with spaces are folded down to this width; all others stay whole,
# so that a UID can be copied.
_FOLDED = 20

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="data directory; default: HILUM_DATA, or hilum-data"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="for programs: JSON on standard output")]


# What stands for the value of an option in the help, where its type does not say it.
_VALUES = {
    "accession": "NUMBER", "alias": "TITLE", "any_title": "TITLE", "allow": "CIDR",
    "calling": "TITLE", "certificate": "FILE", "charset": "TERM", "commitment": "WAYS",
    "config": "FILE", "description": "TEXT", "destination": "TITLE",
    "duplicates": "|".join(DuplicatePolicy), "group": "NAME", "instance": "UID", "issuer": "TEXT", "kind": "KIND", "level": "LEVEL",
    "limit": "N", "missing_uids": "|".join(MissingUidPolicy), "modality": "CODE", "name": "NAME",
    "not_description": "TEXT", "not_station": "TEXT", "origin": "ORIGIN", "parallel": "N",
    "patient": "ID", "reason": "TEXT", "series": "UID", "service": "SERVICE", "since": "DATE",
    "sop_class": "UID", "state": "STATE", "station": "TEXT", "station_level": "LEVEL",
    "study": "UID", "target": "PATH", "title": "TITLE", "tls_ca": "FILE", "tls_cert": "FILE",
    "tls_key": "FILE", "tls_name": "NAME", "transfer_syntax": "UID", "until": "DATE",
    "user": "NAME", "window": "HH:MM-HH:MM", "zone": "ZONE",
}  # fmt: skip


def readable(command: Any) -> Any:
    """The same command, with all below it; its help names values, not the types of Python."""
    for each in getattr(command, "commands", {}).values():
        readable(each)
    for param in command.params:
        if param.param_type_name == "argument":
            param.metavar = param.metavar or param.name.upper()
        elif getattr(param, "is_flag", False):
            param.metavar = ""
            if param.default is False:  # what is off needs no option that says so
                param.secondary_opts, param.show_default = [], False
        elif param.name in _VALUES:
            param.metavar = _VALUES[param.name]
    return command


@contextmanager
def fail_clearly() -> Iterator[None]:
    """Our own errors become one line on standard error and exit code 1."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output has read enough
        raise
    except (HilumError, OSError) as error:
        print(f"hilum: {reason(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


def settings(data: Path | None) -> Config:
    """The settings, with ``--data``."""
    return load().with_options(data=str(data) if data else None)


@contextmanager
def database(data: Path | None) -> Iterator[Database]:
    """The database of a data directory, beside a running gateway or without one."""
    directory = Path(settings(data).data)
    if not (directory / MARKER).exists():
        raise HilumError(f"{directory} is no store of Hilum's; name one with --data")
    opened = open_database(directory / DATABASE, role="command")
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def changing(data: Path | None) -> Iterator[Directory]:
    """The directory, to be changed; a running gateway has followed when the block is over."""
    with database(data) as opened:
        directory = Directory(opened, actor=ACTOR)
        yield directory
        _wait_until_followed(Path(settings(data).data), directory.changes())


def running(data: Path | None) -> heartbeat.Heartbeat | None:
    """What the gateway of a data directory says of itself; None where none runs."""
    beat = heartbeat.read(Path(settings(data).data))
    return beat if beat is not None and beat.is_fresh else None


def _wait_until_followed(data: Path, changes: int) -> None:
    until = time.monotonic() + _FOLLOWED_WITHIN
    while time.monotonic() < until:
        beat = heartbeat.read(data)
        if beat is None or not beat.is_fresh or not beat.accepting or beat.changes >= changes:
            return
        time.sleep(0.05)
    print("hilum: the running gateway has not followed this change yet", file=sys.stderr)


def print_json(value: Any) -> None:
    """One document; dataclasses become objects."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        if isinstance(item, bytes):
            return item.hex()
        return str(item)

    print(json_module.dumps(value, default=plain, ensure_ascii=False, indent=2))


def table(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    """A table with headings on a terminal; tab-separated, without them, anywhere else."""
    if not sys.stdout.isatty():
        for line in lines:
            print("\t".join(_plain(cell) for cell in line))
        return
    cells = [[_plain(cell) for cell in line] for line in lines]
    shown = Table(box=None, pad_edge=False, header_style="bold")
    # What is empty in every line is left out: room is short on a terminal.
    used = [n for n in range(len(columns)) if not cells or any(line[n] for line in cells)]
    least = 2 * len(used)
    for n in used:
        texts = [columns[n], *(line[n] for line in cells)]
        folds = any(" " in text and len(text) > _FOLDED for text in texts)
        widest = _FOLDED if folds else max(map(cell_len, texts))
        number = bool(cells) and all(isinstance(line[n], int) for line in lines)
        shown.add_column(
            columns[n],
            overflow="fold",
            no_wrap=not folds,
            min_width=widest,
            justify="right" if number else "left",
        )
        least += widest
    for line in cells:
        shown.add_row(*(Text(line[n]) for n in used))
    # Both: a terminal that says of itself that it is dumb has 80 columns for rich otherwise.
    Console(width=max(Console().width, least), height=25).print(shown)
    if not cells:
        print("none")


def _plain(cell: object) -> str:
    """Control characters could steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(cell))


def moment(microseconds: int | None) -> str:
    """A time of the database in this machine's time zone; empty for none."""
    if microseconds is None:
        return ""
    return f"{datetime.fromtimestamp(microseconds / 1e6).astimezone():%Y-%m-%d %H:%M:%S}"


def size(count: int) -> str:
    """Bytes for people, in powers of 1,024."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
