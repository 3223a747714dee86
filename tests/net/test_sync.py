"""The blocking API against itself: every service in both roles, and which thread does what."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian
from tests.net.sync_world import (
    BOTH_ROLES,
    CT,
    FIND,
    GET,
    MOVE,
    MPPS,
    Provider,
    associate,
    identifier,
    until,
)

from hilum.sync import evt


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.ae.shutdown()


def test_echo_needs_no_handler_and_no_thread(provider):
    assoc = associate(provider.start())
    assert assoc.send_c_echo(7).Status == 0x0000
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if "Thread@" in name]
    assoc.release()
    assert assoc.is_released and not assoc.is_established and not assoc.is_alive()


def test_a_data_set_and_a_file_are_stored(provider):
    got = []

    def store(event):
        got.append((event.message_id, event.dataset, event.file_meta, event.encoded_dataset(False)))
        return 0x0000

    assoc = associate(provider.start((evt.EVT_C_STORE, store)))
    dataset = dcmread(CT)
    assert assoc.send_c_store(dataset, msg_id=5).Status == 0x0000
    assert assoc.send_c_store(CT, msg_id=6).Status == 0x0000
    assoc.release()
    assert [each[0] for each in got] == [5, 6]
    assert all(each[1] == dataset for each in got)
    # The acceptor's order decides, and Implicit VR comes first in it: both were converted.
    assert {each[2].TransferSyntaxUID for each in got} == {ImplicitVRLittleEndian}


def test_handlers_of_an_association_run_in_order_in_one_thread(provider):
    ran = []

    def note(event, what):
        ran.append((what, threading.current_thread().name))

    def store(event):
        note(event, "store")
        return 0x0000

    told = ["CONN_OPEN", "REQUESTED", "ACCEPTED", "ESTABLISHED", "RELEASED", "CONN_CLOSE"]
    handlers: list[Any] = [(getattr(evt, f"EVT_{name}"), note, [name]) for name in told]
    assoc = associate(provider.start(*handlers, (evt.EVT_C_STORE, store)))
    assoc.send_c_store(CT)
    assoc.send_c_store(CT)
    assoc.release()
    provider.ae.shutdown()
    until(lambda: len(ran) == 8, "handlers are missing")
    assert [what for what, _ in ran] == [*told[:4], "store", "store", *told[4:]]
    assert len({thread for _, thread in ran}) == 1
    assert ran[0][1].startswith("AcceptorThread@")


def test_find_yields_responses_in_order(provider):
    def find(event):
        assert event.identifier.PatientName == "*"
        for number in range(500):
            yield 0xFF00, identifier(PatientName=f"N^{number}")

    assoc = associate(provider.start((evt.EVT_C_FIND, find)))
    pairs = list(assoc.send_c_find(identifier(PatientName="*"), FIND))
    assoc.release()
    assert [str(found.PatientName) for _, found in pairs[:-1]] == [f"N^{n}" for n in range(500)]
    assert (pairs[-1][0].Status, pairs[-1][1]) == (0x0000, None)


def test_sub_operations_of_a_get_run_in_the_iterating_thread(provider):
    threads = []

    def get(event):
        yield 3
        for _ in range(3):
            yield 0xFF00, dcmread(CT)

    def store(event):
        threads.append(threading.current_thread())
        return 0x0000 if len(threads) != 2 else 0xA700

    port = provider.start((evt.EVT_C_GET, get))
    assoc = associate(port, ext_neg=BOTH_ROLES, evt_handlers=[(evt.EVT_C_STORE, store)])
    pairs = list(assoc.send_c_get(identifier(), GET))
    assoc.release()
    assert threads == [threading.current_thread()] * 3
    final, failed = pairs[-1]
    assert final.Status == 0xB000
    assert final.NumberOfCompletedSuboperations == 2
    assert final.NumberOfFailedSuboperations == 1
    assert failed.FailedSOPInstanceUIDList == dcmread(CT).SOPInstanceUID


def test_a_move_may_go_to_its_own_server(provider):
    got = []

    def move(event):
        yield "127.0.0.1", port
        yield 2
        for _ in range(2):
            yield 0xFF00, dcmread(CT)

    def store(event):
        request = event.request
        got.append((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        return 0x0000

    port = provider.start((evt.EVT_C_MOVE, move), (evt.EVT_C_STORE, store))
    assoc = associate(port)
    pairs = list(assoc.send_c_move(identifier(), "PROVIDER", MOVE, msg_id=12))
    assoc.release()
    assert [status.Status for status, _ in pairs] == [0xFF00, 0xFF00, 0x0000]
    assert got == [("USER", 12)] * 2


def test_n_services_give_and_take_data_sets(provider):
    seen = {}

    def create(event):
        seen["create"] = event.attribute_list
        made = Dataset()
        made.AffectedSOPInstanceUID = "1.2.3"
        made.PerformedStationAETitle = "X"
        return 0x0000, made

    def change(event):
        seen["set"] = event.modification_list
        return 0x0107, None

    def read(event):
        seen["get"] = event.attribute_identifiers
        return 0x0000, identifier(PatientID="1")

    def report(event):
        seen["report"] = (event.event_type, event.event_information)
        return 0x0000, None

    port = provider.start(
        (evt.EVT_N_CREATE, create),
        (evt.EVT_N_SET, change),
        (evt.EVT_N_GET, read),
        (evt.EVT_N_EVENT_REPORT, report),
    )
    assoc = associate(port)
    mpps = MPPS
    status, made = assoc.send_n_create(identifier(PatientID="7"), mpps)
    assert (status.Status, status.AffectedSOPInstanceUID) == (0x0000, "1.2.3")
    assert made.PerformedStationAETitle == "X" and "AffectedSOPInstanceUID" not in made
    assert seen["create"].PatientID == "7"
    status, _ = assoc.send_n_set(identifier(PatientID="8"), mpps, "1.2.3")
    assert status.Status == 0x0107
    status, found = assoc.send_n_get([0x00100020], mpps, "1.2.3")
    assert found.PatientID == "1" and seen["get"] == [0x00100020]
    status, _ = assoc.send_n_event_report(identifier(PatientID="9"), 3, mpps, "1.2.3")
    assert status.Status == 0x0000 and seen["report"][0] == 3
    status, reply = assoc.send_n_action(None, 1, mpps, "1.2.3")
    assert (status.Status, reply) == (0x0110, None), "no handler is bound"
    assert assoc.send_n_delete(mpps, "1.2.3").Status == 0x0110
    assoc.release()


@pytest.mark.parametrize("more", [False, True])
def test_a_handler_goes_on_behind_its_last_data_set(provider, more):
    ended = []

    def get(event):
        yield 1
        yield 0xFF00, dcmread(CT)
        ended.append("cleared up")
        if more:
            yield 0xFF00, dcmread(CT)

    stored = [(evt.EVT_C_STORE, lambda event: 0x0000)]
    assoc = associate(provider.start((evt.EVT_C_GET, get)), ext_neg=BOTH_ROLES, evt_handlers=stored)
    pairs = list(assoc.send_c_get(identifier(), GET))
    assoc.release()
    assert [status.Status for status, _ in pairs] == [0xFF00, 0x0000]
    assert pairs[-1][0].NumberOfCompletedSuboperations == 1
    assert ended == ["cleared up"]


def test_a_handler_that_aborts_behind_its_last_data_set_has_no_final_response(provider):
    def get(event):
        yield 1
        yield 0xFF00, dcmread(CT)
        event.assoc.abort()

    stored = [(evt.EVT_C_STORE, lambda event: 0x0000)]
    assoc = associate(provider.start((evt.EVT_C_GET, get)), ext_neg=BOTH_ROLES, evt_handlers=stored)
    (first, _), (last, nothing) = assoc.send_c_get(identifier(), GET)
    assert first.Status == 0xFF00 and len(last) == 0 and nothing is None
    assert assoc.is_aborted
