"""Damaged data sets are the same as nothing but themselves, and never raise."""

from __future__ import annotations

import io

import pydicom
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.services.test_content import (
    EXPLICIT,
    IMPLICIT,
    NATIVE,
    ONE,
    RLE,
    THREE,
    TWO,
    encapsulated,
    encoded,
    offsets,
    small,
)

from hilum.services.content import same_content

SOURCES = {
    (syntax, encoded(small(), syntax)) for syntax in NATIVE
} | {(RLE, encapsulated([ONE[:4], ONE[4:], TWO, THREE], offsets(0, 26, 42), frames=3))}  # fmt: skip


@given(st.data())
@settings(max_examples=600, deadline=None)
def test_damaged_bytes_never_raise(data: st.DataObject) -> None:
    syntax, source = data.draw(st.sampled_from(sorted(SOURCES)))
    damaged = bytearray(source)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        stop = start + data.draw(st.integers(0, 6))
        damaged[start:stop] = data.draw(st.binary(max_size=6))
    other_syntax, other = data.draw(st.sampled_from(sorted(SOURCES)))
    assert same_content(damaged, syntax, other, other_syntax) in (True, False)
    assert same_content(damaged, syntax, bytes(damaged), syntax)


@given(st.integers(0, 10_000), st.integers(1, 255))
@example(216, 8)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_one_changed_byte_is_the_same_only_where_pydicom_says_so(place: int, by: int) -> None:
    """pydicom ignores padding and group lengths too, so it may not find a difference either."""
    source = encoded(small(), EXPLICIT)
    damaged = bytearray(source)
    damaged[place % len(source)] ^= by
    if same_content(bytes(damaged), EXPLICIT, encoded(small(), IMPLICIT), IMPLICIT):
        # A VR of text for another one of text says the same.
        assert values(bytes(damaged)) == values(source)


def values(data: bytes) -> list[tuple[int, str]]:
    ds = pydicom.dcmread(io.BytesIO(data), force=True)
    return [(element.tag, str(element.value)) for element in ds]
