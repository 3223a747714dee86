"""``hilum echo``: does the peer answer?"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from hilum.cli.options import (
    PeerAddress,
    connection_of,
    count,
    explained,
    parser,
    peer_and_rest,
    requestor_options,
    transfer_syntax_options,
)
from hilum.cli.report import print_json, shown
from hilum.cli.running import run, set_up_logging
from hilum.errors import ConfigurationError, HilumError
from hilum.net.client import connect
from hilum.services.status import describe
from hilum.wire.items import ImplementationVersionName, MaximumLength

__all__ = ["main"]


def _parser() -> ArgumentParser:
    result = parser(
        "echo",
        "Open an association, send C-ECHO, release it. Exit code 0 if the peer answered 0000H.",
        "hilum echo [options] [TITLE@]HOST:PORT\n       hilum echo [options] HOST PORT",
    )
    result.add_argument("peer", nargs="+", help="the peer")
    result.add_argument("--repeat", type=count, default=1, metavar="N", help="send N times")
    result.add_argument("--abort", action="store_true", help="end with A-ABORT, not A-RELEASE")
    transfer_syntax_options(result, "C-ECHO has no data set")
    requestor_options(result)
    return result


def main(argv: Sequence[str]) -> int:
    """Run ``hilum echo``; returns its exit code."""
    arguments = _parser()
    options = arguments.parse_intermixed_args(argv)
    peer, rest = peer_and_rest(arguments, options.peer, options.called)
    if rest:
        arguments.error(f"unexpected '{rest[0]}' after the peer")
    set_up_logging(options)
    answers: list[dict[str, object]] = []
    document: dict[str, object] = {
        "peer": str(peer), "ok": False, "error": None, "answers": answers,
    }  # fmt: skip
    try:
        document["ok"] = run(_echo(peer, options, answers))
    except ConfigurationError as error:
        arguments.error(str(error))
    except HilumError as error:
        document["error"] = explained(error, peer, options.calling)
        if not options.json:
            print(f"{peer}: {document['error']}", file=sys.stderr)
    if options.json:
        print_json(document)
    return 0 if document["ok"] else 1


async def _echo(peer: PeerAddress, options: Namespace, answers: list[dict[str, object]]) -> bool:
    association = await connect(
        peer.host,
        peer.port,
        **connection_of(peer, options),
    )
    talkative = not (options.json or options.quiet)
    async with association:
        if talkative and (options.verbose or options.debug):
            name = association.ac.item(ImplementationVersionName)
            length = association.ac.item(MaximumLength)
            print(
                f"{peer}: association accepted by {shown(name.name) if name else 'an unnamed one'}"
                f", maximum length {length.length if length else 'not given'}"
            )
        for _ in range(options.repeat):
            began = time.perf_counter()
            response = await association.c_echo()
            seconds = time.perf_counter() - began
            answers.append({"status": f"{response.status:04X}", "seconds": round(seconds, 6)})
            if talkative:
                print(f"{peer}: {describe(response.status)}, {1000 * seconds:.1f} ms")
        if options.abort:
            association.abort()
    return all(answer["status"] == "0000" for answer in answers)
