"""``hilum conformance``: the DICOM conformance statement, from what the code registers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hilum.cli.options import parser
from hilum.cli.running import reason
from hilum.cli.statement import Offer, statement
from hilum.errors import HilumError

__all__ = ["made", "main"]


def main(argv: Sequence[str]) -> int:
    """Run ``hilum conformance``; returns its exit code."""
    arguments = parser(
        "conformance",
        "Print the DICOM conformance statement (PS3.2) as Markdown, made from what this version "
        "registers: of the gateway where it is installed, of the tools and of the library.",
    )
    arguments.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there")
    options = arguments.parse_args(argv)
    try:
        text = made()
        if options.output is None:
            print(text, end="")
        else:
            options.output.write_text(text, encoding="utf-8")
    except (HilumError, OSError) as error:
        print(f"hilum conformance: {reason(error)}", file=sys.stderr)
        return 1
    return 0


def made() -> str:
    """The statement.

    Raises:
        HilumError, OSError: the gateway could not be brought up in a folder of its own.
    """
    try:
        return asyncio.run(_made())
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "hilum":
            raise
        return statement(None, [])


async def _made() -> str:
    """Bring a gateway up on an empty store, and look at what it offers to a peer."""
    from hilum.gateway.app import Gateway, initialise
    from hilum.gateway.config import Config, rows
    from hilum.gateway.store.decoding_process import decoded_by_what_is_installed
    from hilum.gateway.store.entries import SERVICES, Peer

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        # No fsync is waited for: nothing is stored.
        config = Config().with_options(
            data=str(data), dicom="127.0.0.1:0", web="off", store__strategy="fsync",
            store__reserve=0, store__reserve_inodes=0,
        )  # fmt: skip
        await asyncio.to_thread(initialise, data)
        with contextlib.redirect_stderr(io.StringIO()):  # where it listens
            gateway = await Gateway.start(config)
        try:
            peer = Peer("conformance", "CONFORMANCE", "127.0.0.1", services=SERVICES)
            offer = Offer.of(gateway.offered(peer), decoded_by_what_is_installed())
        finally:
            await gateway.stop()
    defaults = [(name, value, unit, text) for name, value, unit, text in rows(Config())]
    return statement(offer, defaults)
