"""Contexts, roles and negotiation items as programs make them."""

from __future__ import annotations

import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.sync import _config, build_context, build_role
from hilum.sync import pdu_primitives as primitives
from hilum.sync.presentation import PresentationContext
from hilum.sync.service_class import QueryRetrieveServiceClass, StorageServiceClass
from hilum.sync.sop_class import (
    CTImageStorage,
    StorageCommitmentPushModel,
    register_uid,
    uid_to_service_class,
    uid_to_sop_class,
)
from hilum.wire import items


def test_a_context_takes_one_transfer_syntax_or_several_or_the_default():
    assert build_context("1.2.3").transfer_syntax[0] == ImplicitVRLittleEndian
    assert len(build_context("1.2.3").transfer_syntax) == 4
    assert build_context("1.2.3", ExplicitVRLittleEndian).transfer_syntax == [
        ExplicitVRLittleEndian
    ]
    two = build_context("1.2.3", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
    two.add_transfer_syntax(ImplicitVRLittleEndian)
    two.add_transfer_syntax(b"1.2.3.4")
    two.add_transfer_syntax(None)
    assert two.transfer_syntax == [ImplicitVRLittleEndian, ExplicitVRLittleEndian, "1.2.3.4"]


def test_contexts_are_equal_when_they_hold_the_same():
    assert build_context("1.2") == build_context("1.2") != build_context("1.3")
    assert hash(build_context("1.2")) == hash(build_context("1.2"))
    assert build_context("1.2") != "1.2"


def test_a_context_for_people():
    context = build_context(CTImageStorage, ExplicitVRLittleEndian)
    context.context_id, context.result = 3, 0
    context._as_scu, context._as_scp = True, False
    assert str(context).splitlines() == [
        "ID: 3",
        "Abstract Syntax: CT Image Storage",
        "Transfer Syntax(es):",
        "    =Explicit VR Little Endian",
        "Result: Accepted",
        "Role: SCU only",
    ]
    assert repr(context) == "CT Image Storage"
    assert context.as_tuple == (3, CTImageStorage, ExplicitVRLittleEndian)
    assert PresentationContext().status == "Pending"


@pytest.mark.parametrize("value", [0, 2, 256, -1])
def test_a_context_id_is_odd(value):
    with pytest.raises(ValueError, match="odd"):
        build_context("1.2").context_id = value


def test_values_that_are_wrong():
    context = PresentationContext()
    with pytest.raises(TypeError, match="list"):
        context.transfer_syntax = "1.2.3"
    with pytest.raises(TypeError, match="scu_role"):
        context.scu_role = 1
    with pytest.raises(TypeError, match="scp_role"):
        context.scp_role = "yes"
    with pytest.raises(TypeError, match="abstract_syntax"):
        context.abstract_syntax = 1
    with pytest.raises(ValueError, match="64 characters"):
        context.abstract_syntax = "1." * 40


def test_conformance_of_uids_is_enforced_on_wish(monkeypatch):
    assert build_context("1.02.3").abstract_syntax == "1.02.3"
    monkeypatch.setattr(_config, "ENFORCE_UID_CONFORMANCE", True)
    with pytest.raises(ValueError, match="non-conformant"):
        build_context("1.02.3")


def test_a_role():
    assert build_role(CTImageStorage, scp_role=True).item() == items.RoleSelection(
        str(CTImageStorage), False, True
    )
    with pytest.raises(ValueError, match="cannot both"):
        build_role(CTImageStorage).item()
    with pytest.raises(ValueError, match="sop_class_uid"):
        primitives.SCP_SCU_RoleSelectionNegotiation().item()


def window(invoked: int = 1, performed: int = 1):
    made = primitives.AsynchronousOperationsWindowNegotiation()
    made.maximum_number_operations_invoked = invoked
    made.maximum_number_operations_performed = performed
    return made


def extended():
    made = primitives.SOPClassExtendedNegotiation()
    made.sop_class_uid = b"1.2.3"
    made.service_class_application_information = b"\1"
    return made


def common():
    made = primitives.SOPClassCommonExtendedNegotiation()
    made.sop_class_uid, made.service_class_uid = "1.2.3", UID("1.2.4")
    made.related_general_sop_class_identification = ["1.2.5"]
    return made


def user(kind: int = 1, secondary: bytes | None = None):
    made = primitives.UserIdentityNegotiation()
    made.user_identity_type, made.primary_field, made.secondary_field = kind, b"n", secondary
    return made


def response():
    made = primitives.UserIdentityNegotiation()
    made.server_response = b"r"
    return made


def length():
    made = primitives.MaximumLengthNotification()
    made.maximum_length_received = 5
    return made


def implementation():
    made = primitives.ImplementationClassUIDNotification()
    made.implementation_class_uid = "1.2"
    return made


def version():
    made = primitives.ImplementationVersionNameNotification()
    made.implementation_version_name = "V"
    return made


@pytest.mark.parametrize(
    ("made", "item"),
    [
        (window(3, 0), items.AsynchronousOperationsWindow(3, 0)),
        (extended(), items.ExtendedNegotiation("1.2.3", b"\1")),
        (common(), items.CommonExtendedNegotiation("1.2.3", "1.2.4", ("1.2.5",))),
        (user(), items.UserIdentityRQ(1, b"n")),
        (user(2, b"p"), items.UserIdentityRQ(2, b"n", b"p")),
        (response(), items.UserIdentityResponse(b"r")),
        (length(), items.MaximumLength(5)),
        (implementation(), items.ImplementationClassUID("1.2")),
        (version(), items.ImplementationVersionName("V")),
        (build_role("1.2", True, True), items.RoleSelection("1.2", True, True)),
    ],
)
def test_items_there_and_back(made, item):
    assert made.item() == item
    assert primitives.from_items((item, items.UnknownItem(0x60, b""))) == [made]
    assert made != "something else"


def test_names_and_passcodes_are_not_shown():
    shown = str(user(2, b"secret")) + repr(user(2, b"secret"))
    assert "secret" not in shown


@pytest.mark.parametrize(
    "incomplete",
    [
        primitives.SOPClassExtendedNegotiation(),
        primitives.SOPClassCommonExtendedNegotiation(),
        primitives.UserIdentityNegotiation(),
        primitives.ImplementationClassUIDNotification(),
        primitives.ImplementationVersionNameNotification(),
        user(2),
    ],
)
def test_incomplete_items_are_not_sent(incomplete):
    with pytest.raises(ValueError, match="must be set"):
        incomplete.item()


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("maximum_number_operations_invoked", -1, ValueError),
        ("maximum_number_operations_performed", "1", TypeError),
    ],
)
def test_windows_that_are_wrong(name, value, error):
    with pytest.raises(error):
        setattr(window(), name, value)


def test_a_private_class_can_be_named():
    register_uid("1.2.246.1", "FooStorage", StorageServiceClass)
    from hilum.sync.sop_class import FooStorage

    assert FooStorage == "1.2.246.1" and FooStorage.service_class is StorageServiceClass
    assert uid_to_sop_class("1.2.246.1") is FooStorage
    assert uid_to_service_class("1.2.246.2").__name__ == "ServiceClass"
    for keyword, service, error in (
        ("not a name", StorageServiceClass, ValueError),
        ("class", StorageServiceClass, ValueError),
        ("Foo", StorageServiceClass(), TypeError),
        ("Foo", int, TypeError),
        ("Foo", QueryRetrieveServiceClass, ValueError),
    ):
        with pytest.raises(error):
            register_uid("1.2.3", keyword, service)
    assert StorageCommitmentPushModel.service_class.__name__ == "StorageCommitmentServiceClass"
