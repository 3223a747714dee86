"""What an association asks of its peer: the ``send_…`` calls."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from pydicom.dataset import Dataset
from pydicom.uid import UID

from hilum.errors import AssociationError, AssociationTimeout
from hilum.net.association import Association as NetAssociation
from hilum.net.association import Response
from hilum.net.service import Context
from hilum.services.status import describe
from hilum.sync import negotiated, sending
from hilum.sync.loop import Loop
from hilum.sync.presentation import PresentationContext
from hilum.sync.responses import Feed, ResponseIterator
from hilum.sync.results import is_done, status_of
from hilum.sync.threads import Worker
from hilum.sync.tracing import Trace

__all__ = ["HANDLERS_SECONDS", "Operations"]

log = logging.getLogger("hilum.sync")

T = TypeVar("T")

# How long ``release``, ``abort`` and ``associate`` wait for the handlers of the events that they
# caused; one that takes longer goes on beside the program.
HANDLERS_SECONDS = 30.0


class Operations:
    """The requests of an association; the part of it that waits for responses."""

    loop: Loop
    worker: Worker
    trace: Trace
    core: NetAssociation | None
    is_established: bool
    _feeds: list[Feed]
    _over: Event

    @property
    def dimse_timeout(self) -> float | None:
        """The seconds to wait for a response."""
        raise NotImplementedError

    @property
    def network_timeout(self) -> float | None:
        """The seconds that it may be idle."""
        raise NotImplementedError

    @property
    def accepted_contexts(self) -> list[PresentationContext]:
        """The accepted presentation contexts."""
        raise NotImplementedError

    def traced(self) -> None:
        """Let the handlers of what passed return before the program gets its response."""
        if self.trace.is_wanted:
            self.worker.flush(HANDLERS_SECONDS)

    def _flush(self) -> None:
        """Let the handlers of what just happened return first."""
        if self._over.is_set():
            self.worker.join(HANDLERS_SECONDS)
        else:
            self.worker.flush(HANDLERS_SECONDS)

    # ── requests ────────────────────────────────────────────────────────────────────────────

    def _open(self, message: str) -> NetAssociation:
        self.loop.check()
        core = self.core
        if core is None or not self.is_established:
            raise RuntimeError(
                f"The association with a peer must be established before sending a {message} request"
            )
        log.info("Sending %s request", message)
        return core

    def _context(self, *classes: str | UID, role: str | None = "scu") -> Context:
        assert self.core is not None
        for uid in classes:
            found = negotiated.context_for(self.core, str(uid), role)
            if found is not None:
                return found
        message = (
            f"No presentation context for '{UID(classes[0]).name}' has been accepted by the peer"
            f" for the {(role or 'scu').upper()} role"
        )
        log.error(message)
        raise ValueError(message)

    def _get_valid_context(
        self,
        ab_syntax: str | UID,
        tr_syntax: str | UID,
        role: str | None = None,
        context_id: int | None = None,
        allow_conversion: bool = True,
    ) -> PresentationContext:
        """The accepted context for something; programs of pynetdicom look for theirs with it.

        Args:
            ab_syntax: abstract syntax.
            tr_syntax: the transfer syntax; empty takes any.
            role: ``scu`` or ``scp``, where we must have it.
            context_id: of the one context that is looked at.
            allow_conversion: whether one into which the transfer syntax is converted will do.

        Raises:
            ValueError: there is none.
        """
        found = sending.valid_contexts(
            [
                context
                for context in self.accepted_contexts
                if context_id in (None, context.context_id)
                and context.abstract_syntax in (ab_syntax, *sending.stand_ins(ab_syntax))
                and (role != "scu" or context.as_scu)
                and (role != "scp" or context.as_scp)
            ],
            str(tr_syntax),
            allow_conversion,
        )
        if found is None:
            raise ValueError(f"No presentation context for '{UID(ab_syntax).name}' fits")
        return found

    def _run(self, request: Coroutine[Any, Any, T]) -> T | None:
        """Wait for a response; None when the association ended instead."""
        busy = [feed for feed in self._feeds if not feed.is_over]
        try:
            if busy:
                request = sending.behind(request, busy, self.dimse_timeout)
            result = self.loop.call(request)
            self.traced()
            if isinstance(result, Response):
                log.info("Received %s: %s", result.command.name, describe(result.status))
            return result
        except AssociationError as error:
            if isinstance(error, AssociationTimeout):
                log.error("DIMSE timeout reached while waiting for message: %s", error)
            else:
                log.error("no response: %s", error)
            self._flush()
            return None

    def send_c_echo(self, msg_id: int = 1) -> Dataset:
        """Ask whether the peer answers.

        Returns:
            Its status; an empty data set when the association ended instead.

        Raises:
            RuntimeError: the association is not established.
            ValueError: Verification was not accepted.
        """
        core = self._open("C-ECHO")
        self._context("1.2.840.10008.1.1")
        response = self._run(core.c_echo(message_id=msg_id))
        return Dataset() if response is None else status_of(response.command)

    def send_c_store(
        self,
        dataset: str | Path | Dataset,
        msg_id: int = 1,
        priority: int = 2,
        originator_aet: str | None = None,
        originator_id: int | None = None,
    ) -> Dataset:
        """Send a data set, or a file.

        A file is sent as it is, without being decoded, where a context accepted its transfer
        syntax; otherwise, and for a data set, it is encoded for an uncompressed context of the
        same byte order.

        Args:
            dataset: with SOP Class and Instance UID, and a transfer syntax in its file meta; or
                the path of a DICOM file.
            msg_id: Message ID, 1 to 65535.
            priority: 0 medium, 1 high, 2 low.
            originator_aet: with a C-MOVE's sub-operation: who asked for that.
            originator_id: its Message ID.

        Returns:
            The peer's status; an empty data set when the association ended instead: whether the
            peer kept the data set is not known then.

        Raises:
            RuntimeError: the association is not established.
            AttributeError: the data set lacks what identifies it.
            ValueError: no context fits, or the data set cannot be encoded.
        """
        core = self._open("C-STORE")
        sending.check_priority(priority)
        item = sending.prepare(core, dataset)
        originator = (originator_aet, originator_id or 0) if originator_aet else None
        response = self._run(item.send(core, msg_id, priority, originator))
        return Dataset() if response is None else status_of(response.command)

    def store_for(self, dataset: Dataset, originator: tuple[str, int] | None) -> int | None:
        """Send a sub-operation of a C-GET or C-MOVE; its status, None when there is none."""
        core = self._open("C-STORE")
        response = self._run(sending.prepare(core, dataset).send(core, None, 2, originator))
        return None if response is None else response.status

    def send_c_find(
        self, dataset: Dataset, query_model: str | UID, msg_id: int = 1, priority: int = 2
    ) -> ResponseIterator:
        """Query.

        Returns:
            An iterator over ``(status, identifier)``, see ``ResponseIterator``.

        Raises:
            RuntimeError: the association is not established.
            ValueError: no context fits, or the identifier cannot be encoded.
        """
        core = self._open("C-FIND")
        return self._query(core, "c_find", dataset, query_model, msg_id, priority)

    def send_c_get(
        self, dataset: Dataset, query_model: str | UID, msg_id: int = 1, priority: int = 2
    ) -> ResponseIterator:
        """Have instances sent over this association.

        The handler of ``EVT_C_STORE`` is called for each in the thread that iterates.

        Returns:
            An iterator over ``(status, identifier)``, see ``ResponseIterator``.

        Raises:
            RuntimeError: the association is not established.
            ValueError: no context fits, or the identifier cannot be encoded.
        """
        core = self._open("C-GET")
        return self._query(core, "c_get", dataset, query_model, msg_id, priority)

    def send_c_move(
        self,
        dataset: Dataset,
        move_aet: str,
        query_model: str | UID,
        msg_id: int = 1,
        priority: int = 2,
    ) -> ResponseIterator:
        """Have instances sent to an AE that the peer knows.

        Returns:
            An iterator over ``(status, identifier)``, see ``ResponseIterator``.

        Raises:
            RuntimeError: the association is not established.
            ValueError: no context fits, or the identifier cannot be encoded.
        """
        core = self._open("C-MOVE")
        return self._query(
            core, "c_move", dataset, query_model, msg_id, priority, destination=move_aet
        )

    def _query(
        self,
        core: NetAssociation,
        operation: str,
        dataset: Dataset,
        query_model: str | UID,
        msg_id: int,
        priority: int,
        **arguments: Any,
    ) -> ResponseIterator:
        sending.check_priority(priority)
        context = self._context(query_model, *sending.stand_ins(query_model))
        data = sending.encoded(dataset, context.transfer_syntax)

        async def begin() -> Feed:
            responses = getattr(core, operation)(
                data,
                sop_class_uid=str(query_model),
                context_class=context.abstract_syntax,
                priority=priority,
                message_id=msg_id,
                **arguments,
            )
            feed = Feed(self.loop, responses, self.network_timeout, msg_id, operation == "c_get")
            self._feeds = [each for each in self._feeds if not each.is_over] + [feed]
            return feed

        feed = self._run(begin())
        assert feed is not None
        is_find = operation == "c_find"
        return ResponseIterator(feed, context.transfer_syntax, is_find, self.traced)

    def send_c_cancel(
        self,
        msg_id: int,
        context_id: int | None = None,
        query_model: str | UID | None = None,
    ) -> None:
        """Ask the peer to end a C-FIND, C-GET or C-MOVE; its iterator goes on to the end.

        Args:
            msg_id: that of the request.
            context_id: of the request's context; or
            query_model: of the request.

        Raises:
            RuntimeError: the association is not established.
            ValueError: neither is given, or no such context was accepted.
        """
        self._open("C-CANCEL")
        if query_model is not None:
            self._context(query_model)
        elif context_id is None:
            raise ValueError("'send_c_cancel' requires either 'query_model' or 'context_id'")
        for feed in self._feeds:
            if feed.message_id == msg_id and not feed.is_over:
                self.loop.call(feed.responses.cancel())

    # ── N-services ──────────────────────────────────────────────────────────────────────────

    def _n_service(
        self,
        operation: str,
        dataset: Dataset | None,
        class_uid: str | UID,
        instance_uid: str | UID | None,
        msg_id: int,
        meta_uid: str | UID | None,
        **arguments: Any,
    ) -> tuple[Dataset, Dataset | None]:
        name = operation.upper().replace("_", "-")
        core = self._open(name)
        role = None if operation == "n_event_report" else "scu"
        wanted = meta_uid or class_uid
        context = self._context(wanted, *sending.stand_ins(wanted), role=role)
        if dataset is not None:
            arguments["data"] = sending.encoded(dataset, context.transfer_syntax)
        elif operation not in ("n_get", "n_delete"):
            arguments["data"] = None
        response: Response | None = self._run(
            getattr(core, operation)(
                sop_class_uid=str(class_uid),
                sop_instance_uid=None if instance_uid is None else str(instance_uid),
                context_class=context.abstract_syntax,
                message_id=msg_id,
                **arguments,
            )
        )
        if response is None:
            return Dataset(), None
        status = status_of(response.command, n_service=True)
        if not is_done(response.status):
            return status, None
        return sending.reply(status, response, context.transfer_syntax)

    def send_n_get(
        self,
        identifier_list: Sequence[Any],
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Ask for attributes of an instance.

        Returns:
            The status and the attribute list; an empty data set and None when the association
            ended instead.

        Raises:
            RuntimeError: the association is not established.
            ValueError: no context fits.
        """
        tags = sending.tags(identifier_list)
        return self._n_service(
            "n_get", None, class_uid, instance_uid, msg_id, meta_uid, attributes=tags
        )

    def send_n_set(
        self,
        dataset: Dataset,
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Change attributes of an instance; see ``send_n_get``."""
        return self._n_service("n_set", dataset, class_uid, instance_uid, msg_id, meta_uid)

    def send_n_action(
        self,
        dataset: Dataset | None,
        action_type: int,
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Have something done with an instance; see ``send_n_get``."""
        return self._n_service(
            "n_action",
            dataset,
            class_uid,
            instance_uid,
            msg_id,
            meta_uid,
            action_type_id=action_type,
        )

    def send_n_create(
        self,
        dataset: Dataset | None,
        class_uid: str | UID,
        instance_uid: str | UID | None = None,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Make an instance; see ``send_n_get``.

        Args:
            dataset: its attributes.
            class_uid: its SOP class.
            instance_uid: its UID; None lets the peer choose, which tells it in the status as
                ``AffectedSOPInstanceUID``.
            msg_id: Message ID.
            meta_uid: the meta SOP class whose context is used.
        """
        return self._n_service("n_create", dataset, class_uid, instance_uid, msg_id, meta_uid)

    def send_n_delete(
        self,
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> Dataset:
        """Remove an instance; the status, see ``send_n_get``."""
        return self._n_service("n_delete", None, class_uid, instance_uid, msg_id, meta_uid)[0]

    def send_n_event_report(
        self,
        dataset: Dataset | None,
        event_type: int,
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Tell of something that happened to an instance; see ``send_n_get``."""
        return self._n_service(
            "n_event_report",
            dataset,
            class_uid,
            instance_uid,
            msg_id,
            meta_uid,
            event_type_id=event_type,
        )
