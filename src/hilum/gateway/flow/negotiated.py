"""What is negotiated for Query/Retrieve: contexts, roles, and extended matching.

Standard: PS3.4 C.5 (association negotiation), C.5.1.1 (extended negotiation), C.5.3 (C-GET roles).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hilum.services.matching import Matching
from hilum.services.query_model import FIND_MODELS, RETRIEVE_MODELS
from hilum.services.sop_classes import may_store
from hilum.wire.items import ExtendedNegotiation, RoleSelection
from hilum.wire.pdu import AssociateRQ

__all__ = ["FIND", "RETRIEVE", "Negotiated", "negotiate", "roles_for_get"]

FIND = frozenset(FIND_MODELS)
"""SOP classes of queries."""

RETRIEVE = frozenset(RETRIEVE_MODELS)
"""SOP classes of retrieves."""

# Relational queries, combined date and time, fuzzy names, time zone, enhanced multi-frame
# conversion, empty values, several values: 1 for what we do.
_QUERIES = bytes((1, 1, 0, 1, 0, 1, 1))
_RETRIEVES = bytes((1, 0))


@dataclass(frozen=True, slots=True)
class Negotiated:
    """Of one SOP class.

    Args:
        relational: queries may leave out unique keys above their level.
        matching: how dates and times are matched.
    """

    relational: bool = False
    matching: Matching = Matching()  # noqa: RUF009 - frozen


def negotiate(
    rq: AssociateRQ | None,
) -> tuple[Mapping[str, Negotiated], tuple[ExtendedNegotiation, ...]]:
    """What holds for each SOP class, and what is answered.

    As many bytes are answered as came, so that an older peer reads no more than it knows.
    """
    found: dict[str, Negotiated] = {}
    answers = []
    for item in rq.all_items(ExtendedNegotiation) if rq is not None else ():
        uid = item.sop_class_uid
        if uid in FIND:
            both = bytes(a & b for a, b in zip(item.information, _QUERIES, strict=False))
            said = both.ljust(len(_QUERIES), b"\0")
            found[uid] = Negotiated(
                said[0] == 1, Matching(combined=said[1] == 1, timezone=said[3] == 1)
            )
        elif uid in RETRIEVE:
            both = bytes(a & b for a, b in zip(item.information, _RETRIEVES, strict=False))
        else:
            continue
        if both:
            answers.append(ExtendedNegotiation(uid, both))
    return found, tuple(answers)


def roles_for_get(rq: AssociateRQ | None) -> dict[str, tuple[bool, bool]]:
    """Roles of the requestor by storage class: it may store with us, and we with it for C-GET."""
    return {
        role.sop_class_uid: (True, True)
        for role in (rq.all_items(RoleSelection) if rq is not None else ())
        if may_store(role.sop_class_uid)
    }
