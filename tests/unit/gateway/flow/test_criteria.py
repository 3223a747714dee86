from __future__ import annotations

from datetime import datetime

import pytest

from hilum.errors import ConfigurationError
from hilum.gateway.flow.criteria import Criteria, Study, resolve_moment
from hilum.gateway.flow.request import Request
from hilum.gateway.flow.selection import Group, Level, Series

NOW = datetime(2026, 3, 1, 14, 30)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("", ""),
        ("2026-01-10", "20260110"),
        ("20260110", "20260110"),
        ("2026-01-10T08:30", "20260110083000"),
        ("2026-01-10 08:30:15", "20260110083015"),
        ("today", "20260301"),
        ("yesterday", "20260228"),
        ("-2d", "20260227"),
        ("-90m", "20260301130000"),
        ("-3h", "20260301113000"),
    ],
)
def test_moments(text, moment):
    assert resolve_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["tomorrow", "2026-02-30", "1.2.2026", "-3w", "2026-01-10T25:00"])
def test_moments_that_cannot_be(text):
    with pytest.raises(ConfigurationError, match="no date or time"):
        Criteria(since=text).check()


@pytest.mark.parametrize(
    ("since", "until", "date", "time", "stays"),
    [
        ("20260110", "20260112", "20260110", "000000", True),
        ("20260110", "20260112", "20260112", "235959.9", True),
        ("20260110", "20260112", "20260109", "235959", False),
        ("20260110", "20260112", "20260113", "0000", False),
        ("20260110083000", "", "20260110", "083000", True),
        ("20260110083000", "", "20260110", "0829", False),
        ("20260110083000", "", "20260110", "", True),
        ("", "20260110170000", "20260110", "170000", True),
        ("", "20260110170000", "20260110", "17:00:01", False),
        ("20260110", "", "", "", True),
    ],
)
def test_times(since, until, date, time, stays):
    reason = Criteria(since=since, until=until).why_not_study(Study("1", date, time))
    assert (reason == "") is stays


def test_dates_for_the_query():
    assert Criteria().dates == ""
    assert Criteria(since="20260110").dates == "20260110-"
    assert Criteria(until="20260110120000").dates == "-20260110"
    assert Criteria(since="20260110", until="20260110235959").dates == "20260110"


def test_descriptions_and_modalities():
    study = Study("1", modalities=("CT", "SR"), description="CT Schädel")
    assert not Criteria(descriptions=("schÄdel", "x")).why_not_study(study)
    assert "none of: abdomen" in Criteria(descriptions=("abdomen",)).why_not_study(study)
    assert "one of: ct" in Criteria(not_descriptions=("ct",)).why_not_study(study)
    assert not Criteria(groups=(Group.CT,)).why_not_study(study)
    assert not Criteria(groups=(Group.SR,)).why_not_study(study)
    assert "CT, SR" in Criteria(groups=(Group.NM,)).why_not_study(study)
    untold = Study("1")
    assert not Criteria(groups=(Group.NM,)).why_not_study(untold)
    assert Criteria(study_uids=("2",)).why_not_study(untold)
    assert Criteria(groups=(Group.FL, Group.NM)).modalities == ("NM", "PT", "RF", "XA")


def test_stations():
    series = [Series("a", station="CT1"), Series("b", station="CT2"), Series("c")]

    def sift(**criteria):
        kept, dropped, why_not = Criteria(**criteria).sift_series(iter(series))
        assert all(d.level is Level.SERIES and d.reason for d in dropped)
        return [s.uid for s in kept], [d.uid for d in dropped], why_not

    assert sift() == (["a", "b", "c"], [], "")
    assert sift(stations=("ct1",)) == (["a", "c"], ["b"], "")
    assert sift(not_stations=("CT1",)) == (["b", "c"], ["a"], "")
    assert sift(stations=("CT1",), station_level="study") == (["a", "b", "c"], [], "")
    kept, _, why_not = sift(not_stations=("CT1",), station_level="study")
    assert kept == [] and why_not
    series.pop()
    kept, _, why_not = sift(stations=("MR",), station_level="study")
    assert kept == [] and why_not


def test_json_and_back():
    request = Request("PACS", Criteria((Group.CT,), "-1d", stations=("a",), dose=True), "RVU-alice")
    assert Request.read(request.write()) == request
    for wrong in ({}, {"peer": "P", "criteria": {"groups": ["XX"]}},
                  {"peer": "P", "criteria": {"unknown": 1}},
                  {"peer": "P", "criteria": {"station_level": "image"}}):  # fmt: skip
        with pytest.raises(ConfigurationError):
            Request.read(wrong)
