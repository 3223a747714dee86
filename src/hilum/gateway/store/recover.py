"""Files and rows brought together again: after a crash, and for ``hilum reindex``.

A file without a row was never answered for, or its row was lost with the database. A whole one is
given a row, an incomplete one is removed. Only the open buckets are looked at after a crash, and
only the headers of files that have rows; everything is read when the database is rebuilt.
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
from hilum.gateway.store.incoming import Existing, Incoming, OutcomeKind
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.mapped import mapped
from hilum.gateway.store.scan import Found, Problem
from hilum.gateway.store.schema import InstanceFlag, MissingUidPolicy, quarantine_owner
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
        files: looked at.
        known: of them had a row.
        indexed: got one.
        duplicates: said what another file with a row says; removed.
        incomplete: were never whole, and nobody was told that they are kept; removed.
        damaged: were whole once, or are not ours; left where they are, for a person to look at.
    """

    files: int = 0
    known: int = 0
    indexed: int = 0
    duplicates: int = 0
    incomplete: int = 0
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
            return schema.GLOBAL_OWNER
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
    """Bring the rows into agreement with the files of some buckets, oldest arrival first.

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
    return work.report


class _Reconciliation:
    def __init__(
        self,
        blobs: BlobStore,
        writer: IndexWriter,
        scanner: HeaderScanner,
        database: Database,
        rebuilding: bool,
    ) -> None:
        self.report = Report()
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
        gone: list[str] = []
        missing: list[Incoming] = []
        for file in found:
            problem = file.problem
            if file.path in with_rows:
                if problem is None:
                    report.known += 1
                    continue
            elif problem is None:
                problem = None if self._rebuilding else self._blobs.verify(file.path)
                incoming = self._incoming(file) if problem is None else None
                if incoming is not None:
                    missing.append(incoming)
                    continue
            if file.path not in with_rows and self._is_debris(problem):
                report.incomplete += 1
                gone.append(file.path)
            else:
                report.damaged += 1
                log.error("%s: %s", file.path, problem or "it cannot be indexed")
        gone += self._index(missing)
        if gone:
            self._blobs.remove(gone)

    def _is_debris(self, problem: Problem | None) -> bool:
        """Whether what has no row was certainly never acknowledged."""
        if problem is Problem.INCOMPLETE:
            return True
        mine = (Problem.DAMAGED, Problem.LENGTH, Problem.DIGEST)
        return not self._rebuilding and problem in mine

    def _with_rows(self, found: Sequence[Found]) -> set[str]:
        """Paths of these files that the index knows."""
        owned = {}
        for file in found:
            if file.meta is not None and (owner := self._owner(file)) is not None:
                owned[file.path] = (owner, file.meta.sop_instance_uid)
        versions = self._writer.lookup(owned.values())
        known = {path for path, identity in owned.items() if _has(path, versions.get(identity))}
        nameless = [file.path for file in found if file.problem is Problem.DAMAGED]
        if nameless and not self._rebuilding:
            # Paths are not indexed: this reads all rows, but only where a power cut left debris.
            path = schema.instance.c.path
            with self._database.read() as connection:
                known.update(connection.scalars(select(path).where(path.in_(nameless))))
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
        self.report.duplicates += len(same)
        self.report.indexed += len(missing) - len(same)
        return same


def _has(path: str, versions: Sequence[Existing] | None) -> bool:
    return any(version.path == path for version in versions or ())


def _incoming(
    blobs: BlobStore, scanner: HeaderScanner, file: Found, meta: ObjectMeta, owner: int
) -> Incoming:
    with mapped(blobs.full_path(file.path)) as data:
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
    return Incoming(
        owner_id=owner,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        path=file.path,
        data_offset=file.offset,
        size=meta.length,
        digest=meta.digest,
        values=examined.values,
        received_at=meta.arrived_us,
        flags=flags,
        sending_ae=meta.sending_ae_title,
        receiving_ae=meta.receiving_ae_title,
    )
