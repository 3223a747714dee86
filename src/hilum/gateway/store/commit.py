"""The committer: what has arrived becomes durable and visible in groups, then is answered.

Two threads in a row. The *flush* thread claims everything that waits, writes what is still in
memory, and flushes the batch's files and directories; the *index* thread commits the rows of what
was flushed, and posts the answers to the event loop in one call. While one batch is in the index,
the next is being flushed. Where no other batch waits the flush thread commits the rows by itself:
a lone sender is spared the change of threads. A few I/O threads write large objects as they arrive.

An arrival is claimed or cancelled, never both: once claimed, its answer waits for the outcome, so
that no A700H hides an instance that becomes visible later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from hilum.errors import ConnectionLost, HilumError, StorageFailed
from hilum.gateway.store.blob import Blob
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.examine import Examined, Mismatch, examine
from hilum.gateway.store.file_meta import ObjectMeta
from hilum.gateway.store.incoming import CommitUnknown, Existing, Incoming, OutcomeKind
from hilum.gateway.store.incoming import Outcome as Indexed
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.mapped import mapped
from hilum.gateway.store.pixels import PixelDigests
from hilum.gateway.store.states import DuplicatePolicy, InstanceFlag, MissingUidPolicy
from hilum.net.service import Outcome, Part
from hilum.services.content import same_content
from hilum.services.header import HeaderScan, HeaderScanner
from hilum.services.status import Status

__all__ = ["Arrival", "Committer", "Counters", "Destination"]

log = logging.getLogger("hilum.store")

# A header is a few KB; sequences and private elements before the UIDs can make it longer.
HEAD = 64 << 10
# The write lock is waited for so long; a sender's own patience is a minute at least.
INDEX_PATIENCE = 20.0
# A COMMIT whose outcome is unknown is looked up this often until the database can tell.
LOOK_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Destination:
    """Whose an object will be, and by which rules.

    Args:
        owner_id: 0 for everyone's, else the account's.
        owner: the account's name, None for everyone's.
        duplicates: other content under a SOP Instance UID that is here already.
        missing_uids: a data set without Study or Series Instance UID.
        quarantine: everything is kept out of sight until someone looks at it.
        fallback_charset: for text without (0008,0005).
        work: kind and payload of work rows to be written with each instance.
    """

    owner_id: int = 0
    owner: str | None = None
    duplicates: DuplicatePolicy = DuplicatePolicy.KEEP_BOTH
    missing_uids: MissingUidPolicy = MissingUidPolicy.REFUSE
    quarantine: bool = False
    fallback_charset: str | None = None
    work: tuple[tuple[str, Mapping[str, Any]], ...] = ()


class _State(Enum):
    OPEN = 1  # bytes are still coming
    WAITING = 2  # whole; no batch has taken it
    CLAIMED = 3  # in a batch: its outcome decides the answer
    OVER = 4


@dataclass(slots=True, eq=False)
class Arrival:
    """One object on its way from an association to the index."""

    meta: ObjectMeta
    destination: Destination
    peer: str
    parts: list[bytes] = field(default_factory=list)
    held: int = 0
    blob: Blob | None = None
    examined: Examined | None = None
    error: Exception | None = None
    waiting_since: float = 0.0
    done: asyncio.Future[Outcome] | None = None
    state: _State = _State.OPEN
    outcome: Outcome | None = None
    # A thread is writing to its file; whoever finishes hands over what is whole.
    writing: bool = False
    whole: bool = False


@dataclass(slots=True)
class Counters:
    """Since the start."""

    stored: int = 0
    stored_bytes: int = 0
    duplicates: int = 0
    refused: int = 0
    failed: int = 0
    batches: int = 0


_SUCCESS = Outcome(Status.SUCCESS)


class Committer:
    """Owns the threads that write.

    Args:
        blobs: the open store.
        writer: the index writer; used by the index thread only.
        scanner: compiled from the index's keys, and whatever else is wanted.
        max_batch: instances committed together at most.
        io_threads: threads for large objects.
        answer_within: seconds after which an arrival that no batch took is refused.
        reserve: free bytes below which nothing is taken.
        reserve_inodes: likewise, files that can still be created.
        fatal: called, in a thread, when a thread of ours died: nothing can be stored any more.
    """

    def __init__(
        self,
        blobs: BlobStore,
        writer: IndexWriter,
        scanner: HeaderScanner,
        *,
        max_batch: int = 256,
        io_threads: int = 4,
        answer_within: float = 45.0,
        reserve: int = 0,
        reserve_inodes: int = 0,
        fatal: Callable[[BaseException], None],
    ) -> None:
        self.counters = Counters()
        self._blobs = blobs
        self._writer = writer
        self._pixels = PixelDigests()
        self._scanner = scanner
        self._max_batch = max_batch
        self._answer_within = answer_within
        self._reserve = reserve
        self._reserve_inodes = reserve_inodes
        self._fatal = fatal
        self._loop = asyncio.get_running_loop()
        self._io = ThreadPoolExecutor(io_threads, "hilum-io")
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._queue: deque[Arrival] = deque()
        self._flushed = threading.Condition()
        self._to_index: deque[list[Arrival]] = deque()
        # Held by whoever writes to the index, and taken before a batch is chosen for that.
        self._indexing = threading.Lock()
        self._active_at = 0.0
        self._stopping = False
        self._flush_ended = False
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), name=name, daemon=True)
            for name, run in (
                ("hilum-flush", self._flush_forever),
                ("hilum-index", self._index_forever),
            )
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        self._sweep = self._loop.call_later(1.0, self._refuse_late)

    @property
    def waiting(self) -> int:
        """Arrivals that no batch has taken yet."""
        return len(self._queue)

    @property
    def idle_for(self) -> float:
        """Seconds since something was written or answered."""
        return time.monotonic() - self._active_at

    async def stop(self) -> None:
        """Finish what has arrived, then end the threads."""
        self._sweep.cancel()
        with self._lock:
            self._stopping = True
            self._arrived.notify()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._io.shutdown()

    # ── on the event loop ───────────────────────────────────────────────────────────────────

    def spill(self, arrival: Arrival, parts: Sequence[Part]) -> asyncio.Future[None]:
        """Write the parts of a large object in an I/O thread; one call at a time per arrival.

        The future never fails: an error is kept for the commit.
        """
        self._active_at = time.monotonic()
        arrival.writing = True
        return self._loop.run_in_executor(self._io, self._spill, arrival, parts)

    def submit(self, arrival: Arrival, done: asyncio.Future[Outcome]) -> None:
        """The object is whole: commit it with whatever else waits, once its file has it all.

        Args:
            arrival: what has arrived.
            done: gets what to answer. Cancelling it does not cancel the commit; ``cancel`` may.
        """
        arrival.done = done
        arrival.waiting_since = self._loop.time()
        self._active_at = time.monotonic()
        with self._lock:
            arrival.whole = True
            if not arrival.writing:
                self._enqueue(arrival)

    def _enqueue(self, arrival: Arrival) -> None:
        """With the lock held."""
        if arrival.state is _State.OPEN:
            arrival.state = _State.WAITING
            self._queue.append(arrival)
            self._arrived.notify()

    def cancel(self, arrival: Arrival) -> bool:
        """Drop an arrival that no batch has claimed.

        Returns:
            False where it has been claimed, or is over: what happens to it happens.
        """
        with self._lock:
            if arrival.state not in (_State.OPEN, _State.WAITING):
                return False
            arrival.state = _State.OVER
        try:
            self._io.submit(self._discard, arrival)
        except RuntimeError:  # the threads have ended; nobody is served any more
            self._discard(arrival)
        return True

    def _refuse_late(self) -> None:
        self._sweep = self._loop.call_later(1.0, self._refuse_late)
        late = self._loop.time() - self._answer_within
        with self._lock:
            # What a sender gave up is here too; while no batch is taken it would pile up.
            waiting = [a for a in self._queue if a.state is _State.WAITING]
            overdue = [a for a in waiting if a.waiting_since < late]
            self._queue = deque(a for a in waiting if a.waiting_since >= late)
        for arrival in overdue:
            if self.cancel(arrival):
                self.counters.failed += 1
                self._answer(arrival, Outcome(Status.OUT_OF_RESOURCES, "storage is not keeping up"))

    def _answer(self, arrival: Arrival, outcome: Outcome) -> None:
        if arrival.done is not None and not arrival.done.done():
            arrival.done.set_result(outcome)

    def _answer_all(self, batch: Sequence[Arrival]) -> None:
        self._active_at = time.monotonic()
        for arrival in batch:
            done, outcome = arrival.done, arrival.outcome
            assert done is not None
            if outcome is not None and not done.done():  # None: left to the next start
                done.set_result(outcome)

    # ── I/O threads ─────────────────────────────────────────────────────────────────────────

    def _spill(self, arrival: Arrival, parts: Sequence[Part]) -> None:
        try:
            self._write(arrival, parts)
        finally:
            with self._lock:  # not by way of the loop: that would cost two changes of thread
                arrival.writing = False
                if arrival.whole:
                    self._enqueue(arrival)

    def _write(self, arrival: Arrival, parts: Sequence[Part]) -> None:
        if arrival.error is not None or arrival.state is _State.OVER:
            return
        try:
            blob = arrival.blob
            if blob is None:
                parts, arrival.parts = [*arrival.parts, *parts], []
                blob = self._begin(arrival, b"".join(_head(parts)), final=False)
            else:
                self._expect_room()  # a long object must not use up what was free at its beginning
            blob.write(parts)
        except Exception as error:  # whatever it is, what is not all there is never committed
            arrival.error = error
            self._discard(arrival)

    def _begin(self, arrival: Arrival, head: bytes, *, final: bool) -> Blob:
        """Choose the object's place by what its header says."""
        self._expect_room()
        meta = arrival.meta
        blob = arrival.blob = self._blobs.begin(meta)
        scan = self._scanner.scan(head, meta.transfer_syntax_uid, final=final)
        # A header that goes on beyond what is held is examined in its file; the object's folder
        # then has no study in its name, which only a person would miss.
        if scan.complete:
            examined = arrival.examined = self._examine(arrival, scan)
            blob.place(examined.study_uid, examined.series_uid)
        return blob

    def _expect_room(self) -> None:
        if not self._blobs.has_room(self._reserve, self._reserve_inodes):
            raise StorageFailed(
                f"no more than the reserve is free ({self._reserve} bytes, "
                f"{self._reserve_inodes} files); free some space or lower store.reserve"
            )

    def _examine(self, arrival: Arrival, scan: HeaderScan) -> Examined:
        meta = arrival.meta
        examined = examine(
            scan,
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            missing=arrival.destination.missing_uids,
        )
        if arrival.destination.quarantine:
            examined = replace(examined, flags=examined.flags | InstanceFlag.QUARANTINED)
        meta.mislabelled = bool(examined.flags & InstanceFlag.MISLABELLED)
        meta.quarantined = bool(examined.flags & InstanceFlag.QUARANTINED)
        return examined

    def _discard(self, arrival: Arrival) -> None:
        blob, arrival.blob = arrival.blob, None
        arrival.parts = []
        if blob is not None:
            blob.discard()

    # ── the flush thread ────────────────────────────────────────────────────────────────────

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            log.critical("%s died", threading.current_thread().name, exc_info=error)
            self._fatal(error)
            raise

    def _claim(self) -> list[Arrival]:
        """Everything that waits, up to a batch; empty when stopping and nothing is left."""
        with self._lock:
            while True:
                batch: list[Arrival] = []
                while self._queue and len(batch) < self._max_batch:
                    arrival = self._queue.popleft()
                    if arrival.state is _State.WAITING:
                        arrival.state = _State.CLAIMED
                        batch.append(arrival)
                if batch or self._stopping:
                    return batch
                self._arrived.wait()

    def _flush_forever(self) -> None:
        try:
            while batch := self._claim():
                self._flush(batch)
                if not self._index_at_once(batch):
                    with self._flushed:
                        self._to_index.append(batch)
                        self._flushed.notify()
        finally:
            with self._flushed:
                self._flush_ended = True
                self._flushed.notify()

    def _index_at_once(self, batch: list[Arrival]) -> bool:
        """Commit the rows in this thread, unless another batch is before or behind it."""
        if self._queue or not self._indexing.acquire(blocking=False):
            return False
        try:
            if self._to_index:
                return False
            self._index(batch)
        finally:
            self._indexing.release()
        self._loop.call_soon_threadsafe(self._answer_all, batch)
        return True

    def _flush(self, batch: list[Arrival]) -> None:
        ready = []
        for arrival in batch:
            try:
                self._complete(arrival)
                ready.append(arrival)
            except Exception as error:  # one object must not keep the others from being stored
                self._refuse(arrival, error)
        blobs = [arrival.blob for arrival in ready if arrival.blob is not None]
        assert len(blobs) == len(ready)
        for arrival, failure in zip(ready, self._blobs.commit(blobs), strict=True):
            if failure is not None:
                self._refuse(arrival, failure)

    def _complete(self, arrival: Arrival) -> None:
        """All of the object in its file, examined, with its final header."""
        if arrival.error is not None:
            raise arrival.error
        blob = arrival.blob
        if blob is None:
            whole = arrival.parts[0] if len(arrival.parts) == 1 else b"".join(arrival.parts)
            arrival.parts = []
            blob = self._begin(arrival, whole, final=True)
            blob.keep(whole)
        elif arrival.examined is None:
            assert blob.path is not None
            with mapped(self._blobs.root, blob.path) as data:
                scan = self._scanner.scan(data, arrival.meta.transfer_syntax_uid, final=True)
            arrival.examined = self._examine(arrival, scan)
        blob.seal()

    def _refuse(self, arrival: Arrival, error: Exception) -> None:
        self._discard(arrival)
        if isinstance(error, Mismatch):
            self.counters.refused += 1
            arrival.outcome = Outcome(error.status, str(error))
            log.info("refused from %s: %s", arrival.peer, error)
            return
        self.counters.failed += 1
        arrival.outcome = Outcome(Status.OUT_OF_RESOURCES, "storage failed")
        expected = isinstance(error, OSError | HilumError)
        log.error("not stored, from %s: %s", arrival.peer, error, exc_info=not expected and error)

    # ── the index thread ────────────────────────────────────────────────────────────────────

    def _index_forever(self) -> None:
        while True:
            with self._flushed:
                while not self._to_index and not self._flush_ended:
                    self._flushed.wait()
                if not self._to_index:
                    self._writer.close()
                    self._pixels.close()
                    return
            with self._indexing:
                with self._flushed:
                    batch = self._next_batch()
                if not batch:  # all were refused while we waited for our turn
                    continue
                self._index(batch)
            self._loop.call_soon_threadsafe(self._answer_all, batch)

    def _next_batch(self) -> list[Arrival]:
        """What was flushed first, and as much of what came behind it as one batch takes."""
        batch: list[Arrival] = []
        while self._to_index and (
            not batch or len(batch) + len(self._to_index[0]) <= self._max_batch
        ):
            batch.extend(self._to_index.popleft())
        return batch

    def _index(self, batch: list[Arrival]) -> None:
        ready = [arrival for arrival in batch if arrival.outcome is None]
        self.counters.batches += 1
        if not ready:
            return
        incoming = [_incoming(arrival) for arrival in ready]
        try:
            outcomes = self._commit(ready, incoming)
        except StorageFailed as error:
            self._refuse_durable(ready, error)
            return
        except CommitUnknown as error:
            log.error("%d instances are left to the next start: %s", len(ready), error)
            return
        results = list(zip(ready, outcomes, strict=True))
        self._withdraw([a for a, outcome in results if outcome.kind is OutcomeKind.REFUSED])
        for arrival, outcome in results:
            self._settle(arrival, outcome)

    def _refuse_durable(self, arrivals: Sequence[Arrival], error: Exception) -> None:
        self._withdraw(arrivals)
        for arrival in arrivals:
            self._refuse(arrival, error)

    def _withdraw(self, refused: Sequence[Arrival]) -> None:
        """Remove, durably, files that are durable: after a power cut they would be given rows."""
        paths = [a.blob.path for a in refused if a.blob is not None and a.blob.path is not None]
        # Discarded and then removed: in between nobody else's object may come to lie there.
        self._blobs.withhold(paths)
        for arrival in refused:
            self._discard(arrival)
        try:
            if paths:
                self._blobs.remove(paths)
        except StorageFailed as error:
            log.error("what was refused may come back after a power cut: %s", error)
        finally:
            self._blobs.give_free(paths)

    def _commit(self, batch: list[Arrival], incoming: list[Incoming]) -> list[Indexed]:
        try:
            return self._writer.commit(
                incoming, deadline=time.monotonic() + INDEX_PATIENCE, compare=self._compare
            )
        except CommitUnknown as unknown:
            return self._resolve(batch, unknown)

    def _resolve(self, batch: list[Arrival], unknown: CommitUnknown) -> list[Indexed]:
        """Find out what a failed COMMIT did; until that is known nobody else gets a row.

        Raises:
            StorageFailed: nothing of the batch is in the index.
            CommitUnknown: we are stopping, and the database still cannot tell.
        """
        until = time.monotonic() + self._answer_within
        while True:
            log.error("%s", unknown)
            time.sleep(LOOK_AGAIN)
            try:
                return self._writer.resolve(unknown, deadline=time.monotonic() + INDEX_PATIENCE)
            except CommitUnknown as again:
                unknown = again
            if self._stopping:
                raise unknown
            if time.monotonic() >= until:  # senders wait no longer
                self._loop.call_soon_threadsafe(self._end_associations, batch)
                self._refuse_flushed(unknown)

    def _end_associations(self, batch: Sequence[Arrival]) -> None:
        """No answer would be true: neither that they are kept, nor that they are not."""
        for arrival in batch:
            if arrival.done is not None and not arrival.done.done():
                arrival.done.set_exception(ConnectionLost("the index does not say what it holds"))

    def _refuse_flushed(self, error: Exception) -> None:
        """Refuse what waits for the index behind a batch that does not come to an end."""
        with self._flushed:
            flushed, self._to_index = self._to_index, deque()
        for batch in flushed:
            self._refuse_durable([a for a in batch if a.outcome is None], error)
            self._loop.call_soon_threadsafe(self._answer_all, batch)

    def _settle(self, arrival: Arrival, indexed: Indexed) -> None:
        counters, blob = self.counters, arrival.blob
        match indexed.kind:
            case OutcomeKind.REFUSED:
                counters.refused += 1
                arrival.outcome = Outcome(0xC001, "another object with this UID is here and stays")
                return
            case OutcomeKind.SAME:
                counters.duplicates += 1
                self._discard(arrival)
            case _:
                assert blob is not None
                counters.stored += 1
                counters.stored_bytes += blob.length
                # A file that was replaced has a tombstone; the janitor deletes it.
                blob.settle()
        arrival.outcome = _SUCCESS

    def _compare(self, existing: Existing, incoming: Incoming) -> bool:
        """Whether a version that is here says the same as what has come, encoded otherwise."""
        try:
            with (
                mapped(self._blobs.root, existing.path) as here,
                mapped(self._blobs.root, incoming.path) as there,
            ):
                return same_content(
                    here,
                    existing.transfer_syntax_uid,
                    there,
                    incoming.transfer_syntax_uid,
                    decode=self._pixels.of,
                )
        except (OSError, HilumError, ValueError) as error:
            log.error("a stored version could not be compared: %s", error)
            return False


def _incoming(arrival: Arrival) -> Incoming:
    meta, destination, examined, blob = (
        arrival.meta,
        arrival.destination,
        arrival.examined,
        arrival.blob,
    )
    assert examined is not None
    assert blob is not None
    assert blob.path is not None
    return Incoming(
        owner_id=destination.owner_id,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        path=blob.path,
        data_offset=blob.data_offset,
        size=meta.length,
        digest=meta.digest,
        values=examined.values,
        received_at=meta.arrived_us,
        flags=examined.flags,
        sending_ae=meta.sending_ae_title,
        receiving_ae=meta.receiving_ae_title,
        peer=arrival.peer,
        duplicates=destination.duplicates,
        fallback_charset=destination.fallback_charset,
        work=destination.work,
    )


def _head(parts: Sequence[Part]) -> Sequence[Part]:
    """As many parts as the scanner may want to see: what is held, and the first that came after."""
    head, size = [], 0
    for part in parts:
        head.append(part if size + len(part) <= HEAD else part[:HEAD])
        size += len(part)
        if size >= HEAD:
            break
    return head
