"""The acceptor's answer to A-ASSOCIATE-RQ, and the requestor's reading of it.

Standard: PS3.8 7.1.1.13, 9.3.3; PS3.7 annex D.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from hilum.wire.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    UserItem,
)
from hilum.wire.pdu import AssociateAC, AssociateRQ, ContextResult, PresentationContext

__all__ = [
    "UNLIMITED_WINDOW",
    "ContextPolicy",
    "answer",
    "granted_roles",
    "granted_window",
    "own_items",
    "presentation_contexts",
]

#: Says for a proposed context which transfer syntax is accepted, or why none is
#: (``ContextResult``).
ContextPolicy = Callable[[PresentationContext], str | int]


def own_items(max_length: int, others: Iterable[UserItem] = ()) -> tuple[UserItem, ...]:
    """Maximum length and the two implementation items, which every A-ASSOCIATE carries.

    Args:
        max_length: our maximum length for P-DATA-TF bodies, bytes; 0 is no limit.
        others: the items that follow; those of them that say who we are replace ours.
    """
    said = {type(item) for item in others}
    if ImplementationClassUID in said:
        return (MaximumLength(max_length),)
    return (
        MaximumLength(max_length),
        ImplementationClassUID(IMPLEMENTATION_CLASS_UID),
        ImplementationVersionName(IMPLEMENTATION_VERSION_NAME),
    )


def presentation_contexts(
    pairs: Iterable[tuple[str, tuple[str, ...]]],
) -> tuple[PresentationContext, ...]:
    """Proposed contexts with the odd ids 1, 3, 5 … from (abstract syntax, transfer syntaxes)."""
    return tuple(
        PresentationContext(2 * index + 1, abstract, syntaxes)
        for index, (abstract, syntaxes) in enumerate(pairs)
    )


def answer(
    rq: AssociateRQ,
    policy: ContextPolicy,
    *,
    max_length: int,
    roles: Mapping[str, tuple[bool, bool]] | None = None,
    window: tuple[int, int] | None = None,
    items: Iterable[UserItem] = (),
) -> AssociateAC:
    """A-ASSOCIATE-AC for what was proposed.

    Every context id is answered once, in the order proposed; a repeated id is answered by its
    first appearance, an even one like an odd one. Extended negotiation is answered by ``items``.

    Args:
        rq: the request.
        policy: chooses per context.
        max_length: our maximum length for P-DATA-TF bodies, bytes; 0 is no limit.
        roles: SOP class UID → (SCU, SCP) that we let the requestor play; others are not answered,
            which leaves the default roles (PS3.7 D.3.3.4).
        window: operations that the requestor may have outstanding as (invoker, performer), where it
            proposed a window, and never more than it proposed; 0 is no limit. None answers 1, 1,
            which is what an absent item means.
        items: further user-information sub-items; an implementation class UID among them, and its
            version name, replace ours.
    """
    answered: dict[int, PresentationContext] = {}
    for context in rq.contexts:
        if context.context_id in answered:
            continue
        outcome = policy(context)
        accepted = isinstance(outcome, str)
        # A rejected context names a transfer syntax that is not significant (PS3.8 9.3.3.2).
        syntax = outcome if isinstance(outcome, str) else (context.transfer_syntaxes or ("",))[0]
        answered[context.context_id] = PresentationContext(
            context.context_id,
            context.abstract_syntax,
            (syntax,),
            ContextResult.ACCEPTANCE if accepted else int(outcome),
        )
    items = tuple(items)
    answers: list[UserItem] = [*own_items(max_length, items)]
    for role in rq.all_items(RoleSelection):
        granted = (roles or {}).get(role.sop_class_uid)
        if granted is not None:
            answers.append(
                RoleSelection(role.sop_class_uid, role.scu and granted[0], role.scp and granted[1])
            )
    proposed = rq.item(AsynchronousOperationsWindow)
    if proposed is not None:
        invoked, performed = window or (1, 1)
        answers.append(
            AsynchronousOperationsWindow(
                _fewer(proposed.invoked, invoked), _fewer(proposed.performed, performed)
            )
        )
    answers.extend(items)
    return AssociateAC(
        called_ae_title=rq.called_ae_title,
        calling_ae_title=rq.calling_ae_title,
        contexts=tuple(answered.values()),
        user_items=tuple(answers),
    )


def _fewer(one: int, other: int) -> int:
    """The smaller of two numbers of which 0 means no limit."""
    return min(one, other) if one and other else one or other


UNLIMITED_WINDOW = 0x10000
"""More than there are Message IDs."""


def granted_window(rq: AssociateRQ, ac: AssociateAC) -> tuple[int, int]:
    """How many operations the requestor may have outstanding, and how many the acceptor may.

    What was not proposed was not granted, whatever the answer says; without a window it is one.

    Standard: PS3.7 D.3.3.3.
    """
    proposed = rq.item(AsynchronousOperationsWindow)
    granted = ac.item(AsynchronousOperationsWindow)
    if proposed is None or granted is None:
        return 1, 1
    return (
        _fewer(proposed.invoked, granted.invoked) or UNLIMITED_WINDOW,
        _fewer(proposed.performed, granted.performed) or UNLIMITED_WINDOW,
    )


def granted_roles(rq: AssociateRQ, ac: AssociateAC) -> dict[str, tuple[bool, bool]]:
    """SOP class UID → the roles (SCU, SCP) that the requestor may play; others have the default.

    Standard: PS3.7 D.3.3.4.
    """
    proposed = {role.sop_class_uid: role for role in rq.all_items(RoleSelection)}
    return {
        role.sop_class_uid: (
            role.scu and proposed[role.sop_class_uid].scu,
            role.scp and proposed[role.sop_class_uid].scp,
        )
        for role in ac.all_items(RoleSelection)
        if role.sop_class_uid in proposed
    }
