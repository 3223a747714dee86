"""The selection rules as a table of cases."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from hilum.gateway.flow.selection import (
    Group,
    Image,
    Level,
    Selection,
    Series,
    choose,
    groups_of,
)

RDSR = "1.2.840.10008.5.1.4.1.1.88.67"
ESR = "1.2.840.10008.5.1.4.1.1.88.22"
RRDSR = "1.2.840.10008.5.1.4.1.1.88.68"
BASIC = "1.2.840.10008.5.1.4.1.1.88.11"
SOMETHING = "1.2.840.10008.5.1.4.1.1.7"


class S(NamedTuple):
    """A series for a case: ``images`` are (name, SOP class, number) or names."""

    name: str
    modality: str
    images: tuple = ()
    description: str = ""


def run(study, *, groups=(), dose=True, first_images=False):
    """Choose; returns what was asked to be looked into, and the selection."""
    series = [Series(s.name, s.modality, s.description) for s in study]
    images = {
        s.name: [
            Image(i, SOMETHING, None) if isinstance(i, str) else Image(*(*i, None)[:3])
            for i in s.images
        ]
        for s in study
    }
    looked: list[str] = []
    choosing = choose(series, groups=groups, dose=dose, first_images=first_images)
    try:
        ask = next(choosing)
        while True:
            looked += [one.uid for one in ask.series]
            assert ask.sop_classes is (
                dose and all(one.modality in ("SR", "") for one in ask.series)
            )
            ask = choosing.send({one.uid: images[one.uid] for one in ask.series})
    except StopIteration as stop:
        selection: Selection = stop.value
    everything = {i if isinstance(i, str) else i[0] for s in study for i in s.images}
    dropped_series = {d.uid for d in selection.dropped if d.level is Level.SERIES}
    accounted = {uid for uids in selection.wanted.values() for uid in uids}
    assert not accounted & {d.uid for d in selection.dropped}
    accounted |= {d.uid for d in selection.dropped if d.level is Level.IMAGE}
    accounted |= {
        i if isinstance(i, str) else i[0]
        for s in study
        if s.name in dropped_series
        for i in s.images
    }
    assert accounted == everything, "something was dropped without a reason"
    assert all(d.reason for d in selection.dropped)
    return looked, selection


def taken(selection: Selection) -> set[str]:
    return {uid for uids in selection.wanted.values() for uid in uids}


REPORT = S("sr", "SR", (("rdsr", RDSR),))
ENHANCED = S("sr", "SR", (("esr", ESR),))
RADIO = S("sr", "SR", (("rrdsr", RRDSR),))
OTHER_REPORT = S("sr2", "SR", (("basic", BASIC),))
PICTURE = S("info", "CT", ("screen",), "Dose Info")

CASES = {
    # name: (study, groups, first_images, taken, series looked into)
    "MG with a report": ([S("m", "MG", ("m1", "m2")), REPORT], (), False, {"rdsr"}, ["sr"]),
    "MG without": ([S("m", "MG", ("m1", "m2"))], (), False, {"m1", "m2"}, ["m"]),
    "MG with an enhanced SR only": (
        [S("m", "MG", ("m1",)), ENHANCED], (), False, {"m1"}, ["sr", "m"]),
    "DX with a report": ([S("d", "DX", ("d1",)), REPORT], (), False, {"rdsr"}, ["sr"]),
    "CR without": ([S("c", "CR", ("c1",)), OTHER_REPORT], (), False, {"c1"}, ["sr2", "c"]),
    "PX without": ([S("p", "PX", ("p1",))], (), False, {"p1"}, ["p"]),
    "DX without, with another modality": (
        [S("d", "DX", ("d1",)), S("k", "KO", ("k1",)), S("p", "PR", ("p1",))],
        (), False, {"d1"}, ["d"]),
    "XA with a report": ([S("x", "XA", ("x1",)), REPORT], (), False, {"rdsr"}, ["sr"]),
    "RF with an enhanced SR": ([S("x", "RF", ("x1",)), ENHANCED], (), False, {"esr"}, ["sr"]),
    "XA with both": (
        [S("x", "XA", ("x1",)), S("sr", "SR", (("rdsr", RDSR), ("esr", ESR)))],
        (), False, {"rdsr"}, ["sr"]),
    "XA without": ([S("x", "XA", ("x1",)), OTHER_REPORT], (), False, set(), ["sr2"]),
    "XA without any": ([S("x", "XA", ("x1",))], (), False, set(), []),
    "CT with a report": (
        [S("c", "CT", ("c1", "c2")), REPORT, PICTURE], (), True, {"rdsr"}, ["sr"]),
    "CT with two reports": (
        [S("c", "CT", ("c1",)), S("sr", "SR", (("a", RDSR), ("b", RDSR)))],
        (), False, {"a", "b"}, ["sr"]),
    "CT with an enhanced SR": (
        [S("c", "CT", ("c1",)), ENHANCED, PICTURE], (), True, {"esr"}, ["sr"]),
    "CT with Dose Info": (
        [S("c", "CT", ("c1",)), PICTURE, OTHER_REPORT], (), True, {"screen"}, ["sr2", "info"]),
    "CT with dose info in other letters": (
        [S("c", "CT", ("c1",)), S("i", "OT", ("s",), " DOSE INFO ")],
        (), False, {"s"}, ["i"]),
    "CT with nothing": ([S("c", "CT", ("c1", "c2"))], (), False, set(), []),
    "CT with nothing, by option": (
        [S("c", "CT", (("c2", SOMETHING, 2), ("c1", SOMETHING, 1))), S("d", "CT", ("d1", "d2"))],
        (), True, {"c1", "d1"}, ["c", "d"]),
    "NM with a report": ([S("n", "NM", ("n1",)), RADIO], (), False, {"rrdsr"}, ["sr"]),
    "PT with a report": (
        [S("p", "PT", (("p2", SOMETHING, 2), ("p1", SOMETHING, 1))), S("q", "PT", ("q1",)), RADIO],
        (), False, {"rrdsr", "p1", "q1"}, ["sr", "p", "q"]),
    "PT without": ([S("p", "PT", ("p1", "p2"))], (), False, {"p1"}, ["p"]),
    "NM without": ([S("n", "NM", ("n1", "n2")), OTHER_REPORT], (), False, {"n1"}, ["sr2", "n"]),
    "PET/CT": (
        [S("p", "PT", ("p1", "p2")), S("c", "CT", ("c1",)), S("sr", "SR", (("rdsr", RDSR), ("rrdsr", RRDSR)))],
        (), False, {"rdsr", "rrdsr", "p1"}, ["sr", "p"]),
    "PET/CT, NM asked for": (
        [S("p", "PT", ("p1",)), S("c", "CT", ("c1",)), S("sr", "SR", (("rdsr", RDSR), ("rrdsr", RRDSR)))],
        (Group.NM,), False, {"rrdsr", "p1"}, ["sr", "p"]),
    "CT asked for of CT and DX": (
        [S("c", "CT", ("c1",)), S("d", "DX", ("d1",)), ENHANCED], (Group.CT,), False, {"esr"}, ["sr"]),
    "CT and DX with an enhanced SR": (
        [S("c", "CT", ("c1",)), S("d", "DX", ("d1",)), ENHANCED], (), False, {"esr", "d1"}, ["sr", "d"]),
    "reports alone asked for": (
        [S("c", "CT", ("c1",)), S("sr", "SR", (("ra", RDSR), ("rb", ESR), ("rc", RRDSR), ("rd", BASIC)))],
        (Group.SR,), False, {"ra", "rb", "rc"}, ["sr"]),
    "a study of reports alone": ([REPORT, OTHER_REPORT], (), False, {"rdsr"}, ["sr", "sr2"]),
    "a report of a kind that is not told": (
        [S("m", "MG", ("m1",)), S("sr", "SR", (("r", ""),))], (), False, {"m1", "r"}, ["sr", "m"]),
    "a report of a kind that is not told, called dose": (
        [S("m", "MG", ("m1",)), S("sr", "SR", (("r", ""),), "Dose Report")], (), False, {"r"}, ["sr"]),
    "modalities of no group": ([S("u", "US", ("u1",)), S("m", "MR", ("m1",))], (), False, set(), []),
    "an empty series": ([S("p", "PT", ())], (), False, set(), ["p"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_for_dose(case):
    study, groups, first_images, expected, looks = CASES[case]
    looked, selection = run(study, groups=groups, first_images=first_images)
    assert taken(selection) == expected
    assert looked == looks
    for series, uids in selection.wanted.items():
        here = next(s for s in study if s.name == series)
        assert (series in selection.whole) is (len(uids) == len(here.images))


def test_everything_without_the_dose_option():
    study = [S("c", "CT", ("c1", "c2")), REPORT, S("u", "US", ("u1",))]
    looked, selection = run(study, dose=False)
    assert taken(selection) == {"c1", "c2", "rdsr", "u1"}
    assert selection.whole == {"c", "sr", "u"} and looked == ["c", "sr", "u"]
    looked, selection = run(study, dose=False, groups=(Group.CT,))
    assert taken(selection) == {"c1", "c2", "rdsr", "u1"}
    looked, selection = run(study, dose=False, groups=(Group.SR,))
    assert taken(selection) == {"rdsr"} and looked == ["sr"]


def test_reasons_say_what_was_preferred():
    _, selection = run([S("c", "CT", ("c1",)), REPORT, OTHER_REPORT, S("k", "KO", ("k1",))])
    assert {(d.level.value, d.uid): d.reason for d in selection.dropped} == {
        ("series", "c"): "a dose report is taken instead",
        ("image", "basic"): "no report that is needed for dose",
        ("series", "k"): "its modality is not asked for",
    }


def test_groups():
    assert groups_of(["CT", "PT", "US"]) == {Group.CT, Group.NM}
    assert groups_of(["RF"]) == groups_of(["XA"]) == {Group.FL}
    assert groups_of([]) == frozenset()
