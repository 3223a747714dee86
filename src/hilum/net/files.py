"""Sending many data sets: contexts derived from them, several associations, a result for each.

::

    with find_sources(["study"]) as found:
        summary = await send_files("pacs.example.org", 104, found.sources, called="PACS")

Nothing is decoded or converted: a data set goes out byte for byte, over a presentation context for
exactly its SOP class and transfer syntax.

Standard: PS3.4 B.2 (Storage, SCU), PS3.8 9.3.2.2 (at most 128 presentation contexts).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from hilum.errors import (
    AssociationRejected,
    ConfigurationError,
    ConnectFailed,
    HilumError,
    LocalProtocolError,
    NoPresentationContext,
)
from hilum.net.association import Association, Response
from hilum.net.client import connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.reading import Data, Kept, ReadAhead, Reader
from hilum.net.sources import PIECE, READ_ERRORS, Source, why
from hilum.services.status import Category, category, describe
from hilum.wire.items import UserIdentityRQ

__all__ = ["Outcome", "SendResult", "Summary", "contexts_for", "send_files"]

log = logging.getLogger("hilum.net")

MAX_CONTEXTS = 128
"""Odd context ids from 1 to 255."""

READ_AHEAD = 8 << 20
"""Bytes read ahead by all associations of one ``send_files`` together."""

Contexts = tuple[tuple[str, tuple[str, ...]], ...]


class Outcome(StrEnum):
    """What became of a data set."""

    SENT = "sent"  # answered with success
    WARNING = "warning"  # answered with a warning: the peer has it
    FAILED = "failed"  # answered with a failure, or it could not be sent
    UNKNOWN = "unknown"  # the association ended before the answer: the peer may have it or not
    NOT_SENT = "not sent"  # no association could be had for it


class SendResult(NamedTuple):
    """What became of one data set.

    Args:
        source: which one.
        outcome: see ``Outcome``.
        status: (0000,0900) of the response, None where there was none.
        reason: for people; empty where it was sent.
        seconds: from the request to its response, or to the end of the association.
    """

    source: Source
    outcome: Outcome
    status: int | None = None
    reason: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Summary:
    """What became of all of them.

    Args:
        counts: data sets by outcome.
        bytes: of the data sets that were answered with success or a warning.
        seconds: from the first connection to the end of the last.
        associations: how many were opened.
        error: why the last association ended or could not be had, if one did not go well.
    """

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    bytes: int = 0
    seconds: float = 0.0
    associations: int = 0
    error: HilumError | None = None

    @property
    def ok(self) -> bool:
        """Whether the peer has every one."""
        return not (
            self.counts[Outcome.FAILED]
            or self.counts[Outcome.UNKNOWN]
            or self.counts[Outcome.NOT_SENT]
        )


def contexts_for(sources: Iterable[Source]) -> Contexts:
    """A presentation context for each pair of SOP class and transfer syntax, in order of coming.

    One transfer syntax per context lets the peer accept a class in each of them (PS3.8 9.3.3.2:
    it can choose only one per context). There may be more than the 128 of one association.
    """
    pairs = dict.fromkeys(
        (source.head.sop_class_uid, source.head.transfer_syntax_uid) for source in sources
    )
    return tuple((abstract, (syntax,)) for abstract, syntax in pairs)


def _groups(sources: Sequence[Source]) -> list[tuple[Contexts, list[Source]]]:
    """Sources that one association can take, with its contexts; mostly a single group."""
    contexts = contexts_for(sources)
    if len(contexts) <= MAX_CONTEXTS:
        return [(contexts, list(sources))] if sources else []
    groups: list[tuple[Contexts, list[Source]]] = [
        (contexts[start : start + MAX_CONTEXTS], [])
        for start in range(0, len(contexts), MAX_CONTEXTS)
    ]
    group_of = {pair: index // MAX_CONTEXTS for index, pair in enumerate(contexts)}
    for source in sources:
        pair = (source.head.sop_class_uid, (source.head.transfer_syntax_uid,))
        groups[group_of[pair]][1].append(source)
    return groups


async def send_files(
    host: str,
    port: int,
    sources: Sequence[Source],
    *,
    called: str = "ANY-SCP",
    calling: str = "HILUM",
    parallel: int = 1,
    retries: int = 3,
    on_result: Callable[[SendResult], None] | None = None,
    on_bytes: Callable[[int], None] | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    user_identity: UserIdentityRQ | None = None,
) -> Summary:
    """Send data sets by C-STORE.

    Every source gets exactly one result. After an association breaks, what is left goes on over a
    new one; the data set that was in flight is ``UNKNOWN`` and is not sent again. What the peer
    accepts no context for fails alone.

    Memory: ``READ_AHEAD`` bytes, and what the sources keep themselves.

    Standard: PS3.4 B.2, PS3.7 9.1.1.

    Args:
        host: name or address.
        port: TCP port.
        sources: of ``find_sources``, or made with ``FileSource.open``.
        called: called AE title.
        calling: calling AE title.
        parallel: associations at once; the peer may grant fewer.
        retries: attempts, each after a longer pause, to get a new association when one broke or
            was rejected for now, counted from the last response. A peer that cannot be reached
            at all or rejects permanently is not asked again.
        on_result: called with each result, in the order in which they come.
        on_bytes: called with the number of bytes, as they are given to the network.
        timeouts: of ``connect``, as all that follow.

    Raises:
        ConfigurationError: an argument is wrong; nothing was sent.

    Cancellation: associations are aborted; what has no result by then was not sent, or is unknown.
    """
    if parallel < 1:
        raise ConfigurationError(f"{parallel} associations in parallel; at least 1 is needed")

    async def opened(contexts: Contexts) -> Association:
        return await connect(
            host,
            port,
            called=called,
            calling=calling,
            contexts=contexts,
            timeouts=timeouts,
            limits=limits,
            tls=tls,
            server_hostname=server_hostname,
            user_identity=user_identity,
        )

    sending = _Sending(opened, parallel, retries, on_result, on_bytes)
    began = time.perf_counter()
    for contexts, members in _groups(sources):
        await sending.send(contexts, members)
    sending.summary.seconds = time.perf_counter() - began
    return sending.summary


class _Sending:
    """One ``send_files``: a queue that as many workers as associations empty."""

    def __init__(
        self,
        opened: Callable[[Contexts], Awaitable[Association]],
        parallel: int,
        retries: int,
        on_result: Callable[[SendResult], None] | None,
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        self.summary = Summary()
        self._open = opened
        self._parallel = parallel
        self._retries = retries
        self._on_result = on_result
        self._on_bytes = on_bytes
        self._queue: deque[Source] = deque()

    async def send(self, contexts: Contexts, sources: list[Source]) -> None:
        """Send what one association can take, over as many as are allowed."""
        self._queue.extend(sources)
        while self._queue:
            before = self._answers
            workers = min(self._parallel, len(self._queue))
            async with asyncio.TaskGroup() as group:
                for number in range(workers):
                    group.create_task(self._work(contexts, workers), name=f"store {number}")
            # What a worker gave back when it gave up is for the others, as long as any gets on.
            if self._answers == before:
                break
        reason = str(self.summary.error or "no association")
        while self._queue:
            self._report(SendResult(self._queue.popleft(), Outcome.NOT_SENT, reason=reason))

    @property
    def _answers(self) -> int:
        """Data sets whose fate is known."""
        counts = self.summary.counts
        return counts[Outcome.SENT] + counts[Outcome.WARNING] + counts[Outcome.FAILED]

    def _take(self) -> Source | None:
        """For the reading threads; popleft is atomic."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    async def _work(self, contexts: Contexts, workers: int) -> None:
        reader = self._reader(workers)
        failures = 0
        reached = False
        try:
            while failures <= self._retries and await reader.ready():
                if failures > 1:
                    await asyncio.sleep(2.0 ** (failures - 2))
                try:
                    association = await self._open(contexts)
                except HilumError as error:
                    self.summary.error = error
                    if not _may_pass(error, reached):
                        return
                    failures += 1
                    continue
                reached = True
                self.summary.associations += 1
                failures = 0 if await self._use(association, reader) else failures + 1
        finally:
            self._queue.extendleft(reversed(reader.close()))

    def _reader(self, workers: int) -> Reader:
        if all(source.content is not None for source in self._queue):
            return Kept(self._queue)
        # Several workers share what there is evenly only if none reads far ahead.
        most = 256 if workers == 1 else 4
        return ReadAhead(self._take, room=max(READ_AHEAD // workers, PIECE), most=most)

    async def _use(self, association: Association, reader: Reader) -> bool:
        """Send over one association as long as it lasts; False when it brought nothing."""
        progress = False
        try:
            while await reader.ready():
                if not association.is_established:
                    if isinstance(association.error, HilumError):
                        self.summary.error = association.error
                    return progress
                result = await self._send_one(association, reader)
                self._report(result)
                progress |= result.outcome is not Outcome.UNKNOWN
                if result.status is None:
                    reader.skip()
                    if association.is_over:
                        return progress
        except BaseException:
            association.abort()
            raise
        try:
            await association.release()
        except HilumError as error:
            log.info("association %d: release: %s", association.number, error)
        return True

    async def _send_one(self, association: Association, reader: Reader) -> SendResult:
        began = time.perf_counter()
        try:
            source, data = reader.take()
            head = source.head
            response = await association.c_store(
                data if self._on_bytes is None else _counted(data, self._on_bytes),
                sop_class_uid=head.sop_class_uid,
                sop_instance_uid=head.sop_instance_uid,
                transfer_syntax_uid=head.transfer_syntax_uid,
            )
        except (NoPresentationContext, LocalProtocolError) as error:
            return SendResult(reader.current, Outcome.FAILED, reason=str(error))
        except READ_ERRORS as error:
            # Half sent, the association has been aborted, which is no fault of the peer's.
            reason = f"cannot be read: {why(error)}"
            return SendResult(reader.current, Outcome.FAILED, reason=reason)
        except HilumError as error:
            self.summary.error = error
            seconds = time.perf_counter() - began
            return SendResult(reader.current, Outcome.UNKNOWN, None, str(error), seconds)
        return _judged(source, response, time.perf_counter() - began)

    def _report(self, result: SendResult) -> None:
        summary = self.summary
        summary.counts[result.outcome] += 1
        if result.outcome in (Outcome.SENT, Outcome.WARNING):
            summary.bytes += result.source.length
        if self._on_result is not None:
            self._on_result(result)


def _judged(source: Source, response: Response, seconds: float) -> SendResult:
    status = response.status
    if status == 0:
        return SendResult(source, Outcome.SENT, 0, "", seconds)
    outcome = Outcome.WARNING if category(status) is Category.WARNING else Outcome.FAILED
    comment = response.command.get("error_comment")
    reason = describe(status) + (f" ({comment})" if comment else "")
    return SendResult(source, outcome, status, reason, seconds)


def _may_pass(error: HilumError, reached: bool) -> bool:
    """Whether another attempt may fare better."""
    if isinstance(error, AssociationRejected):
        return error.result != 1
    # A peer that was there a moment ago may be restarting; one that never was is not there.
    return (
        reached if isinstance(error, ConnectFailed) else not isinstance(error, LocalProtocolError)
    )


def _counted(data: Data, count: Callable[[int], None]) -> Iterator[bytes] | AsyncIterator[bytes]:
    return _count_one(data, count) if isinstance(data, tuple) else _count_each(data, count)


def _count_one(data: tuple[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    yield data[0]
    count(len(data[0]))


async def _count_each(
    data: AsyncIterator[bytes], count: Callable[[int], None]
) -> AsyncIterator[bytes]:
    async for piece in data:
        yield piece
        count(len(piece))
