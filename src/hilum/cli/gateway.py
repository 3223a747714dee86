"""The gateway's commands that look at and change a data directory; see also `serve`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import hilum
from hilum.cli import archive, directory, importing, portable
from hilum.cli.commitments import commitments
from hilum.cli.fetch import fetches, schedules
from hilum.cli.jobs import jobs
from hilum.cli.shown import JsonOption, fail_clearly, print_json, readable, table
from hilum.gateway.config import load, rows

__all__ = ["app", "main"]

app = typer.Typer(
    name="hilum",
    help="A gateway for medical images. DICOM tools: hilum echo, hilum store, hilum scp.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Infrastructure settings.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(directory.users, name="user")
app.add_typer(directory.titles, name="ae")
app.add_typer(directory.listeners, name="listener")
app.add_typer(directory.peers, name="peer")
app.add_typer(commitments, name="commitments")
app.add_typer(jobs, name="jobs")
app.add_typer(fetches, name="fetch")
app.add_typer(schedules, name="schedule")
for command in (archive.ls, archive.verify, archive.reindex, archive.rm, archive.export):
    app.command()(command)
app.command("import")(importing.import_media)
app.command("import-settings")(portable.import_settings)
config_app.command("export")(portable.config_export)
config_app.command("import")(portable.config_import)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; default: hilum.toml where there is one")
]


@config_app.command("show")
def config_show(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Every setting with its value, unit and meaning."""
    with fail_clearly():
        found = rows(load(config))
        if json:
            print_json([{"name": n, "value": v, "unit": u, "meaning": m} for n, v, u, m in found])
        else:
            table(
                ("setting", "value", "unit", "meaning"),
                [(name, _shown(value), unit, meaning) for name, value, unit, meaning in found],
            )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return "-" if value in ("", None) else str(value)


@config_app.command("check")
def config_check(
    config: Annotated[Path | None, typer.Argument(help="TOML file")] = None,
) -> None:
    """Read the settings and say whether they can work; exit code 1 if not."""
    with fail_clearly():
        tree = load(config)
        print(f"settings are good; data directory {Path(tree.data).absolute()}")


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        print(f"hilum {hilum.__version__}")
        raise typer.Exit


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; returns its exit code."""
    try:
        command = readable(typer.main.get_command(app))
        code = command(args=list(argv), prog_name="hilum", standalone_mode=False)
    except Exception as error:
        return _not_understood(error)
    return code if isinstance(code, int) else 0


def _not_understood(error: Exception) -> int:
    """What the parser of these commands raised, in one line as the tools say it."""
    if isinstance(error, typer.Abort):
        print("hilum: stopped; nothing was changed", file=sys.stderr)
        return 1
    # By its methods: where its class is differs between versions of typer.
    say: Callable[[], str] | None = getattr(error, "format_message", None)
    if say is None:
        raise error
    command = getattr(getattr(error, "ctx", None), "command_path", "hilum")
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was its message
        print(say().rstrip(), file=sys.stderr)
        return 2
    said = say().replace("Value error, ", "").rstrip(".")
    # Errors begin in lower case, those of the parser's own parts too.
    said = re.sub(r"(^|: )([A-Z])(?=[a-z])", lambda found: found[0].lower(), said)
    print(f"{command}: error: {said}; see {command} --help", file=sys.stderr)
    return 2
