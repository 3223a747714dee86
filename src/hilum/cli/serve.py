"""``hilum serve``.

With argparse: this process stays, and the framework of the gateway's other commands takes 15 MB.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from pathlib import Path

from hilum.cli.running import reason, run
from hilum.errors import HilumError
from hilum.gateway import logs
from hilum.gateway.app import Gateway, initialise
from hilum.gateway.config import Config, load

__all__ = ["main", "parser"]


def parser() -> ArgumentParser:
    """Of its command line."""
    result = ArgumentParser(
        prog="hilum serve",
        description="Start the gateway: receive, keep, index. Success is answered only when bytes, "
        "directory entry and index row are on stable storage. Callers on this machine are served "
        "at once; others when they are peers ('hilum peer add').",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--data", metavar="DIR", help="data directory; default: HILUM_DATA, or hilum-data")
    add("--dicom", metavar="HOST:PORT", help="of the first listener (0.0.0.0:11112)")
    add("--web", metavar="HOST:PORT", help="of status page and metrics, or 'off'")
    add("--config", type=Path, metavar="FILE",
        help="TOML file; default: hilum.toml where there is one")  # fmt: skip
    add("--init", action="store_true",
        help="make a new store in a directory that exists and is empty")  # fmt: skip
    add("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR")
    add("--log-json", action=BooleanOptionalAction, help="one JSON document per line")
    return result


def main(argv: Sequence[str]) -> int:
    """Run ``hilum serve``; returns its exit code."""
    options = parser().parse_args(argv)
    try:
        config = _settings(options)
        logs.set_up(config.log_level, json=config.log_json)
        initialise(Path(config.data), even_if_empty=options.init)
        _raise_descriptor_limit()
        failure = run(_serve(config))
    except (HilumError, OSError) as error:
        print(f"hilum: {reason(error)}", file=sys.stderr)
        return 1
    if failure is not None:
        print(f"hilum: stopped by an error: {failure}", file=sys.stderr)
    return int(failure is not None)


def _settings(options: Namespace) -> Config:
    level = options.log_level
    return load(options.config).with_options(
        data=options.data or None,
        dicom=options.dicom,
        web=options.web,
        log_level=level.upper() if level else None,
        log_json=options.log_json,
    )


async def _serve(config: Config) -> BaseException | None:
    """Serve until a signal; returns what stopped it otherwise."""
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
