"""The gateway's commands: serve, and what looks at and changes a data directory."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import hilum
from hilum.cli import archive, directory, importing, portable
from hilum.cli.commitments import commitments
from hilum.cli.fetch import fetches, schedules
from hilum.cli.jobs import jobs
from hilum.cli.shown import DataOption, JsonOption, fail_clearly, print_json, table
from hilum.gateway.config import Config, load, parse_address, rows

__all__ = ["app"]

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
app.add_typer(jobs, name="jobs")
app.add_typer(fetches, name="fetch")
app.add_typer(schedules, name="schedule")
for command in (archive.ls, archive.verify, archive.reindex, archive.rm, archive.export):
    app.command()(command)
app.command()(commitments)
app.command("import")(importing.import_media)
app.command("import-settings")(portable.import_settings)
config_app.command("export")(portable.config_export)
config_app.command("import")(portable.config_import)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; default: hilum.toml where there is one")
]


@app.command()
def serve(
    data: DataOption = None,
    dicom: Annotated[
        str | None, typer.Option(help="HOST:PORT of the first listener (0.0.0.0:11112)")
    ] = None,
    web: Annotated[
        str | None, typer.Option(help="HOST:PORT of status page and metrics, or 'off'")
    ] = None,
    config: ConfigOption = None,
    init: Annotated[
        bool,
        typer.Option("--init", help="make a new store in a directory that exists and is empty"),
    ] = False,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING, ERROR")] = None,
    log_json: Annotated[bool | None, typer.Option(help="one JSON document per line")] = None,
) -> None:
    """Start the gateway: receive, keep, index.

    Success is answered only when bytes, directory entry and index row are on stable storage.
    Callers on this machine are served at once; others when they are peers ('hilum peer add').
    """
    from hilum.gateway import logs
    from hilum.gateway.app import initialise

    with fail_clearly():
        tree = load(config).with_options(
            data=str(data) if data else None,
            dicom=dicom,
            web=web,
            log_level=log_level.upper() if log_level else None,
            log_json=log_json,
        )
        logs.set_up(tree.log_level, json=tree.log_json)
        initialise(Path(tree.data), even_if_empty=init)
        _raise_descriptor_limit()
        failure = _run(tree)
        if failure is not None:
            print(f"hilum: stopped by an error: {failure}", file=sys.stderr)
            raise typer.Exit(1)


def _run(config: Config) -> BaseException | None:
    """Serve until a signal; returns what stopped it otherwise."""
    from hilum.gateway.app import Gateway

    async def main() -> BaseException | None:
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, asked.set)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(asked.set))
        gateway = await Gateway.start(config)
        waiting = [asyncio.ensure_future(event.wait()) for event in (asked, gateway.stopped)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await gateway.stop()
        return gateway.failure

    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    return uvloop.run(main())


def _raise_descriptor_limit() -> None:
    """A thousand associations need more than the 1,024 descriptors that shells give."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@app.command(hidden=True)
def web(
    data: Annotated[Path, typer.Option(help="data directory")],
    listen: Annotated[str, typer.Option(help="HOST:PORT")],
    reserve: Annotated[
        int | None, typer.Option(help="bytes free below which nothing is taken")
    ] = None,
    descriptor: Annotated[
        int | None, typer.Option(help="of a socket that listens there already")
    ] = None,
) -> None:
    """The web process; 'hilum serve' starts it when someone connects."""
    from hilum.gateway.web.app import run

    with fail_clearly():
        host, port = parse_address(listen, "listen")
        run(
            data,
            host or "127.0.0.1",
            port,
            stop_on_stdin_eof=True,
            reserve=reserve,
            descriptor=descriptor,
        )


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
