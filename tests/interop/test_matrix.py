"""The interoperability matrix: every peer in both roles, with every service that it has.

| we \\ they | DCMTK | pynetdicom | Orthanc | ourselves |
|---|---|---|---|---|
| send (C-STORE) to | storescp, dcmqrscp | storescp, qrscp | Orthanc | scp store, sync |
| receive from | storescu, dcmsend | storescu | Orthanc | store, sync |
| find, get, move at | dcmqrscp | qrscp | Orthanc | scp qr |
| are asked by | findscu, getscu, movescu | the same | Orthanc | find, get, move, sync |

Each with one image of every transfer syntax that the test data have and the peer takes, and with
maximum lengths from the smallest that peers allow to none; see ``PDUS``. Worklists are in
``test_query_tools``, TLS in ``test_tls_tools``, commitment in ``tests/net/test_commitment``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
import pytest
from tests import peers, samples
from tests.conftest import require
from tests.interop.test_query_tools import at, document, ours
from tests.interop.test_tools import data_set_of, even, head_of, hilum, received, scp

from hilum.net.client import connect
from hilum.net.files import send_files
from hilum.net.limits import Limits
from hilum.net.service import Context, Outcome, Part
from hilum.net.sources import FileSource
from hilum.services import sop_classes
from hilum.services.sop_classes import is_storage
from hilum.wire.items import RoleSelection

pytestmark = pytest.mark.interop

HOST = peers.HOST
PDUS = [0, 4096, 5001, 16384, 131072]
"""None, the smallest that DCMTK allows, an odd one, everybody's default, the largest of DCMTK."""

UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
NATIVE = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
OUR_CLIENTS = ["asyncio", "sync", "tool"]
PROVIDERS = ["dcmqrscp", "pynetdicom", "orthanc", "hilum"]


# ── what is sent ────────────────────────────────────────────────────────────────────────────────


class Image(NamedTuple):
    path: Path
    sop: str
    study: str
    syntax: str
    data: bytes


def _images() -> list[Image]:
    """One image for each transfer syntax, with all that an archive wants to know of it."""
    found: dict[str, Image] = {}
    seen: set[str] = set()
    for path in samples.paths():
        head = head_of(path)
        if head is None or not is_storage(head.sop_class_uid) or path.stat().st_size > 1_000_000:
            continue
        if head.transfer_syntax_uid in found:
            continue
        try:
            data_set = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:
            continue
        keys = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
        # One study each, so that a study asked for is one image.
        if not all(data_set.get(key) for key in keys) or seen & {data_set.StudyInstanceUID}:
            continue
        if "PixelData" in pydicom.dcmread(path):
            found[head.transfer_syntax_uid] = Image(
                path, head.sop_instance_uid, str(data_set.StudyInstanceUID),
                head.transfer_syntax_uid, data_set_of(path),
            )  # fmt: skip
            seen.add(data_set.StudyInstanceUID)
    return list(found.values())


IMAGES = _images()
PLAIN = [image for image in IMAGES if image.syntax in UNCOMPRESSED]


def test_there_are_enough_transfer_syntaxes() -> None:
    assert len(IMAGES) >= 8
    assert {image.syntax for image in PLAIN} == UNCOMPRESSED


def check(folder: Path, sent: Sequence[Image], *, exactly: bool) -> None:
    kept = received(folder)
    assert set(kept) == {image.sop for image in sent}
    for image in sent:
        path = kept[image.sop]
        if exactly:
            assert data_set_of(path) == even(image.data), image.path.name
        else:  # what a peer writes anew, group lengths and padding, is none of ours
            theirs, mine = pydicom.dcmread(path), pydicom.dcmread(image.path)
            syntax = theirs.file_meta.TransferSyntaxUID
            assert syntax == image.syntax or {syntax, image.syntax} <= UNCOMPRESSED
            if syntax.is_little_endian == mine.file_meta.TransferSyntaxUID.is_little_endian:
                assert theirs.PixelData.rstrip(b"\0") == mine.PixelData.rstrip(b"\0"), image.path


# ── we send ─────────────────────────────────────────────────────────────────────────────────────


def _storescp(stack: ExitStack, folder: Path, pdu: int) -> peers.Server:
    options = ("-pdu", str(pdu)) if pdu else ()
    return stack.enter_context(peers.storescp(folder, "+B", "+xa", "-pm", *options))


def _pynetdicom(stack: ExitStack, folder: Path, pdu: int) -> peers.Server:
    return stack.enter_context(peers.pynetdicom_storescp(folder, "--max-pdu", str(pdu)))


def _scp_store(stack: ExitStack, folder: Path, pdu: int) -> peers.Server:
    return stack.enter_context(scp(folder, "--max-pdu", str(pdu)))


def _dcmqrscp(stack: ExitStack, folder: Path, pdu: int) -> peers.Server:
    return stack.enter_context(peers.dcmqrscp(folder, max_pdu=pdu or 16384))


RECEIVERS: dict[str, Callable[[ExitStack, Path, int], peers.Server]] = {
    "storescp": _storescp,
    "dcmqrscp": _dcmqrscp,
    "pynetdicom": _pynetdicom,
    "scp store": _scp_store,
}


@pytest.mark.parametrize("pdu", PDUS)
@pytest.mark.parametrize("receiver", RECEIVERS)
async def test_we_send(receiver: str, pdu: int, tmp_path: Path) -> None:
    require({"pynetdicom": "pynetdicom"}.get(receiver, "storescp"))
    # dcmqrscp takes what its configuration names: uncompressed images.
    images = PLAIN[:2] if receiver == "dcmqrscp" else IMAGES
    with ExitStack() as stack:
        server = RECEIVERS[receiver](stack, tmp_path / "there", pdu)
        summary = await send_files(
            HOST, server.port, [FileSource.open(image.path) for image in images],
            called=server.ae_title,
        )  # fmt: skip
        assert summary.ok, summary
        if receiver == "dcmqrscp":
            assert len([p for p in (tmp_path / "there").iterdir() if p.name != "index.dat"]) == 2
        else:
            check(tmp_path / "there", images, exactly=receiver != "pynetdicom")


@pytest.mark.parametrize("pdu", [0, 5001])
async def test_we_send_to_orthanc(pdu: int, tmp_path: Path) -> None:
    require("Orthanc")
    settings = {"MaximumPduLength": pdu} if pdu else {}  # it knows no 0
    with peers.orthanc(tmp_path / "there", settings=settings) as server:
        sources = [FileSource.open(image.path) for image in IMAGES]
        summary = await send_files(HOST, server.port, sources, called=server.ae_title)
        assert summary.ok, summary
        assert len(server.rest("/instances")) == len(IMAGES)


# ── we receive ──────────────────────────────────────────────────────────────────────────────────


def _send_storescu(port: int, images: Sequence[Image]) -> None:
    for image in images:  # one of its contexts fits one compressed syntax only
        option = {"1.2.840.10008.1.2.5": "-xr", "1.2.840.10008.1.2.4.90": "-xv",
                  "1.2.840.10008.1.2.4.91": "-xw", "1.2.840.10008.1.2.4.70": "-xs",
                  "1.2.840.10008.1.2.4.50": "-xy", "1.2.840.10008.1.2.4.51": "-xx",
                  "1.2.840.10008.1.2.4.80": "-xt", "1.2.840.10008.1.2.4.81": "-xu",
                  "1.2.840.10008.1.2.1.99": "-xd"}.get(image.syntax)  # fmt: skip
        peers.storescu("HILUM", port, [image.path], *([option] if option else [])).check()


def _send_dcmsend(port: int, images: Sequence[Image]) -> None:
    peers.dcmsend("HILUM", port, [image.path for image in images], "--decompress-never").check()


def _send_pynetdicom(port: int, images: Sequence[Image]) -> None:
    for image in images:
        peers.pynetdicom_storescu("HILUM", port, [image.path], "-cx").check()


def _send_hilum(port: int, images: Sequence[Image]) -> None:
    done = hilum("store", f"HILUM@{HOST}:{port}", *(image.path for image in images))
    assert done.returncode == 0, done.stderr


def _send_sync(port: int, images: Sequence[Image]) -> None:
    from hilum.sync import AE

    ae = AE()
    for image in images:
        data_set = pydicom.dcmread(image.path, stop_before_pixels=True)
        ae.add_requested_context(data_set.SOPClassUID, image.syntax)
    association = ae.associate(HOST, port, ae_title="HILUM")
    assert association.is_established
    for image in images:
        assert association.send_c_store(image.path).Status == 0
    association.release()


SENDERS: dict[str, tuple[Callable[[int, Sequence[Image]], None], bool]] = {
    "storescu": (_send_storescu, False),  # drops trailing padding, rewrites deflated data
    "dcmsend": (_send_dcmsend, False),
    "pynetdicom": (_send_pynetdicom, False),
    "hilum store": (_send_hilum, True),
    "hilum.sync": (_send_sync, True),
}


@pytest.mark.parametrize("pdu", PDUS)
@pytest.mark.parametrize("sender", SENDERS)
def test_we_receive(sender: str, pdu: int, tmp_path: Path) -> None:
    require("pynetdicom" if sender == "pynetdicom" else "storescu")
    send, exactly = SENDERS[sender]
    # A process for each image takes a second; the other lengths are tried with three syntaxes.
    slow = sender in ("storescu", "pynetdicom") and pdu not in (0, 5001)
    images = IMAGES[:3] if slow else IMAGES
    with scp(tmp_path / "here", "--max-pdu", str(pdu)) as server:
        send(server.port, images)
        check(tmp_path / "here", images, exactly=exactly)


@pytest.mark.parametrize("pdu", [0, 5001])
def test_we_receive_from_orthanc(pdu: int, tmp_path: Path) -> None:
    require("Orthanc")
    with scp(tmp_path / "here", "--max-pdu", str(pdu)) as server:
        known = {"hilum": peers.Modality("HILUM", server.port)}
        with peers.orthanc(tmp_path / "orthanc", modalities=known) as orthanc:
            ids = [_upload(orthanc, image.path) for image in IMAGES]
            orthanc.rest("/modalities/hilum/store", ids)
        assert set(received(tmp_path / "here")) == {image.sop for image in IMAGES}


def _upload(server: peers.Server, path: Path) -> str:
    request = urllib.request.Request(
        f"http://{HOST}:{server.http_port}/instances", data=path.read_bytes(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["ID"])


# ── we ask ──────────────────────────────────────────────────────────────────────────────────────


class Archives:
    """Providers of Query/Retrieve, each started when it is first wanted, with images in it."""

    def __init__(self, top: Path, stack: ExitStack) -> None:
        self.top, self.stack = top, stack
        self.mover = peers.free_port()
        self.servers: dict[str, peers.Server] = {}

    def __getitem__(self, kind: str) -> peers.Server:
        require({"orthanc": "Orthanc", "hilum": "dcmqrscp"}.get(kind, kind))
        if kind not in self.servers:
            self.servers[kind] = self._start(kind)
        return self.servers[kind]

    def images(self, kind: str) -> list[Image]:
        """What each keeps: not every peer takes every syntax."""
        return IMAGES if kind in ("hilum", "orthanc") else [i for i in PLAIN if i.syntax in NATIVE]

    def _start(self, kind: str) -> peers.Server:
        folder, moves = self.top / kind, {"MOVER": self.mover}
        if kind == "hilum":
            folder.mkdir()
            words = ("--destination", f"MOVER@{HOST}:{self.mover}")
            server = self.stack.enter_context(ours("qr", folder, *words))
        elif kind == "dcmqrscp":
            server = self.stack.enter_context(peers.dcmqrscp(folder, moves=moves))
        elif kind == "pynetdicom":
            server = self.stack.enter_context(peers.pynetdicom_qrscp(folder, moves=moves))
        else:
            known = {title: peers.Modality(title, port) for title, port in moves.items()}
            server = self.stack.enter_context(peers.orthanc(folder, modalities=known))
        stored = hilum("store", at(server), *(image.path for image in self.images(kind)))
        assert stored.returncode == 0, stored.stderr
        return server


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archives]:
    with ExitStack() as stack:
        yield Archives(tmp_path_factory.mktemp("archives"), stack)


class Kept:
    """A sink in memory: SOP Instance UID → data set, and the syntax that it came in."""

    def __init__(self) -> None:
        self.data: dict[str, tuple[str, bytes]] = {}

    def __call__(self, command: Any, context: Context, association: Any) -> Kept._Sink:
        return self._Sink(self, command.affected_sop_instance_uid, context.transfer_syntax)

    class _Sink:
        def __init__(self, kept: Kept, sop: str, syntax: str) -> None:
            self.kept, self.sop, self.syntax, self.content = kept, sop, syntax, bytearray()

        def write(self, parts: Sequence[Part]) -> bool:
            for part in parts:
                self.content += part
            return True

        def drained(self) -> Any:
            raise AssertionError("nothing is held")

        def commit(self) -> asyncio.Future[Outcome]:
            self.kept.data[self.sop] = (self.syntax, bytes(self.content))
            done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            done.set_result(Outcome(0))
            return done

        def abort(self, cause: BaseException) -> None:
            """Not kept."""


def identifier(study: str, *returned: str) -> pydicom.Dataset:
    result = pydicom.Dataset()
    result.QueryRetrieveLevel = "STUDY"
    result.StudyInstanceUID = study
    for keyword in returned:
        setattr(result, keyword, None)
    return result


async def ask_asyncio(server: peers.Server, image: Image, pdu: int, mover: int) -> dict[str, bytes]:
    """C-FIND, C-GET and C-MOVE by the asyncio API; what C-GET brought, held against C-MOVE's."""
    kept, moved = Kept(), Kept()
    storage = str(pydicom.dcmread(image.path, stop_before_pixels=True).SOPClassUID)
    roots = (sop_classes.STUDY_ROOT_FIND, sop_classes.STUDY_ROOT_GET, sop_classes.STUDY_ROOT_MOVE)
    association = await connect(
        HOST, server.port, called=server.ae_title, calling="MOVER",
        contexts=[*((root, NATIVE) for root in roots), (storage, (image.syntax,)),
                  (storage, NATIVE)],
        roles=[RoleSelection(storage, False, True)],
        open_store=kept, limits=Limits(max_length=pdu),
    )  # fmt: skip
    async with association, await _listening(moved, mover, pdu):
        responses = association.c_find(identifier(image.study, "PatientID"), sop_class_uid=roots[0])
        found = [response async for response in responses]
        assert [response.status for response in found][-1] == 0
        assert found[0].dataset().StudyInstanceUID == image.study
        for operation, more in ((association.c_get, {"sop_class_uid": roots[1]}),
                                (association.c_move, {"sop_class_uid": roots[2],
                                                      "destination": "MOVER"})):  # fmt: skip
            responses = operation(identifier(image.study), **more)  # type: ignore[operator]
            final = [response async for response in responses][-1]
            assert final.status == 0, final
    assert set(moved.data) == set(kept.data) == {image.sop}
    return {sop: data for sop, (syntax, data) in kept.data.items() if syntax == image.syntax}


async def _listening(kept: Kept, port: int, pdu: int) -> Any:
    from hilum.net.server import serve
    from hilum.net.service import Accept

    return await serve(
        HOST, port, lambda rq, peer: Accept(open_store=kept), limits=Limits(max_length=pdu)
    )


def ask_sync(server: peers.Server, image: Image, pdu: int, mover: int) -> dict[str, bytes]:
    """The same by hilum.sync."""
    from hilum.sync import AE, build_role, evt

    storage = pydicom.dcmread(image.path, stop_before_pixels=True).SOPClassUID
    kept: dict[str, bytes] = {}
    moved: dict[str, bytes] = {}

    def keep(event: Any, where: dict[str, bytes]) -> int:
        data = event.request.DataSet.getvalue()
        where[event.request.AffectedSOPInstanceUID] = (
            data if event.context.transfer_syntax == image.syntax else b""
        )
        return 0

    ae = AE("MOVER")
    ae.maximum_pdu_size = pdu
    ae.add_supported_context(storage, [image.syntax, *NATIVE])
    listener = ae.start_server(
        (HOST, mover), block=False, evt_handlers=[(evt.EVT_C_STORE, keep, [moved])]
    )
    roots = (sop_classes.STUDY_ROOT_FIND, sop_classes.STUDY_ROOT_GET, sop_classes.STUDY_ROOT_MOVE)
    for root in roots:
        ae.add_requested_context(root)
    ae.add_requested_context(storage, image.syntax)
    if image.syntax not in NATIVE:
        ae.add_requested_context(storage, list(NATIVE))
    try:
        association = ae.associate(
            HOST, server.port, ae_title=server.ae_title,
            ext_neg=[build_role(storage, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, keep, [kept])],
        )  # fmt: skip
        assert association.is_established
        statuses = [s.Status for s, _ in association.send_c_find(identifier(image.study), roots[0])]
        assert statuses == [0xFF00, 0]
        statuses = [s.Status for s, _ in association.send_c_get(identifier(image.study), roots[1])]
        assert statuses[-1] == 0
        move = association.send_c_move(identifier(image.study), "MOVER", roots[2])
        assert [s.Status for s, _ in move][-1] == 0
        association.release()
    finally:
        listener.shutdown()
    assert set(moved) == set(kept) == {image.sop}
    return {sop: data for sop, data in kept.items() if data}


def ask_tool(
    server: peers.Server, image: Image, pdu: int, mover: int, out: Path
) -> dict[str, bytes]:
    """The same by the command line."""
    study = f"StudyInstanceUID={image.study}"
    common = (at(server), "-aet", "MOVER", "-k", study, "--max-pdu", pdu)
    found, code = document("find", *common, "-k", "PatientID")
    assert (code, len(found["matches"])) == (0, 1)
    for name in ("get", "move"):
        (out / name).mkdir()
    # Without the class, one context stands for all compressed syntaxes, and the peer chooses.
    storage = pydicom.dcmread(image.path, stop_before_pixels=True).SOPClassUID
    said, code = document("get", *common, "-od", out / "get", "--sop-class", storage)
    assert code == 0, said
    said, code = document("move", *common, "+P", mover, "-od", out / "move")
    assert code == 0, said
    kept, moved = received(out / "get"), received(out / "move")
    assert set(kept) == set(moved) == {image.sop}
    head = head_of(kept[image.sop])
    assert head is not None
    same = head.transfer_syntax_uid == image.syntax
    return {image.sop: data_set_of(kept[image.sop])} if same else {}


def _choices() -> list[tuple[str, str, int]]:
    """Every length in process; beside it, one that is odd and the default."""
    return [
        (client, provider, pdu)
        for client in OUR_CLIENTS
        for provider in PROVIDERS
        for pdu in (PDUS if client == "asyncio" else [5001, 16384] if client == "sync" else [5001])
    ]


@pytest.mark.parametrize(("client", "provider", "pdu"), _choices())
async def test_we_ask(
    archives: Archives, client: str, provider: str, pdu: int, tmp_path: Path
) -> None:
    server = archives[provider]
    images = archives.images(provider)
    if provider == "hilum" and client != "asyncio":
        images = images[::3]
    elif provider == "orthanc":
        images = [image for image in images if image.syntax in NATIVE]
    for number, image in enumerate(images):
        if client == "asyncio":
            same = await ask_asyncio(server, image, pdu, archives.mover)
        elif client == "sync":
            same = await asyncio.to_thread(ask_sync, server, image, pdu, archives.mover)
        else:
            (out := tmp_path / str(number)).mkdir()
            same = await asyncio.to_thread(ask_tool, server, image, pdu, archives.mover, out)
        if provider == "hilum":
            assert same == {image.sop: even(image.data)}


# ── we are asked ────────────────────────────────────────────────────────────────────────────────


def _kept(folder: Path) -> dict[str, Path]:
    return {head.sop_instance_uid: p for p in folder.iterdir() if (head := head_of(p)) is not None}


@pytest.mark.parametrize("pdu", [4096, 5001, 131072])
@pytest.mark.parametrize("family", ["dcmtk", "pynetdicom"])
def test_we_are_asked(archives: Archives, family: str, pdu: int, tmp_path: Path) -> None:
    require("findscu" if family == "dcmtk" else "pynetdicom")
    server = archives["hilum"]
    image = PLAIN[0]
    key = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={image.study}"]
    (got := tmp_path / "get").mkdir()
    (moved := tmp_path / "move").mkdir()

    def ask(program: str, *words: str) -> peers.Finished:
        if family == "dcmtk":
            command = [peers.native(program), "-aec", "HILUM", "-aet", "MOVER", "-pdu", str(pdu)]
            command += ["-S", *words, *key, HOST, str(server.port)]
        else:
            command = [sys.executable, "-m", "pynetdicom", program, HOST, str(server.port)]
            command += ["-aec", "HILUM", "-aet", "MOVER", "--max-pdu", str(pdu), "-S", *words, *key]
        return peers.run(command).check()

    assert "PatientID" in ask("findscu", "-v", "-k", "PatientID").output or family == "pynetdicom"
    ask("getscu", "-od", str(got))
    assert set(_kept(got)) == {image.sop}
    if family == "dcmtk":
        ask("movescu", "-od", str(moved), "+P", str(archives.mover), "-aem", "MOVER")
    else:
        ask("movescu", "-od", str(moved), "--store", "--store-port", str(archives.mover),
            "--store-aet", "MOVER", "-aem", "MOVER")  # fmt: skip
    assert set(_kept(moved)) == {image.sop}


def test_orthanc_asks_us(tmp_path: Path) -> None:
    require("Orthanc")
    (folder := tmp_path / "ours").mkdir()
    for image in IMAGES:
        (folder / image.path.name).write_bytes(image.path.read_bytes())
    port = peers.free_port()
    with ours("qr", folder, "--destination", f"ORTHANC@{HOST}:{port}") as server:
        known = {"hilum": peers.Modality("HILUM", server.port)}
        with peers.orthanc(tmp_path / "theirs", modalities=known, port=port) as orthanc:
            orthanc.rest("/modalities/hilum/echo", {})
            for study in sorted({image.study for image in IMAGES}):
                query = {"Level": "Study", "Query": {"StudyInstanceUID": study}}
                asked = orthanc.rest("/modalities/hilum/query", query)["ID"]
                assert orthanc.rest(f"/queries/{asked}/answers") == ["0"]
                orthanc.rest(f"/queries/{asked}/retrieve", {"TargetAet": "ORTHANC"})
            until = time.monotonic() + 20
            while len(orthanc.rest("/instances")) < len(IMAGES) and time.monotonic() < until:
                time.sleep(0.1)
            tags = [orthanc.rest(f"/instances/{i}/simplified-tags")["SOPInstanceUID"]
                    for i in orthanc.rest("/instances")]  # fmt: skip
            assert sorted(tags) == sorted(image.sop for image in IMAGES)
