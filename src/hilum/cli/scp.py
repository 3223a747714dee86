"""``hilum scp``: bare providers for tests and scripts."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.cli.options import (
    PeerAddress,
    accepted,
    ae_title,
    count,
    limits_of,
    maximum_length,
    parser,
    peer_and_rest,
    port_to_listen_on,
    server_tls,
    timeout_options,
    timeouts_of,
    verbosity_options,
)
from hilum.cli.received import Counter, receiver_of
from hilum.cli.report import shown
from hilum.cli.running import run, set_up_logging, stop_request
from hilum.errors import ConfigurationError
from hilum.net.server import serve
from hilum.net.service import Accept, Authorise, Peer, Reject, service_policy, storage_policy
from hilum.services.sop_classes import MODALITY_WORKLIST_FIND, STORAGE_SOP_CLASSES
from hilum.wire.pdu import AssociateRQ

if TYPE_CHECKING:
    from hilum.cli.qr import Archive

__all__ = ["main"]

_STORE = (
    "Receive data sets into files of one folder, named by their SOP Instance UID. A bare receiver: "
    "no index, nothing is flushed to the disk, and success is no promise that it lasts. To keep "
    "images, use 'hilum serve'."
)


_QR = (
    "Serve a folder of DICOM files as a query/retrieve archive: C-FIND, C-GET, C-MOVE, and C-STORE "
    "into it. The headers of all files are held in memory; for more than a few thousand, and to "
    "keep images, use 'hilum serve'."
)
_MWL = (
    "Serve a folder of worklist files as a modality worklist (C-FIND). The folder is looked at "
    "anew for each query; a folder in it that is called like the called AE title is that title's "
    "own."
)
_COMMANDS = {
    "store": _STORE,
    "echo": "Answer C-ECHO and nothing else.",
    "qr": _QR,
    "mwl": _MWL,
}


def _parser() -> ArgumentParser:
    result = parser("scp", "Bare providers for tests and scripts. To keep images: hilum serve.")
    commands = result.add_subparsers(dest="command", required=True, metavar="|".join(_COMMANDS))
    for name, description in _COMMANDS.items():
        command = commands.add_parser(
            name, description=description, help=_first_lower(description.partition(". ")[0]),
            usage=f"hilum scp {name} [options] PORT", prefix_chars="-+", allow_abbrev=False,
        )  # fmt: skip
        _options(command)
        if name == "store":
            where = command.add_mutually_exclusive_group()
            where.add_argument("--out", "-od", "--output-directory", type=Path, default=Path(),
                               metavar="DIR", help="folder for the files (this one)")  # fmt: skip
            where.add_argument("--no-output", "--ignore", action="store_true",
                               help="count what comes and drop it")  # fmt: skip
        elif name in ("qr", "mwl"):
            command.add_argument("--folder", "-df", "--data-files-path", "--out", "-od", type=Path,
                                 default=Path(), metavar="DIR",
                                 help="the folder (this one)")  # fmt: skip
        if name == "qr":
            command.add_argument("--destination", "--peer", action="append", default=[],
                                 metavar="TITLE@HOST:PORT",
                                 help="whom a C-MOVE may send to; may be repeated")  # fmt: skip
            command.add_argument("--no-store", action="store_true",
                                 help="take nothing in")  # fmt: skip
    return result


def _first_lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


def _options(command: ArgumentParser) -> None:
    add = command.add_argument
    add("port_word", nargs="?", type=port_to_listen_on, metavar="PORT", help="port to listen on")
    add("--port", "-p", type=port_to_listen_on, metavar="N", help="the same; 0 takes a free one")
    add("--host", "-ba", "--bind-address", default="0.0.0.0", metavar="ADDRESS",  # noqa: S104 - as others do
        help="address to listen on (every IPv4 one)")  # fmt: skip
    add("-aet", "--aetitle", "--ae-title", type=ae_title, default="HILUM", metavar="TITLE",
        help="our AE title (HILUM)")  # fmt: skip
    accepted(command, "-pm", "--promiscuous", "+xa", "--accept-all", "--fork")
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
    timeout_options(command, connecting=False)
    verbosity_options(command)


def main(argv: Sequence[str]) -> int:
    """Run ``hilum scp``; returns its exit code."""
    arguments = _parser()
    options = arguments.parse_args(argv)
    given = {options.port, options.port_word} - {None}
    if len(given) != 1:
        arguments.error("which port? give one: hilum scp store --port N")
    options.port = given.pop()
    if options.command == "qr":
        options.peers = [_destination(arguments, word) for word in options.destination]
    set_up_logging(options)
    try:
        return run(_receive(options))
    except ConfigurationError as error:
        print(f"usage: hilum scp {options.command} [options] PORT", file=sys.stderr)
        print(f"hilum scp {options.command}: error: {error}", file=sys.stderr)
        return 2


def _destination(arguments: ArgumentParser, word: str) -> PeerAddress:
    peer, rest = peer_and_rest(arguments, [word], None)
    if peer.called is None or rest:
        arguments.error(f"'{word}' has no AE title; write TITLE@HOST:PORT")
    return peer


@dataclass
class _Service:
    """What a command serves: to whom it answers, and what counts what it receives."""

    accept: Accept
    received: Counter | None = None
    archive: Archive | None = None

    async def close(self) -> None:
        """Write what has come."""
        if self.received is not None:
            await self.received.close()
        if self.archive is not None:
            self.archive.close()


async def _receive(options: Namespace) -> int:
    service = await _service(options)
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
            _authorise(options, service.accept),
            timeouts=timeouts_of(options),
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
        await service.close()
    if service.received is not None and not options.quiet:
        received, seconds = service.received, time.monotonic() - began
        print(f"received {received.received}, {received.bytes / 1e6:.1f} MB in {seconds:.1f} s")
    return 0


async def _service(options: Namespace) -> _Service:
    if options.command == "echo":
        return _Service(Accept(policy=storage_policy(sop_classes=frozenset())))
    if options.command == "mwl":
        return _worklist(options)
    if options.command == "qr":
        return await _query_retrieve(options)
    received = receiver_of(options)
    return _Service(Accept(open_store=received.open_store), received)


def _worklist(options: Namespace) -> _Service:
    from hilum.cli import worklist

    _must_be_folder(options.folder)
    policy = service_policy(
        [MODALITY_WORKLIST_FIND], otherwise=storage_policy(sop_classes=frozenset())
    )
    return _Service(
        Accept(policy=policy, handlers=worklist.handlers_of(worklist.Worklist(options.folder)))
    )


async def _query_retrieve(options: Namespace) -> _Service:
    # Imported here: the tables of queries, which a receiver need not have.
    from hilum.cli import qr
    from hilum.net.retrieve import Destination
    from hilum.services.query_model import FIND_MODELS, RETRIEVE_MODELS

    _must_be_folder(options.folder)
    archive = await asyncio.to_thread(qr.Archive, [options.folder], options.aetitle)
    for name, problem in archive.problems:
        print(f"{shown(name)}: {shown(problem)}", file=sys.stderr)
    if not options.quiet:
        print(f"{len(archive)} instances in {shown(str(options.folder))}", file=sys.stderr)
    destinations = {
        peer.called: Destination(peer.host, peer.port, peer.called, options.aetitle)
        for peer in options.peers
    }
    received = None if options.no_store else qr.Kept(options.folder, archive)
    accept = Accept(
        policy=service_policy([*FIND_MODELS, *RETRIEVE_MODELS], otherwise=archive.policy()),
        open_store=None if received is None else received.open_store,
        roles=dict.fromkeys(STORAGE_SOP_CLASSES | archive.sop_classes, (True, True)),
        handlers=qr.handlers_of(archive, destinations),
    )
    return _Service(accept, received, archive)


def _must_be_folder(path: Path) -> None:
    if not path.is_dir():
        raise ConfigurationError(f"no folder '{path}'")


def _authorise(options: Namespace, accept: Accept) -> Authorise:
    """Everyone may call; with ``--require-called`` only by our name."""

    def authorise(rq: AssociateRQ, peer: Peer) -> Accept | Reject:
        if options.require_called and rq.called_ae_title != options.aetitle:
            return Reject.unknown_called_title(f"we are {options.aetitle}")
        return accept

    return authorise
