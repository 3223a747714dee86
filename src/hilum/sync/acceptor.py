"""The answer to A-ASSOCIATE-RQ: what an AE is set to, and what handlers say to it.

Standard: PS3.8 7.1, Table 9-21; PS3.7 annex D.3.3.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

from pydicom.uid import UID

from hilum.net.association import Association as NetAssociation
from hilum.net.service import Accept, Reject
from hilum.services.sop_classes import may_store
from hilum.sync import _config
from hilum.sync import events as evt
from hilum.sync.events import Event, InterventionEvent
from hilum.sync.identity import identity_of
from hilum.sync.pdu_primitives import SOPClassCommonExtendedNegotiation
from hilum.sync.presentation import PresentationContext
from hilum.wire.items import (
    ExtendedNegotiation,
    RoleSelection,
    UserIdentityResponse,
    UserItem,
)
from hilum.wire.pdu import AssociateRQ, ContextResult
from hilum.wire.pdu import PresentationContext as Proposed

if TYPE_CHECKING:
    from hilum.sync.association import Association
    from hilum.sync.transport import AssociationServer

__all__ = ["decide", "prepare"]

log = logging.getLogger("hilum.sync")

_USER_REFUSED = Reject(2, 2, 1, "the user's identity was not accepted")
_CALLING = Reject(1, 1, 3, "the calling AE title is not among require_calling_aet")
_CALLED = Reject(1, 1, 7, "the called AE title is not ours")
_FULL = Reject(2, 3, 2, "maximum_associations")


def prepare(assoc: Association, server: AssociationServer, core: NetAssociation) -> None:
    """What is known of both ends before the peer has said anything."""
    from hilum.sync.transport import AddressInformation

    assoc.acceptor.ae_title = server.ae_title
    assoc.acceptor.address_info = AddressInformation.from_tuple(server.server_address)
    assoc.acceptor.contexts = deepcopy(server.contexts)
    assoc.acceptor.items = identity_of(assoc.ae, assoc.ae.maximum_pdu_size)
    assoc.requestor.address_info = AddressInformation(core.peer.address, core.peer.port)


async def decide(assoc: Association, rq: AssociateRQ) -> Accept | Reject:
    """Accept or reject; handlers are asked in their own thread."""
    asked = any(assoc.has(event) for event in _ASKED)
    assoc.notify(evt.EVT_REQUESTED)
    if asked or assoc.has(evt.EVT_REQUESTED):
        answers = await assoc.worker.run(partial(_Answers, assoc))
    else:
        answers = _Answers(assoc)
    if assoc.early_reject is not None:
        return Reject(*assoc.early_reject, "rejected by a handler")
    ae = assoc.ae
    reject = None
    if ae.require_calling_aet and rq.calling_ae_title not in map(str.strip, ae.require_calling_aet):
        reject = _CALLING
    if ae.require_called_aet and rq.called_ae_title != assoc.acceptor.ae_title.strip():
        reject = _CALLED
    if not answers.user_accepted:
        reject = _USER_REFUSED
    if ae.accepted_associations >= ae.maximum_associations:
        reject = _FULL
    if reject is not None:
        return reject
    assoc.acceptor.common_extended = answers.common
    return Accept(
        policy=_Policy(assoc.acceptor.contexts, rq),
        open_store=assoc.provider.open_store,
        roles=_roles(assoc.acceptor.contexts, rq),
        window=answers.window,
        items=(*(item.item() for item in identity_of(ae, None)), *answers.items),
        handlers=assoc.provider.handlers,
        ended=lambda _, error: assoc.ended(error),
    )


_ASKED = (evt.EVT_USER_ID, evt.EVT_SOP_EXTENDED, evt.EVT_SOP_COMMON, evt.EVT_ASYNC_OPS)


class _Answers:
    """What the handlers of the negotiation say; made in their thread."""

    def __init__(self, assoc: Association) -> None:
        self._assoc = assoc
        self.items: list[UserItem] = []
        self.user_accepted = self._user()
        self._extended()
        self.common = self._common()
        self.window = self._window()

    def _ask(self, event: InterventionEvent, **attributes: Any) -> Any:
        """The handler's answer; None where there is no handler."""
        if not self._assoc.has(event):
            return None
        return self._assoc.call_handler(Event(self._assoc, event, attributes))

    def _user(self) -> bool:
        user = self._assoc.requestor.user_identity
        if user is None:
            return True
        try:
            answer = self._ask(
                evt.EVT_USER_ID,
                user_id_type=user.user_identity_type,
                primary_field=user.primary_field,
                secondary_field=user.secondary_field,
            )
            if answer is None:
                return not self._assoc.has(evt.EVT_USER_ID)
            accepted, response = answer
        except Exception as error:
            log.exception("the handler of EVT_USER_ID failed: %s", error)
            return False
        if accepted and user.positive_response_requested and isinstance(response, bytes):
            self.items.append(UserIdentityResponse(response))
        return bool(accepted)

    def _extended(self) -> None:
        proposed = self._assoc.requestor.sop_class_extended
        if not proposed:
            return
        try:
            answer = self._ask(evt.EVT_SOP_EXTENDED, app_info=proposed) or {}
            self.items += [
                ExtendedNegotiation(str(uid), information)
                for uid, information in answer.items()
                if isinstance(information, bytes)
            ]
        except Exception as error:
            log.exception("the handler of EVT_SOP_EXTENDED failed: %s", error)

    def _common(self) -> dict[UID, SOPClassCommonExtendedNegotiation]:
        proposed = self._assoc.requestor.sop_class_common_extended
        if not proposed:
            return {}
        try:
            answer: Mapping[Any, Any] = self._ask(evt.EVT_SOP_COMMON, items=proposed) or {}
            return {
                UID(uid): item
                for uid, item in answer.items()
                if isinstance(item, SOPClassCommonExtendedNegotiation)
            }
        except Exception as error:
            log.exception("the handler of EVT_SOP_COMMON failed: %s", error)
            return {}

    def _window(self) -> tuple[int, int] | None:
        invoked, performed = self._assoc.requestor.asynchronous_operations
        if (invoked, performed) == (1, 1):
            return None
        try:
            answer = self._ask(
                evt.EVT_ASYNC_OPS,
                nr_invoked=invoked,
                nr_performed=performed,
                invoked=invoked,
                performed=performed,
            )
            return None if answer is None else (int(answer[0]), int(answer[1]))
        except Exception as error:
            log.exception("the handler of EVT_ASYNC_OPS failed: %s", error)
            return None


class _Policy:
    """Chooses transfer syntaxes by what is supported, in the order in which it was added."""

    def __init__(self, supported: list[PresentationContext], rq: AssociateRQ) -> None:
        self._supported = {str(context.abstract_syntax): context for context in supported}
        self._granted = {
            uid: roles for uid, roles in _granted(supported, rq).items() if roles == (False, False)
        }

    def __call__(self, proposed: Proposed) -> str | int:
        abstract = proposed.abstract_syntax
        if _config.UNRESTRICTED_STORAGE_SERVICE and may_store(abstract):
            return proposed.transfer_syntaxes[0] if proposed.transfer_syntaxes else ""
        supported = self._supported.get(abstract)
        if supported is None:
            return ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        if abstract in self._granted:
            return ContextResult.USER_REJECTION
        for syntax in supported.transfer_syntax:
            if syntax in proposed.transfer_syntaxes:
                return str(syntax)
        return ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED


def _roles(supported: list[PresentationContext], rq: AssociateRQ) -> dict[str, tuple[bool, bool]]:
    """Which roles the requestor may play, where the program says so."""
    roles = {
        str(context.abstract_syntax): (bool(context.scu_role), bool(context.scp_role))
        for context in supported
        if context.scu_role is not None and context.scp_role is not None
    }
    if _config.UNRESTRICTED_STORAGE_SERVICE:
        stored = {context.abstract_syntax for context in rq.contexts}
        roles |= {uid: (True, True) for uid in stored if may_store(uid)}
    return roles


def _granted(supported: list[PresentationContext], rq: AssociateRQ) -> dict[str, tuple[bool, bool]]:
    """What the requestor may play of what it proposed."""
    allowed = _roles(supported, rq)
    return {
        item.sop_class_uid: (
            item.scu and allowed[item.sop_class_uid][0],
            item.scp and allowed[item.sop_class_uid][1],
        )
        for item in rq.all_items(RoleSelection)
        if item.sop_class_uid in allowed
    }
