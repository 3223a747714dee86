"""An application entity: one title, what it offers, what it proposes, and whom it knows.

::

    ae = AE("HILUM", handlers={CommandField.C_FIND_RQ: find}, policy=service_policy([STUDY_ROOT_FIND]))
    server = await ae.serve("127.0.0.1", 11112)

    pacs = Remote("PACS", "pacs.example.org", 104)
    async with await ae.connect(pacs, contexts=[(STUDY_ROOT_FIND, UNCOMPRESSED)]) as association:
        ...

Standard: PS3.7 D.3.3, PS3.8 7.1.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hilum.errors import ConfigurationError
from hilum.net.association import Association
from hilum.net.client import VERIFICATION_CONTEXTS, connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.link import Observer
from hilum.net.server import Network, Server, serve
from hilum.net.service import (
    Accept,
    Handler,
    OpenStore,
    Peer,
    Reject,
    storage_policy,
)
from hilum.wire.command import CommandField
from hilum.wire.items import RoleSelection, UserIdentityResponse, UserIdentityRQ, UserItem
from hilum.wire.negotiation import ContextPolicy
from hilum.wire.pdu import AssociateRQ

__all__ = ["AE", "Contexts", "Remote", "VerifyIdentity"]

Contexts = Sequence[tuple[str, tuple[str, ...]]]

#: Judges a user identity: None refuses the association, bytes let it in and are the server response
#: (a Kerberos ticket or a SAML response; ``b""`` for a name), sent where one was asked for.
VerifyIdentity = Callable[
    [UserIdentityRQ, AssociateRQ, Peer], bytes | Awaitable[bytes | None] | None
]


@dataclass(frozen=True, slots=True)
class Remote:
    """An application entity that we know; what is None is the AE's own setting.

    Args:
        title: its AE title.
        host: name or address; None where it only calls us.
        port: TCP port.
        contexts: what to propose to it.
        timeouts: deadlines with it, seconds.
        limits: sizes with it.
        window: operations (ours, its) to propose to it, or to grant where it proposes them, each at
            most; None negotiates one each, which every peer takes: some drop the connection over it.
        tls: a client context for it.
        server_hostname: the name its certificate must show; None takes ``host``.
        user_identity: who we are to it.
    """

    title: str
    host: str | None = None
    port: int = 104
    contexts: Contexts | None = None
    timeouts: Timeouts | None = None
    limits: Limits | None = None
    window: tuple[int, int] | None = None
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    user_identity: UserIdentityRQ | None = None


@dataclass(frozen=True, slots=True)
class AE:
    """An application entity of ours, in both roles.

    Args:
        title: our AE title: calling where we open, called where we accept.
        contexts: what to propose.
        timeouts: deadlines, seconds.
        limits: counts and sizes.
        client_tls: a context of ``net.tls`` for associations that we open; None is plain TCP.
        server_tls: a context for those that we accept; None is plain TCP.
        policy: which contexts are accepted.
        open_store: where C-STOREs go; None refuses them.
        handlers: who serves other requests; see ``Accept``.
        roles: SOP class UID → (SCU, SCP) that a requestor may play.
        items: further user-information items of our answers, such as extended negotiation.
        peers: those we know. They are found by their title where one calls us.
        only_known: reject calling titles that are not among ``peers``.
        any_title: accept whatever called title.
        verify_identity: judges the user identity of a requestor that names one.
        require_identity: reject requestors that name none.
        ended: called once when an accepted association is over, with None after a release.
        observer: sees bytes and connection events.
    """

    title: str
    contexts: Contexts = VERIFICATION_CONTEXTS
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    client_tls: ssl.SSLContext | None = None
    server_tls: ssl.SSLContext | None = None
    policy: ContextPolicy = field(default_factory=storage_policy)
    open_store: OpenStore | None = None
    handlers: Mapping[CommandField, Handler] = field(default_factory=dict)
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    items: tuple[UserItem, ...] = ()
    peers: tuple[Remote, ...] = ()
    only_known: bool = False
    any_title: bool = False
    verify_identity: VerifyIdentity | None = None
    require_identity: bool = False
    ended: Callable[[Association, Exception | None], None] | None = None
    observer: Observer | None = None

    def peer(self, title: str) -> Remote | None:
        """The known one of this title."""
        return next((peer for peer in self.peers if peer.title == title), None)

    async def connect(
        self,
        peer: Remote | str,
        *,
        contexts: Contexts | None = None,
        roles: Iterable[RoleSelection] = (),
        items: Iterable[UserItem] = (),
        open_store: OpenStore | None = None,
        handlers: Mapping[CommandField, Handler] | None = None,
    ) -> Association:
        """Open an association with a peer, by what is set for it.

        Args:
            peer: a ``Remote``, or the title of a known one.
            contexts: what to propose; None takes the peer's, then ours.
            roles: see ``hilum.net.connect``, as all that follow.
            items: besides those of the peer's settings.
            open_store: None takes ours.
            handlers: None takes ours.

        Raises:
            ConfigurationError: no known peer, or one without an address.
            AssociationError: see ``hilum.net.connect``.

        Cancellation: the connection is closed.
        """
        known = self.peer(peer) if isinstance(peer, str) else peer
        if known is None or known.host is None:
            what = "is not known" if known is None else "has no address"
            title = peer if isinstance(peer, str) else peer.title
            raise ConfigurationError(f"peer {title!r} {what}; add it to the AE's peers")
        return await connect(
            known.host,
            known.port,
            called=known.title,
            calling=self.title,
            contexts=contexts or known.contexts or self.contexts,
            timeouts=known.timeouts or self.timeouts,
            limits=known.limits or self.limits,
            tls=known.tls or self.client_tls,
            server_hostname=known.server_hostname,
            user_identity=known.user_identity,
            window=known.window,
            roles=roles,
            items=items,
            open_store=open_store or self.open_store,
            handlers=self.handlers if handlers is None else handlers,
            observer=self.observer,
        )

    async def serve(
        self, host: str | None, port: int, *, proxies: Sequence[Network] = ()
    ) -> Server:
        """Listen for associations with this AE.

        Args:
            host: address to listen on; None is every address.
            port: TCP port; 0 takes a free one.
            proxies: see ``hilum.net.serve``.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        return await serve(
            host,
            port,
            self.authorise,
            timeouts=self.timeouts,
            limits=self.limits,
            tls=self.server_tls,
            proxies=proxies,
            observer=self.observer,
        )

    def authorise(
        self, rq: AssociateRQ, peer: Peer
    ) -> Accept | Reject | Awaitable[Accept | Reject]:
        """The decision about an A-ASSOCIATE-RQ; ``serve`` asks it, a listener of many AEs may too."""
        if not self.any_title and rq.called_ae_title != self.title:
            return Reject.unknown_called_title(f"this is {self.title!r}")
        known = self.peer(rq.calling_ae_title)
        if known is None and self.only_known:
            return Reject.unknown_calling_title("not among the peers")
        accept = Accept(
            policy=self.policy,
            open_store=self.open_store,
            roles=self.roles,
            # A peer's window is written from our side.
            window=None if known is None or known.window is None else known.window[::-1],
            items=self.items,
            handlers=self.handlers,
            ended=self.ended,
        )
        identity = rq.item(UserIdentityRQ)
        if identity is None:
            return Reject(why="no user identity") if self.require_identity else accept
        if self.verify_identity is None:
            # Who does not support user identities ignores them (PS3.7 D.3.3.7).
            return Reject(why="no verifier") if self.require_identity else accept
        verdict = self.verify_identity(identity, rq, peer)
        if inspect.isawaitable(verdict):
            return _later(accept, identity, verdict)
        return _judged(accept, identity, verdict)


async def _later(
    accept: Accept, identity: UserIdentityRQ, verdict: Awaitable[bytes | None]
) -> Accept | Reject:
    return _judged(accept, identity, await verdict)


def _judged(accept: Accept, identity: UserIdentityRQ, verdict: bytes | None) -> Accept | Reject:
    if verdict is None:
        return Reject(why="user identity refused")
    if not identity.response_requested:
        return accept
    return replace(accept, items=(*accept.items, UserIdentityResponse(verdict)))
