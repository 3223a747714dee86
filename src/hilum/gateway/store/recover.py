"""Files and rows brought together again: after a crash, and for ``hilum reindex``.

A file without a row was never answered for, or its row was lost with the database. A whole one is
given a row, an incomplete one is removed. Only the spool and the open buckets are looked at after
a crash, and only the headers of files that have rows; everything is read when the database is
rebuilt.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from hilum.errors import ConfigurationError, StorageFailed
from hilum.gateway.store import scan, schema
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.examine import Mismatch, examine
from hilum.gateway.store.file_meta import ObjectMeta
from hilum.gateway.store.incoming import Incoming, OutcomeKind
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.layout import bucket_name, record_path, spooled, spooled_path
from hilum.gateway.store.mapped import mapped
from hilum.gateway.store.scan import Found, Problem
from hilum.gateway.store.states import (
    GLOBAL_OWNER,
    InstanceFlag,
    MissingUidPolicy,
    quarantine_owner,
)
from hilum.services.header import HeaderScanner

__all__ = ["Owners", "Report", "reconcile"]

log = logging.getLogger("hilum.store")

# One transaction: the write lock is held for some milliseconds.
BATCH = 64
PATIENCE = 60.0


@dataclass(slots=True)
class Report:
    """What was found and done.

    Args:
        files: looked at, in buckets and spool, without those that wait in the spool as they should.
        known: of them had a row.
        indexed: got one.
        duplicates: said what another file with a row says; removed.
        incomplete: were never whole, and nobody was told that they are kept; removed.
        waiting: lie in the spool, have rows, and will get files of their own.
        damaged: were whole once, or are not ours; left where they are, for a person to look at.
    """

    files: int = 0
    known: int = 0
    indexed: int = 0
    duplicates: int = 0
    incomplete: int = 0
    waiting: int = 0
    damaged: int = 0


class Owners:
    """The ids of the owners that files name.

    Args:
        database: the accounts are there, removed ones too: their data stays theirs.
    """

    def __init__(self, database: Database) -> None:
        self._directory = Directory(database, actor="gateway")
        account = schema.account
        with database.read() as connection:
            found = connection.execute(select(account.c.name, account.c.id))
            self._ids: dict[str, int] = {row.name: row.id for row in found}

    def id(self, name: str | None) -> int:
        """The account's id, 0 for everyone's; makes the account where there was never one.

        Raises:
            ConfigurationError: no user can have that name.
        """
        if name is None:
            return GLOBAL_OWNER
        if name not in self._ids:
            title = None if len(name) <= 12 else f"HILUM-{len(self._ids) + 1}"
            self._ids[name] = self._directory.add_account(name, alias_title=title).id
        return self._ids[name]


def reconcile(
    blobs: BlobStore,
    writer: IndexWriter,
    scanner: HeaderScanner,
    database: Database,
    buckets: Iterable[str],
    progress: Callable[[Report], None] = lambda _: None,
    *,
    rebuilding: bool = False,
) -> Report:
    """Bring the rows into agreement with the files of some buckets, oldest arrival first, and then
    with the spool, which is ready to be moved afterwards.

    Idempotent: interrupted anywhere, it can be run again.

    Args:
        blobs: the store.
        writer: of the index; nobody else may write meanwhile.
        scanner: compiled from the index's keys.
        database: the writer's.
        buckets: by name, in the order they were opened.
        progress: called after every batch.
        rebuilding: the rows are lost: what is not whole may have been acknowledged and damaged
            since, and stays; only what says of itself that it was still being received is
            removed. Otherwise a file that is not whole and has no row was never acknowledged.

    Raises:
        StorageFailed: the index or the files cannot be written.
    """
    work = _Reconciliation(blobs, writer, scanner, database, rebuilding)
    for bucket in buckets:
        # A row proves that its file was durable; only where rows are missing all is read.
        files = scan.scan_bucket(blobs.root, bucket, digest=rebuilding)
        found = sorted(files, key=lambda file: file.meta.arrived_us if file.meta else 0)
        for start in range(0, len(found), BATCH):
            work.run(found[start : start + BATCH])
            progress(work.report)
    for segment in blobs.spool.on_disk():
        found = list(scan.scan_segment(blobs.root, segment, digest=rebuilding))
        for start in range(0, len(found), BATCH):
            work.run(found[start : start + BATCH])
            progress(work.report)
        blobs.spool.adopt(segment, work.own_paths)
        if work.unclear:
            blobs.spool.keep(segment)
        work.own_paths, work.unclear = [], False
    return work.report


class _Reconciliation:
    """The work on files, some at a time.

    Attributes:
        report: so far.
        own_paths: of the files that objects of the spool will have.
        unclear: something of the spool can neither be indexed nor dropped.
    """

    def __init__(
        self,
        blobs: BlobStore,
        writer: IndexWriter,
        scanner: HeaderScanner,
        database: Database,
        rebuilding: bool,
    ) -> None:
        self.report = Report()
        self.own_paths: list[str] = []
        self.unclear = False
        self._blobs = blobs
        self._writer = writer
        self._scanner = scanner
        self._database = database
        self._owners = Owners(database)
        self._directory = Directory(database).snapshot()
        self._rebuilding = rebuilding

    def run(self, found: Sequence[Found]) -> None:
        report = self.report
        report.files += len(found)
        with_rows = self._with_rows(found)
        removed = self._removed(found)
        gone: list[str] = []
        missing: list[Incoming] = []
        for file in found:
            problem, row_path = file.problem, with_rows.get(file.path)
            if row_path is not None and problem is None:
                place = spooled(row_path)
                if place is None:
                    report.known += 1
                elif file.path == place.own:
                    gone.append(file.path)  # its move was interrupted, and is done once more
                else:
                    report.files -= 1
                    report.waiting += 1
                    self.own_paths.append(place.own)
                continue
            if row_path is None and problem is None:
                problem = None if self._rebuilding else self._blobs.verify(file.path)
                if file.path in removed:
                    gone.append(file.path)
                    continue
                incoming = self._incoming(file) if problem is None else None
                if incoming is not None:
                    missing.append(incoming)
                    continue
            if row_path is None and self._is_debris(problem):
                report.incomplete += 1
                gone.append(file.path)
            else:
                report.damaged += 1
                self.unclear |= spooled(file.path) is not None
                log.error("%s: %s", file.path, problem or "it cannot be indexed")
        gone += self._index(missing)
        if gone:
            self._blobs.remove(gone)

    def _removed(self, found: Sequence[Found]) -> set[str]:
        """Objects of the spool that have left the index: their segment should have gone too."""
        metas = {
            file.path: file.meta
            for file in found
            if file.meta is not None and spooled(file.path) is not None
        }
        if not metas:
            return set()
        table = schema.tombstone
        statement = select(table.c.sop_uid, table.c.received_at, table.c.digest).where(
            table.c.sop_uid.in_({meta.sop_instance_uid for meta in metas.values()})
        )
        with self._database.read() as connection:
            gone = {tuple(row) for row in connection.execute(statement)}
        return {
            path
            for path, meta in metas.items()
            if (meta.sop_instance_uid, meta.arrived_us, meta.digest) in gone
        }

    def _is_debris(self, problem: Problem | None) -> bool:
        """Whether what has no row was certainly never acknowledged."""
        if problem is Problem.INCOMPLETE:
            return True
        mine = (Problem.DAMAGED, Problem.LENGTH, Problem.DIGEST)
        return not self._rebuilding and problem in mine

    def _with_rows(self, found: Sequence[Found]) -> dict[str, str]:
        """The files that the index knows: their paths, and those that the rows say."""
        owned = {}
        for file in found:
            if file.meta is not None and (owner := self._owner(file)) is not None:
                owned[file.path] = (owner, file.meta.sop_instance_uid)
        versions = self._writer.lookup(owned.values())
        known = {
            path: version.path
            for path, identity in owned.items()
            for version in versions.get(identity, ())
            if path in _names(version.path)
        }
        nameless = {file.path for file in found if file.problem is Problem.DAMAGED}
        if nameless and not self._rebuilding:
            # Paths are not indexed: this reads all rows, but only where a power cut left debris.
            with self._database.read() as connection:
                for row_path in connection.scalars(select(schema.instance.c.path)):
                    for name in nameless.intersection(_names(row_path)):
                        known[name] = row_path
        return known

    def _owner(self, file: Found) -> int | None:
        """The owner as the index knows it; None where no user can have the name in the file."""
        assert file.meta is not None
        try:
            owner = self._owners.id(file.meta.owner)
        except ConfigurationError as error:
            log.error("%s: %s", file.path, error)
            return None
        return quarantine_owner(owner) if file.meta.quarantined else owner

    def _incoming(self, file: Found) -> Incoming | None:
        """What the index needs; None where the file is not what we could have stored."""
        meta, owner = file.meta, self._owner(file)
        assert meta is not None
        if owner is None:
            return None
        try:
            found = _incoming(self._blobs, self._scanner, file, meta, self._owners.id(meta.owner))
            found.fallback_charset = self._fallback_charset(meta)
            return found
        except Mismatch as mismatch:
            log.error("%s: %s", file.path, mismatch)
            return None
        except OSError as error:
            raise StorageFailed(f"{file.path}: {error}") from error

    def _fallback_charset(self, meta: ObjectMeta) -> str | None:
        """Of the sender, as far as its AE title tells it, else of the called title."""
        for peer in self._directory.peers:
            if peer.ae_title == meta.sending_ae_title and peer.fallback_charset:
                return peer.fallback_charset
        title = self._directory.resolve(meta.receiving_ae_title)
        return title.fallback_charset or None if title is not None else None

    def _index(self, missing: Sequence[Incoming]) -> list[str]:
        """Write rows; returns the files that are not needed."""
        if not missing:
            return []
        outcomes = self._writer.commit(missing, deadline=time.monotonic() + PATIENCE)
        same = [
            incoming.path
            for incoming, outcome in zip(missing, outcomes, strict=True)
            if outcome.kind is OutcomeKind.SAME
        ]
        places = [spooled(incoming.path) for incoming in missing if incoming.path not in same]
        self.own_paths += [place.own for place in places if place is not None]
        self.report.duplicates += len(same)
        self.report.indexed += len(missing) - len(same)
        return same


def _names(row_path: str) -> tuple[str, ...]:
    """The paths under which what a row points at may be found on disk."""
    place = spooled(row_path)
    if place is None:
        return (row_path,)
    return (place.own, record_path(place.segment, place.offset))


def _incoming(
    blobs: BlobStore, scanner: HeaderScanner, file: Found, meta: ObjectMeta, owner: int
) -> Incoming:
    with mapped(blobs.root, file.path) as data:
        header = scanner.scan(data, meta.transfer_syntax_uid, final=True)
    # It was accepted once: what its title's policy was then is not asked again.
    examined = examine(
        header,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        missing=MissingUidPolicy.QUARANTINE,
    )
    flags = examined.flags & ~InstanceFlag.QUARANTINED
    if meta.quarantined:
        flags |= InstanceFlag.QUARANTINED
    path, place = file.path, spooled(file.path)
    if place is not None:
        bucket = bucket_name(meta.arrived_us / 1e6, 1)
        own = blobs.reserve(bucket, meta, examined.study_uid, examined.series_uid)
        path = spooled_path(own, place.segment, place.offset)
    return Incoming(
        owner_id=owner,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        path=path,
        data_offset=file.offset,
        size=meta.length,
        digest=meta.digest,
        values=examined.values,
        received_at=meta.arrived_us,
        flags=flags,
        sending_ae=meta.sending_ae_title,
        receiving_ae=meta.receiving_ae_title,
    )
