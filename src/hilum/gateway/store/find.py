"""Queries of the Query/Retrieve models, answered from the index in pages.

Each page is a short read transaction of its own; the next one goes on by keyset, so that what is
stored meanwhile moves no row from page to page. SQL narrows, and where it cannot tell exactly the
key itself is asked about the row.

Standard: PS3.4 C.4.1 (C-FIND), C.6.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Table,
    literal_column,
    select,
    tuple_,
)

from hilum.gateway.store import schema
from hilum.gateway.store.columns import COLUMNS, PATIENT_COUNTS, Column
from hilum.gateway.store.conditions import combined_condition, condition
from hilum.gateway.store.database import Database
from hilum.gateway.store.results import Cursor, Page, Viewer
from hilum.gateway.store.siblings import (
    merged_patient,
    merged_series,
    merged_studies,
    preferred_instance,
    preferred_patient,
    preferred_series,
    preferred_study,
)
from hilum.services.identifier import Attribute
from hilum.services.matching import OTHER_HALF, TIMEZONE_OFFSET, Key, Level, Query
from hilum.services.predicates import Range, Texts
from hilum.services.query_model import UNIQUE_KEYS

__all__ = ["Finder", "ReadHeader", "Values"]

_patient, _study, _series, _instance = schema.patient, schema.study, schema.series, schema.instance

Values = tuple[Any, ...]
"""Of one match, in the order of `Finder.columns`."""

ReadHeader = Callable[[str, frozenset[int]], Mapping[int, Attribute]]
"""Path of an object and wanted tags → attributes; none for a file that cannot be read."""

# A page ends after this time, however few matches it has found.
PAGE_SECONDS = 0.25
# Keys that only files have are given up after this time: what is to be read may be deflated, or on
# a slow disk, and nobody can cancel it.
FILES_SECONDS = 10.0

MODALITY = 0x00080060
MODALITIES_IN_STUDY = 0x00080061
_STUDY_COUNTS = {
    0x00201206: "n_series",
    0x00201208: "n_instances",
    MODALITIES_IN_STUDY: "modalities",
    MODALITY: "modalities",
    0x00080062: "sop_classes",
}
_SERIES_COUNT = 0x00201209

# Said by every response, and no attributes of what is found.
RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY = 0x00080054, 0x00080056
_OF_EVERY_ANSWER = frozenset({RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY})

_LEVELS = tuple(Level)
_TABLES: dict[Level, Table] = {
    Level.PATIENT: _patient,
    Level.STUDY: _study,
    Level.SERIES: _series,
    Level.IMAGE: _instance,
}


class Finder:
    """One query for one viewer; reads page after page, from any thread but one at a time.

    Args:
        database: see `open_database`.
        viewer: who asks.
        query: what is asked.
        level: at which level, checked against the model.
        read_header: reads what the index does not hold from the files; None: it is not answered.
        max_headers: matches by the other keys up to which files are read.

    Attributes:
        columns: tag and VR of each value of a match.
        unsupported: tags of keys that are neither matched nor returned.
    """

    def __init__(
        self,
        database: Database,
        viewer: Viewer,
        query: Query,
        level: Level,
        *,
        read_header: ReadHeader | None = None,
        max_headers: int = 0,
    ) -> None:
        self._database, self._viewer, self._level = database, viewer, level
        self._merging = viewer.sees_several
        asked = {key.tag: _at_level(key, level) for key in query.keys}
        self._held = {tag: _column(tag, level) for tag in asked if _column(tag, level) is not None}
        missing = [tag for tag in asked if tag not in self._held and tag not in _OF_EVERY_ANSWER]
        # What the index holds further down belongs to no single match of this level.
        self._from_files = frozenset(tag for tag in missing if tag not in COLUMNS)
        if read_header is None or max_headers < 1:
            self._from_files = frozenset()
        self._read_header, self._max_headers = read_header, max_headers
        self.unsupported = tuple(tag for tag in missing if tag not in self._from_files)
        self._query = replace(
            query.without({*missing, *_OF_EVERY_ANSWER}),
            keys=tuple(key for tag, key in asked.items() if tag in self._held),
        )
        self._file_keys = tuple(asked[tag] for tag in sorted(self._from_files))
        self._columns = tuple(column for _, column in sorted(self._held.items()) if column)
        self.columns = [(column.tag, column.vr) for column in self._columns]
        self.columns += [(key.tag, key.vr) for key in self._file_keys]
        self._moved = query.timezone is not None and level is not Level.PATIENT
        self._conditions()
        self._prepare()

    # ── what is asked ─────────────────────────────────────────────────────────────────────────

    def _conditions(self) -> None:
        query = self._query
        together = {tag for one in query.combined for tag in (one.date, one.time)}
        found = [combined_condition(one, moved=self._moved) for one in query.combined]
        for key in query.keys:
            column = self._held[key.tag]
            if key.is_universal or key.tag in together or column is None:
                continue
            found.append(condition(key, column, counts_exact=not self._merging, moved=self._moved))
        self._where = [one.sql for one in found if one.sql is not None]
        self._exact = all(one.exact for one in found)

    def _prepare(self) -> None:
        """The statement and its order."""
        level, viewer = self._level, self._viewer
        table = _TABLES[level]
        held = [column.expression.label(f"c{i}") for i, column in enumerate(self._columns)]
        extra: list[Any] = [table.c.id.label("id")]
        if self._moved:
            extra.append(_study.c.timezone_offset.label("timezone_offset"))
            extra += [half.expression.label(f"h{half.tag}") for half in self._halves()]
        if self._merging:
            extra += _identity(level)
        if self._from_files:
            extra.append(_a_file(level).label("path"))
        self._order, self._names, ordered = self._choose_order()
        extra += [
            column.label(f"o{i}") for i, column in enumerate(self._order[:-1])
        ]  # the id is there already
        statement: Select[Any] = select(*held, *extra).select_from(self._from())
        if self._merging:
            statement = statement.where(~_preferred(level, viewer))
        self._statement = statement.where(*_visible(level, viewer), *self._where).order_by(*ordered)

    def _halves(self) -> list[Column]:
        """What a date or a time needs to be moved to another zone, and was not asked for."""
        found = []
        for key in self._query.keys:
            if key.tag in OTHER_HALF and not key.is_universal:
                half = OTHER_HALF[key.tag]
                column = _column(half, self._level)
                if half not in self._held and column is not None:
                    found.append(column)
        return found

    def _from(self) -> FromClause:
        """The level's table and those above it that something is asked of."""
        level = self._level
        wanted = {column.level for column in self._columns}
        if self._merging:
            wanted |= set(_LEVELS[: _LEVELS.index(level) + 1])
        if level is not Level.PATIENT:  # it says whether there is a patient
            wanted.add(Level.STUDY)
        found: FromClause = _TABLES[level]
        joined = (
            (Level.SERIES, _series, _instance.c.series_ref == _series.c.id),
            (Level.STUDY, _study, _series.c.study_ref == _study.c.id),
            (Level.PATIENT, _patient, _study.c.patient_ref == _patient.c.id),
        )
        highest = min(map(_LEVELS.index, wanted), default=len(_LEVELS))
        for other, table, on in joined:
            place = _LEVELS.index(other)
            if highest <= place < _LEVELS.index(level):
                found = found.join(table, on)
        return found

    @property
    def _by_date(self) -> bool:
        """Whether the matches are read in order of Study Date: nothing narrows them better."""
        if self._level is Level.PATIENT:
            return False
        keys = {key.tag: key for key in self._query.keys if not key.is_universal}
        date = keys.get(0x00080020)
        if date is None or not isinstance(date.predicate, Range):
            return False
        better = (*UNIQUE_KEYS.values(), 0x00080050, 0x00100010)
        return not any(_narrows(keys.get(tag)) for tag in better)

    def _choose_order(
        self,
    ) -> tuple[list[ColumnElement[Any]], tuple[str, ...], list[ColumnElement[Any]]]:
        """Keyset columns, their names in a row, and what is ordered by.

        In order of the index that is walked, nothing is sorted. Where an index of another order
        narrows better, the order is hidden from SQLite, which would walk all rows for its sake.
        """
        id_ = _TABLES[self._level].c.id
        if self._by_date:
            order: list[ColumnElement[Any]] = [_study.c.study_date, _study.c.study_time]
            order += [_TABLES[level].c.id for level in _LEVELS[1 : _LEVELS.index(self._level) + 1]]
            names = tuple(f"o{i}" for i in range(len(order) - 1))
            return order, (*names, "id"), order
        narrowed = any(not key.is_universal for key in self._query.keys)
        hidden = id_ + literal_column("0") if narrowed else id_
        return [id_], ("id",), [hidden]

    # ── pages ─────────────────────────────────────────────────────────────────────────────────

    def page(self, after: Cursor | None = None, *, limit: int = 1000) -> Page[Values]:
        """The next matches; there may be none on a page that others follow.

        Args:
            after: `Page.next` of the page before.
            limit: matches at most.

        Raises:
            StorageFailed: the database cannot be read.
        """
        if self._from_files and after is None:
            return self._page_with_files()
        until = time.monotonic() + PAGE_SECONDS
        found: list[Values] = []
        with self._database.read() as connection:
            while True:
                rows, after = self._rows(connection, after, limit - len(found))
                found += [values for _, values in self._matching(connection, rows)]
                if after is None or len(found) >= limit or time.monotonic() >= until:
                    return Page(tuple(found), after)

    def _rows(
        self, connection: Connection, after: Cursor | None, limit: int
    ) -> tuple[Sequence[Row[Any]], Cursor | None]:
        statement = self._statement
        if after is not None:
            here, there = tuple_(*self._order), tuple_(*after)
            statement = statement.where(
                here > there if len(after) > 1 else self._order[0] > after[0]
            )
            if len(after) > 1:  # so that the index is entered at the date
                statement = statement.where(self._order[0] >= after[0])
        # What SQL cannot tell exactly may need many rows for one match.
        step = limit if self._exact else max(limit, 1000)
        rows = connection.execute(statement.limit(step + 1)).all()
        if len(rows) <= step:
            return rows, None
        rows = rows[:step]
        last = rows[-1]._mapping
        return rows, tuple(last[name] for name in self._names)

    def _matching(
        self, connection: Connection, rows: Sequence[Row[Any]]
    ) -> list[tuple[Row[Any], Values]]:
        """The rows that match, with what the viewer is told."""
        count = len(self._columns)
        told: list[Values] = [tuple(row[:count]) for row in rows]
        if self._merging and rows:
            told = self._merged(connection, rows, told)
        if self._exact:
            return list(zip(rows, told, strict=True))
        tags = [column.tag for column in self._columns]
        matches = self._query.matches
        found = []
        for row, values in zip(rows, told, strict=True):
            attributes = dict(zip(tags, values, strict=True))
            if self._moved:
                attributes.setdefault(TIMEZONE_OFFSET, row._mapping["timezone_offset"])
                for half in self._halves():
                    attributes[half.tag] = row._mapping[f"h{half.tag}"]
            if matches(attributes):
                found.append((row, values))
        return found

    def _merged(
        self, connection: Connection, rows: Sequence[Row[Any]], told: list[Values]
    ) -> list[Values]:
        """Counts over all the owners that the viewer sees."""
        tags = [column.tag for column in self._columns]
        counts: list[dict[int, Any]] = [{} for _ in rows]
        if self._level is Level.PATIENT and any(tag in tags for tag in PATIENT_COUNTS):
            for row, count in zip(rows, counts, strict=True):
                numbers = merged_patient(connection, self._viewer, row)
                count |= dict(zip(PATIENT_COUNTS, numbers, strict=True))
        elif self._level is Level.STUDY and any(tag in tags for tag in _STUDY_COUNTS):
            merged = merged_studies(connection, self._viewer, rows)
            for row, count in zip(rows, counts, strict=True):
                if row.id in merged:
                    found = merged[row.id]
                    count |= {
                        tag: "\\".join(found[name])
                        if isinstance(found[name], list)
                        else found[name]
                        for tag, name in _STUDY_COUNTS.items()
                    }
        elif self._level is Level.SERIES and _SERIES_COUNT in tags:
            of_series = merged_series(connection, self._viewer, rows)
            for row, count in zip(rows, counts, strict=True):
                if row.id in of_series:
                    count[_SERIES_COUNT] = of_series[row.id][0]
        return [
            tuple(count.get(tag, value) for tag, value in zip(tags, values, strict=True))
            if count
            else values
            for count, values in zip(counts, told, strict=True)
        ]

    # ── what only the files have ──────────────────────────────────────────────────────────────

    def _page_with_files(self) -> Page[Values]:
        """All matches, if they are few and soon read; else the keys of files are given up."""
        until = time.monotonic() + FILES_SECONDS
        found: list[tuple[Row[Any], Values]] = []
        after: Cursor | None = None
        while True:
            with self._database.read() as connection:
                rows, after = self._rows(connection, after, self._max_headers + 1)
                found += self._matching(connection, rows)
            if len(found) > self._max_headers or after is None or time.monotonic() >= until:
                break
        if len(found) > self._max_headers or after is not None:
            return self._page_without_files()
        assert self._read_header is not None
        matches = []
        for row, values in found:
            if time.monotonic() >= until:
                return self._page_without_files()
            header = self._read_header(row._mapping["path"], self._from_files)
            if all(
                key.matches(header[key.tag].value if key.tag in header else None)
                for key in self._file_keys
            ):
                more = (
                    _chosen(key, header[key.tag].value) if key.tag in header else None
                    for key in self._file_keys
                )
                matches.append((*values, *more))
        return Page(tuple(matches), None)

    def _page_without_files(self) -> Page[Values]:
        self.unsupported += tuple(key.tag for key in self._file_keys)
        self.columns = self.columns[: len(self._columns)]
        self._file_keys, self._from_files = (), frozenset()
        self._prepare()
        return self.page()


def _chosen(key: Key, value: Any) -> Any:
    """Of a sequence, the elements that were asked for; all of them when none was named.

    Standard: PS3.4 C.2.2.2.6.
    """
    if not isinstance(value, tuple) or not key.items:
        return value if not isinstance(value, bytes) else None
    wanted = {inner.tag: inner for inner in key.items}
    return tuple(
        tuple(
            one._replace(value=_chosen(wanted[one.tag], one.value))
            for one in item
            if one.tag in wanted and not isinstance(one.value, bytes)
        )
        for item in value
    )


# ── the parts of the statement ────────────────────────────────────────────────────────────────


def _column(tag: int, level: Level) -> Column | None:
    """Where the index holds an attribute for matches of a level."""
    column = COLUMNS.get(tag)
    if tag == MODALITY and level is Level.STUDY:
        # Asked so by many; what is meant is Modalities in Study.
        return replace(COLUMNS[MODALITIES_IN_STUDY], tag=MODALITY)
    if column is None or _LEVELS.index(column.level) > _LEVELS.index(level):
        return None
    return column


def _at_level(key: Key, level: Level) -> Key:
    if key.tag == MODALITY and level is Level.STUDY and isinstance(key.predicate, Texts):
        return replace(key, predicate=replace(key.predicate, several=True))
    return key


def _narrows(key: Key | None) -> bool:
    """Whether a key leads into an index: a value, or the beginning of one."""
    if key is None or not isinstance(key.predicate, Texts):
        return False
    return all(
        pattern.prefix and (pattern.text.isascii() or not key.predicate.is_name)
        for pattern in key.predicate.patterns
    )


def _visible(level: Level, viewer: Viewer) -> list[ColumnElement[bool]]:
    # A study without UID stands for objects of no patient, which these models do not have.
    of_a_patient = _study.c.study_uid != ""
    if level is Level.PATIENT:
        some = _study.alias()
        inside: Select[Any] = select(literal_column("1")).where(
            some.c.patient_ref == _patient.c.id,
            some.c.n_instances > 0,
            some.c.study_uid != "",
        )
        return [viewer.may_see(_patient.c.owner_id), inside.exists()]
    if level is Level.STUDY:
        return [viewer.may_see(_study.c.owner_id), _study.c.n_instances > 0, of_a_patient]
    if level is Level.SERIES:
        return [viewer.may_see(_study.c.owner_id), _series.c.n_instances > 0, of_a_patient]
    return [viewer.may_see(_instance.c.owner_id), _instance.c.superseded == 0, of_a_patient]


def _preferred(level: Level, viewer: Viewer) -> ColumnElement[bool]:
    return {
        Level.PATIENT: preferred_patient,
        Level.STUDY: preferred_study,
        Level.SERIES: preferred_series,
        Level.IMAGE: preferred_instance,
    }[level](viewer)


def _identity(level: Level) -> list[ColumnElement[Any]]:
    """What the functions of `siblings` know a row by."""
    if level is Level.PATIENT:
        names = ("patient_id", "issuer", "lone_study_uid")
        return [_patient.c[name].label(name) for name in names]
    if level is Level.STUDY:
        return [
            _study.c.study_uid.label("study_uid"),
            _patient.c.patient_id.label("p_patient_id"),
            _patient.c.issuer.label("p_issuer"),
        ]
    if level is Level.SERIES:
        return [
            _study.c.study_uid.label("study_uid"),
            _series.c.series_uid.label("series_uid"),
        ]
    return []


def _a_file(level: Level) -> ColumnElement[Any]:
    """The path of one instance of a match, which stands for all of them."""
    if level is Level.IMAGE:
        return _instance.c.path
    inside, around, above = _instance.alias(), _series.alias(), _study.alias()
    statement: Select[Any] = select(inside.c.path).where(inside.c.superseded == 0)
    if level is Level.SERIES:
        statement = statement.where(inside.c.series_ref == _series.c.id).correlate(_series)
    elif level is Level.STUDY:
        statement = statement.where(
            inside.c.series_ref == around.c.id, around.c.study_ref == _study.c.id
        ).correlate(_study)
    else:
        statement = statement.where(
            inside.c.series_ref == around.c.id,
            around.c.study_ref == above.c.id,
            above.c.patient_ref == _patient.c.id,
        ).correlate(_patient)
    return statement.limit(1).scalar_subquery()
