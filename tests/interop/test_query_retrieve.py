"""The archive answers: queries and retrieves of a running gateway, by real peers and by hundreds.

The tap reassembles P-DATA on its own: what comes back is compared byte for byte with what was sent.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from tests import peers, samples
from tests.conftest import require
from tests.e2e.gateway import Gateway, prepare
from tests.interop.test_gateway import NATIVE, Good, good
from tests.net.certificates import Authority
from tests.query_world import data_sets, queries
from tests.reference_matcher import Reference
from tests.tap import Conversation, Message, Tap

from hilum.errors import AssociationRejected
from hilum.gateway.app import Storage
from hilum.gateway.config import Config
from hilum.gateway.store.entries import Peer
from hilum.net import connect
from hilum.net.files import send_files
from hilum.net.sources import FileSource
from hilum.net.tls import client_context
from hilum.services import sop_classes
from hilum.wire.items import ExtendedNegotiation, UserIdentityRQ

pytestmark = pytest.mark.interop

EXPLICIT = "1.2.840.10008.1.2.1"
COMMAND_FIELD, SOP_INSTANCE = 0x00000100, 0x00001000
C_STORE_RQ = 1
STUDY, PATIENT = sop_classes.STUDY_ROOT_FIND, sop_classes.PATIENT_ROOT_FIND
FIND = ((STUDY, (EXPLICIT,)), (PATIENT, (EXPLICIT, "1.2.840.10008.1.2")))


def configure(
    data: Path, *, peers_: Sequence[Peer] = (), passcodes: dict[str, str] | None = None
) -> None:
    storage = Storage(Config(data=str(data)))
    try:
        for peer in peers_:
            storage.directory.put_peer(peer)
        for name, passcode in (passcodes or {}).items():
            storage.directory.set_passcode(name, passcode)
    finally:
        storage.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    prepare(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def gateway(data: Path) -> Iterator[Gateway]:
    with Gateway(data) as running:
        yield running


def push(gateway: Gateway, paths: Sequence[Path], called: str = "RAIVEN") -> None:
    sources = [FileSource.open(path) for path in paths]
    summary = asyncio.run(send_files("127.0.0.1", gateway.port, sources, called=called))
    assert summary.ok, summary


def written(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    folder.mkdir()
    found = []
    for number, ds in enumerate(datasets):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = EXPLICIT
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        found.append(folder / f"{number}.dcm")
        ds.save_as(found[-1], enforce_file_format=True)
    return found


async def ask(
    gateway: Gateway,
    asked: Sequence[Dataset],
    *,
    sop_class: str = PATIENT,
    called: str = "RAIVEN",
    **options,
) -> list[tuple[int, list[Dataset]]]:
    """The final status and the identifiers of each query."""
    found = []
    contexts = options.pop("contexts", FIND)
    async with await connect(
        "127.0.0.1", gateway.port, called=called, contexts=contexts, **options
    ) as association:
        for identifier in asked:
            answers = []
            responses = association.c_find(identifier, sop_class_uid=sop_class)
            async for response in responses:
                if response.data is not None:
                    answers.append(response.dataset())
            found.append((responses.final.status, answers))
    return found


def identifier(level: str, **values: object) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


# ── queries ───────────────────────────────────────────────────────────────────────────────────


def test_500_queries_are_answered_as_a_slow_matcher_does(gateway: Gateway, tmp_path: Path) -> None:
    datasets = data_sets(7, patients=12)
    push(gateway, written(datasets, tmp_path / "files"))
    asked = list(queries(7, datasets, 500))
    negotiated = ExtendedNegotiation(PATIENT, bytes((1,)))
    found = asyncio.run(ask(gateway, asked, items=(negotiated,)))
    matches = 0
    reference = Reference(datasets)
    for query, (status, answers) in zip(asked, found, strict=True):
        assert status == 0
        told = sorted(_told(answer) for answer in answers)
        expected = sorted(
            tuple(sorted((keyword, "\\".join(v)) for keyword, v in answer.items()))
            for answer in reference.find(query)
        )
        assert told == expected, query
        matches += len(told)
        assert all(answer.RetrieveAETitle == "RAIVEN" for answer in answers)
    assert matches > 2000


def _told(answer: Dataset) -> tuple[tuple[str, str], ...]:
    ours = ("SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle")
    found = []
    for element in answer:
        if element.keyword not in ours:
            value = element.value
            several = "" if value is None else value if element.VM > 1 else [value]
            found.append((element.keyword, "\\".join(map(str, several))))
    return tuple(sorted(found))


def test_statuses(gateway: Gateway, data: Path) -> None:
    asked = [
        identifier("NOWHERE"),
        identifier("SERIES", SeriesInstanceUID=""),
        identifier("PATIENT", PatientID=""),
        Dataset(),
    ]
    found = asyncio.run(ask(gateway, asked, sop_class=STUDY))
    assert [status for status, _ in found] == [0xA900] * 4


def test_a_limit_and_a_cancel(data: Path, tmp_path: Path) -> None:
    datasets = data_sets(3, patients=12)
    files = written(datasets, tmp_path / "files")
    with Gateway(data, settings={"HILUM_QUERY_MAX_MATCHES": "5"}) as gateway:
        push(gateway, files)
        everything = identifier("STUDY", StudyInstanceUID="")
        ((status, answers),) = asyncio.run(ask(gateway, [everything]))
        assert (status, len(answers)) == (0xA700, 5)
        one = identifier("STUDY", StudyInstanceUID=datasets[0].StudyInstanceUID)
        ((status, answers),) = asyncio.run(ask(gateway, [one]))
        assert (status, len(answers)) == (0, 1)


def test_a_query_is_cancelled(gateway: Gateway, tmp_path: Path) -> None:
    push(gateway, written(data_sets(3, patients=40), tmp_path / "files"))
    status, count = asyncio.run(_cancelled(gateway))
    assert status in (0xFE00, 0), "all may be on their way already"
    assert count >= 1


async def _cancelled(gateway: Gateway) -> tuple[int, int]:
    async with await connect(
        "127.0.0.1", gateway.port, called="RAIVEN", contexts=FIND
    ) as association:
        everything = identifier("IMAGE", SOPInstanceUID="", StudyDate="19000101-")
        responses = association.c_find(everything, sop_class_uid=PATIENT)
        count = 0
        async for response in responses:
            count += response.data is not None
            if count == 1:
                await responses.cancel()
        return responses.final.status, count


def test_what_the_index_does_not_hold_is_read_from_few_files(data: Path, tmp_path: Path) -> None:
    datasets = data_sets(5, patients=4)
    for number, ds in enumerate(datasets):
        ds.Rows = 100 + number % 2
        item = Dataset()
        item.CodeValue, item.CodeMeaning = f"C{number % 3}", "Übung"
        ds.ProcedureCodeSequence = [item]
    asked = identifier("IMAGE", SOPInstanceUID="", Rows=101)
    code = Dataset()
    code.CodeValue, code.CodeMeaning = "C1", ""
    asked.ProcedureCodeSequence = [code]
    relational = ExtendedNegotiation(PATIENT, bytes((1,)))
    files = written(datasets, tmp_path / "files")
    with Gateway(data) as gateway:
        push(gateway, files)
        ((_, answers),) = asyncio.run(ask(gateway, [asked], items=(relational,)))
        expected = {ds.SOPInstanceUID for n, ds in enumerate(datasets) if n % 2 and n % 3 == 1}
        assert {answer.SOPInstanceUID for answer in answers} == expected
        assert {answer.Rows for answer in answers} == {101}
        (meaning,) = {answer.ProcedureCodeSequence[0].CodeMeaning for answer in answers}
        assert meaning == "Übung"
    with Gateway(data, settings={"HILUM_QUERY_MAX_HEADERS": "3"}) as gateway:
        ((_, answers),) = asyncio.run(ask(gateway, [asked], items=(relational,)))
        assert len(answers) == len(datasets), "the keys are not supported, and FF01H says so"
        assert not any("Rows" in answer for answer in answers)


def test_findscu_and_pynetdicom_and_orthanc_list_every_study(
    gateway: Gateway, dcmtk: None, pynetdicom_apps: None, tmp_path: Path
) -> None:
    for program in ("findscu", "Orthanc"):
        require(program)
    files = [each for each in good() if each.transfer_syntax in NATIVE]
    push(gateway, [each.path for each in files])
    studies = {each.study for each in files}
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "-k", "PatientName=*")
    said = peers.findscu("RAIVEN", gateway.port, "-S", "-v", *keys).check().output
    assert all(study in said for study in studies)
    said = peers.pynetdicom_findscu("RAIVEN", gateway.port, "-S", *keys).check().output
    assert all(study in said for study in studies)
    known = {"hilum": peers.Modality("RAIVEN", gateway.port)}
    with peers.orthanc(tmp_path / "orthanc", modalities=known) as server:
        query = {"Level": "Study", "Query": {"StudyInstanceUID": "", "PatientName": "*"}}
        made = server.rest("/modalities/hilum/query", query)
        answers = server.rest(f"/queries/{made['ID']}/answers?expand&simplify")
        assert {answer["StudyInstanceUID"] for answer in answers} == studies


# ── retrieves ─────────────────────────────────────────────────────────────────────────────────


def stores(messages: Sequence[Message]) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = {}
    for message in messages:
        if message.number(COMMAND_FIELD) == C_STORE_RQ:
            assert message.data_set is not None
            found.setdefault(message.uid(SOP_INSTANCE), set()).add(message.data_set)
    return found


def chosen() -> list[Good]:
    """One file of each study whose pixels every peer takes, each SOP instance once."""
    found = {}
    for each in good():
        if each.transfer_syntax == EXPLICIT and each.path.stat().st_size < 2_000_000:
            found.setdefault(_instance(each.path), each)
            if each.path.name in _COMMON:
                found[_instance(each.path)] = each
    first = [each for each in found.values() if each.path.name in _COMMON]
    return [*first, *(each for each in found.values() if each not in first)][:25]


def _instance(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def check_came_back(sent: Sequence[Good], came: dict[str, set[bytes]]) -> None:
    assert came.keys() == {_instance(each.path) for each in sent}
    for each in sent:
        assert came[_instance(each.path)] == {samples.sample(each.path).data}, each.path


@pytest.mark.parametrize("tool", ["getscu", "pynetdicom_getscu"])
def test_c_get_gives_back_every_byte(
    gateway: Gateway, dcmtk: None, pynetdicom_apps: None, tmp_path: Path, tool: str
) -> None:
    require("getscu")
    sent = [each for each in chosen() if samples.sample(each.path).path.name in _COMMON]
    assert len(sent) >= 3
    push(gateway, [each.path for each in sent])
    get = getattr(peers, tool)
    with Tap(gateway.port) as tap:
        for study in {each.study for each in sent}:
            options = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
            get("RAIVEN", tap.port, tmp_path / "got", *options).check()
        conversations = tap.wait_ended(len(tap.conversations))
    came: dict[str, set[bytes]] = {}
    for conversation in conversations:
        came |= stores(conversation.responses())
    check_came_back(sent, came)


_COMMON = ("CT_small.dcm", "MR_small.dcm", "test-SR.dcm", "reportsi.dcm")


def _moved(conversations: Sequence[Conversation]) -> dict[str, set[bytes]]:
    came: dict[str, set[bytes]] = {}
    for conversation in conversations:
        came |= stores(conversation.requests())
    return came


@pytest.mark.parametrize("tool", ["movescu", "pynetdicom_movescu"])
def test_c_move_gives_back_every_byte(
    data: Path, dcmtk: None, pynetdicom_apps: None, tmp_path: Path, tool: str
) -> None:
    require("movescu")
    sent = chosen()
    with peers.storescp(tmp_path / "got", "+B", "+xa") as receiver, Tap(receiver.port) as tap:
        configure(data, peers_=[Peer("to", "STORESCP", "127.0.0.1", tap.port)])
        with Gateway(data) as gateway:
            push(gateway, [each.path for each in sent])
            for study in sorted({each.study for each in sent}):
                options = ("-S", "-aem", "STORESCP", "-k", "QueryRetrieveLevel=STUDY",
                           "-k", f"StudyInstanceUID={study}")  # fmt: skip
                getattr(peers, tool)("RAIVEN", gateway.port, *options).check()
            came = _moved(tap.wait_ended(len(tap.conversations)))
    check_came_back(sent, came)


def test_orthanc_retrieves_what_it_found(data: Path, tmp_path: Path) -> None:
    require("Orthanc")
    sent = [each for each in chosen() if each.path.name in _COMMON]
    with Gateway(data) as gateway:
        push(gateway, [each.path for each in sent])
        known = {"hilum": peers.Modality("RAIVEN", gateway.port)}
        with peers.orthanc(tmp_path / "orthanc", modalities=known) as server:
            with Tap(server.port) as tap:
                add = ("peer", "add", "orthanc", f"ORTHANC@127.0.0.1:{tap.port}")
                gateway_command(data, *add, "--service", "query", "--service", "retrieve")
                query = {"Level": "Study", "Query": {"StudyInstanceUID": ""}}
                made = server.rest("/modalities/hilum/query", query)
                job = {"TargetAet": "ORTHANC", "Synchronous": True}
                server.rest(f"/queries/{made['ID']}/retrieve", job)
                came = _moved(tap.wait_ended(len(tap.conversations)))
            assert len(server.rest("/instances")) == len(sent)
    check_came_back(sent, came)


def gateway_command(data: Path, *words: str) -> None:
    import subprocess
    import sys

    from tests.e2e.gateway import environment

    command = [sys.executable, "-m", "hilum", *words, "--data", str(data)]
    subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=60)


# ── who sees what ─────────────────────────────────────────────────────────────────────────────


def test_private_data_is_for_a_peer_that_proves_who_it_is(data: Path, tmp_path: Path) -> None:
    configure(
        data,
        peers_=[Peer("ws", "WS", "127.0.0.1", services=("echo", "store", "query", "retrieve"))],
        passcodes={"alice": "correct horse"},
    )
    datasets = data_sets(11, patients=3)
    files = written(datasets, tmp_path / "files")
    everything = identifier("STUDY", StudyInstanceUID="")
    studies = {ds.StudyInstanceUID for ds in datasets}
    hers = UserIdentityRQ(2, b"alice", b"correct horse", True)

    def seen(**options: object) -> set[str]:
        ((status, answers),) = asyncio.run(ask(gateway, [everything], **options))
        assert status == 0
        return {answer.StudyInstanceUID for answer in answers}

    with Gateway(data) as gateway:
        push(gateway, files, "RVU-alice")
        assert seen() == set(), "anyone on this machine"
        assert seen(calling="WS") == set(), "a calling AE title proves nothing"
        assert seen(calling="WS", user_identity=UserIdentityRQ(1, b"alice")) == set()
        assert seen(calling="OTHER", user_identity=hers) == set(), "no known peer"
        assert seen(calling="WS", user_identity=hers) == studies
        with pytest.raises(AssociationRejected):
            seen(calling="WS", user_identity=UserIdentityRQ(2, b"alice", b"wrong"))
        with pytest.raises(AssociationRejected):
            seen(calling="WS", user_identity=UserIdentityRQ(2, b"nobody", b"correct horse"))
        push(gateway, files, "RAIVEN")
        assert seen() == studies
        assert seen(calling="WS", user_identity=hers) == studies, "each once"


def test_a_peer_is_known_by_its_certificate(data: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, key = authority.issue("server")
    ours, others = authority.issue("ws"), authority.issue("other")
    settings = {
        "HILUM_TLS_CERTIFICATE": str(server),
        "HILUM_TLS_KEY": str(key),
        "HILUM_TLS_CLIENT_CA": str(authority.ca),
    }
    port = peers.free_port()
    gateway_command(data, "listener", "add", "secure", f"127.0.0.1:{port}", "--tls")
    add = ("peer", "add", "ws", "WS@127.0.0.1", "--service", "query", "--service", "store")
    gateway_command(data, *add, "--user", "alice", "--certificate", str(ours[0]))
    datasets = data_sets(13, patients=2)
    files = written(datasets, tmp_path / "files")
    everything = identifier("STUDY", StudyInstanceUID="")

    async def seen(certificate: tuple[Path, Path], calling: str) -> set[str]:
        tls = client_context(ca=authority.ca, certificate=certificate[0], key=certificate[1])
        async with await connect(
            "127.0.0.1", port, called="RAIVEN", calling=calling, contexts=FIND, tls=tls
        ) as association:
            responses = association.c_find(everything, sop_class_uid=STUDY)
            found = [r.dataset() async for r in responses if r.data is not None]
        return {answer.StudyInstanceUID for answer in found}

    with Gateway(data, settings=settings) as gateway:
        push(gateway, files, "RVU-alice")
        assert asyncio.run(seen(ours, "WS")) == {ds.StudyInstanceUID for ds in datasets}
        assert asyncio.run(seen(others, "WS")) == set(), "another one's certificate"
        assert asyncio.run(seen(ours, "SOMEONE")) == set(), "no known peer"


def test_titles_of_users_and_unwelcome_peers_answer_no_queries(data: Path) -> None:
    configure(data, peers_=[Peer("ct", "CT1", "127.0.0.1")])

    async def accepted(called: str, calling: str = "HILUM") -> set[str]:
        contexts = (("1.2.840.10008.1.1", (EXPLICIT,)), *FIND,
                    (sop_classes.STUDY_ROOT_GET, (EXPLICIT,)))  # fmt: skip
        async with await connect(
            "127.0.0.1", gateway.port, called=called, calling=calling, contexts=contexts
        ) as association:
            return {context.abstract_syntax for context in association.contexts.values()}

    with Gateway(data) as gateway:
        assert asyncio.run(accepted("RAIVEN")) >= {STUDY, PATIENT, sop_classes.STUDY_ROOT_GET}
        assert asyncio.run(accepted("RVU-alice")) == {"1.2.840.10008.1.1"}
        assert asyncio.run(accepted("RAIVEN", "CT1")) == {"1.2.840.10008.1.1"}
