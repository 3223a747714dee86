"""``hilum scp``: bare receivers for tests and scripts."""

from __future__ import annotations

import dataclasses
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from hilum.cli.options import (
    ae_title,
    count,
    limits_of,
    maximum_length,
    parser,
    port_to_listen_on,
    server_tls,
    verbosity_options,
)
from hilum.cli.received import Counter, Folder
from hilum.cli.running import run, set_up_logging, stop_request
from hilum.errors import ConfigurationError
from hilum.net.server import serve
from hilum.net.service import Accept, Authorise, Peer, Reject, storage_policy
from hilum.wire.pdu import AssociateRQ

__all__ = ["main"]

_STORE = (
    "Receive data sets into files of one folder, named by their SOP Instance UID. A bare receiver: "
    "no index, nothing is flushed to the disk, and success is no promise that it lasts. To keep "
    "images, use 'hilum serve'."
)


def _parser() -> ArgumentParser:
    result = parser("scp", "Bare receivers for tests and scripts. To keep images: hilum serve.")
    commands = result.add_subparsers(dest="command", required=True, metavar="store|echo")
    for name, description in (("store", _STORE), ("echo", "Answer C-ECHO and nothing else.")):
        command = commands.add_parser(
            name, description=description, help=description.partition(".")[0].lower(),
            prefix_chars="-+", allow_abbrev=False,
        )  # fmt: skip
        _options(command)
        if name == "store":
            where = command.add_mutually_exclusive_group()
            where.add_argument("--out", "-od", "--output-directory", type=Path, default=Path(),
                               metavar="DIR", help="folder for the files (this one)")  # fmt: skip
            where.add_argument("--no-output", "--ignore", action="store_true",
                               help="count what comes and drop it")  # fmt: skip
    return result


def _options(command: ArgumentParser) -> None:
    add = command.add_argument
    add("port_word", nargs="?", type=port_to_listen_on, metavar="PORT", help="port to listen on")
    add("--port", "-p", type=port_to_listen_on, metavar="N", help="the same; 0 takes a free one")
    add("--host", "-ba", default="0.0.0.0", metavar="ADDRESS",  # noqa: S104 - as others do
        help="address to listen on (every IPv4 one)")  # fmt: skip
    add("-aet", "--aetitle", type=ae_title, default="HILUM", metavar="TITLE", help="our AE title")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--any", action="store_true", help="answer to any called AE title (default)")
    which.add_argument("--require-called", action="store_true",
                       help="reject calls to another AE title than ours")  # fmt: skip
    add("-pdu", "--max-pdu", type=maximum_length, metavar="BYTES",
        help="longest PDU that we receive; 0 is no limit")  # fmt: skip
    add("--max-associations", type=count, default=256, metavar="N", help="at once (256)")
    group = command.add_argument_group("TLS")
    add = group.add_argument
    add("--tls-cert", type=Path, metavar="FILE", help="our certificate (PEM); turns TLS on")
    add("--tls-key", type=Path, metavar="FILE", help="its private key, if not in the same file")
    add("+tls", dest="tls_pair", nargs=2, type=Path, metavar=("KEY", "CERT"), help="both at once")
    add("--tls-ca", "+cf", type=Path, metavar="FILE", help="authorities that clients must show")
    verbosity_options(command)


def main(argv: Sequence[str]) -> int:
    """Run ``hilum scp``; returns its exit code."""
    arguments = _parser()
    options = arguments.parse_args(argv)
    given = {options.port, options.port_word} - {None}
    if len(given) != 1:
        arguments.error("which port? give one: hilum scp store --port N")
    options.port = given.pop()
    set_up_logging(options)
    try:
        return run(_receive(options))
    except ConfigurationError as error:
        arguments.error(str(error))


async def _receive(options: Namespace) -> int:
    received = None if options.command == "echo" else _receiver(options)
    stop = stop_request()
    limits = dataclasses.replace(
        limits_of(options),
        max_associations=options.max_associations,
        max_per_address=options.max_associations,
        max_per_title=options.max_associations,
    )
    try:
        server = await serve(
            options.host,
            options.port,
            _authorise(options, received),
            limits=limits,
            tls=server_tls(options),
        )
        host, number = server.addresses[0]
        print(f"listening on {f'[{host}]' if ':' in host else host}:{number}", flush=True)
        began = time.monotonic()
        try:
            await stop.wait()
        finally:
            await server.close(grace=5.0)
    finally:
        if received is not None:
            await received.close()
    if received is not None and not options.quiet:
        seconds = time.monotonic() - began
        print(f"received {received.received}, {received.bytes / 1e6:.1f} MB in {seconds:.1f} s")
    return 0


def _receiver(options: Namespace) -> Counter:
    if options.no_output:
        return Counter()
    if not options.out.is_dir():
        raise ConfigurationError(f"no folder '{options.out}'; make it, or use --no-output")
    return Folder(options.out)


def _authorise(options: Namespace, received: Counter | None) -> Authorise:
    """Everyone may call; with ``--require-called`` only by our name."""
    accept = (
        Accept(policy=storage_policy(sop_classes=frozenset()))
        if received is None
        else Accept(open_store=received.open_store)
    )

    def authorise(rq: AssociateRQ, peer: Peer) -> Accept | Reject:
        if options.require_called and rq.called_ae_title != options.aetitle:
            return Reject.unknown_called_title(f"we are {options.aetitle}")
        return accept

    return authorise
