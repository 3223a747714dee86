"""``hilum commit``: ask a peer to take responsibility for what it was sent."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.cli.options import (
    client_tls,
    limits_of,
    parser,
    peer_and_rest,
    port_to_listen_on,
    requestor_options,
    seconds,
    timeouts_of,
)
from hilum.cli.report import print_json, shown
from hilum.cli.running import reason, run, set_up_logging
from hilum.errors import ConfigurationError, HilumError
from hilum.net.commitment import STAY, Commitments, Destination, transaction_uid
from hilum.net.sources import FileSource, find_sources
from hilum.services.commitment import Action, Reference, Result, describe

if TYPE_CHECKING:
    from hilum.cli.committing import Archive

__all__ = ["main"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


def _listening(text: str) -> tuple[str | None, int]:
    host, _, number = text.rpartition(":")
    return host.strip("[]") or None, port_to_listen_on(number)


def _parser() -> ArgumentParser:
    result = parser(
        "commit",
        "Ask a peer for storage commitment of files, or of instances, series and studies of the "
        "archive by UID, which it has been sent before. Exit code 0 if it took the request, and "
        "with --wait if it has committed everything.",
        "hilum commit [options] FILE|FOLDER|UID … --to PEER",
    )
    add = result.add_argument
    add("words", nargs="+", metavar="FILE|UID", help="what the peer was sent")
    add("--to", required=True, metavar="PEER",
        help="a peer of 'hilum peer', or AETITLE@HOST:PORT")  # fmt: skip
    add("--wait", type=seconds, metavar="S", help="wait so long for the result")
    add("--delete-committed", action="store_true",
        help="then delete our own copies of what is committed, and of nothing else")  # fmt: skip
    add("--listen", type=_listening, metavar="[HOST:]PORT",
        help="hear the result here, where no gateway runs")  # fmt: skip
    add("--transaction", metavar="UID", help="Transaction UID, to make the same request again")
    add("--user", metavar="NAME", help="UIDs are of what is this user's")
    add("--data", type=Path, metavar="DIR", help="data directory; default: HILUM_DATA")
    requestor_options(result)
    return result


@dataclass
class _Asked:
    """What the words on the command line mean."""

    references: dict[Reference, None] = field(default_factory=dict)
    files: list[tuple[Reference, str, tuple[int, int]]] = field(default_factory=list)
    of_archive: list[Reference] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """Run ``hilum commit``; returns its exit code."""
    arguments = _parser()
    options = arguments.parse_intermixed_args(argv)
    if options.delete_committed and options.wait is None:
        arguments.error("--delete-committed needs --wait: nothing is deleted before the result")
    set_up_logging(options)
    document: dict[str, object] = {
        "peer": options.to, "transaction_uid": options.transaction, "committed": 0,
        "failed": [], "pending": True, "deleted": 0, "error": None,
    }  # fmt: skip
    try:
        archive = _archive(options.data)
        with archive if archive is not None else nullcontext():
            asked = _asked(arguments, options, archive)
            to = _destination(arguments, options, archive)
            code = run(_commit(options, to, asked, archive, document))
    except ConfigurationError as error:
        arguments.error(str(error))
    except (HilumError, OSError) as error:
        document["error"] = reason(error)
        code = 1
    if options.json:
        print_json(document)
    else:
        _tell(document)
    return code


def _archive(data: Path | None) -> Archive | None:
    try:
        found: Archive | None = import_module("hilum.cli.committing").Archive.find(data)
    except ModuleNotFoundError as missing:
        if data is not None or (missing.name or "").startswith("hilum"):
            raise ConfigurationError(
                'a data directory needs the gateway: pip install "hilum[gateway]"'
            ) from None
        return None
    return found


def _asked(arguments: ArgumentParser, options: Namespace, archive: Archive | None) -> _Asked:
    asked = _Asked()
    for word in options.words:
        if os.path.lexists(word):
            _add_files(arguments, asked, word)
        elif not _UID.fullmatch(word):
            arguments.error(f"no file or folder '{shown(word)}', nor is that a UID")
        elif archive is None:
            arguments.error(f"{word} is a UID, and there is no archive; name it with --data")
        else:
            asked.of_archive += archive.references(word, archive.owner(options.user))
    asked.references |= dict.fromkeys(asked.of_archive)
    if not asked.references:
        arguments.error("no DICOM file among what was named")
    return asked


def _add_files(arguments: ArgumentParser, asked: _Asked, word: str) -> None:
    with find_sources([word], keep=0) as found:
        if found.failed:
            name, why = found.failed[0]
            arguments.error(f"{shown(name)}: {why}; nothing was asked")
        for source in found.sources:
            each = Reference(source.head.sop_class_uid, source.head.sop_instance_uid)
            asked.references[each] = None
            if isinstance(source, FileSource):
                asked.files.append((each, source.name, _state(source.name)))


def _state(name: str) -> tuple[int, int]:
    """What changes when a file is written to."""
    found = Path(name).stat()
    return found.st_size, found.st_mtime_ns


def _destination(
    arguments: ArgumentParser, options: Namespace, archive: Archive | None
) -> Destination:
    known = archive.peer(options.to) if archive is not None else None
    if known is not None:
        return known
    if ":" not in options.to:
        arguments.error(f"no peer '{shown(options.to)}'; write AETITLE@HOST:PORT")
    peer, _ = peer_and_rest(arguments, [options.to], options.called)
    return Destination(
        peer.host,
        peer.port,
        called=peer.called or "ANY-SCP",
        calling=options.calling,
        tls=client_tls(options),
        timeouts=timeouts_of(options),
        limits=limits_of(options),
    )


async def _commit(
    options: Namespace,
    to: Destination,
    asked: _Asked,
    archive: Archive | None,
    document: dict[str, object],
) -> int:
    uid = options.transaction or transaction_uid()
    document["transaction_uid"] = uid
    action = Action(uid, tuple(asked.references))
    owner = archive.owner(options.user) if archive is not None and asked.of_archive else None
    async with Commitments(archive.heard if archive is not None else None) as commitments:
        if options.listen is not None:
            await commitments.listen(*options.listen)
        elif archive is not None and options.wait is not None:
            await archive.listen(commitments)
        if archive is not None:
            await asyncio.to_thread(archive.keep, action, options.to, to, owner)

        async def taken() -> None:
            if archive is not None:
                await asyncio.to_thread(archive.asked, uid)

        try:
            result = await _ask(options, to, action, commitments, archive, taken)
        except HilumError as error:
            if archive is not None:
                await asyncio.to_thread(archive.asked, uid, str(error))
            raise
    if result is None:
        return 0 if options.wait is None else 1
    committed = set(result.committed) & set(action.references)
    _note(document, action, result, committed)
    if options.delete_committed:
        document["deleted"] = await asyncio.to_thread(
            _delete, asked, committed, archive, owner, options.to
        )
    return 0 if len(committed) == len(action.references) else 1


async def _ask(
    options: Namespace,
    to: Destination,
    action: Action,
    commitments: Commitments,
    archive: Archive | None,
    taken: object,
) -> Result | None:
    """The result; None where none has come, or none is waited for."""
    uid = action.transaction_uid
    loop = asyncio.get_running_loop()
    wait: float = options.wait or 0.0
    until = loop.time() + wait
    watching = asyncio.ensure_future(
        archive.watch(uid, commitments) if archive is not None and wait else asyncio.sleep(0)
    )
    try:
        await commitments.commit_instances(
            to,
            action.references,
            uid=uid,
            stay=min(STAY, wait),
            taken=taken,  # type: ignore[arg-type]  # a coroutine function
        )
        if not wait:
            return None
        return await commitments.wait_for(to, uid, wait=max(0.0, until - loop.time()))
    except TimeoutError:
        return None
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _note(
    document: dict[str, object], action: Action, result: Result, committed: set[Reference]
) -> None:
    reasons = {Reference(*failure[:2]): failure.reason for failure in result.failed}
    document["pending"] = False
    document["committed"] = len(committed)
    document["failed"] = [
        {
            "sop_class_uid": each.sop_class_uid,
            "sop_instance_uid": each.sop_instance_uid,
            "reason": describe(reasons[each]) if each in reasons else "not mentioned",
        }
        for each in action.references
        if each not in committed
    ]


def _delete(
    asked: _Asked,
    committed: set[Reference],
    archive: Archive | None,
    owner: int | None,
    peer: str,
) -> int:
    """Delete our copies of what is committed: files that are still what was asked about.

    Of several files of one instance nobody knows which one the peer has: they stay.
    """
    deleted = 0
    copies = Counter(each for each, _, _ in asked.files)
    for each, name, state in asked.files:
        try:
            if each in committed and copies[each] == 1 and _state(name) == state:
                Path(name).unlink()
                deleted += 1
        except OSError as error:
            print(f"hilum: {shown(name)} could not be deleted: {error.strerror}", file=sys.stderr)
    if archive is not None and owner is not None:
        here = [each for each in asked.of_archive if each in committed]
        deleted += archive.delete(here, owner, peer)
    return deleted


def _tell(document: dict[str, object]) -> None:
    if document["error"] is not None:
        print(f"{document['peer']}: {document['error']}", file=sys.stderr)
        return
    failed = document["failed"]
    assert isinstance(failed, list)
    if document["pending"]:
        print(f"asked, no result yet; transaction {document['transaction_uid']}")
        return
    for each in failed:
        print(f"{each['sop_instance_uid']}: {each['reason']}")
    print(
        f"{document['committed']} committed, {len(failed)} not, {document['deleted']} deleted here"
    )
