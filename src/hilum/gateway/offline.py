"""A receiver for this process alone: what commands store through while no gateway runs.

It listens on a free port of the loopback interface and serves only associations with a token that
nobody else knows; committing, indexing and answering are those of the gateway.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from hilum.errors import ConfigurationError
from hilum.gateway import heartbeat
from hilum.gateway.app import Storage
from hilum.gateway.config import Access, Config
from hilum.gateway.flow.address import Router
from hilum.gateway.store.commit import Committer
from hilum.gateway.store.entries import Listener, Snapshot
from hilum.gateway.store.index import IndexWriter
from hilum.net import serve
from hilum.net.service import Accept, Peer, Reject
from hilum.wire.items import UserIdentityRQ, UserIdentityType
from hilum.wire.pdu import AssociateRQ

__all__ = ["Receiver", "offline_receiver", "running_receiver"]


class Receiver(NamedTuple):
    """Where to store, on this machine.

    Args:
        host: address.
        port: TCP port.
        user_identity: what to show, None where nothing is asked.
    """

    host: str
    port: int
    user_identity: UserIdentityRQ | None = None


def running_receiver(config: Config, snapshot: Snapshot) -> Receiver | None:
    """A plain listener of the gateway that runs on this data directory, None where none runs.

    Raises:
        ConfigurationError: it has none that speaks without TLS.
    """
    beat = heartbeat.read(Path(config.data))
    if beat is None or not beat.is_fresh or not beat.accepting:
        return None
    secure = {listener.port for listener in snapshot.listeners if listener.tls}
    for address in beat.listeners:
        host, _, port = address.rpartition(":")
        if int(port) not in secure:
            return Receiver({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port))  # noqa: S104
    raise ConfigurationError(
        "the running gateway has no listener without TLS; add one on 127.0.0.1, or stop the gateway"
    )


@asynccontextmanager
async def offline_receiver(config: Config) -> AsyncIterator[Receiver]:
    """Open the data directory and receive into it for the length of the block.

    Raises:
        StoreUnavailable: a gateway has it open, or it is no store.
        StorageFailed: storing became impossible; what was acknowledged is kept.
    """
    storage = await asyncio.to_thread(Storage, config)
    try:
        await asyncio.to_thread(storage.reconcile)
        token = secrets.token_urlsafe(24)
        identity = UserIdentityRQ(UserIdentityType.USERNAME, token.encode())
        committer = Committer(
            storage.blobs,
            IndexWriter(storage.database),
            storage.scanner,
            max_batch=config.store.max_batch,
            io_threads=config.store.io_threads,
            answer_within=config.store.answer_within,
            reserve=config.store.reserve,
            reserve_inodes=config.store.reserve_inodes,
            fatal=_die,
        )
        router = Router(Access(), storage.directory.snapshot(), {}, committer)
        listener = Listener("offline", 0, "127.0.0.1")

        def authorise(
            rq: AssociateRQ, caller: Peer
        ) -> Accept | Reject | Awaitable[Accept | Reject]:
            shown = rq.user_identity
            if shown is None or not secrets.compare_digest(shown.primary, identity.primary):
                return Reject(1, 1, 1, "not asked for")
            return router.authorise(listener, rq, caller)

        committer.start()
        try:
            async with await serve("127.0.0.1", 0, authorise, limits=config.limits) as server:
                yield Receiver("127.0.0.1", server.port, identity)
        finally:
            await committer.stop()
    finally:
        await asyncio.to_thread(storage.close)


def _die(error: BaseException) -> None:
    """A thread that writes is dead: what waits is not acknowledged."""
    os._exit(70)
