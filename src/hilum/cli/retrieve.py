"""``hilum get`` and ``hilum move``: retrieve from a peer (C-GET, C-MOVE)."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from hilum.cli.keys import (
    LEVEL,
    MODELS,
    Identifier,
    identifier_of,
    key_options,
    level_option,
    model_options,
)
from hilum.cli.options import (
    PeerAddress,
    ae_title,
    connection_of,
    count,
    explained,
    extended_items,
    extended_options,
    limits_of,
    parser,
    peer_and_rest,
    port_to_listen_on,
    requestor_options,
    server_tls,
    transfer_syntax_options,
)
from hilum.cli.received import Counter, receiver_of
from hilum.cli.report import print_json, shown
from hilum.cli.running import run, set_up_logging
from hilum.cli.storage_contexts import retrieve_contexts
from hilum.errors import ConfigurationError, ConnectFailed, HilumError, InvalidDicom
from hilum.net.association import Association, Response, Responses
from hilum.net.client import NATIVE, connect
from hilum.net.holdings import find_on, held_classes
from hilum.net.server import serve
from hilum.net.service import Accept, while_retrieving
from hilum.services.identifier import read_attributes
from hilum.services.retrieve_contexts import MAX_CONTEXTS
from hilum.services.service_classes import sop_class
from hilum.services.status import Status, describe
from hilum.services.suboperations import Counts
from hilum.wire.items import RoleSelection

__all__ = ["get", "move"]

log = logging.getLogger("hilum.cli")

_FAILED_UIDS = 0x00080058
# What a peer is asked for beforehand only makes the contexts better: it may not take longer, seconds.
_ASKED_FOR = 30.0


def _parser(name: str, description: str) -> ArgumentParser:
    result = parser(
        name,
        f"{description} What is wanted is named by -k: a study by "
        "StudyInstanceUID=UID, with --level SERIES or IMAGE one of its parts. Exit code 0 if no "
        "sub-operation failed.",
        f"hilum {name} [options] -k KEY=VALUE … [TITLE@]HOST:PORT\n"
        f"       hilum {name} [options] -k KEY=VALUE … HOST PORT",
    )
    add = result.add_argument
    add("peer", nargs="+", help="the peer")
    model_options(result, worklist=False, composite=True)
    key_options(result)
    level_option(result)
    extended_options(result, query=False)
    add("--cancel-after", "--cancel", type=count, metavar="N",
        help="send C-CANCEL after N instances")  # fmt: skip
    return result


def _output_options(arguments: ArgumentParser) -> None:
    where = arguments.add_mutually_exclusive_group()
    where.add_argument("-od", "--output-directory", "--out", dest="out", type=Path, default=Path(),
                       metavar="DIR", help="folder for the files (this one)")  # fmt: skip
    where.add_argument("--no-output", "--ignore", action="store_true",
                       help="count what comes and drop it")  # fmt: skip


def get(argv: Sequence[str]) -> int:
    """Run ``hilum get``; returns its exit code."""
    arguments = _parser(
        "get", "Retrieve over one association (C-GET), into files named by their SOP Instance UID."
    )
    _output_options(arguments)
    arguments.add_argument(
        "--sop-class", action="append", default=[], metavar="UID",
        help="storage class to ask for, by UID or keyword; may be repeated (the usual ones)",
    )  # fmt: skip
    transfer_syntax_options(arguments, "every usual one is proposed, see --uncompressed")
    syntaxes = arguments.add_mutually_exclusive_group()
    syntaxes.add_argument(
        "--uncompressed", action="store_true", help="ask for uncompressed transfer syntaxes only"
    )
    syntaxes.add_argument(
        "--compressed-first", action="store_true",
        help="propose compressed transfer syntaxes first: for compressed images of peers that send "
        "all images of a class in the first syntax accepted, such as dcmqrscp",
    )  # fmt: skip
    arguments.add_argument(
        "--no-query", dest="query", action="store_false",
        help="do not ask by C-FIND which storage classes there are",
    )  # fmt: skip
    requestor_options(arguments)
    return _main(arguments, argv, "get")


def move(argv: Sequence[str]) -> int:
    """Run ``hilum move``; returns its exit code."""
    arguments = _parser(
        "move",
        "Have a peer send to an AE that it knows (C-MOVE), or to this program with --port.",
    )
    arguments.add_argument(
        "-aem", "--move", "--move-aet", "--destination", dest="destination", type=ae_title, metavar="TITLE",
        help="AE title to send to (ours)",
    )  # fmt: skip
    arguments.add_argument(
        "+P", "--port", "--store-port", dest="port", type=port_to_listen_on, metavar="PORT",
        help="receive what is sent, on this port",
    )  # fmt: skip
    arguments.add_argument(
        "--store", action="store_true", help="receive what is sent, on port 11113 or --port"
    )
    arguments.add_argument(
        "--store-aet",
        type=ae_title,
        metavar="TITLE",
        help="accepted; every title is answered there",
    )
    _output_options(arguments)
    transfer_syntax_options(arguments, "all uncompressed ones are proposed for the request")
    requestor_options(arguments)
    return _main(arguments, argv, "move")


def _main(arguments: ArgumentParser, argv: Sequence[str], operation: str) -> int:
    options = arguments.parse_intermixed_args(argv)
    peer, rest = peer_and_rest(arguments, options.peer, options.called)
    if rest:
        arguments.error(f"unexpected '{rest[0]}' after the peer")
    set_up_logging(options)
    model = getattr(MODELS[options.model], operation)
    report = _Report(peer, options, model)
    try:
        identifier = identifier_of(options, returned=False)
        if not options.keys and not options.file:
            raise ConfigurationError("nothing to retrieve; name it with -k StudyInstanceUID=UID")
        run((_get if operation == "get" else _move)(peer, options, model, identifier, report))
    except ConfigurationError as error:
        arguments.error(str(error))
    except (HilumError, OSError) as error:
        report.error = explained(error, peer, options.calling)
    return report.end()


async def _connect(peer: PeerAddress, options: Namespace, **more: Any) -> Association:
    return await connect(
        peer.host,
        peer.port,
        **connection_of(peer, options),
        **more,
    )


async def _get(
    peer: PeerAddress, options: Namespace, model: str, identifier: Identifier, report: _Report
) -> None:
    received = report.received = receiver_of(options)
    known: list[str] = []
    if not options.sop_class and options.query and (find := MODELS[options.model].find):
        known = await _held(peer, options, find, identifier)
    contexts = retrieve_contexts(
        model,
        options.sop_class,
        known=known,
        compressed=not options.uncompressed,
        compressed_first=options.compressed_first,
    )
    roles = {abstract: RoleSelection(abstract, scu=False, scp=True) for abstract, _ in contexts[1:]}
    try:
        association = await _connect(
            peer,
            options,
            contexts=contexts,
            items=extended_items(options, model, query=False),
            roles=roles.values(),
            open_store=while_retrieving(received.open_store),
        )
        async with association:
            syntax = association.context_for(model).transfer_syntax
            responses = association.c_get(identifier.encode(syntax), sop_class_uid=model)
            await _follow(responses, options, report)
    finally:
        await received.close()


async def _held(
    peer: PeerAddress, options: Namespace, model: str, identifier: Identifier
) -> list[str]:
    """The SOP classes of what is asked for, as far as the peer can be asked for them."""
    texts = {one.tag: one.value for one in identifier.attributes if isinstance(one.value, str)}
    level = texts.pop(LEVEL, "STUDY")
    found: dict[str, None] = {}
    try:
        async with (
            asyncio.timeout(_ASKED_FOR),
            await _connect(peer, options, contexts=((model, NATIVE),)) as association,
            aclosing(held_classes(find_on(association, model), level, texts)) as classes,
        ):
            async for uid in classes:
                found[uid] = None
                if len(found) >= MAX_CONTEXTS:
                    break
    except (ConnectFailed, ConfigurationError):
        raise
    except (HilumError, TimeoutError) as error:
        log.info("the peer does not say what it holds: %s", error or "no answer in time")
    return list(found)


async def _move(
    peer: PeerAddress, options: Namespace, model: str, identifier: Identifier, report: _Report
) -> None:
    async with (
        _listening(options, report),
        await _connect(
            peer,
            options,
            contexts=((model, NATIVE),),
            items=extended_items(options, model, query=False),
        ) as association,
    ):
        syntax = association.context_for(model).transfer_syntax
        responses = association.c_move(
            identifier.encode(syntax),
            sop_class_uid=model,
            destination=options.destination or options.calling,
        )
        await _follow(responses, options, report)


@asynccontextmanager
async def _listening(options: Namespace, report: _Report) -> AsyncIterator[None]:
    """Receive on ``--port`` meanwhile, if that was asked for."""
    if options.port is None and not options.store:
        yield
        return
    received = report.received = receiver_of(options)
    accept = Accept(open_store=received.open_store)
    server = await serve(
        "0.0.0.0",  # noqa: S104 - the peer may be anywhere
        11113 if options.port is None else options.port,
        lambda rq, peer: accept,
        limits=limits_of(options),
        tls=server_tls(options),
    )
    try:
        yield
    finally:
        # What the peer still sends when its response is there comes to its end.
        await server.close(grace=5.0)
        await received.close()


async def _follow(responses: Responses, options: Namespace, report: _Report) -> None:
    cancelled = False
    async with responses:
        async for response in responses:
            report.response(response)
            if (
                options.cancel_after is not None
                and not cancelled
                and response.is_pending
                and report.done >= options.cancel_after
            ):
                cancelled = True
                await responses.cancel()


class _Report:
    """What is printed: counters while it goes on, then a line or a document."""

    def __init__(self, peer: PeerAddress, options: Namespace, model: str) -> None:
        self.received: Counter | None = None
        self.error: str | None = None
        self._peer = peer
        self._options = options
        self._model = model
        self._counts = Counts(None, None, None, None)
        self._status: int | None = None
        self._said = ""
        self._failed: list[str] = []
        self._began = time.monotonic()
        self._bar = sys.stderr.isatty() and not (options.json or options.quiet)

    @property
    def done(self) -> int:
        """Sub-operations that have ended, as far as the peer or our receiver tells."""
        said = sum(n or 0 for n in self._counts[1:])
        return max(said, self.received.received if self.received is not None else 0)

    def response(self, response: Response) -> None:
        """A pending response, or the final one."""
        counts = Counts.of(response.command)
        if any(number is not None for number in counts):
            self._counts = counts
        if response.is_pending:
            if self._bar:
                left = "" if counts.remaining is None else f", {counts.remaining} to come"
                print(f"\r{self.done} done{left} ", end="", file=sys.stderr, flush=True)
            elif self._options.verbose or self._options.debug:
                print(self._line(), file=sys.stderr)
            return
        if self._bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._status = response.status
        comment = response.command.get("error_comment")
        self._said = describe(
            response.status, sop_class(self._model), response.command.command_field & 0x7FFF
        ) + (f" ({shown(comment)})" if comment else "")
        self._failed = _failed_uids(response)

    def _line(self) -> str:
        numbers = [
            f"{number} {name}"
            for number, name in zip(
                self._counts, ("remaining", "completed", "failed", "warnings"), strict=True
            )
            if number is not None
        ]
        return ", ".join(numbers) or "no counters"

    def end(self) -> int:
        """Print the result; returns the exit code."""
        counts, options = self._counts, self._options
        cancelled = options.cancel_after is not None and self._status == Status.CANCEL
        # B000H without a failure is one of warnings: the data sets are there.
        complete = self._status == Status.SUCCESS or (
            self._status == Status.SUBOPERATIONS_COMPLETE_WITH_FAILURES and counts.failed == 0
        )
        ok = self.error is None and not counts.failed and (complete or cancelled)
        received = self.received
        if options.json:
            print_json({
                "peer": str(self._peer),
                "ok": ok,
                "status": None if self._status is None else f"{self._status:04X}",
                "error": self.error or (None if ok else self._said),
                "remaining": counts.remaining,
                "completed": counts.completed,
                "failed": counts.failed,
                "warnings": counts.warning,
                "failed_uids": self._failed,
                "received": None if received is None else received.received,
                "bytes": None if received is None else received.bytes,
                "seconds": round(time.monotonic() - self._began, 6),
            })  # fmt: skip
            return 0 if ok else 1
        if self.error is not None:
            print(f"{self._peer}: {shown(self.error)}", file=sys.stderr)
            return 1
        for uid in self._failed:
            print(f"failed {shown(uid)}", file=sys.stderr)
        here = (
            ""
            if received is None
            else f"; {received.received} received, {received.bytes / 1e6:.1f} MB"
        )
        if not ok:
            print(f"{self._peer}: {self._line()}{here}; {self._said}", file=sys.stderr)
        elif not options.quiet:
            print(f"{self._line()}{here}; {self._said}")
        return 0 if ok else 1


def _failed_uids(response: Response) -> list[str]:
    """Of the Failed SOP Instance UID List, where the response has one."""
    if response.data is None or response.context is None:
        return []
    try:
        attributes = read_attributes(response.data, response.context.transfer_syntax)
    except InvalidDicom:
        return []
    for one in attributes:
        if one.tag == _FAILED_UIDS:
            value = one.value.decode("latin-1") if isinstance(one.value, bytes) else one.value
            return [uid.strip("\0 ") for uid in str(value).split("\\") if uid.strip("\0 ")]
    return []
