"""Storage Commitment as user: ask a peer to take responsibility, and hear what it took.

::

    async with Commitments() as commitments:
        await commitments.listen("0.0.0.0", 11113)
        result = await commitments.commit_files("pacs", 104, files, called="PACS", wait=600)

The result may come over the association of the request, before or after the response to it; over a
new association that the peer opens to a listener of ours, in which it plays the SCP; or at the
start of the next association that we open. All three end in the same place.

Standard: PS3.4 Annex J.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import ssl
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hilum.errors import HilumError, InvalidDicom, LimitExceeded, Refused
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.server import Server, serve
from hilum.net.service import (
    Accept,
    Handler,
    Peer,
    Reject,
    Reply,
    Request,
    service_policy,
    storage_policy,
)
from hilum.net.sources import FileSource
from hilum.services.commitment import (
    REQUEST_COMMITMENT,
    TRANSFER_SYNTAXES,
    Action,
    Reference,
    Result,
    encode_action,
    parse_result,
)
from hilum.services.sop_classes import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
)
from hilum.services.status import Category, Status, category
from hilum.wire.command import CommandField
from hilum.wire.items import RoleSelection
from hilum.wire.pdu import AssociateRQ

__all__ = [
    "COMMITMENT_CONTEXTS",
    "REPORTING_ROLE",
    "Commitments",
    "Destination",
    "OnResult",
    "read_report",
    "references_of",
    "request_commitment",
    "transaction_uid",
]

log = logging.getLogger("hilum.net")

COMMITMENT_CONTEXTS = ((STORAGE_COMMITMENT_PUSH_MODEL, TRANSFER_SYNTAXES[:2]),)
"""What to propose: Explicit and Implicit VR Little Endian, of which the peer takes one."""

REPORTING_ROLE = RoleSelection(STORAGE_COMMITMENT_PUSH_MODEL, False, True)
"""What the SCP proposes when it opens an association to report (PS3.4 J.3.3.1.2)."""

STAY = 10.0
"""Seconds that the association of a request is kept open for its result where one is waited for."""

ASK_AGAIN = (5.0, 60.0)
"""Seconds before we open an association for a peer that delivers on our next one only: the first
wait, doubled each time, and the longest. Such an association is open for as long as `LISTEN` says.
"""

LISTEN = 2.0

MAX_UNCLAIMED = 1000
"""Results kept that nobody waits for (yet): one may come before the response to its request."""

MAX_UNCLAIMED_REFERENCES = 100_000
"""Instances in them all, the last one apart: some 30 MB."""

MAX_ASKED = 100_000
"""Transactions of ours that are known while no ``on_result`` keeps them, the latest ones."""

LARGE = 1 << 16
"""Bytes of a report over which it is read in a thread: some milliseconds of work."""

OnResult = Callable[[Result], Awaitable[bool | None] | bool | None]
"""Told of every result. False: unknown here, and the peer is told so; an exception: the peer is
told that it could not be processed, and may report again."""


def transaction_uid() -> str:
    """A new Transaction UID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def references_of(files: Iterable[str | os.PathLike[str]]) -> list[Reference]:
    """The SOP class and instance of DICOM files, each once; blocks on the disk.

    Raises:
        InvalidDicom: one is no DICOM file.
        OSError: one cannot be read.
    """
    found: dict[Reference, None] = {}
    for file in files:
        head = FileSource.open(file).head
        found[Reference(head.sop_class_uid, head.sop_instance_uid)] = None
    return list(found)


async def request_commitment(
    association: Association, action: Action, *, timeout: float | None = None
) -> None:
    """Ask over an association that has one of `COMMITMENT_CONTEXTS`.

    Standard: PS3.4 J.3.2.

    Args:
        association: established, with a handler for N-EVENT-REPORT: the result may come over it.
        action: what is asked for.
        timeout: seconds to wait for the response; None takes ``Timeouts.dimse``.

    Raises:
        Refused: the peer did not take the request; no result will come.
        NoPresentationContext: the service was not accepted; the association is usable.
        AssociationError: it ended; whether the peer has the request is unknown.
    """
    context = association.context_for(STORAGE_COMMITMENT_PUSH_MODEL)
    data = await asyncio.to_thread(encode_action, action, context.transfer_syntax)
    response = await association.n_action(
        data,
        sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        action_type_id=REQUEST_COMMITMENT,
        transfer_syntax_uid=context.transfer_syntax,
        timeout=timeout,
    )
    if category(response.status) not in (Category.SUCCESS, Category.WARNING):
        raise Refused(response.status, response.command.get("error_comment"))


async def read_report(request: Request) -> Result:
    """The result that an N-EVENT-REPORT brings.

    Raises:
        Refused: it is no report of a commitment; answered so when a handler lets it pass.
    """
    command = request.command
    if command.affected_sop_class_uid != STORAGE_COMMITMENT_PUSH_MODEL:
        raise Refused(Status.NO_SUCH_SOP_CLASS, "storage commitment only")
    if command.event_type_id not in (1, 2):
        raise Refused(0x0113, f"no event type {command.event_type_id}")
    data, syntax = request.data, request.context.transfer_syntax
    if data is None:
        raise Refused(0x0114, "event information is missing")
    try:
        if len(data) > LARGE:
            return await asyncio.to_thread(parse_result, data, syntax)
        return parse_result(data, syntax)
    except LimitExceeded as error:
        raise Refused(Status.RESOURCE_LIMITATION, str(error)) from error
    except InvalidDicom as error:
        raise Refused(0x0115, str(error)) from error


@dataclass(frozen=True, slots=True)
class Destination:
    """Whom to ask.

    Args:
        host: name or address.
        port: TCP port.
        called: its AE title.
        calling: ours, by which it knows where to report to.
        tls: a context of ``net.tls``; None is plain TCP.
        server_hostname: see ``connect``.
        timeouts: deadlines, seconds.
        limits: sizes.
    """

    host: str
    port: int
    called: str = "ANY-SCP"
    calling: str = "HILUM"
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)

    async def open(self, handlers: Mapping[CommandField, Handler]) -> Association:
        """An association with the service; see ``net.connect`` for what is raised."""
        return await connect(
            self.host,
            self.port,
            called=self.called,
            calling=self.calling,
            contexts=COMMITMENT_CONTEXTS,
            tls=self.tls,
            server_hostname=self.server_hostname,
            timeouts=self.timeouts,
            limits=self.limits,
            handlers=handlers,
        )


def _references(result: Result) -> int:
    return len(result.committed) + len(result.failed)


class Commitments:
    """Requests of ours and their results, however they come. Used on one event loop.

    Args:
        on_result: told of every result before the peer gets its response: what it has recorded
            durably then is not reported again. None: what was asked for here is kept for `result`,
            and of other results the peer is told that they are unknown, so that it keeps them.
    """

    def __init__(self, on_result: OnResult | None = None) -> None:
        self._on_result = on_result
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Result]] = {}
        self._unclaimed: OrderedDict[str, Result] = OrderedDict()
        self._servers: list[Server] = []
        #: What to give `connect` and `Accept` so that results are heard over an association.
        self.handlers: Mapping[CommandField, Handler] = {
            CommandField.N_EVENT_REPORT_RQ: self.handle
        }

    # ── hearing ─────────────────────────────────────────────────────────────────────────────

    async def handle(self, request: Request) -> Reply:
        """Serve an N-EVENT-REPORT request.

        Standard: PS3.4 J.3.3.2: the SCU answers that it has the result.
        """
        result = await read_report(request)
        if self._on_result is not None:
            known = self._on_result(result)
            if inspect.isawaitable(known):
                known = await known
        else:
            known = result.transaction_uid in self._asked
        if known is False:
            raise Refused(0x0115, "unknown transaction UID")
        self.heard(result)
        return Reply(Status.SUCCESS)

    def heard(self, result: Result) -> None:
        """A result has come, by whatever way: who waits for it has it."""
        uid = result.transaction_uid
        waiting = self._waiting.get(uid)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(result)
            return
        self._unclaimed.setdefault(uid, result)
        references = sum(map(_references, self._unclaimed.values()))
        while len(self._unclaimed) > MAX_UNCLAIMED or (
            references > MAX_UNCLAIMED_REFERENCES and len(self._unclaimed) > 1
        ):
            _, oldest = self._unclaimed.popitem(last=False)
            references -= _references(oldest)

    def _note(self, uid: str) -> None:
        """A transaction of ours, whose result is known when it comes."""
        self._asked[uid] = None
        while len(self._asked) > MAX_ASKED:
            self._asked.popitem(last=False)

    async def result(self, uid: str, *, timeout: float | None = None) -> Result:
        """The result of a transaction, once it has come.

        Args:
            uid: its Transaction UID.
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: none has come; it may still.

        Cancellation: nothing is lost.
        """
        self._note(uid)
        early = self._unclaimed.pop(uid, None)
        if early is not None:
            return early
        future = self._waiting.setdefault(uid, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(future)
        except BaseException:
            if future.done():  # it came at the last moment
                self._unclaimed.setdefault(uid, future.result())
            raise
        finally:
            if self._waiting.get(uid) is future:
                del self._waiting[uid]

    async def listen(
        self,
        host: str | None,
        port: int,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Server:
        """Hear results over associations that peers open to us; see ``net.serve``.

        Any called AE title is accepted: what comes is known by its Transaction UID.
        """
        server = await serve(host, port, self.authorise, timeouts=timeouts, limits=limits, tls=tls)
        self._servers.append(server)
        return server

    def authorise(self, rq: AssociateRQ, peer: Peer) -> Accept | Reject:
        """Let an association in for C-ECHO and reports, with the roles reversed or not said."""
        return Accept(
            policy=service_policy(
                (STORAGE_COMMITMENT_PUSH_MODEL,),
                transfer_syntaxes=TRANSFER_SYNTAXES,
                otherwise=storage_policy(None, frozenset()),
            ),
            roles={STORAGE_COMMITMENT_PUSH_MODEL: (True, True)},
            handlers=self.handlers,
        )

    async def close(self) -> None:
        """Listen no longer."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.close()

    async def __aenter__(self) -> Commitments:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ── asking ──────────────────────────────────────────────────────────────────────────────

    async def commit_files(
        self,
        to: Destination,
        files: Iterable[str | os.PathLike[str]],
        *,
        uid: str | None = None,
        stay: float = 0.0,
    ) -> str:
        """Ask a peer to commit the instances in DICOM files, which were stored there before.

        Raises:
            InvalidDicom, OSError: a file cannot be read; nothing was sent.
            HilumError: see `commit_instances`.
        """
        references = await asyncio.to_thread(references_of, list(files))
        return await self.commit_instances(to, references, uid=uid, stay=stay)

    async def commit_instances(
        self,
        to: Destination,
        references: Iterable[Reference],
        *,
        uid: str | None = None,
        stay: float = 0.0,
        taken: Callable[[], Awaitable[object]] | None = None,
    ) -> str:
        """Ask a peer to commit instances, which were stored there before.

        Args:
            to: the peer.
            references: what is asked for.
            uid: the Transaction UID; None makes one.
            stay: seconds for which the association is kept open for the result.
            taken: called as soon as the peer has taken the request.

        Returns:
            The Transaction UID, for `result`.

        Raises:
            Refused: the peer did not take the request.
            NoPresentationContext: it does not serve commitment.
            AssociationError: no association, or it ended before the response: the request may or
                may not have been taken, and the same one can be sent again under the same UID.
        """
        action = Action(uid or transaction_uid(), tuple(dict.fromkeys(references)))
        if not action.references:
            raise InvalidDicom("a request for commitment needs at least one instance")
        self._note(action.transaction_uid)
        async with await to.open(self.handlers) as association:
            await request_commitment(association, action)
            if taken is not None:
                await taken()
            if stay:
                await self._stay(association, action.transaction_uid, stay)
        return action.transaction_uid

    async def _stay(self, association: Association, uid: str, seconds: float) -> None:
        """Keep an association open until the result has come, it ends, or time is up."""
        closed = asyncio.ensure_future(association.wait_closed())
        result = asyncio.ensure_future(self.result(uid))
        try:
            await asyncio.wait(
                (closed, result), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if result.done() and not result.cancelled():
                self.heard(result.result())
        finally:
            for task in (closed, result):
                task.cancel()
            await asyncio.gather(closed, result, return_exceptions=True)

    async def commit_files_and_wait(
        self,
        to: Destination,
        files: Iterable[str | os.PathLike[str]],
        *,
        wait: float,
        uid: str | None = None,
    ) -> Result:
        """`commit_files`, and its result by whatever way it comes; see `wait_for`."""
        references = await asyncio.to_thread(references_of, list(files))
        return await self.commit_instances_and_wait(to, references, wait=wait, uid=uid)

    async def commit_instances_and_wait(
        self,
        to: Destination,
        references: Iterable[Reference],
        *,
        wait: float,
        uid: str | None = None,
    ) -> Result:
        """`commit_instances`, and its result by whatever way it comes; see `wait_for`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        uid = await self.commit_instances(to, references, uid=uid, stay=min(STAY, wait))
        return await self.wait_for(to, uid, wait=max(0.0, until - loop.time()))

    async def wait_for(self, to: Destination, uid: str, *, wait: float) -> Result:
        """The result of a transaction; asks to be told, now and then, by opening associations.

        Args:
            to: the peer that was asked.
            uid: the Transaction UID.
            wait: seconds.

        Raises:
            TimeoutError: none has come; it may still.
        """
        collecting = asyncio.ensure_future(self._collect_again(to))
        try:
            return await self.result(uid, timeout=wait)
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)

    async def _collect_again(self, to: Destination) -> None:
        wait, longest = ASK_AGAIN
        while True:
            await asyncio.sleep(wait)
            wait = min(2 * wait, longest)
            try:
                await self.collect(to)
            except HilumError as error:
                log.info("no association for results of %s: %s", to.called, error)

    async def collect(self, to: Destination, *, listen: float = LISTEN) -> None:
        """Open an association in which the peer may report what it has for us.

        Standard: PS3.4 J.3.3.1.2.

        Args:
            to: the peer.
            listen: seconds that it has to begin.

        Raises:
            HilumError: no association.
        """
        async with await to.open(self.handlers) as association:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(listen):
                    await association.wait_closed()
