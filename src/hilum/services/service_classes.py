"""The service classes of PS3.4: their SOP classes, operations and status codes, as data.

UIDs and names come from pydicom's UID dictionary by the keywords of PS3.6; what each operation
may answer is transcribed from PS3.4, the codes that every service has left out.

Standard: PS3.4 (the annex of each service class), PS3.6 Table A-1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hilum.services import service_statuses as codes
from hilum.services.dictionary import uid_dictionary
from hilum.services.sop_classes import NON_PATIENT_STORAGE_SOP_CLASSES, STORAGE_SOP_CLASSES
from hilum.services.status import C_ECHO, C_STORE, Entry
from hilum.wire.command import CommandField

__all__ = [
    "META_SOP_CLASSES",
    "SERVICES",
    "SOP_CLASSES",
    "Service",
    "SopClass",
    "UPS_EVENT",
    "UPS_PULL",
    "UPS_PUSH",
    "UPS_QUERY",
    "UPS_WATCH",
    "abstract_syntaxes",
    "sop_class",
]

_ECHO, _STORE = CommandField.C_ECHO_RQ, CommandField.C_STORE_RQ
_FIND, _GET, _MOVE = CommandField.C_FIND_RQ, CommandField.C_GET_RQ, CommandField.C_MOVE_RQ
_N_EVENT, _N_GET, _N_SET = (
    CommandField.N_EVENT_REPORT_RQ,
    CommandField.N_GET_RQ,
    CommandField.N_SET_RQ,
)
_N_ACTION, _N_CREATE, _N_DELETE = (
    CommandField.N_ACTION_RQ,
    CommandField.N_CREATE_RQ,
    CommandField.N_DELETE_RQ,
)

_Operations = Mapping[CommandField, Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class SopClass:
    """A SOP class and what can be asked of its instances.

    Args:
        uid: the SOP Class UID.
        name: as PS3.6 calls it.
        keyword: its keyword, empty where PS3.6 has none.
        service: the name of its service class.
        retired: PS3.6 says so; peers may still ask for it.
        operations: what its service uses, by the command field of the request, and the status
            codes that PS3.4 adds for each.
    """

    uid: str
    name: str
    keyword: str
    service: str
    retired: bool
    operations: _Operations

    def statuses(self, operation: int | None = None) -> Sequence[Entry]:
        """The codes of an operation; of all of them when it is None or not one of the class's."""
        for field, table in self.operations.items():
            if field == operation:
                return table
        return tuple(entry for table in self.operations.values() for entry in table)


@dataclass(frozen=True, slots=True)
class Service:
    """A service class of PS3.4.

    Args:
        name: as its annex is called, without "Service Class".
        annex: of PS3.4.
        sop_classes: in the order of the annex.
    """

    name: str
    annex: str
    sop_classes: tuple[SopClass, ...]


def _retrieving(*stems: str) -> dict[str, _Operations]:
    """Find, Move and Get of information models that are called alike."""
    operations: dict[str, _Operations] = {
        "Find": {_FIND: codes.FIND},
        "Move": {_MOVE: codes.MOVE},
        "Get": {_GET: codes.GET},
    }
    return {f"{stem}{end}": of for stem in stems for end, of in operations.items()}


def _non_patient(storage: str, stem: str) -> dict[str, _Operations]:
    return {storage: {_STORE: codes.NON_PATIENT_STORE}, **_retrieving(stem)}


def _each(names: Iterable[str], operations: _Operations) -> dict[str, _Operations]:
    return dict.fromkeys(names, operations)


def _in_order(uids: Iterable[str]) -> list[str]:
    return sorted(uids, key=lambda uid: tuple(map(int, uid.split("."))))


_NOTHING: Sequence[Entry] = ()

# Service, annex, keywords (or UIDs) of its SOP classes with their operations.
_TABLE: tuple[tuple[str, str, Mapping[str, _Operations]], ...] = (
    ("Verification", "A", {"Verification": {_ECHO: C_ECHO}}),
    ("Storage", "B", _each(_in_order(STORAGE_SOP_CLASSES), {_STORE: C_STORE})),
    (
        "Query/Retrieve",
        "C",
        _retrieving(
            "PatientRootQueryRetrieveInformationModel",
            "StudyRootQueryRetrieveInformationModel",
            "PatientStudyOnlyQueryRetrieveInformationModel",
        )
        | {"RepositoryQuery": {_FIND: codes.REPOSITORY_FIND}},
    ),
    (
        "Composite Instance Root Retrieve",
        "Y",
        {
            "CompositeInstanceRootRetrieveMove": {_MOVE: codes.FRAME_MOVE},
            "CompositeInstanceRootRetrieveGet": {_GET: codes.FRAME_GET},
        },
    ),
    (
        "Composite Instance Retrieve Without Bulk Data",
        "Z",
        {"CompositeInstanceRetrieveWithoutBulkDataGet": {_GET: codes.GET}},
    ),
    (
        "Procedure Step SOP Classes (MPPS)",
        "F",
        {
            "ModalityPerformedProcedureStep": {_N_CREATE: _NOTHING, _N_SET: codes.MPPS_SET},
            "ModalityPerformedProcedureStepRetrieve": {_N_GET: codes.OPTIONAL},
            "ModalityPerformedProcedureStepNotification": {_N_EVENT: _NOTHING},
        },
    ),
    (
        "Print Management",
        "H",
        {
            "BasicFilmSession": {
                _N_CREATE: codes.FILM_SESSION_CREATE,
                _N_SET: codes.FILM_SESSION_CREATE,
                _N_DELETE: _NOTHING,
                _N_ACTION: codes.FILM_SESSION_PRINT,
            },
            "BasicFilmBox": {
                _N_CREATE: codes.FILM_BOX_CREATE,
                _N_SET: codes.FILM_BOX_CREATE,
                _N_DELETE: _NOTHING,
                _N_ACTION: codes.FILM_BOX_PRINT,
            },
            "BasicGrayscaleImageBox": {_N_SET: codes.GRAYSCALE_IMAGE_BOX_SET},
            "BasicColorImageBox": {_N_SET: codes.COLOR_IMAGE_BOX_SET},
            "BasicAnnotationBox": {_N_SET: _NOTHING},
            "PresentationLUT": {_N_CREATE: codes.DENSITY, _N_DELETE: _NOTHING},
            "PrintJob": {_N_EVENT: _NOTHING, _N_GET: _NOTHING},
            "Printer": {_N_EVENT: _NOTHING, _N_GET: _NOTHING},
            "PrinterConfigurationRetrieval": {_N_GET: _NOTHING},
        },
    ),
    (
        "Storage Commitment",
        "J",
        {"StorageCommitmentPushModel": {_N_ACTION: _NOTHING, _N_EVENT: _NOTHING}},
    ),
    (
        "Basic Worklist Management",
        "K",
        {"ModalityWorklistInformationModelFind": {_FIND: codes.FIND}},
    ),
    (
        "Application Event Logging",
        "P",
        {
            "ProceduralEventLogging": {_N_ACTION: codes.PROCEDURAL_EVENT},
            "SubstanceAdministrationLogging": {_N_ACTION: codes.SUBSTANCE_EVENT},
        },
    ),
    (
        "Relevant Patient Information Query",
        "Q",
        _each(
            (
                "GeneralRelevantPatientInformationQuery",
                "BreastImagingRelevantPatientInformationQuery",
                "CardiacRelevantPatientInformationQuery",
            ),
            {_FIND: codes.RELEVANT_PATIENT_FIND},
        ),
    ),
    (
        "Instance Availability Notification",
        "R",
        {"InstanceAvailabilityNotification": {_N_CREATE: _NOTHING}},
    ),
    (
        "Media Creation Management",
        "S",
        {
            "MediaCreationManagement": {
                _N_CREATE: codes.MEDIA_CREATION_CREATE,
                _N_ACTION: codes.MEDIA_CREATION_ACTION,
                _N_GET: codes.OPTIONAL,
            }
        },
    ),
    (
        "Hanging Protocol",
        "U",
        _non_patient("HangingProtocolStorage", "HangingProtocolInformationModel"),
    ),
    (
        "Substance Administration Query",
        "V",
        _each(("ProductCharacteristicsQuery", "SubstanceApprovalQuery"), {_FIND: codes.FIND}),
    ),
    (
        "Color Palette",
        "X",
        _non_patient("ColorPaletteStorage", "ColorPaletteQueryRetrieveInformationModel"),
    ),
    (
        "Implant Template",
        "BB",
        _non_patient("GenericImplantTemplateStorage", "GenericImplantTemplateInformationModel")
        | _non_patient("ImplantAssemblyTemplateStorage", "ImplantAssemblyTemplateInformationModel")
        | _non_patient("ImplantTemplateGroupStorage", "ImplantTemplateGroupInformationModel"),
    ),
    (
        "Unified Worklist and Procedure Step",
        "CC",
        {
            "UnifiedProcedureStepPush": {
                _N_CREATE: codes.UPS_CREATE,
                _N_ACTION: codes.UPS_CANCEL,
                _N_GET: codes.UPS_GET,
            },
            "UnifiedProcedureStepWatch": {
                _N_ACTION: codes.UPS_WATCH,
                _N_GET: codes.UPS_GET,
                _FIND: codes.FIND,
            },
            "UnifiedProcedureStepPull": {
                _FIND: codes.FIND,
                _N_GET: codes.UPS_GET,
                _N_SET: codes.UPS_SET,
                _N_ACTION: codes.UPS_STATE,
            },
            "UnifiedProcedureStepEvent": {_N_EVENT: _NOTHING},
            "UnifiedProcedureStepQuery": {_FIND: codes.FIND},
        },
    ),
    (
        "RT Machine Verification",
        "DD",
        _each(
            ("RTConventionalMachineVerification", "RTIonMachineVerification"),
            {
                _N_CREATE: codes.MACHINE_CREATE,
                _N_SET: codes.MACHINE_SET,
                _N_GET: codes.MACHINE_INSTANCE,
                _N_ACTION: codes.MACHINE_INSTANCE,
                _N_DELETE: _NOTHING,
                _N_EVENT: _NOTHING,
            },
        ),
    ),
    ("Display System Management", "EE", {"DisplaySystem": {_N_GET: _NOTHING}}),
    (
        "Non-Patient Object Storage",
        "GG",
        _each(_in_order(NON_PATIENT_STORAGE_SOP_CLASSES), {_STORE: codes.NON_PATIENT_STORE}),
    ),
    (
        "Defined Procedure Protocol Query/Retrieve",
        "HH",
        _retrieving("DefinedProcedureProtocolInformationModel"),
    ),
    (
        "Protocol Approval Query/Retrieve",
        "II",
        _retrieving("ProtocolApprovalInformationModel"),
    ),
    ("Inventory Query/Retrieve", "JJ", _retrieving("Inventory")),
    (
        "Storage Management",
        "KK",
        {"InventoryCreation": {_N_ACTION: codes.INVENTORY_ACTION, _N_EVENT: _NOTHING}},
    ),
)


def _made() -> tuple[Service, ...]:
    dictionary = uid_dictionary()
    by_keyword = {entry[4]: uid for uid, entry in dictionary.items() if entry[4]}
    services = []
    for service, annex, classes in _TABLE:
        found = []
        for named, operations in classes.items():
            uid = by_keyword.get(named, named)
            # A class that this pydicom does not know keeps its UID for a name.
            name, _, _, retired, keyword = dictionary.get(uid, (uid, "", "", "", ""))
            found.append(
                SopClass(
                    uid,
                    name or uid,
                    keyword,
                    service,
                    retired == "Retired",
                    MappingProxyType(dict(operations)),
                )
            )
        services.append(Service(service, annex, tuple(found)))
    return tuple(services)


SERVICES: tuple[Service, ...] = _made()
"""The service classes, in the order of the annexes but for the kinds of Query/Retrieve."""

# The annexes of non-patient objects name storage classes that Annex GG lists again.
SOP_CLASSES: Mapping[str, SopClass] = MappingProxyType(
    {found.uid: found for service in reversed(SERVICES) for found in service.sop_classes}
)
"""SOP Class UID → SOP class; retired ones only of Storage and Query/Retrieve."""

_UIDS = {found.keyword: found.uid for found in SOP_CLASSES.values() if found.keyword}
UPS_PUSH = _UIDS["UnifiedProcedureStepPush"]
"""Unified Procedure Step - Push; every UPS is an instance of this class. Standard: PS3.4 CC.3.1."""
UPS_WATCH = _UIDS["UnifiedProcedureStepWatch"]
"""Unified Procedure Step - Watch. Standard: PS3.4 CC.2."""
UPS_PULL = _UIDS["UnifiedProcedureStepPull"]
"""Unified Procedure Step - Pull. Standard: PS3.4 CC.2."""
UPS_EVENT = _UIDS["UnifiedProcedureStepEvent"]
"""Unified Procedure Step - Event. Standard: PS3.4 CC.2."""
UPS_QUERY = _UIDS["UnifiedProcedureStepQuery"]
"""Unified Procedure Step - Query. Standard: PS3.4 CC.2."""
_UPS = (UPS_PUSH, UPS_PULL, UPS_WATCH, UPS_EVENT, UPS_QUERY)

_PRINTED = ("BasicFilmSession", "BasicFilmBox", "Printer")
META_SOP_CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "1.2.840.10008.5.1.1.9": tuple(
            _UIDS[keyword] for keyword in (*_PRINTED, "BasicGrayscaleImageBox")
        ),
        "1.2.840.10008.5.1.1.18": tuple(
            _UIDS[keyword] for keyword in (*_PRINTED, "BasicColorImageBox")
        ),
    }
)
"""Meta SOP Class UID → the SOP classes that its presentation context carries.

Standard: PS3.4 H.3.2.2 (Basic Grayscale and Basic Color Print Management Meta SOP Classes).
"""


def sop_class(uid: str) -> SopClass | None:
    """The SOP class of a UID; None of a private one, or one that no service here has."""
    return SOP_CLASSES.get(uid)


def abstract_syntaxes(sop_class_uid: str, operation: int) -> tuple[str, ...]:
    """Under which abstract syntaxes a request for a SOP class may travel, the nearest first.

    Most have only their own. What belongs to a meta SOP class travels in its context. Every UPS is
    an instance of UPS Push: the request names that class whatever UPS class the context has.

    Standard: PS3.4 H.3.2.2 (print), CC.3.1 (UPS).

    Args:
        sop_class_uid: the class in the command set.
        operation: the command field of the request.
    """
    if sop_class_uid == UPS_PUSH:
        return tuple(uid for uid in _UPS if operation in SOP_CLASSES[uid].operations)
    metas = (meta for meta, members in META_SOP_CLASSES.items() if sop_class_uid in members)
    return (sop_class_uid, *metas)
