"""The two ends of an association as programs read them: ``assoc.requestor``, ``assoc.acceptor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom.uid import UID

from hilum.sync._globals import DEFAULT_MAX_LENGTH, MODE_ACCEPTOR, MODE_REQUESTOR
from hilum.sync.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    ServiceParameter,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
    from_items,
)
from hilum.sync.presentation import PresentationContext
from hilum.wire.pdu import AssociateAC, AssociateRQ

if TYPE_CHECKING:
    from hilum.sync.association import Association
    from hilum.sync.transport import AddressInformation

__all__ = ["ServiceUser", "primitive_of"]

_NEGOTIATED = (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)


class ServiceUser:
    """One end of an association.

    Before it has said anything (``primitive`` is None) it shows what it is going to say.
    """

    def __init__(self, assoc: Association, mode: str) -> None:
        self.assoc = assoc
        self.mode = mode
        self.ae_title = ""
        #: Its A-ASSOCIATE request or answer.
        self.primitive: A_ASSOCIATE | None = None
        self.address_info: AddressInformation | None = None
        #: What it is going to say.
        self.items: list[ServiceParameter] = []
        self.contexts: list[PresentationContext] = []
        self.common_extended: dict[UID, SOPClassCommonExtendedNegotiation] = {}

    @property
    def is_requestor(self) -> bool:
        """Whether this end requested the association."""
        return self.mode == MODE_REQUESTOR

    @property
    def is_acceptor(self) -> bool:
        """Whether this end was asked."""
        return self.mode == MODE_ACCEPTOR

    @property
    def writeable(self) -> bool:
        """Whether it has not said anything yet."""
        return self.primitive is None

    @property
    def address(self) -> str:
        """Its IP address.

        Raises:
            ValueError: there was no connection.
        """
        if self.address_info is None:
            raise ValueError("No address information has been set")
        return self.address_info.address

    @property
    def port(self) -> int:
        """Its TCP port.

        Raises:
            ValueError: there was no connection.
        """
        if self.address_info is None:
            raise ValueError("No address information has been set")
        return self.address_info.port

    @property
    def user_information(self) -> list[ServiceParameter]:
        """All its user-information items."""
        return self.items if self.primitive is None else self.primitive.user_information

    @property
    def extended_negotiation(self) -> list[ServiceParameter]:
        """Those of its items that negotiate something."""
        return [item for item in self.user_information if isinstance(item, _NEGOTIATED)]

    def _first(self, kind: type[ServiceParameter]) -> Any:
        return next((item for item in self.user_information if isinstance(item, kind)), None)

    @property
    def maximum_length(self) -> int:
        """The longest P-DATA-TF body it takes, bytes; 0 is no limit."""
        item = self._first(MaximumLengthNotification)
        return DEFAULT_MAX_LENGTH if item is None else int(item.maximum_length_received)

    @property
    def implementation_class_uid(self) -> UID | None:
        """Its implementation class UID; None where it gave none."""
        item = self._first(ImplementationClassUIDNotification)
        return None if item is None else item.implementation_class_uid

    @property
    def implementation_version_name(self) -> str | None:
        """Its implementation version name; None where it gave none."""
        item = self._first(ImplementationVersionNameNotification)
        return None if item is None else item.implementation_version_name

    @property
    def asynchronous_operations(self) -> tuple[int, int]:
        """Operations (invoked, performed) that it proposed or granted."""
        item = self._first(AsynchronousOperationsWindowNegotiation)
        if item is None:
            return 1, 1
        return item.maximum_number_operations_invoked, item.maximum_number_operations_performed

    @property
    def role_selection(self) -> dict[UID, SCP_SCU_RoleSelectionNegotiation]:
        """Its role selections by SOP class."""
        return {
            item.sop_class_uid: item
            for item in self.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid
        }

    @property
    def sop_class_extended(self) -> dict[UID, bytes]:
        """Its extended negotiation by SOP class."""
        return {
            item.sop_class_uid: item.service_class_application_information or b""
            for item in self.user_information
            if isinstance(item, SOPClassExtendedNegotiation) and item.sop_class_uid
        }

    @property
    def sop_class_common_extended(self) -> dict[UID, SOPClassCommonExtendedNegotiation]:
        """Its common extended negotiation by SOP class."""
        return {
            item.sop_class_uid: item
            for item in self.user_information
            if isinstance(item, SOPClassCommonExtendedNegotiation) and item.sop_class_uid
        }

    @property
    def accepted_common_extended(self) -> dict[UID, tuple[UID | None, list[UID]]]:
        """Of the acceptor: SOP class → (service class, general SOP classes) that it took over.

        Raises:
            RuntimeError: this is the requestor.
        """
        if not self.is_acceptor:
            raise RuntimeError("'accepted_common_extended' is only available for the 'acceptor'")
        return {
            uid: (item.service_class_uid, item.related_general_sop_class_identification)
            for uid, item in self.common_extended.items()
        }

    @property
    def user_identity(self) -> UserIdentityNegotiation | None:
        """Its user identity, or its answer to one."""
        item: UserIdentityNegotiation | None = self._first(UserIdentityNegotiation)
        return item

    @property
    def requested_contexts(self) -> list[PresentationContext]:
        """The contexts that the requestor proposes."""
        return self.get_contexts("requested" if self.assoc.is_requestor else "pcdl")

    @property
    def supported_contexts(self) -> list[PresentationContext]:
        """The contexts that the acceptor supports."""
        return self.get_contexts("supported")

    def get_contexts(self, cx_type: str) -> list[PresentationContext]:
        """Presentation contexts.

        Args:
            cx_type: ``requested`` or ``supported`` for what this program set up, ``pcdl`` for the
                proposed ones of a request, ``pcdrl`` for the results of an answer.

        Raises:
            ValueError: this end has no such contexts.
        """
        is_ours = self.is_requestor == self.assoc.is_requestor
        said = self.primitive
        if cx_type == "requested" and self.is_requestor and is_ours:
            return self.contexts
        if cx_type == "supported" and self.is_acceptor and is_ours:
            return self.contexts
        if cx_type == "pcdl" and self.is_requestor and said is not None:
            return said.presentation_context_definition_list
        if cx_type == "pcdrl" and self.is_acceptor and said is not None:
            return said.presentation_context_definition_results_list
        raise ValueError(f"No '{cx_type}' presentation contexts are available for the {self.mode}")

    @property
    def info(self) -> dict[str, Any]:
        """Title, address, port, mode and maximum length, as a dict."""
        known = self.address_info
        info = {
            "ae_title": self.ae_title,
            "address": known.address if known else None,
            "port": known.port if known else None,
            "mode": self.mode,
        }
        return info if self.writeable else info | {"pdv_size": self.maximum_length}


def primitive_of(pdu: AssociateRQ | AssociateAC) -> A_ASSOCIATE:
    """What a program sees of an A-ASSOCIATE-RQ or -AC."""
    made = A_ASSOCIATE()
    made.application_context_name = UID(pdu.application_context)
    made.calling_ae_title = pdu.calling_ae_title
    made.called_ae_title = pdu.called_ae_title
    made.user_information = from_items(pdu.user_items)
    contexts = [_context(context, pdu) for context in pdu.contexts]
    if isinstance(pdu, AssociateRQ):
        made.presentation_context_definition_list = contexts
    else:
        made.presentation_context_definition_results_list = contexts
        made.result = 0
    return made


def _context(proposed: Any, pdu: AssociateRQ | AssociateAC) -> PresentationContext:
    # Past the setters: what a peer proposed need not be valid to be shown.
    made = PresentationContext()
    made._context_id = proposed.context_id
    made._abstract_syntax = UID(proposed.abstract_syntax)
    made._transfer_syntax = [UID(uid) for uid in proposed.transfer_syntaxes]
    if isinstance(pdu, AssociateAC):
        made.result = proposed.result
    return made
