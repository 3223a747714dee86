"""C-MOVE over several associations at once: everything arrives, counters are right, it is cancelled.

``retrieve.parallel`` of the gateway, with receivers that take many associations, one after another,
or fewer than are wanted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from tests import peers, samples
from tests.e2e.gateway import Gateway, prepare
from tests.interop.test_query_retrieve import configure, push
from tests.interop.test_tools import scp
from tests.tap import Tap

from hilum.gateway.store.entries import Peer

pytestmark = pytest.mark.interop

CT = next(path for path in samples.paths() if path.name == "CT_small.dcm")
STUDY, COUNT, PARALLEL = "1.2.826.0.1.3680043.8.498.78", 30, 3
ACSE = 120.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    prepare(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Images of one study, by SOP Instance UID."""
    (tmp_path / "study").mkdir()
    ds, found = pydicom.dcmread(CT), {}
    ds.StudyInstanceUID = STUDY
    for number in range(COUNT):
        uid = f"{STUDY}.{number}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
        found[uid] = tmp_path / "study" / f"{number}.dcm"
        ds.save_as(found[uid])
    return found


@contextmanager
def serving(data: Path, port: int, files: dict[str, Path]) -> Iterator[Gateway]:
    """A gateway with the images, and a destination."""
    configure(data, peers_=[Peer("to", "STORESCP", "127.0.0.1", port)])
    settings = {"HILUM_RETRIEVE_PARALLEL": str(PARALLEL), "HILUM_TIMEOUTS_ASSOCIATE": str(ACSE)}
    with Gateway(data, settings=settings) as gateway:
        push(gateway, list(files.values()))
        yield gateway


def move(
    gateway: Gateway, *, cancel: bool = False, abort: bool = False
) -> list[tuple[Dataset, Dataset | None]]:
    """The responses that pynetdicom gets; it cancels at the first one if that is wanted."""
    from pynetdicom import AE
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as Move

    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", STUDY
    ae = AE("WS")
    ae.add_requested_context(Move)
    association = ae.associate("127.0.0.1", gateway.port, ae_title="RAIVEN")
    assert association.is_established
    found = []
    for status, identifier in association.send_c_move(asked, "STORESCP", Move, msg_id=7):
        if cancel and not found:
            association.send_c_cancel(7, query_model=Move)
        if abort:
            association.abort()
            return found
        found.append((status, identifier))
    association.release()
    return found


def check_counters(responses: list[tuple[Dataset, Any]]) -> None:
    """Each sums up to all of them, and none goes back."""
    before = 0
    for status, _ in responses:
        done = (
            status.NumberOfCompletedSuboperations
            + status.NumberOfFailedSuboperations
            + status.NumberOfWarningSuboperations
        )
        assert done + status.get("NumberOfRemainingSuboperations", 0) == COUNT
        assert done >= before
        before = done


@pytest.mark.parametrize(
    "receiver", ["storescp --fork --sleep-after 1", "storescp", "pynetdicom", "hilum"]
)
def test_everything_arrives_once(
    data: Path,
    dcmtk: None,
    pynetdicom_apps: None,
    files: dict[str, Path],
    tmp_path: Path,
    receiver: str,
) -> None:
    folder = tmp_path / "got"
    with (
        started(receiver, folder) as port,
        Tap(port) as tap,
        serving(data, tap.port, files) as gateway,
    ):
        began = time.monotonic()
        responses = move(gateway)
        took = time.monotonic() - began
        conversations = tap.wait_ended(len(tap.conversations))
    check_counters(responses)
    last, _ = responses[-1]
    assert (last.Status, last.NumberOfCompletedSuboperations) == (0, COUNT)
    arrived = [path for path in folder.rglob("*") if path.is_file()]
    assert len(arrived) == COUNT
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in arrived} == files.keys()
    used = [each for each in conversations if each.requests()]
    assert len(used) == PARALLEL if "sleep" in receiver else 1 <= len(used) <= PARALLEL
    assert took < ACSE / 2, "nobody waits for an association that is not needed any more"


@contextmanager
def started(receiver: str, folder: Path) -> Iterator[int]:
    if receiver == "hilum":
        with scp(folder) as ours:
            yield ours.port
        return
    program, *options = receiver.split()
    run = peers.storescp if program == "storescp" else peers.pynetdicom_storescp
    with run(folder, *options) as server:
        yield server.port


def test_it_is_cancelled(
    data: Path, dcmtk: None, pynetdicom_apps: None, files: dict[str, Path], tmp_path: Path
) -> None:
    slow = ("--fork", "--sleep-after", "1")
    with peers.storescp(tmp_path / "got", *slow) as receiver, Tap(receiver.port) as tap:
        with serving(data, tap.port, files) as gateway:
            responses = move(gateway, cancel=True)
            tap.wait_ended(len(tap.conversations))  # the associations are over, too
        arrived = receiver.files()
    check_counters(responses)
    last, _ = responses[-1]
    assert last.Status == 0xFE00
    assert 0 < last.NumberOfCompletedSuboperations < COUNT
    assert last.NumberOfRemainingSuboperations == COUNT - last.NumberOfCompletedSuboperations
    assert len(arrived) == last.NumberOfCompletedSuboperations


def test_a_receiver_that_is_gone_fails_all(
    data: Path, pynetdicom_apps: None, files: dict[str, Path]
) -> None:
    with serving(data, peers.free_port(), files) as gateway:
        responses = move(gateway)
    check_counters(responses)
    last, identifier = responses[-1]
    assert last.Status == 0xA702
    assert identifier is not None
    assert set(identifier.FailedSOPInstanceUIDList) == files.keys()


def test_the_requestor_is_gone(
    data: Path, dcmtk: None, pynetdicom_apps: None, files: dict[str, Path], tmp_path: Path
) -> None:
    """Its association is aborted while associations to the destination are open."""
    slow = ("--fork", "--sleep-after", "1")
    with (
        peers.storescp(tmp_path / "got", *slow) as receiver,
        Tap(receiver.port) as tap,
        serving(data, tap.port, files) as gateway,
    ):
        responses = move(gateway, abort=True)
        assert len(responses) < COUNT
        tap.wait_ended(len(tap.conversations))
