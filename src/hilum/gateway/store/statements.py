"""The index writer's statements, compiled once for the database's own driver.

Each takes its parameters by position, in the order of the table's columns for inserts and as
named here for the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Dialect, Insert, Select, Table, Update, bindparam, insert, select, update

from hilum.gateway.store import schema
from hilum.gateway.store.keys import PATIENT_KEYS, SERIES_KEYS, STUDY_KEYS, Key

__all__ = ["Statements"]

# Given by the database or filled in later.
_NOT_INSERTED = {
    "work": {
        *("id", "key", "origin", "lease_until", "lease_boot", "worker", "began_at", "finished_at")
    }
}


class Statements:
    """SQL texts for one dialect.

    Args:
        dialect: of the engine, with a positional parameter style.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.insert_patient = self._insert(schema.patient)
        self.insert_study = self._insert(schema.study)
        self.insert_series = self._insert(schema.series)
        self.insert_instance = self._insert(schema.instance)
        self.insert_work = self._insert(schema.work)
        self.find_patient = self._compile(*_find_patient())
        self.find_study = self._compile(*_find_study())
        self.find_series = self._compile(*_find_series())
        self.find_versions = self._compile(*_find_versions())
        self._find_all_versions = self._compile(*_find_all_versions())
        self.count_study = self._compile(*_count_study())
        self.count_series = self._compile(*_count_series())
        self.flag_conflict = self._compile(*_flag_conflict())
        self.move_instance = self._compile(*_move_instance())

    def find_all_versions(self, count: int) -> str:
        """SQLite: the versions of so many SOP Instance UIDs, every owner's, current ones first."""
        return self._find_all_versions.replace("= ?", f"IN ({', '.join('?' * count)})")

    @staticmethod
    def many(insert: str, rows: int) -> str:
        """An insert statement for several rows at once, with the parameters of all of them.

        SQLite's driver lets other threads run with every step, and then has to wait for them.
        """
        head, values, row = insert.rpartition(" VALUES ")
        return f"{head}{values}{', '.join([row] * rows)}"

    def _insert(self, table: Table) -> str:
        left_out = _NOT_INSERTED.get(table.name, set())
        names = [column.name for column in table.columns if column.name not in left_out]
        statement = insert(table).values({name: bindparam(name) for name in names}).inline()
        return self._compile(statement, names)

    def _compile(self, statement: Insert | Select[*tuple[object, ...]] | Update,
                 parameters: Sequence[str]) -> str:  # fmt: skip
        compiled = statement.compile(dialect=self._dialect)
        order = list(getattr(compiled, "positiontup", None) or ())
        assert order == list(parameters), (order, parameters)
        return str(compiled)


def _columns(table: Table, keys: tuple[Key, ...]) -> list[object]:
    return [table.c[key.column] for key in keys]


def _find_patient() -> tuple[Select[*tuple[object, ...]], list[str]]:
    table = schema.patient
    names = ["patient_id", "issuer", "lone_study_uid", "owner_id"]
    statement = select(table.c.id, *_columns(table, PATIENT_KEYS)).where(
        *(table.c[name] == bindparam(name) for name in names)
    )
    return statement, names


def _find_study() -> tuple[Select[*tuple[object, ...]], list[str]]:
    table = schema.study
    statement = (
        select(
            table.c.id,
            table.c.patient_ref,
            table.c.conflict,
            table.c.n_series,
            table.c.n_instances,
            table.c.total_bytes,
            table.c.last_received,
            table.c.modalities,
            table.c.sop_classes,
            *_columns(table, STUDY_KEYS),
        )
        .where(table.c.study_uid == bindparam("uid"), table.c.owner_id == bindparam("owner"))
        # The study's row is the lock of everything below it; SQLite leaves the clause out.
        .with_for_update()
    )
    return statement, ["uid", "owner"]


def _find_series() -> tuple[Select[*tuple[object, ...]], list[str]]:
    table = schema.series
    statement = select(
        table.c.id, table.c.n_instances, table.c.total_bytes, *_columns(table, SERIES_KEYS)
    ).where(table.c.series_uid == bindparam("uid"), table.c.study_ref == bindparam("study"))
    return statement, ["uid", "study"]


def _find_versions() -> tuple[Select[*tuple[object, ...]], list[str]]:
    table = schema.instance
    statement = (
        select(
            table.c.id,
            table.c.digest,
            table.c.size,
            table.c.transfer_syntax,
            table.c.path,
            table.c.superseded,
        )
        .where(table.c.sop_uid == bindparam("uid"), table.c.owner_id == bindparam("owner"))
        .order_by(table.c.superseded)
    )
    return statement, ["uid", "owner"]


def _find_all_versions() -> tuple[Select[*tuple[object, ...]], list[str]]:
    table = schema.instance
    statement = (
        select(
            table.c.owner_id,
            table.c.sop_uid,
            table.c.id,
            table.c.digest,
            table.c.size,
            table.c.transfer_syntax,
            table.c.path,
            table.c.superseded,
        )
        .where(table.c.sop_uid == bindparam("uid"))
        .order_by(table.c.superseded)
    )
    return statement, ["uid"]


def _count_study() -> tuple[Update, list[str]]:
    table = schema.study
    names = ["n_series", "n_instances", "total_bytes", "modalities", "sop_classes",
             "last_received"]  # fmt: skip
    statement = update(table).where(table.c.id == bindparam("key"))
    return statement.values({name: bindparam(name) for name in names}), [*names, "key"]


def _count_series() -> tuple[Update, list[str]]:
    table = schema.series
    names = ["n_instances", "total_bytes"]
    statement = update(table).where(table.c.id == bindparam("key"))
    return statement.values({name: bindparam(name) for name in names}), [*names, "key"]


def _flag_conflict() -> tuple[Update, list[str]]:
    table = schema.study
    statement = update(table).where(
        table.c.study_uid == bindparam("uid"), table.c.owner_id == bindparam("owner")
    )
    return statement.values({"conflict": bindparam("flag")}), ["flag", "uid", "owner"]


def _move_instance() -> tuple[Update, list[str]]:
    table = schema.instance
    statement = update(table).where(
        table.c.id == bindparam("key"), table.c.path == bindparam("before")
    )
    return statement.values({"path": bindparam("after")}), ["after", "key", "before"]
