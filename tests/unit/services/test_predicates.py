from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.services.predicates import (
    MAX_VALUES,
    Absent,
    BadValue,
    Moments,
    Numbers,
    Pattern,
    Range,
    Texts,
    Universal,
    offset_minutes,
    predicate_for,
)


def matches(vr, key, value, **options):
    return predicate_for(vr, key, **options).matches(value)


def wrong(vr, cases):
    """Of triples of key, value and whether they match: those of which it is not so."""
    return [case for case in cases if matches(vr, *case[:2]) is not case[2]]


@pytest.mark.parametrize("vr", ["LO", "PN", "UI", "DA", "TM", "DT", "IS", "CS", "FD"])
def test_nothing_and_asterisks_are_universal(vr):
    for key in ("", "  ", "*", "**", "\0"):
        assert predicate_for(vr, key) == Universal(), key
        assert matches(vr, key, "") and matches(vr, key, "anything"), key


def test_two_double_quotes_match_what_has_no_value():
    assert predicate_for("LO", '""') == Absent()
    assert matches("DA", '""', "") and not matches("LO", '""', "x")


@pytest.mark.parametrize("vr", ["OB", "UN", "AT"])
def test_what_has_no_text_is_not_matched(vr):
    assert predicate_for(vr, "x") == Universal()


# ── texts ─────────────────────────────────────────────────────────────────────────────────────


def test_texts():
    cases = [
        ("A1", "A1", True),
        ("A1", " A1 ", True),
        ("A1 ", "A1", True),
        ("A1", "a1", False),
        ("A1", "A11", False),
        ("A1", "", False),
        ("A*", "A", True),
        ("A*", "xA", False),
        ("*1", "A1", True),
        ("A?", "A1", True),
        ("A?", "A", False),
        ("?", "", False),
        ("A_", "A1", False),
        ("A%", "A1", False),
        ("A%*", "A%1", True),
        ("[AB]", "A", False),
        ("*b*d*", "abcde", True),
        ("*d*b*", "abcde", False),
        ("a.c", "abc", False),
        ("a*a", "a", False),
        ("a\nb*", "a\nbc", True),
        ("A\\B", "B", True),
        ("A\\C*", "CC", True),
    ]
    assert wrong("LO", cases) == []


def test_one_of_several_values_is_enough_where_the_attribute_may_have_them():
    assert matches("CS", "PRIMARY", "ORIGINAL\\PRIMARY")
    assert not matches("SH", "B", "A\\B", several=False)


def test_long_texts_have_one_value():
    assert matches("LT", "a\\b", "a\\b")
    assert not matches("LT", "a\\b", "b")


def test_a_list_of_uids():
    predicate = predicate_for("UI", "1.2\\1.3\\")
    assert isinstance(predicate, Texts)
    assert predicate.literals == {"1.2", "1.3"}
    assert predicate.matches("1.3\0") and not predicate.matches("1.4")


def test_a_list_with_an_asterisk_is_universal():
    assert predicate_for("CS", "CT\\*") == Universal()
    assert predicate_for("CS", "\\\\") == Universal()


def test_a_list_has_a_limit():
    with pytest.raises(BadValue, match="at most"):
        predicate_for("UI", "\\".join(["1"] * (MAX_VALUES + 1)))


def test_patterns_know_their_beginning():
    assert Pattern.of("AB*C?").prefix == "AB"
    assert Pattern.of("AB").is_literal and not Pattern.of("A?").is_literal
    assert Pattern.of("a***b").text == "a*b"


def test_many_asterisks_take_no_time():
    pattern = Pattern.of("*a" * 60 + "*b")
    assert not pattern.matches("a" * 512)  # tried in every way, it would take years


@given(st.text("ab?*", max_size=8), st.text("ab", max_size=8))
def test_wildcards_are_what_they_are(pattern, value):
    def fits(p, v):
        if not p:
            return not v
        if p[0] == "*":
            return fits(p[1:], v) or (bool(v) and fits(p, v[1:]))
        return bool(v) and p[0] in ("?", v[0]) and fits(p[1:], v[1:])

    assert Pattern.of(pattern).matches(value) == fits(pattern, value)


# ── names ─────────────────────────────────────────────────────────────────────────────────────


def test_names():
    cases = [
        ("DOE^JOHN", "Doe^John", True),
        ("doe^john", "DOE^JOHN^^^", True),
        ("DOE^JOHN^^", "Doe^John", True),
        ("Müller*", "MULLER^HANS", True),
        ("muller^hans", "Müller^Hans", True),
        ("Doe^*", "Doe", True),
        ("Doe^*", "Doe^Jane", True),
        ("Doe^*", "Doer^Jane", False),
        ("*^Jane", "Doe^Jane", True),
        ("Doe", "Doe^Jane", False),
        ("山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("やまだ^たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("yamada^tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("Yamada*=山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("Yamada*=田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", False),
        ("Y*U", "Yamada^Tarou=山田^太郎", True),
        ("=山田^太郎", "Yamada^Tarou=山田^太郎", False),
        ("Smith", "Doe\\Smith", True),
        ("Doe ^ John", "DOE^JOHN", True),
    ]
    assert wrong("PN", cases) == []


def test_a_name_of_delimiters_only_is_universal():
    assert predicate_for("PN", "^^^") == Universal()
    assert predicate_for("PN", "*^^") == Universal()


# ── dates and times ───────────────────────────────────────────────────────────────────────────


def test_dates():
    cases = [
        ("20240229", "20240229", True),
        ("20240229", "2024.02.29", True),
        ("2024.02.29", "20240229", True),
        ("20240101-20241231", "20240229", True),
        ("20240101 - 20241231", "20240229", True),
        ("20240101-20240228", "20240229", False),
        ("20240229-", "20240229", True),
        ("-20240229", "20240229", True),
        ("-20240228", "20240229", False),
        ("-20240228", "", False),
        ("20240101-", "19991231", False),
        ("20240101-", "junk", False),
        ("20240101-20240102", "20230101\\20240102", True),
    ]
    assert wrong("DA", cases) == []


def test_times():
    cases = [
        ("10", "105959.999999", True),
        ("10", "110000", False),
        ("1030", "103059.9", True),
        ("103000", "1030", True),
        ("103000.0", "10", False),
        ("100000.000", "10", True),
        ("10-1130", "113059", True),
        ("10-1130", "1131", False),
        ("-1130", "000000", True),
        ("1030-", "10", False),
        ("1030-", "235959", True),
        ("103015.5", "103015.55", True),
        ("103015.5", "103015.6", False),
        ("103015.5-", "103015.50", True),
        ("103015.5-", "103015", False),
        ("00", "00", True),
        ("0000-0001", "0002", False),
        ("10:30:00", "103000", True),
        ("1000-", "", False),
    ]
    assert wrong("TM", cases) == []


TIMES = st.tuples(
    st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999_999),
    st.sampled_from([2, 4, 6, 8, 9, 13]),
).map(lambda t: f"{t[0]:02}{t[1]:02}{t[2]:02}.{t[3]:06}"[: t[4]].removesuffix("."))  # fmt: skip


@given(TIMES, TIMES, TIMES)
def test_times_compare_as_moments_do(low, high, value):
    def padded(text, digit):
        whole, _, fraction = text.partition(".")
        rest = "000000" if digit == "0" else "235959"
        return int(whole + rest[len(whole) :] + fraction.ljust(6, digit))

    expected = padded(low, "0") <= padded(value, "0") <= padded(high, "9")
    assert matches("TM", f"{low}-{high}", value) is expected


@pytest.mark.parametrize("key", ["2024", "20241301", "2024-01-01", "-", "x", "20240101-x"])
def test_what_is_no_date(key):
    with pytest.raises(BadValue):
        predicate_for("DA", key)


@pytest.mark.parametrize("key", ["24", "1", "10-99", "x"])
def test_what_is_no_time(key):
    with pytest.raises(BadValue):
        predicate_for("TM", key)


def test_moments():
    cases = [
        ("20240229101500", "20240229101500", True),
        ("20240229", "20240229235959.999999", True),
        ("20240229", "20240301", False),
        ("202402", "20240229120000", True),
        ("2023", "20231231235959", True),
        ("2024", "20241231", True),
        ("20240229-20240301", "20240301235959", True),
        ("-2023", "2024", False),
        ("2024-", "2023", False),
        ("20240229100000+0100", "20240229090000+0000", True),
        ("20240229100000-0500", "20240229150000+0000", True),
        ("20240229100000-0500-20240229110000-0500", "20240229153000+0000", True),
        ("20240229100000-0500-20240229110000-0500", "20240229163000+0000", False),
        ("20240229100000-0500-", "20240229153000+0000", True),
        ("-20240229100000-0500", "20240229153000+0000", False),
        ("202402291015", "20240229101559", True),
        ("2024022910", "202402291059", True),
        ("20240229101530.5", "20240229101530.54", True),
        ("20240229101530.5", "20240229101530.6", False),
        ("2024", "junk", False),
        ("20161231235960", "20161231235959.5", True),
    ]
    assert wrong("DT", cases) == []


def test_moments_without_an_offset_are_in_the_given_one():
    key = predicate_for("DT", "20240229100000", offset=60)
    assert isinstance(key, Moments)
    assert key.matches("20240229090000+0000") and key.matches("20240229100000")


@pytest.mark.parametrize("key", ["x", "20241301", "20240101+9900", "-", "20240101+0199"])
def test_what_is_no_moment(key):
    with pytest.raises(BadValue):
        predicate_for("DT", key)


# ── numbers ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("vr", "key", "value", "expected"),
    [
        ("IS", "1", "01", True),
        ("IS", "+1", "1 ", True),
        ("DS", "1.50", "1.5", True),
        ("DS", "1.5", "2\\1.5", True),
        ("US", "512", "512", True),
        ("US", "512\\256", "256", True),
        ("IS", "1", "", False),
        ("IS", "1", "x", False),
        ("IS", "1", "10", False),
    ],
)
def test_numbers(vr, key, value, expected):
    assert matches(vr, key, value) is expected


@pytest.mark.parametrize("key", ["x", "nan", "inf", "1\\x", "1*"])
def test_what_is_no_number(key):
    with pytest.raises(BadValue):
        predicate_for("IS", key)


def test_predicates_are_values():
    assert predicate_for("DA", "20240101") == Range("DA", "20240101", "20240101")
    assert predicate_for("IS", "1") == Numbers(frozenset({1.0}))
    assert hash(predicate_for("LO", "a*")) == hash(predicate_for("LO", "a*"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("+0100", 60), ("-0530", -330), ("+01:00", 60), ("", None), ("+1500", None), ("0100", None),
     ("+0160", None)],
)  # fmt: skip
def test_offsets(value, expected):
    assert offset_minutes(value) == expected
