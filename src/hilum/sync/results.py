"""Statuses as programs give and get them: an int, or a data set with Status and what goes with it.

Standard: PS3.7 annex C, annex E.
"""

from __future__ import annotations

import logging
from typing import Any

from pydicom.dataset import Dataset

from hilum.net.service import Outcome
from hilum.services.status import Category, category
from hilum.sync.dimse_primitives import KEYWORDS, element
from hilum.wire.command import Command

__all__ = ["elements_of", "is_done", "is_pending", "outcome_of", "status_of"]

log = logging.getLogger("hilum.sync")

# A handler's status that is none.
NO_STATUS_ELEMENT = 0xC001
NOT_A_STATUS = 0xC002

# What may accompany a status (PS3.7 annex C), and the counters of C-GET and C-MOVE.
_SHOWN = (
    "ErrorComment",
    "ErrorID",
    "OffendingElement",
    "AttributeIdentifierList",
    "NumberOfRemainingSuboperations",
    "NumberOfCompletedSuboperations",
    "NumberOfFailedSuboperations",
    "NumberOfWarningSuboperations",
)
_OF_N_SERVICES = ("AffectedSOPClassUID", "AffectedSOPInstanceUID", "EventTypeID", "ActionTypeID")


def status_of(command: Command, n_service: bool = False) -> Dataset:
    """A response's status, with what the peer said beside it."""
    status = Dataset()
    status.Status = command.status
    for keyword in (*_SHOWN, *(_OF_N_SERVICES if n_service else ())):
        value = element(command, keyword)
        if value is not None:
            setattr(status, keyword, value)
    return status


def elements_of(result: Any) -> tuple[int, dict[str, Any]]:
    """The status that a handler gave, and further command elements by our names.

    What is no status becomes C001H (a data set without Status) or C002H, and is logged.
    """
    if isinstance(result, Dataset):
        if "Status" not in result:
            log.error("a handler gave a data set without Status (0000,0900)")
            return NO_STATUS_ELEMENT, {}
        elements: dict[str, Any] = {}
        for each in result:
            name = KEYWORDS.get(each.keyword)
            if name is None:
                log.warning("a handler's status has %s, which no response carries", each.tag)
            elif name != "status":
                elements[name] = _plain(each.value)
        return int(result.Status), elements
    if isinstance(result, int):
        return int(result), {}
    log.error("a handler gave no status but %s", type(result).__name__)
    return NOT_A_STATUS, {}


def _plain(value: Any) -> Any:
    """A value as ``wire.command`` wants it: tags as a tuple of numbers."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        # A tag is a number; one alone is a list of one where the element has VR AT.
        return (int(value),) if type(value).__name__ == "BaseTag" else value
    return tuple(int(tag) for tag in value)


def outcome_of(result: Any) -> Outcome:
    """A C-STORE handler's result."""
    status, elements = elements_of(result)
    return Outcome(status, elements.get("error_comment"), elements.get("offending_element"))


def is_pending(status: int) -> bool:
    """Whether another response follows."""
    return category(status) is Category.PENDING


def is_done(status: int) -> bool:
    """Whether something was done: success or a warning."""
    return category(status) in (Category.SUCCESS, Category.WARNING)
