"""The composition root: builds every object of a receiver, owns its tasks and the order of its end.

Start: lock, marker, database, what was in flight before, threads, listeners, web process.
Stop, in reverse: work is given back, listeners refuse what is new, messages in progress are
finished, the committer empties its queues, the web process ends, the database is closed, the lock
is released.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import socket
import sys
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hilum
from hilum.errors import ConfigurationError, HilumError, NotFound, StoreUnavailable
from hilum.gateway import heartbeat
from hilum.gateway.config import Config, parse_address
from hilum.gateway.flow.address import Call, Router, Service
from hilum.gateway.flow.commitment import CommitmentProvider
from hilum.gateway.flow.commitment_user import CommitmentUser
from hilum.gateway.flow.fetch import Fetcher
from hilum.gateway.flow.find_and_get import QueryRetrieve
from hilum.gateway.flow.identity import PasscodeChecker
from hilum.gateway.flow.moves import Moves
from hilum.gateway.flow.names import HostNames
from hilum.gateway.store import posix
from hilum.gateway.store.blobs import MARKER, BlobStore
from hilum.gateway.store.bucket_list import BucketList
from hilum.gateway.store.commit import Committer
from hilum.gateway.store.database import Checkpointer, Commits, open_database, upgrade
from hilum.gateway.store.decoding import Decoders, DecodingLimits
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.entries import Listener, Peer, Snapshot
from hilum.gateway.store.examine import HEADER_KEYS
from hilum.gateway.store.fetches import Fetches
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.layout import OBJECTS
from hilum.gateway.store.mover import Mover
from hilum.gateway.store.rebuild import put_in_place, take_over, take_over_promises, unfinished
from hilum.gateway.store.recover import Report, reconcile
from hilum.gateway.store.removal import files_deleted, files_to_delete
from hilum.gateway.store.scan import buckets_on_disk
from hilum.gateway.store.schedules import Schedules
from hilum.gateway.store.states import GLOBAL_OWNER
from hilum.gateway.store.work import WorkTable
from hilum.gateway.threads import in_thread
from hilum.gateway.web.listening import can_pass_sockets, first_connection, listen_for_web
from hilum.gateway.work.kinds import Kinds
from hilum.gateway.work.pool import Pool
from hilum.gateway.work.runner import Runner
from hilum.gateway.work.schedule import decide
from hilum.net import Accept, Server, serve
from hilum.net.server import Network
from hilum.net.tls import server_context
from hilum.services.header import HeaderScanner

__all__ = ["DATABASE", "LOCK", "Gateway", "Storage", "initialise", "reindex"]

log = logging.getLogger("hilum.gateway")

DATABASE = "hilum.db"
LOCK = "hilum.lock"
STORE_ID = "store.id"
CLOSING = "close "

# What an empty file system has, and what was made before a first start was interrupted.
_OF_NO_STORE = {"lost+found", OBJECTS, MARKER + ".new"}

# Changes made with the commands are live within a second.
LOOK_FOR_CHANGES = 0.5
HEARTBEAT = 1.0
CHECKPOINT = 1.0
JANITOR = 1.0
FORGET = 3600.0
MOVE = 1.0
# Between two images of one association it is not worth beginning.
MOVE_AFTER = 0.05
# Addresses behind a name seldom change, and a scanner tries again.
LOOK_UP_NAMES = 30.0
# A resolver that takes longer holds up no change of the directory.
LOOK_UP_WITHIN = 3.0
# A web process that ends at once is not started in a tight loop.
WEB_AGAIN = 5.0


def initialise(data: Path, *, even_if_empty: bool = False) -> None:
    """Make a data directory where there is none.

    An empty directory that exists may be a volume that is not mounted: images stored there would
    vanish under it.

    Raises:
        StoreUnavailable: it exists, and is no store of ours.
    """
    if (data / MARKER).exists():
        return
    if (data / DATABASE).exists():
        raise StoreUnavailable(
            f"{data} has a database but no {MARKER}: is the volume with the objects mounted?"
        )
    if data.exists():
        if any(entry.name not in _OF_NO_STORE or _holds(entry) for entry in data.iterdir()):
            raise StoreUnavailable(f"{data} is neither empty nor a store; name another directory")
        if not even_if_empty:
            raise StoreUnavailable(
                f"{data} exists and is empty: is its volume mounted? If it is to become a new "
                "store, say --init"
            )
    BlobStore.create(data)
    log.info("new store in %s", data)


def _holds(entry: Path) -> bool:
    return entry.name == OBJECTS and any(entry.iterdir())


class Storage:
    """The open data directory: lock, objects, database. Used by the gateway and by commands.

    Args:
        config: ``data`` and ``store``.
        rebuild: open a new database beside the old one instead; see ``reindex``.

    Raises:
        StoreUnavailable: missing marker, held lock, or marker and database that do not belong
            together.
    """

    def __init__(self, config: Config, *, rebuild: bool = False) -> None:
        self.data = Path(config.data)
        if not (self.data / MARKER).exists():
            raise StoreUnavailable(f"{self.data} is no store: {MARKER} is missing")
        self.lock = posix.lock_file(self.data / LOCK)
        self._closing = contextlib.ExitStack()
        self._closing.callback(self.lock.release)
        try:
            path = self.data / DATABASE
            if rebuild:
                path = unfinished(path)
            elif not path.exists() and any((self.data / OBJECTS).glob("*")):
                raise StoreUnavailable(
                    f"{self.data} has objects but no database; 'hilum reindex' makes it anew"
                )
            self.database = open_database(path, role="receiver", create=True)
            self._closing.callback(self.database.close)
            upgrade(self.database)
            self.directory = Directory(self.database, actor="gateway")
            self.buckets = BucketList(self.database)
            self.blobs = BlobStore.open(
                self.data,
                config.store.strategy,
                on_open=self.buckets.opened,
                on_close=self.buckets.closed,
                spool_objects=config.store.spool,
            )
            self._closing.callback(self.blobs.close)
            self._check_id()
            self.directory.create_defaults()
            self.scanner = HeaderScanner(HEADER_KEYS)
        except BaseException:
            self._closing.close()
            raise

    def _check_id(self) -> None:
        known, own = self.directory.setting(STORE_ID), str(self.blobs.id)
        if known is None:
            self.directory.set_setting(STORE_ID, own)
        elif known != own:
            raise StoreUnavailable(
                f"{self.data}: the database belongs to store {known}, the objects to {own}: is "
                "the right volume mounted?"
            )

    def reconcile(
        self,
        buckets: list[str] | None = None,
        progress: Callable[[Report], None] = lambda _: None,
    ) -> Report:
        """Rows and files brought together: what was in flight, or these buckets of a lost index."""
        self.delete_files()
        names = self.buckets.open_names() if buckets is None else buckets
        with contextlib.closing(IndexWriter(self.database)) as writer:
            report = reconcile(
                self.blobs,
                writer,
                self.scanner,
                self.database,
                names,
                progress,
                rebuilding=buckets is not None,
            )
        for name in names:
            self.buckets.closed(name)
        return report

    def delete_files(self) -> int:
        """Delete the files of removed instances; returns how many."""
        count = 0
        while paths := files_to_delete(self.database):
            self.blobs.withhold(paths)
            self.blobs.remove(paths)
            files_deleted(self.database, paths)
            self.blobs.give_free(paths)
            count += len(paths)
        return count

    def close(self) -> None:
        """Close everything, the lock last."""
        self._closing.close()


def reindex(
    config: Config, progress: Callable[[Report], None] = lambda _: None
) -> tuple[Report, Path | None]:
    """Make the database anew from the files alone, owners included.

    The old one stays in use until the new one is whole, then it is set aside. Accounts, titles,
    listeners, peers and settings are taken over from it as far as it can be read.

    Returns:
        What was found, and where the old database is now.

    Raises:
        StoreUnavailable: a gateway is running, or there is no store.
        StorageFailed: files cannot be read or rows not written; the old database is in place.
    """
    storage = Storage(config, rebuild=True)
    try:
        old = storage.data / DATABASE
        if old.exists():
            take_over(old, storage.database)
            storage.directory.set_setting(STORE_ID, str(storage.blobs.id))
        report = storage.reconcile(list(buckets_on_disk(str(storage.data))), progress)
        if old.exists():
            take_over_promises(old, storage.database)
        storage.database.close()
        return report, put_in_place(old)
    finally:
        storage.close()


class Gateway:
    """A running receiver; made by ``start``, waits in ``stopped``, ended by ``stop``."""

    def __init__(self, config: Config, storage: Storage) -> None:
        self.config = config
        self.servers: dict[str, tuple[Listener, Server]] = {}
        self.failure: BaseException | None = None
        self.stopped = asyncio.Event()
        self._storage = storage
        self._committer = Committer(
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
        self._mover = Mover(
            storage.blobs, storage.database, busy=lambda: self._committer.idle_for < MOVE_AFTER
        )
        self._commits = Commits(storage.database)
        self.kinds = Kinds()
        # One receiver per data directory; its process may get the pid of the one before.
        self._work = WorkTable(storage.database, f"receiver:{uuid.uuid4().hex}")
        self._runner = Runner(
            self._work,
            self.kinds,
            Pool(config.work.processes),
            chores=[partial(Schedules(storage.database).start_due, decide)],
            keep=config.work.keep,
            version=self._commits.version,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._not_open: dict[str, str] = {}
        self._telling = asyncio.Lock()
        self._beat = heartbeat.Heartbeat(version=hilum.__version__)
        self._names = HostNames()
        self._looking_up: asyncio.Task[None] | None = None
        commitment = CommitmentProvider(
            config,
            storage.database,
            storage.blobs,
            snapshot=lambda: self._router.snapshot,
            wake=self._runner.wake,
        )
        self._commitment = commitment
        self.commitment_user = CommitmentUser(
            config, storage.database, snapshot=lambda: self._router.snapshot
        )
        for kind in (*commitment.kinds, *self.commitment_user.kinds):
            self.kinds.add(kind)
        self._moves = Moves()
        fetches = Fetches(storage.database)
        fetcher = Fetcher(fetches, config, lambda: self._router, self._committer, self._moves)
        for kind in fetcher.kinds:
            self.kinds.add(kind)
        retrieve = config.retrieve
        self._decoders = Decoders(
            storage.data,
            DecodingLimits(
                processes=retrieve.decoders,
                seconds=retrieve.decode_within,
                size=retrieve.max_decoded,
                room=retrieve.decoded_space,
                reserve=config.store.reserve,
            ),
        )
        query_retrieve = QueryRetrieve(
            config,
            storage.database,
            storage.blobs,
            lambda: self._router.snapshot,
            self._decoders,
        )
        self._services: tuple[Service, ...] = (
            query_retrieve.admit,
            self.commitment_user.admit,
            commitment.admit,
        )
        self._passcodes = PasscodeChecker()
        self._router = self._routing(storage.directory.snapshot(), {})

    def offered(self, peer: Peer | None) -> Accept:
        """What is offered under the first called title to a peer, or to whoever is welcome.

        The conformance statement is made from it.
        """
        title = self._router.snapshot.called_titles[0]
        return self._router.offered(title, Call(title.title, "CONFORMANCE", GLOBAL_OWNER, peer))

    @classmethod
    async def start(cls, config: Config) -> Gateway:
        """Bring everything up; on return associations are served.

        Raises:
            HilumError: what could not be brought up; everything else is down again.
        """
        storage = await asyncio.to_thread(Storage, config)
        try:
            report = await asyncio.to_thread(storage.reconcile)
            if report.files:
                log.info("reconciled after an interruption: %s", dataclasses.asdict(report))
            gateway = cls(config, storage)
        except BaseException:
            await asyncio.to_thread(storage.close)
            raise
        gateway._committer.start()
        listening = None
        try:
            await gateway._apply(gateway._router.snapshot, first=True)
            if config.web != "off" and can_pass_sockets():
                host, port = parse_address(config.web, "web")
                listening = listen_for_web(host or "0.0.0.0", port)  # noqa: S104 - as asked for
        except BaseException:
            await gateway.stop()
            raise
        await asyncio.to_thread(gateway._work.void_leases_of, "receiver")
        await asyncio.to_thread(gateway._commitment.prepare)
        gateway._task(gateway._runner.run(), "work")
        gateway._task(gateway._follow_changes(), "changes")
        gateway._task(gateway._follow_names(), "names")
        gateway._task(gateway._beat_forever(), "heartbeat")
        gateway._task(gateway._checkpoint_forever(), "checkpoint")
        gateway._task(gateway._delete_forever(), "janitor")
        gateway._task(gateway._forget_forever(), "old commitments")
        gateway._task(gateway._move_forever(), "mover")
        if config.web != "off":
            gateway._task(gateway._keep_web(listening), "web")
        return gateway

    async def stop(self) -> None:
        """Bring everything down in order; idempotent."""
        self._beat.accepting = False
        await self._runner.stop(self.config.work.grace)
        servers = [server for _, server in self.servers.values()]
        self.servers.clear()
        closing = [task for task in self._tasks if task.get_name().startswith(CLOSING)]
        await asyncio.gather(
            *closing, *(server.close(self.config.stop_within) for server in servers)
        )
        await self._commitment.close()
        await asyncio.to_thread(self._decoders.close)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._committer.stop()
        await asyncio.to_thread(self._mover.close)
        self._commits.close()
        with contextlib.suppress(OSError):
            self._report({})
        await asyncio.to_thread(self._storage.close)
        self.stopped.set()

    def _task(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()
            log.critical("task %s died", task.get_name(), exc_info=self.failure)
            self.stopped.set()

    # ── listeners ───────────────────────────────────────────────────────────────────────────

    async def _apply(self, snapshot: Snapshot, *, first: bool = False) -> None:
        """Route by a new snapshot, and open and close listeners by it."""
        if self._names.unknown(snapshot.peers):
            await self._look_up(snapshot)
        self._route(snapshot)
        wanted = {
            listener.name: self._placed(listener)
            for listener in snapshot.listeners
            if listener.enabled
        }
        for name, (listener, server) in tuple(self.servers.items()):
            if _binding(wanted.get(name)) != _binding(listener):
                del self.servers[name]
                await server.stop_listening()  # another listener may want the same address
                self._task(server.close(self.config.stop_within), CLOSING + name)
            else:
                self.servers[name] = (wanted[name], server)
        not_open: dict[str, str] = {}
        for name, listener in wanted.items():
            if name in self.servers:
                continue
            try:
                self.servers[name] = (listener, await self._listen(listener))
            except ConfigurationError as error:
                if first:
                    raise
                not_open[name] = str(error)
                if self._not_open.get(name) != str(error):
                    log.error("listener %s is tried again: %s", name, error)
        self._not_open = not_open
        if not wanted:
            log.warning("no listener is enabled; add one with 'hilum listener add'")

    def _route(self, snapshot: Snapshot) -> None:
        self._router = self._routing(snapshot, self._names.networks(snapshot.peers))

    def _routing(self, snapshot: Snapshot, networks: Mapping[str, tuple[Network, ...]]) -> Router:
        return Router(
            self.config.access,
            snapshot,
            networks,
            self._committer,
            self._services,
            self._moves,
            self._passcodes,
        )

    async def _look_up(self, snapshot: Snapshot) -> None:
        """Look up the names of peers, waiting ``LOOK_UP_WITHIN`` at most; one look-up at a time."""

        async def look_up() -> None:
            await asyncio.to_thread(self._names.look_up, snapshot.peers)
            self._route(self._router.snapshot)

        if self._looking_up is None or self._looking_up.done():
            self._looking_up = asyncio.create_task(look_up(), name="look up names")
        await asyncio.wait([self._looking_up], timeout=LOOK_UP_WITHIN)

    async def _follow_names(self) -> None:
        while True:
            await asyncio.sleep(LOOK_UP_NAMES)
            await self._look_up(self._router.snapshot)

    def _placed(self, listener: Listener) -> Listener:
        """``--dicom`` goes before what the directory says of the first listener."""
        if listener.name == "dicom" and self.config.dicom:
            host, port = parse_address(self.config.dicom, "dicom")
            return dataclasses.replace(listener, host=host or "", port=port)
        return listener

    async def _listen(self, listener: Listener) -> Server:
        config = self.config
        server = await serve(
            listener.host or None,
            listener.port,
            lambda rq, caller: self._router.authorise(
                self.servers[listener.name][0] if listener.name in self.servers else listener,
                rq,
                caller,
            ),
            timeouts=config.timeouts,
            limits=config.limits,
            tls=self._tls(listener),
            proxies=config.access.proxy_networks,
        )
        for host, port in server.addresses:
            print(f"listening on {host}:{port} ({listener.name})", file=sys.stderr, flush=True)
        return server

    def _tls(self, listener: Listener) -> Any:
        if not listener.tls:
            return None
        own = self.config.tls
        certificate = listener.tls.get("certificate") or own.certificate
        if not certificate:
            raise ConfigurationError(
                f"listener {listener.name!r} wants TLS; set tls.certificate in the configuration"
            )
        key = listener.tls.get("key") or own.key
        ca = listener.tls.get("client_ca") or own.client_ca
        return server_context(
            Path(certificate), Path(key) if key else None, client_ca=Path(ca) if ca else None
        )

    async def _follow_changes(self) -> None:
        directory, commits = self._storage.directory, self._commits

        def look(followed: object) -> tuple[object, int | None]:
            version = commits.version()
            return version, None if version == followed else directory.changes()

        followed: object = None
        while True:
            await asyncio.sleep(LOOK_FOR_CHANGES)
            try:
                version, changes = await in_thread(look, followed)
                if changes not in (None, self._router.snapshot.changes) or self._not_open:
                    await self._apply(await in_thread(directory.snapshot))
                    await self._tell()  # commands wait to see their change followed
                followed = version
            except HilumError as error:
                log.error("settings could not be read: %s", error)

    # ── upkeep ──────────────────────────────────────────────────────────────────────────────

    async def _beat_forever(self) -> None:
        while True:
            await self._tell()
            await asyncio.sleep(HEARTBEAT)

    async def _tell(self) -> None:
        async with self._telling:
            try:
                servers = {name: server for name, (_, server) in self.servers.items()}
                await in_thread(self._report, servers)
            except OSError as error:
                log.warning("the heartbeat could not be written: %s", error)

    def _report(self, by_name: Mapping[str, Server]) -> None:
        """Write the heartbeat; called in a thread, so the servers are given: they come and go."""
        beat, counters = self._beat, self._committer.counters
        beat.changes = self._router.snapshot.changes
        beat.opened = {
            name: [f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in server.addresses]
            for name, server in by_name.items()
        }
        beat.not_open = dict(self._not_open)
        beat.listeners = [address for each in beat.opened.values() for address in each]
        servers = by_name.values()
        beat.associations = sum(len(server.associations) for server in servers)
        beat.associations_accepted = sum(server.accepted for server in servers)
        beat.associations_rejected = sum(server.rejected for server in servers)
        beat.connections_refused = sum(server.refused for server in servers)
        for item in dataclasses.fields(counters):
            setattr(beat, item.name, getattr(counters, item.name))
        beat.waiting = self._committer.waiting
        beat.free_bytes = posix.free_space(str(self._storage.data)).bytes
        heartbeat.write(self._storage.data, beat)

    async def _checkpoint_forever(self) -> None:
        checkpointer = await in_thread(
            Checkpointer, self._storage.database, limit=self.config.store.wal_limit
        )
        try:
            while True:
                await asyncio.sleep(CHECKPOINT)
                try:
                    await in_thread(checkpointer.run)
                except HilumError as error:
                    log.error("%s", error)
        finally:
            checkpointer.close()

    async def _delete_forever(self) -> None:
        seen: object = None

        def delete() -> None:
            nonlocal seen
            before = self._commits.version()
            if before != seen:
                self._storage.delete_files()
                seen = before

        while True:
            try:
                await in_thread(delete)
            except (HilumError, NotFound, OSError) as error:
                log.error("removed instances still have files: %s", error)
            await asyncio.sleep(JANITOR)

    async def _forget_forever(self) -> None:
        while True:
            try:
                await in_thread(self._commitment.forget)
                await in_thread(self.commitment_user.forget)
            except HilumError as error:
                log.error("old commitments could not be deleted: %s", error)
            await asyncio.sleep(FORGET)

    async def _move_forever(self) -> None:
        while True:
            await asyncio.sleep(MOVE)
            if self._storage.blobs.spool.waiting:
                try:
                    await asyncio.to_thread(self._mover.run)
                except (HilumError, NotFound, OSError) as error:
                    log.error("%s", error)

    async def _keep_web(self, listening: socket.socket | None) -> None:
        """The web process: there while someone asks it, ended when we do (its stdin closes)."""
        config = self.config
        host, port = parse_address(config.web, "web")
        command = [sys.executable, "-P", "-m", "hilum", "web", "--data", str(self._storage.data)]
        command += ["--listen", f"{host or '0.0.0.0'}:{port}"]  # noqa: S104 - as asked for
        command += ["--reserve", str(config.store.reserve)]
        if listening is not None:
            command += ["--descriptor", str(listening.fileno())]
        try:
            while True:
                if listening is not None:
                    await first_connection(listening)
                code = await self._run_web(command, listening)
                if code:
                    log.error("the web process ended with %d; starting it again", code)
                    await asyncio.sleep(WEB_AGAIN)
        finally:
            if listening is not None:
                listening.close()

    async def _run_web(self, command: Sequence[str], listening: socket.socket | None) -> int:
        passed = () if listening is None else (listening.fileno(),)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, pass_fds=passed
        )
        try:
            return await process.wait()
        except asyncio.CancelledError:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise


def _die(error: BaseException) -> None:
    """A thread that writes is dead. The process ends: what waits is not acknowledged."""
    os._exit(70)


def _binding(listener: Listener | None) -> object:
    """What a listening socket depends on; other changes need no new one."""
    return None if listener is None else (listener.host, listener.port, dict(listener.tls))
