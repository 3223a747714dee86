"""``hilum web``, the process that ``hilum serve`` starts when someone connects."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from hilum.cli.running import reason
from hilum.errors import HilumError
from hilum.gateway.config import parse_address
from hilum.gateway.web.app import run

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Serve the pages until our standard input ends; returns the exit code."""
    parser = ArgumentParser(prog="hilum web", description="The web process of 'hilum serve'.")
    add = parser.add_argument
    add("--data", type=Path, required=True, help="data directory")
    add("--listen", required=True, metavar="HOST:PORT")
    add("--reserve", type=int, help="bytes free below which nothing is taken")
    add("--descriptor", type=int, help="of a socket that listens there already")
    options = parser.parse_args(argv)
    try:
        host, port = parse_address(options.listen, "listen")
        run(
            options.data,
            host or "127.0.0.1",
            port,
            stop_on_stdin_eof=True,
            reserve=options.reserve,
            descriptor=options.descriptor,
        )
    except (HilumError, OSError) as error:
        print(f"hilum: {reason(error)}", file=sys.stderr)
        return 1
    return 0
