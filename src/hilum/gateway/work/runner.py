"""The executor: claims what is ready, runs it, keeps its lease alive, records how it ended.

The table is the only truth. A wake-up is a hint that makes us look at once; without one we look
once a second whether anything has been committed, or the time of something that waits has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hilum.errors import HilumError, StorageFailed
from hilum.gateway.store.claims import End, EndKind, Held, Job, Outcome, Wanted, retry
from hilum.gateway.store.work import WorkTable
from hilum.gateway.threads import in_thread
from hilum.gateway.work.kinds import Kind, Kinds, Program
from hilum.gateway.work.pool import Pool

__all__ = ["Runner"]

log = logging.getLogger("hilum.work")

POLL = 1.0
# Leases are a minute: looking for those that ran out more often finds nothing more.
SWEEP = 5.0
FORGET = 600.0
# An end that could not be recorded is tried again while the lease lasts.
RECORD_AGAIN = 0.5
# Deletion in small pieces, so that no other writer waits.
_PIECES_AT_ONCE = 20


@dataclass(slots=True, eq=False)
class _Claim:
    job: Job
    kind: Kind
    beat_at: float
    task: asyncio.Task[None] | None = None
    end: Outcome | None = None
    lost: bool = False


class Runner:
    """Runs the work of some kinds in this process. Used on one event loop.

    Args:
        table: the work table.
        kinds: what to run, and how.
        pool: for kinds that run in processes.
        chores: called in a thread at every look, before the claim; what they raise of ours is
            logged.
        keep: seconds for which rows that are done or cancelled stay listed.
        poll: seconds between looks without a hint.
        version: see `Commits.version`; without it the table is read at every look.
    """

    def __init__(
        self,
        table: WorkTable,
        kinds: Kinds,
        pool: Pool,
        *,
        chores: Sequence[Callable[[], object]] = (),
        keep: float = 7 * 86400.0,
        poll: float = POLL,
        version: Callable[[], object] = object,
    ) -> None:
        self._table = table
        self._kinds = kinds
        self._pool = pool
        self._chores = chores
        self._keep = keep
        self._poll = poll
        self._version = version
        self._nothing_at: object = None
        self._nothing_until = 0.0
        self._claims: dict[int, _Claim] = {}
        self._ended: list[_Claim] = []
        self._hint = asyncio.Event()
        self._to_record = asyncio.Event()
        self._stopping = False
        self._over = asyncio.Event()
        self._over.set()
        self._loop = asyncio.get_running_loop()
        self._sweep_at = self._forget_at = 0.0

    @property
    def running(self) -> int:
        """Jobs that run now."""
        return len(self._claims)

    def wake(self) -> None:
        """There may be something to do; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody runs any more
            self._loop.call_soon_threadsafe(self._hint.set)

    async def run(self) -> None:
        """Run until `stop`.

        Cancellation: what is being claimed at that moment is left to its lease; use `stop`.

        Raises:
            Exception: ends of jobs can no longer be recorded, for a reason that is no
                `StorageFailed`; what runs is left to its lease.
        """
        self._over.clear()
        recorder = asyncio.create_task(self._record_forever(), name="work recorder")
        recorder.add_done_callback(lambda _: self._hint.set())
        try:
            while not self._stopping:
                if recorder.done():
                    recorder.result()
                self._hint.clear()
                if not await self._look():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._hint.wait(), self._poll)
        finally:
            recorder.cancel()
            await asyncio.gather(recorder, return_exceptions=True)
            self._over.set()

    async def stop(self, grace: float = 0.0) -> None:
        """Claim nothing more; give back what does not end by itself within `grace` seconds."""
        self._stopping = True
        self._hint.set()
        tasks = [claim.task for claim in self._claims.values() if claim.task is not None]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        await self._over.wait()
        tasks = [claim.task for claim in self._claims.values() if claim.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()
        unfinished = {c.job.id: c.job.token for c in self._claims.values() if c.end is None}
        try:
            await self._record(self._ended)
            if unfinished:
                await in_thread(self._table.give_back, unfinished)
        except StorageFailed as error:
            log.warning("claims are not given back, their leases run out: %s", error)
        except Exception:
            log.exception("claims are not given back, their leases run out")
        self._claims.clear()

    # ── looking ─────────────────────────────────────────────────────────────────────────────

    async def _look(self) -> bool:
        """Look once; returns whether to look again at once."""
        wanted = [kind.wanted(room) for kind in self._kinds if (room := self._room(kind)) > 0]
        claims = list(self._claims.values())
        try:
            jobs, lost = await in_thread(self._ask_table, wanted, claims)
        except HilumError as error:
            log.error("the work table does not answer: %s", error)
            return False
        for claim in lost:
            self._lose(claim)
        for job in jobs:
            self._start(job)
        return bool(jobs)

    def _room(self, kind: Kind) -> int:
        return kind.concurrency - sum(claim.kind is kind for claim in self._claims.values())

    def _ask_table(
        self, wanted: Sequence[Wanted], claims: list[_Claim]
    ) -> tuple[list[Job], list[_Claim]]:
        version = self._version()
        if not claims and version == self._nothing_at and time.monotonic() < self._nothing_until:
            return [], []
        for chore in self._chores:
            try:
                chore()
            except HilumError as error:
                log.error("%s", error)
        lost = self._keep_alive(claims)
        now = time.monotonic()
        due = self._table.due(self._kinds.names)
        if due.expired and now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            swept = self._table.sweep()
            log.warning("leases ran out: %d run again, %d are dead", swept.again, swept.dead)
        if now >= self._forget_at:
            self._forget_at = now + FORGET
            for _ in range(_PIECES_AT_ONCE):
                if not self._table.forget(keep=self._keep):
                    break
                self._forget_at = now
        self._nothing_at = None if due.ready or due.expired else version
        # Schedules and leases have times of their own.
        self._nothing_until = now + min(due.next_in, SWEEP)
        return self._table.claim(wanted) if due.ready and wanted else [], lost

    def _keep_alive(self, claims: list[_Claim]) -> list[_Claim]:
        """Prolong leases at a third of their length; returns which claims are lost."""
        if not claims:
            return []
        now = time.monotonic()
        held = self._table.still_held({claim.job.id: claim.job.token for claim in claims})
        due = [claim for claim in claims if claim.job.id in held and now >= claim.beat_at]
        if due:
            beats = [Held(claim.job.id, claim.job.token, claim.kind.lease) for claim in due]
            held -= {claim.job.id for claim in due}
            held |= self._table.heartbeat(beats)
            for claim in due:
                claim.beat_at = now + claim.kind.lease / 3
        return [claim for claim in claims if claim.job.id not in held]

    def _lose(self, claim: _Claim) -> None:
        # Between the look and now it may have ended, and the row been claimed anew.
        if self._claims.get(claim.job.id) is not claim or claim.end is not None:
            return
        log.info("job %d (%s) was taken from us", claim.job.id, claim.kind.name)
        claim.lost = True
        if claim.task is not None:
            claim.task.cancel()

    # ── running ─────────────────────────────────────────────────────────────────────────────

    def _start(self, job: Job) -> None:
        kind = self._kinds[job.kind]
        claim = _Claim(job, kind, time.monotonic() + kind.lease / 3)
        self._claims[job.id] = claim
        claim.task = asyncio.create_task(self._run(claim), name=f"job {job.id} {kind.name}")

    async def _run(self, claim: _Claim) -> None:
        job, kind = claim.job, claim.kind
        try:
            outcome = await self._outcome(job, kind)
        except asyncio.CancelledError:
            if claim.lost:
                self._claims.pop(job.id, None)
                self._hint.set()
                return
            raise
        except HilumError as error:
            outcome = retry(str(error))
        except Exception as error:
            log.exception("job %d (%s) failed unexpectedly", job.id, kind.name)
            outcome = retry(f"{type(error).__name__}: {error}")
        if outcome.kind is EndKind.RETRY and outcome.after is None:
            outcome = replace(outcome, after=kind.backoff.after(job.attempt))
        if outcome.kind in (EndKind.RETRY, EndKind.DEAD):
            log.warning(
                "job %d (%s) failed at attempt %d of %d: %s",
                *(job.id, kind.name, job.attempt, job.max_attempts, outcome.cause),
            )
        claim.end = outcome
        self._ended.append(claim)
        self._to_record.set()

    async def _outcome(self, job: Job, kind: Kind) -> Outcome:
        if isinstance(kind.run, Program):
            program = kind.run
            result = await self._pool.run(
                program.target,
                job.payload,
                memory_limit=program.memory_limit,
                time_limit=kind.time_limit,
            )
            return program.conclude(job, result)
        try:
            async with asyncio.timeout(kind.time_limit) as limit:
                return await kind.run(job)
        except TimeoutError:
            if not limit.expired():
                raise
            return retry(f"it took longer than {kind.time_limit:g} s")

    # ── recording ───────────────────────────────────────────────────────────────────────────

    async def _record_forever(self) -> None:
        while True:
            await self._to_record.wait()
            self._to_record.clear()
            try:
                await self._record(self._ended)
            except StorageFailed as error:
                log.error("ends of jobs could not be recorded yet: %s", error)
                await asyncio.sleep(RECORD_AGAIN)
                self._to_record.set()

    async def _record(self, ended: list[_Claim]) -> None:
        """Write the ends of claims, and take them off the list as they are written."""
        while ended:
            plain = [claim for claim in ended if _end(claim).outcome.also is None]
            if plain:
                ends = [_end(claim) for claim in plain]
                recorded = await in_thread(self._table.finish_all, ends)
                for claim, was_held in zip(plain, recorded, strict=True):
                    self._recorded(ended, claim, was_held)
                continue
            claim = ended[0]
            try:
                was_held = await in_thread(self._table.finish, _end(claim))
            except StorageFailed:
                raise
            except Exception as error:
                log.exception("what follows from job %d could not be written", claim.job.id)
                after = claim.kind.backoff.after(claim.job.attempt)
                claim.end = retry(f"{type(error).__name__}: {error}", after)
                continue
            self._recorded(ended, claim, was_held)

    def _recorded(self, ended: list[_Claim], claim: _Claim, was_held: bool) -> None:
        if not was_held:
            log.info("job %d ended after its claim was lost", claim.job.id)
        ended.remove(claim)
        self._claims.pop(claim.job.id, None)
        self._hint.set()

    def counts(self) -> Counter[str]:
        """Jobs that run now, by kind."""
        return Counter(claim.kind.name for claim in self._claims.values())


def _end(claim: _Claim) -> End:
    assert claim.end is not None
    return End(claim.job.id, claim.job.token, claim.end)
