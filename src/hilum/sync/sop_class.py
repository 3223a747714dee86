"""SOP classes by their keywords: ``from hilum.sync.sop_class import CTImageStorage``.

Every SOP class of PS3.6 is here under its keyword there, and under the spelling of pynetdicom
where that differs.

Standard: PS3.6 Table A-1; PS3.4 for the services.
"""

from __future__ import annotations

import inspect
from keyword import iskeyword
from typing import Any

from pydicom.uid import UID

from hilum.services.dictionary import uid_dictionary
from hilum.services.sop_classes import NON_PATIENT_STORAGE_SOP_CLASSES, STORAGE_SOP_CLASSES
from hilum.sync import service_class as _service
from hilum.sync.service_class import QueryRetrieveServiceClass, ServiceClass

__all__ = [
    "DisplaySystemInstance",
    "PrinterConfigurationRetrievalInstance",
    "PrinterInstance",
    "ProceduralEventLoggingInstance",
    "SOPClass",
    "StorageCommitmentPushModelInstance",
    "StorageManagementInstance",
    "SubstanceAdministrationLoggingInstance",
    "UPSFilteredGlobalSubscriptionInstance",
    "UPSGlobalSubscriptionInstance",
    "register_uid",
    "uid_to_service_class",
    "uid_to_sop_class",
]

_ROOT = "1.2.840.10008."


class SOPClass(UID):
    """A UID that knows which service its SOP class belongs to."""

    _service_class: type[ServiceClass] | None = None

    @property
    def service_class(self) -> type[ServiceClass] | None:
        """The service class; None for a SOP class that nobody told of."""
        return self._service_class


# Younger than the dictionary of the oldest pydicom that we accept.
_YOUNGER = {
    "1.2.840.10008.5.1.4.1.1.9.100.1": "WaveformPresentationStateStorage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "WaveformAcquisitionPresentationStateStorage",
    "1.2.840.10008.5.1.4.1.1.66.7": "LabelMapSegmentationStorage",
    "1.2.840.10008.5.1.4.1.1.66.8": "HeightMapSegmentationStorage",
}

# pynetdicom's spelling where it is not the keyword of PS3.6.
_SPELLINGS = {
    "ModalityWorklistInformationFind": "1.2.840.10008.5.1.4.31",
    "ColorPaletteInformationModelFind": "1.2.840.10008.5.1.4.39.2",
    "ColorPaletteInformationModelMove": "1.2.840.10008.5.1.4.39.3",
    "ColorPaletteInformationModelGet": "1.2.840.10008.5.1.4.39.4",
    "PseudoColorSoftcopyPresentationStageStorage": "1.2.840.10008.5.1.4.1.1.11.3",
    "VariableModalityLUTSoftcopyPresentationStageStorage": "1.2.840.10008.5.1.4.1.1.11.12",
    "OphthlamicOpticalCoherenceTomographyBscanVolumeAnalysisStorage": (
        "1.2.840.10008.5.1.4.1.1.77.1.5.8"
    ),
    "RoboticArmRadiationRecordStorage": "1.2.840.10008.5.1.4.1.1.481.20",
    "RTBrachyApplicationSetupDeliveryInstructionsStorage": "1.2.840.10008.5.1.4.34.10",
}

# Storage of security screening (DICOS) and of material testing (DICONDE): not of patients.
_OTHER_STANDARDS = ("1.2.840.10008.5.1.4.1.1.501.", "1.2.840.10008.5.1.4.1.1.601.")


def _uids(arcs: str) -> tuple[str, ...]:
    """The UIDs of a line of numbers, each without the root of DICOM."""
    return tuple(_ROOT + arc for arc in arcs.split())


_GROUPS: dict[str, tuple[type[ServiceClass], tuple[str, ...]]] = {
    "Verification": (_service.VerificationServiceClass, _uids("1.1")),
    "ApplicationEventLogging": (
        _service.ApplicationEventLoggingServiceClass,
        _uids("1.40 1.42"),
    ),
    "BasicWorklistManagement": (
        _service.BasicWorklistManagementServiceClass,
        _uids("5.1.4.31"),
    ),
    "ColorPalette": (
        _service.ColorPaletteQueryRetrieveServiceClass,
        _uids("5.1.4.39.2 5.1.4.39.3 5.1.4.39.4"),
    ),
    "DefinedProcedureProtocol": (
        _service.DefinedProcedureProtocolQueryRetrieveServiceClass,
        _uids("5.1.4.20.1 5.1.4.20.2 5.1.4.20.3"),
    ),
    "DisplaySystem": (_service.DisplaySystemManagementServiceClass, _uids("5.1.1.40")),
    "HangingProtocol": (
        _service.HangingProtocolQueryRetrieveServiceClass,
        _uids("5.1.4.38.2 5.1.4.38.3 5.1.4.38.4"),
    ),
    "ImplantTemplate": (
        _service.ImplantTemplateQueryRetrieveServiceClass,
        _uids(
            "5.1.4.43.2 5.1.4.43.3 5.1.4.43.4 5.1.4.44.2 5.1.4.44.3 5.1.4.44.4 "
            "5.1.4.45.2 5.1.4.45.3 5.1.4.45.4"
        ),
    ),
    "InstanceAvailability": (
        _service.InstanceAvailabilityNotificationServiceClass,
        _uids("5.1.4.33"),
    ),
    "Inventory": (
        _service.InventoryQueryRetrieveServiceClass,
        _uids("5.1.4.1.1.201.2 5.1.4.1.1.201.3 5.1.4.1.1.201.4"),
    ),
    "MediaCreationManagement": (
        _service.MediaCreationManagementServiceClass,
        _uids("5.1.1.33"),
    ),
    "MediaStorage": (_service.MediaStorageServiceClass, _uids("1.3.10")),
    "NonPatientObject": (
        _service.NonPatientObjectStorageServiceClass,
        tuple(sorted(NON_PATIENT_STORAGE_SOP_CLASSES)),
    ),
    "PrintManagement": (
        _service.PrintManagementServiceClass,
        _uids(
            "5.1.1.1 5.1.1.2 5.1.1.4 5.1.1.4.1 5.1.1.14 5.1.1.15 5.1.1.16 5.1.1.16.376 5.1.1.23 "
            "5.1.1.9 5.1.1.18"
        ),
    ),
    "ProcedureStep": (
        _service.ProcedureStepServiceClass,
        _uids("3.1.2.3.3 3.1.2.3.4 3.1.2.3.5"),
    ),
    "ProtocolApproval": (
        _service.ProtocolApprovalQueryRetrieveServiceClass,
        _uids("5.1.4.1.1.200.4 5.1.4.1.1.200.5 5.1.4.1.1.200.6"),
    ),
    "QueryRetrieve": (
        _service.QueryRetrieveServiceClass,
        _uids(
            "5.1.4.1.2.1.1 5.1.4.1.2.1.2 5.1.4.1.2.1.3 5.1.4.1.2.2.1 5.1.4.1.2.2.2 5.1.4.1.2.2.3 "
            "5.1.4.1.2.3.1 5.1.4.1.2.3.2 5.1.4.1.2.3.3 5.1.4.1.2.4.2 5.1.4.1.2.4.3 5.1.4.1.2.5.3 "
            "5.1.4.1.1.201.6"
        ),
    ),
    "RelevantPatientInformation": (
        _service.RelevantPatientInformationQueryServiceClass,
        _uids("5.1.4.37.1 5.1.4.37.2 5.1.4.37.3"),
    ),
    "RTMachineVerification": (
        _service.RTMachineVerificationServiceClass,
        _uids("5.1.4.34.8 5.1.4.34.9"),
    ),
    "StorageCommitment": (_service.StorageCommitmentServiceClass, _uids("1.20.1")),
    "StorageManagement": (_service.StorageManagementServiceClass, _uids("5.1.4.1.1.201.5")),
    "SubstanceAdministration": (
        _service.SubstanceAdministrationQueryServiceClass,
        _uids("5.1.4.41 5.1.4.42"),
    ),
    "UnifiedProcedure": (
        _service.UnifiedProcedureStepServiceClass,
        _uids("5.1.4.34.6.1 5.1.4.34.6.2 5.1.4.34.6.3 5.1.4.34.6.4 5.1.4.34.6.5"),
    ),
}

# What an association of at most 128 contexts leaves out of all storage classes: those that few
# systems make. The list is pynetdicom's choice, which programs count on.
_SELDOM_STORED = _uids(
    "5.1.4.1.1.6.3 5.1.4.1.1.9.1.4 5.1.4.1.1.9.6.2 5.1.4.1.1.9.7.1 5.1.4.1.1.9.7.2 "
    "5.1.4.1.1.9.7.3 5.1.4.1.1.9.7.4 5.1.4.1.1.9.8.1 5.1.4.1.1.9.100.1 5.1.4.1.1.9.100.2 "
    "5.1.4.1.1.11.6 5.1.4.1.1.11.7 5.1.4.1.1.11.8 5.1.4.1.1.11.9 5.1.4.1.1.11.10 "
    "5.1.4.1.1.11.11 5.1.4.1.1.11.12 5.1.4.1.1.13.1.4 5.1.4.1.1.13.1.5 5.1.4.1.1.30 "
    "5.1.4.1.1.66.6 5.1.4.1.1.66.7 5.1.4.1.1.66.8 5.1.4.1.1.77.1.5.5 5.1.4.1.1.77.1.5.6 "
    "5.1.4.1.1.77.1.5.7 5.1.4.1.1.77.1.5.8 5.1.4.1.1.77.1.7 5.1.4.1.1.77.1.8 "
    "5.1.4.1.1.77.1.9 5.1.4.1.1.82.1 5.1.4.1.1.88.35 5.1.4.1.1.88.68 5.1.4.1.1.88.71 "
    "5.1.4.1.1.88.72 5.1.4.1.1.88.73 5.1.4.1.1.88.74 5.1.4.1.1.88.75 5.1.4.1.1.88.76 "
    "5.1.4.1.1.88.77 5.1.4.1.1.90.1 5.1.4.1.1.91.1 5.1.4.1.1.104.3 5.1.4.1.1.104.4 "
    "5.1.4.1.1.104.5 5.1.4.1.1.200.2 5.1.4.1.1.200.8 5.1.4.1.1.481.10 5.1.4.1.1.481.11 "
    "5.1.4.1.1.481.12 5.1.4.1.1.481.13 5.1.4.1.1.481.14 5.1.4.1.1.481.15 5.1.4.1.1.481.16 "
    "5.1.4.1.1.481.17 5.1.4.1.1.481.18 5.1.4.1.1.481.19 5.1.4.1.1.481.20 5.1.4.1.1.481.21 "
    "5.1.4.1.1.481.22 5.1.4.1.1.481.23 5.1.4.1.1.481.24 5.1.4.1.1.481.25 5.1.4.34.10"
)
_RETIRED_STORED = _uids(
    "5.1.1.27 5.1.1.29 5.1.1.30 5.1.4.1.1.3 5.1.4.1.1.5 5.1.4.1.1.6 5.1.4.1.1.8 5.1.4.1.1.9 "
    "5.1.4.1.1.10 5.1.4.1.1.11 5.1.4.1.1.12.3 5.1.4.1.1.77.1 5.1.4.1.1.77.2 5.1.4.1.1.129"
)


def _current_storage() -> tuple[str, ...]:
    retired = {uid for uid, entry in uid_dictionary().items() if entry[3]}
    current = (STORAGE_SOP_CLASSES - retired) & (uid_dictionary().keys() | _YOUNGER.keys())
    return tuple(sorted(uid for uid in current if not uid.startswith(_OTHER_STANDARDS)))


ALL_STORAGE = _current_storage()
"""Every current storage class of patients' objects."""
STORAGE = tuple(sorted((set(ALL_STORAGE) - set(_SELDOM_STORED)) | set(_RETIRED_STORED)))
"""The storage classes that one association can propose, with some retired ones."""

_SERVICE_OF: dict[str, type[ServiceClass]] = {
    **dict.fromkeys((*ALL_STORAGE, *_RETIRED_STORED), _service.StorageServiceClass),
    **{uid: service for service, uids in _GROUPS.values() for uid in uids},
    "1.2.840.10008.4.2": _service.StorageServiceClass,
    "1.2.840.10008.5.1.4.34.6": _service.UnifiedProcedureStepServiceClass,
}
_KNOWN: dict[str, SOPClass] = {}


def group(name: str) -> tuple[str, ...]:
    """The SOP class UIDs of a service, in order."""
    return tuple(sorted(_GROUPS[name][1]))


def uid_to_service_class(uid: str) -> type[ServiceClass]:
    """The service class of a SOP class; ``ServiceClass`` for one that is not known."""
    return _SERVICE_OF.get(uid, ServiceClass)


def uid_to_sop_class(uid: str) -> SOPClass:
    """The SOP class object of a UID."""
    return _KNOWN.get(uid) or _sop_class(uid)


def _sop_class(uid: str) -> SOPClass:
    made = SOPClass(uid)
    made._service_class = uid_to_service_class(uid)
    return made


def register_uid(
    uid: str, keyword: str, service_class: type[ServiceClass], dimse_msg_type: str = ""
) -> None:
    """Make a private SOP class importable from this module.

    Args:
        uid: of the SOP class.
        keyword: its name here, a Python identifier.
        service_class: the service it belongs to, a class of ``service_class``.
        dimse_msg_type: with ``QueryRetrieveServiceClass``: ``C-FIND``, ``C-GET`` or ``C-MOVE``.

    Raises:
        ValueError: the keyword is no identifier, or the message type is missing.
        TypeError: ``service_class`` is no service class.
    """
    if not keyword.isidentifier() or iskeyword(keyword):
        raise ValueError(f"The keyword '{keyword}' is not a valid Python identifier")
    if not inspect.isclass(service_class):
        raise TypeError("'service_class' must be a class object not a class instance")
    if not issubclass(service_class, ServiceClass):
        raise TypeError("'service_class' must be a ServiceClass subclass object")
    needs_type = service_class is QueryRetrieveServiceClass
    if needs_type and dimse_msg_type not in ("C-FIND", "C-GET", "C-MOVE"):
        raise ValueError("'dimse_msg_type' must be 'C-FIND', 'C-GET' or 'C-MOVE'")
    _SERVICE_OF[uid] = service_class
    _KNOWN[uid] = globals()[keyword] = _sop_class(uid)


def _name_all() -> None:
    names = {
        entry[4]: uid
        for uid, entry in uid_dictionary().items()
        if entry[1] in ("SOP Class", "Meta SOP Class") and entry[4]
    }
    names |= {name: uid for uid, name in _YOUNGER.items()} | _SPELLINGS
    for name, uid in names.items():
        _KNOWN[uid] = globals()[name] = _sop_class(uid)


def __getattr__(name: str) -> Any:
    # For type checkers, which do not see the names set below.
    raise AttributeError(f"module {__name__!r} has no SOP class {name!r}")


_name_all()

DisplaySystemInstance = UID("1.2.840.10008.5.1.1.40.1")
PrinterConfigurationRetrievalInstance = UID("1.2.840.10008.5.1.1.17.376")
PrinterInstance = UID("1.2.840.10008.5.1.1.17")
ProceduralEventLoggingInstance = UID("1.2.840.10008.1.40.1")
StorageCommitmentPushModelInstance = UID("1.2.840.10008.1.20.1.1")
StorageManagementInstance = UID("1.2.840.10008.5.1.4.1.1.201.1.1")
SubstanceAdministrationLoggingInstance = UID("1.2.840.10008.1.42.1")
UPSFilteredGlobalSubscriptionInstance = UID("1.2.840.10008.5.1.4.34.5.1")
UPSGlobalSubscriptionInstance = UID("1.2.840.10008.5.1.4.34.5")
