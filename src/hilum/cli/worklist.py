"""What ``hilum scp mwl`` serves: a folder of worklist files.

Every file is an entry: a DICOM data set with the attributes of a scheduled procedure step, as
DCMTK's wlmscpfs has them. The folder is looked at anew for each query. A folder inside it that is
called like the called AE title is that title's own worklist.

Standard: PS3.4 K (Basic Worklist Management).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from hilum.errors import InvalidDicom, Refused
from hilum.net.service import Handler, Reply, Request
from hilum.services.identifier import Attribute, encode_attributes, read_attributes
from hilum.services.matching import InvalidIdentifier, Query
from hilum.services.part10 import data_set_start
from hilum.services.selection import select
from hilum.services.status import Status
from hilum.services.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from hilum.wire.command import CommandField

__all__ = ["Worklist", "handlers_of"]

log = logging.getLogger("hilum.cli")

MAX_FILE = 4 << 20
"""Bytes of a file that can be a worklist entry."""

PAGE = 64

Entry = tuple[Attribute, ...]


class Worklist:
    """The entries of a folder.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[Path, tuple[tuple[int, int], Entry | None]] = {}

    def entries(self, called: str) -> list[Entry]:
        """The entries of a called AE title, in the order of file names; blocks on the disk."""
        own = self._path / called
        # An AE title is a name, never a way out of the folder.
        folder = own if own.parent == self._path and own.is_dir() and called != ".." else self._path
        files = sorted(path for path in folder.iterdir() if path.is_file())
        known, self._read = self._read, {}
        found = []
        for path in files:
            entry = self._entry(path, known)
            if entry is not None:
                found.append(entry)
        return found

    def _entry(
        self, path: Path, known: dict[Path, tuple[tuple[int, int], Entry | None]]
    ) -> Entry | None:
        """A file's entry, read anew only when the file has changed."""
        try:
            status = path.stat()
            state = (status.st_mtime_ns, status.st_size)
            before = known.get(path)
            if before is not None and before[0] == state:
                self._read[path] = before
                return before[1]
            entry = _parse(path) if status.st_size <= MAX_FILE else None
        except OSError:
            return None
        self._read[path] = (state, entry)
        return entry


def _parse(path: Path) -> Entry | None:
    raw = path.read_bytes()
    try:
        offset, syntax = data_set_start(raw)
        return read_attributes(raw[offset:], syntax or EXPLICIT_VR_LITTLE_ENDIAN)
    except InvalidDicom as error:
        log.info("%s is passed over: %s", ascii(path.name), error)
        return None


def handlers_of(worklist: Worklist) -> dict[CommandField, Handler]:
    """The service of a worklist."""

    async def find(request: Request) -> AsyncIterator[list[Reply]]:
        if request.data is None:
            raise Refused(Status.CANNOT_UNDERSTAND, "a request without identifier")
        try:
            query = Query.parse(request.data, request.context.transfer_syntax)
        except InvalidIdentifier as error:
            raise Refused(error.status, str(error), error.offending or None) from None
        called = request.association.rq.called_ae_title
        try:
            entries = await asyncio.to_thread(worklist.entries, called)
        except OSError as error:
            log.error("the worklist cannot be read: %s", error)
            raise Refused(Status.OUT_OF_RESOURCES, "the worklist cannot be read") from None
        page: list[Reply] = []
        for entry in entries:
            values = {one.tag: one.value for one in entry}
            if query.matches(values):
                answer = select(query.keys, values)
                data = encode_attributes(
                    answer, request.context.transfer_syntax, preferred=query.charset
                )
                page.append(Reply(Status.PENDING, data))
            if len(page) == PAGE:
                yield page
                page = []
        yield [*page, Reply(Status.SUCCESS)]

    return {CommandField.C_FIND_RQ: find}
