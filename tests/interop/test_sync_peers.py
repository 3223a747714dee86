"""The blocking API in both roles with Orthanc: store, query, retrieve, commitment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from tests.peers import Modality, Server, free_port, missing, orthanc

from hilum.sync import AE, StorageCommitmentPresentationContexts, build_context, build_role, evt
from hilum.sync.association import Association
from hilum.sync.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(missing("Orthanc") is not None, reason=f"needs {missing('Orthanc')}"),
]

FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove
FILES = [get_testdata_file(name) for name in ("CT_small.dcm", "MR_small.dcm")]
CLASSES = [dcmread(path, stop_before_pixels=True).SOPClassUID for path in FILES]


class Site:
    """Orthanc, and an AE of ours that it knows as ``HILUM``."""

    def __init__(self, server: Server, ae: AE, got: list[Dataset], reports: list[Dataset]) -> None:
        self.server, self.ae, self.got, self.reports = server, ae, got, reports
        self.reported = threading.Event()

    def associate(self, **arguments: object) -> Association:
        assoc = self.ae.associate("127.0.0.1", self.server.port, ae_title="ORTHANC", **arguments)
        assert assoc.is_established
        return assoc


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    port = free_port()
    ae = AE("HILUM")
    for uid in (Verification, FIND, GET, MOVE, *CLASSES):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    ae.add_requested_context(StorageCommitmentPushModel)
    (commitment,) = StorageCommitmentPresentationContexts
    ae.add_supported_context(commitment.abstract_syntax, None, scu_role=False, scp_role=True)
    with orthanc(tmp_path / "orthanc", modalities={"HILUM": Modality("HILUM", port)}) as server:
        made = Site(server, ae, [], [])

        def store(event):
            made.got.append(event.dataset)
            return 0x0000

        def report(event):
            made.reports.append((event.event_type, event.event_information))
            made.reported.set()
            return 0x0000, None

        handlers = [(evt.EVT_C_STORE, store), (evt.EVT_N_EVENT_REPORT, report)]
        ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        assoc = made.associate()
        for path in FILES:
            assert assoc.send_c_store(path).Status == 0x0000
        assoc.release()
        yield made
        ae.shutdown()


def query(**keys: str) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = "STUDY"
    for name, value in keys.items():
        setattr(made, name, value)
    return made


def studies() -> list[str]:
    return [dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in FILES]


def instances(datasets: list[Dataset]) -> list[str]:
    return sorted(str(dataset.SOPInstanceUID) for dataset in datasets)


def test_query_and_retrieve(site):
    assoc = site.associate()
    assert assoc.send_c_echo().Status == 0x0000
    pairs = list(assoc.send_c_find(query(StudyInstanceUID="", PatientName=""), FIND))
    assert [status.Status for status, _ in pairs] == [0xFF00, 0xFF00, 0x0000]
    assert {found.StudyInstanceUID for _, found in pairs[:-1]} == set(studies())
    for study in studies():
        pairs = list(assoc.send_c_move(query(StudyInstanceUID=study), "HILUM", MOVE))
        assert pairs[-1][0].Status == 0x0000
    assoc.release()
    assert instances(site.got) == instances([dcmread(path) for path in FILES])


def test_get(site):
    here: list[Dataset] = []

    def store(event):
        here.append(event.dataset)
        return 0x0000

    roles = [build_role(uid, scp_role=True) for uid in CLASSES]
    contexts = [build_context(uid) for uid in (GET, *CLASSES)]
    assoc = site.associate(
        contexts=contexts, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    for study in studies():
        pairs = list(assoc.send_c_get(query(StudyInstanceUID=study), GET))
        assert pairs[-1][0].Status == 0x0000
        assert pairs[-1][0].NumberOfCompletedSuboperations == 1
    assoc.release()
    assert instances(here) == instances([dcmread(path) for path in FILES])
    assert all(dataset.PixelData for dataset in here)


def test_it_stores_to_us(site):
    names = site.server.rest("/instances")
    site.server.rest("/modalities/HILUM/store", names)
    assert instances(site.got) == instances([dcmread(path) for path in FILES])


def test_commitment(site):
    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = []
    for path in FILES:
        known = dcmread(path, stop_before_pixels=True)
        item = Dataset()
        item.ReferencedSOPClassUID = known.SOPClassUID
        item.ReferencedSOPInstanceUID = known.SOPInstanceUID
        request.ReferencedSOPSequence.append(item)
    assoc = site.associate()
    status, reply = assoc.send_n_action(
        request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    assert status.Status == 0x0000 and not reply
    assoc.release()
    assert site.reported.wait(30), "no report came"
    ((event_type, information),) = site.reports
    assert event_type == 1 and information.TransactionUID == request.TransactionUID
    assert len(information.ReferencedSOPSequence) == 2
