"""Data sets over one association by C-STORE: as many outstanding as its window allows.

Standard: PS3.7 9.1.1, D.3.3.3; PS3.4 B.2.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from hilum.errors import HilumError, LocalProtocolError, NoPresentationContext
from hilum.net.association import Association, Response
from hilum.net.conversion import Conversion, Reencoding
from hilum.net.reading import Data, Reader
from hilum.net.requests import Operation
from hilum.net.service import Context
from hilum.net.sources import READ_ERRORS, Source, why
from hilum.services.part10 import FileHead
from hilum.services.status import Category, category, describe
from hilum.wire.command import CommandField, Priority

__all__ = ["MAX_OUTSTANDING", "Delivery", "Outcome", "SendResult"]

# Outstanding at once where the peer sets no limit: enough to fill any link, little to hold.
MAX_OUTSTANDING = 32


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


class _Sent(NamedTuple):
    source: Source
    operation: Operation
    began: float


class Delivery:
    """Sends what a reader gives over an established association.

    Args:
        association: stays open afterwards, unless a data set broke off half sent.
        move_originator: AE title and Message ID of the C-MOVE that this is part of.
        on_bytes: called with the number of bytes, as they are given to the network.
        conversion: where the peer does not accept a data set as it is; None for ``Reencoding``.
    """

    def __init__(
        self,
        association: Association,
        *,
        move_originator: tuple[str, int] | None = None,
        on_bytes: Callable[[int], None] | None = None,
        conversion: Conversion | None = None,
    ) -> None:
        #: Whether we ended the association in the middle of a data set that could not be read.
        self.broke_off = False
        self._association = association
        self._on_bytes = on_bytes
        self._conversion = conversion or Reencoding()
        title, number = move_originator or (None, None)
        self._elements: dict[str, Any] = {
            "priority": Priority.MEDIUM,
            "move_originator_application_entity_title": title,
            "move_originator_message_id": number,
        }
        self._contexts: dict[tuple[str, str], Context] = {}

    def context_for(self, head: FileHead) -> Context:
        """The context for exactly this transfer syntax, or one that it can be converted to.

        Raises:
            NoPresentationContext: the peer accepted neither.
        """
        pair = head.sop_class_uid, head.transfer_syntax_uid
        context = self._contexts.get(pair)
        if context is None:
            context = self._contexts[pair] = self._find(*pair)
        return context

    def _find(self, sop_class: str, syntax: str) -> Context:
        association = self._association
        try:
            return association.context_for(sop_class, syntax, scu=True)
        except NoPresentationContext:
            others = {
                context.transfer_syntax: context
                for context in association.contexts.values()
                if context.abstract_syntax == sop_class and context.scu
            }
            for other in self._conversion.targets(syntax):
                if other in others:
                    return others[other]
            raise

    def needs_conversion(self, head: FileHead) -> bool:
        """Whether it goes out in another transfer syntax than its own."""
        try:
            return self.context_for(head).transfer_syntax != head.transfer_syntax_uid
        except NoPresentationContext:
            return False

    def pieces(self, source: Source) -> Iterator[bytes]:
        """The data set as it goes out; for the thread that reads.

        Raises:
            One of ``READ_ERRORS``: it cannot be read, or not be converted.
        """
        head = source.head
        if not self.needs_conversion(head):
            return source.pieces()
        target = self.context_for(head).transfer_syntax
        return self._conversion.pieces(source, target)

    async def results(
        self, reader: Reader, until: Callable[[], bool] = lambda: False
    ) -> AsyncIterator[SendResult]:
        """Send, and say of each data set what became of it, in the order of sending.

        Ends when there is nothing more, when the association has ended (what was outstanding has
        its results), or when ``until`` says so, looked at before each data set.

        Cancellation: what is outstanding is given up.
        """
        association = self._association
        window = min(association.requests.window, MAX_OUTSTANDING)
        sent: deque[_Sent] = deque()
        try:
            while not until() and await reader.ready() and association.is_established:
                began = time.perf_counter()
                outcome = await self._send(reader, began)
                if isinstance(outcome, _Sent):
                    sent.append(outcome)
                else:
                    yield outcome
                while len(sent) >= window:
                    yield await self._answer(sent)
            while sent:
                yield await self._answer(sent)
        finally:
            for each in sent:
                association.requests.abandon(each.operation)

    async def _send(self, reader: Reader, began: float) -> _Sent | SendResult:
        result: SendResult
        try:
            source, data = reader.take()
            head = source.head
            operation = await self._association.requests.begin(
                self.context_for(head),
                CommandField.C_STORE_RQ,
                data if self._on_bytes is None else _counted(data, self._on_bytes),
                affected_sop_class_uid=head.sop_class_uid,
                affected_sop_instance_uid=head.sop_instance_uid,
                **self._elements,
            )
        except (NoPresentationContext, LocalProtocolError) as error:
            result = SendResult(reader.current, Outcome.FAILED, reason=str(error))
        except READ_ERRORS as error:
            # Half sent, the association has been aborted, which is no fault of the peer's.
            self.broke_off = self._association.is_over
            reason = f"cannot be read: {why(error)}"
            result = SendResult(reader.current, Outcome.FAILED, reason=reason)
        except HilumError as error:
            seconds = time.perf_counter() - began
            result = SendResult(reader.current, Outcome.UNKNOWN, None, str(error), seconds)
        else:
            return _Sent(source, operation, began)
        reader.skip()
        return result

    async def _answer(self, sent: deque[_Sent]) -> SendResult:
        source, operation, began = sent[0]
        try:
            response = await self._association.requests.next(operation, None)
        except HilumError as error:
            sent.popleft()
            seconds = time.perf_counter() - began
            return SendResult(source, Outcome.UNKNOWN, None, str(error), seconds)
        sent.popleft()
        return _judged(source, response, time.perf_counter() - began)


def _judged(source: Source, response: Response, seconds: float) -> SendResult:
    status = response.status
    if status == 0:
        return SendResult(source, Outcome.SENT, 0, "", seconds)
    outcome = Outcome.WARNING if category(status) is Category.WARNING else Outcome.FAILED
    comment = response.command.get("error_comment")
    reason = describe(status) + (f" ({comment})" if comment else "")
    return SendResult(source, outcome, status, reason, seconds)


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
