"""A peer's request as handlers read it, ``event.request``, under the keywords of PS3.7 annex E.

Every element that the message can have is an attribute; None where the peer left it out.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from hilum.errors import RemoteProtocolError
from hilum.wire.command import Command, CommandField

__all__ = [
    "C_CANCEL",
    "C_ECHO",
    "C_FIND",
    "C_GET",
    "C_MOVE",
    "C_STORE",
    "DIMSEPrimitive",
    "KEYWORDS",
    "N_ACTION",
    "N_CREATE",
    "N_DELETE",
    "N_EVENT_REPORT",
    "N_GET",
    "N_SET",
    "primitive",
]

KEYWORDS: dict[str, str] = {
    "AffectedSOPClassUID": "affected_sop_class_uid",
    "RequestedSOPClassUID": "requested_sop_class_uid",
    "MessageID": "message_id",
    "MessageIDBeingRespondedTo": "message_id_being_responded_to",
    "MoveDestination": "move_destination",
    "Priority": "priority",
    "Status": "status",
    "OffendingElement": "offending_element",
    "ErrorComment": "error_comment",
    "ErrorID": "error_id",
    "AffectedSOPInstanceUID": "affected_sop_instance_uid",
    "RequestedSOPInstanceUID": "requested_sop_instance_uid",
    "EventTypeID": "event_type_id",
    "AttributeIdentifierList": "attribute_identifier_list",
    "ActionTypeID": "action_type_id",
    "NumberOfRemainingSuboperations": "number_of_remaining_suboperations",
    "NumberOfCompletedSuboperations": "number_of_completed_suboperations",
    "NumberOfFailedSuboperations": "number_of_failed_suboperations",
    "NumberOfWarningSuboperations": "number_of_warning_suboperations",
    "MoveOriginatorApplicationEntityTitle": "move_originator_application_entity_title",
    "MoveOriginatorMessageID": "move_originator_message_id",
}
"""Keyword of PS3.7 annex E → our name of the command element."""


def element(command: Command, keyword: str) -> Any:
    """One element of a command set as pydicom would have it; None where it is absent or broken."""
    try:
        value = command.get(KEYWORDS[keyword])
    except RemoteProtocolError:
        return None
    if value is None:
        return None
    if keyword.endswith("UID"):
        return UID(value)
    if keyword in ("OffendingElement", "AttributeIdentifierList"):
        tags = [Tag(tag) for tag in value]
        return tags[0] if len(tags) == 1 else tags
    return value


class DIMSEPrimitive:
    """A request: its command elements, and its data set as a byte stream."""

    #: What the data set of the request is called; empty where the message has none.
    data_set = ""
    _elements: tuple[str, ...] = ()

    MessageID: int | None
    MessageIDBeingRespondedTo: int | None = None
    Status: int | None = None
    AffectedSOPClassUID: UID | None
    AffectedSOPInstanceUID: UID | None
    RequestedSOPClassUID: UID | None
    RequestedSOPInstanceUID: UID | None
    AttributeIdentifierList: BaseTag | list[BaseTag] | None
    ActionTypeID: int | None
    EventTypeID: int | None
    MoveDestination: str | None
    Priority: int | None

    def __init__(self, command: Command | None = None, data: bytes | None = None) -> None:
        for keyword in self._elements:
            setattr(self, keyword, None if command is None else element(command, keyword))
        if self.data_set:
            setattr(self, self.data_set, None if data is None else BytesIO(data))

    @property
    def msg_type(self) -> str:
        """The message's name, such as ``C-STORE``."""
        return type(self).__name__.replace("_", "-")


class C_ECHO(DIMSEPrimitive):
    """PS3.7 9.1.5."""

    _elements = ("MessageID", "AffectedSOPClassUID")


class C_STORE(DIMSEPrimitive):
    """PS3.7 9.1.1. ``DataSet`` is None while the data set is in a file: ``event.dataset_path``."""

    data_set = "DataSet"
    _elements = (
        "MessageID",
        "AffectedSOPClassUID",
        "AffectedSOPInstanceUID",
        "Priority",
        "MoveOriginatorApplicationEntityTitle",
        "MoveOriginatorMessageID",
    )


class C_FIND(DIMSEPrimitive):
    """PS3.7 9.1.2."""

    data_set = "Identifier"
    _elements = ("MessageID", "AffectedSOPClassUID", "Priority")


class C_GET(DIMSEPrimitive):
    """PS3.7 9.1.3."""

    data_set = "Identifier"
    _elements = ("MessageID", "AffectedSOPClassUID", "Priority")


class C_MOVE(DIMSEPrimitive):
    """PS3.7 9.1.4."""

    data_set = "Identifier"
    _elements = ("MessageID", "AffectedSOPClassUID", "Priority", "MoveDestination")


class C_CANCEL(DIMSEPrimitive):
    """PS3.7 9.3.2.3."""

    _elements = ("MessageIDBeingRespondedTo",)


class N_EVENT_REPORT(DIMSEPrimitive):
    """PS3.7 10.1.1."""

    data_set = "EventInformation"
    _elements = ("MessageID", "AffectedSOPClassUID", "AffectedSOPInstanceUID", "EventTypeID")


class N_GET(DIMSEPrimitive):
    """PS3.7 10.1.2."""

    _elements = (
        "MessageID",
        "RequestedSOPClassUID",
        "RequestedSOPInstanceUID",
        "AttributeIdentifierList",
    )


class N_SET(DIMSEPrimitive):
    """PS3.7 10.1.3."""

    data_set = "ModificationList"
    _elements = ("MessageID", "RequestedSOPClassUID", "RequestedSOPInstanceUID")


class N_ACTION(DIMSEPrimitive):
    """PS3.7 10.1.4."""

    data_set = "ActionInformation"
    _elements = ("MessageID", "RequestedSOPClassUID", "RequestedSOPInstanceUID", "ActionTypeID")


class N_CREATE(DIMSEPrimitive):
    """PS3.7 10.1.5."""

    data_set = "AttributeList"
    _elements = ("MessageID", "AffectedSOPClassUID", "AffectedSOPInstanceUID")


class N_DELETE(DIMSEPrimitive):
    """PS3.7 10.1.6."""

    _elements = ("MessageID", "RequestedSOPClassUID", "RequestedSOPInstanceUID")


_KINDS: dict[int, type[DIMSEPrimitive]] = {
    CommandField.C_ECHO_RQ: C_ECHO,
    CommandField.C_STORE_RQ: C_STORE,
    CommandField.C_FIND_RQ: C_FIND,
    CommandField.C_GET_RQ: C_GET,
    CommandField.C_MOVE_RQ: C_MOVE,
    CommandField.C_CANCEL_RQ: C_CANCEL,
    CommandField.N_EVENT_REPORT_RQ: N_EVENT_REPORT,
    CommandField.N_GET_RQ: N_GET,
    CommandField.N_SET_RQ: N_SET,
    CommandField.N_ACTION_RQ: N_ACTION,
    CommandField.N_CREATE_RQ: N_CREATE,
    CommandField.N_DELETE_RQ: N_DELETE,
}


def primitive(command: Command, data: bytes | None = None) -> DIMSEPrimitive:
    """The request of a command set."""
    return _KINDS[command.command_field](command, data)
