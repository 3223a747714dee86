"""Keys of a query as conditions of SQL.

A condition never leaves out a row that matches. Where it lets through more than the key does, the
caller asks the key itself about each row (`Condition.exact`).

Standard: PS3.4 C.2.2.2.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, false, literal_column, or_

from hilum.gateway.store import schema
from hilum.gateway.store.columns import COLUMNS, Column, Kind
from hilum.services.matching import Combined, Key
from hilum.services.predicates import Absent, Numbers, Pattern, Range, Texts, Universal

__all__ = ["Condition", "combined_condition", "condition"]

# LIKE takes a time that grows with a power of the text's length for each further asterisk.
_MOST_ASTERISKS = 3
_LAST = "\U0010ffff"


class Condition(NamedTuple):
    """A key in SQL.

    Args:
        sql: None where SQL can narrow nothing.
        exact: it holds for the rows that match, and no others.
    """

    sql: ColumnElement[bool] | None
    exact: bool


def condition(key: Key, column: Column, *, counts_exact: bool, moved: bool) -> Condition:
    """What a key asks of its column.

    Args:
        key: not universal.
        column: of `COLUMNS`.
        counts_exact: the counts in the index are what the viewer is told.
        moved: dates and times are asked in a time zone that may not be the row's.
    """
    predicate, expression = key.predicate, column.expression
    if isinstance(predicate, Universal):
        return Condition(None, True)
    if isinstance(predicate, Absent):
        if column.kind is Kind.COUNT:
            return Condition(false(), True)
        empty = expression.is_(None) if column.kind is Kind.NUMBER else expression == ""
        # A merged study may have values where this row has none.
        return Condition(empty, True) if column.kind is not Kind.SET else Condition(None, False)
    if isinstance(predicate, Range):
        return _range(predicate, expression, moved=moved)
    if isinstance(predicate, Numbers):
        return _numbers(predicate, column, counts_exact=counts_exact)
    assert isinstance(predicate, Texts)
    match column.kind:
        case Kind.TEXT:
            return _texts(predicate, column)
        case Kind.FOLDED_NAME:
            assert column.folded is not None
            return _name(predicate, column.folded)
        case Kind.SET:
            return _set(predicate, expression, counts_exact=counts_exact)
        case Kind.VALUES:
            return Condition(_anywhere(predicate, expression), False)
        case _:
            return Condition(expression != "", False)


# ── texts ─────────────────────────────────────────────────────────────────────────────────────


def _texts(predicate: Texts, column: Column) -> Condition:
    expression = column.expression
    exact = True
    parts: list[ColumnElement[bool]] = []
    literals = sorted(predicate.literals)
    if len(literals) == 1:
        parts.append(expression == literals[0])
    elif literals:
        parts.append(expression.in_(literals))
    for pattern in predicate.wild:
        sql, whole = _like(pattern, expression)
        exact &= whole
        parts.append(sql)
    found = or_(*parts)
    if expression is schema.study.c.accession_number:
        # The literal lets SQLite see that the partial index applies.
        found = and_(expression != literal_column("''"), found)
    elif any(not pattern.prefix for pattern in predicate.wild):
        found = and_(expression != "", found)
    return Condition(found, exact)


def _like(pattern: Pattern, expression: ColumnElement[Any]) -> tuple[ColumnElement[bool], bool]:
    """A pattern as a range of the index, where it begins with plain characters, and a LIKE."""
    prefix = pattern.prefix
    parts: list[ColumnElement[bool]] = []
    if prefix:
        parts += [expression >= prefix, expression <= prefix + _LAST]
    whole = pattern.text.count("*") <= _MOST_ASTERISKS
    if whole:
        parts.append(expression.like(_escaped(pattern.text), escape="!"))
    return (and_(*parts) if parts else expression != ""), whole


def _escaped(pattern: str) -> str:
    for special in ("!", "%", "_"):
        pattern = pattern.replace(special, "!" + special)
    return pattern.replace("*", "%").replace("?", "_")


def _name(predicate: Texts, folded: ColumnElement[Any]) -> Condition:
    """A folded name, by its component groups as `Pattern.matches_groups` has them."""
    exact = True
    parts = []
    for pattern in predicate.patterns:
        sql, whole = _one_name(pattern, folded)
        parts.append(sql)
        exact &= whole
    return Condition(or_(*parts), exact)


def _one_name(pattern: Pattern, folded: ColumnElement[Any]) -> tuple[ColumnElement[bool], bool]:
    text = pattern.text
    if "=" in text:
        return (folded == text, True) if pattern.is_literal else _like(pattern, folded)
    if text.count("*") > _MOST_ASTERISKS:
        prefix = pattern.prefix if text.isascii() else ""
        if not prefix:
            return folded != "", False
        return and_(folded >= prefix, folded <= prefix + _LAST), False
    like = _escaped(text)
    if not text.isascii():
        shapes = (like, like + "=%", "%=" + like, "%=" + like + "=%")
        # An asterisk of SQL's crosses from group to group.
        return or_(*(folded.like(shape, escape="!") for shape in shapes)), pattern.is_literal
    only_prefix = text == pattern.prefix + "*"
    found: ColumnElement[bool] = folded.like(like, escape="!")
    if not only_prefix:
        found = or_(found, folded.like(like + "=%", escape="!"))
    if pattern.prefix:
        # One range holds the name with and without further groups.
        found = and_(folded >= pattern.prefix, folded <= pattern.prefix + _LAST, found)
    return found, only_prefix or pattern.is_literal


def _set(
    predicate: Texts, expression: ColumnElement[Any], *, counts_exact: bool
) -> Condition:  # fmt: skip
    """Values of the index's own joining: one more backslash at each end makes all alike."""
    if not counts_exact:  # another owner's study may bring the value
        return Condition(None, False)
    joined = "\\" + expression + "\\"
    parts = [
        joined.like("%\\" + _escaped(pattern.text) + "\\%", escape="!")
        for pattern in predicate.patterns
        if pattern.text.count("*") <= _MOST_ASTERISKS
    ]
    if len(parts) < len(predicate.patterns):
        return Condition(expression != "", False)
    return Condition(or_(*parts), not predicate.wild)


def _anywhere(predicate: Texts, expression: ColumnElement[Any]) -> ColumnElement[bool]:
    """One of the texts somewhere in the column; which value it is, the key itself finds out."""
    if any(pattern.text.count("*") > _MOST_ASTERISKS for pattern in predicate.patterns):
        return expression != ""
    return or_(
        *(
            expression.like("%" + _escaped(pattern.text) + "%", escape="!")
            for pattern in predicate.patterns
        )
    )


# ── dates, times, numbers ─────────────────────────────────────────────────────────────────────


def _range(predicate: Range, expression: ColumnElement[Any], *, moved: bool) -> Condition:
    low, high = predicate.low, predicate.high
    if moved and predicate.vr == "TM":
        return Condition(expression != "", False)
    if moved:
        low, high = _day(low, -1), _day(high, 1)
    if low and low == high:
        return Condition(expression == low, not moved)
    parts: list[ColumnElement[bool]] = [expression >= low if low else expression != ""]
    if high:
        parts.append(expression <= high)
    return Condition(and_(*parts), not moved)


def _day(date: str, step: int) -> str:
    """Two days before or after: no two time zones, from -12:00 to +14:00, are further apart."""
    if not date:
        return ""
    try:
        return (datetime.strptime(date, "%Y%m%d") + timedelta(days=2 * step)).strftime("%Y%m%d")
    except OverflowError:
        return ""


def combined_condition(combined: Combined, *, moved: bool) -> Condition:
    """A date and its time as one moment."""
    date, time = COLUMNS[combined.date].expression, COLUMNS[combined.time].expression
    dates, times = combined.date_range, combined.time_range
    days, _ = _range(dates, date, moved=moved)
    assert days is not None
    if moved:
        return Condition(days, False)
    parts = [days, time != ""]
    if dates.low and times.low:
        parts.append(or_(date > dates.low, time >= times.low))
    if dates.high and times.high:
        parts.append(or_(date < dates.high, time <= times.high))
    return Condition(and_(*parts), True)


def _numbers(predicate: Numbers, column: Column, *, counts_exact: bool) -> Condition:
    if column.kind not in (Kind.NUMBER, Kind.COUNT):
        return Condition(column.expression != "", False)
    if column.kind is Kind.COUNT and not counts_exact:
        return Condition(None, False)
    whole = sorted({int(value) for value in predicate.values if _fits(value)})
    if not whole:
        return Condition(false(), True)
    expression = column.expression
    return Condition(expression == whole[0] if len(whole) == 1 else expression.in_(whole), True)


def _fits(value: float) -> bool:
    """Whether it is a whole number of 64 bits."""
    return value == int(value) and abs(value) < 2**63
