"""Addresses, and servers: listeners whose associations are served by handlers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hilum.errors import ConfigurationError
from hilum.net.association import Association as NetAssociation
from hilum.net.limits import Limits
from hilum.net.link import Link
from hilum.net.server import Server, serve
from hilum.net.service import Accept, Peer, Reject
from hilum.sync import _config, acceptor
from hilum.sync import events as evt
from hilum.sync._globals import MODE_ACCEPTOR
from hilum.sync.association import Association
from hilum.sync.events import Bindings, EventHandlerType, EventType, Handler
from hilum.sync.loop import Closing, Loop
from hilum.sync.negotiated import Seconds
from hilum.sync.presentation import PresentationContext
from hilum.sync.users import primitive_of
from hilum.wire.pdu import AssociateRQ

if TYPE_CHECKING:
    from hilum.sync.ae import ApplicationEntity

__all__ = ["AddressInformation", "AssociationServer", "ThreadedAssociationServer"]

log = logging.getLogger("hilum.sync")

Address = tuple[str, int] | tuple[str, int, int, int]

# The limit that programs set is ``ae.maximum_associations``, which may be changed at any time; this
# is only what stands behind it.
MOST_ASSOCIATIONS = 65_536


class AddressInformation:
    """An IP address and a TCP port.

    Args:
        addr: an address or host name, of which the first IPv4 address is taken, else the first
            IPv6 one; empty is every address.
        port: the port.
        flowinfo: of IPv6.
        scope_id: of IPv6.

    Raises:
        socket.gaierror: the name is not known.
    """

    def __init__(self, addr: str, port: int, flowinfo: int = 0, scope_id: int = 0) -> None:
        self.address = addr
        self.port = port
        self.flowinfo = flowinfo
        self.scope_id = scope_id

    @property
    def address(self) -> str:
        """Get or set the address; a name is looked up."""
        return self._address

    @address.setter
    def address(self, value: str) -> None:
        flags = 0 if value else socket.AI_PASSIVE
        found = socket.getaddrinfo(value or None, 0, type=socket.SOCK_STREAM, flags=flags)
        by_family: dict[int, str] = {}
        for family, _, _, _, address in found:
            by_family.setdefault(family, str(address[0]))
        for family in (socket.AF_INET, socket.AF_INET6):
            if family in by_family:
                self._address = by_family[family]
                return
        raise socket.gaierror("Address resolution failed")

    @property
    def address_family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        return socket.AF_INET if self.is_ipv4 else socket.AF_INET6

    @property
    def is_ipv4(self) -> bool:
        """Whether it is an IPv4 address."""
        return "." in self.address and ":" not in self.address

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.address

    @property
    def as_tuple(self) -> Address:
        """As ``socket`` has it."""
        if self.is_ipv4:
            return self.address, self.port
        return self.address, self.port, self.flowinfo, self.scope_id

    @classmethod
    def from_tuple(cls, address_info: Address) -> AddressInformation:
        """From an address as ``socket`` has it."""
        return cls(*address_info)

    @classmethod
    def from_addr_port(cls, addr: str | tuple[str, int, int], port: int) -> AddressInformation:
        """From an address, or one with flow information and scope, and a port."""
        if isinstance(addr, tuple):
            return cls(addr[0], port, addr[1], addr[2])
        return cls(addr, port)


class AssociationServer(Bindings, Closing):
    """A listener of an application entity. Made by ``AE.start_server`` and ``AE.make_server``.

    Args:
        ae: whose.
        address: to listen on.
        ae_title: our title.
        contexts: what is supported.
        ssl_context: for TLS.
        evt_handlers: for its associations.
        loop: that serves it.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        address: Address,
        ae_title: str,
        contexts: list[PresentationContext],
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Sequence[EventHandlerType] | None = None,
        *,
        loop: Loop,
    ) -> None:
        super().__init__(evt_handlers)
        self.ae = ae
        self.ae_title = ae_title
        self.contexts = contexts
        self.ssl_context = ssl_context
        self.address_info = AddressInformation.from_tuple(address)
        self._loop = loop
        self._context = contextvars.copy_context() if _config.PASS_CONTEXTVARS else None
        self._stopped = threading.Event()
        self._associations: dict[NetAssociation, Association] = {}
        self._ending: tuple[Association, ...] = ()
        self._requested: dict[NetAssociation, Association] = {}
        self._server: Server = loop.call(self._listen())
        self.server_address: Address = self._server.addresses[0]
        self.address_info.port = self.server_address[1]
        loop.open.add(self)

    async def _listen(self) -> Server:
        ae = self.ae
        most = MOST_ASSOCIATIONS
        try:
            return await serve(
                self.address_info.address,
                self.address_info.port,
                self._authorise,
                timeouts=Seconds.of(ae).for_net(),
                limits=Limits(
                    max_length=ae.maximum_pdu_size,
                    max_associations=most,
                    max_per_address=most,
                    max_per_title=most,
                ),
                tls=self.ssl_context,
                observer=self,
            )
        except ConfigurationError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    # ── for programs ────────────────────────────────────────────────────────────────────────

    @property
    def active_associations(self) -> list[Association]:
        """Its associations that have a connection, or handlers that run."""
        known = (*self._associations.copy().values(), *self._ending)
        return [each for each in known if each.is_alive()]

    @property
    def established(self) -> int:
        """How many associations it has accepted, and still has."""
        return sum(core.is_established for core in tuple(self._associations))

    def bind(self, event: EventType, handler: Handler, args: list[Any] | None = None) -> None:
        """Bind a handler to an event, also of the associations that are there."""
        super().bind(event, handler, args)
        for assoc in getattr(self, "_associations", {}).copy().values():
            assoc.bind(event, handler, args)

    def unbind(self, event: EventType, handler: Handler) -> None:
        """Unbind a handler from an event, also of the associations that are there."""
        super().unbind(event, handler)
        for assoc in self._associations.copy().values():
            assoc.unbind(event, handler)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Wait until ``shutdown`` is called; the listener works all the time."""
        self._loop.check()
        # On Windows nothing interrupts a wait without end.
        seconds = 1.0 if sys.platform == "win32" else None
        while not self._stopped.wait(seconds):
            pass

    def shutdown(self) -> None:
        """Stop listening; associations that are there go on to their own ends. Idempotent."""
        self._loop.check()
        if not self._stopped.is_set():
            self._stopped.set()
            self._loop.call(self._server.stop_listening())
        if self in self.ae._servers:
            self.ae._servers.remove(self)

    def server_close(self) -> None:
        """The same as ``shutdown``."""
        self.shutdown()

    def __enter__(self) -> AssociationServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()

    # ── on the loop ─────────────────────────────────────────────────────────────────────────

    async def close_at_exit(self) -> None:
        """The interpreter exits."""
        await self._server.close(0)

    def opened(self, link: Link) -> None:
        """For ``net``: a connection has come in."""
        core = link.owner
        assert isinstance(core, NetAssociation)
        assoc = self._associations[core] = self._requested[core] = Association(
            self.ae, MODE_ACCEPTOR, self._loop, self._context.copy() if self._context else None
        )
        assoc.server = self
        assoc.copy_from(self)
        assoc.connected(core)
        # The AE may have been given others since the server was started.
        core.timeouts = Seconds.of(self.ae).for_net()
        link.set_timeouts(core.timeouts)
        acceptor.prepare(assoc, self, core)
        core.connection.transition = assoc.trace.stepped
        assoc.notify(evt.EVT_CONN_OPEN, address=(core.peer.address, core.peer.port))

    def received(self, link: Link, data: memoryview) -> None:
        """For ``net``: bytes have come in."""
        assoc = self._associations.get(link.owner)  # type: ignore[call-overload]  # see ``opened``
        if assoc is not None:
            assoc.trace.received(data)

    def sent(self, link: Link, data: list[bytes | bytearray | memoryview]) -> None:
        """For ``net``: bytes have been written."""
        assoc = self._associations.get(link.owner)  # type: ignore[call-overload]  # see ``opened``
        if assoc is not None:
            assoc.trace.sent(data)

    def closed(self, link: Link, error: Exception | None) -> None:
        """For ``net``: a connection is gone."""
        assoc = self._associations.pop(link.owner, None)  # type: ignore[call-overload]  # see ``opened``
        self._requested.pop(link.owner, None)  # type: ignore[call-overload]  # see ``opened``
        if assoc is not None:
            self._ending = (*(each for each in self._ending if each.is_alive()), assoc)
            # ``net`` hears of it after its observers.
            asyncio.get_running_loop().call_soon(assoc.closed)

    async def _authorise(self, rq: AssociateRQ, peer: Peer) -> Accept | Reject:
        assoc = next((made for core, made in self._requested.items() if core.peer is peer), None)
        if assoc is None:
            return Reject(2, 3, 1, "the connection is gone")
        assoc.requestor.primitive = primitive_of(rq)
        assoc.requestor.ae_title = rq.calling_ae_title
        decision = await acceptor.decide(assoc, rq)
        core = assoc.core
        assert core is not None
        self._requested.pop(core, None)
        # ``net`` sends the answer when this has returned, and before anything else happens.
        asyncio.get_running_loop().call_soon(self._answered, assoc, core)
        return decision

    def _answered(self, assoc: Association, core: NetAssociation) -> None:
        if core.connection.ac is not None:
            assoc.acceptor.primitive = primitive_of(core.ac)
            assoc.negotiated(core)
            if core.is_established:
                assoc.established()
        elif not core.is_over:
            assoc.rejected()


ThreadedAssociationServer = AssociationServer
