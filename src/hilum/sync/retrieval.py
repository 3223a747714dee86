"""Handlers that yield: C-FIND, C-GET and C-MOVE, each advanced in its association's thread.

Standard: PS3.4 C.4.1 to C.4.3; PS3.7 9.1.2 to 9.1.4.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from hilum.net.service import Reply, Request
from hilum.services.bulk_data import is_bulk_data
from hilum.services.sop_classes import COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
from hilum.services.status import Category, Status, category
from hilum.services.suboperations import SubOperations
from hilum.sync.dsutils import encode_bytes
from hilum.sync.events import Event
from hilum.sync.results import elements_of, is_pending
from hilum.sync.threads import Outbox

if TYPE_CHECKING:
    from hilum.sync.association import Association

__all__ = ["Serve", "find", "get", "move"]

log = logging.getLogger("hilum.sync")

Serve = Callable[["Association", Event, Request, Outbox[Reply]], None]

FIND_NOT_ENCODED = 0xC312
GET_BAD_COUNT = 0xC413
MOVE_BAD_COUNT = 0xC513
MOVE_NO_DESTINATION = 0xC514
MOVE_BAD_DESTINATION = 0xC515
GET_FAILED = 0xC411
MOVE_FAILED = 0xC511
MOVE_DESTINATION_UNKNOWN = 0xA801


@contextlib.contextmanager
def _yields(assoc: Association, event: Event) -> Iterator[Iterator[Any]]:
    """What a handler yields; a generator is closed in the thread that advanced it."""
    yielded = assoc.call_handler(event)
    try:
        yield iter(() if yielded is None else yielded)
    finally:
        close = getattr(yielded, "close", None)
        if close is not None:
            try:
                close()
            except Exception as error:
                log.exception("the handler of %s failed while it was closed: %s", event, error)


def find(assoc: Association, event: Event, request: Request, outbox: Outbox[Reply]) -> None:
    """A C-FIND: each pair is a response."""
    syntax = request.context.transfer_syntax
    with _yields(assoc, event) as pairs:
        for result, identifier in pairs:
            status, elements = elements_of(result)
            if not is_pending(status):
                outbox.put(Reply(status, elements=elements))
                return
            if request.is_cancelled:
                # It had its chance to end in its own way.
                outbox.put(Reply(Status.CANCEL))
                return
            data = encode_bytes(identifier, syntax) if isinstance(identifier, Dataset) else None
            if not data:
                log.error("the handler of EVT_C_FIND yielded no identifier to a pending status")
                outbox.put(Reply(FIND_NOT_ENCODED))
                return
            if not outbox.put(Reply(status, data, elements)):
                return
    outbox.put(Reply(Status.SUCCESS))


class _Failed(Exception):
    """What a handler yielded ends its request with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:04X}H")
        self.status = status


def _count(pairs: Iterator[Any], failed: int) -> int:
    """The number of sub-operations, which comes first."""
    try:
        return int(next(pairs))
    except Exception as error:
        log.exception("a handler yielded no number of sub-operations: %s", error)
        raise _Failed(failed) from error


def get(assoc: Association, event: Event, request: Request, outbox: Outbox[Reply]) -> None:
    """A C-GET: a number of sub-operations, then pairs, each of which is sent back."""
    try:
        with _yields(assoc, event) as pairs:
            total = _count(pairs, GET_BAD_COUNT)
            run = _Run(request, outbox, total, GET_FAILED)
            # Only a C-MOVE's sub-operations name their originator (PS3.7 9.1.1.1.6).
            run.perform(pairs, lambda dataset, _: assoc.store_for(dataset, None))
    except _Failed as error:
        outbox.put(Reply(error.status))


def move(assoc: Association, event: Event, request: Request, outbox: Outbox[Reply]) -> None:
    """A C-MOVE: destination, number of sub-operations, then pairs, each of which is sent there."""
    try:
        with _yields(assoc, event) as pairs:
            destination = _destination(pairs)
            total = _count(pairs, MOVE_BAD_COUNT)
            run = _Run(request, outbox, total, MOVE_FAILED)
            if total < 1:
                run.perform(pairs, lambda dataset, originator: None)
                return
            store = _associate(assoc, request, destination)
            try:
                run.perform(pairs, store.store_for)
            finally:
                if store.is_established:
                    store.release()
    except _Failed as error:
        outbox.put(Reply(error.status))


def _destination(pairs: Iterator[Any]) -> tuple[str, int, dict[str, Any]]:
    try:
        yielded = next(pairs)
    except Exception as error:
        log.exception("the handler of EVT_C_MOVE yielded no destination: %s", error)
        raise _Failed(MOVE_NO_DESTINATION) from error
    try:
        address, port, *rest = yielded
    except (TypeError, ValueError) as error:
        log.error("the handler of EVT_C_MOVE yielded no (address, port): %s", error)
        raise _Failed(MOVE_BAD_DESTINATION) from error
    if address is None or port is None:
        raise _Failed(MOVE_DESTINATION_UNKNOWN)
    return address, port, dict(rest[0]) if rest and rest[0] else {}


def _associate(
    assoc: Association, request: Request, destination: tuple[str, int, dict[str, Any]]
) -> Association:
    address, port, arguments = destination
    arguments.setdefault("ae_title", request.command.move_destination)
    try:
        store: Association = assoc.ae.associate(address, port, **arguments)
    except Exception as error:
        log.exception("no association can be requested with the move destination: %s", error)
        raise _Failed(MOVE_BAD_DESTINATION) from error
    if not store.is_established:
        raise _Failed(MOVE_DESTINATION_UNKNOWN)
    return store


#: Sends a data set, naming the C-MOVE it belongs to; None where that could not be done.
Store = Callable[[Dataset, tuple[str, int] | None], int | None]


def _strip(dataset: Dataset, within: tuple[int, ...] = ()) -> None:
    """Take bulk data out of a data set."""
    for element in list(dataset):
        if is_bulk_data(int(element.tag), within):
            del dataset[element.tag]
        elif element.VR == "SQ":
            for item in element.value:
                _strip(item, (*within, int(element.tag)))


class _Run:
    """The sub-operations of one request.

    Args:
        request: it.
        outbox: of its responses.
        total: how many sub-operations its handler promised.
        failed: the status when the handler raises.
    """

    def __init__(self, request: Request, outbox: Outbox[Reply], total: int, failed: int) -> None:
        self._request = request
        self._outbox = outbox
        self._counts = SubOperations(max(0, total))
        self._failed = failed

    def perform(self, pairs: Iterator[Any], store: Store) -> None:
        """Each pending pair in turn, until all are done, or something else is yielded."""
        counts = self._counts
        while counts.remaining > 0:
            try:
                result, dataset = next(pairs)
                status, elements = elements_of(result)
            except StopIteration:
                break
            except Exception as error:
                log.exception("a handler failed: %s", error)
                status, elements, dataset = self._failed, {}, None
            kind = category(status)
            if kind is Category.SUCCESS:
                break
            if kind is not Category.PENDING:
                if kind is not Category.CANCEL:
                    # The handler ends it: what was not done has failed.
                    counts.failed += counts.remaining
                    counts.remaining = 0
                self._end_with(status, dataset, elements)
                return
            if self._request.is_cancelled:
                # It had its chance to end in its own way.
                self._end_with(Status.CANCEL, None, {})
                return
            self._store(dataset, store)
            pending = Reply(status, elements=elements | counts.elements(Status.PENDING))
            if not self._outbox.put(pending):
                return
        else:
            self._let_end(pairs)
        self._end_with(counts.final_status(), None, {})

    def _let_end(self, pairs: Iterator[Any]) -> None:
        """Let a handler go on behind its last data set, to clear up."""
        try:
            status, _ = elements_of(next(pairs)[0])
        except StopIteration:
            return
        except Exception as error:
            log.exception("a handler failed behind its last data set: %s", error)
            return
        if is_pending(status):
            log.warning("a handler yielded more data sets than it had announced")

    def _store(self, dataset: Any, store: Store) -> None:
        command = self._request.command
        if not isinstance(dataset, Dataset):
            log.error("a handler yielded no data set to a pending status")
            self._counts.lost("")
            return
        if command.affected_sop_class_uid == COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET:
            _strip(dataset)
        instance = str(dataset.get("SOPInstanceUID", ""))
        try:
            status = store(
                dataset, (self._request.association.rq.calling_ae_title, command.message_id)
            )
        except Exception as error:
            log.error("a sub-operation could not be begun: %s", error)
            status = None
        if status is None:
            self._counts.lost(instance)
        else:
            self._counts.ended(status, instance)

    def _end_with(self, status: int, dataset: Any, elements: dict[str, Any]) -> None:
        counts, syntax = self._counts, self._request.context.transfer_syntax
        if isinstance(dataset, Dataset) and "FailedSOPInstanceUIDList" in dataset:
            data = encode_bytes(dataset, syntax)
        else:
            data = counts.identifier(status, syntax)
        self._outbox.put(Reply(status, data, elements | counts.elements(status)))
