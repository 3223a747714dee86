"""Accepting associations.

The listener only accepts sockets: a TLS handshake and a PROXY header are waited for in a task of
the connection's own, A-ASSOCIATE-RQ in none, each with its deadline: a silent peer holds up nobody.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import ipaddress
import logging
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Sequence

from hilum.errors import AssociationTimeout, ConfigurationError, HilumError
from hilum.net.association import Association
from hilum.net.limits import Limits, Timeouts
from hilum.net.link import Link, Observer
from hilum.net.proxy import read_proxy_header
from hilum.net.service import Accept, Authorise, Peer, Reject
from hilum.wire.connection import Connection
from hilum.wire.fsm import State
from hilum.wire.negotiation import answer
from hilum.wire.pdu import AssociateRJ, AssociateRQ

__all__ = ["Server", "serve"]

log = logging.getLogger("hilum.net")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Server:
    """A listener and the associations that came in through it. Made by ``serve``."""

    def __init__(
        self,
        authorise: Authorise,
        *,
        timeouts: Timeouts,
        limits: Limits,
        tls: ssl.SSLContext | None,
        proxies: Sequence[Network],
        observer: Observer | None,
    ) -> None:
        self.authorise = authorise
        self.timeouts = timeouts
        self.limits = limits
        self.tls = tls
        self.proxies = tuple(proxies)
        self.observer = observer
        #: (host, port) of each listening socket.
        self.addresses: list[tuple[str, int]] = []
        self.associations: set[Association] = set()
        self.accepted = 0
        self.rejected = 0
        self.refused = 0
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._unassociated: OrderedDict[Association, None] = OrderedDict()
        self._of_address: Counter[str] = Counter()
        self._of_title: Counter[str] = Counter()
        self._closing = False

    @property
    def port(self) -> int:
        """The first listening socket's port."""
        return self.addresses[0][1]

    def _task(self, coroutine: object, name: str) -> None:
        task = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]  # coroutines only
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _listen(self, sock: socket.socket) -> None:
        self._sockets.append(sock)
        self.addresses.append(sock.getsockname()[:2])
        self._task(self._accept_forever(sock), f"accept {sock.getsockname()}")

    async def _accept_forever(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:
                if self._closing:
                    return
                log.error("accept failed: %s", error)
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # Nothing can be accepted until something is closed: free a silent one.
                    self._evict()
                await asyncio.sleep(0.05)
                continue
            association = self._admit(sock, address)
            if self.tls or self.proxies:
                # These wait for the peer.
                self._task(self._open(association, sock), f"open {address}")
                # Accepting never waits while more are queued; those here must get their turn.
                await asyncio.sleep(0)
            else:
                await self._open(association, sock)

    def _evict(self) -> None:
        if self._unassociated:
            association, _ = self._unassociated.popitem(last=False)
            self.refused += 1
            association.link.kill()

    def _admit(self, sock: socket.socket, address: tuple[str, int]) -> Association:
        timeouts, limits = self.timeouts, self.limits
        if len(self._unassociated) >= limits.max_unassociated:
            self._evict()
        connection = Connection(
            requestor=False, limits=limits.connection(timeouts), max_length=limits.max_length
        )
        association = Association(
            connection, timeouts=timeouts, limits=limits, requested=self._requested
        )
        association.peer = Peer(_plain(address[0]), address[1])
        association.on_end = self._ended
        association.on_closed = self._gone
        link = Link(connection, association, timeouts, limits, sock, self.observer)
        association.attach(link)
        self._unassociated[association] = None
        return association

    async def _open(self, association: Association, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        tls = self.tls
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._from_proxy(association.peer.address):
                await self._proxy_header(association, sock)
            await loop.connect_accepted_socket(
                lambda: association.link,
                sock,
                ssl=tls,
                ssl_handshake_timeout=self.timeouts.artim if tls else None,
            )
        except (OSError, HilumError) as error:
            # Port scans and clients without a certificate are everyday.
            log.info("no association with %s: %s", association.peer, error or "no end of header")
            self._unassociated.pop(association, None)
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise
        except Exception:  # one connection must not end the accepting of all
            log.exception("no association with %s", association.peer)
            self._unassociated.pop(association, None)
            sock.close()

    def _from_proxy(self, address: str) -> bool:
        if not self.proxies:
            return False
        ip = ipaddress.ip_address(address.partition("%")[0])
        return any(ip in network for network in self.proxies)

    async def _proxy_header(self, association: Association, sock: socket.socket) -> None:
        async with asyncio.timeout(self.timeouts.artim):
            original = await read_proxy_header(sock)
        peer = association.peer
        address, port = original or (peer.address, peer.port)
        association.peer = Peer(address, port, proxied=True)

    # ── A-ASSOCIATE-RQ ──────────────────────────────────────────────────────────────────────

    def _requested(self, association: Association, rq: AssociateRQ) -> None:
        full = self._full(association)
        if full is not None:
            self._reject(association, full)
            return
        decision: Accept | Reject | Awaitable[Accept | Reject]
        try:
            decision = self.authorise(rq, association.peer)
        except Exception:
            decision = self._undecided(association)
        if inspect.isawaitable(decision):
            self._task(self._decide(association, rq, decision), "authorise")
        else:
            self._answer(association, rq, decision)

    def _full(self, association: Association) -> Reject | None:
        limits = self.limits
        if self._closing:
            return Reject.limit("shutting down")
        if len(self.associations) >= limits.max_associations:
            return Reject.limit(f"{limits.max_associations} associations")
        if self._of_address[association.peer.address] >= limits.max_per_address:
            return Reject.limit(f"{limits.max_per_address} from one address")
        return None

    def _undecided(self, association: Association) -> Reject:
        log.exception("association %d: authorise failed", association.number)
        return Reject(2, 3, 1, "internal error")

    async def _decide(
        self, association: Association, rq: AssociateRQ, decision: Awaitable[Accept | Reject]
    ) -> None:
        answer: Accept | Reject
        try:
            async with asyncio.timeout(self.timeouts.associate):
                answer = await decision
        except TimeoutError:
            answer = Reject(2, 3, 1, "no decision in time")
        except Exception:
            answer = self._undecided(association)
        self._answer(association, rq, answer)

    def _answer(self, association: Association, rq: AssociateRQ, decision: Accept | Reject) -> None:
        if association.connection.state is not State.Sta3:
            return  # the peer has gone meanwhile, or sent what it may not
        if isinstance(decision, Reject):
            self._reject(association, decision)
            return
        # Others may have come in while this one was being decided about.
        full = self._full(association) or self._title_full(rq, decision)
        if full is not None:
            self._reject(association, full)
            return
        try:
            self._accept(association, rq, decision)
        except Exception:
            self._reject(association, self._undecided(association))

    def _title_full(self, rq: AssociateRQ, accept: Accept) -> Reject | None:
        most = self.limits.max_per_title if accept.max_for_title is None else accept.max_for_title
        if self._of_title[rq.called_ae_title] < most:
            return None
        return Reject.limit(f"{most} associations for one title")

    def _accept(self, association: Association, rq: AssociateRQ, accept: Accept) -> None:
        ac = answer(
            rq,
            accept.policy,
            max_length=self.limits.max_length,
            roles=accept.roles,
            window=accept.window,
            items=accept.items,
        )
        association.connection.send(ac, asyncio.get_running_loop().time())
        association.accept = accept
        self.accepted += 1
        self._unassociated.pop(association, None)
        self.associations.add(association)
        self._of_address[association.peer.address] += 1
        self._of_title[rq.called_ae_title] += 1
        log.info(
            "association %d: %s@%s calls %s",
            association.number,
            _shown(rq.calling_ae_title),
            association.peer,
            _shown(rq.called_ae_title),
        )
        if accept.begun is not None:
            try:
                accept.begun(association)
            except Exception:
                log.exception("association %d: what begins with it failed", association.number)
        association.receiving.pump()
        association.link.flush()

    def _reject(self, association: Association, reject: Reject) -> None:
        if association.connection.state is not State.Sta3:
            return
        rq = association.rq
        self.rejected += 1
        log.info(
            "association %d: %s@%s rejected %d/%d/%d for called title %s: %s",
            association.number,
            _shown(rq.calling_ae_title),
            association.peer,
            reject.result,
            reject.source,
            reject.reason,
            _shown(rq.called_ae_title),
            reject.why or "no reason given",
        )
        pdu = AssociateRJ(reject.result, reject.source, reject.reason)
        association.connection.send(pdu, asyncio.get_running_loop().time())
        association.link.flush()

    def _ended(self, association: Association) -> None:
        """The association is over; its connection counts with the silent ones until it closes."""
        if association in self.associations:
            self.associations.discard(association)
            for counter, key in (
                (self._of_address, association.peer.address),
                (self._of_title, association.rq.called_ae_title),
            ):
                counter[key] -= 1
                if counter[key] <= 0:
                    del counter[key]
            self._unassociated[association] = None

    def _gone(self, association: Association) -> None:
        self._unassociated.pop(association, None)

    # ── the end ─────────────────────────────────────────────────────────────────────────────

    async def stop_listening(self) -> None:
        """Let in no more connections; those that are here go on. Idempotent."""
        accepting = [task for task in self._tasks if task.get_name().startswith("accept")]
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def close(self, grace: float = 10.0) -> None:
        """Refuse what is new, let what is in flight finish, then end every association.

        Args:
            grace: seconds given to messages in progress; what is not answered by then is
                aborted, and the peer knows that it was not kept.
        """
        self._closing = True
        await self.stop_listening()
        for association in tuple(self._unassociated):
            association.link.kill()
        for association in tuple(self.associations):
            association.finish()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        while self.associations and loop.time() < deadline:
            for association in tuple(self.associations):
                if not association.is_busy:
                    association.abort(2, 0)
            if self.associations:
                await asyncio.sleep(0.01)
        for association in tuple(self.associations):
            association.end(AssociationTimeout("the server stopped"))
        for association in tuple(self._unassociated):
            association.link.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _plain(address: str) -> str:
    """An IPv4 peer on an IPv6 socket by its IPv4 address."""
    return address.removeprefix("::ffff:") if "." in address else address


def _shown(title: str) -> str:
    """An AE title for a log line: printable ASCII, whatever the peer sent."""
    return ascii(title)


async def serve(
    host: str | None,
    port: int,
    authorise: Authorise,
    *,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    proxies: Sequence[Network] = (),
    observer: Observer | None = None,
) -> Server:
    """Listen for associations.

    Standard: PS3.8 7.1, 9.1.

    Args:
        host: address to listen on; None is every address.
        port: TCP port; 0 takes a free one (``Server.port`` says which).
        authorise: decides about each A-ASSOCIATE-RQ, at once or as an awaitable with the
            deadline ``Timeouts.associate``.
        timeouts: deadlines, seconds.
        limits: counts and sizes.
        tls: a context of ``net.tls``; None is plain TCP.
        proxies: networks of load balancers that send a PROXY v2 header, without which nothing is
            accepted from them.
        observer: sees bytes and connection events.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    timeouts, limits = timeouts or Timeouts(), limits or Limits()
    server = Server(
        authorise, timeouts=timeouts, limits=limits, tls=tls, proxies=proxies, observer=observer
    )
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}"
        ) from error
    for family, kind, protocol, _, address in dict.fromkeys(found):
        sock = socket.socket(family, kind, protocol)
        try:
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(limits.backlog)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            await server.close(0)
            raise ConfigurationError(
                f"cannot listen on {address[0]}:{port}: {(error.strerror or str(error)).lower()}; "
                "choose another port, or end what has it"
            ) from error
        server._listen(sock)
    return server
