"""The address is the AE title: who may call, what the called title means, whose the objects are.

Everything is decided from one snapshot of the directory, without I/O, between A-ASSOCIATE-RQ and
its answer.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hilum.errors import ConfigurationError
from hilum.gateway.config import Access
from hilum.gateway.flow.identity import PasscodeChecker, is_checked
from hilum.gateway.flow.moves import Moves
from hilum.gateway.flow.receive import opener
from hilum.gateway.permission import fingerprint, may_see
from hilum.gateway.store.commit import Committer, Destination
from hilum.gateway.store.entries import (
    PIPELINE_PREFIX,
    SERVICES,
    USER_PREFIX,
    CalledTitle,
    Listener,
    Peer,
    Snapshot,
    check_ae_title,
)
from hilum.gateway.store.results import Viewer
from hilum.gateway.store.states import GLOBAL_OWNER, TitleKind, quarantine_owner
from hilum.net.server import Network
from hilum.net.service import Accept, Reject, storage_policy
from hilum.net.service import Peer as Caller
from hilum.wire.items import ExtendedNegotiation, RoleSelection, UserIdentityResponse
from hilum.wire.pdu import AssociateRQ

__all__ = ["Call", "Router", "Service"]

ANY = "*"
"""A peer with this AE title stands for every caller from its addresses."""


_ANY_SERVICE = frozenset(SERVICES)
# What of a request, besides its titles, may change what is offered.
_NEGOTIATED = (RoleSelection, ExtendedNegotiation)
# Calling titles are the callers' choice: no more offers than this are remembered.
_OFFERS = 256


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls whom, as far as a service has to know.

    Args:
        called_ae: called AE title, as it was called.
        calling_ae: calling AE title.
        owner_id: whose instances the title keeps; negative for those in quarantine.
        peer: the peer that calls; None where others are welcome.
        viewer: what it may see.
        keeps_for_all: the title keeps for everyone; only such a title answers queries.
        fallback_charset: of text without (0008,0005); None for the default.
        rq: A-ASSOCIATE-RQ where it negotiates roles or extensions, None otherwise.
    """

    called_ae: str
    calling_ae: str
    owner_id: int
    peer: Peer | None
    viewer: Viewer = Viewer()  # noqa: RUF009 - frozen
    keeps_for_all: bool = False
    fallback_charset: str | None = None
    rq: AssociateRQ | None = None

    def may(self, service: str) -> bool:
        """Whether the caller may ask for a service of `SERVICES`."""
        return self.peer is None or service in self.peer.services


Service = Callable[[Accept, Call], Accept]
"""Gives back an acceptance with more in it."""


@dataclass
class Router:
    """Decides about associations.

    Args:
        access: who may connect without being a peer.
        snapshot: the directory.
        networks: of peers' hosts, from ``names.HostNames``.
        committer: takes what is stored.
        services: what is served besides storage: each adds its own to an acceptance.
        moves: C-MOVEs of ours that go on.
        passcodes: checks user identities.
    """

    access: Access
    snapshot: Snapshot
    networks: Mapping[str, tuple[Network, ...]]
    committer: Committer
    services: Sequence[Service] = ()
    moves: Moves | None = None
    passcodes: PasscodeChecker = field(default_factory=PasscodeChecker)
    _listener_networks: dict[str, tuple[Network, ...]] = field(default_factory=dict)
    _offers: dict[object, Accept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._allowed = self.access.allowed_networks
        self._trust_loopback = self.access.allow_local and not self.access.proxies
        for listener in self.snapshot.listeners:
            self._listener_networks[listener.name] = tuple(
                ipaddress.ip_network(span, strict=False) for span in listener.allowed
            )

    def authorise(
        self, listener: Listener, rq: AssociateRQ, caller: Caller
    ) -> Accept | Reject | Awaitable[Accept | Reject]:
        """Let an association in, or say why not.

        Who is not allowed to call is told so before anything about titles, or about a passcode,
        which is looked at of peers only and takes a while.
        """
        peer = self._peer(rq.calling_ae_title, caller.address)
        if peer is None and not self._is_welcome(listener, caller):
            return Reject.unknown_calling_title(_stranger(rq.calling_ae_title, caller.address))
        if peer is not None and _ANY_SERVICE.isdisjoint(peer.services):
            return Reject.unknown_calling_title(f"peer {peer.name!r} may ask for nothing")
        certificate = _certificate(caller)
        if peer is not None and is_checked(rq.user_identity):
            return self._with_passcode(listener, rq, peer, certificate, caller.address)
        return self._titled(
            listener, rq, peer, may_see(self.snapshot, peer, certificate=certificate)
        )

    async def _with_passcode(
        self, listener: Listener, rq: AssociateRQ, peer: Peer, certificate: str, address: str
    ) -> Accept | Reject:
        identity = rq.user_identity
        assert identity is not None
        user = await self.passcodes.check(identity, self.snapshot, address)
        if user is None:
            return Reject(why=f"peer {peer.name!r}: no such user, or another passcode")
        viewer = may_see(self.snapshot, peer, certificate=certificate, user=user)
        decision = self._titled(listener, rq, peer, viewer)
        if isinstance(decision, Accept) and identity.response_requested:
            return replace(decision, items=(*decision.items, UserIdentityResponse()))
        return decision

    def _titled(
        self, listener: Listener, rq: AssociateRQ, peer: Peer | None, viewer: Viewer
    ) -> Accept | Reject:
        """What the called title makes of it."""
        called = rq.called_ae_title
        title_found = self.snapshot.resolve(called)
        if title_found is not None:
            return self._served(title_found, peer, rq, viewer)
        if not listener.any_title or self._is_somebodys(called):
            return Reject.unknown_called_title(_unknown(called))
        default = self.snapshot.resolve(listener.default_title)
        if default is None:
            return Reject.unknown_called_title(
                f"listener {listener.name!r} takes any title for {listener.default_title!r}, which "
                f"is not served; add it with 'hilum ae add {shlex.quote(listener.default_title)}'"
            )
        return self._served(default, peer, rq, viewer)

    def _is_somebodys(self, called: str) -> bool:
        """A title that names a user or a pipeline, or is switched off, never means another."""
        return (
            called.startswith((USER_PREFIX, PIPELINE_PREFIX))
            or any(called in account.titles for account in self.snapshot.accounts)
            or any(called == title.title for title in self.snapshot.called_titles)
        )

    def _peer(self, calling: str, address: str) -> Peer | None:
        """The peer of that AE title at that address; one with the title goes before ``*``."""
        ip = _ip(address)
        any_title: Peer | None = None
        for peer in self.snapshot.peers:
            if peer.ae_title in (calling, ANY) and any(
                ip in network for network in self.networks.get(peer.host, ())
            ):
                if peer.ae_title != ANY:
                    return peer
                any_title = peer
        return any_title

    def _is_welcome(self, listener: Listener, caller: Caller) -> bool:
        ip = _ip(caller.address)
        networks = self._listener_networks.get(listener.name, ()) + self._allowed
        if any(ip in network for network in networks):
            return True
        # A balancer's connections come from this machine for everyone.
        return ip.is_loopback and self._trust_loopback and not caller.proxied

    def _served(
        self, title: CalledTitle, peer: Peer | None, rq: AssociateRQ, viewer: Viewer
    ) -> Accept | Reject:
        if title.peers and (peer is None or peer.name not in title.peers):
            return Reject.unknown_calling_title(
                f"{title.title!r} is for certain peers, see 'hilum ae ls'"
            )
        owner_id = title.account_id or GLOBAL_OWNER
        if title.kind is TitleKind.QUARANTINE:
            owner_id = quarantine_owner(owner_id)
        negotiates = any(isinstance(item, _NEGOTIATED) for item in rq.user_items)
        call = Call(
            rq.called_ae_title,
            rq.calling_ae_title,
            owner_id,
            peer,
            viewer,
            fallback_charset=_fallback(title, peer),
            rq=rq if negotiates else None,
        )
        if negotiates:
            return self.offered(title, call)
        # The same as last time, which makes a third of an association.
        key = (title.title, owner_id, call.called_ae, call.calling_ae, peer and peer.name, viewer)
        accept = self._offers.get(key)
        if accept is None:
            if len(self._offers) >= _OFFERS:
                self._offers.clear()
            accept = self._offers[key] = self.offered(title, call)
        return accept

    def offered(self, title: CalledTitle, call: Call) -> Accept:
        """What a caller is offered under a title: storage, and what each service adds."""
        call = replace(call, keeps_for_all=title.kind is TitleKind.GLOBAL)
        accept = self._accept(title, call.peer)
        for service in self.services:
            accept = service(accept, call)
        return accept

    def destination(self, title: CalledTitle, peer: Peer | None) -> Destination:
        """Whose objects are that come for a title, and by which rules."""
        account = self.snapshot.account(title.account_id) if title.account_id else None
        return Destination(
            owner_id=account.id if account else 0,
            owner=account.name if account else None,
            duplicates=title.duplicates,
            missing_uids=title.missing_uids,
            quarantine=title.kind is TitleKind.QUARANTINE,
            fallback_charset=_fallback(title, peer),
        )

    def _accept(self, title: CalledTitle, peer: Peer | None) -> Accept:
        destination = self.destination(title, peer)
        may_store = peer is None or "store" in peer.services
        sop_classes = frozenset(title.sop_classes) if title.sop_classes else None
        return Accept(
            policy=storage_policy(
                title.transfer_syntaxes or None, sop_classes if may_store else frozenset()
            ),
            open_store=opener(self.committer, destination, moves=self.moves) if may_store else None,
            max_for_title=title.max_associations or None,
        )


def _fallback(title: CalledTitle, peer: Peer | None) -> str | None:
    return (peer.fallback_charset if peer else "") or title.fallback_charset or None


def _certificate(caller: Caller) -> str:
    """The fingerprint of the verified client certificate; "" without one."""
    if caller.tls is None or caller.certificate is None:
        return ""
    return fingerprint(caller.tls.getpeercert(binary_form=True))


@lru_cache(maxsize=1024)
def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as it is compared: without its zone, IPv4 inside IPv6 as IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def _stranger(calling: str, address: str) -> str:
    """Why a caller is refused, and the command that lets it in, which people paste into a shell."""
    anyone = shlex.quote(f"{ANY}@{address}")
    everyone = f"hilum peer add NAME {anyone}"
    refused = f"{calling!a} at {address} is no peer; let it in with"
    try:
        check_ae_title(calling)
    except ConfigurationError:
        return f"{refused}: {everyone}"
    if "@" in calling:  # it would be read as part of the address
        return f"{refused}: {everyone}"
    one = shlex.quote(f"{calling}@{address}")
    return f"{refused}: hilum peer add NAME {one}, or everyone there with: {everyone}"


def _unknown(called: str) -> str:
    shown = ascii(called)
    if called.startswith(USER_PREFIX):
        return f"no user for {shown}; add one with 'hilum user add NAME'"
    if called.startswith(PIPELINE_PREFIX):
        return f"no pipeline for {shown}"
    return f"called AE title {shown} is not served here; add it with 'hilum ae add TITLE'"
