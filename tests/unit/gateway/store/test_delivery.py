from __future__ import annotations

import pytest

from hilum.errors import ConfigurationError
from hilum.gateway.config import Commitment, Config
from hilum.gateway.store.delivery import DEFAULT_DELIVERY, Delivery, Way


@pytest.mark.parametrize(
    ("text", "ways", "within", "shown"),
    [
        ("same", (Way.SAME,), 10.0, "same:10"),
        ("new", (Way.NEW,), 10.0, "new"),
        ("next", (Way.NEXT,), 10.0, "next"),
        ("same:2.5, new ,next", (Way.SAME, Way.NEW, Way.NEXT), 2.5, "same:2.5,new,next"),
        ("next,same:60", (Way.NEXT, Way.SAME), 60.0, "next,same:60"),
        (DEFAULT_DELIVERY, (Way.SAME, Way.NEW, Way.NEXT), 10.0, DEFAULT_DELIVERY),
    ],
)
def test_ways_are_tried_as_they_are_written(
    text: str, ways: tuple[Way, ...], within: float, shown: str
) -> None:
    delivery = Delivery.parse(text)
    assert (delivery.ways, delivery.same_within) == (ways, within)
    assert str(delivery) == shown
    assert Delivery.parse(shown) == delivery


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "none of same"),
        ("later", "'later' is none of"),
        ("new,new", "twice"),
        ("new:5", "only 'same' has seconds"),
        ("same:0", "only 'same' has seconds"),
        ("same:nan", "only 'same' has seconds"),
        ("same:inf", "only 'same' has seconds"),
        ("same:soon", "only 'same' has seconds"),
        ("same:", "only 'same' has seconds"),
    ],
)
def test_what_is_no_delivery_is_said_so(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Delivery.parse(text)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (Commitment(verify="closely"), "row, file, checksum"),
        (Commitment(delivery="soon"), "none of same"),
        (Commitment(retry_least=0.0), "at least"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: Commitment, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Config(commitment=setting).check()
