"""Scripts of the first generation, against real peers and the present interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from tests.net.sync_world import until

from hilum.sync import build_role
from hilum.sync.legacy import (
    AE,
    QueryRetrieveSOPClassList,
    StorageSOPClassList,
    VerificationSOPClass,
)

CT = get_testdata_file("CT_small.dcm")
SERVED = [VerificationSOPClass, *StorageSOPClassList, *QueryRetrieveSOPClassList]


@pytest.fixture
def provider() -> Iterator[AE]:
    made = AE(ae_title="OLD", port=0, scp_sop_class=SERVED, bind_addr="127.0.0.1")
    yield made
    made.stop()


def user(**settings: object) -> AE:
    wanted = [VerificationSOPClass, *QueryRetrieveSOPClassList, dcmread(CT).SOPClassUID]
    return AE(ae_title="SCRIPT", scu_sop_class=wanted)


def query() -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = "PATIENT"
    made.PatientID = "*"
    return made


def test_echo_and_store(provider):
    stored, echoed = [], []
    provider.on_c_echo = lambda: echoed.append(1)

    def on_c_store(dataset):
        stored.append(dataset)
        return 0x0000

    provider.on_c_store = on_c_store
    provider.start(block=False)
    assoc = user().associate("127.0.0.1", provider.port)
    assert assoc.send_c_echo().Status == 0x0000 and echoed == [1]
    assert assoc.send_c_store(dcmread(CT)).Status == 0x0000
    assoc.release()
    assert stored[0].PatientName == dcmread(CT).PatientName
    assert stored[0].file_meta.MediaStorageSOPInstanceUID == stored[0].SOPInstanceUID


def test_callbacks_may_take_context_and_info(provider):
    got = []

    def on_c_store(dataset, context, info):
        got.append((context.abstract_syntax, info["requestor"]["ae_title"]))
        return 0xB000

    provider.on_c_store = on_c_store
    provider.start(block=False)
    assoc = user().associate("127.0.0.1", provider.port, ae_title=b"OLD             ")
    assert assoc.send_c_store(CT).Status == 0xB000
    assoc.release()
    assert got == [(dcmread(CT).SOPClassUID, "SCRIPT")]


def test_find_with_a_letter_for_its_model(provider):
    def on_c_find(dataset):
        for number in range(3):
            found = Dataset()
            found.PatientID = f"{dataset.PatientID}{number}"
            yield 0xFF00, found
        yield 0x0000, None

    provider.on_c_find = on_c_find
    provider.start(block=False)
    assoc = user().associate("127.0.0.1", provider.port)
    pairs = list(assoc.send_c_find(query(), query_model="P"))
    assoc.release()
    assert [found.PatientID for _, found in pairs[:-1]] == ["*0", "*1", "*2"]
    assert pairs[-1][0].Status == 0x0000


def test_get(provider):
    got = []

    def on_c_get(dataset):
        yield 2
        for _ in range(2):
            yield 0xFF00, dcmread(CT)

    provider.ae.add_supported_context(dcmread(CT).SOPClassUID, scu_role=True, scp_role=True)
    provider.on_c_get = on_c_get
    provider.start(block=False)
    script = user()
    script.on_c_store = lambda dataset: got.append(dataset) or 0x0000
    role = build_role(dcmread(CT).SOPClassUID, scu_role=True, scp_role=True)
    assoc = script.associate("127.0.0.1", provider.port, ext_neg=[role])
    pairs = list(assoc.send_c_get(query(), "P"))
    assoc.release()
    assert pairs[-1][0].NumberOfCompletedSuboperations == len(got) == 2


@pytest.mark.parametrize("number_first", [False, True])
def test_move_in_either_order(provider, number_first):
    got = []

    def on_c_move(dataset, move_aet):
        assert move_aet == "OLD"
        where = ("127.0.0.1", provider.port)
        yield from ((1, where) if number_first else (where, 1))
        yield 0xFF00, dcmread(CT)

    provider.ae.add_requested_context(dcmread(CT).SOPClassUID)
    provider.on_c_move = on_c_move
    provider.on_c_store = lambda dataset: got.append(dataset) or 0x0000
    provider.start(block=False)
    assoc = user().associate("127.0.0.1", provider.port)
    pairs = list(assoc.send_c_move(query(), "OLD", "P"))
    assoc.release()
    assert pairs[-1][0].Status == 0x0000 and len(got) == 1


def test_start_waits_for_stop_and_callbacks_may_be_methods():
    told = []

    class Script(AE):
        def on_c_store(self, dataset):
            return 0x0000

        def on_association_released(self, assoc):
            told.append(assoc.requestor.ae_title)

    script = Script("OLD", 0, scp_sop_class=[dcmread(CT).SOPClassUID], bind_addr="127.0.0.1")
    serving = threading.Thread(target=script.start, daemon=True)
    serving.start()
    until(lambda: script.port, "it does not listen")
    assoc = user().associate("127.0.0.1", script.port)
    assert assoc.send_c_store(Path(CT)).Status == 0x0000
    assoc.release()
    until(lambda: told == ["SCRIPT"], "nobody was told")
    assert serving.is_alive()
    script.stop()
    serving.join(10)
    assert not serving.is_alive()


def test_settings_are_those_of_the_entity_behind_it():
    script = AE("OLD", scu_sop_class=[VerificationSOPClass])
    script.dimse_timeout = 7
    script.maximum_associations = 3
    assert (script.ae.dimse_timeout, script.maximum_associations) == (7, 3)
    assert len(script.requested_contexts) == 1
