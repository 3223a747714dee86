"""Our requests and their responses: Message IDs, the window, responses one by one and in rows.

Standard: PS3.7 7.5.1 (operations), 9.1 and 10.1; D.3.3.3 (asynchronous operations window).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hilum.errors import InvalidDicom, LimitExceeded, RemoteProtocolError
from hilum.net.receiving import RESPONSES_HELD, Gathered, PassedOver
from hilum.net.service import PENDING, Context, Part
from hilum.services.datasets import decode
from hilum.wire.command import Command, CommandField
from hilum.wire.connection import CommandReceived

if TYPE_CHECKING:
    from pydicom import Dataset

    from hilum.net.association import Association

__all__ = ["Operation", "Requests", "Response", "Responses"]

log = logging.getLogger("hilum.net")

_RESPONSE = 0x8000
_CANCELLABLE = (CommandField.C_FIND_RQ, CommandField.C_GET_RQ, CommandField.C_MOVE_RQ)


class Response(NamedTuple):
    """A response to a request of ours.

    Args:
        status: (0000,0900).
        command: the whole command set.
        data: the data set's bytes, in the context's transfer syntax, or None.
        context: the presentation context it came in.
    """

    status: int
    command: Command
    data: bytes | None = None
    context: Context | None = None

    def __repr__(self) -> str:
        """Without the data set's bytes, which a log is no place for."""
        size = "none" if self.data is None else f"<{len(self.data)} bytes>"
        return f"Response(status={self.status:04X}H, command={self.command!r}, data={size})"

    @property
    def is_pending(self) -> bool:
        """Whether another one follows."""
        return self.status in PENDING

    def dataset(self) -> Dataset:
        """The data set decoded, anew at every call.

        Raises:
            InvalidDicom: there is none, or it cannot be read.
        """
        if self.data is None or self.context is None:
            raise InvalidDicom(f"{self.command.name} without a data set")
        return decode(self.data, self.context.transfer_syntax)


class Operation:
    """A request of ours that has no final response yet."""

    __slots__ = (
        "abandoned",
        "command",
        "context",
        "deadline",
        "due",
        "error",
        "field",
        "has_pending",
        "responses",
        "stores",
        "waiter",
    )

    def __init__(self, context: Context, command: Command, field: CommandField) -> None:
        self.context = context
        self.command = command
        self.field = field
        #: Whether responses before the final one may come.
        self.has_pending = field in _CANCELLABLE
        self.responses: deque[Response] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.error: Exception | None = None
        self.abandoned = False
        self.deadline: asyncio.TimerHandle | None = None
        #: When whoever waits has waited for too long, and C-STOREs of the peer when it began to.
        self.due = 0.0
        self.stores = 0

    def wake(self) -> None:
        """Something has come for whoever waits."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Requests:
    """The requests that we send over an association, at most ``window`` of them at once."""

    def __init__(self, owner: Association) -> None:
        self._owner = owner
        #: How many may be outstanding, as negotiated.
        self.window = 1
        self.operations: dict[int, Operation] = {}
        self._numbers = itertools.cycle(range(1, 65536))
        self._taken = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._held_bytes = 0
        self._held_count = 0
        self._strays = 0
        self._letting_go = False
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = math.inf

    # ── one request ─────────────────────────────────────────────────────────────────────────

    async def ask(
        self,
        context: Context,
        field: CommandField,
        data: Iterable[Part] | AsyncIterator[Part] | None,
        timeout: float | None,
        message_id: int | None = None,
        **elements: Any,
    ) -> Response:
        """Send a request and wait for its only response.

        Raises:
            AssociationError: it ended, or no response came in time and it was aborted.

        Cancellation: half sent, the association is aborted; else the response is passed over when
        it comes, and keeps its place in the window until then.
        """
        operation = await self.begin(context, field, data, message_id, **elements)
        try:
            return await self.next(operation, timeout)
        except asyncio.CancelledError:
            self.abandon(operation)
            raise

    async def begin(
        self,
        context: Context,
        field: CommandField,
        data: Iterable[Part] | AsyncIterator[Part] | None,
        message_id: int | None = None,
        **elements: Any,
    ) -> Operation:
        """Send a request, once the window has room for it.

        Cancellation: see ``ask``.
        """
        owner = self._owner
        owner.must_be_open()
        if self._taken < self.window and not self._waiters:
            self._taken += 1
        else:
            await self._room()
        number = next(self._numbers) if message_id is None else message_id
        while number in self.operations:
            number = next(self._numbers)
        sent = False
        try:
            command = Command(field, has_data_set=data is not None, message_id=number, **elements)
            operation = self.operations[number] = Operation(context, command, field)
            await owner.sending.send(context.context_id, command, data)
            sent = True
            if owner.link.is_full:
                await owner.link.drain()
        except BaseException:
            if sent:
                self.abandon(operation)
            else:
                self.operations.pop(number, None)
                self._give_back()
            raise
        return operation

    async def next(self, operation: Operation, timeout: float | None) -> Response:
        """The operation's next response.

        Args:
            operation: of ``begin``.
            timeout: seconds to wait; None takes ``Timeouts.dimse``.

        Raises:
            AssociationError: it ended, or no response came in time and it was aborted.

        Cancellation: nothing is lost.
        """
        if not operation.responses:
            await self._wait(operation, self._owner.timeouts.dimse if timeout is None else timeout)
        if not operation.responses:
            assert operation.error is not None
            raise operation.error
        response = operation.responses.popleft()
        if operation.has_pending:
            self._taken_away(response)
        return response

    async def _wait(self, operation: Operation, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        while not operation.responses and operation.error is None:
            waiter = operation.waiter = loop.create_future()
            operation.due = loop.time() + timeout
            operation.stores = self._owner.serving.stores
            if operation.due < self._looks_at:
                self._look_at(loop, operation.due)
            try:
                await waiter
            finally:
                operation.waiter = None

    def _look_at(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        """One timer for all that wait: it goes off once in a time-out, not once in a message."""
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = when
        self._timer = loop.call_at(when, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._looks_at = None, math.inf
        waiting = [each for each in self.operations.values() if each.waiter is not None]
        # The clock of a timer may lag behind by its resolution.
        late = loop.time() + 0.001
        for operation in waiting:
            if operation.due <= late:
                self._late(operation)
        following = min((each.due for each in waiting if each.due > late), default=math.inf)
        if following < self._looks_at and not self._owner.is_over:
            self._look_at(loop, following)

    def _late(self, operation: Operation) -> None:
        """No response in time: for C-GET, C-STOREs of the peer are signs of life as well."""
        serving = self._owner.serving
        if operation.field == CommandField.C_GET_RQ and (
            serving.stores != operation.stores or serving.is_storing
        ):
            operation.wake()
        else:
            self._owner.time_out(f"no response to {operation.command.name}")

    # ── the window ──────────────────────────────────────────────────────────────────────────

    async def _room(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_back()  # the place was ours, and is nobody's otherwise
            raise

    def _give_back(self) -> None:
        while self._waiters:
            waiter = self._waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                return
        self._taken -= 1

    # ── responses ───────────────────────────────────────────────────────────────────────────

    def received(self, event: CommandReceived) -> None:
        """A response has come."""
        command = event.command
        operation = self.operations.get(command.message_id_being_responded_to)
        owner = self._owner
        if operation is None:
            self._stray(command)
            if command.has_data_set:
                owner.receiving.message = PassedOver(lambda: None)
        elif command.command_field != operation.field | _RESPONSE:
            owner.fail(
                RemoteProtocolError(f"{command.name} in answer to {operation.command.name}", 6)
            )
        elif command.has_data_set:
            owner.receiving.message = Gathered(
                owner.limits.max_data_set_in_memory,
                partial(self._deliver, operation, command, owner.contexts[event.context_id]),
                partial(self._too_long, command),
            )
        else:
            self._deliver(operation, command, operation.context, None)

    def _stray(self, command: Command) -> None:
        # Once an association: a peer that floods us would flood the log.
        level = logging.DEBUG if self._strays else logging.INFO
        self._strays += 1
        log.log(
            level,
            "association %d: %s to no request of ours",
            self._owner.number,
            "response" if command.is_response else command.name,
        )

    def _too_long(self, command: Command) -> None:
        self._owner.fail(
            LimitExceeded(
                f"{command.name}: data set over {self._owner.limits.max_data_set_in_memory} bytes",
                6,
            )
        )

    def _deliver(
        self, operation: Operation, command: Command, context: Context, data: bytes | None
    ) -> None:
        response = Response(command.status, command, data, context)
        number = command.message_id_being_responded_to
        if self.operations.get(number) is not operation:
            return  # the association has ended meanwhile
        if not (operation.has_pending and response.status in PENDING):
            del self.operations[number]
            if operation.deadline is not None:
                operation.deadline.cancel()
            self._give_back()
        elif self._letting_go and self._is_full:
            return
        if operation.abandoned:
            return
        operation.responses.append(response)
        operation.wake()
        if operation.has_pending:
            self._held_count += 1
            self._held_bytes += len(data or b"")
            if self._is_full and not self._letting_go:
                self._owner.receiving.block(RESPONSES_HELD)

    @property
    def _is_full(self) -> bool:
        limits = self._owner.limits
        return (
            self._held_count >= limits.max_responses
            or self._held_bytes >= limits.max_response_bytes
        )

    def _taken_away(self, response: Response) -> None:
        self._held_count -= 1
        self._held_bytes -= len(response.data or b"")
        limits, receiving = self._owner.limits, self._owner.receiving
        if (
            receiving.blocked & RESPONSES_HELD
            and self._held_count <= limits.max_responses // 2
            and self._held_bytes <= limits.max_response_bytes // 2
        ):
            receiving.unblock(RESPONSES_HELD)

    # ── the end of one, and of all ──────────────────────────────────────────────────────────

    def cancel(self, operation: Operation) -> None:
        """Send C-CANCEL, if the operation is still in progress."""
        command = operation.command
        if self.operations.get(command.message_id) is operation and operation.has_pending:
            self._owner.sending.say(
                operation.context.context_id,
                Command(CommandField.C_CANCEL_RQ, message_id_being_responded_to=command.message_id),
            )

    def abandon(self, operation: Operation) -> None:
        """Nobody waits for it any more: cancel it, pass over what comes, abort when that lasts."""
        if operation.abandoned:
            return
        operation.abandoned = True
        while operation.has_pending and operation.responses:
            self._taken_away(operation.responses.popleft())
        if self.operations.get(operation.command.message_id) is not operation:
            return
        self.cancel(operation)
        operation.deadline = asyncio.get_running_loop().call_later(
            self._owner.timeouts.dimse,
            self._owner.time_out,
            f"no final response to {operation.command.name}, which was given up",
        )

    def let_go(self) -> None:
        """We release: responses that nobody takes are dropped rather than waited with."""
        self._letting_go = True
        self._owner.receiving.unblock(RESPONSES_HELD)

    def stop(self, ended: Exception) -> None:
        """The association is over: whoever waits is told."""
        if self._timer is not None:
            self._timer.cancel()
        operations, self.operations = self.operations, {}
        for operation in operations.values():
            operation.error = ended
            if operation.deadline is not None:
                operation.deadline.cancel()
            operation.wake()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(ended)


class Responses:
    """The responses to a C-FIND, C-GET or C-MOVE, one after another, the final one included.

    ::

        async with association.c_find(identifier, sop_class_uid=STUDY_ROOT_FIND) as responses:
            async for response in responses:
                ...
        responses.final.status

    The request is sent when the first response is asked for. An iterator that is given up half way
    (by leaving the block, by ``aclose``, or by being forgotten) cancels the operation and passes
    over what still comes; the association is aborted if that lasts longer than ``Timeouts.dimse``.

    While nobody takes them, up to ``Limits.max_responses`` responses and
    ``Limits.max_response_bytes`` are kept; then reading pauses. Without a window another request waits
    for the final response, so that whoever makes it must not be the one who takes them.
    """

    def __init__(
        self,
        requests: Requests,
        context: Context,
        field: CommandField,
        data: bytes,
        timeout: float | None,
        message_id: int | None,
        elements: dict[str, Any],
    ) -> None:
        self._requests = requests
        self._context = context
        self._field = field
        self._data = data
        self._timeout = timeout
        self._message_id = message_id
        self._elements = elements
        self._operation: Operation | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False
        #: The final response, once it has come.
        self.final: Response | None = None

    def __aiter__(self) -> Responses:
        return self

    async def __anext__(self) -> Response:
        """The next response.

        Raises:
            StopAsyncIteration: the final one has been given.
            AssociationError: the association ended, or no response came in time and it was aborted.

        Cancellation: nothing is lost; half sent, the association is aborted.
        """
        if self._closed or self.final is not None:
            raise StopAsyncIteration
        requests = self._requests
        if self._operation is None:
            self._operation = await requests.begin(
                self._context, self._field, (self._data,), self._message_id, **self._elements
            )
        response = await requests.next(self._operation, self._timeout)
        if not response.is_pending:
            self.final = response
        return response

    @property
    def message_id(self) -> int | None:
        """The request's Message ID, once it is sent."""
        return None if self._operation is None else self._operation.command.message_id

    async def cancel(self) -> None:
        """Send C-CANCEL; iteration goes on to the final response. Harmless at any time.

        Standard: PS3.7 9.3.2.3.
        """
        if self._operation is not None:
            self._requests.cancel(self._operation)

    async def last(self) -> Response:
        """Pass over what comes up to the final response, and return that."""
        async for _ in self:
            pass
        assert self.final is not None
        return self.final

    async def aclose(self) -> None:
        """Give it up; never waits. Harmless at any time."""
        self._closed = True
        if self._operation is not None and self.final is None:
            self._requests.abandon(self._operation)

    async def __aenter__(self) -> Responses:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._operation is not None and self.final is None and not self._closed:
            # Wherever the collector runs, the operation is ended on its loop.
            try:
                self._loop.call_soon_threadsafe(self._requests.abandon, self._operation)
            except RuntimeError:
                return  # the loop has ended, and everything with it
