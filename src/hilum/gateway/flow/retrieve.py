"""C-GET and C-MOVE as provider: what was asked for, from the files as they are, or decoded.

Standard: PS3.4 C.4.2 (C-MOVE SCP), C.4.3 (C-GET SCP), Y (composite instance root), Z (without bulk
data).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, closing

from hilum.errors import ConfigurationError, Refused, StorageFailed
from hilum.gateway.config import Config
from hilum.gateway.flow.peers import address_of, client_tls, server_name
from hilum.gateway.flow.query import Asker
from hilum.gateway.flow.transcoding import HeaderConversion, HeaderSource, Transcoding
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database
from hilum.gateway.store.decoding import Decoders
from hilum.gateway.store.entries import Peer, Snapshot
from hilum.gateway.store.results import Found
from hilum.gateway.store.retrieval import MAX_NAMES, Retrieval
from hilum.gateway.store.sources import StoredSource
from hilum.gateway.threads import in_thread
from hilum.net.retrieve import Destination, move_to, retrieve_on
from hilum.net.service import Reply, Request
from hilum.services.matching import InvalidIdentifier, Query
from hilum.services.part10 import FileHead
from hilum.services.query_model import RETRIEVE_MODELS, uids_to_retrieve
from hilum.services.sop_classes import COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
from hilum.services.status import Status

__all__ = ["RetrieveProvider"]

# Some 300 bytes each, and a page is asked for while the one before is sent.
PAGE = 1000


class RetrieveProvider:
    """Sends what is in the archive.

    Args:
        database: see `open_database`.
        blobs: the objects.
        config: the whole tree, for its limits and our certificate.
        directory: gives the directory of this moment: peers are the destinations.
        decoders: for those who take no compressed images.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        config: Config,
        directory: Callable[[], Snapshot],
        decoders: Decoders,
    ) -> None:
        self._database, self._blobs, self._config = database, blobs, config
        self._directory = directory
        self._decoders = decoders

    async def get(self, request: Request, asker: Asker) -> AsyncIterator[Sequence[Reply]]:
        """The handler of C-GET-RQ.

        Raises:
            Refused: A900H for the identifier, A701H when the index cannot be read.
        """
        retrieval, total = await self._named(request, asker)
        if request.context.abstract_syntax == COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET:
            async with aclosing(self._headers(retrieval)) as headers:
                async for page in retrieve_on(
                    request, headers, total, HeaderConversion(self._decoders)
                ):
                    yield page
            return
        with closing(Transcoding(self._decoders)) as transcoding:
            async with aclosing(self._pages(retrieval, transcoding)) as pages:
                async for page in retrieve_on(request, pages, total, transcoding):
                    yield page

    async def move(self, request: Request, asker: Asker) -> AsyncIterator[Sequence[Reply]]:
        """The handler of C-MOVE-RQ; destinations are the configured peers that listen.

        Raises:
            Refused: A801H for the destination, else as ``get``.
        """
        destination = await in_thread(self._destination, request.command.move_destination or "")
        retrieval, total = await self._named(request, asker)
        with closing(Transcoding(self._decoders)) as transcoding:
            async with aclosing(self._pages(retrieval, transcoding)) as pages:
                async for page in move_to(request, pages, destination, total, transcoding):
                    yield page

    async def _named(self, request: Request, asker: Asker) -> tuple[Retrieval, int]:
        return await in_thread(self._look_up, request, asker)

    def _look_up(self, request: Request, asker: Asker) -> tuple[Retrieval, int]:
        try:
            query = Query.parse(
                request.data or b"",
                request.context.transfer_syntax,
                fallback=asker.fallback_charset,
            )
            named = uids_to_retrieve(RETRIEVE_MODELS[request.context.abstract_syntax], query)
        except InvalidIdentifier as error:
            raise Refused(error.status, str(error), error.offending or None) from error
        if sum(map(len, named.values())) > MAX_NAMES:
            raise Refused(Status.CANNOT_UNDERSTAND, f"more than {MAX_NAMES} names in one retrieve")
        retrieval = Retrieval(self._database, asker.viewer, named)
        try:
            return retrieval, retrieval.count()
        except StorageFailed as error:
            raise Refused(0xA701, "the index cannot be read") from error

    async def _headers(self, retrieval: Retrieval) -> AsyncGenerator[Sequence[HeaderSource], None]:
        async with aclosing(self._pages(retrieval)) as pages:
            async for page in pages:
                yield [HeaderSource(source) for source in page]

    async def _pages(
        self, retrieval: Retrieval, transcoding: Transcoding | None = None
    ) -> AsyncGenerator[Sequence[StoredSource], None]:
        after = 0
        while True:
            found = await in_thread(retrieval.page, after, PAGE)
            if found:
                page = [self._source(one) for one in found]
                if transcoding is not None:
                    transcoding.expect(page)
                yield page
            if len(found) < PAGE:
                return
            after = found[-1].id

    def _source(self, found: Found) -> StoredSource:
        """The file, known from the index: it is not opened before it is sent."""
        head = FileHead(found.data_offset, found.sop_class, found.sop_uid, found.transfer_syntax)
        return StoredSource(self._blobs, found.path, head, found.size)

    def _destination(self, title: str) -> Destination:
        """A peer of that AE title that can be called; its certificate files are read."""
        snapshot = self._directory()
        for peer in snapshot.peers:
            address = address_of(peer)
            if peer.ae_title == title and address is not None:
                return self._to(peer, *address)
        raise Refused(
            Status.MOVE_DESTINATION_UNKNOWN, f"no peer {title!a} that listens is configured"
        )

    def _to(self, peer: Peer, host: str, port: int) -> Destination:
        config = self._config
        try:
            tls = client_tls(peer, config.tls)
        except ConfigurationError as error:
            raise Refused(0xA702, "TLS towards the destination is not set up") from error
        return Destination(
            host,
            port,
            called=peer.ae_title,
            calling=peer.calling_ae or "HILUM",
            parallel=config.retrieve.parallel,
            tls=tls,
            server_hostname=server_name(peer),
            timeouts=config.timeouts,
            limits=config.limits,
        )
