"""What a fetch is asked for, as rows and schedules keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hilum.errors import ConfigurationError
from hilum.gateway.flow.criteria import Criteria

__all__ = ["Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a fetch is asked for; JSON in rows and schedules.

    Args:
        peer: its name.
        criteria: which studies and series.
        title: the AE title of ours under which the instances are kept; "" for `destination`.
        destination: the AE title that the peer knows us by; "" for our calling AE title there.
    """

    peer: str
    criteria: Criteria = field(default_factory=Criteria)
    title: str = ""
    destination: str = ""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Request:
        """From JSON.

        Raises:
            ConfigurationError: it cannot be read.
        """
        try:
            return cls(
                str(values["peer"]),
                Criteria.read(values.get("criteria", {})),
                str(values.get("title", "")),
                str(values.get("destination", "")),
            )
        except KeyError:
            raise ConfigurationError("a fetch without a peer") from None

    def write(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "peer": self.peer,
            "criteria": self.criteria.write(),
            "title": self.title,
            "destination": self.destination,
        }
