"""What the gateway's commands share: options, tables, JSON, errors as one line."""

from __future__ import annotations

import dataclasses
import json as json_module
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hilum.errors import HilumError
from hilum.gateway import heartbeat
from hilum.gateway.config import Config, load
from hilum.gateway.store.blobs import MARKER
from hilum.gateway.store.database import Database, open_database
from hilum.gateway.store.directory import Directory

__all__ = [
    "ACTOR",
    "DataOption",
    "JsonOption",
    "changing",
    "database",
    "fail_clearly",
    "print_json",
    "settings",
    "size",
    "table",
]

DATABASE = "hilum.db"
ACTOR = "command line"

# A gateway looks for changes twice a second.
_FOLLOWED_WITHIN = 5.0

DataOption = Annotated[
    Path | None, typer.Option("--data", help="data directory; default: HILUM_DATA, or hilum-data")
]
JsonOption = Annotated[bool, typer.Option("--json", help="for programs: JSON on standard output")]


@contextmanager
def fail_clearly() -> Iterator[None]:
    """Our own errors become one line on standard error and exit code 1."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output has read enough
        raise
    except (HilumError, OSError) as error:
        print(f"hilum: {error}", file=sys.stderr)
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
    """A table as wide as the terminal; tab-separated where the output is no terminal."""
    if not sys.stdout.isatty():
        for line in lines:
            print("\t".join(_plain(cell) for cell in line))
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for line in lines:
        shown.add_row(*(Text(_plain(cell)) for cell in line))
    Console().print(shown)


def _plain(cell: object) -> str:
    """Control characters could steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(cell))


def size(count: int) -> str:
    """Bytes for people, in powers of 1,024."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
