"""The responses to a C-FIND, C-GET or C-MOVE as a blocking iterator.

A task of the loop feeds an inbox, from which the iterating thread takes. C-STORE sub-operations of
a C-GET go through the same inbox, so that their handlers run in that thread, in the order in which
the peer sent things.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from hilum.errors import AssociationTimeout, HilumError
from hilum.net.association import Response
from hilum.net.requests import Responses
from hilum.net.service import Outcome
from hilum.services.status import Category, Status, category
from hilum.sync import _config
from hilum.sync.dsutils import decode_bytes, pretty_dataset
from hilum.sync.results import is_pending, status_of
from hilum.sync.threads import Inbox

if TYPE_CHECKING:
    from hilum.sync.loop import Loop

__all__ = ["Feed", "ResponseIterator"]

log = logging.getLogger("hilum.sync")

_NOBODY = Outcome(Status.OUT_OF_RESOURCES, "the retrieve was given up")


class _SubOperation:
    """A C-STORE that waits for the iterating thread."""

    def __init__(self, serve: Callable[[], Outcome], done: asyncio.Future[Outcome]) -> None:
        self.serve = serve
        self.done = done


class Feed:
    """The loop's side of one operation.

    Args:
        loop: whose.
        responses: of the operation.
        patience: seconds that a C-STORE sub-operation waits for the iterating thread before the
            operation is given up; None waits for ever.
        message_id: the request's, as the program chose it.
        takes_stores: whether it is a C-GET.
    """

    def __init__(
        self,
        loop: Loop,
        responses: Responses,
        patience: float | None,
        message_id: int,
        takes_stores: bool,
    ) -> None:
        self.loop = loop
        self.message_id = message_id
        self.takes_stores = takes_stores
        self.responses = responses
        self.inbox: Inbox[Response | _SubOperation | Exception | None] = Inbox(
            loop, max(1, _config.MAX_WAITING_RESPONSES)
        )
        self.is_over = False
        self._patience = patience
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            async for response in self.responses:
                self.inbox.put_now(response)
                if self.inbox.is_full:
                    await self._room()
        except HilumError as error:
            await self.responses.aclose()
            self.inbox.put_now(error)
        except asyncio.CancelledError:
            pass
        finally:
            self.is_over = True
            self.inbox.put_now(None)

    async def _room(self) -> None:
        """Wait for the iterating thread, however slow it is, as long as it takes anything at all."""
        while self.inbox.is_full:
            taken = self.inbox.taken
            try:
                async with asyncio.timeout(_config.UNTAKEN_RESPONSES_TIMEOUT):
                    await self.inbox.room()
            except TimeoutError:
                if self.inbox.taken == taken:
                    raise AssociationTimeout(
                        "nobody has taken any of the responses that are here for "
                        f"{_config.UNTAKEN_RESPONSES_TIMEOUT:g} s: the operation is given up"
                    ) from None

    async def store(self, serve: Callable[[], Outcome]) -> Outcome:
        """Let the iterating thread serve a C-STORE."""
        if self.is_over:
            return _NOBODY
        loop = asyncio.get_running_loop()
        waiting = _SubOperation(serve, loop.create_future())
        self.inbox.put_now(waiting)
        timer = None
        if self._patience is not None:
            timer = loop.call_later(self._patience, self._impatient, waiting)
        try:
            return await waiting.done
        finally:
            if timer is not None:
                timer.cancel()

    def _impatient(self, waiting: _SubOperation) -> None:
        if waiting in self.inbox:
            log.error("nobody has taken a C-STORE sub-operation: the C-GET is given up")
            self.give_up()

    def give_up(self) -> None:
        """Nobody iterates any more: cancel the operation; never waits, idempotent. On the loop.

        The association is aborted when the peer does not end the operation within the DIMSE
        time-out.
        """
        if not self.is_over:
            self.is_over = True
            self._task.cancel()
            self._closing = asyncio.ensure_future(self.responses.aclose())
        for item in self.inbox.clear():
            if isinstance(item, _SubOperation) and not item.done.done():
                item.done.set_result(_NOBODY)
        self.inbox.put_now(None)


class ResponseIterator:
    """``(status, identifier)`` pairs, the final one last.

    When the association ends before the final response, the last pair is an empty data set and
    None. An iterator that is forgotten, or closed, before its end cancels the operation.
    """

    def __init__(
        self, feed: Feed, transfer_syntax: str, is_find: bool, traced: Callable[[], None]
    ) -> None:
        self._feed = feed
        self._traced = traced
        self._transfer_syntax = transfer_syntax
        self._is_find = is_find
        self._ended = False

    def __iter__(self) -> ResponseIterator:
        return self

    def __next__(self) -> tuple[Dataset, Dataset | None]:
        feed = self._feed
        feed.loop.check()
        while not self._ended:
            item = feed.inbox.get()
            if isinstance(item, _SubOperation):
                feed.loop.post(_answer, item.done, item.serve())
            elif item is None:
                self._ended = True
            elif isinstance(item, Exception):
                self._ended = True
                log.error("%s", item)
                return Dataset(), None
            else:
                self._ended = not item.is_pending
                self._traced()
                return self._pair(item)
        raise StopIteration

    def _pair(self, response: Response) -> tuple[Dataset, Dataset | None]:
        status = status_of(response.command)
        wanted = self._is_find == is_pending(response.status)
        if not wanted or response.status == Status.SUCCESS:
            return status, None
        if not response.data:
            return status, None if self._is_find else _nothing_failed(response.status)
        try:
            identifier = decode_bytes(response.data, self._transfer_syntax)
        except Exception as error:  # pydicom raises whatever its reading came upon
            log.error("the identifier of a response cannot be read: %s", error)
            return status, None
        if _config.LOG_RESPONSE_IDENTIFIERS and log.isEnabledFor(logging.DEBUG):
            log.debug("identifier of a response:\n%s", "\n".join(pretty_dataset(identifier, 1)))
        return status, identifier

    def close(self) -> None:
        """Give the operation up: it is cancelled, what still comes is passed over."""
        if not self._ended:
            self._ended = True
            self._feed.loop.post(self._feed.give_up)

    def __del__(self) -> None:
        # Wherever the collector runs: nothing here waits.
        self.close()


def _nothing_failed(status: int) -> Dataset:
    """The identifier of a C-GET or C-MOVE whose final response has none.

    Programs look for Failed SOP Instance UID List in it, and not whether it is there.
    """
    made = Dataset()
    if category(status) in (Category.WARNING, Category.CANCEL):
        made.FailedSOPInstanceUIDList = ""
    return made


def _answer(done: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not done.done():
        done.set_result(outcome)
