"""What association requests and answers carry, as programs pass and read it.

Standard: PS3.7 annex D.3.3 (user information), PS3.8 7.1 to 7.4 (A-ASSOCIATE, A-RELEASE, A-ABORT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom.uid import UID

from hilum.sync.utils import set_uid
from hilum.wire import items

if TYPE_CHECKING:
    from hilum.sync.presentation import PresentationContext
    from hilum.sync.transport import AddressInformation

__all__ = [
    "A_ABORT",
    "A_ASSOCIATE",
    "A_P_ABORT",
    "A_RELEASE",
    "AsynchronousOperationsWindowNegotiation",
    "ImplementationClassUIDNotification",
    "ImplementationVersionNameNotification",
    "MaximumLengthNotification",
    "SCP_SCU_RoleSelectionNegotiation",
    "SOPClassCommonExtendedNegotiation",
    "SOPClassExtendedNegotiation",
    "ServiceParameter",
    "UserIdentityNegotiation",
    "from_items",
]


class ServiceParameter:
    """One item of user information; two are equal when they hold the same."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return other.__dict__ == self.__dict__
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # programs change them

    def item(self) -> items.UserItem:
        """The item to send.

        Raises:
            ValueError: something that it needs was not set.
        """
        raise NotImplementedError


class MaximumLengthNotification(ServiceParameter):
    """The longest P-DATA-TF body its sender takes, bytes; 0 is no limit (PS3.8 D.1)."""

    def __init__(self) -> None:
        self.maximum_length_received = 16382

    def item(self) -> items.UserItem:
        """The item to send."""
        return items.MaximumLength(self.maximum_length_received)

    def __str__(self) -> str:
        return f"Maximum length: {self.maximum_length_received}"


class _OfClass(ServiceParameter):
    """An item about one SOP class."""

    def __init__(self) -> None:
        self._sop_class_uid: UID | None = None

    @property
    def sop_class_uid(self) -> UID | None:
        """Get or set the SOP class UID."""
        return self._sop_class_uid

    @sop_class_uid.setter
    def sop_class_uid(self, value: str | bytes | UID | None) -> None:
        self._sop_class_uid = set_uid(value, "SOP Class UID")

    def _uid(self) -> str:
        if self._sop_class_uid is None:
            raise ValueError(f"'sop_class_uid' of {type(self).__name__} must be set")
        return str(self._sop_class_uid)


class ImplementationClassUIDNotification(ServiceParameter):
    """Which implementation speaks (PS3.7 D.3.3.2)."""

    def __init__(self) -> None:
        self._uid: UID | None = None

    @property
    def implementation_class_uid(self) -> UID | None:
        """Get or set the UID."""
        return self._uid

    @implementation_class_uid.setter
    def implementation_class_uid(self, value: str | bytes | UID | None) -> None:
        self._uid = set_uid(value, "Implementation Class UID")

    def item(self) -> items.UserItem:
        """The item to send."""
        if not self._uid:
            raise ValueError("'implementation_class_uid' must be set")
        return items.ImplementationClassUID(str(self._uid))

    def __str__(self) -> str:
        return f"Implementation class UID: {self._uid}"


class ImplementationVersionNameNotification(ServiceParameter):
    """Which version of it (PS3.7 D.3.3.2)."""

    def __init__(self) -> None:
        self.implementation_version_name: str | None = None

    def item(self) -> items.UserItem:
        """The item to send."""
        if not self.implementation_version_name:
            raise ValueError("'implementation_version_name' must be set")
        return items.ImplementationVersionName(self.implementation_version_name)

    def __str__(self) -> str:
        return f"Implementation version name: {self.implementation_version_name}"


class AsynchronousOperationsWindowNegotiation(ServiceParameter):
    """How many operations may be outstanding; 0 is no limit (PS3.7 D.3.3.3)."""

    def __init__(self) -> None:
        self._invoked = self._performed = 1

    @property
    def maximum_number_operations_invoked(self) -> int:
        """Get or set how many the requestor may invoke at once."""
        return self._invoked

    @maximum_number_operations_invoked.setter
    def maximum_number_operations_invoked(self, value: int) -> None:
        self._invoked = _count(value, "Maximum Number Operations Invoked")

    @property
    def maximum_number_operations_performed(self) -> int:
        """Get or set how many the requestor can perform at once."""
        return self._performed

    @maximum_number_operations_performed.setter
    def maximum_number_operations_performed(self, value: int) -> None:
        self._performed = _count(value, "Maximum Number Operations Performed")

    def item(self) -> items.UserItem:
        """The item to send."""
        return items.AsynchronousOperationsWindow(self._invoked, self._performed)

    def __str__(self) -> str:
        return f"Asynchronous operations: invoked {self._invoked}, performed {self._performed}"


def _count(value: int, what: str) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{what} must be an int")
    if not 0 <= value <= 0xFFFF:
        raise ValueError(f"{what} must be 0 to 65535")
    return value


class SCP_SCU_RoleSelectionNegotiation(_OfClass):
    """The roles its sender wants, or grants, for a SOP class (PS3.7 D.3.3.4)."""

    def __init__(self) -> None:
        super().__init__()
        self._scu_role: bool | None = None
        self._scp_role: bool | None = None

    @property
    def scu_role(self) -> bool | None:
        """Get or set whether the requestor is SCU."""
        return self._scu_role

    @scu_role.setter
    def scu_role(self, value: bool | None) -> None:
        if not isinstance(value, bool | None):
            raise TypeError("SCU Role must be boolean")
        self._scu_role = value

    @property
    def scp_role(self) -> bool | None:
        """Get or set whether the requestor is SCP."""
        return self._scp_role

    @scp_role.setter
    def scp_role(self, value: bool | None) -> None:
        if not isinstance(value, bool | None):
            raise TypeError("SCP Role must be boolean")
        self._scp_role = value

    def item(self) -> items.UserItem:
        """The item to send."""
        uid = self._uid()
        if not self._scu_role and not self._scp_role:
            raise ValueError(f"SCU and SCP Roles cannot both be unsupported for '{uid}'")
        return items.RoleSelection(uid, bool(self._scu_role), bool(self._scp_role))


class SOPClassExtendedNegotiation(_OfClass):
    """What a service class says of itself (PS3.7 D.3.3.5)."""

    def __init__(self) -> None:
        super().__init__()
        self._information: bytes | None = None

    @property
    def service_class_application_information(self) -> bytes | None:
        """Get or set the information, encoded as PS3.4 says for the service."""
        return self._information

    @service_class_application_information.setter
    def service_class_application_information(self, value: bytes | None) -> None:
        if not isinstance(value, bytes | None):
            raise TypeError("Service Class Application Information should be a bytes object")
        self._information = value

    def item(self) -> items.UserItem:
        """The item to send."""
        if self._information is None:
            raise ValueError("'service_class_application_information' must be set")
        return items.ExtendedNegotiation(self._uid(), self._information)


class SOPClassCommonExtendedNegotiation(_OfClass):
    """Which service and general SOP classes a class belongs to (PS3.7 D.3.3.6)."""

    def __init__(self) -> None:
        super().__init__()
        self._service_class_uid: UID | None = None
        self._related: list[UID] = []

    @property
    def service_class_uid(self) -> UID | None:
        """Get or set the service class UID."""
        return self._service_class_uid

    @service_class_uid.setter
    def service_class_uid(self, value: str | bytes | UID | None) -> None:
        self._service_class_uid = set_uid(value, "Service Class UID")

    @property
    def related_general_sop_class_identification(self) -> list[UID]:
        """Get or set the related general SOP class UIDs."""
        return self._related

    @related_general_sop_class_identification.setter
    def related_general_sop_class_identification(self, value: list[str | bytes | UID]) -> None:
        if not isinstance(value, list):
            raise TypeError("Related General SOP Class Identification must be a list")
        uids = [set_uid(uid, "Related General SOP Class", False, False) for uid in value]
        self._related = [uid for uid in uids if uid is not None]

    def item(self) -> items.UserItem:
        """The item to send."""
        if self._service_class_uid is None:
            raise ValueError("'service_class_uid' must be set")
        related = tuple(map(str, self._related))
        return items.CommonExtendedNegotiation(self._uid(), str(self._service_class_uid), related)


class UserIdentityNegotiation(ServiceParameter):
    """Who asks, or the acceptor's answer to that (PS3.7 D.3.3.7)."""

    def __init__(self) -> None:
        self._type: int | None = None
        self._response_requested = False
        self._primary: bytes | None = None
        self._secondary: bytes | None = None
        self._response: bytes | None = None

    @property
    def user_identity_type(self) -> int | None:
        """Get or set the type: 1 name, 2 name and passcode, 3 Kerberos, 4 SAML, 5 JWT."""
        return self._type

    @user_identity_type.setter
    def user_identity_type(self, value: int | None) -> None:
        if value is not None and not isinstance(value, int):
            raise TypeError("User Identity Type must be an int")
        if value is not None and value not in (1, 2, 3, 4, 5):
            raise ValueError("User Identity Type must be 1, 2, 3, 4 or 5")
        self._type = value

    @property
    def positive_response_requested(self) -> bool:
        """Get or set whether the acceptor shall answer."""
        return self._response_requested

    @positive_response_requested.setter
    def positive_response_requested(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError("Positive Response Requested must be boolean")
        self._response_requested = value

    @property
    def primary_field(self) -> bytes | None:
        """Get or set the name, ticket, assertion or token."""
        return self._primary

    @primary_field.setter
    def primary_field(self, value: bytes | None) -> None:
        self._primary = _bytes(value, "Primary Field")

    @property
    def secondary_field(self) -> bytes | None:
        """Get or set the passcode of type 2."""
        return self._secondary

    @secondary_field.setter
    def secondary_field(self, value: bytes | None) -> None:
        self._secondary = _bytes(value, "Secondary Field")

    @property
    def server_response(self) -> bytes | None:
        """Get or set the acceptor's answer."""
        return self._response

    @server_response.setter
    def server_response(self, value: bytes | None) -> None:
        self._response = _bytes(value, "Server Response")

    def item(self) -> items.UserItem:
        """The item to send."""
        if self._response is not None:
            return items.UserIdentityResponse(self._response)
        if self._type is None or self._primary is None:
            raise ValueError("'user_identity_type' and 'primary_field' must be set")
        if self._type == 2 and self._secondary is None:
            raise ValueError("'secondary_field' must be set with user identity type 2")
        return items.UserIdentityRQ(
            self._type, self._primary, self._secondary or b"", self._response_requested
        )

    def __str__(self) -> str:
        # Names and passcodes are nobody's business who reads a log.
        return f"User identity of type {self._type}"


def _bytes(value: bytes | None, what: str) -> bytes | None:
    if not isinstance(value, bytes | None):
        raise TypeError(f"{what} must be bytes")
    return value


def from_items(received: tuple[items.UserItem, ...]) -> list[ServiceParameter]:
    """The items of an A-ASSOCIATE that programs know, in order; unknown ones are left out."""
    known = (_parameter(item) for item in received)
    return [parameter for parameter in known if parameter is not None]


def _parameter(item: items.UserItem) -> ServiceParameter | None:
    made: Any
    match item:
        case items.MaximumLength(length):
            made = MaximumLengthNotification()
            made.maximum_length_received = length
        case items.ImplementationClassUID(uid):
            made = ImplementationClassUIDNotification()
            made._uid = UID(uid)
        case items.ImplementationVersionName(name):
            made = ImplementationVersionNameNotification()
            made.implementation_version_name = name
        case items.AsynchronousOperationsWindow(invoked, performed):
            made = AsynchronousOperationsWindowNegotiation()
            made._invoked, made._performed = invoked, performed
        case items.RoleSelection(uid, scu, scp):
            made = SCP_SCU_RoleSelectionNegotiation()
            # The peer's bytes: what it sent may not be a UID, and is not to be checked here.
            made._sop_class_uid, made._scu_role, made._scp_role = UID(uid), scu, scp
        case items.ExtendedNegotiation(uid, information):
            made = SOPClassExtendedNegotiation()
            made._sop_class_uid, made._information = UID(uid), information
        case items.CommonExtendedNegotiation(uid, service, related):
            made = SOPClassCommonExtendedNegotiation()
            made._sop_class_uid, made._service_class_uid = UID(uid), UID(service)
            made._related = [UID(general) for general in related]
        case items.UserIdentityRQ(kind, primary, secondary, wanted):
            made = UserIdentityNegotiation()
            made._type, made._response_requested, made._primary = kind, wanted, primary
            made._secondary = secondary or None
        case items.UserIdentityResponse(response):
            made = UserIdentityNegotiation()
            made._response = response
        case _:
            made = None
    parameter: ServiceParameter | None = made
    return parameter


_RESULT = {0: "Accepted", 1: "Rejected Permanent", 2: "Rejected Transient"}
_SOURCE = {
    1: "Service User",
    2: "Service Provider (ACSE)",
    3: "Service Provider (Presentation)",
}
_REASON = {
    (1, 1): "No reason given",
    (1, 2): "Application context name not supported",
    (1, 3): "Calling AE title not recognised",
    (1, 7): "Called AE title not recognised",
    (2, 1): "No reason given",
    (2, 2): "Protocol version not supported",
    (3, 1): "Temporary congestion",
    (3, 2): "Local limit exceeded",
}
_NO_VALUE = "(no value available)"


class A_ASSOCIATE:
    """An A-ASSOCIATE request or answer, as ``assoc.requestor.primitive`` (PS3.8 7.1.1)."""

    def __init__(self) -> None:
        self.application_context_name: UID | None = None
        self.calling_ae_title = ""
        self.called_ae_title = ""
        self.calling_presentation_address: AddressInformation | None = None
        self.called_presentation_address: AddressInformation | None = None
        self.user_information: list[ServiceParameter] = []
        self.presentation_context_definition_list: list[PresentationContext] = []
        self.presentation_context_definition_results_list: list[PresentationContext] = []
        self.result: int | None = None
        self.result_source: int | None = None
        self.diagnostic: int | None = None

    def _first(self, kind: type[ServiceParameter]) -> Any:
        return next((item for item in self.user_information if isinstance(item, kind)), None)

    @property
    def maximum_length_received(self) -> int | None:
        """The maximum length item's value, bytes."""
        item = self._first(MaximumLengthNotification)
        return None if item is None else int(item.maximum_length_received)

    @property
    def implementation_class_uid(self) -> UID | None:
        """The implementation class UID; None where the peer left it out."""
        item = self._first(ImplementationClassUIDNotification)
        return None if item is None else item.implementation_class_uid

    @property
    def mode(self) -> str:
        """Always ``normal`` (PS3.8 7.1.1.1)."""
        return "normal"

    @property
    def responding_ae_title(self) -> str:
        """The called AE title."""
        return self.called_ae_title

    @property
    def result_str(self) -> str:
        """The result for people."""
        return _RESULT.get(-1 if self.result is None else self.result, _NO_VALUE)

    @property
    def source_str(self) -> str:
        """The result source for people."""
        return _SOURCE.get(self.result_source or 0, _NO_VALUE)

    @property
    def reason_str(self) -> str:
        """The diagnostic for people."""
        return _REASON.get((self.result_source or 0, self.diagnostic or 0), _NO_VALUE)


class A_RELEASE:
    """A release: requested with result None, answered with ``affirmative`` (PS3.8 7.2)."""

    def __init__(self, result: str | None = None) -> None:
        self.result = result
        self.reason = "normal"


class A_ABORT:
    """An abort by a service user (PS3.8 7.3)."""

    def __init__(self, abort_source: int | None = None) -> None:
        self.abort_source = abort_source


class A_P_ABORT:
    """An abort by a service provider (PS3.8 7.4)."""

    def __init__(self, provider_reason: int | None = None) -> None:
        self.provider_reason = provider_reason
