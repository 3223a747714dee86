"""The service classes by name, for ``register_uid`` and ``SOPClass.service_class``.

They hold nothing: what a request asks is in its command set, and the handler bound to its event
answers it, whatever service its SOP class belongs to.
"""

from __future__ import annotations

__all__ = [
    "ApplicationEventLoggingServiceClass",
    "BasicWorklistManagementServiceClass",
    "ColorPaletteQueryRetrieveServiceClass",
    "DefinedProcedureProtocolQueryRetrieveServiceClass",
    "DisplaySystemManagementServiceClass",
    "HangingProtocolQueryRetrieveServiceClass",
    "ImplantTemplateQueryRetrieveServiceClass",
    "InstanceAvailabilityNotificationServiceClass",
    "InventoryQueryRetrieveServiceClass",
    "MediaCreationManagementServiceClass",
    "MediaStorageServiceClass",
    "NonPatientObjectStorageServiceClass",
    "PrintManagementServiceClass",
    "ProcedureStepServiceClass",
    "ProtocolApprovalQueryRetrieveServiceClass",
    "QueryRetrieveServiceClass",
    "RTMachineVerificationServiceClass",
    "RelevantPatientInformationQueryServiceClass",
    "ServiceClass",
    "StorageCommitmentServiceClass",
    "StorageManagementServiceClass",
    "StorageServiceClass",
    "SubstanceAdministrationQueryServiceClass",
    "UnifiedProcedureStepServiceClass",
    "VerificationServiceClass",
]


class ServiceClass:
    """A service class of PS3.4; this one for UIDs of none that is known."""


class VerificationServiceClass(ServiceClass):
    """PS3.4 Annex A."""


class StorageServiceClass(ServiceClass):
    """PS3.4 Annex B."""


class QueryRetrieveServiceClass(ServiceClass):
    """PS3.4 Annex C."""


class ProcedureStepServiceClass(ServiceClass):
    """PS3.4 Annex F."""


class PrintManagementServiceClass(ServiceClass):
    """PS3.4 Annex H."""


class MediaStorageServiceClass(ServiceClass):
    """PS3.4 Annex I."""


class StorageCommitmentServiceClass(ServiceClass):
    """PS3.4 Annex J."""


class BasicWorklistManagementServiceClass(QueryRetrieveServiceClass):
    """PS3.4 Annex K."""


class ApplicationEventLoggingServiceClass(ServiceClass):
    """PS3.4 Annex P."""


class RelevantPatientInformationQueryServiceClass(ServiceClass):
    """PS3.4 Annex Q."""


class InstanceAvailabilityNotificationServiceClass(ServiceClass):
    """PS3.4 Annex R."""


class MediaCreationManagementServiceClass(ServiceClass):
    """PS3.4 Annex S."""


class HangingProtocolQueryRetrieveServiceClass(QueryRetrieveServiceClass):
    """PS3.4 Annex U."""


class SubstanceAdministrationQueryServiceClass(QueryRetrieveServiceClass):
    """PS3.4 Annex V."""


class ColorPaletteQueryRetrieveServiceClass(QueryRetrieveServiceClass):
    """PS3.4 Annex X."""


class ImplantTemplateQueryRetrieveServiceClass(QueryRetrieveServiceClass):
    """PS3.4 Annex BB."""


class UnifiedProcedureStepServiceClass(ServiceClass):
    """PS3.4 Annex CC."""


class RTMachineVerificationServiceClass(ServiceClass):
    """PS3.4 Annex DD."""


class DisplaySystemManagementServiceClass(ServiceClass):
    """PS3.4 Annex EE."""


class NonPatientObjectStorageServiceClass(StorageServiceClass):
    """PS3.4 Annex GG."""


class DefinedProcedureProtocolQueryRetrieveServiceClass(QueryRetrieveServiceClass):
    """PS3.4 Annex HH."""


class ProtocolApprovalQueryRetrieveServiceClass(QueryRetrieveServiceClass):
    """PS3.4 Annex II."""


class StorageManagementServiceClass(ServiceClass):
    """PS3.4 Annex KK."""


class InventoryQueryRetrieveServiceClass(QueryRetrieveServiceClass):
    """PS3.4 Annex JJ."""
