"""``hilum config export`` and ``import``, ``hilum import-settings``: settings as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hilum.cli.shown import (
    ACTOR,
    DataOption,
    JsonOption,
    changing,
    database,
    fail_clearly,
    print_json,
    table,
)
from hilum.errors import ConfigurationError
from hilum.gateway.earlier import Outcome, read_settings, take_over
from hilum.gateway.portable import bring_in, export
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.schedules import Schedules

__all__ = ["config_export", "config_import", "import_settings"]

# A directory of ten thousand peers is a megabyte; a settings file has a few KB.
_LARGEST = 16 << 20


def config_export(
    target: Annotated[Path | None, typer.Argument(help="TOML file; default: output")] = None,
    data: DataOption = None,
) -> None:
    """Write users, AE titles, listeners, peers, schedules and settings as TOML."""
    with fail_clearly():
        with database(data) as opened:
            text = export(Directory(opened).snapshot(), Schedules(opened).all())
        if target is None:
            sys.stdout.write(text)
            return
        with open(target, "x", encoding="utf-8") as file:
            file.write(text)


def config_import(
    source: Annotated[Path, typer.Argument(help="TOML file of 'hilum config export'")],
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="remove titles, listeners, peers and schedules that it does not have"
        ),
    ] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Make the directory say what a file says; live in a running gateway within seconds."""
    with fail_clearly():
        text = _read(source)
        with database(data) as opened, changing(data) as directory:
            done = bring_in(directory, Schedules(opened, actor=ACTOR), text, prune=prune)
        if json:
            print_json({"changed": done})
        else:
            print("\n".join(done) if done else "nothing to change")


def import_settings(
    source: Annotated[Path, typer.Argument(help="settings file of an earlier system")],
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Take over the settings of an earlier system; the file is read, never run.

    What has a meaning today is set, the rest is kept for later or named. Exit code 1 when nothing
    in the file was known, or something is not possible here.
    """
    with fail_clearly():
        settings = read_settings(_read(source))
        with changing(data) as directory:
            taken = take_over(directory, settings)
        if json:
            print_json([each._asdict() for each in taken])
        else:
            known = [each for each in taken if each.outcome is not Outcome.IGNORED]
            table(("setting", "value", "", "meaning"), known)
            if ignored := [each.name for each in taken if each.outcome is Outcome.IGNORED]:
                print(f"not known here: {', '.join(ignored)}", file=sys.stderr)
        outcomes = {each.outcome for each in taken}
        if outcomes == {Outcome.IGNORED} or Outcome.DIFFERENT in outcomes:
            raise typer.Exit(1)


def _read(source: Path) -> str:
    with open(source, "rb") as file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise ConfigurationError(f"{source} has over {_LARGEST} bytes; it is no settings file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{source} is no text in UTF-8") from None
