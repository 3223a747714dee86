"""Sending many data sets: contexts derived from them, several associations, a result for each.

::

    with find_sources(["study"]) as found:
        summary = await send_files("pacs.example.org", 104, found.sources, called="PACS")

A data set goes out byte for byte, over a presentation context for exactly its SOP class and transfer
syntax. Only where the peer accepts none it is converted to a syntax that the peer does accept: by
default, an uncompressed one to another.

Standard: PS3.4 B.2 (Storage, SCU), PS3.8 9.3.2.2 (at most 128 presentation contexts).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from hilum.errors import (
    AssociationRejected,
    ConfigurationError,
    ConnectFailed,
    HilumError,
    LocalProtocolError,
)
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.conversion import Conversion, Reencoding
from hilum.net.delivery import Delivery, Outcome, SendResult
from hilum.net.limits import Limits, Timeouts
from hilum.net.reading import Kept, ReadAhead, Reader
from hilum.net.sources import PIECE, Source
from hilum.services.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from hilum.wire.items import UserIdentityRQ

__all__ = ["Outbox", "Outcome", "SendResult", "Summary", "contexts_for", "send_files"]

log = logging.getLogger("hilum.net")

MAX_CONTEXTS = 128
"""Odd context ids from 1 to 255."""

READ_AHEAD = 8 << 20
"""Bytes read ahead by all associations of one ``Outbox`` together."""

_EVERYBODYS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

Contexts = tuple[tuple[str, tuple[str, ...]], ...]


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


def contexts_for(sources: Iterable[Source], conversion: Conversion | None = None) -> Contexts:
    """A presentation context for each pair of SOP class and transfer syntax, in order of coming.

    One transfer syntax per context lets the peer accept a class in each of them (PS3.8 9.3.3.2:
    it can choose only one per context). There may be more than the 128 of one association. As long
    as there are not, each class that can be converted gets one more, with the other uncompressed
    syntaxes that every peer knows.

    Args:
        sources: what is going to be sent.
        conversion: what can be converted; None for ``Reencoding``.
    """
    pairs = dict.fromkeys(
        (source.head.sop_class_uid, source.head.transfer_syntax_uid) for source in sources
    )
    exact = tuple((abstract, (syntax,)) for abstract, syntax in pairs)
    fallbacks = _fallbacks(exact, conversion or Reencoding())
    return (*exact, *fallbacks[: max(0, MAX_CONTEXTS - len(exact))])


def _fallbacks(exact: Contexts, conversion: Conversion) -> Contexts:
    """Contexts for what the peer does not take as it is."""
    proposed: dict[str, set[str]] = {}
    for abstract, (syntax,) in exact:
        proposed.setdefault(abstract, set()).add(syntax)
    others = {
        abstract: tuple(syntax for syntax in _EVERYBODYS if syntax not in syntaxes)
        for abstract, syntaxes in proposed.items()
        if any(map(conversion.targets, syntaxes))
    }
    return tuple((abstract, syntaxes) for abstract, syntaxes in others.items() if syntaxes)


def _groups(
    sources: Sequence[Source], conversion: Conversion
) -> list[tuple[Contexts, list[Source]]]:
    """Sources that one association can take, with its contexts; mostly a single group."""
    contexts = contexts_for(sources, conversion)
    if len(contexts) <= MAX_CONTEXTS:
        return [(contexts, list(sources))] if sources else []
    groups: list[tuple[Contexts, list[Source]]] = [
        (contexts[start : start + MAX_CONTEXTS], [])  # more than 128 have no fallbacks
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
    window: tuple[int, int] | None = None,
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
            window=window,
        )

    outbox = Outbox(
        opened, parallel=parallel, retries=retries, on_result=on_result, on_bytes=on_bytes
    )
    began = time.perf_counter()
    try:
        await outbox.send(sources)
        await outbox.close()
    finally:
        outbox.abort()
    outbox.summary.seconds = time.perf_counter() - began
    return outbox.summary


class Outbox:
    """Data sets that as many workers as associations send.

    Associations stay open between one ``send`` and the next, until ``close`` or ``abort``.

    Args:
        opened: opens an association with these contexts.
        parallel: associations at once.
        retries: see ``send_files``.
        on_result: see ``send_files``, as all that follow.
        on_bytes: as they are given to the network.
        move_originator: AE title and Message ID of the C-MOVE that this is part of.
        conversion: where a peer does not accept a data set as it is; None for ``Reencoding``.
    """

    def __init__(
        self,
        opened: Callable[[Contexts], Awaitable[Association]],
        *,
        parallel: int = 1,
        retries: int = 3,
        on_result: Callable[[SendResult], None] | None = None,
        on_bytes: Callable[[int], None] | None = None,
        move_originator: tuple[str, int] | None = None,
        conversion: Conversion | None = None,
    ) -> None:
        self.summary = Summary()
        #: Whether ``stop`` was called.
        self.stopped = False
        self._open = opened
        self._parallel = parallel
        self._retries = retries
        self._on_result = on_result
        self._on_bytes = on_bytes
        self._move_originator = move_originator
        self._conversion = conversion or Reencoding()
        self._queue: deque[Source] = deque()
        self._idle: list[tuple[Contexts, Association]] = []
        # Workers that have no association yet.
        self._opening: set[asyncio.Task[None]] = set()

    async def send(self, sources: Sequence[Source]) -> None:
        """Send them, over as many associations as are allowed; on return each has its result."""
        for contexts, members in _groups(sources, self._conversion):
            await self._send_group(contexts, members)

    async def _send_group(self, contexts: Contexts, sources: list[Source]) -> None:
        self._queue.extend(sources)
        while self._queue and not self.stopped:
            before = self._answers
            workers = min(self._parallel, len(self._queue))
            async with asyncio.TaskGroup() as group:
                for number in range(workers):
                    worker = group.create_task(
                        self._work(contexts, workers), name=f"store {number}"
                    )
                    worker.add_done_callback(self._worker_ended)
            # What a worker gave back when it gave up is for the others, as long as any gets on.
            if self._answers == before:
                break
        if self.stopped:
            self._queue.clear()
        reason = str(self.summary.error or "no association")
        while self._queue:
            self._report(SendResult(self._queue.popleft(), Outcome.NOT_SENT, reason=reason))

    def _worker_ended(self, _: asyncio.Task[None]) -> None:
        """A peer that takes one association at a time answers the others when it is too late."""
        if not self._queue:
            for worker in self._opening:
                worker.cancel()

    async def close(self) -> None:
        """Release the associations.

        Cancellation: those that are not released yet are aborted.
        """
        idle, self._idle = self._idle, []
        try:
            await asyncio.gather(*(_release(association) for _, association in idle))
        except BaseException:
            for _, association in idle:
                association.abort()
            raise

    def stop(self) -> None:
        """Send no more; what is outstanding still has its results."""
        self.stopped = True
        for worker in self._opening:
            worker.cancel()

    def abort(self) -> None:
        """Abort the associations that are not being used."""
        for _, association in self._idle:
            association.abort()
        self._idle.clear()

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
        failures = 0
        reached = False
        while failures <= self._retries and self._queue and not self.stopped:
            if failures > 1:
                await asyncio.sleep(2.0 ** (failures - 2))
            try:
                mine, association = await self._association(contexts)
            except HilumError as error:
                self.summary.error = error
                if not _may_pass(error, reached):
                    return
                failures += 1
                continue
            reached = True
            try:
                progress = await self._use(association, workers)
            except BaseException:
                association.abort()
                raise
            if association.is_established:
                self._idle.append((mine, association))
                return
            failures = 0 if progress else failures + 1

    async def _association(self, contexts: Contexts) -> tuple[Contexts, Association]:
        """One that is open and has these contexts, or a new one."""
        while self._idle:
            mine, association = self._idle.pop()
            if association.is_established:
                if set(contexts) <= set(mine):
                    return mine, association
                await _release(association)
        worker = cast("asyncio.Task[None]", asyncio.current_task())
        self._opening.add(worker)
        try:
            association = await self._open(contexts)
        finally:
            self._opening.discard(worker)
        self.summary.associations += 1
        return contexts, association

    async def _use(self, association: Association, workers: int) -> bool:
        """Send over one association as long as it lasts; False when it brought nothing."""
        delivery = Delivery(
            association,
            move_originator=self._move_originator,
            on_bytes=self._on_bytes,
            conversion=self._conversion,
        )
        reader = self._reader(delivery, workers)
        progress = False
        try:
            async for result in delivery.results(reader, lambda: self.stopped):
                self._report(result)
                progress |= result.outcome is not Outcome.UNKNOWN
        finally:
            self._queue.extendleft(reversed(reader.close()))
        if isinstance(association.error, HilumError) and not delivery.broke_off:
            self.summary.error = association.error
        return progress

    def _reader(self, delivery: Delivery, workers: int) -> Reader:
        if all(
            source.content is not None and not delivery.needs_conversion(source.head)
            for source in self._queue
        ):
            return Kept(self._queue)
        # Several workers share what there is evenly only if none reads far ahead.
        most = 256 if workers == 1 else 4
        room = max(READ_AHEAD // workers, PIECE)
        return ReadAhead(self._take, delivery.pieces, room=room, most=most)

    def _report(self, result: SendResult) -> None:
        summary = self.summary
        summary.counts[result.outcome] += 1
        if result.outcome in (Outcome.SENT, Outcome.WARNING):
            summary.bytes += result.source.length
        if self._on_result is not None:
            self._on_result(result)


async def _release(association: Association) -> None:
    try:
        await association.release()
    except HilumError as error:
        log.info("association %d: release: %s", association.number, error)


def _may_pass(error: HilumError, reached: bool) -> bool:
    """Whether another attempt may fare better."""
    if isinstance(error, AssociationRejected):
        return error.result != 1
    # A peer that was there a moment ago may be restarting; one that never was is not there.
    return (
        reached if isinstance(error, ConnectFailed) else not isinstance(error, LocalProtocolError)
    )
