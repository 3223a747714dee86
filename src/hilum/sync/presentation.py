"""Presentation contexts as programs make and read them, and the ready lists of them.

Standard: PS3.8 7.1.1.13, 9.3.2.2, 9.3.3.2; PS3.7 D.3.3.4 (roles).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydicom.uid import UID

from hilum.sync import sop_class
from hilum.sync._globals import DEFAULT_TRANSFER_SYNTAXES
from hilum.sync.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from hilum.sync.utils import decode_bytes, set_uid, validate_uid

__all__ = [
    "AllStoragePresentationContexts",
    "ApplicationEventLoggingPresentationContexts",
    "BasicWorklistManagementPresentationContexts",
    "ColorPalettePresentationContexts",
    "DefinedProcedureProtocolPresentationContexts",
    "DisplaySystemPresentationContexts",
    "HangingProtocolPresentationContexts",
    "ImplantTemplatePresentationContexts",
    "InstanceAvailabilityPresentationContexts",
    "MediaCreationManagementPresentationContexts",
    "MediaStoragePresentationContexts",
    "ModalityPerformedPresentationContexts",
    "NonPatientObjectPresentationContexts",
    "PresentationContext",
    "PresentationContextTuple",
    "PrintManagementPresentationContexts",
    "ProcedureStepPresentationContexts",
    "ProtocolApprovalPresentationContexts",
    "QueryRetrievePresentationContexts",
    "RTMachineVerificationPresentationContexts",
    "RelevantPatientInformationPresentationContexts",
    "StorageCommitmentPresentationContexts",
    "StoragePresentationContexts",
    "SubstanceAdministrationPresentationContexts",
    "UnifiedProcedurePresentationContexts",
    "VerificationPresentationContexts",
    "build_context",
    "build_role",
]

log = logging.getLogger("hilum.sync")

_RESULTS = {
    None: "Pending",
    0: "Accepted",
    1: "User Rejected",
    2: "Provider Rejected",
    3: "Abstract Syntax Not Supported",
    4: "Transfer Syntax(es) Not Supported",
}


class PresentationContextTuple(NamedTuple):
    """The accepted context of a request, as ``event.context``."""

    context_id: int
    abstract_syntax: UID
    transfer_syntax: UID


class PresentationContext:
    """One presentation context: wanted, supported, proposed or answered.

    ``scu_role`` and ``scp_role`` say which roles a server lets a requestor play; both None answers
    no role selection. ``as_scu`` and ``as_scp`` say, once negotiated, which roles *we* play.
    """

    def __init__(self) -> None:
        self._context_id: int | None = None
        self._abstract_syntax: UID | None = None
        self._transfer_syntax: list[UID] = []
        self._scu_role: bool | None = None
        self._scp_role: bool | None = None
        self._as_scu: bool | None = None
        self._as_scp: bool | None = None
        #: PS3.8 Table 9-18; None before the answer.
        self.result: int | None = None

    @property
    def abstract_syntax(self) -> UID | None:
        """Get or set the abstract syntax, in most cases a SOP class UID."""
        return self._abstract_syntax

    @abstract_syntax.setter
    def abstract_syntax(self, value: str | bytes | UID) -> None:
        self._abstract_syntax = set_uid(value, "abstract_syntax", True, False)

    def add_transfer_syntax(self, syntax: Any) -> None:
        """One more transfer syntax, after those that are here; a repeated one is passed over.

        Raises:
            ValueError: it may not be a UID.
        """
        if syntax is None:
            return
        if not isinstance(syntax, str | bytes):
            log.error("not a transfer syntax: %r", syntax)
            return
        uid = UID(decode_bytes(syntax) if isinstance(syntax, bytes) else syntax)
        if not validate_uid(uid):
            raise ValueError("'transfer_syntax' contains an invalid UID")
        if not uid.is_valid:
            log.warning("A non-conformant UID has been added to 'transfer_syntax'")
        elif not uid.is_private and not uid.is_transfer_syntax:
            log.warning("A UID that is no transfer syntax has been added: '%s'", uid)
        if uid not in self._transfer_syntax:
            self._transfer_syntax.append(uid)

    @property
    def transfer_syntax(self) -> list[UID]:
        """Get or set the transfer syntaxes; an answered context has one."""
        return self._transfer_syntax

    @transfer_syntax.setter
    def transfer_syntax(self, syntaxes: list[str | bytes | UID]) -> None:
        if not isinstance(syntaxes, list):
            raise TypeError("'transfer_syntax' must be a list")
        self._transfer_syntax = []
        for syntax in syntaxes:
            self.add_transfer_syntax(syntax)

    @property
    def as_scu(self) -> bool | None:
        """Whether we may be the SCU in this context."""
        return self._as_scu

    @property
    def as_scp(self) -> bool | None:
        """Whether we may be the SCP in this context."""
        return self._as_scp

    @property
    def as_tuple(self) -> PresentationContextTuple:
        """The context with its first transfer syntax."""
        assert self.context_id is not None and self.abstract_syntax is not None
        return PresentationContextTuple(
            self.context_id, self.abstract_syntax, self.transfer_syntax[0]
        )

    @property
    def context_id(self) -> int | None:
        """Get or set the context id, odd, 1 to 255."""
        return self._context_id

    @context_id.setter
    def context_id(self, value: int | None) -> None:
        if value is not None and (not 1 <= value <= 255 or value % 2 == 0):
            raise ValueError("'context_id' must be an odd integer between 1 and 255, inclusive")
        self._context_id = value

    @property
    def scu_role(self) -> bool | None:
        """Get or set whether the requestor may be SCU."""
        return self._scu_role

    @scu_role.setter
    def scu_role(self, value: bool | None) -> None:
        if not isinstance(value, bool | None):
            raise TypeError("'scu_role' must be a bool or None")
        self._scu_role = value

    @property
    def scp_role(self) -> bool | None:
        """Get or set whether the requestor may be SCP."""
        return self._scp_role

    @scp_role.setter
    def scp_role(self, value: bool | None) -> None:
        if not isinstance(value, bool | None):
            raise TypeError("'scp_role' must be a bool or None")
        self._scp_role = value

    @property
    def status(self) -> str:
        """What became of it, for people."""
        return _RESULTS.get(self.result, "Unknown")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PresentationContext):
            return self is other or self.__dict__ == other.__dict__
        return NotImplemented

    def __hash__(self) -> int:
        syntaxes = tuple(self.transfer_syntax)
        return hash((self.abstract_syntax, self.context_id, syntaxes, self.as_scp, self.as_scu))

    def __repr__(self) -> str:
        return self.abstract_syntax.name if self.abstract_syntax is not None else "no context"

    def __str__(self) -> str:
        lines = [f"ID: {self.context_id}"] if self.context_id is not None else []
        if self.abstract_syntax is not None:
            lines.append(f"Abstract Syntax: {self.abstract_syntax.name}")
        lines.append("Transfer Syntax(es):")
        lines += [f"    ={syntax.name}" for syntax in self.transfer_syntax] or ["    (none)"]
        if self.result is not None:
            lines.append(f"Result: {self.status}")
        if self.as_scu is not None and self.as_scp is not None:
            role = {
                (True, False): "SCU only",
                (True, True): "SCU and SCP",
                (False, True): "SCP only",
                (False, False): "(none)",
            }[self.as_scu, self.as_scp]
            lines.append(f"Role: {role}")
        return "\n".join(lines)


def build_context(
    abstract_syntax: str | UID,
    transfer_syntax: str | UID | Sequence[str | UID] | None = None,
) -> PresentationContext:
    """A presentation context.

    Args:
        abstract_syntax: a SOP class UID.
        transfer_syntax: one or several; None takes ``DEFAULT_TRANSFER_SYNTAXES``.
    """
    context = PresentationContext()
    context.abstract_syntax = UID(abstract_syntax)
    context.transfer_syntax = list(syntaxes(transfer_syntax))
    return context


def syntaxes(given: str | UID | Sequence[str | UID] | None) -> Sequence[str | UID]:
    """One or several transfer syntaxes, or the default ones, as a sequence."""
    if given is None:
        return DEFAULT_TRANSFER_SYNTAXES
    return [given] if isinstance(given, str) else given


def build_role(
    uid: str | UID, scu_role: bool = False, scp_role: bool = False
) -> SCP_SCU_RoleSelectionNegotiation:
    """A role selection item for ``associate(ext_neg=…)``.

    Standard: PS3.7 D.3.3.4.

    Args:
        uid: SOP class UID.
        scu_role: whether we want to be SCU.
        scp_role: whether we want to be SCP.
    """
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = UID(uid)
    role.scu_role = scu_role
    role.scp_role = scp_role
    return role


def _contexts(uids: Sequence[str]) -> list[PresentationContext]:
    return [build_context(uid) for uid in uids]


ApplicationEventLoggingPresentationContexts = _contexts(sop_class.group("ApplicationEventLogging"))
BasicWorklistManagementPresentationContexts = _contexts(sop_class.group("BasicWorklistManagement"))
ColorPalettePresentationContexts = _contexts(sop_class.group("ColorPalette"))
DefinedProcedureProtocolPresentationContexts = _contexts(
    sop_class.group("DefinedProcedureProtocol")
)
DisplaySystemPresentationContexts = _contexts(sop_class.group("DisplaySystem"))
HangingProtocolPresentationContexts = _contexts(sop_class.group("HangingProtocol"))
ImplantTemplatePresentationContexts = _contexts(sop_class.group("ImplantTemplate"))
InstanceAvailabilityPresentationContexts = _contexts(sop_class.group("InstanceAvailability"))
MediaCreationManagementPresentationContexts = _contexts(sop_class.group("MediaCreationManagement"))
MediaStoragePresentationContexts = _contexts(sop_class.group("MediaStorage"))
ModalityPerformedPresentationContexts = _contexts(sop_class.group("ProcedureStep"))
NonPatientObjectPresentationContexts = _contexts(sop_class.group("NonPatientObject"))
PrintManagementPresentationContexts = _contexts(sop_class.group("PrintManagement"))
ProcedureStepPresentationContexts = _contexts(sop_class.group("ProcedureStep"))
ProtocolApprovalPresentationContexts = _contexts(sop_class.group("ProtocolApproval"))
QueryRetrievePresentationContexts = _contexts(sop_class.group("QueryRetrieve"))
RelevantPatientInformationPresentationContexts = _contexts(
    sop_class.group("RelevantPatientInformation")
)
RTMachineVerificationPresentationContexts = _contexts(sop_class.group("RTMachineVerification"))
AllStoragePresentationContexts = _contexts(sop_class.ALL_STORAGE)
StoragePresentationContexts = _contexts(sop_class.STORAGE)
StorageCommitmentPresentationContexts = _contexts(sop_class.group("StorageCommitment"))
SubstanceAdministrationPresentationContexts = _contexts(sop_class.group("SubstanceAdministration"))
UnifiedProcedurePresentationContexts = _contexts(sop_class.group("UnifiedProcedure"))
VerificationPresentationContexts = _contexts(sop_class.group("Verification"))
