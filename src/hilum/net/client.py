"""Opening associations."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence

from hilum.errors import AssociationTimeout, ConfigurationError, ConnectFailed
from hilum.net.association import Association
from hilum.net.limits import Limits, Timeouts
from hilum.net.link import Link, Observer
from hilum.net.service import Accept, Handler, OpenStore, Peer
from hilum.services.sop_classes import VERIFICATION
from hilum.services.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from hilum.wire.command import CommandField
from hilum.wire.connection import Connection
from hilum.wire.items import (
    AsynchronousOperationsWindow,
    RoleSelection,
    UserIdentityRQ,
    UserItem,
)
from hilum.wire.negotiation import own_items, presentation_contexts
from hilum.wire.pdu import AssociateRQ

__all__ = ["VERIFICATION_CONTEXTS", "connect"]

NATIVE = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
VERIFICATION_CONTEXTS = ((VERIFICATION, NATIVE),)


async def connect(
    host: str,
    port: int,
    *,
    called: str = "ANY-SCP",
    calling: str = "HILUM",
    contexts: Sequence[tuple[str, tuple[str, ...]]] = VERIFICATION_CONTEXTS,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    user_identity: UserIdentityRQ | None = None,
    items: Iterable[UserItem] = (),
    roles: Iterable[RoleSelection] = (),
    window: tuple[int, int] | None = None,
    open_store: OpenStore | None = None,
    handlers: Mapping[CommandField, Handler] | None = None,
    bind: str | tuple[str, int] | None = None,
    observer: Observer | None = None,
) -> Association:
    """Open an association.

    Standard: PS3.8 7.1, PS3.7 annex D.

    Args:
        host: name or address.
        port: TCP port.
        called: called AE title, at most 16 characters.
        calling: calling AE title, at most 16 characters.
        contexts: (abstract syntax, transfer syntaxes) per presentation context, 1 to 128.
        timeouts: deadlines, seconds.
        limits: maximum length and buffer sizes.
        tls: a context of ``net.tls``; None is plain TCP.
        server_hostname: the name the peer's certificate must show; None takes ``host``.
        user_identity: who we are (PS3.7 D.3.3.7).
        items: further user-information items (extended negotiation); an implementation class UID
            among them, and its version name, replace ours.
        roles: role selection, one per SOP class: what a C-GET will bring needs the SCP role.
        window: operations that we may have outstanding, and those that the peer may, at most; 0 is
            no limit. None negotiates none, as some peers drop the connection over it.
        open_store: where C-STOREs of the peer go, as C-GET brings them; None refuses them.
        handlers: who serves its other requests, such as N-EVENT-REPORT; see ``Accept``.
        bind: local address to connect from, or address and port.
        observer: sees bytes and connection events.

    Returns:
        The established association; use it as an async context manager, or ``release`` it.

    Raises:
        ConnectFailed: no TCP or TLS connection; nothing was sent.
        AssociationRejected: the peer said no.
        AssociationTimeout: it did not answer; the connection is closed.
        AssociationAborted, ConnectionLost: it ended the attempt.
        LocalProtocolError: a title, UID or number of contexts that cannot be sent.

    Cancellation: the connection is closed.
    """
    timeouts, limits = timeouts or Timeouts(), limits or Limits()
    loop = asyncio.get_running_loop()
    items = tuple(items)
    rq = AssociateRQ(
        called_ae_title=called,
        calling_ae_title=calling,
        contexts=presentation_contexts(contexts),
        user_items=(
            *own_items(limits.max_length, items),
            *((AsynchronousOperationsWindow(*window),) if window else ()),
            *roles,
            *items,
            *((user_identity,) if user_identity else ()),
        ),
    )
    connection = Connection(
        requestor=True, limits=limits.connection(timeouts), max_length=limits.max_length
    )
    rq.encode()  # what cannot be sent is found before anything is opened
    connection.send(rq, loop.time())
    association = Association(connection, timeouts=timeouts, limits=limits)
    association.accept = Accept(open_store=open_store, handlers=handlers or {})
    sock, address = await _connect_socket(host, port, timeouts.connect, bind)
    association.peer = Peer(address[0], address[1])
    link = Link(connection, association, timeouts, limits, sock, observer)
    association.attach(link)
    try:
        async with asyncio.timeout(timeouts.connect):
            await loop.create_connection(
                lambda: link,
                sock=sock,
                ssl=tls,
                server_hostname=(server_hostname or host) if tls else None,
            )
    except (OSError, ssl.SSLError, TimeoutError) as error:
        sock.close()
        raise ConnectFailed(f"TLS with {host}:{port}: {_why(error)}") from error
    except BaseException:
        sock.close()
        raise
    try:
        async with asyncio.timeout(timeouts.associate):
            await asyncio.shield(association._opened)
    except TimeoutError:
        association.abort()
        raise AssociationTimeout(
            f"{called}@{host}:{port} did not answer A-ASSOCIATE-RQ within {timeouts.associate} s"
        ) from None
    except BaseException:
        association.abort()
        raise
    return association


def _why(error: BaseException) -> str:
    """Why a connection was not had; asyncio's own text repeats the address."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "the name of this host is not known"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.lower()}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        # What OpenSSL calls a first byte that no TLS record has.
        plain = reason in ("wrong version number", "record layer failure", "unknown protocol")
        return "the other side speaks no TLS there" if plain else reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or repr(error)


async def _connect_socket(
    host: str, port: int, timeout: float, bind: str | tuple[str, int] | None
) -> tuple[socket.socket, tuple[str, int]]:
    """The first of the host's addresses that answers, with that address."""
    loop = asyncio.get_running_loop()
    if not 0 < port < 65536:
        raise ConfigurationError(f"not a TCP port: {port}")
    last: BaseException | None = None
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, address in found:
                try:
                    sock = socket.socket(family, kind, protocol)
                except OSError as error:  # a family this machine has no addresses of
                    last = error
                    continue
                try:
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if bind is not None:
                        sock.bind((bind, 0) if isinstance(bind, str) else bind)
                    await loop.sock_connect(sock, address)
                    return sock, sock.getpeername()[:2]
                except OSError as error:
                    sock.close()
                    last = error
                except BaseException:
                    with contextlib.suppress(OSError):
                        sock.close()
                    raise
    except (OSError, UnicodeError) as error:  # UnicodeError: no host name at all
        last = error
    raise ConnectFailed(f"no connection to {host}:{port}: {_why(last or OSError('no address'))}")
