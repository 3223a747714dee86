"""The peer's requests: C-STOREs into their sinks, everything else to its handler.

C-STOREs are served one after another, and so are other requests, unless an asynchronous operations
window was granted. What comes before its time behind a C-STORE waits unread; what comes while
another request is served is read, so that our own responses behind it are.

Standard: PS3.7 7.5.1, 9.1, 9.3, 10.1, annex C.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from hilum.errors import AssociationError, Refused
from hilum.net.receiving import (
    REQUEST_WAITS,
    DataSink,
    Gathered,
    Held,
    PassedOver,
    when_done,
)
from hilum.net.service import (
    PENDING,
    Outcome,
    Reply,
    Request,
    StoreSink,
)
from hilum.services.status import Status
from hilum.wire.command import Command, CommandField
from hilum.wire.connection import CommandReceived
from hilum.wire.fsm import State

if TYPE_CHECKING:
    from hilum.net.association import Association

__all__ = ["Serving"]

log = logging.getLogger("hilum.net")

# A peer without a window may not ask again before we have answered; one that does is served later,
# up to so many requests and one data set's worth of bytes, so that what lies behind them (its
# answers to us) is still read.
MAX_EARLY = 16

_QUERY = (CommandField.C_FIND_RQ, CommandField.C_GET_RQ, CommandField.C_MOVE_RQ)
_SUCCESS = Outcome(Status.SUCCESS)
_INTERNAL = Outcome(Status.OUT_OF_RESOURCES, "internal error")


class _Store:
    """A C-STORE request in progress."""

    __slots__ = ("command", "context_id", "serving", "sink")

    def __init__(self, serving: Serving, event: CommandReceived, sink: StoreSink) -> None:
        self.serving = serving
        self.context_id, self.command = event
        self.sink: StoreSink | DataSink = sink

    def failed(self, error: Exception) -> None:
        """What is still to come of its data set is passed over, and the answer is no success."""
        self.serving.store_failed(self, error)

    def ended(self) -> None:
        """The data set is whole."""
        self.serving.commit(self)


class Serving:
    """What is being done for the peer, at most ``window`` operations of a kind at once."""

    def __init__(self, owner: Association) -> None:
        self._owner = owner
        self.window = 1
        #: C-STORE requests begun so far.
        self.stores = 0
        self.finishing = False
        #: While finishing: the request whose first bytes had come is served.
        self.one_more = False
        self._stores: set[_Store] = set()
        self._handled: dict[int, Request] = {}
        self._early: list[Request] = []
        self._early_bytes = 0
        self._waiting: CommandReceived | None = None
        self._passing = 0
        self._ending = 0
        self._tasks: dict[Request, asyncio.Task[None]] = {}

    @property
    def is_storing(self) -> bool:
        """Whether a C-STORE is being received or answered."""
        return bool(self._stores)

    @property
    def is_busy(self) -> bool:
        """Whether anything is being done or waits to be."""
        return bool(self._stores or self._handled or self._passing or self._ending or self._early)

    # ── requests ────────────────────────────────────────────────────────────────────────────

    def received(self, event: CommandReceived) -> None:
        """A request has come."""
        if self._must_wait(event):
            self._waiting = event
            self._owner.receiving.block(REQUEST_WAITS)
        else:
            self._begin(event)

    def _must_wait(self, event: CommandReceived) -> bool:
        """Whether this request's turn has not come.

        Answers that wait for our own message, or for a peer that does not read them, are a reason
        too: without it a peer could ask for ever and make us keep the answers. While a message of
        ours is being sent a full transport is no sign of that.
        """
        sending = self._owner.sending
        if self.finishing and not self.one_more:
            return True
        if sending.deferred or (self._owner.link.is_full and not sending.busy):
            return True
        if len(self._stores) >= self.window:
            return True
        return (
            len(self._early) >= MAX_EARLY
            or self._early_bytes >= self._owner.limits.max_data_set_in_memory
        )

    def go_on(self) -> None:
        """Something has been done: end, where that was asked for, or do what waits."""
        owner = self._owner
        if owner.is_over:
            return
        if self.finishing and not self.one_more:
            in_progress = self._stores or self._handled or self._passing or self._ending
            if not in_progress and not owner.sending.is_busy:
                owner.abort(2, 0)
            return
        while self._early and len(self._handled) < self.window:
            request = self._early.pop(0)
            self._early_bytes -= len(request.data or b"")
            self._start(request)
        waiting = self._waiting
        if waiting is not None and not self._must_wait(waiting):
            self._waiting = None
            self._begin(waiting)
            owner.receiving.unblock(REQUEST_WAITS)

    def _begin(self, event: CommandReceived) -> None:
        self.one_more = False
        command = event.command
        field = command.command_field
        if field == CommandField.C_STORE_RQ:
            if command.has_data_set:
                self._open_store(event)
            else:
                self._answer(event, Outcome(0xC000, "C-STORE-RQ without a data set"))
            return
        accept = self._owner.accept
        if accept is not None and field in accept.handlers:
            if command.has_data_set:
                limits, held = self._owner.limits, Held()
                self._owner.receiving.message = Gathered(
                    limits.max_data_set_in_memory,
                    partial(self._whole, event, held),
                    held=held,
                    most_held=limits.max_requests_in_memory,
                )
            else:
                self._queue(event, None, None)
        elif field == CommandField.C_ECHO_RQ:
            self._refuse(event, _SUCCESS)
        else:
            self._refuse(event, Outcome(Status.UNRECOGNIZED_OPERATION, "unrecognized operation"))

    def _refuse(self, event: CommandReceived, outcome: Outcome) -> None:
        """Answer at once, or behind a data set that nobody wants."""
        if event.command.has_data_set:
            self._passing += 1
            self._owner.receiving.message = PassedOver(partial(self._passed, event, outcome))
        else:
            self._answer(event, outcome)

    def _passed(self, event: CommandReceived, outcome: Outcome) -> None:
        self._passing -= 1
        self._answer(event, outcome)

    def _answer(self, event: CommandReceived | _Store, outcome: Outcome) -> None:
        comment = outcome.error_comment
        response = event.command.response(
            outcome.status,
            error_comment=comment[:64] if comment else None,
            offending_element=outcome.offending_element,
        )
        self._owner.sending.say(event.context_id, response)
        self.go_on()

    # ── C-STORE ─────────────────────────────────────────────────────────────────────────────

    def _open_store(self, event: CommandReceived) -> None:
        """Begin a C-STORE, where we play the provider of its storage class.

        As requestor we do so only where role selection granted it, and then at any time until we
        ask for release: what comes after that could not be answered (PS3.7 D.3.3.4, PS3.8 7.2).
        """
        owner = self._owner
        context = owner.contexts[event.context_id]
        command = event.command
        opened: StoreSink | Outcome
        if owner.connection.requestor and owner.connection.state is not State.Sta6:
            opened = Outcome(Status.RESOURCE_LIMITATION, "release was requested")
        elif owner.accept is None or owner.accept.open_store is None:
            opened = Outcome(Status.SOP_CLASS_NOT_SUPPORTED, "storage is not served here")
        elif command.affected_sop_class_uid != context.abstract_syntax:
            opened = Outcome(
                Status.SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of its presentation context"
            )
        elif not context.scp:
            opened = Outcome(Status.SOP_CLASS_NOT_SUPPORTED, "SCP role was not negotiated")
        else:
            try:
                opened = owner.accept.open_store(command, context, owner)
            except Exception:
                log.exception("association %d: open_store failed", owner.number)
                opened = _INTERNAL
        if isinstance(opened, Outcome):
            self._refuse(event, opened)
            return
        self.stores += 1
        store = _Store(self, event, opened)
        self._stores.add(store)
        owner.receiving.message = store

    def store_failed(self, store: _Store, error: Exception) -> None:
        """Its sink raised; the rest of the data set is passed over."""
        self._log_failure(error)
        self._abort_sink(store, error)
        store.sink = PassedOver(lambda: None)

    def commit(self, store: _Store) -> None:
        """The data set is whole: make it durable, and answer then."""
        sink = store.sink
        if isinstance(sink, PassedOver):
            self._stores.discard(store)
            self._answer(store, _INTERNAL)
        else:
            when_done(cast(StoreSink, sink).commit, partial(self._committed, store))

    def _committed(self, store: _Store, done: asyncio.Future[object]) -> None:
        owner = self._owner
        if done.cancelled():
            outcome = Outcome(Status.OUT_OF_RESOURCES, "cancelled")
        elif isinstance(error := done.exception(), AssociationError):
            self._stores.discard(store)
            owner.end(error)
            return
        elif error is not None:
            self._log_failure(error)
            outcome = _INTERNAL
            if not owner.is_over:
                self._abort_sink(store, error)
        else:
            outcome = cast(Outcome, done.result())
        self._stores.discard(store)
        if not owner.is_over:
            self._answer(store, outcome)

    def _log_failure(self, error: BaseException) -> None:
        log.error("association %d: storing failed: %s", self._owner.number, error, exc_info=error)

    def _abort_sink(self, store: _Store, cause: BaseException) -> None:
        if isinstance(store.sink, PassedOver):
            return
        try:
            cast(StoreSink, store.sink).abort(cause)
        except Exception:
            log.exception("association %d: a sink could not be aborted", self._owner.number)

    # ── everything else ─────────────────────────────────────────────────────────────────────

    def _whole(self, event: CommandReceived, held: Held, data: bytes | None) -> None:
        limits = self._owner.limits
        if data is None:
            comment = f"data set over {limits.max_data_set_in_memory} bytes"
            if held.full:
                most = limits.max_requests_in_memory
                comment = f"requests take {most} bytes already; ask again later"
            self._answer(event, Outcome(Status.RESOURCE_LIMITATION, comment))
        else:
            self._queue(event, data, held)

    def _queue(self, event: CommandReceived, data: bytes | None, held: Held | None) -> None:
        owner = self._owner
        number = event.command.message_id
        if self._request(number) is not None:
            comment = f"message ID {number} is in use"
            self._answer(event, Outcome(Status.DUPLICATE_INVOCATION, comment))
            return
        request = Request(owner, owner.contexts[event.context_id], event.command, data, held)
        if len(self._handled) >= self.window:
            self._early.append(request)
            self._early_bytes += len(data or b"")
        else:
            self._start(request)

    def _request(self, number: int) -> Request | None:
        return self._handled.get(number) or next(
            (request for request in self._early if request.command.message_id == number), None
        )

    def _start(self, request: Request) -> None:
        owner = self._owner
        command = request.command
        self._handled[command.message_id] = request
        assert owner.accept is not None
        try:
            result = owner.accept.handlers[CommandField(command.command_field)](request)
        except Exception as error:
            self._finished(request, self._failure(request, error))
            return
        serve = (
            self._pages(request, result)
            if isinstance(result, AsyncIterator)
            else self._single(request, result)
        )
        task = asyncio.ensure_future(serve)
        task.set_name(f"{command.name} of association {owner.number}")
        self._tasks[request] = task
        task.add_done_callback(lambda _: self._tasks.pop(request, None))

    def _failure(self, request: Request, error: BaseException) -> Reply:
        if isinstance(error, Refused):
            comment, tags = error.error_comment, error.offending_element
            return Reply(
                error.status, error.data, {"error_comment": comment, "offending_element": tags}
            )
        log.error(
            "association %d: %s failed: %s",
            self._owner.number,
            request.command.name,
            error,
            exc_info=error,
        )
        of_query = request.command.command_field in _QUERY
        status = Status.CANNOT_UNDERSTAND if of_query else Status.PROCESSING_FAILURE
        return Reply(status, elements={"error_comment": "internal error"})

    async def _single(self, request: Request, result: Awaitable[Reply]) -> None:
        try:
            reply = await result
        except asyncio.CancelledError:
            if self._owner.is_over or ((task := asyncio.current_task()) and task.cancelling()):
                raise
            reply = Reply(Status.PROCESSING_FAILURE, elements={"error_comment": "cancelled"})
        except Exception as error:
            reply = self._failure(request, error)
        self._finished(request, reply)

    def _finished(self, request: Request, reply: Reply) -> None:
        """Send the only response."""
        self._handled.pop(request.command.message_id, None)
        self._owner.sending.say(request.context.context_id, *self._message(request, reply))
        self.go_on()

    async def _pages(self, request: Request, pages: AsyncIterator[Sequence[Reply]]) -> None:
        final: Reply | None = None
        last: list[Reply] = []
        try:
            try:
                async for page in pages:
                    last, final = _split(page)
                    if final is not None:
                        break
                    if request.is_cancelled:
                        last.clear()
                        final = Reply(Status.CANCEL)
                        break
                    await self._send(request, last)
                    last = []
            finally:
                if (close := getattr(pages, "aclose", None)) is not None:
                    await close()
        except Exception as error:
            if self._owner.is_over:
                return
            last.clear()
            final = self._failure(request, error)
        if final is None:
            final = Reply(Status.CANCEL if request.is_cancelled else Status.SUCCESS)
        # First, so that the peer may use the Message ID again as soon as it hears.
        self._handled.pop(request.command.message_id, None)
        self._ending += 1
        try:
            await self._send(request, [*last, final])
        except AssociationError:
            return
        finally:
            self._ending -= 1
        self.go_on()

    async def _send(self, request: Request, page: Sequence[Reply]) -> None:
        if not page:
            return
        messages: list[tuple[Command, bytes | None]] = []
        alike: Reply | None = None
        for reply in page:
            # Nearly all of a page of matches: the same command set with another data set.
            if (
                alike is not None
                and reply.status == alike.status
                and reply.elements is alike.elements
                and (reply.data is None) is (alike.data is None)
            ):
                messages.append((messages[-1][0], reply.data))
            else:
                messages.append(self._message(request, reply))
            alike = reply
        await self._owner.sending.send_page(request.context.context_id, messages)

    def _message(self, request: Request, reply: Reply) -> tuple[Command, bytes | None]:
        elements = dict(reply.elements)
        if comment := elements.get("error_comment"):
            elements["error_comment"] = comment[:64]
        command = request.command
        if reply.data is not None:
            # With a reply goes what it is the reply to (PS3.7 Tables 10.1-1, 10.1-4).
            for name in ("event_type_id", "action_type_id"):
                if name in command:
                    elements.setdefault(name, command.get(name))
        response = command.response(reply.status, has_data_set=reply.data is not None, **elements)
        return response, reply.data

    def cancel(self, command: Command) -> None:
        """C-CANCEL-RQ has come; for a request that is not being served it means nothing."""
        request = self._request(command.message_id_being_responded_to)
        if request is not None:
            request.cancel()

    # ── the end ─────────────────────────────────────────────────────────────────────────────

    def stop(self, cause: BaseException) -> None:
        """The association is over: sinks are aborted, responses that nobody can get are ended.

        What gives a single response is left to finish: it may be about to note what happened.
        """
        for store in tuple(self._stores):
            self._abort_sink(store, cause)
        self._stores.clear()
        self._early.clear()
        self._waiting = None
        for request in tuple(self._handled.values()):
            request.cancel()
            task = self._tasks.get(request)
            if task is not None and request.command.command_field in _QUERY:
                task.cancel()


def _split(page: Sequence[Reply]) -> tuple[list[Reply], Reply | None]:
    """The pending replies of a page, and the final one if it is there."""
    for index, reply in enumerate(page):
        if reply.status not in PENDING:
            return list(page[:index]), reply
    return list(page), None
