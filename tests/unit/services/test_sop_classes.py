from __future__ import annotations

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import sop_class as theirs

from hilum.services import sop_classes
from hilum.services.sop_classes import (
    NON_PATIENT_STORAGE_SOP_CLASSES,
    QUERY_RETRIEVE_SOP_CLASSES,
    STORAGE_SOP_CLASSES,
    is_private_class,
    is_storage,
    may_store,
)

ARC = "1.2.840.10008.5.1.4.1.1."

STORAGE = {
    "CT": ARC + "2",
    "enhanced MR": ARC + "4.1",
    "ultrasound, retired": ARC + "6",
    "ultrasound multi-frame, retired": ARC + "3",
    "nuclear medicine, retired": ARC + "5",
    "secondary capture": ARC + "7",
    "standalone curve, retired": ARC + "9",
    "12-lead ECG": ARC + "9.1.1",
    "routine scalp EEG": ARC + "9.7.1",
    "grayscale presentation state": ARC + "11.1",
    "raw data": ARC + "66",
    "segmentation": ARC + "66.4",
    "label map segmentation": ARC + "66.7",
    "whole slide microscopy": ARC + "77.1.6",
    "text SR, trial": ARC + "88.1",
    "X-ray radiation dose SR": ARC + "88.67",
    "encapsulated PDF": ARC + "104.1",
    "encapsulated MTL": ARC + "104.5",
    "CT performed procedure protocol": ARC + "200.2",
    "XA performed procedure protocol": ARC + "200.8",
    "RT plan": ARC + "481.5",
    "DICOS CT": ARC + "501.1",
    "DICONDE eddy current": ARC + "601.1",
    "RT beams delivery instruction": "1.2.840.10008.5.1.4.34.7",
    "RT beams delivery instruction, trial": "1.2.840.10008.5.1.4.34.1",
    "RT brachy delivery instruction": "1.2.840.10008.5.1.4.34.10",
    "hardcopy grayscale, retired": "1.2.840.10008.5.1.1.29",
    "hardcopy colour, retired": "1.2.840.10008.5.1.1.30",
    "stored print, retired": "1.2.840.10008.5.1.1.27",
    "nameless, retired": ARC + "12.77",
}

NOT_STORAGE = {
    "verification": "1.2.840.10008.1.1",
    "DICOMDIR": "1.2.840.10008.1.3.10",
    "storage commitment push": "1.2.840.10008.1.20.1",
    "storage commitment pull": "1.2.840.10008.1.20.2",
    "storage commitment instance": "1.2.840.10008.1.20.1.1",
    "MPPS": "1.2.840.10008.3.1.2.3.3",
    "study root find": "1.2.840.10008.5.1.4.1.2.2.1",
    "instance retrieve without bulk data": "1.2.840.10008.5.1.4.1.2.5.3",
    "modality worklist": "1.2.840.10008.5.1.4.31",
    "basic film session": "1.2.840.10008.5.1.1.1",
    "grayscale print meta": "1.2.840.10008.5.1.1.9",
    "media creation": "1.2.840.10008.5.1.1.33",
    "UPS push": "1.2.840.10008.5.1.4.34.6.1",
    "RT machine verification": "1.2.840.10008.5.1.4.34.8",
    "protocol approval find": ARC + "200.4",
    "inventory find": ARC + "201.2",
    "storage management instance": ARC + "201.1.1",
    "repository query": ARC + "201.6",
    "a transfer syntax": "1.2.840.10008.1.2.1",
    "real-time video": "1.2.840.10008.10.1",
    "the DICOM root": "1.2.840.10008",
    "the storage arc": ARC.rstrip("."),
    "the storage arc with its dot": ARC,
    "nothing": "",
}


def test_storage_classes() -> None:
    for name, uid in STORAGE.items():
        assert (is_storage(uid), may_store(uid)) == (True, True), name


def test_what_is_no_storage_class() -> None:
    for name, uid in NOT_STORAGE.items():
        assert (is_storage(uid), may_store(uid)) == (False, False), name


def test_objects_of_no_patient_may_be_stored_too() -> None:
    for uid in NON_PATIENT_STORAGE_SOP_CLASSES:
        assert (is_storage(uid), may_store(uid)) == (False, True), uid


@pytest.mark.parametrize(
    "uid",
    [
        ARC + "999.1",
        ARC + "2.77",
        ARC + "66.99",
        ARC + "88.199",
        ARC + "2000.1",
    ],
)
def test_a_class_younger_than_the_dictionary_is_taken_in_the_storage_arc(uid: str) -> None:
    assert not is_storage(uid)
    assert may_store(uid)


@pytest.mark.parametrize(
    "uid",
    [
        ARC + "200.99",
        ARC + "201.99",
        "1.2.840.10008.5.1.4.34.99",
        "1.2.840.10008.5.1.4.1.2.99",
        "1.2.840.10008.5.1.4.1.10.1",
        "1.2.840.10008.5.1.1.99",
        "1.2.840.10008.3.1.2.3.99",
        "1.2.840.10008.99",
    ],
)
def test_an_unknown_standard_class_elsewhere_is_refused(uid: str) -> None:
    assert not may_store(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "1.3.12.2.1107.5.9.1",  # a non-image object of Siemens
        "1.2.840.113619.4.27",  # a private class of GE
        "1.2.840.100080.1",  # looks alike, is not under the root
        "01.2.840.10008.5.1.4.1.1.2",  # malformed, and not to be rewritten
        "vendor.class",
    ],
)
def test_private_classes_are_taken(uid: str) -> None:
    assert is_private_class(uid)
    assert may_store(uid)
    assert not is_storage(uid)


def test_a_standard_uid_and_nothing_are_not_private() -> None:
    assert not is_private_class(ARC + "2")
    assert not is_private_class("1.2.840.10008")
    assert not is_private_class("")


def test_a_class_that_another_library_registers_later_is_still_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = ("Something Storage", "SOP Class", "", "", "SomethingStorage")
    monkeypatch.setitem(UID_dictionary, ARC + "999.2", entry)
    assert may_store(ARC + "999.2")


def test_every_sop_class_of_the_dictionary_is_sorted_as_its_name_says() -> None:
    """No class that queries, moves, prints or manages got in, none that stores was left out."""
    services = ("FIND", "MOVE", "GET", "Query", "Creation", "Management", "Verification", "Notif")
    for uid, (name, uid_type, *_) in UID_dictionary.items():
        if uid_type == "SOP Class" and any(word in name for word in services):
            assert not may_store(uid), name
        if uid_type == "SOP Class" and name.endswith(("Image Storage", "SR Storage", "- Trial")):
            assert may_store(uid) == ("Storage" in name), name
        if uid_type != "SOP Class":
            assert not may_store(uid), name


def test_all_that_pynetdicom_calls_storage_is_storage_or_non_patient() -> None:
    known = set(theirs._STORAGE_CLASSES.values())
    assert known - STORAGE_SOP_CLASSES - NON_PATIENT_STORAGE_SOP_CLASSES == set()


def test_the_non_patient_set_is_pynetdicoms() -> None:
    assert set(theirs._NON_PATIENT_OBJECT_CLASSES.values()) == NON_PATIENT_STORAGE_SOP_CLASSES
    assert NON_PATIENT_STORAGE_SOP_CLASSES.isdisjoint(STORAGE_SOP_CLASSES)


def test_the_query_retrieve_set_is_pynetdicoms_and_the_retired_model() -> None:
    retired = {uid for uid in QUERY_RETRIEVE_SOP_CLASSES if UID_dictionary[uid][3] == "Retired"}
    assert {UID_dictionary[uid][4][:16] for uid in retired} == {"PatientStudyOnly"}
    assert (
        set(theirs._QR_CLASSES.values())
        - {
            theirs.RepositoryQuery  # type: ignore[attr-defined]
        }
        == QUERY_RETRIEVE_SOP_CLASSES
    )


CONSTANTS = {
    "VERIFICATION": "Verification",
    "STORAGE_COMMITMENT_PUSH_MODEL": "StorageCommitmentPushModel",
    "STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE": "StorageCommitmentPushModelInstance",
    "PATIENT_ROOT_FIND": "PatientRootQueryRetrieveInformationModelFind",
    "PATIENT_ROOT_MOVE": "PatientRootQueryRetrieveInformationModelMove",
    "PATIENT_ROOT_GET": "PatientRootQueryRetrieveInformationModelGet",
    "STUDY_ROOT_FIND": "StudyRootQueryRetrieveInformationModelFind",
    "STUDY_ROOT_MOVE": "StudyRootQueryRetrieveInformationModelMove",
    "STUDY_ROOT_GET": "StudyRootQueryRetrieveInformationModelGet",
    "PATIENT_STUDY_ONLY_FIND": "PatientStudyOnlyQueryRetrieveInformationModelFind",
    "PATIENT_STUDY_ONLY_MOVE": "PatientStudyOnlyQueryRetrieveInformationModelMove",
    "PATIENT_STUDY_ONLY_GET": "PatientStudyOnlyQueryRetrieveInformationModelGet",
    "COMPOSITE_INSTANCE_ROOT_MOVE": "CompositeInstanceRootRetrieveMove",
    "COMPOSITE_INSTANCE_ROOT_GET": "CompositeInstanceRootRetrieveGet",
    "COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET": "CompositeInstanceRetrieveWithoutBulkDataGet",
    "MODALITY_WORKLIST_FIND": "ModalityWorklistInformationModelFind",
}


def test_constants() -> None:
    for name, keyword in CONSTANTS.items():
        assert UID_dictionary[getattr(sop_classes, name)][4] == keyword
