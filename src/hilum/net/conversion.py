"""What a data set is turned into where its own transfer syntax is not accepted.

Standard: PS3.5 10 (negotiation of transfer syntaxes), Annex A.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from hilum.net.sources import Source
from hilum.services.convert import CONVERTIBLE, convert
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = ["CONVERTED_TO", "Conversion", "Reencoding"]

CONVERTED_TO = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
"""In this order, as implicit VR alone loses the VRs of private elements."""


class Conversion(Protocol):
    """From one transfer syntax into another."""

    def targets(self, transfer_syntax: str) -> Sequence[str]:
        """What data sets in a transfer syntax can be turned into, the best first."""

    def pieces(self, source: Source, target: str) -> Iterator[bytes]:
        """A data set in one of the ``targets`` of its own syntax; for the thread that reads.

        Raises:
            One of ``READ_ERRORS``: it cannot be read, or not be converted. Raised behind the first
                piece, it costs the association.
        """


class Reencoding:
    """From one uncompressed transfer syntax into another: nothing is decoded."""

    def targets(self, transfer_syntax: str) -> Sequence[str]:
        """See ``Conversion``."""
        return CONVERTED_TO if transfer_syntax in CONVERTIBLE else ()

    def pieces(self, source: Source, target: str) -> Iterator[bytes]:
        """See ``Conversion``."""
        return convert(source.pieces(), source.head.transfer_syntax_uid, target)
