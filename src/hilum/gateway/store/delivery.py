"""What a site chooses about storage commitment: what is looked at, and how results are delivered.

A delivery is written as ``same:10,new,next``: on the association of the request if it is still open
within 10 s, else on a new association that we open, else on the next one that the peer opens.

Standard: PS3.4 J.3.3.1.2 (on which association a report may be sent).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from hilum.errors import ConfigurationError

__all__ = ["DEFAULT_DELIVERY", "Delivery", "Level", "Way"]

DEFAULT_DELIVERY = "same:10,new,next"

SAME_WITHIN = 10.0
"""Seconds where none are given: a result takes moments, and few clients wait longer for it."""

LONGEST_SAME = 86_400.0
"""Seconds: no association is open longer than a day."""


class Level(StrEnum):
    """What is looked at before an instance is committed."""

    ROW = "row"
    """That it is in the index."""
    FILE = "file"
    """Also that its file is there, has our header, and is as long as it says."""
    CHECKSUM = "checksum"
    """Also that every byte of its data set is the one received."""


class Way(StrEnum):
    """On which association a report is sent."""

    SAME = "same"
    """That of the request."""
    NEW = "new"
    """One that we open to the peer."""
    NEXT = "next"
    """The next one that the peer opens and in which it negotiates the service."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Ways of delivery in the order they are tried.

    Args:
        ways: each once.
        same_within: seconds after the request for which its association is used.
    """

    ways: tuple[Way, ...]
    same_within: float = SAME_WITHIN

    @classmethod
    def parse(cls, text: str) -> Delivery:
        """Read ``same:10,new,next``.

        Raises:
            ConfigurationError: a way that is none, twice the same, or no seconds.
        """
        ways: list[Way] = []
        within = SAME_WITHIN
        for part in text.split(","):
            name, colon, seconds = part.strip().partition(":")
            try:
                way = Way(name)
            except ValueError:
                raise ConfigurationError(
                    f"delivery {text!r}: {name!r} is none of same:SECONDS, new, next"
                ) from None
            if way in ways:
                raise ConfigurationError(f"delivery {text!r} has {name!r} twice")
            if colon:
                within = _seconds(text, way, seconds)
            ways.append(way)
        return cls(tuple(ways), within)

    def __str__(self) -> str:
        return ",".join(
            f"{way}:{self.same_within:g}" if way is Way.SAME else str(way) for way in self.ways
        )


def _seconds(text: str, way: Way, seconds: str) -> float:
    try:
        value = float(seconds)
    except ValueError:
        value = math.nan
    if way is not Way.SAME or not 0 < value <= LONGEST_SAME:
        raise ConfigurationError(
            f"delivery {text!r}: only 'same' has seconds, up to {LONGEST_SAME:.0f}, as in same:10"
        )
    return value
