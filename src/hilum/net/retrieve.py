"""The provider of C-GET and C-MOVE: data sets sent as they are, counted, and reported.

::

    async def get(request):
        sources = ...  # of request.dataset()
        async for page in retrieve_on(request, sources):
            yield page

Both functions are handlers' bodies: they yield pages of replies, the last of which is final.

Standard: PS3.4 C.4.2.2, C.4.2.3, C.4.3.2, C.4.3.3; PS3.7 9.1.3, 9.1.4.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.conversion import Conversion
from hilum.net.delivery import Delivery, Outcome, SendResult
from hilum.net.files import READ_AHEAD, Contexts, Outbox
from hilum.net.limits import Limits, Timeouts
from hilum.net.reading import Kept, ReadAhead, Reader
from hilum.net.service import Reply, Request
from hilum.net.sources import Source
from hilum.services.status import Status
from hilum.services.suboperations import SubOperations
from hilum.wire.items import UserIdentityRQ

__all__ = ["Destination", "Pages", "Sources", "move_to", "retrieve_on"]

log = logging.getLogger("hilum.net")

PENDING_EVERY = 32
"""A pending response goes out after so many sub-operations at the latest …"""
PENDING_SECONDS = 1.0
"""… or after so many seconds: users see progress, and peers' timers start again."""

Pages = AsyncIterable[Sequence[Source]]
"""Sources that come page by page, such as rows of a database."""
Sources = Sequence[Source] | Pages


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a C-MOVE sends to.

    Args:
        host: name or address.
        port: TCP port.
        called: its AE title.
        calling: ours.
        parallel: associations at once.
        retries: see ``send_files``.
        tls: a context of ``net.tls``; None is plain TCP.
        server_hostname: see ``connect``.
        user_identity: see ``connect``.
        window: operations outstanding on an association, as in ``connect``.
        timeouts: deadlines, seconds.
        limits: maximum length and buffer sizes.
    """

    host: str
    port: int
    called: str
    calling: str
    parallel: int = 1
    retries: int = 1
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    user_identity: UserIdentityRQ | None = None
    window: tuple[int, int] | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)

    async def connect(self, contexts: Contexts) -> Association:
        """Open an association to it."""
        return await connect(
            self.host,
            self.port,
            called=self.called,
            calling=self.calling,
            contexts=contexts,
            timeouts=self.timeouts,
            limits=self.limits,
            tls=self.tls,
            server_hostname=self.server_hostname,
            user_identity=self.user_identity,
            window=self.window,
        )


async def retrieve_on(
    request: Request,
    sources: Sources,
    total: int | None = None,
    conversion: Conversion | None = None,
) -> AsyncIterator[list[Reply]]:
    """Serve a C-GET: send the sources over the association it came on.

    A source whose SOP class and transfer syntax the requestor did not accept with the SCP role is a
    failed sub-operation; one that can be converted to what it accepted is.

    Standard: PS3.4 C.4.3.2, C.4.3.3.

    Args:
        request: the C-GET-RQ.
        sources: what it asks for; pages are sent while the next one is being got.
        total: how many there will be; None where ``sources`` is a sequence.
        conversion: for what is not accepted as it is; None for ``Reencoding``.

    Yields:
        Pages of replies: pending ones at intervals, then the final one, cancelled ones with what
        was left.
    """
    counting = _Counting(request, _total(sources, total))
    delivery = Delivery(request.association, conversion=conversion)
    async with aclosing(_pages(sources)) as pages:
        async for page in pages:
            reader = _reader(page, delivery)
            try:
                async for result in delivery.results(reader, lambda: request.is_cancelled):
                    if reply := counting.ended(result):
                        yield [reply]
            finally:
                reader.close()
            if request.is_cancelled:
                break
    yield [counting.final()]


async def move_to(
    request: Request,
    sources: Sources,
    destination: Destination | None,
    total: int | None = None,
    conversion: Conversion | None = None,
) -> AsyncIterator[list[Reply]]:
    """Serve a C-MOVE: send the sources over associations to their destination.

    Contexts are derived from the sources; without any source no association is opened. The
    destination is told who asked for it: the requestor's AE title and Message ID.

    Standard: PS3.4 C.4.2.2, C.4.2.3.

    Args:
        request: the C-MOVE-RQ.
        sources: what it asks for; see ``retrieve_on``.
        destination: None answers A801H, as an unknown destination.
        total: see ``retrieve_on``.
        conversion: see ``retrieve_on``.

    Yields:
        See ``retrieve_on``.
    """
    if destination is None:
        comment = f"unknown move destination {request.command.move_destination}"
        yield [Reply(Status.MOVE_DESTINATION_UNKNOWN, elements={"error_comment": comment})]
        return
    counting = _Counting(request, _total(sources, total))
    replies: asyncio.Queue[Reply | None] = asyncio.Queue()

    def ended(result: SendResult) -> None:
        # Counted where it comes up: whoever waits below is woken for a reply, not for each result.
        if reply := counting.ended(result):
            replies.put_nowait(reply)

    outbox = Outbox(
        destination.connect,
        parallel=destination.parallel,
        retries=destination.retries,
        on_result=ended,
        move_originator=(request.association.rq.calling_ae_title, request.command.message_id),
        conversion=conversion,
    )
    moving = asyncio.ensure_future(_move(sources, outbox))
    moving.set_name(f"C-MOVE of association {request.association.number}")
    moving.add_done_callback(lambda _: replies.put_nowait(None))
    stopping = asyncio.ensure_future(_stop(request, outbox))
    try:
        while not moving.done() or not replies.empty():
            try:
                async with asyncio.timeout(PENDING_SECONDS):
                    reply = await replies.get()
            except TimeoutError:
                if not replies.empty():
                    continue  # it came just now, and says less than what is counted meanwhile
                reply = counting.pending()
            # Once it is cancelled, the next reply is the final one.
            if reply is not None and not request.is_cancelled:
                yield [reply]
        await moving
    finally:
        stopping.cancel()
        moving.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(moving, stopping, return_exceptions=True)
        outbox.abort()
    yield [counting.final(outbox)]


async def _move(sources: Sources, outbox: Outbox) -> None:
    async with aclosing(_pages(sources)) as pages:
        async for page in pages:
            await outbox.send(page)
            if outbox.stopped:
                break
    await outbox.close()


async def _stop(request: Request, outbox: Outbox) -> None:
    await request.cancelled()
    outbox.stop()


def _total(sources: Sources, total: int | None) -> int:
    if total is not None:
        return total
    return len(sources) if isinstance(sources, Sequence) else 0


async def _pages(sources: Sources) -> AsyncGenerator[Sequence[Source], None]:
    """The pages, each got while the one before is being sent."""
    if isinstance(sources, Sequence):
        if sources:
            yield sources
        return
    pages = aiter(sources)
    following: asyncio.Future[Sequence[Source]] | None = None
    try:
        following = asyncio.ensure_future(_next(pages))
        while page := await following:
            following = asyncio.ensure_future(_next(pages))
            yield page
    finally:
        if following is not None:
            following.cancel()
            with suppress(BaseException):
                await following
        if (close := getattr(pages, "aclose", None)) is not None:
            await close()


async def _next(pages: AsyncIterator[Sequence[Source]]) -> Sequence[Source]:
    """The next page that is not empty; an empty one at the end."""
    async for page in pages:
        if page:
            return page
    return ()


def _reader(page: Sequence[Source], delivery: Delivery) -> Reader:
    queue = deque(page)
    if all(
        source.content is not None and not delivery.needs_conversion(source.head) for source in page
    ):
        return Kept(queue)
    return ReadAhead(
        lambda: queue.popleft() if queue else None, delivery.pieces, room=READ_AHEAD, most=256
    )


class _Counting:
    """The sub-operations of a request, and when to speak of them."""

    def __init__(self, request: Request, total: int) -> None:
        self._request = request
        self._counts = SubOperations(total)
        #: Of the first sub-operation that failed without an answer.
        self._reason = ""
        self._since = PENDING_EVERY - 1  # so that the first one is reported
        self._loop = asyncio.get_running_loop()
        self._reported = self._loop.time()

    def ended(self, result: SendResult) -> Reply | None:
        """Count it; a pending reply where one is due.

        None once the request is cancelled: the next reply is the final one, which counts what was
        outstanding too.
        """
        counts, uid = self._counts, result.source.head.sop_instance_uid
        if counts.remaining <= 0:
            counts.expect(1)  # more came than were announced
        if result.status is None:
            counts.lost(uid)
            self._reason = self._reason or result.reason
        else:
            counts.ended(result.status, uid)
        if result.outcome is Outcome.FAILED or result.outcome is Outcome.NOT_SENT:
            log.info(
                "association %d: sub-operation failed: %s",
                self._request.association.number,
                result.reason,
            )
        self._since += 1
        if self._request.is_cancelled:
            return None
        if counts.remaining > 0 and (
            self._since >= PENDING_EVERY or self._loop.time() - self._reported >= PENDING_SECONDS
        ):
            return self.pending()
        return None

    def pending(self) -> Reply:
        """A pending reply."""
        self._since, self._reported = 0, self._loop.time()
        return Reply(Status.PENDING, elements=self._counts.elements(Status.PENDING))

    def final(self, outbox: Outbox | None = None) -> Reply:
        """The last reply."""
        counts = self._counts
        status = counts.final_status(cancelled=self._request.is_cancelled)
        elements: dict[str, object] = dict(counts.elements(status))
        error = outbox.summary.error if outbox is not None else None
        if counts.failed and (reason := str(error or self._reason)):
            elements["error_comment"] = reason
        return Reply(
            status, counts.identifier(status, self._request.context.transfer_syntax), elements
        )
