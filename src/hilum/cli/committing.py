"""The archive's part of ``hilum commit``: peers by name, instances by UID, results that are kept.

Imported where there is a data directory; the command works without one, for files.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from hilum.errors import ConfigurationError, HilumError, NotFound
from hilum.gateway import heartbeat
from hilum.gateway.config import Config, load
from hilum.gateway.flow.commitment_user import destination
from hilum.gateway.store import queries
from hilum.gateway.store.blobs import MARKER
from hilum.gateway.store.commitment_requests import CommitmentRequests
from hilum.gateway.store.database import open_database
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.filters import Filters
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.results import Viewer
from hilum.net.commitment import Commitments, Destination
from hilum.services.commitment import Action, Reference, Result

__all__ = ["Archive"]

DATABASE = "hilum.db"
LOOK_AGAIN = 0.3


class Archive:
    """A data directory, beside a running gateway or without one; a context manager.

    Args:
        data: the directory; None takes the one of the settings.

    Raises:
        StoreUnavailable: its tables are of another version.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._data = Path(config.data)
        self._database = open_database(self._data / DATABASE, role="command")
        self._requests = CommitmentRequests(self._database)
        self._directory = Directory(self._database)

    @classmethod
    def find(cls, data: Path | None) -> Archive | None:
        """The archive of a directory, or of the settings; None where there is none.

        Raises:
            ConfigurationError: a directory was named that has none.
        """
        config = load().with_options(data=str(data) if data else None)
        if not (Path(config.data) / MARKER).exists():
            if data is not None or "HILUM_DATA" in os.environ:
                raise ConfigurationError(f"{config.data} is no store of Hilum's")
            return None
        return cls(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._database.close()

    # ── whom to ask, and for what ───────────────────────────────────────────────────────────

    def peer(self, name: str) -> Destination | None:
        """A peer by its name; None where there is none."""
        for peer in self._directory.snapshot().peers:
            if peer.name == name:
                return destination(peer, self.config)
        return None

    def owner(self, user: str | None) -> int:
        """Whose instances are meant: a user's, or everyone's.

        Raises:
            NotFound: no such user.
        """
        if user is None:
            return 0
        for account in self._directory.snapshot().accounts:
            if account.name == user:
                return account.id
        raise NotFound(f"no user {user!r}; 'hilum user ls' lists them")

    def references(self, uid: str, owner_id: int) -> list[Reference]:
        """The instances of a study, a series, or one instance.

        Raises:
            NotFound: nothing has that UID.
        """
        for filters in (
            Filters(sop_uid=uid),
            Filters(series_uid=uid),
            Filters(study_uid=uid),
        ):
            if found := self._all(Viewer(only=owner_id), filters):
                return found
        raise NotFound(f"no study, series or instance {uid} here")

    def _all(self, viewer: Viewer, filters: Filters) -> list[Reference]:
        found: list[Reference] = []
        after = None
        while True:
            page = queries.list_instances(self._database, viewer, filters, limit=500, after=after)
            found += [Reference(row.sop_class, row.sop_uid) for row in page.rows]
            after = page.next
            if after is None:
                return found

    # ── requests and results ────────────────────────────────────────────────────────────────

    def keep(self, action: Action, peer: str, to: Destination, owner_id: int | None) -> None:
        """Record a request that is about to be made; once more is not another one."""
        if self._requests.find(action.transaction_uid) is None:
            self._requests.create(
                action,
                peer=peer,
                called_ae=to.called,
                calling_ae=to.calling,
                owner_id=owner_id,
            )

    def asked(self, uid: str, cause: str = "") -> None:
        """The peer has taken it, or why not."""
        self._requests.asked(uid, cause)

    async def heard(self, result: Result) -> bool:
        """Record a result that came to this process; False: it was never asked for."""
        return await asyncio.to_thread(self._requests.answered, result)

    async def watch(self, uid: str, commitments: Commitments) -> None:
        """Pass on the result that comes to a running gateway."""
        while True:
            found = await asyncio.to_thread(self._requests.find, uid)
            if found is not None and found.result is not None:
                commitments.heard(found.result)
                return
            await asyncio.sleep(LOOK_AGAIN)

    async def listen(self, commitments: Commitments) -> list[str]:
        """Where no gateway runs: listen where it would; returns the addresses."""
        beat = heartbeat.read(self._data)
        if beat is not None and beat.is_fresh and beat.accepting:
            return []
        opened: list[str] = []
        for listener in self._directory.snapshot().listeners:
            if not listener.enabled or listener.tls:
                continue
            with suppress(HilumError):  # another program has the port
                server = await commitments.listen(listener.host or None, listener.port)
                opened += [f"{host}:{port}" for host, port in server.addresses]
        return opened

    def delete(self, references: Sequence[Reference], owner_id: int, peer: str) -> int:
        """Remove instances that a peer has committed; returns how many.

        What came after the request is not what the peer has, and stays.
        """
        return sum(
            remove(
                self._database,
                Scope(owner_id=owner_id, sop_uid=each.sop_instance_uid),
                by="command line",
                reason=f"committed by {peer}, {time.strftime('%Y-%m-%d')}",
                only_elsewhere=True,
            ).instances
            for each in references
        )
