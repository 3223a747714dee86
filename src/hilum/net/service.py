"""What a provider gives the network: who may come in, and where a data set goes."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hilum.services.sop_classes import VERIFICATION, may_store
from hilum.services.transfer_syntaxes import choose
from hilum.wire.command import Command
from hilum.wire.items import UserItem
from hilum.wire.negotiation import ContextPolicy
from hilum.wire.pdu import AssociateRQ, ContextResult, PresentationContext

if TYPE_CHECKING:
    from hilum.net.association import Association

__all__ = [
    "Accept",
    "Authorise",
    "Context",
    "OpenStore",
    "Outcome",
    "Part",
    "Peer",
    "Reject",
    "StoreSink",
    "storage_policy",
]

#: Bytes of a data set. ``bytes`` belong to whoever gets them; a ``memoryview`` points into a
#: receive buffer and is valid until the sink has said that it is done with it.
Part = bytes | memoryview


class Context(NamedTuple):
    """An accepted presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the connection.

    Args:
        address: IP address as text; from the PROXY header where a listed balancer sent one.
        port: its TCP port.
        proxied: whether a balancer stands between, so that the address is its word, not TCP's.
        tls: the TLS session, None without TLS.
    """

    address: str
    port: int
    proxied: bool = False
    tls: ssl.SSLObject | None = None

    @property
    def certificate(self) -> Mapping[str, object] | None:
        """The verified client certificate as ``ssl`` decodes it, or None."""
        return self.tls.getpeercert() or None if self.tls is not None else None

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class Outcome(NamedTuple):
    """What a service answers.

    Args:
        status: (0000,0900).
        error_comment: (0000,0902), at most 64 characters; never with a patient's data.
        offending_element: tags as 32-bit numbers, (0000,0901).
    """

    status: int
    error_comment: str | None = None
    offending_element: tuple[int, ...] | None = None


class StoreSink(Protocol):
    """Where one data set goes. Every method is called on the event loop and must not block."""

    def write(self, parts: Sequence[Part]) -> bool:
        """Take the next parts.

        Returns:
            True when the memoryviews among them are no longer needed. False when they are still
            read from; nothing more is written until ``drained`` is done.
        """

    def drained(self) -> Awaitable[None]:
        """Done when everything written has been taken; failures wait for ``commit``."""

    def commit(self) -> Awaitable[Outcome]:
        """The data set is whole: make it durable, then say what to answer.

        May be called while ``drained`` is not done. A ``Future`` saves a task.

        Raises:
            AssociationError: the association ends without an answer: whether the data set is
                kept is not known. After any other exception, A700H is answered.
        """

    def abort(self, cause: BaseException) -> None:
        """The data set will not be completed, or the answer can no longer be sent. Idempotent."""


OpenStore = Callable[[Command, Context, "Association"], StoreSink | Outcome]


def storage_policy(
    transfer_syntaxes: Sequence[str] | None = None,
    sop_classes: frozenset[str] | None = None,
) -> ContextPolicy:
    """A context policy of an acceptor of images: Verification, and storage.

    Args:
        transfer_syntaxes: in order of preference; None accepts every one in the default order:
            Explicit VR Little Endian, Implicit, lossless, lossy, unknown.
        sop_classes: None accepts all storage classes and private ones, never Print or MPPS.
    """

    def policy(context: PresentationContext) -> str | int:
        abstract = context.abstract_syntax
        if abstract == VERIFICATION:
            syntax = choose(context.transfer_syntaxes, None)
        elif abstract in sop_classes if sop_classes is not None else may_store(abstract):
            syntax = choose(
                context.transfer_syntaxes,
                transfer_syntaxes,
                allow_unknown=transfer_syntaxes is None,
            )
        else:
            return ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        return syntax if syntax is not None else ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED

    return policy


@dataclass(frozen=True, slots=True)
class Accept:
    """Let the association in.

    Args:
        policy: chooses presentation contexts.
        open_store: called for each C-STORE-RQ before its first fragment; None answers 0122H
            (SOP class not supported). An ``Outcome`` instead of a sink refuses the data set: it
            is passed over and answered with that.
        roles: SOP class UID → (SCU, SCP) that the requestor may play (PS3.7 D.3.3.4).
        window: operations (invoked, performed) granted where asked (PS3.7 D.3.3.3).
        items: further user-information items of A-ASSOCIATE-AC.
        max_for_title: associations at once for this called AE title; None is the server's limit.
        ended: called once when the association is over, with None after a release.
    """

    policy: ContextPolicy = field(default_factory=storage_policy)
    open_store: OpenStore | None = None
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    window: tuple[int, int] | None = None
    items: tuple[UserItem, ...] = ()
    max_for_title: int | None = None
    ended: Callable[[Association, Exception | None], None] | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Turn the association away (PS3.8 Table 9-21).

    Args:
        result: 1 permanent, 2 transient.
        source: 1 service user, 2 provider (ACSE), 3 provider (presentation).
        reason: by source; with source 1: 3 calling, 7 called AE title not recognised.
        why: for the log only; it is not sent.
    """

    result: int = 1
    source: int = 1
    reason: int = 1
    why: str = ""

    @classmethod
    def unknown_called_title(cls, why: str = "") -> Reject:
        """1/1/7."""
        return cls(1, 1, 7, why)

    @classmethod
    def unknown_calling_title(cls, why: str = "") -> Reject:
        """1/1/3."""
        return cls(1, 1, 3, why)

    @classmethod
    def limit(cls, why: str = "") -> Reject:
        """2/3/2, local limit exceeded: the peer may try again."""
        return cls(2, 3, 2, why)


Authorise = Callable[[AssociateRQ, Peer], Accept | Reject | Awaitable[Accept | Reject]]
