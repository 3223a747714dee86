from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from pynetdicom import status as theirs

from hilum.services import status
from hilum.services.service_statuses import MOVE
from hilum.services.status import (
    C_ECHO,
    C_STORE,
    GENERAL,
    Category,
    Entry,
    Status,
    category,
    describe,
)
from hilum.wire.command import CommandField

CATEGORIES = {
    0x0000: Category.SUCCESS,
    0x0001: Category.WARNING,
    0x0107: Category.WARNING,
    0x0116: Category.WARNING,
    0x0110: Category.FAILURE,
    0x0117: Category.FAILURE,
    0x0122: Category.FAILURE,
    0x01FF: Category.FAILURE,
    0x0212: Category.FAILURE,
    0x02FF: Category.FAILURE,
    0xA6FF: Category.FAILURE,
    0xA700: Category.FAILURE,
    0xA7FF: Category.FAILURE,
    0xA801: Category.FAILURE,
    0xA900: Category.FAILURE,
    0xB000: Category.WARNING,
    0xB006: Category.WARNING,
    0xB007: Category.WARNING,
    0xBFFF: Category.WARNING,
    0xC000: Category.FAILURE,
    0xCFFF: Category.FAILURE,
    0xFE00: Category.CANCEL,
    0xFF00: Category.PENDING,
    0xFF01: Category.PENDING,
}


def test_categories() -> None:
    assert {code: category(code) for code in CATEGORIES} == CATEGORIES


def test_only_zero_is_success() -> None:
    edges = (0x0000, 0x0100, 0x0300, 0xA000, 0xB000, 0xC000, 0xD000, 0xFE00, 0xFF00)
    codes = {edge + near for edge in edges for near in range(-2, 3)} | set(range(0, 0x10000, 7))
    assert [code for code in sorted(codes) if category(code) is Category.SUCCESS] == [0]


@pytest.mark.parametrize("code", [0x0002, 0x0300, 0x9999, 0xD000, 0xFE01, 0xFF02, 0xFFFF])
def test_a_code_outside_every_range_is_a_failure(code: int) -> None:
    assert category(code) is Category.FAILURE
    assert describe(code) == f"{code:04X}H failure: unknown status"


def test_categories_agree_with_pynetdicom() -> None:
    table = theirs.GENERAL_STATUS | theirs.STORAGE_SERVICE_CLASS_STATUS
    for code, (name, _) in table.items():
        assert category(code).value == name.lower(), f"{code:04X}H"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0x0000, "0000H success"),
        (0xFF00, "FF00H pending"),
        (0x0122, "0122H failure: refused: SOP class not supported"),
        (0xA700, "A700H failure: refused: out of resources"),
        (0xA7AB, "A7ABH failure: refused: out of resources"),
        (0xA900, "A900H failure: data set does not match SOP class"),
        (0xB007, "B007H warning: stored, data set does not wholly match SOP class"),
        (0xB123, "B123H warning: warning of the service, code not in the standard"),
        (0xC001, "C001H failure: cannot understand"),
        (0x0299, "0299H failure: general failure, code not in the standard"),
        (0xFE00, "FE00H cancel: cancelled"),
    ],
)
def test_describe(code: int, text: str) -> None:
    assert describe(code) == text


@pytest.mark.parametrize("table", [C_ECHO, C_STORE, GENERAL], ids=["C-ECHO", "C-STORE", "general"])
def test_a_table_is_in_order_and_without_overlaps(table: tuple[status.Entry, ...]) -> None:
    assert all(entry.first <= entry.last for entry in table)
    assert all(before.last < after.first for before, after in pairwise(table))


def test_what_c_store_shares_with_every_service_is_called_the_same() -> None:
    shared = {entry.first: entry for entry in C_STORE if entry.first < 0x1000}
    assert {entry.first: entry for entry in GENERAL if entry.first in shared} == shared


def test_c_echo_says_what_c_store_says() -> None:
    assert all(entry in C_STORE for entry in C_ECHO)


def test_every_named_status_has_a_meaning_of_its_own() -> None:
    entries = (*C_STORE, *GENERAL, *MOVE)
    assert [one for one in Status if not any(entry.covers(one) for entry in entries)] == []


class Service:
    def statuses(self, operation: int | None = None) -> Sequence[Entry]:
        assert operation == CommandField.C_MOVE_RQ
        return MOVE


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0x0000, "0000H success"),
        (0xA801, "A801H failure: refused: move destination unknown"),
        (0xB000, "B000H warning: sub-operations complete, one or more failures or warnings"),
        (0xC123, "C123H failure: unable to process"),
        (0xA7FF, "A7FFH failure: failure of the service, code not in the standard"),
        (0x0124, "0124H failure: refused: not authorised"),
    ],
)
def test_describe_for_a_service(code: int, text: str) -> None:
    assert describe(code, Service(), CommandField.C_MOVE_RQ) == text
