"""Requesting an association.

Standard: PS3.8 7.1; PS3.7 annex D.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hilum.errors import (
    AssociationRejected,
    AssociationTimeout,
    ConnectFailed,
    HilumError,
    LocalProtocolError,
)
from hilum.net.association import Association as NetAssociation
from hilum.net.client import connect
from hilum.net.limits import Limits
from hilum.net.link import Link
from hilum.sync import _config
from hilum.sync import events as evt
from hilum.sync._globals import MODE_REQUESTOR
from hilum.sync.association import Association
from hilum.sync.events import EventHandlerType
from hilum.sync.identity import identity_of
from hilum.sync.loop import Loop
from hilum.sync.negotiated import Seconds
from hilum.sync.pdu_primitives import A_ASSOCIATE, ServiceParameter
from hilum.sync.presentation import PresentationContext
from hilum.sync.transport import Address, AddressInformation
from hilum.sync.users import primitive_of
from hilum.wire.items import RoleSelection

if TYPE_CHECKING:
    from hilum.sync.ae import ApplicationEntity

__all__ = ["associate", "check_address"]

log = logging.getLogger("hilum.sync")


def check_address(addr: Any, port: Any, bind: Any) -> None:
    """The addresses of ``associate``.

    Raises:
        TypeError: they are of no type that it takes.
    """
    as_tuple = (
        isinstance(addr, tuple)
        and len(addr) == 3
        and isinstance(addr[0], str)
        and all(isinstance(number, int) for number in addr[1:])
    )
    if not isinstance(addr, str) and not as_tuple:
        raise TypeError("'addr' must be str or tuple[str, int, int]")
    if not isinstance(port, int):
        raise TypeError("'port' must be int")
    if bind is None:
        return
    if (
        not isinstance(bind, tuple | list)
        or len(bind) not in (2, 4)
        or not isinstance(bind[0], str)
        or not all(isinstance(number, int) for number in bind[1:])
    ):
        raise TypeError("'bind_address' must be tuple[str, int] or tuple[str, int, int, int]")


class _Observer:
    """Hears of the connection that carries an association which we request."""

    def __init__(self, assoc: Association) -> None:
        self._assoc = assoc

    def opened(self, link: Link) -> None:
        """The connection is there."""
        core = link.owner
        assert isinstance(core, NetAssociation)
        assoc = self._assoc
        assoc.connected(core)
        core.on_end = lambda ended: assoc.ended(ended.error)
        core.connection.transition = assoc.trace.stepped
        assert link.transport is not None
        local = link.transport.get_extra_info("sockname")
        assoc.requestor.address_info = AddressInformation(local[0], local[1])
        assoc.acceptor.address_info = AddressInformation(core.peer.address, core.peer.port)
        assoc.requestor.primitive = primitive_of(core.rq)
        assoc.notify(evt.EVT_CONN_OPEN, address=(core.peer.address, core.peer.port))
        assoc.notify(evt.EVT_REQUESTED)

    def received(self, link: Link, data: memoryview) -> None:
        """Bytes have come."""
        self._assoc.trace.received(data)

    def sent(self, link: Link, data: list[bytes | bytearray | memoryview]) -> None:
        """Bytes have gone."""
        self._assoc.trace.sent(data)

    def closed(self, link: Link, error: Exception | None) -> None:
        """The connection is gone."""
        # ``net`` hears of it after its observers.
        self._assoc.loop.post(self._assoc.closed)


def associate(
    ae: ApplicationEntity,
    loop: Loop,
    *,
    addr: str | tuple[str, int, int],
    port: int,
    contexts: list[PresentationContext],
    called: str,
    max_pdu: int,
    items: Sequence[ServiceParameter],
    bind: Address | None,
    tls: tuple[ssl.SSLContext, str] | None,
    handlers: Sequence[EventHandlerType],
) -> Association:
    """Request an association and wait for the answer; see ``ApplicationEntity.associate``."""
    assoc = Association(ae, MODE_REQUESTOR, loop)
    for each in handlers:
        assoc.bind(*each)
    assoc.acceptor.ae_title = called
    assoc.requestor.ae_title = ae.ae_title
    assoc.requestor.items = [*identity_of(ae, max_pdu), *items]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    assoc.requestor.contexts = contexts
    sent = [item.item() for item in (*identity_of(ae, None), *items)]
    host = addr if isinstance(addr, str) else f"{addr[0]}%{addr[2]}" if addr[2] else addr[0]
    ae._associations.add(assoc)

    async def request() -> NetAssociation:
        core = await connect(
            host,
            port,
            called=called,
            calling=ae.ae_title,
            contexts=[
                (str(context.abstract_syntax), tuple(map(str, context.transfer_syntax)))
                for context in contexts
            ],
            timeouts=Seconds.of(ae).for_net(),
            limits=Limits(max_length=max_pdu, max_responses=max(1, _config.MAX_WAITING_RESPONSES)),
            tls=tls[0] if tls else None,
            server_hostname=(tls[1] or None) if tls else None,
            roles=[item for item in sent if isinstance(item, RoleSelection)],
            items=[item for item in sent if not isinstance(item, RoleSelection)],
            open_store=assoc.provider.open_store,
            handlers=assoc.provider.handlers,
            bind=(bind[0], bind[1]) if bind else None,
            observer=_Observer(assoc),
        )
        assoc.acceptor.primitive = primitive_of(core.ac)
        assoc.negotiated(core)
        if not core.is_established:
            pass  # the peer has ended it meanwhile
        elif assoc.accepted_contexts:
            assoc.established()
        else:
            log.error("the peer accepted none of the presentation contexts")
            core.abort(2, 0)
        return core

    log.info("Requesting Association")
    try:
        loop.call(request())
    except AssociationRejected as error:
        _rejected(assoc, error)
    except LocalProtocolError as error:
        raise ValueError(str(error)) from error
    except HilumError as error:
        _failed(assoc, error)
    assoc._flush()
    return assoc


def _rejected(assoc: Association, error: AssociationRejected) -> None:
    log.error("%s", error)
    answer = assoc.acceptor.primitive = A_ASSOCIATE()
    answer.called_ae_title = assoc.acceptor.ae_title
    answer.calling_ae_title = assoc.requestor.ae_title
    answer.result, answer.result_source = error.result, error.source
    answer.diagnostic = error.reason


def _failed(assoc: Association, error: HilumError) -> None:
    if isinstance(error, ConnectFailed):
        log.error("Association request failed: unable to connect to remote")
        log.error("TCP Initialisation Error: %s", error)
    elif isinstance(error, AssociationTimeout):
        log.error("ACSE timeout reached while waiting for response: %s", error)
    else:
        log.error("Association request failed: %s", error)
    assoc.is_aborted = True
