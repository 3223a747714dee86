"""What a user of an association calls: the DIMSE services, as user.

Standard: PS3.7 9.1 (DIMSE-C), 10.1 (DIMSE-N).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, TypedDict, Unpack

from hilum.net.requests import Requests, Response, Responses
from hilum.net.service import Context, Part
from hilum.services.datasets import encode
from hilum.services.sop_classes import VERIFICATION
from hilum.wire.command import CommandField, Priority

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["How", "Operations"]


class How(TypedDict, total=False):
    """How a request is made; what is left out is as usual.

    Args:
        context_class: abstract syntax of the context where it is not the SOP class (meta SOP
            classes, UPS).
        transfer_syntax_uid: use the context with this one; None takes the first accepted.
        timeout: seconds to wait for a response; None takes ``Timeouts.dimse``.
        message_id: (0000,0110), 1 to 65,535; None, or one that is in use, takes the next free.
    """

    context_class: str | None
    transfer_syntax_uid: str | None
    timeout: float | None
    message_id: int | None


class Operations:
    """The part of an association that makes requests."""

    requests: Requests

    def context_for(
        self, abstract_syntax: str, transfer_syntax: str | None = None, *, scu: bool = False
    ) -> Context:
        """See ``Association``."""
        raise NotImplementedError

    def must_be_open(self) -> None:
        """See ``Association``."""
        raise NotImplementedError

    # ── DIMSE-C ─────────────────────────────────────────────────────────────────────────────

    async def c_echo(
        self, timeout: float | None = None, *, message_id: int | None = None
    ) -> Response:
        """Verify that the peer answers.

        Standard: PS3.7 9.1.5, PS3.4 A.

        Args:
            timeout: seconds to wait; None takes ``Timeouts.dimse``.
            message_id: (0000,0110), 1 to 65,535; None, or one that is in use, takes the next free.

        Raises:
            NoPresentationContext: Verification was not accepted; the association is usable.
            AssociationError: it ended, or timed out and was aborted.
        """
        return await self.requests.ask(
            self.context_for(VERIFICATION),
            CommandField.C_ECHO_RQ,
            None,
            timeout,
            message_id,
            affected_sop_class_uid=VERIFICATION,
        )

    async def c_store(
        self,
        data: Iterable[Part] | AsyncIterator[Part],
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        priority: int = Priority.MEDIUM,
        move_originator: tuple[str, int] | None = None,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Response:
        """Send one data set, part by part as ``data`` yields them, without decoding.

        Standard: PS3.7 9.1.1, 9.3.1.

        Args:
            data: the encoded data set; every part but the last of even length, and none changed
                before the association has ended or the response has come.
            sop_class_uid: Affected SOP Class UID.
            sop_instance_uid: Affected SOP Instance UID.
            transfer_syntax_uid: how ``data`` is encoded; a context that accepted exactly this
                one is used, nothing is converted.
            priority: (0000,0700).
            move_originator: AE title and Message ID of the C-MOVE this is a sub-operation of.
            timeout: seconds to wait for the response after the last byte; None takes
                ``Timeouts.dimse``.
            message_id: see ``c_echo``.

        Raises:
            NoPresentationContext: nothing was sent, the association is usable.
            AssociationError: it ended or timed out; whether the peer kept the data set is unknown.

        Cancellation: half sent, the association is aborted (PS3.7 knows no other end).
        """
        context = self.context_for(sop_class_uid, transfer_syntax_uid, scu=True)
        title, number = move_originator or (None, None)
        return await self.requests.ask(
            context,
            CommandField.C_STORE_RQ,
            data,
            timeout,
            message_id,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            priority=priority,
            move_originator_application_entity_title=title,
            move_originator_message_id=number,
        )

    def c_find(
        self,
        identifier: bytes | Dataset,
        *,
        sop_class_uid: str,
        priority: int = Priority.MEDIUM,
        **how: Unpack[How],
    ) -> Responses:
        """Query the peer.

        Standard: PS3.7 9.1.2, PS3.4 C.4.1 and K.4.1.

        Args:
            identifier: the keys; bytes must be in the context's transfer syntax.
            sop_class_uid: of the information model, such as ``STUDY_ROOT_FIND``.
            priority: (0000,0700).
            how: see ``How``; ``timeout`` is for each response.

        Returns:
            The responses; nothing is sent before the first is asked for.

        Raises:
            NoPresentationContext: the class was not accepted; the association is usable.
            InvalidDicom: the identifier cannot be encoded.
        """
        return self._responses(
            CommandField.C_FIND_RQ,
            identifier,
            sop_class_uid,
            how,
            priority=priority,
        )

    def c_get(
        self,
        identifier: bytes | Dataset,
        *,
        sop_class_uid: str,
        priority: int = Priority.MEDIUM,
        **how: Unpack[How],
    ) -> Responses:
        """Retrieve over this association: the peer's C-STOREs go to ``connect``'s ``open_store``.

        The storage classes must have been proposed with the SCP role for us.

        Standard: PS3.7 9.1.3, PS3.4 C.4.3.

        Args:
            identifier: which level and instances; otherwise as in ``c_find``.
            sop_class_uid: such as ``STUDY_ROOT_GET``.
            priority: (0000,0700).
            how: see ``How``; ``timeout`` is for each response or C-STORE.

        Raises:
            NoPresentationContext, InvalidDicom: see ``c_find``.
        """
        return self._responses(
            CommandField.C_GET_RQ,
            identifier,
            sop_class_uid,
            how,
            priority=priority,
        )

    def c_move(
        self,
        identifier: bytes | Dataset,
        *,
        sop_class_uid: str,
        destination: str,
        priority: int = Priority.MEDIUM,
        **how: Unpack[How],
    ) -> Responses:
        """Have the peer send instances to an AE that it knows by title.

        Standard: PS3.7 9.1.4, PS3.4 C.4.2.

        Args:
            identifier: which level and instances; otherwise as in ``c_find``.
            sop_class_uid: such as ``STUDY_ROOT_MOVE``.
            destination: AE title, at most 16 characters.
            priority: (0000,0700).
            how: see ``How``; ``timeout`` is for each response, and providers that send no pending
                ones need as much as the whole retrieval takes.

        Raises:
            NoPresentationContext, InvalidDicom: see ``c_find``.
        """
        return self._responses(
            CommandField.C_MOVE_RQ,
            identifier,
            sop_class_uid,
            how,
            priority=priority,
            move_destination=destination,
        )

    def _responses(
        self,
        field: CommandField,
        identifier: bytes | Dataset,
        sop_class_uid: str,
        how: How,
        **elements: object,
    ) -> Responses:
        self.must_be_open()
        context = self._context_of(sop_class_uid, how, scu=True)
        data = _encoded(identifier, context)
        elements["affected_sop_class_uid"] = sop_class_uid
        return Responses(
            self.requests, context, field, data, how.get("timeout"), how.get("message_id"), elements
        )

    # ── DIMSE-N ─────────────────────────────────────────────────────────────────────────────

    async def n_event_report(
        self,
        data: bytes | Dataset | None,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        event_type_id: int,
        **how: Unpack[How],
    ) -> Response:
        """Tell the peer of an event; the one N-service that the provider invokes.

        Standard: PS3.7 10.1.1.

        Args:
            data: event information; bytes must be in the context's transfer syntax.
            sop_class_uid: Affected SOP Class UID.
            sop_instance_uid: Affected SOP Instance UID.
            event_type_id: (0000,1002).
            how: see ``How``.

        Raises:
            NoPresentationContext: the class was not accepted; the association is usable.
            InvalidDicom: the data set cannot be encoded.
            AssociationError: it ended, or timed out and was aborted.
        """
        return await self._normalized(
            CommandField.N_EVENT_REPORT_RQ,
            data,
            sop_class_uid,
            how,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            event_type_id=event_type_id,
        )

    async def n_get(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        attributes: Iterable[int] = (),
        **how: Unpack[How],
    ) -> Response:
        """Read attributes of an instance that the peer manages.

        Standard: PS3.7 10.1.2.

        Args:
            sop_class_uid: Requested SOP Class UID.
            sop_instance_uid: Requested SOP Instance UID.
            attributes: tags as 32-bit numbers; none asks for all.
            how: see ``How``; what is raised, ``n_event_report``.
        """
        return await self._normalized(
            CommandField.N_GET_RQ,
            None,
            sop_class_uid,
            how,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
            attribute_identifier_list=tuple(attributes) or None,
        )

    async def n_set(
        self,
        data: bytes | Dataset,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        **how: Unpack[How],
    ) -> Response:
        """Change attributes of an instance that the peer manages.

        Standard: PS3.7 10.1.3.

        Args:
            data: the modification list.
            sop_class_uid: Requested SOP Class UID.
            sop_instance_uid: Requested SOP Instance UID.
            how: see ``How``; what is raised, ``n_event_report``.
        """
        return await self._normalized(
            CommandField.N_SET_RQ,
            data,
            sop_class_uid,
            how,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
        )

    async def n_action(
        self,
        data: bytes | Dataset | None,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        action_type_id: int,
        **how: Unpack[How],
    ) -> Response:
        """Ask for an action on an instance that the peer manages.

        Standard: PS3.7 10.1.4.

        Args:
            data: action information.
            sop_class_uid: Requested SOP Class UID.
            sop_instance_uid: Requested SOP Instance UID.
            action_type_id: (0000,1008).
            how: see ``How``; what is raised, ``n_event_report``.
        """
        return await self._normalized(
            CommandField.N_ACTION_RQ,
            data,
            sop_class_uid,
            how,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
            action_type_id=action_type_id,
        )

    async def n_create(
        self,
        data: bytes | Dataset | None,
        *,
        sop_class_uid: str,
        sop_instance_uid: str | None = None,
        **how: Unpack[How],
    ) -> Response:
        """Create an instance that the peer manages.

        Standard: PS3.7 10.1.5.

        Args:
            data: the attribute list.
            sop_class_uid: Affected SOP Class UID.
            sop_instance_uid: Affected SOP Instance UID; without one the peer makes one, which its
                response names.
            how: see ``How``; what is raised, ``n_event_report``.
        """
        return await self._normalized(
            CommandField.N_CREATE_RQ,
            data,
            sop_class_uid,
            how,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
        )

    async def n_delete(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        **how: Unpack[How],
    ) -> Response:
        """Delete an instance that the peer manages.

        Standard: PS3.7 10.1.6.

        Args:
            sop_class_uid: Requested SOP Class UID.
            sop_instance_uid: Requested SOP Instance UID.
            how: see ``How``; what is raised, ``n_event_report``.
        """
        return await self._normalized(
            CommandField.N_DELETE_RQ,
            None,
            sop_class_uid,
            how,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
        )

    async def _normalized(
        self,
        field: CommandField,
        data: bytes | Dataset | None,
        sop_class_uid: str,
        how: How,
        **elements: object,
    ) -> Response:
        """Roles are not looked at: peers report events whatever was negotiated, and are served."""
        self.must_be_open()
        context = self._context_of(sop_class_uid, how)
        encoded = None if data is None else (_encoded(data, context),)
        return await self.requests.ask(
            context, field, encoded, how.get("timeout"), how.get("message_id"), **elements
        )

    def _context_of(self, sop_class_uid: str, how: How, *, scu: bool = False) -> Context:
        return self.context_for(
            how.get("context_class") or sop_class_uid, how.get("transfer_syntax_uid"), scu=scu
        )


def _encoded(data: bytes | Dataset, context: Context) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    return encode(data, context.transfer_syntax)
