"""``hilum store``: send files, folders and zip archives to a peer."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from hilum.cli.options import (
    PeerAddress,
    connection_of,
    count,
    parser,
    peer_and_rest,
    requestor_options,
    transfer_syntax_options,
)
from hilum.cli.report import StoreReport, shown
from hilum.cli.running import run, set_up_logging
from hilum.errors import ConfigurationError
from hilum.net.files import Summary, send_files
from hilum.net.sources import Found, find_sources

__all__ = ["main"]


def _parser() -> ArgumentParser:
    result = parser(
        "store",
        "Send DICOM files by C-STORE, byte for byte. Folders are searched with all below them, zip "
        "archives are read without extracting them; what is no DICOM file is passed over. Exit "
        "code 0 if the peer has everything.",
        "hilum store [options] [TITLE@]HOST:PORT FILE|FOLDER|ZIP …\n"
        "       hilum store [options] HOST PORT FILE|FOLDER|ZIP …",
    )
    add = result.add_argument
    add("words", nargs="+", metavar="PEER FILE", help="the peer, then what to send")
    add("-j", "--parallel", type=count, default=1, metavar="N", help="associations at once (1)")
    add("--retries", type=int, choices=range(11), default=3, metavar="N",
        help="attempts to go on after an association broke (3)")  # fmt: skip
    # Typed by habit; what they ask for is always done here.
    add("+sd", "--scan-directories", "+r", "--recurse", "-r", "-R", "--required",
        "-nh", "--no-halt", "-cx", "--required-contexts", action="store_true",
        help="accepted; always so")  # fmt: skip
    transfer_syntax_options(result, "a file's own transfer syntax is proposed")
    requestor_options(result)
    return result


def main(argv: Sequence[str]) -> int:
    """Run ``hilum store``; returns its exit code."""
    arguments = _parser()
    options = arguments.parse_intermixed_args(argv)
    peer, paths = peer_and_rest(arguments, options.words, options.called)
    if not paths:
        arguments.error("nothing to send; name files, folders or zip archives after the peer")
    set_up_logging(options)
    try:
        found = find_sources(paths)
    except FileNotFoundError as error:
        arguments.error(f"no file or folder '{shown(str(error))}'; nothing was sent")
    report = StoreReport(options, found)
    with found, report.progress() as progress:
        report.not_sent()
        try:
            summary = run(_send(peer, options, found, report, bar=progress is not None))
        except ConfigurationError as error:
            arguments.error(str(error))
    return 0 if report.end(str(peer), summary) else 1


async def _send(
    peer: PeerAddress, options: Namespace, found: Found, report: StoreReport, *, bar: bool
) -> Summary:
    return await send_files(
        peer.host,
        peer.port,
        found.sources,
        parallel=options.parallel,
        retries=options.retries,
        on_result=report.result,
        on_bytes=report.advance if bar else None,
        **connection_of(peer, options),
    )
