"""The blocking API, under the public names and conventions of pynetdicom.

A program moves over by changing its imports: ``from hilum.sync import AE, evt``.
``docs/sync.md`` says what is different, and why.
"""

import logging

from pydicom.uid import UID

from hilum import __version__
from hilum.sync import _config, _handlers, sop_class, status
from hilum.sync import events as evt
from hilum.sync._globals import ALL_TRANSFER_SYNTAXES, DEFAULT_TRANSFER_SYNTAXES
from hilum.sync.ae import ApplicationEntity as AE
from hilum.sync.association import Association
from hilum.sync.presentation import (
    AllStoragePresentationContexts,
    ApplicationEventLoggingPresentationContexts,
    BasicWorklistManagementPresentationContexts,
    ColorPalettePresentationContexts,
    DefinedProcedureProtocolPresentationContexts,
    DisplaySystemPresentationContexts,
    HangingProtocolPresentationContexts,
    ImplantTemplatePresentationContexts,
    InstanceAvailabilityPresentationContexts,
    MediaCreationManagementPresentationContexts,
    MediaStoragePresentationContexts,
    ModalityPerformedPresentationContexts,
    NonPatientObjectPresentationContexts,
    PrintManagementPresentationContexts,
    ProcedureStepPresentationContexts,
    ProtocolApprovalPresentationContexts,
    QueryRetrievePresentationContexts,
    RelevantPatientInformationPresentationContexts,
    RTMachineVerificationPresentationContexts,
    StorageCommitmentPresentationContexts,
    StoragePresentationContexts,
    SubstanceAdministrationPresentationContexts,
    UnifiedProcedurePresentationContexts,
    VerificationPresentationContexts,
    build_context,
    build_role,
)
from hilum.sync.sop_class import register_uid
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

PYNETDICOM_UID_PREFIX = f"{IMPLEMENTATION_CLASS_UID}."
"""Under this name for programs that make UIDs with it: the root is Hilum's."""
PYNETDICOM_IMPLEMENTATION_UID = UID(IMPLEMENTATION_CLASS_UID)
"""Hilum's implementation class UID."""
PYNETDICOM_IMPLEMENTATION_VERSION = IMPLEMENTATION_VERSION_NAME
"""Hilum's implementation version name."""


def debug_logger() -> None:
    """Log everything of Hilum to standard error."""
    logger = logging.getLogger("hilum")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname).1s: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG)


def _logged(record: logging.LogRecord) -> bool:
    """What ``_config.LOG_HANDLER_LEVEL`` lets through."""
    return record.levelno >= logging.WARNING or _config.LOG_HANDLER_LEVEL != "none"


logging.getLogger(__name__).addHandler(logging.NullHandler())
logging.getLogger(__name__).addFilter(_logged)

__all__ = [
    "AE",
    "ALL_TRANSFER_SYNTAXES",
    "Association",
    "AllStoragePresentationContexts",
    "ApplicationEventLoggingPresentationContexts",
    "BasicWorklistManagementPresentationContexts",
    "ColorPalettePresentationContexts",
    "DEFAULT_TRANSFER_SYNTAXES",
    "DefinedProcedureProtocolPresentationContexts",
    "DisplaySystemPresentationContexts",
    "HangingProtocolPresentationContexts",
    "ImplantTemplatePresentationContexts",
    "InstanceAvailabilityPresentationContexts",
    "MediaCreationManagementPresentationContexts",
    "MediaStoragePresentationContexts",
    "ModalityPerformedPresentationContexts",
    "NonPatientObjectPresentationContexts",
    "PYNETDICOM_IMPLEMENTATION_UID",
    "PYNETDICOM_IMPLEMENTATION_VERSION",
    "PYNETDICOM_UID_PREFIX",
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
    "__version__",
    "_config",
    "_handlers",
    "build_context",
    "build_role",
    "debug_logger",
    "evt",
    "register_uid",
    "sop_class",
    "status",
]
