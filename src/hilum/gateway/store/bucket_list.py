"""The durable list of open buckets, for `buckets.Buckets` and the start after a crash."""

from __future__ import annotations

import time

from sqlalchemy import insert, select, update

from hilum.gateway.store import schema
from hilum.gateway.store.database import Database

__all__ = ["BucketList"]


class BucketList:
    """Which buckets may hold files without rows; safe to use from any thread.

    Args:
        database: see `open_database`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def opened(self, name: str) -> None:
        """Record a bucket as open; durable on return.

        Raises:
            StorageFailed: it is not recorded.
        """
        bucket = schema.bucket
        with self._database.write() as connection:
            again = connection.execute(
                update(bucket).where(bucket.c.name == name).values(closed_at=None)
            )
            if not again.rowcount:
                connection.execute(
                    insert(bucket).values(name=name, opened_at=_now(), closed_at=None)
                )

    def closed(self, name: str) -> None:
        """Record that nothing is in flight in a bucket and that it takes no more.

        Raises:
            StorageFailed: it is still listed as open.
        """
        bucket = schema.bucket
        with self._database.write() as connection:
            connection.execute(update(bucket).where(bucket.c.name == name).values(closed_at=_now()))

    def open_names(self) -> list[str]:
        """The buckets that were not closed, by name.

        Raises:
            StorageFailed: the database cannot be read.
        """
        bucket = schema.bucket
        with self._database.read() as connection:
            return list(
                connection.scalars(
                    select(bucket.c.name)
                    .where(bucket.c.closed_at.is_(None))
                    .order_by(bucket.c.name)
                )
            )


def _now() -> int:
    return time.time_ns() // 1000
