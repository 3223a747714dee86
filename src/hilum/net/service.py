"""What a provider gives the network: who may come in, and where a data set goes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hilum.errors import InvalidDicom, Refused
from hilum.services.datasets import decode
from hilum.services.sop_classes import VERIFICATION, may_store
from hilum.services.status import Status
from hilum.services.transfer_syntaxes import TRANSFER_SYNTAXES, choose
from hilum.wire.command import Command, CommandField
from hilum.wire.items import UserItem
from hilum.wire.negotiation import ContextPolicy
from hilum.wire.pdu import AssociateRQ, ContextResult, PresentationContext

if TYPE_CHECKING:
    from pydicom import Dataset

    from hilum.net.association import Association

__all__ = [
    "Accept",
    "Authorise",
    "Context",
    "Handler",
    "OpenStore",
    "Outcome",
    "PENDING",
    "Part",
    "Peer",
    "Refused",
    "Reject",
    "Reply",
    "Request",
    "StoreSink",
    "service_policy",
    "storage_policy",
    "while_retrieving",
]

#: Bytes of a data set. ``bytes`` belong to whoever gets them; a ``memoryview`` points into a
#: receive buffer and is valid until the sink has said that it is done with it.
Part = bytes | memoryview


PENDING = frozenset({int(Status.PENDING), int(Status.PENDING_WITHOUT_OPTIONAL_KEYS)})
"""The statuses of a response that another one follows (PS3.7 C.1.3; PS3.4 C.4.1.1.4)."""


class Context(NamedTuple):
    """An accepted presentation context.

    Args:
        context_id: odd, 1 to 255.
        abstract_syntax: mostly a SOP class.
        transfer_syntax: the one accepted.
        scu: whether we may play the user of its service (PS3.7 D.3.3.4).
        scp: whether we may play the provider.
    """

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    scu: bool = True
    scp: bool = True


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


def while_retrieving(open_store: OpenStore) -> OpenStore:
    """An ``open_store`` for what a C-GET of ours brings, and nothing else.

    An acceptor that was granted the SCU role of a storage class may store at any time. Who gave
    it that role only to retrieve refuses the rest with 0124H (not authorized).

    Standard: PS3.7 D.3.3.4, C.5.25; PS3.4 C.4.3.
    """

    def open_retrieved(
        command: Command, context: Context, association: Association
    ) -> StoreSink | Outcome:
        if not association.is_retrieving:
            return Outcome(Status.NOT_AUTHORIZED, "no C-GET is in progress")
        return open_store(command, context, association)

    return open_retrieved


_NO_ELEMENTS: Mapping[str, Any] = MappingProxyType({})


class Reply(NamedTuple):
    """One response message.

    Args:
        status: (0000,0900).
        data: its data set, encoded in the request's ``context.transfer_syntax``.
        elements: further command elements by their names in ``wire.command.ELEMENTS``:
            ``error_comment`` (cut at 64 characters), ``offending_element``,
            ``number_of_remaining_suboperations``, ``affected_sop_instance_uid``, …
    """

    status: int
    data: bytes | None = None
    elements: Mapping[str, Any] = _NO_ELEMENTS

    def __repr__(self) -> str:
        """Without the data set's bytes, which a log is no place for."""
        size = "none" if self.data is None else f"<{len(self.data)} bytes>"
        return f"Reply(status={self.status:04X}H, data={size}, elements={dict(self.elements)!r})"


class Request:
    """A request of the peer other than C-STORE, with its whole data set.

    Args:
        association: which it came over.
        context: in which presentation context.
        command: its command set.
        data: the data set's bytes, at most ``Limits.max_data_set_in_memory``, or None.
        held: kept as long as the request is, because that counts its bytes.
    """

    __slots__ = ("_cancelled", "_held", "_waiters", "association", "command", "context", "data")

    def __init__(
        self,
        association: Association,
        context: Context,
        command: Command,
        data: bytes | None,
        held: object = None,
    ) -> None:
        self._held = held
        self.association = association
        self.context = context
        self.command = command
        self.data = data
        self._cancelled = False
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_cancelled(self) -> bool:
        """Whether C-CANCEL came for it, or the association has ended."""
        return self._cancelled

    async def cancelled(self) -> None:
        """Wait until it ``is_cancelled``."""
        if not self._cancelled:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def cancel(self) -> None:
        """Nobody wants further responses."""
        self._cancelled = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def dataset(self) -> Dataset:
        """The data set decoded, anew at every call.

        Raises:
            InvalidDicom: there is none, or it cannot be read.
        """
        if self.data is None:
            raise InvalidDicom(f"{self.command.name} without a data set")
        return decode(self.data, self.context.transfer_syntax)


#: Serves a request. An awaitable gives the only response. An async iterator gives pages of
#: responses, of which the last one of all is final: its status is not pending. One that ends
#: without a final response is answered with success; one whose request the peer cancelled is closed
#: at its next page, and FE00H is answered unless that page ends with a final response. ``Refused``
#: becomes the final response; any other exception is logged and becomes C000H for C-FIND, C-GET
#: and C-MOVE, 0110H for the others. A page is asked for when the one before has been written, so
#: that a peer that reads slowly slows the iterator down.
Handler = Callable[[Request], Awaitable[Reply] | AsyncIterator[Sequence[Reply]]]


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


UNCOMPRESSED = tuple(
    syntax.uid
    for syntax in TRANSFER_SYNTAXES.values()
    if not syntax.encapsulated and not syntax.referenced
)
"""The transfer syntaxes of data sets without images, in order of preference."""


def service_policy(
    sop_classes: Iterable[str],
    *,
    transfer_syntaxes: Sequence[str] = UNCOMPRESSED,
    otherwise: ContextPolicy | None = None,
) -> ContextPolicy:
    """A context policy of a provider of services with small data sets.

    Args:
        sop_classes: of the services (C-FIND, C-GET, C-MOVE and N-services).
        transfer_syntaxes: in order of preference; the uncompressed ones by default.
        otherwise: decides about every other abstract syntax; None is ``storage_policy()``.
    """
    served = frozenset(sop_classes)
    others = storage_policy() if otherwise is None else otherwise

    def policy(context: PresentationContext) -> str | int:
        if context.abstract_syntax not in served:
            return others(context)
        syntax = choose(context.transfer_syntaxes, transfer_syntaxes)
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
        window: operations that the requestor may have outstanding as (invoker, performer), granted
            where it asked; 0 is no limit, None grants one each (PS3.7 D.3.3.3).
        items: further user-information items of A-ASSOCIATE-AC.
        max_for_title: associations at once for this called AE title; None is the server's limit.
        begun: called once when the association is established, before its first message.
        ended: called once when the association is over, with None after a release.
        handlers: who serves requests, by their command field; never C-STORE. Without one, C-ECHO is
            answered with success and everything else with 0211H (unrecognized operation).
    """

    policy: ContextPolicy = field(default_factory=storage_policy)
    open_store: OpenStore | None = None
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    window: tuple[int, int] | None = None
    items: tuple[UserItem, ...] = ()
    max_for_title: int | None = None
    begun: Callable[[Association], None] | None = None
    ended: Callable[[Association, Exception | None], None] | None = None
    handlers: Mapping[CommandField, Handler] = field(default_factory=dict)


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
