"""Storage Commitment as provider: the request is kept, judged, and its result reported.

N-ACTION is answered as soon as the request is durable. All that follows is work: judging, then
delivery by the ways that a site chose, one after another, again and again for days. A report is
sent by nobody but the holder of its work row, so that it is repeated only where no response to it
was durably recorded.

Standard: PS3.4 Annex J.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from hilum.errors import HilumError, InvalidDicom, LimitExceeded, Refused
from hilum.gateway.config import Config
from hilum.gateway.flow.address import Call
from hilum.gateway.flow.peers import address_of, client_tls, server_name
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.claims import Job, Outcome, dead, done, later, retry
from hilum.gateway.store.commitments import (
    DELIVER,
    JUDGE,
    Asked,
    Commitment,
    Commitments,
    TooManyOpen,
    pack_result,
)
from hilum.gateway.store.database import Database
from hilum.gateway.store.delivery import Delivery, Level, Way
from hilum.gateway.store.entries import Peer, Snapshot
from hilum.gateway.store.judgement import judge
from hilum.gateway.store.states import CommitmentState
from hilum.gateway.threads import in_thread
from hilum.gateway.work.kinds import Kind
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.commitment import COMMITMENT_CONTEXTS, REPORTING_ROLE
from hilum.net.service import Accept, Reply, Request, service_policy
from hilum.services.commitment import (
    REQUEST_COMMITMENT,
    TRANSFER_SYNTAXES,
    Action,
    FailureReason,
    encode_result,
    failed_as_a_whole,
    parse_action,
)
from hilum.services.sop_classes import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    may_store,
)
from hilum.services.status import Category, Status, category
from hilum.wire.command import CommandField

__all__ = ["CommitmentProvider"]

log = logging.getLogger("hilum.commitment")

# Enough for any number of days: how long a delivery is tried is measured in time.
ATTEMPTS = 1_000_000
# One thread reads files as fast as a disk gives them; two, so that a small request does not wait
# for a large one.
JUDGES = 2
# Callers that are told at once; each has one association at a time.
COURIERS = 16
# Encoding takes about a microsecond for each reference.
MANY = 2000
# An association that has begun is looked at again, for what was being tried otherwise just then.
LOOK_AGAIN = (0.0, 0.5, 2.0)

_NO_SUCH_ARGUMENT, _INVALID_ARGUMENT, _NO_SUCH_ACTION = 0x0114, 0x0115, 0x0123

_Key = tuple[int, str, str, bytes]


@dataclass(frozen=True, slots=True)
class _Asking:
    """The association that a request came over."""

    association: Association
    at: float  # loop time


class CommitmentProvider:
    """Answers requests for storage commitment. Used on the event loop.

    Args:
        config: ``commitment``, and what associations of ours need.
        database: see `open_database`.
        blobs: the store.
        snapshot: gives the directory as it is now.
        wake: tells the executor that there is work.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        blobs: BlobStore,
        *,
        snapshot: Callable[[], Snapshot],
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._settings = config.commitment
        self._database = database
        self._blobs = blobs
        self._snapshot = snapshot
        self._wake = wake
        self._commitments = Commitments(database)
        self._asking: dict[_Key, _Asking] = {}
        # Associations that came with the service, in the order they came.
        self._begun: dict[Association, Asked] = {}
        # Until when nobody listens there, in loop time.
        self._away: dict[tuple[str, int], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def prepare(self) -> None:
        """Before the work begins; blocks on the database."""
        if resumed := self._commitments.resume():
            log.info("%d requests for commitment had no work, and have it again", resumed)

    def forget(self) -> None:
        """Delete old requests; blocks on the database for a moment."""
        while self._commitments.forget(keep=self._settings.keep):
            pass

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The work that this does."""
        return (
            Kind(name=JUDGE, run=self.judge, concurrency=JUDGES),
            Kind(
                name=DELIVER,
                run=self.deliver,
                concurrency=COURIERS,
                per_key=1,
                max_attempts=ATTEMPTS,
            ),
        )

    # ── associations ────────────────────────────────────────────────────────────────────────

    def admit(self, accept: Accept, call: Call) -> Accept:
        """The same acceptance, with this service where the caller may ask for it."""
        if not call.may("commit"):
            return accept
        peer = call.peer.name if call.peer is not None else ""
        asked = Asked(call.owner_id, call.called_ae, call.calling_ae, peer)

        def begun(association: Association) -> None:
            if accept.begun is not None:
                accept.begun(association)
            self._association_begun(association, asked)

        return replace(
            accept,
            policy=service_policy(
                (STORAGE_COMMITMENT_PUSH_MODEL,),
                transfer_syntaxes=TRANSFER_SYNTAXES,
                otherwise=accept.policy,
            ),
            roles={**accept.roles, STORAGE_COMMITMENT_PUSH_MODEL: (True, True)},
            handlers={
                **accept.handlers,
                CommandField.N_ACTION_RQ: lambda request: self._n_action(request, asked),
            },
            begun=begun,
        )

    def _association_begun(self, association: Association, asked: Asked) -> None:
        """What waits for this caller's next association goes out over it."""
        if not _is_for_results(association):
            return
        self._begun[association] = asked
        task = asyncio.create_task(
            self._next_association(association, asked), name="results for who has come"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _next_association(self, association: Association, asked: Asked) -> None:
        try:
            for wait in LOOK_AGAIN:
                await asyncio.sleep(wait)
                if not association.is_established:
                    break
                await self._all_for(asked)
            await association.wait_closed()
        except HilumError as error:
            log.error("results for %a were not looked for: %s", asked.calling_ae, error)
        finally:
            self._begun.pop(association, None)

    async def close(self) -> None:
        """Look for nothing more, at files neither."""
        self._closing = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ── N-ACTION ────────────────────────────────────────────────────────────────────────────

    async def _n_action(self, request: Request, asked: Asked) -> Reply:
        """Keep a request for commitment; answered when it is durable.

        Standard: PS3.4 J.3.2, PS3.7 10.1.4.1.10.
        """
        _check(request)
        action = await in_thread(_read, request)
        key = (asked.owner_id, asked.calling_ae, action.transaction_uid, action.digest)
        loop = asyncio.get_running_loop()
        # Before the row is there: its result may be known at once.
        self._asking[key] = asking = _Asking(request.association, loop.time())
        try:
            number = await in_thread(
                self._commitments.record, asked, action, max_open=self._settings.max_open
            )
        except TooManyOpen:
            self._forget(key, asking)
            raise Refused(
                Status.RESOURCE_LIMITATION, "too many results that could not be delivered"
            ) from None
        except BaseException:
            self._forget(key, asking)
            raise
        log.info(
            "association %d: commitment %d of %d instances asked for",
            *(request.association.number, number, len(action.references)),
        )
        loop.call_later(self._within(asked), self._forget, key, asking)
        # When the response is sent, which happens as this returns.
        loop.call_soon(self._wake)
        return Reply(Status.SUCCESS)

    def _within(self, asked: Asked) -> float:
        return self._delivery(asked).same_within

    def _forget(self, key: _Key, asking: _Asking) -> None:
        if self._asking.get(key) is asking:
            del self._asking[key]

    # ── judging ─────────────────────────────────────────────────────────────────────────────

    async def judge(self, job: Job) -> Outcome:
        """Work: find out what can be committed."""
        number = int(job.payload["id"])
        found = await in_thread(self._commitments.load, number)
        if found is None or found.result is not None:
            return done()
        try:
            result = await in_thread(
                judge,
                self._database,
                self._blobs,
                found.action,
                owners=_owners(found.asked.owner_id),
                level=Level(self._settings.verify),
                supports=self._supports(found.asked.called_ae),
                max_references=self._settings.max_references,
                is_over=lambda: self._closing,
            )
        except HilumError as error:
            if job.attempt < job.max_attempts:
                raise
            log.error("commitment %d fails as a whole: %s", number, error)
            result = failed_as_a_whole(found.action, FailureReason.PROCESSING_FAILURE)
        packed = await in_thread(pack_result, result)
        failed = len(result.failed)
        log.info(
            "commitment %d: %d instances committed, %d not", number, len(result.committed), failed
        )
        return done(also=lambda c: self._commitments.judged(c, number, packed, failed))

    def _supports(self, called_ae: str) -> Callable[[str], bool]:
        title = self._snapshot().resolve(called_ae)
        if title is not None and title.sop_classes:
            return frozenset(title.sop_classes).__contains__
        return may_store

    # ── delivery ────────────────────────────────────────────────────────────────────────────

    async def deliver(self, job: Job) -> Outcome:
        """Work: report a result by the first way that works."""
        number = int(job.payload["id"])
        found = await in_thread(self._commitments.load, number)
        if found is None or found.result is None or found.state is not CommitmentState.JUDGED:
            return done()
        delivery = self._delivery(found.asked)
        causes: dict[Way, str] = {}
        for way in self._in_order(delivery, found, tried=job.attempt > 1):
            cause = await self._try(way, delivery, found)
            if cause is None:
                # Before the work is done: what is recorded here is never repeated.
                kept = await in_thread(self._commitments.delivered, found, way)
                log.info("commitment %d: result delivered (%s)", number, way)
                return done() if kept else later(0.0, "asked for again")
            causes[way] = cause
        return self._again(found, delivery, causes)

    def _in_order(self, delivery: Delivery, found: Commitment, *, tried: bool) -> Iterable[Way]:
        """The ways in their order; who is here now is told now, where calling failed before."""
        ways = list(delivery.ways)
        if tried and Way.NEXT in ways and self._next(found) is not None:
            ways.remove(Way.NEXT)
            ways.insert(0, Way.NEXT)
        return ways

    def _again(self, found: Commitment, delivery: Delivery, causes: Mapping[Way, str]) -> Outcome:
        """It could not be delivered now: when to try again, or that it is in vain."""
        settings = self._settings
        cause = "; ".join(f"{way}: {why}" for way, why in causes.items())
        age = time.time() - found.asked_at / 1e6
        if age >= settings.retry_for or delivery.ways == (Way.SAME,):
            return dead(cause, also=lambda c: self._commitments.given_up(c, found, cause))
        wait = min(settings.retry_most, max(settings.retry_least, age))
        wait = min(wait, settings.retry_for - age + 1.0)
        # Who comes is told at once; nothing has failed until then.
        return retry(cause, wait) if Way.NEW in causes else later(wait, cause)

    def _delivery(self, asked: Asked) -> Delivery:
        """As the peer says, else the called title, else the settings."""
        snapshot = self._snapshot()
        peer = _peer(snapshot, asked)
        title = snapshot.resolve(asked.called_ae)
        return Delivery.parse(
            (peer.commitment if peer else "")
            or (title.commitment if title else "")
            or self._settings.delivery
        )

    async def _try(self, way: Way, delivery: Delivery, found: Commitment) -> str | None:
        """Report by one way; returns why that did not work, None when it did."""
        try:
            if way is Way.NEW:
                return await self._new(found)
            if way is Way.SAME:
                association = self._same(delivery, found)
                if association is None:
                    return "the association of the request has ended"
            else:
                found_next = self._next(found)
                if found_next is None:
                    return "it has not come again"
                association = found_next
            return await self._report(association, found)
        except HilumError as error:
            return str(error)

    def _same(self, delivery: Delivery, found: Commitment) -> Association | None:
        asking = self._asking.get(_key(found))
        if asking is None or not asking.association.is_established:
            return None
        late = asyncio.get_running_loop().time() - asking.at > delivery.same_within
        return None if late else asking.association

    def _next(self, found: Commitment) -> Association | None:
        """The latest association of that caller, other than the request's own.

        A calling AE title is no authentication: what a peer asked for is told to that peer only.
        """
        asked = found.asked
        asking = self._asking.get(_key(found))
        own = asking.association if asking is not None else None
        for association, caller in reversed(self._begun.items()):
            if (
                association is not own
                and association.is_established
                and (caller.calling_ae, caller.owner_id) == (asked.calling_ae, asked.owner_id)
                and asked.peer in ("", caller.peer)
            ):
                return association
        return None

    async def _new(self, found: Commitment) -> str | None:
        """Report over an association that we open, as SCP."""
        asked = found.asked
        known = _callable(self._snapshot(), asked)
        if known is None:
            return f"where {asked.calling_ae!a} listens is not known; say so with 'hilum peer add'"
        peer, address = known
        loop = asyncio.get_running_loop()
        if self._away.get(address, 0.0) > loop.time():
            return f"{address[0]}:{address[1]} did not answer a moment ago"
        try:
            association = await connect(
                *address,
                called=peer.ae_title,
                calling=peer.calling_ae or asked.called_ae,
                contexts=COMMITMENT_CONTEXTS,
                roles=(REPORTING_ROLE,),
                timeouts=self._config.timeouts,
                limits=self._config.limits,
                tls=client_tls(peer, self._config.tls),
                server_hostname=server_name(peer),
            )
        except HilumError:
            self._away[address] = loop.time() + self._settings.retry_least
            raise
        was_away = self._away.pop(address, None) is not None
        async with association:
            cause = await self._report(association, found)
        if was_away and cause is None:
            await self._all_for(asked)
        return cause

    async def _all_for(self, asked: Asked) -> None:
        """Who was away is back: what waits for him need not wait longer."""
        waiting = await in_thread(
            self._commitments.waiting_for, asked.calling_ae, asked.owner_id, asked.peer
        )
        if waiting:
            await in_thread(self._commitments.wake, waiting)
            self._wake()

    async def _report(self, association: Association, found: Commitment) -> str | None:
        """Send N-EVENT-REPORT; returns what the peer has against it, None when it has it.

        Standard: PS3.4 J.3.3.
        """
        result = found.result
        assert result is not None
        context = association.context_for(STORAGE_COMMITMENT_PUSH_MODEL)
        if len(found.action.references) > MANY:
            data = await in_thread(encode_result, result, context.transfer_syntax)
        else:
            data = encode_result(result, context.transfer_syntax)
        response = await association.n_event_report(
            data,
            sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            event_type_id=result.event_type_id,
            transfer_syntax_uid=context.transfer_syntax,
        )
        if category(response.status) in (Category.SUCCESS, Category.WARNING):
            return None
        return f"the report was answered with {response.status:04X}H"


def _is_for_results(association: Association) -> bool:
    """Whether the service was negotiated with us as its provider."""
    return any(
        context.abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL and context.scp
        for context in association.contexts.values()
    )


def _owners(owner_id: int) -> tuple[int, ...]:
    """Whose instances an owner's titles answer for: his own, then everyone's.

    What is in quarantine is kept from everybody until a person has looked at it.
    """
    if owner_id < 0:
        return ()
    return (owner_id, 0) if owner_id else (0,)


def _key(found: Commitment) -> _Key:
    asked = found.asked
    return asked.owner_id, asked.calling_ae, found.action.transaction_uid, found.digest


def _peer(snapshot: Snapshot, asked: Asked) -> Peer | None:
    """The peer that asked, as it is now."""
    return next((peer for peer in snapshot.peers if peer.name == asked.peer), None)


def _callable(snapshot: Snapshot, asked: Asked) -> tuple[Peer, tuple[str, int]] | None:
    """Where to report to: the peer that asked, else one with its AE title, and its address."""
    titled = [peer for peer in snapshot.peers if peer.ae_title == asked.calling_ae]
    titled.sort(key=lambda peer: peer.name != asked.peer)
    found = ((peer, address_of(peer)) for peer in titled)
    return next(((peer, address) for peer, address in found if address is not None), None)


def _check(request: Request) -> None:
    command = request.command
    if command.requested_sop_class_uid != STORAGE_COMMITMENT_PUSH_MODEL:
        raise Refused(Status.NO_SUCH_SOP_CLASS, "storage commitment only")
    if request.context.abstract_syntax != STORAGE_COMMITMENT_PUSH_MODEL:
        raise Refused(Status.NO_SUCH_SOP_CLASS, "not in this presentation context")
    if command.requested_sop_instance_uid != STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE:
        raise Refused(Status.NO_SUCH_SOP_INSTANCE, "not the well-known instance")
    if command.action_type_id != REQUEST_COMMITMENT:
        raise Refused(_NO_SUCH_ACTION, f"no action type {command.action_type_id}")
    if request.data is None:
        raise Refused(_NO_SUCH_ARGUMENT, "action information is missing")


def _read(request: Request) -> Action:
    assert request.data is not None
    try:
        action = parse_action(request.data, request.context.transfer_syntax)
        _ = action.digest  # sorted and hashed here, in this thread
    except LimitExceeded as error:
        raise Refused(Status.RESOURCE_LIMITATION, str(error)) from error
    except InvalidDicom as error:
        raise Refused(_INVALID_ARGUMENT, str(error)) from error
    return action
