"""``hilum import``: folders, archives and media into the gateway's store."""

from __future__ import annotations

from argparse import Namespace
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from hilum.cli.report import StoreReport, shown
from hilum.cli.running import run
from hilum.cli.shown import DataOption, JsonOption, database, fail_clearly, settings
from hilum.errors import ConfigurationError, NotFound
from hilum.gateway.config import Config
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.entries import Snapshot, check_ae_title
from hilum.net.files import Summary, send_files
from hilum.net.media import find_on_media
from hilum.net.sources import Found

__all__ = ["import_media"]

TITLE = "RAIVEN"


def import_media(
    paths: Annotated[
        list[Path], typer.Argument(help="folders, zip archives, files; DICOMDIR for what it names")
    ],
    title: Annotated[
        str | None, typer.Option(help=f"store as if sent to this AE title ({TITLE})")
    ] = None,
    user: Annotated[str | None, typer.Option(help="store for this user alone")] = None,
    calling: Annotated[str, typer.Option(help="AE title to note as the sender")] = "IMPORT",
    parallel: Annotated[int, typer.Option("-j", "--parallel", min=1, help="at once")] = 4,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="name every file")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="failures only")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Take in what is on disk or on media, beside a running gateway or without one.

    Every file goes the way that a sent one goes: what is here already counts as stored, so that an
    import that was interrupted can simply be run again. Exit code 0 if everything is here.
    """
    with fail_clearly():
        check_ae_title(calling)
        config = settings(data)
        with database(data) as opened:
            snapshot = Directory(opened).snapshot()
        called = _called(snapshot, title, user)
        try:
            found = find_on_media(paths)
        except FileNotFoundError as error:
            raise NotFound(f"no file or folder '{shown(str(error))}'; nothing was stored") from None
        options = Namespace(json=json, quiet=quiet, verbose=verbose, debug=False)
        report = StoreReport(options, found)
        with found, report.progress() as progress:
            report.not_sent()
            bar = progress is not None
            summary = run(
                _store(config, snapshot, called, calling, parallel, found, report, bar=bar)
            )
        if not report.end(called, summary):
            raise typer.Exit(1)


def _called(snapshot: Snapshot, title: str | None, user: str | None) -> str:
    """The AE title to store under."""
    if user is not None:
        if title is not None:
            raise ConfigurationError("give either --title or --user")
        account = next((a for a in snapshot.accounts if a.name == user), None)
        if account is None:
            raise NotFound(f"no user {user!r}; 'hilum user ls' lists them")
        title = next(iter(account.titles), "")
    called = title or TITLE
    if snapshot.resolve(called) is None:
        raise NotFound(f"AE title {called!r} is not served; 'hilum ae ls' lists those that are")
    return called


async def _store(
    config: Config,
    snapshot: Snapshot,
    called: str,
    calling: str,
    parallel: int,
    found: Found,
    report: StoreReport,
    *,
    bar: bool,
) -> Summary:
    from hilum.gateway.offline import offline_receiver, running_receiver

    async with AsyncExitStack() as stack:
        receiver = running_receiver(config, snapshot)
        if receiver is None:
            receiver = await stack.enter_async_context(offline_receiver(config))
        return await send_files(
            receiver.host,
            receiver.port,
            found.sources,
            called=called,
            calling=calling,
            parallel=parallel,
            on_result=report.result,
            on_bytes=report.advance if bar else None,
            user_identity=receiver.user_identity,
        )
