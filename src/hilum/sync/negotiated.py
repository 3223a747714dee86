"""What was negotiated, between ``net``'s terms and those of programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hilum.net.association import Association as NetAssociation
from hilum.net.limits import Timeouts
from hilum.net.service import Context
from hilum.sync.presentation import PresentationContext
from hilum.sync.users import primitive_of

if TYPE_CHECKING:
    from hilum.sync.ae import ApplicationEntity
    from hilum.sync.association import Association

__all__ = ["FOREVER", "Seconds", "closing_address", "context_for", "contexts"]

FOREVER = 3e8
"""Seconds, ten years: what a time-out of None means to a timer."""

# Where a program set none, the operating system's own would be minutes.
CONNECT = Timeouts().connect


class Seconds(NamedTuple):
    """The four time-outs of programs; None waits for ever."""

    acse: float | None
    dimse: float | None
    network: float | None
    connection: float | None

    @classmethod
    def of(cls, ae: ApplicationEntity) -> Seconds:
        """Those of an application entity, for a new association."""
        return cls(ae.acse_timeout, ae.dimse_timeout, ae.network_timeout, ae.connection_timeout)

    def for_net(self) -> Timeouts:
        """The same in ``net``'s terms; what programs cannot set keeps its default."""
        acse = FOREVER if self.acse is None else self.acse
        return Timeouts(
            connect=CONNECT if self.connection is None else self.connection,
            artim=acse,
            associate=acse,
            dimse=FOREVER if self.dimse is None else self.dimse,
            release=acse,
            idle=self.network,
        )


def contexts(core: NetAssociation, assoc: Association) -> list[PresentationContext]:
    """The answered contexts with the roles that we play, by their ids."""
    proposed = primitive_of(core.rq).presentation_context_definition_list
    abstract = {context.context_id: context.abstract_syntax for context in reversed(proposed)}
    answered = primitive_of(core.ac).presentation_context_definition_results_list
    made = []
    for context in answered:
        if context.context_id not in abstract:
            continue  # the peer answers what nobody proposed
        context._abstract_syntax = abstract.pop(context.context_id)
        role = core.contexts.get(context.context_id or 0)
        context._as_scu = role.scu if role is not None else False
        context._as_scp = role.scp if role is not None else False
        made.append(context)
    for number, syntax in abstract.items():
        # The peer left it out: nobody accepted it.
        context = PresentationContext()
        context._context_id, context._abstract_syntax, context.result = number, syntax, 2
        made.append(context)
    return sorted(made, key=lambda context: context.context_id or 0)


def context_for(core: NetAssociation, abstract_syntax: str, role: str | None) -> Context | None:
    """The first accepted context of an abstract syntax in which we have a role."""
    for context in core.contexts.values():
        fits = role is None or (context.scu if role == "scu" else context.scp)
        if context.abstract_syntax == abstract_syntax and fits:
            return context
    return None


def closing_address(core: NetAssociation | None) -> dict[str, Any]:
    """The attribute of ``EVT_CONN_CLOSE``: the peer's address."""
    return {} if core is None else {"address": (core.peer.address, core.peer.port)}
