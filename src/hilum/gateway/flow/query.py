"""C-FIND as provider: from the identifier to pages of responses, all of it in threads.

Standard: PS3.4 C.4.1 (C-FIND SCP), PS3.7 9.1.2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from hilum.errors import InvalidDicom, Refused, StorageFailed
from hilum.gateway.config import QuerySettings
from hilum.gateway.flow.negotiated import Negotiated
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database
from hilum.gateway.store.find import INSTANCE_AVAILABILITY, RETRIEVE_AE_TITLE, Finder
from hilum.gateway.store.mapped import mapped_with_syntax
from hilum.gateway.store.results import Cursor, Viewer
from hilum.gateway.threads import in_thread
from hilum.net.service import Reply, Request
from hilum.services.answers import AnswerWriter
from hilum.services.identifier import Attribute, read_attributes
from hilum.services.matching import QUERY_RETRIEVE_LEVEL, InvalidIdentifier, Query
from hilum.services.query_model import FIND_MODELS
from hilum.services.status import Status

__all__ = ["Asker", "QueryProvider"]

log = logging.getLogger("hilum.query")

# The first responses are there at once; later pages cost less for each.
FIRST_PAGE, LARGEST_PAGE = 100, 2000


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf an association asks.

    Args:
        viewer: from ``permission.may_see``.
        called: the called AE title, by which what is found can be retrieved.
        negotiated: by SOP class.
        fallback_charset: of identifiers without (0008,0005); None for the default.
    """

    viewer: Viewer
    called: str
    negotiated: Mapping[str, Negotiated]
    fallback_charset: str | None = None


class QueryProvider:
    """Answers queries from the index.

    Args:
        database: see `open_database`.
        blobs: the objects, for headers of files.
        limits: see the settings.
    """

    def __init__(self, database: Database, blobs: BlobStore, limits: QuerySettings) -> None:
        self._database, self._root, self._limits = database, blobs.root, limits
        # A page takes a thread for as long as it is read; queries may not take them all.
        self._turns = asyncio.Semaphore(limits.threads)

    async def find(self, request: Request, asker: Asker) -> AsyncIterator[Sequence[Reply]]:
        """The handler of C-FIND-RQ.

        Yields:
            Pages of pending replies; A700H at the end where there are more matches than allowed.

        Raises:
            Refused: A900H or C000H with the offending element, A700H when the index cannot be read.
        """
        async with self._turns:
            asking = await in_thread(_Asking, self, request, asker)
        told = 0
        size = FIRST_PAGE
        while True:
            most = self._limits.max_matches - told
            async with self._turns:
                replies = await in_thread(asking.page, min(size, most + 1))
            told += len(replies)
            if len(replies) > most:
                comment = f"more than {self._limits.max_matches} matches: ask for less"
                refusal = Reply(Status.OUT_OF_RESOURCES, elements={"error_comment": comment})
                yield [*replies[:most], refusal]
                return
            if replies:
                yield replies
            if asking.is_over or request.is_cancelled:
                return
            size = min(4 * size, LARGEST_PAGE)

    def finder(self, query: Query, request: Request, asker: Asker) -> Finder:
        """The search for a query of a request."""
        sop_class = request.context.abstract_syntax
        said = asker.negotiated.get(sop_class, Negotiated())
        level = FIND_MODELS[sop_class].check(
            query, relational=said.relational, strict=self._limits.strict
        )
        return Finder(
            self._database,
            asker.viewer,
            query,
            level,
            read_header=self._header,
            max_headers=self._limits.max_headers,
        )

    def _header(self, path: str, wanted: frozenset[int]) -> Mapping[int, Attribute]:
        """Elements of a file; none of one that cannot be read."""
        try:
            with mapped_with_syntax(self._root, path) as (view, syntax):
                return {one.tag: one for one in read_attributes(view, syntax, wanted=wanted)}
        except (OSError, InvalidDicom) as error:
            log.warning("a file could not be read for a query: %s", error)
            return {}


class _Asking:
    """One query while it is answered; everything here blocks.

    Raises:
        Refused: it cannot be.
    """

    def __init__(self, provider: QueryProvider, request: Request, asker: Asker) -> None:
        self._context = request.context
        self._asker = asker
        self._after: Cursor | None = None
        self.is_over = False
        self._writer: AnswerWriter | None = None
        sop_class = request.context.abstract_syntax
        try:
            self._query = Query.parse(
                request.data or b"",
                request.context.transfer_syntax,
                fallback=asker.fallback_charset,
                matching=asker.negotiated.get(sop_class, Negotiated()).matching,
            )
            self._finder = provider.finder(self._query, request, asker)
        except InvalidIdentifier as error:
            raise Refused(error.status, str(error), error.offending or None) from error

    def page(self, limit: int) -> list[Reply]:
        """The next replies; none where a page took too long to find one."""
        finder = self._finder
        try:
            page = finder.page(self._after, limit=limit)
        except StorageFailed as error:
            raise Refused(Status.OUT_OF_RESOURCES, "the index cannot be read") from error
        if self._writer is None:  # the first page decides what is supported
            self._writer = self._make_writer()
        self._after, self.is_over = page.next, page.next is None
        supported = not finder.unsupported
        status = Status.PENDING if supported else Status.PENDING_WITHOUT_OPTIONAL_KEYS
        encode = self._writer.encode
        return [Reply(status, encode(row)) for row in page.rows]

    def _make_writer(self) -> AnswerWriter:
        level = self._query.level
        assert level is not None
        constants = {
            QUERY_RETRIEVE_LEVEL: ("CS", level.value),
            RETRIEVE_AE_TITLE: ("AE", self._asker.called),
        }
        if self._query.key(INSTANCE_AVAILABILITY) is not None:
            constants[INSTANCE_AVAILABILITY] = ("CS", "ONLINE")
        return AnswerWriter(
            self._finder.columns, constants, self._context.transfer_syntax, self._query.charset
        )
