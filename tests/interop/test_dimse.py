"""C-FIND, C-GET, C-MOVE and the N-services with DCMTK, pynetdicom and Orthanc, in both roles."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from tests import peers
from tests.net.peer import until
from tests.net.sinks import Store

from hilum.net import (
    AE,
    Accept,
    Association,
    Limits,
    Remote,
    Reply,
    Request,
    Response,
    connect,
    serve,
    service_policy,
)
from hilum.net.retrieve import Destination, move_to, retrieve_on
from hilum.net.service import UNCOMPRESSED
from hilum.net.sources import FileSource, Source
from hilum.services.datasets import encode
from hilum.services.part10 import encode_head
from hilum.services.sop_classes import (
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from hilum.wire.command import CommandField
from hilum.wire.items import RoleSelection

pytestmark = pytest.mark.interop

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
STUDY = "1.2.826.0.1.3680043.10.1"
COUNT = 7
QUERY_CLASSES = (
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)


def instance(number: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = f"{STUDY}.1.{number}"
    dataset.StudyDate = "20260101"
    dataset.AccessionNumber = "A1"
    dataset.Modality = "CT"
    dataset.PatientName = "Query^Retrieve"
    dataset.PatientID = "QR1"
    dataset.StudyInstanceUID = STUDY
    dataset.SeriesInstanceUID = f"{STUDY}.1"
    dataset.StudyID = "1"
    dataset.SeriesNumber = "1"
    dataset.InstanceNumber = str(number)
    dataset.Rows = dataset.Columns = 64
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.add_new(0x7FE00010, "OW", bytes([number]) * 64 * 64 * 2)
    return dataset


INSTANCES = {instance(number).SOPInstanceUID: instance(number) for number in range(1, COUNT + 1)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for uid, dataset in INSTANCES.items():
        path = folder / f"{uid}.dcm"
        path.write_bytes(encode_head(CT, uid, EXPLICIT) + encode(dataset, EXPLICIT))
        paths.append(path)
    return paths


def keys(level: str = "STUDY", **values: str) -> Dataset:
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    dataset.StudyInstanceUID = STUDY
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


# ── our provider ────────────────────────────────────────────────────────────────────────────


async def find(request: Request) -> AsyncIterator[Sequence[Reply]]:
    """Everything that is asked for, of every instance at IMAGE level and of the first above."""
    asked = request.dataset()
    level = asked.QueryRetrieveLevel
    page = []
    for dataset in list(INSTANCES.values())[: None if level == "IMAGE" else 1]:
        answer = Dataset()
        answer.QueryRetrieveLevel = level
        answer.RetrieveAETitle = "HILUM"
        for element in asked:
            if element.tag in dataset:
                answer.add(dataset[element.tag])
        page.append(Reply(0xFF00, encode(answer, request.context.transfer_syntax)))
    yield page


class Provider:
    """Serves the images by C-FIND, C-GET and C-MOVE on a loop of its own thread."""

    def __init__(self, images: Sequence[Path]) -> None:
        self.sources: list[Source] = [FileSource.open(path, keep=1 << 20) for path in images]
        self.destinations: dict[str, int] = {}
        self.asked: list[Request] = []
        self.port = 0

    def get(self, request: Request) -> AsyncIterator[Sequence[Reply]]:
        self.asked.append(request)
        return retrieve_on(request, self.sources)

    def move(self, request: Request) -> AsyncIterator[Sequence[Reply]]:
        title = request.command.move_destination
        port = self.destinations.get(title)
        destination = Destination(peers.HOST, port, title, "HILUM") if port else None
        return move_to(request, self.sources, destination)

    def authorise(self, rq: object, peer: object) -> Accept:
        return Accept(
            policy=service_policy(QUERY_CLASSES),
            roles={CT: (True, True)},
            handlers={
                CommandField.C_FIND_RQ: find,
                CommandField.C_GET_RQ: self.get,
                CommandField.C_MOVE_RQ: self.move,
            },
        )


@contextmanager
def on_a_loop(authorise: Any, limits: Limits | None = None) -> Iterator[int]:
    """A server of ours in a thread; gives its port."""
    started: list[Any] = []
    ready = threading.Event()

    async def main() -> None:
        stop = asyncio.Event()
        async with await serve(peers.HOST, 0, authorise, limits=limits) as server:
            started.extend((server.port, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="hilum server")
    thread.start()
    assert ready.wait(10)
    port, loop, stop = started
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def provider(images: list[Path]) -> Iterator[Provider]:
    made = Provider(images)
    with on_a_loop(made.authorise) as made.port:
        yield made


def dcmtk(program: str, port: int, *options: str) -> peers.Finished:
    command = [peers.native(program), "-v", "-aec", "HILUM", *options, peers.HOST, str(port)]
    return peers.run(command)


def pynetdicom_program(program: str, port: int, *options: str) -> peers.Finished:
    import sys

    command = [sys.executable, "-m", "pynetdicom", program, peers.HOST, str(port)]
    return peers.run([*command, "-aec", "HILUM", "-v", *options])


LEVELS = [("STUDY", 1), ("IMAGE", COUNT)]


@pytest.mark.parametrize("model", ["-P", "-S"])
@pytest.mark.parametrize(("level", "count"), LEVELS)
def test_findscu_asks_us(provider: Provider, level: str, count: int, model: str) -> None:
    wanted = ["-k", f"0008,0052={level}", "-k", "0010,0010", "-k", f"0020,000D={STUDY}"]
    for done in (
        dcmtk("findscu", provider.port, model, *wanted),
        pynetdicom_program(
            "findscu", provider.port, model, "-k", f"QueryRetrieveLevel={level}",
            "-k", "PatientName=", "-k", f"StudyInstanceUID={STUDY}",
        ),
    ):  # fmt: skip
        done.check()
        assert done.output.count("Query^Retrieve") == count, done.output


def received(folder: Path) -> dict[str, Dataset]:
    return {
        dataset.SOPInstanceUID: dataset
        for path in folder.iterdir()
        for dataset in [dcmread(path, force=True)]
    }


def check(found: dict[str, Dataset]) -> None:
    assert found.keys() == INSTANCES.keys()
    for uid, dataset in found.items():
        assert dataset.PixelData == INSTANCES[uid].PixelData
        assert dataset.PatientName == "Query^Retrieve"


@pytest.mark.parametrize("model", ["-P", "-S"])
def test_getscu_gets_from_us(provider: Provider, tmp_path: Path, model: str) -> None:
    """DCMTK's A-ASSOCIATE-RQ has 17 KB and 120 contexts, all storage with the SCP role."""
    wanted = ["-k", "0008,0052=STUDY", "-k", f"0020,000D={STUDY}", "-k", "0010,0020=QR1"]
    done = dcmtk("getscu", provider.port, model, *wanted, "-od", str(tmp_path)).check()
    check(received(tmp_path))
    assert len(provider.asked[0].association.rq.contexts) > 100, done.output


@pytest.mark.parametrize("theirs", ["4096", "16384", "131072"])
@pytest.mark.parametrize("ours", [0, 4096, 16383, 131072])
def test_maximum_lengths(images: list[Path], tmp_path: Path, ours: int, theirs: str) -> None:
    """Each side keeps to the other's, none and odd ones too (field notes A 10)."""
    made = Provider(images)
    with on_a_loop(made.authorise, Limits(max_length=ours)) as port:
        dcmtk(
            "getscu", port, "-S", "-pdu", theirs, "-k", "0008,0052=STUDY",
            "-k", f"0020,000D={STUDY}", "-od", str(tmp_path),
        ).check()  # fmt: skip
    check(received(tmp_path))


def test_pynetdicoms_getscu_gets_from_us(provider: Provider, tmp_path: Path) -> None:
    pynetdicom_program(
        "getscu", provider.port, "-S", "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={STUDY}", "-od", str(tmp_path),
    ).check()  # fmt: skip
    check(received(tmp_path))


@pytest.mark.parametrize("program", ["dcmtk", "pynetdicom"])
def test_movescu_moves_from_us(provider: Provider, tmp_path: Path, program: str) -> None:
    with peers.storescp(tmp_path / "scp") as scp:
        provider.destinations["WS"] = scp.port
        for title, works in (("WS", True), ("NOWHERE", False)):
            if program == "dcmtk":
                done = dcmtk(
                    "movescu", provider.port, "-S", "-aem", title, "-k", "0008,0052=STUDY",
                    "-k", f"0020,000D={STUDY}",
                )  # fmt: skip
                assert (done.returncode == 0) == works, done.output
            else:
                done = pynetdicom_program(
                    "movescu", provider.port, "-S", "-aem", title, "-k",
                    "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}",
                )  # fmt: skip
            assert (
                works or "a801" in done.output.lower() or "MoveDestinationUnknown" in done.output
            ), done.output
        check(received(tmp_path / "scp"))


def test_orthanc_queries_us_and_moves_to_itself(provider: Provider, tmp_path: Path) -> None:
    known = {"HILUM": peers.Modality("HILUM", provider.port)}
    with peers.orthanc(tmp_path / "orthanc", modalities=known) as orthanc:
        provider.destinations["ORTHANC"] = orthanc.port
        query = orthanc.rest(
            "/modalities/HILUM/query",
            {"Level": "Study", "Query": {"StudyInstanceUID": STUDY, "PatientName": "*"}},
        )
        answers = orthanc.rest(f"/queries/{query['ID']}/answers")
        assert len(answers) == 1
        orthanc.rest(f"/queries/{query['ID']}/answers/0/retrieve", {"TargetAet": "ORTHANC"})
        assert orthanc.rest("/statistics")["CountInstances"] == COUNT


# ── our client ──────────────────────────────────────────────────────────────────────────────


@contextmanager
def archives(
    kind: str, images: Sequence[Path], tmp_path: Path, moves: int
) -> Iterator[peers.Server]:
    """A peer that holds the images and can move them to ``WS`` on this port."""
    if kind == "dcmqrscp":
        context = peers.dcmqrscp(tmp_path / "archive", moves={"WS": moves})
    else:
        context = peers.orthanc(
            tmp_path / "archive",
            modalities={"WS": peers.Modality("WS", moves)},
            settings={"OverwriteInstances": True},
        )
    with context as server:
        peers.storescu(server.ae_title, server.port, images, "-xe").check()
        yield server


@pytest.mark.parametrize("kind", ["dcmqrscp", "Orthanc"])
def test_our_client_finds_gets_and_moves(kind: str, images: list[Path], tmp_path: Path) -> None:
    port = peers.free_port()

    async def main(server: peers.Server) -> None:
        store, moved = Store(), Store()
        ae = AE("WS", open_store=moved)
        roles = [RoleSelection(CT, False, True)]
        contexts = [(uid, UNCOMPRESSED) for uid in QUERY_CLASSES] + [(CT, (EXPLICIT,))]
        pacs = Remote(server.ae_title, peers.HOST, server.port, contexts=contexts)
        async with (
            await ae.serve(peers.HOST, port),
            await ae.connect(pacs, roles=roles, open_store=store) as association,
        ):
            wanted = keys(
                "IMAGE", SOPInstanceUID="", PatientID="QR1", SeriesInstanceUID=f"{STUDY}.1"
            )
            found = [
                response.dataset().SOPInstanceUID
                async for response in association.c_find(wanted, sop_class_uid=STUDY_ROOT_FIND)
                if response.is_pending
            ]
            assert sorted(found) == sorted(INSTANCES)

            final = await association.c_get(keys(), sop_class_uid=STUDY_ROOT_GET).last()
            assert final.status == 0, final
            assert final.command.number_of_completed_suboperations == COUNT
            uids = {command.affected_sop_instance_uid for command in store.commands}
            assert uids == INSTANCES.keys()

            final = await association.c_move(
                keys(), sop_class_uid=STUDY_ROOT_MOVE, destination="WS"
            ).last()
            assert final.status == 0, final
            await until(lambda: len(moved.sinks) == COUNT, "the moved instances")
            # Orthanc names itself as the originator where it should name who asked.
            assert {command.get("move_originator_message_id") for command in moved.commands}

            unknown = association.c_move(
                keys(), sop_class_uid=STUDY_ROOT_MOVE, destination="NOBODY"
            )
            assert (await unknown.last()).status not in (0, 0xFF00)
            if kind == "dcmqrscp":  # Orthanc has no other transfer syntax for what it sends
                cancelled = association.c_find(wanted, sop_class_uid=STUDY_ROOT_FIND)
                await anext(cancelled)
                await cancelled.cancel()
                assert (await cancelled.last()).status in (0, 0xFE00)

    with archives(kind, images, tmp_path, port) as server:
        asyncio.run(main(server))


# ── pynetdicom: N-services, windows of one, roles ───────────────────────────────────────────

FILM_SESSION = ("1.2.840.10008.5.1.1.1", "1.2.3.4")


def data_of_calls() -> dict[str, tuple[Any, ...]]:
    uids = {"sop_class_uid": FILM_SESSION[0], "sop_instance_uid": FILM_SESSION[1]}
    patient = Dataset()
    patient.PatientName = "N^Services"
    return {
        "n_event_report": ((patient,), {**uids, "event_type_id": 2}),
        "n_get": ((), {**uids, "attributes": [0x00100010, 0x00100020]}),
        "n_set": ((patient,), uids),
        "n_action": ((patient,), {**uids, "action_type_id": 1}),
        "n_create": ((patient,), uids),
        "n_delete": ((), uids),
    }


@pytest.mark.parametrize("name", data_of_calls())
def test_our_user_of_n_services_with_pynetdicom(name: str) -> None:
    import pynetdicom
    from pynetdicom import evt

    seen: list[Any] = []

    def handle(event: Any) -> Any:
        seen.append(event)
        answer = Dataset()
        answer.PatientID = "ANSWER"
        return 0x0000 if event.event is evt.EVT_N_DELETE else (0x0000, answer)

    events = [getattr(evt, f"EVT_{each.upper()}") for each in data_of_calls()]
    ae = pynetdicom.AE("PEER")
    ae.add_supported_context(FILM_SESSION[0])
    server = ae.start_server(
        (peers.HOST, 0), block=False, evt_handlers=[(e, handle) for e in events]
    )

    async def main() -> Response:
        port = server.socket.getsockname()[1]
        contexts = [(FILM_SESSION[0], UNCOMPRESSED)]
        async with await connect(peers.HOST, port, called="PEER", contexts=contexts) as association:
            data, arguments = data_of_calls()[name]
            response: Response = await getattr(association, name)(*data, **arguments)
            return response

    try:
        response = asyncio.run(main())
    finally:
        server.shutdown()
    assert response.status == 0
    assert response.command.affected_sop_instance_uid == FILM_SESSION[1]
    if name != "n_delete":
        assert response.dataset().PatientID == "ANSWER"
    assert len(seen) == 1


@pytest.mark.parametrize("name", data_of_calls())
def test_our_provider_of_n_services_with_pynetdicom(name: str) -> None:
    import pynetdicom

    seen: list[Request] = []

    async def handle(request: Request) -> Reply:
        seen.append(request)
        answer = Dataset()
        answer.PatientID = "ANSWER"
        encoded = encode(answer, request.context.transfer_syntax)
        return Reply(0, None if name == "n_delete" else encoded)

    fields = [field for field in CommandField if field.name.startswith("N_") and field < 0x8000]
    accept = Accept(
        policy=service_policy([FILM_SESSION[0]]),
        roles={FILM_SESSION[0]: (True, True)},
        handlers=dict.fromkeys(fields, handle),
    )
    arguments: dict[str, Callable[[Any, Dataset], Any]] = {
        "n_event_report": lambda a, d: a.send_n_event_report(d, 2, *FILM_SESSION),
        "n_get": lambda a, d: a.send_n_get([0x00100010, 0x00100020], *FILM_SESSION),
        "n_set": lambda a, d: a.send_n_set(d, *FILM_SESSION),
        "n_action": lambda a, d: a.send_n_action(d, 1, *FILM_SESSION),
        "n_create": lambda a, d: a.send_n_create(d, *FILM_SESSION),
        "n_delete": lambda a, d: (a.send_n_delete(*FILM_SESSION), None),
    }
    patient = Dataset()
    patient.PatientName = "N^Services"
    with on_a_loop(lambda rq, peer: accept) as port:
        ae = pynetdicom.AE("PEER")
        ae.add_requested_context(FILM_SESSION[0])
        role = pynetdicom.build_role(FILM_SESSION[0], scu_role=True, scp_role=True)
        assoc = ae.associate(peers.HOST, port, ext_neg=[role])
        assert assoc.is_established
        status, answer = arguments[name](assoc, patient)
        assert assoc.is_established
        assoc.release()
    assert status.Status == 0
    if name != "n_delete":
        assert answer.PatientID == "ANSWER"
    (request,) = seen
    if request.data is not None:
        assert request.dataset().PatientName == "N^Services"


def test_pynetdicom_stores_back_over_a_reversed_role(images: list[Path]) -> None:
    """The requestor as storage provider: SCP role granted, C-STORE from the acceptor."""
    import pynetdicom
    from pynetdicom import evt

    stored = threading.Event()

    def established(event: Any) -> None:
        def send() -> None:
            assert event.assoc.send_c_store(str(images[0])).Status == 0
            stored.set()

        threading.Thread(target=send).start()

    ae = pynetdicom.AE("PEER")
    ae.add_supported_context(CT, scu_role=True, scp_role=True)
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(
        (peers.HOST, 0), block=False, evt_handlers=[(evt.EVT_ESTABLISHED, established)]
    )
    store = Store()

    async def main() -> None:
        association: Association
        async with await connect(
            peers.HOST,
            server.socket.getsockname()[1],
            contexts=[(CT, (EXPLICIT,)), ("1.2.840.10008.1.1", UNCOMPRESSED)],
            roles=[RoleSelection(CT, True, True)],
            open_store=store,
        ) as association:
            await until(stored.is_set, "the store")
            assert (await association.c_echo()).status == 0

    try:
        asyncio.run(main())
    finally:
        server.shutdown()
    assert store.commands[0].affected_sop_instance_uid in INSTANCES
