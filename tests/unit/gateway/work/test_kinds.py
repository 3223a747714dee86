from __future__ import annotations

import pytest

from hilum.errors import LocalProtocolError
from hilum.gateway.work.kinds import Backoff, Kind, Kinds, Program


def test_back_off_grows_to_its_cap_within_its_jitter():
    backoff = Backoff(first=2, factor=3, cap=100, jitter=0.25)
    for attempt, middle in ((1, 2), (2, 6), (3, 18), (4, 54), (5, 100), (1000, 100)):
        waits = [backoff.after(attempt) for _ in range(200)]
        assert min(waits) >= middle * 0.75 and max(waits) <= middle * 1.25
        assert max(waits) - min(waits) > middle * 0.2


def test_a_kind_has_one_handler():
    kinds = Kinds([Kind(name="a", run=Program("m:f"))])
    with pytest.raises(LocalProtocolError, match="'a'"):
        kinds.add(Kind(name="a", run=Program("m:g")))
    assert kinds.names == ("a",)
