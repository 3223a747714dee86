"""Query/Retrieve as a service of the gateway: who is served it, and with which handlers.

Titles that keep for everyone answer queries and retrieves; those of users and pipelines answer
neither, whoever calls.

Standard: PS3.4 C.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hilum.gateway.config import Config
from hilum.gateway.flow.address import Call
from hilum.gateway.flow.negotiated import FIND, RETRIEVE, negotiate, roles_for_get
from hilum.gateway.flow.query import Asker, QueryProvider
from hilum.gateway.flow.retrieve import RetrieveProvider
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database
from hilum.gateway.store.decoding import Decoders
from hilum.gateway.store.entries import Snapshot
from hilum.net.service import Accept, Handler, service_policy, storage_policy
from hilum.services.sop_classes import may_store
from hilum.wire.command import CommandField
from hilum.wire.negotiation import ContextPolicy
from hilum.wire.pdu import PresentationContext

__all__ = ["QueryRetrieve"]


class QueryRetrieve:
    """Adds C-FIND, C-GET and C-MOVE to acceptances; see ``address.Service``.

    Args:
        config: the whole tree.
        database: see `open_database`.
        blobs: the objects.
        snapshot: gives the directory of this moment.
        decoders: for those who take no compressed images.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        blobs: BlobStore,
        snapshot: Callable[[], Snapshot],
        decoders: Decoders,
    ) -> None:
        self._queries = QueryProvider(database, blobs, config.query)
        self._retrieves = RetrieveProvider(database, blobs, config, snapshot, decoders)

    def admit(self, accept: Accept, call: Call) -> Accept:
        """The same acceptance, with what the caller may ask for."""
        if not call.keeps_for_all:
            return accept
        negotiated, answers = negotiate(call.rq)
        asker = Asker(call.viewer, call.called_ae, negotiated, call.fallback_charset)
        classes: set[str] = set()
        handlers: dict[CommandField, Handler] = {}
        roles = dict(accept.roles)
        policy = accept.policy
        if call.may("query"):
            classes |= FIND
            handlers[CommandField.C_FIND_RQ] = lambda rq: self._queries.find(rq, asker)
        if call.may("retrieve"):
            classes |= RETRIEVE
            handlers[CommandField.C_GET_RQ] = lambda rq: self._retrieves.get(rq, asker)
            handlers[CommandField.C_MOVE_RQ] = lambda rq: self._retrieves.move(rq, asker)
            to_us = roles_for_get(call.rq)  # none where nobody has asked
            roles |= to_us
            if to_us:
                policy = _also_from_us(frozenset(to_us), policy)
        if not classes:
            return accept
        return replace(
            accept,
            policy=service_policy(classes, otherwise=policy),
            roles=roles,
            items=(*accept.items, *(one for one in answers if one.sop_class_uid in classes)),
            handlers={**accept.handlers, **handlers},
        )


def _also_from_us(classes: frozenset[str], otherwise: ContextPolicy) -> ContextPolicy:
    """Contexts that a requestor takes data sets in are accepted, even if it may store none."""
    storing = storage_policy()

    def policy(context: PresentationContext) -> str | int:
        outcome = otherwise(context)
        if isinstance(outcome, str) or context.abstract_syntax not in classes:
            return outcome
        return storing(context) if may_store(context.abstract_syntax) else outcome

    return policy
