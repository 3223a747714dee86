"""Everything in the archive held against everything in the index, for ``hilum verify``.

Reads beside a running gateway: rows first, then files. What was removed meanwhile is no finding,
nor is a file without a row that was written to a moment ago: it is waiting for its row. What has no
row in the spool goes with its segment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from hilum.gateway.store import scan, schema
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database

__all__ = ["Finding", "Verification", "verify"]

_PAGE = 500
# A file is there before its row: as long as its bytes come, and a batch takes.
_YOUNG = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Args:
        path: the file, relative to the data directory.
        problem: in words.
        sop_instance_uid: where it is known.
    """

    path: str
    problem: str
    sop_instance_uid: str = ""


@dataclass(slots=True)
class Verification:
    """The result.

    Args:
        instances: rows checked, older versions and the quarantine included.
        bytes: of their data sets.
        files: files looked at.
        findings: what is wrong.
    """

    instances: int = 0
    bytes: int = 0
    files: int = 0
    findings: list[Finding] = field(default_factory=list)


def verify(
    database: Database,
    blobs: BlobStore,
    *,
    digests: bool = True,
    progress: Callable[[Verification], None] = lambda _: None,
) -> Verification:
    """Check every row's file, and that every file has a row.

    Args:
        database: see ``open_database``.
        blobs: the store.
        digests: read every file and compare its XXH3-128; otherwise its header and length.
        progress: called from time to time.

    Raises:
        StorageFailed: the database cannot be read.
    """
    result = Verification()
    for row in _rows(database):
        result.instances += 1
        result.bytes += row.size
        problem = _check(blobs, row, digests=digests)
        if problem and _is_there(database, row.id):
            result.findings.append(Finding(row.path, problem, row.sop_uid))
        if result.instances % 100 == 0:
            progress(result)
    files = blobs.scan_all(digest=False)
    while batch := list(islice(files, _PAGE)):
        result.files += len(batch)
        names = {f.meta.sop_instance_uid for f in batch if f.meta is not None}
        known = _known_paths(database, names)
        for found in batch:
            if found.path not in known and not _is_young(blobs, found.path):
                why = f"no row for this file ({found.problem or 'it is whole'})"
                result.findings.append(Finding(found.path, why))
        progress(result)
    return result


def _rows(database: Database) -> Iterator[Row[*tuple[Any, ...]]]:
    instance, last = schema.instance, -1
    columns = (instance.c.id, instance.c.sop_uid, instance.c.path, instance.c.size)
    statement = select(*columns, instance.c.digest).order_by(instance.c.id).limit(_PAGE)
    while True:
        # One short read transaction a page: a long one keeps the log from being emptied.
        with database.read() as connection:
            page = connection.execute(statement.where(instance.c.id > last)).all()
        if not page:
            return
        yield from page
        last = page[-1].id


def _check(blobs: BlobStore, row: Row[*tuple[Any, ...]], *, digests: bool) -> str:
    try:
        blobs.full_path(row.path)
    except ValueError as error:
        return str(error)
    found = scan.examine(blobs.root, row.path, digest=digests)
    if found.problem is not None:
        return str(found.problem)
    assert found.meta is not None
    if found.meta.length != row.size or found.meta.digest != row.digest:
        return "the file is whole, but not the one that the index means"
    return ""


def _is_there(database: Database, row_id: int) -> bool:
    instance = schema.instance
    with database.read() as connection:
        statement = select(instance.c.id).where(instance.c.id == row_id)
        return connection.scalar(statement) is not None


def _is_young(blobs: BlobStore, path: str) -> bool:
    """Whether it was written to a moment ago, or is gone."""
    try:
        return time.time() - Path(blobs.root, path).lstat().st_mtime < _YOUNG
    except FileNotFoundError:
        return True


def _known_paths(database: Database, sop_uids: set[str]) -> set[str]:
    instance, tombstone = schema.instance, schema.tombstone
    with database.read() as connection:
        found = connection.scalars(select(instance.c.path).where(instance.c.sop_uid.in_(sop_uids)))
        # Of what is being moved the file is there before its row says so.
        known = {path.partition("@")[0] for path in found}
        # What was removed a moment ago is deleted in the next one.
        known.update(
            connection.scalars(select(tombstone.c.path).where(tombstone.c.sop_uid.in_(sop_uids)))
        )
    return known
