"""Files and rows brought together again: after a crash, and for ``hilum reindex``.

A file without a row was never answered for, or its row was lost with the database. A whole one is
given a row, an incomplete one is removed. Only the open buckets are looked at after a crash; every
bucket when the database is rebuilt.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from hilum.errors import NotFound, StorageFailed
from hilum.gateway.store import schema
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database
from hilum.gateway.store.examine import examine
from hilum.gateway.store.incoming import Incoming, OutcomeKind
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.mapped import mapped
from hilum.gateway.store.scan import Found, Problem
from hilum.gateway.store.schema import InstanceFlag, MissingUidPolicy
from hilum.services.header import HeaderScanner

__all__ = ["Report", "reconcile"]

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


def reconcile(
    blobs: BlobStore,
    writer: IndexWriter,
    scanner: HeaderScanner,
    owner_id: Callable[[str], int],
    buckets: Iterable[str],
    progress: Callable[[Report], None] = lambda _: None,
    *,
    database: Database | None,
) -> Report:
    """Bring the rows into agreement with the files of some buckets, oldest arrival first.

    Idempotent: interrupted anywhere, it can be run again.

    Args:
        database: after a crash: a file that is not whole and has no row was never acknowledged
            and is removed. None when the rows are lost: what is not whole may have been
            acknowledged and damaged since, and stays; only what says of itself that it was still
            being received is removed.
        blobs: the store.
        writer: of the index; nobody else may write meanwhile.
        scanner: compiled from the index's keys.
        owner_id: account name → id; makes the account where there is none.
        buckets: by name, in the order they were opened.
        progress: called after every batch.

    Raises:
        StorageFailed: the index or the files cannot be written.
    """
    report = Report()
    for bucket in buckets:
        found = sorted(blobs.scan_bucket(bucket), key=lambda f: f.meta.arrived_us if f.meta else 0)
        for start in range(0, len(found), BATCH):
            piece = found[start : start + BATCH]
            _reconcile(blobs, writer, scanner, owner_id, piece, report, database)
            progress(report)
    return report


def _reconcile(
    blobs: BlobStore,
    writer: IndexWriter,
    scanner: HeaderScanner,
    owner_id: Callable[[str], int],
    found: Sequence[Found],
    report: Report,
    database: Database | None,
) -> None:
    report.files += len(found)
    gone: list[str] = []
    broken = [file for file in found if file.problem not in (None, Problem.FOREIGN)]
    acknowledged = _paths_with_rows(database, broken) if database is not None and broken else None
    whole: list[Incoming] = []
    for file in found:
        if file.problem is None:
            assert file.meta is not None
            owner = 0 if file.meta.owner is None else owner_id(file.meta.owner)
            whole.append(_incoming(blobs, scanner, file, owner))
        elif file.problem is Problem.INCOMPLETE or (
            file.problem is not Problem.FOREIGN
            and acknowledged is not None
            and file.path not in acknowledged
        ):
            report.incomplete += 1
            gone.append(file.path)
        else:
            report.damaged += 1
            log.error("%s: %s", file.path, file.problem)
    versions = writer.lookup(incoming.identity for incoming in whole)
    missing = [
        incoming
        for incoming in whole
        if not any(v.path == incoming.path for v in versions.get(incoming.identity, ()))
    ]
    report.known += len(whole) - len(missing)
    if missing:
        outcomes = writer.commit(missing, deadline=time.monotonic() + PATIENCE)
        for incoming, outcome in zip(missing, outcomes, strict=True):
            if outcome.kind is OutcomeKind.SAME:
                report.duplicates += 1
                gone.append(incoming.path)
            else:
                report.indexed += 1
    if gone:
        blobs.remove(gone)


def _paths_with_rows(database: Database, files: Sequence[Found]) -> set[str]:
    """Paths are not indexed: this reads all rows, but only after a power cut that left debris."""
    paths = [file.path for file in files]
    instance = schema.instance
    with database.read() as connection:
        return set(connection.scalars(select(instance.c.path).where(instance.c.path.in_(paths))))


def _incoming(blobs: BlobStore, scanner: HeaderScanner, file: Found, owner: int) -> Incoming:
    meta = file.meta
    assert meta is not None
    try:
        with mapped(blobs.full_path(file.path)) as data:
            scan = scanner.scan(data, meta.transfer_syntax_uid, final=True)
    except (OSError, NotFound) as error:
        raise StorageFailed(f"{file.path}: {error}") from error
    # It was accepted once: what its title's policy was then is not asked again.
    examined = examine(
        scan,
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
