"""Statuses, events and addresses between programs and the library."""

from __future__ import annotations

import pytest
from pydicom import Dataset
from pydicom.tag import Tag

from hilum.net.service import Outcome
from hilum.sync import evt
from hilum.sync.dimse_primitives import primitive
from hilum.sync.events import Bindings, Event
from hilum.sync.results import elements_of, outcome_of, status_of
from hilum.sync.transport import AddressInformation
from hilum.wire.command import Command, CommandField


def status(**elements: object) -> Dataset:
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("result", "code", "elements"),
    [
        (0x0000, 0x0000, {}),
        (status(Status=0xA700), 0xA700, {}),
        (status(Status=0xC000, ErrorComment="x"), 0xC000, {"error_comment": "x"}),
        (
            status(Status=0xA900, OffendingElement=[0x00100010, 0x00100020]),
            0xA900,
            {"offending_element": (0x00100010, 0x00100020)},
        ),
        (
            status(Status=0xA900, OffendingElement=Tag(0x00100010)),
            0xA900,
            {"offending_element": (0x00100010,)},
        ),
        (status(Status=0x0000, PatientName="no such element"), 0x0000, {}),
        (status(ErrorComment="x"), 0xC001, {}),
        ("0x0000", 0xC002, {}),
        (None, 0xC002, {}),
    ],
)
def test_what_handlers_give(result, code, elements):
    assert elements_of(result) == (code, elements)


def test_an_outcome():
    made = status(Status=0xA700, ErrorComment="full", OffendingElement=[0x00080018])
    assert outcome_of(made) == Outcome(0xA700, "full", (0x00080018,))


def test_what_programs_get():
    command = Command(
        CommandField.C_GET_RSP,
        message_id_being_responded_to=1,
        status=0xB000,
        error_comment="some failed",
        offending_element=(0x00100010,),
        number_of_failed_suboperations=2,
        affected_sop_class_uid="1.2",
    )
    seen = status_of(command)
    assert (seen.Status, seen.ErrorComment) == (0xB000, "some failed")
    assert seen.OffendingElement == 0x00100010 and seen.NumberOfFailedSuboperations == 2
    assert "AffectedSOPClassUID" not in seen
    assert status_of(command, n_service=True).AffectedSOPClassUID == "1.2"


def test_a_request_shows_its_elements_and_nothing_else():
    command = Command(
        CommandField.C_MOVE_RQ,
        has_data_set=True,
        message_id=5,
        affected_sop_class_uid="1.2",
        move_destination="THERE",
        priority=0,
    )
    request = primitive(command, b"")
    event = Event(None, evt.EVT_C_MOVE, {"request": request, "_is_cancelled": lambda _: True})
    assert (event.message_id, event.move_destination, event.is_cancelled) == (5, "THERE", True)
    assert request.msg_type == "C-MOVE" and request.AffectedSOPClassUID == "1.2"
    for name in ("action_type", "event_type", "attribute_list", "dataset", "attribute_identifiers"):
        with pytest.raises(AttributeError):
            getattr(event, name)
    with pytest.raises(AttributeError):
        event.encoded_dataset()
    with pytest.raises(AttributeError):
        Event(None, evt.EVT_ACCEPTED).message_id  # noqa: B018  # it raises
    with pytest.raises(AttributeError, match="already"):
        Event(None, evt.EVT_ACCEPTED, {"assoc": 1})


def test_attribute_identifiers_are_a_list_of_any_length():
    def asked(*tags: int) -> list[int]:
        command = Command(
            CommandField.N_GET_RQ,
            message_id=1,
            requested_sop_class_uid="1.2",
            requested_sop_instance_uid="1.3",
            attribute_identifier_list=tags or None,
        )
        return Event(None, evt.EVT_N_GET, {"request": primitive(command)}).attribute_identifiers

    assert asked() == []
    assert asked(0x00100010) == [0x00100010]
    assert asked(0x00100010, 0x00100020) == [0x00100010, 0x00100020]


def test_notifications_have_handlers_interventions_have_one():
    bound = Bindings([(evt.EVT_RELEASED, print), (evt.EVT_C_ECHO, len, [1])])
    bound.bind(evt.EVT_RELEASED, repr, ["x"])
    bound.bind(evt.EVT_RELEASED, print)
    assert bound.get_handlers(evt.EVT_RELEASED) == [(print, None), (repr, ["x"])]
    assert bound.get_handlers(evt.EVT_C_ECHO) == (len, [1])
    bound.bind(evt.EVT_C_ECHO, repr)
    assert bound.get_handlers(evt.EVT_C_ECHO) == (repr, None)
    assert evt.EVT_RELEASED in bound.get_events() and bound.has(evt.EVT_C_ECHO)
    bound.unbind(evt.EVT_C_ECHO, len)
    bound.unbind(evt.EVT_C_ECHO, repr)
    assert not bound.has(evt.EVT_C_ECHO)
    assert bound.get_handlers(evt.EVT_C_ECHO)[0](None) == 0x0000
    with pytest.raises(NotImplementedError):
        bound.get_handlers(evt.EVT_C_FIND)[0](Event(None, evt.EVT_C_FIND))
    for handler in (print, repr, print):
        bound.unbind(evt.EVT_RELEASED, handler)
    assert bound.get_handlers(evt.EVT_RELEASED) == []


def test_addresses():
    local = AddressInformation("127.0.0.1", 104)
    assert local.is_ipv4 and not local.is_ipv6 and local.as_tuple == ("127.0.0.1", 104)
    six = AddressInformation.from_addr_port(("::1", 1, 2), 104)
    assert six.is_ipv6 and six.as_tuple == ("::1", 104, 1, 2)
    assert AddressInformation("", 104).address == "0.0.0.0"
