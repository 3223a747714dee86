"""Commitment with Orthanc and pynetdicom, as clients of ours and as providers to us."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel
from tests import peers
from tests.e2e.gateway import HILUM, Gateway, environment, hilum, prepare

pytestmark = pytest.mark.interop

CT = "1.2.840.10008.5.1.4.1.1.2"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
IMPLICIT = "1.2.840.10008.1.2"
WAIT = 30.0


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three CT images."""
    folder = tmp_path / "images"
    folder.mkdir()
    source = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    for n in range(1, 4):
        source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n}"
        source.save_as(folder / f"{n}.dcm")
    return sorted(folder.iterdir())


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    data = tmp_path / "data"
    prepare(data)
    with Gateway(data, settings={"HILUM_COMMITMENT_RETRY_LEAST": "0.3"}) as running:
        yield running


def commit(*words: object, code: int = 0) -> Any:
    """Run ``hilum commit``, with its JSON."""
    done = subprocess.run(
        [*HILUM, "commit", *map(str, words), "--json"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def until(condition: Callable[[], Any], what: object = "", seconds: float = WAIT) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(what)


def command(*words: object) -> None:
    done = subprocess.run(
        [*HILUM, *map(str, words)], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# ── Orthanc ───────────────────────────────────────────────────────────────────────────────────


def test_orthanc_as_client(gateway: Gateway, images: list[Path], tmp_path: Path) -> None:
    known = {"hilum": peers.Modality("HILUM", gateway.port)}
    with peers.orthanc(tmp_path / "orthanc", modalities=known) as orthanc:
        command("peer", "add", "orthanc", f"ORTHANC@127.0.0.1:{orthanc.port}", "--data",
                gateway.data)  # fmt: skip
        peers.storescu("ORTHANC", orthanc.port, images).check()
        ids = orthanc.rest("/instances")
        orthanc.rest("/modalities/hilum/store", ids)
        here = [[CT, f"1.2.3.{n}"] for n in (1, 2, 3)]
        for extra, expected in (([], "Success"), ([[CT, "1.2.404"]], "Failure")):
            asked = {"DicomInstances": here + extra}
            began = orthanc.rest("/modalities/hilum/storage-commitment", asked)

            def ended(path: str = f"/storage-commitment/{began['ID']}") -> Any:
                report = orthanc.rest(path)
                return report if report["Status"] != "Pending" else None

            report = until(ended, orthanc.output())
            assert report["Status"] == expected
            assert len(report["Success"]) == 3
            assert [f["SOPInstanceUID"] for f in report["Failures"]] == [e[1] for e in extra]
            assert [f["FailureReason"] for f in report["Failures"]] == [0x0112 for _ in extra]


@pytest.mark.parametrize("listener", ["alone", "gateway"])
def test_orthanc_as_provider(
    gateway: Gateway, images: list[Path], tmp_path: Path, listener: str
) -> None:
    port = gateway.port if listener == "gateway" else peers.free_port()
    known = {"hilum": peers.Modality("HILUM", port)}
    with peers.orthanc(tmp_path / "orthanc", modalities=known) as orthanc:
        peers.storescu("ORTHANC", orthanc.port, images[:2]).check()
        if listener == "gateway":
            command("peer", "add", "orthanc", f"ORTHANC@127.0.0.1:{orthanc.port}", "--data",
                    gateway.data)  # fmt: skip
            where: list[object] = ["--to", "orthanc", "--data", gateway.data]
        else:
            where = ["--to", f"ORTHANC@127.0.0.1:{orthanc.port}", "--listen", port]
        said = commit(*images[:2], *where, "--wait", 60)
        assert (said["committed"], said["failed"], said["deleted"]) == (2, [], 0)
        said = commit(*images, *where, "--wait", 60, "--delete-committed", code=1)
        assert (said["committed"], said["deleted"]) == (2, 2)
        assert [f["sop_instance_uid"] for f in said["failed"]] == ["1.2.3.3"]
        assert [path.name for path in images if path.exists()] == ["3.dcm"]


def test_images_of_the_archive_are_deleted_once_orthanc_has_them(
    gateway: Gateway, images: list[Path], tmp_path: Path
) -> None:
    peers.storescu("HILUM", gateway.port, images).check()
    known = {"hilum": peers.Modality("HILUM", gateway.port)}
    with peers.orthanc(tmp_path / "orthanc", modalities=known) as orthanc:
        command("peer", "add", "orthanc", f"ORTHANC@127.0.0.1:{orthanc.port}", "--data",
                gateway.data)  # fmt: skip
        peers.storescu("ORTHANC", orthanc.port, images[:2]).check()
        where = ["--to", "orthanc", "--data", gateway.data]
        study = str(pydicom.dcmread(images[0]).StudyInstanceUID)
        said = commit(study, *where, "--wait", 60, "--delete-committed", code=1)
        assert (said["committed"], said["deleted"]) == (2, 2)
    left = hilum("ls", "--level", "instance", "--data", gateway.data)
    assert [row["sop_uid"] for row in left] == ["1.2.3.3"]


# ── pynetdicom as client ──────────────────────────────────────────────────────────────────────


class Client:
    """A client written with pynetdicom; its results in order."""

    def __init__(self) -> None:
        self.ae = AE("PYNET")
        self.ae.add_requested_context(StorageCommitmentPushModel)
        self.results: list[tuple[int, Dataset]] = []
        self.handlers = [(evt.EVT_N_EVENT_REPORT, self._report)]

    def _report(self, event: evt.Event) -> tuple[int, None]:
        self.results.append((event.event_type, event.event_information))
        return 0x0000, None

    def ask(self, port: int, transaction: str, *sops: str, stay: float = 0.0) -> None:
        association = self.ae.associate(
            "127.0.0.1", port, ae_title="HILUM", evt_handlers=self.handlers
        )
        assert association.is_established
        before = len(self.results)
        status, _ = association.send_n_action(
            request(transaction, *sops), 1, StorageCommitmentPushModel, WELL_KNOWN
        )
        assert status.Status == 0x0000
        if stay:
            until(lambda: len(self.results) > before, seconds=stay)
        association.release()

    @contextmanager
    def listening(self, port: int, *, roles: bool) -> Iterator[None]:
        self.ae.add_supported_context(
            StorageCommitmentPushModel, IMPLICIT, **({"scu_role": False, "scp_role": True} if roles else {})
        )  # fmt: skip
        server = self.ae.start_server(("127.0.0.1", port), block=False, evt_handlers=self.handlers)
        try:
            yield
        finally:
            server.shutdown()


def request(transaction: str, *sops: str) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction
    dataset.ReferencedSOPSequence = Sequence([reference(sop) for sop in sops])
    return dataset


def reference(sop: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CT
    item.ReferencedSOPInstanceUID = sop
    if reason is not None:
        item.FailureReason = reason
    return item


def check(result: tuple[int, Dataset], transaction: str, here: int, missing: int) -> None:
    event_type, dataset = result
    assert event_type == (2 if missing else 1)
    assert dataset.TransactionUID == transaction
    assert len(dataset.get("ReferencedSOPSequence", [])) == here
    assert [i.FailureReason for i in dataset.get("FailedSOPSequence", [])] == [0x0112] * missing


def test_pynetdicom_as_client_on_the_same_association(gateway: Gateway, images: list[Path]) -> None:
    peers.storescu("HILUM", gateway.port, images).check()
    client = Client()
    client.ask(gateway.port, "2.25.1", "1.2.3.1", "1.2.3.2", "1.2.3.3", stay=WAIT)
    client.ask(gateway.port, "2.25.2", "1.2.3.1", "1.2.404", stay=WAIT)
    check(client.results[0], "2.25.1", 3, 0)
    check(client.results[1], "2.25.2", 1, 1)

    def listed() -> Any:
        found = hilum("commitments", "--data", gateway.data)
        return found if {each["state"] for each in found} == {"delivered"} else None

    found = until(listed)
    assert [(each["transaction_uid"], each["failed"], each["way"]) for each in found] == [
        ("2.25.2", 1, "same"),
        ("2.25.1", 0, "same"),
    ]
    # What somebody relies on stays until a person means it.
    words = ["rm", "--instance", "1.2.3.1", "--yes", "--data", str(gateway.data)]
    for more, code in (([], 1), (["--even-committed"], 0)):
        done = subprocess.run(
            [*HILUM, *words, *more], env=environment(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize("roles", [True, False])
def test_pynetdicom_as_client_on_a_new_association(
    gateway: Gateway, images: list[Path], roles: bool
) -> None:
    peers.storescu("HILUM", gateway.port, images).check()
    port = peers.free_port()
    command("peer", "add", "pynet", f"PYNET@127.0.0.1:{port}", "--commitment", "new",
            "--data", gateway.data)  # fmt: skip
    client = Client()
    with client.listening(port, roles=roles):
        client.ask(gateway.port, "2.25.1", "1.2.3.1", "1.2.404")
        until(lambda: client.results, gateway.log[-2000:])
    check(client.results[0], "2.25.1", 1, 1)


def test_pynetdicom_as_client_on_its_next_association(gateway: Gateway, images: list[Path]) -> None:
    peers.storescu("HILUM", gateway.port, images).check()
    command("peer", "add", "pynet", "PYNET@127.0.0.1", "--commitment", "next",
            "--data", gateway.data)  # fmt: skip
    client = Client()
    client.ask(gateway.port, "2.25.1", "1.2.3.1")
    time.sleep(0.5)
    assert client.results == []
    client.ask(gateway.port, "2.25.2", "1.2.404", stay=WAIT)
    check(client.results[0], "2.25.1", 1, 0)


# ── pynetdicom as provider ────────────────────────────────────────────────────────────────────


class Provider:
    """An archive written with pynetdicom: it has 1.2.3.1 and 1.2.3.2, and reports by one way."""

    def __init__(self, way: str, report_to: int) -> None:
        self.way = way
        self.report_to = report_to
        self.waiting: list[Dataset] = []
        self.answers: list[int] = []
        self.ae = AE("PROVIDER")
        self.ae.add_supported_context(StorageCommitmentPushModel)
        self.ae.add_requested_context(StorageCommitmentPushModel, IMPLICIT)
        handlers = [(evt.EVT_N_ACTION, self._action), (evt.EVT_ACCEPTED, self._accepted)]
        self.server = self.ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self.server.socket.getsockname()[1]

    def _action(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        has = ("1.2.3.1", "1.2.3.2")
        items = asked.ReferencedSOPSequence
        result = Dataset()
        result.TransactionUID = asked.TransactionUID
        good = [i for i in items if i.ReferencedSOPInstanceUID in has]
        bad = [reference(i.ReferencedSOPInstanceUID, 0x0112) for i in items if i not in good]
        if good:
            result.ReferencedSOPSequence = Sequence(good)
        if bad:
            result.FailedSOPSequence = Sequence(bad)
        self.waiting.append(result)
        if self.way == "same":
            threading.Thread(target=self._report, args=(event.assoc,)).start()
        elif self.way == "new":
            threading.Thread(target=self._call).start()
        return 0x0000, None

    def _accepted(self, event: evt.Event) -> None:
        if self.way == "next" and self.waiting:
            threading.Thread(target=self._report, args=(event.assoc,)).start()

    def _report(self, association: Any) -> None:
        time.sleep(0.2)
        while self.waiting:
            result = self.waiting.pop(0)
            kind = 2 if "FailedSOPSequence" in result else 1
            status, _ = association.send_n_event_report(
                result, kind, StorageCommitmentPushModel, WELL_KNOWN
            )
            self.answers.append(status.get("Status", -1))

    def _call(self) -> None:
        time.sleep(0.5)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = self.ae.associate(
            "127.0.0.1", self.report_to, ae_title="HILUM", ext_neg=[role]
        )
        self._report(association)
        association.release()


@pytest.mark.parametrize("way", ["same", "new", "next"])
@pytest.mark.parametrize("listener", ["alone", "gateway"])
def test_pynetdicom_as_provider(
    gateway: Gateway, images: list[Path], way: str, listener: str
) -> None:
    port = gateway.port if listener == "gateway" else peers.free_port()
    provider = Provider(way, port)
    try:
        where: list[object] = ["--to", f"PROVIDER@127.0.0.1:{provider.port}"]
        where += ["--data", gateway.data] if listener == "gateway" else ["--listen", port]
        said = commit(*images, *where, "--wait", 30, code=1)
        assert said["committed"] == 2
        assert [f["sop_instance_uid"] for f in said["failed"]] == ["1.2.3.3"]
        assert said["failed"][0]["reason"] == "0112H no such object instance"
        assert set(provider.answers) == {0x0000}
        if listener == "gateway":
            (ours,) = hilum("commitments", "--ours", "--data", gateway.data)
            assert (ours["references"], ours["failed"]) == (3, 1)
    finally:
        provider.server.shutdown()
