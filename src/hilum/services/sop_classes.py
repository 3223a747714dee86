"""SOP classes: which are storage classes, which an acceptor of everything may take.

The table is pydicom's UID dictionary (PS3.6 Annex A), read once at import.

Standard: PS3.4 B.5 (Storage), GG.3 (Non-Patient Object Storage), C.3 (Query/Retrieve),
A.4 (Verification), J.3 (Storage Commitment); PS3.6 Table A-1.
"""

from __future__ import annotations

from hilum.services.dictionary import uid_dictionary

__all__ = [
    "VERIFICATION",
    "STORAGE_COMMITMENT_PUSH_MODEL",
    "STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE",
    "PATIENT_ROOT_FIND",
    "PATIENT_ROOT_MOVE",
    "PATIENT_ROOT_GET",
    "STUDY_ROOT_FIND",
    "STUDY_ROOT_MOVE",
    "STUDY_ROOT_GET",
    "PATIENT_STUDY_ONLY_FIND",
    "PATIENT_STUDY_ONLY_MOVE",
    "PATIENT_STUDY_ONLY_GET",
    "COMPOSITE_INSTANCE_ROOT_MOVE",
    "COMPOSITE_INSTANCE_ROOT_GET",
    "COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET",
    "MODALITY_WORKLIST_FIND",
    "QUERY_RETRIEVE_SOP_CLASSES",
    "STORAGE_SOP_CLASSES",
    "NON_PATIENT_STORAGE_SOP_CLASSES",
    "is_private_class",
    "is_storage",
    "may_store",
]

VERIFICATION = "1.2.840.10008.1.1"
"""Verification SOP Class (C-ECHO). Standard: PS3.4 A.4."""

STORAGE_COMMITMENT_PUSH_MODEL = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class. Standard: PS3.4 J.3."""

STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP instance. Standard: PS3.4 J.3."""

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
"""Patient Root Query/Retrieve, C-FIND. Standard: PS3.4 C.6.1."""
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
"""Patient Root Query/Retrieve, C-MOVE."""
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
"""Patient Root Query/Retrieve, C-GET."""

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve, C-FIND. Standard: PS3.4 C.6.2."""
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
"""Study Root Query/Retrieve, C-MOVE."""
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
"""Study Root Query/Retrieve, C-GET."""

PATIENT_STUDY_ONLY_FIND = "1.2.840.10008.5.1.4.1.2.3.1"
"""Patient/Study Only Query/Retrieve, C-FIND; retired, still asked for."""
PATIENT_STUDY_ONLY_MOVE = "1.2.840.10008.5.1.4.1.2.3.2"
"""Patient/Study Only Query/Retrieve, C-MOVE; retired."""
PATIENT_STUDY_ONLY_GET = "1.2.840.10008.5.1.4.1.2.3.3"
"""Patient/Study Only Query/Retrieve, C-GET; retired."""

COMPOSITE_INSTANCE_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.4.2"
"""Composite Instance Root Retrieve, C-MOVE. Standard: PS3.4 Annex Y."""
COMPOSITE_INSTANCE_ROOT_GET = "1.2.840.10008.5.1.4.1.2.4.3"
"""Composite Instance Root Retrieve, C-GET."""
COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET = "1.2.840.10008.5.1.4.1.2.5.3"
"""Composite Instance Retrieve Without Bulk Data, C-GET. Standard: PS3.4 Annex Z."""

MODALITY_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
"""Modality Worklist, C-FIND. Standard: PS3.4 K.6."""

QUERY_RETRIEVE_SOP_CLASSES: frozenset[str] = frozenset(
    {
        PATIENT_ROOT_FIND,
        PATIENT_ROOT_MOVE,
        PATIENT_ROOT_GET,
        STUDY_ROOT_FIND,
        STUDY_ROOT_MOVE,
        STUDY_ROOT_GET,
        PATIENT_STUDY_ONLY_FIND,
        PATIENT_STUDY_ONLY_MOVE,
        PATIENT_STUDY_ONLY_GET,
        COMPOSITE_INSTANCE_ROOT_MOVE,
        COMPOSITE_INSTANCE_ROOT_GET,
        COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
    }
)
"""The Query/Retrieve service class, without worklist and the models of non-patient objects."""

NON_PATIENT_STORAGE_SOP_CLASSES: frozenset[str] = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.200.3",  # Protocol Approval
        "1.2.840.10008.5.1.4.1.1.200.7",  # XA Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group
    }
)
"""Storage of objects that belong to no patient and no study. Standard: PS3.4 GG.3."""

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ARC = "1.2.840.10008.5.1.4.1.1."

# Storage by the word in their names, but nothing that arrives by C-STORE into the Storage service:
# the DICOMDIR exists on media only, commitment is an N-ACTION.
_STORAGE_IN_NAME_ONLY = frozenset(
    {
        "1.2.840.10008.1.3.10",
        "1.2.840.10008.1.20.1",
        "1.2.840.10008.1.20.2",
    }
)

# Two retired classes in the storage arc whose names PS3.6 withdrew together with the class
# (a vendor's tomography file and a zero-padded MR image): old archives still hold them.
_NAMELESS = frozenset({"1.2.840.10008.5.1.4.1.1.12.77", "1.2.840.10008.5.1.4.1.1.40"})

# Younger than the dictionary of the oldest pydicom that we accept.
_YOUNGER = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.9.100.1",  # Waveform Presentation State
        "1.2.840.10008.5.1.4.1.1.9.100.2",  # Waveform Acquisition Presentation State
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
        "1.2.840.10008.5.1.4.1.1.66.8",  # Height Map Segmentation
    }
)

# In these two parts of the storage arc Find, Move, Get, Creation and Query classes are neighbours
# of storage classes, most of them for non-patient objects: an unknown number there may be anything.
_MIXED_ARCS = (_STORAGE_ARC + "200.", _STORAGE_ARC + "201.")

# A copy: other libraries in the process add to pydicom's dictionary, and a class that became known
# after our tables were built must not fall between them.
_KNOWN = frozenset(uid_dictionary())


def _storage_classes() -> frozenset[str]:
    by_name = {
        uid
        for uid, (name, uid_type, *_) in uid_dictionary().items()
        if uid_type == "SOP Class" and "Storage" in name
    }
    not_patient = _STORAGE_IN_NAME_ONLY | NON_PATIENT_STORAGE_SOP_CLASSES
    return frozenset((by_name | _NAMELESS | _YOUNGER) - not_patient)


STORAGE_SOP_CLASSES: frozenset[str] = _storage_classes()
"""Every storage SOP class of patient objects, current and retired, DICOS and DICONDE included.

The retired Hardcopy Image and Stored Print Storage classes are members although their UIDs lie in
the arc of Print: they came by C-STORE and belong to a patient. Print Management itself, MPPS,
commitment, Query/Retrieve, worklists, media, UPS and non-patient objects are not.

Standard: PS3.4 B.5; PS3.6 Table A-1.
"""


def is_private_class(uid: str) -> bool:
    """Whether the class was defined by a vendor: its UID is not under the DICOM root.

    A heuristic: nothing in a private UID tells what service it names.

    Standard: PS3.5 9, Annex C.
    """
    return bool(uid) and not f"{uid}.".startswith(_DICOM_ROOT)


def is_storage(uid: str) -> bool:
    """Whether the UID is a storage SOP class known by name; private and unknown ones are not."""
    return uid in STORAGE_SOP_CLASSES


def may_store(uid: str) -> bool:
    """Whether an acceptor that takes everything storable should accept this abstract syntax.

    True for the known storage classes, those of objects without patient included, for private
    classes, and for standard classes too young to be known here when their UID lies where only
    storage classes are assigned: the arc 1.2.840.10008.5.1.4.1.1 outside its parts 200 and 201.
    Unknown numbers beside the RT delivery instructions (5.1.4.34) are refused: machine
    verification and UPS live there too.
    False for every other standard class.

    Standard: PS3.4 B.5, GG.3; PS3.6 Table A-1.
    """
    if uid in STORAGE_SOP_CLASSES or uid in NON_PATIENT_STORAGE_SOP_CLASSES:
        return True
    if is_private_class(uid):
        return True
    if not uid.startswith(_STORAGE_ARC) or uid.startswith(_MIXED_ARCS):
        return False
    return uid not in _KNOWN and len(uid) > len(_STORAGE_ARC)
