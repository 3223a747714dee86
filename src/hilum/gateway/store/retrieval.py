"""What a retrieve names, as places of files: counted first, then page by page.

Standard: PS3.4 C.4.2, C.4.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import FromClause, Select, func, literal_column, select

from hilum.gateway.store import schema
from hilum.gateway.store.database import Database
from hilum.gateway.store.results import FOUND, Found, Viewer
from hilum.gateway.store.siblings import preferred_instance
from hilum.services.query_model import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
)

__all__ = ["Retrieval"]

_patient, _study, _series, _instance = schema.patient, schema.study, schema.series, schema.instance

# Below the 32,766 parameters that SQLite takes.
MAX_NAMES = 30_000


class Retrieval:
    """The instances that a viewer is given; from any thread.

    Args:
        database: see `open_database`.
        viewer: who asks; of an instance that he sees from two owners he is given his own.
        named: values of unique keys by tag, see `query_model.uids_to_retrieve`.
    """

    def __init__(
        self, database: Database, viewer: Viewer, named: Mapping[int, Sequence[str]]
    ) -> None:
        self._database = database
        where = [viewer.may_see(_instance.c.owner_id), _instance.c.superseded == 0]
        if viewer.sees_several:
            where.append(~preferred_instance(viewer))
        source: FromClause = _instance
        columns = (
            (SOP_INSTANCE_UID, _instance.c.sop_uid, None, None),
            (SERIES_INSTANCE_UID, _series.c.series_uid, _series,
             _instance.c.series_ref == _series.c.id),
            (STUDY_INSTANCE_UID, _study.c.study_uid, _study, _series.c.study_ref == _study.c.id),
            (PATIENT_ID, _patient.c.patient_id, _patient, _study.c.patient_ref == _patient.c.id),
        )  # fmt: skip
        highest = max(index for index, column in enumerate(columns) if column[0] in named)
        for tag, column, table, on in columns[: highest + 1]:
            if table is not None and on is not None:
                source = source.join(table, on)
            if tag in named:
                names = list(named[tag])
                where.append(column == names[0] if len(names) == 1 else column.in_(names))
        self._from, self._where = source, where

    def count(self) -> int:
        """How many there are."""
        statement = select(func.count()).select_from(self._from).where(*self._where)
        with self._database.read() as connection:
            return int(connection.scalar(statement) or 0)

    def page(self, after: int = 0, limit: int = 1000) -> list[Found]:
        """The next ones in order of arrival.

        Args:
            after: `Found.id` of the last one of the page before.
            limit: instances at most.
        """
        # Hidden from SQLite, which would walk all instances for the sake of their order.
        order = _instance.c.id + literal_column("0")
        statement: Select[Any] = (
            select(*FOUND)
            .select_from(self._from)
            .where(*self._where, order > after)
            .order_by(order)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [Found(*row) for row in connection.execute(statement)]
