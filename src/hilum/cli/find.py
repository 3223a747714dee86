"""``hilum find`` and ``hilum mwl``: query a peer (C-FIND)."""

from __future__ import annotations

import csv
import json
import secrets
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from hilum.cli.dumped import Bytes, as_json, node_lines
from hilum.cli.keys import (
    MODELS,
    Identifier,
    QueryKey,
    identifier_of,
    key,
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
    parser,
    peer_and_rest,
    requestor_options,
    transfer_syntax_options,
)
from hilum.cli.report import shown
from hilum.cli.running import run, set_up_logging
from hilum.errors import ConfigurationError, HilumError, InvalidDicom, LimitExceeded
from hilum.net.association import Response
from hilum.net.client import NATIVE, connect
from hilum.services.dictionary import keyword_for_tag
from hilum.services.identifier import Attribute, read_attributes
from hilum.services.part10 import encode_head
from hilum.services.service_classes import sop_class
from hilum.services.status import Status, describe
from hilum.wire.command import CommandField

__all__ = ["main", "worklist"]

# JSON is one document: what a provider that never ends would fill memory with.
_MOST_HELD = 32 << 20
_SHOWN = Namespace(key=None, all=False, max_value=64, max_inline=1 << 16)


def _parser(name: str, description: str) -> ArgumentParser:
    result = parser(
        name,
        f"{description} Exit code 0 if the peer answered to the end with success; finding nothing "
        "is success.",
        f"hilum {name} [options] [TITLE@]HOST:PORT\n       hilum {name} [options] HOST PORT",
    )
    add = result.add_argument
    add("peer", nargs="+", help="the peer")
    key_options(result)
    add("--csv", action="store_true", help="print a table: a column for each attribute asked for")
    add("-od", "--output-directory", type=Path, metavar="DIR",
        help="write each answer to a file there (-X: to this folder)")  # fmt: skip
    add("-X", "--extract", "-w", "--write", action="store_true",
        help="write each answer to a file")  # fmt: skip
    add("--cancel-after", "--cancel", type=count, metavar="N", help="send C-CANCEL after N answers")
    return result


def main(argv: Sequence[str]) -> int:
    """Run ``hilum find``; returns its exit code."""
    arguments = _parser("find", "Query a peer for patients, studies, series, instances (C-FIND).")
    model_options(arguments, worklist=True, composite=False)
    level_option(arguments)
    extended_options(arguments, query=True)
    transfer_syntax_options(arguments, "all uncompressed ones are proposed")
    requestor_options(arguments)
    return _main(arguments, argv)


def worklist(argv: Sequence[str]) -> int:
    """Run ``hilum mwl``; returns its exit code."""
    arguments = _parser("mwl", "Query a modality worklist (C-FIND).")
    group = arguments.add_argument_group("what is scheduled")
    add = group.add_argument
    add("--modality", metavar="CODE", help="such as CT")
    add("--date", type=_day, metavar="DATE", help="YYYYMMDD, a range with -, or today")
    add("--station", type=ae_title, metavar="TITLE", help="AE title of the scheduled station")
    extended_options(arguments, query=True)
    transfer_syntax_options(arguments, "all uncompressed ones are proposed")
    requestor_options(arguments)
    arguments.set_defaults(model="worklist", level=None)
    return _main(arguments, argv)


def _day(word: str) -> str:
    if word == "today":
        return f"{date.today():%Y%m%d}"
    if not all(not part or (len(part) == 8 and part.isdecimal()) for part in word.split("-")):
        raise ArgumentTypeError(f"'{word}' is no date; write YYYYMMDD, YYYYMMDD-YYYYMMDD or today")
    return word


def _scheduled(options: Namespace) -> Iterator[QueryKey]:
    """Keys of the options of ``hilum mwl``."""
    step = "ScheduledProcedureStepSequence[0]"
    for name, element in (
        ("modality", "Modality"),
        ("date", "ScheduledProcedureStepStartDate"),
        ("station", "ScheduledStationAETitle"),
    ):
        if value := getattr(options, name, None):
            yield key(f"{step}.{element}={value}")


def _main(arguments: ArgumentParser, argv: Sequence[str]) -> int:
    options = arguments.parse_intermixed_args(argv)
    peer, rest = peer_and_rest(arguments, options.peer, options.called)
    if rest:
        arguments.error(f"unexpected '{rest[0]}' after the peer")
    if options.json and options.csv:
        arguments.error("--json or --csv? give one")
    set_up_logging(options)
    report = _Report(peer, options)
    try:
        identifier = identifier_of(options, returned=True, extra=_scheduled(options))
        report.begin(identifier)
        run(_find(peer, options, identifier, report))
    except ConfigurationError as error:
        arguments.error(str(error))
    except (HilumError, OSError) as error:
        report.failed(explained(error, peer, options.calling))
    return report.end()


async def _find(
    peer: PeerAddress, options: Namespace, identifier: Identifier, report: _Report
) -> None:
    model = MODELS[options.model].find
    association = await connect(
        peer.host,
        peer.port,
        contexts=((model, NATIVE),),
        items=extended_items(options, model, query=True),
        **connection_of(peer, options),
    )
    async with association:
        syntax = association.context_for(model).transfer_syntax
        responses = association.c_find(identifier.encode(syntax), sop_class_uid=model)
        async with responses:
            async for response in responses:
                report.response(response)
                if report.matches == options.cancel_after and response.is_pending:
                    await responses.cancel()


class _Report:
    """What is printed, answer by answer."""

    def __init__(self, peer: PeerAddress, options: Namespace) -> None:
        self.matches = 0
        self._peer = peer
        self._options = options
        self._model = MODELS[options.model].find
        self._matches: list[str] = []  # as JSON, an eighth of what objects would take
        self._held = 0
        self._columns: tuple[tuple[tuple[int, int], ...], ...] = ()
        self._error: str | None = None
        self._status: int | None = None
        self._said = ""
        self._directory: Path | None = options.output_directory
        if options.extract and self._directory is None:
            self._directory = Path()

    def begin(self, identifier: Identifier) -> None:
        """Before the first answer.

        Raises:
            ConfigurationError: there is no such folder.
        """
        if self._directory is not None and not self._directory.is_dir():
            raise ConfigurationError(f"no folder '{self._directory}'; make it first")
        if self._options.csv:
            self._columns = identifier.columns
            csv.writer(sys.stdout).writerow(_title(path) for path in self._columns)

    def failed(self, why: str) -> None:
        """It did not come to an end."""
        self._error = why

    def response(self, response: Response) -> None:
        """One answer, or the final response."""
        if not response.is_pending:
            self._status = response.status
            comment = response.command.get("error_comment")
            self._said = describe(
                response.status, sop_class(self._model), CommandField.C_FIND_RQ
            ) + (f" ({shown(comment)})" if comment else "")
            return
        self.matches += 1
        if response.data is None or response.context is None:
            return
        syntax = response.context.transfer_syntax
        held = Bytes(response.data, syntax)
        if self._directory is not None:
            self._write(self._directory, response.data, syntax)
        if self._options.json:
            self._held += len(response.data)
            if self._held > _MOST_HELD:
                raise LimitExceeded(
                    f"answers of over {_MOST_HELD} bytes; ask for less, or use --csv", 0
                )
            self._matches.append(json.dumps(as_json(held, _SHOWN)))
        elif self._options.csv:
            self._row(response.data, syntax)
        elif not self._options.quiet:
            print(f"# {self.matches}")
            for line in node_lines(held, held.data_set(), _SHOWN):
                print(line)

    def _write(self, directory: Path, data: bytes, syntax: str) -> None:
        # An answer is no instance: it gets a UID of its own (PS3.5 B.2).
        head = encode_head(self._model, f"2.25.{secrets.randbits(128)}", syntax)
        (directory / f"rsp{self.matches:04}.dcm").write_bytes(head + data)

    def _row(self, data: bytes, syntax: str) -> None:
        try:
            attributes = read_attributes(data, syntax)
        except InvalidDicom as error:
            print(f"answer {self.matches}: {shown(str(error))}", file=sys.stderr)
            return
        csv.writer(sys.stdout).writerow(shown(_at(attributes, path)) for path in self._columns)

    def end(self) -> int:
        """The last line or the document; returns the exit code."""
        cancelled = self._options.cancel_after is not None and self._status == Status.CANCEL
        ok = self._error is None and (self._status == Status.SUCCESS or cancelled)
        if self._options.json:
            document: dict[str, Any] = {
                "peer": str(self._peer),
                "ok": ok,
                "status": None if self._status is None else f"{self._status:04X}",
                "error": self._error or (None if ok else self._said),
            }
            opened = json.dumps(document, indent=2).removesuffix("\n}")
            print(f'{opened},\n  "matches": [', end="")
            for number, match in enumerate(self._matches):
                print(f"{',' if number else ''}\n    {match}", end="")
            print("\n  ]\n}")
        elif self._error is not None:
            print(f"{self._peer}: {shown(self._error)}", file=sys.stderr)
        elif not ok:
            print(f"{self._peer}: {self._said}", file=sys.stderr)
        elif not (self._options.quiet or self._options.csv):
            print(f"{self.matches} {'match' if self.matches == 1 else 'matches'}; {self._said}")
        return 0 if ok else 1


def _title(path: Iterable[tuple[int, int]]) -> str:
    return ".".join(keyword_for_tag(tag) or f"{tag:08X}" for tag, _ in path)


def _at(attributes: Iterable[Attribute], path: Sequence[tuple[int, int]]) -> str:
    """The text at a path; empty where there is none."""
    (tag, number), *rest = path
    value = next((one.value for one in attributes if one.tag == tag), "")
    if rest:
        if not isinstance(value, tuple) or number >= len(value):
            return ""
        return _at(value[number], rest)
    return value if isinstance(value, str) else ""
