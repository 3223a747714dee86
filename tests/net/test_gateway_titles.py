"""A gateway in this process, spoken to over TCP: titles, duplicates, patients, character sets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from tests.net.peer import until
from tests.unit.gateway.store.archive_world import CT, EXPLICIT, IMPLICIT, encode, image

from hilum.errors import AssociationRejected, ConnectFailed, ConnectionLost
from hilum.gateway import app
from hilum.gateway.app import Gateway, initialise
from hilum.gateway.config import Access, Config, Store
from hilum.gateway.store import queries
from hilum.gateway.store.directory import CalledTitle, Directory, Listener, Peer
from hilum.gateway.store.results import StudyRow, Viewer
from hilum.gateway.store.states import DuplicatePolicy, InstanceFlag, MissingUidPolicy
from hilum.net import Association, connect
from hilum.net.association import Response

ECHO = (("1.2.840.10008.1.1", (IMPLICIT,)),)
PALETTE = "1.2.840.10008.5.1.4.39.1"  # Color Palette Storage
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    data = tmp_path / "data"
    initialise(data)
    started = await Gateway.start(
        Config(
            data=str(data),
            dicom="127.0.0.1:0",
            web="off",
            store=Store(strategy="fsync", reserve=0),
            access=Access(),
        )
    )
    yield started
    await started.stop()


@pytest.fixture
def directory(gateway: Gateway) -> Directory:
    return gateway._storage.directory


async def live(gateway: Gateway) -> None:
    """Wait until the gateway follows what was changed."""
    directory = gateway._storage.directory
    await until(
        lambda: gateway._router.snapshot.changes == directory.changes(), "changes are not followed"
    )


async def call(
    gateway: Gateway,
    called: str = "RAIVEN",
    *,
    calling: str = "CT1",
    listener: str = "dicom",
    contexts: Sequence[tuple[str, tuple[str, ...]]] = ((CT, (EXPLICIT,)), (CT, (IMPLICIT,))),
) -> Association:
    port = gateway.servers[listener][1].port
    return await connect("127.0.0.1", port, called=called, calling=calling, contexts=contexts)


async def store(
    gateway: Gateway,
    data_set: Dataset,
    called: str = "RAIVEN",
    *,
    transfer_syntax: str = EXPLICIT,
    sop: str = "",
    sop_class: str = CT,
    raw: bytes | None = None,
    **options: Any,
) -> Response:
    contexts = ((sop_class, (transfer_syntax,)),)
    async with await call(gateway, called, contexts=contexts, **options) as association:
        return await association.c_store(
            (encode(data_set, transfer_syntax) if raw is None else raw,),
            sop_class_uid=sop_class,
            sop_instance_uid=sop or data_set.SOPInstanceUID,
            transfer_syntax_uid=transfer_syntax,
        )


def studies(gateway: Gateway, viewer: Viewer = Viewer()) -> list[StudyRow]:  # noqa: B008
    return list(queries.list_studies(gateway._storage.database, viewer).rows)


def seen(gateway: Gateway, viewer: Viewer = Viewer()) -> list[str]:  # noqa: B008
    rows = queries.list_instances(gateway._storage.database, viewer).rows
    return sorted(row.sop_uid for row in rows)


def files(gateway: Gateway) -> list[Path]:
    return [p for p in (gateway._storage.data / "objects").rglob("*") if p.is_file()]


# ── titles ────────────────────────────────────────────────────────────────────────────────────


async def test_users_see_everyones_and_their_own(gateway: Gateway, directory: Directory) -> None:
    alice = directory.add_account("alice")
    long = directory.add_account("radiology-research", alias_title="RESEARCH")
    bob = directory.add_account("bob")
    await live(gateway)
    assert (await store(gateway, image("1.1"))).status == 0
    assert (await store(gateway, image("1.2"), "RVU-alice")).status == 0
    assert (await store(gateway, image("1.3"), "RESEARCH")).status == 0
    assert (await store(gateway, image("1.1"), "RVU-alice")).status == 0, "hers beside everyone's"
    assert seen(gateway) == ["1.1"]
    assert seen(gateway, Viewer(account_id=alice.id)) == ["1.1", "1.2"]
    assert seen(gateway, Viewer(account_id=bob.id)) == ["1.1"]
    assert seen(gateway, Viewer(account_id=long.id)) == ["1.1", "1.3"]
    # The committer moves them out of its segment by and by.
    await until(lambda: len(files(gateway)) == 4, "a file for each")


@pytest.mark.parametrize("called", ["XRAIVEN", "raiven", "RVU-unknown", "RVP-unknown", "RVU-"])
async def test_unknown_titles_are_rejected(gateway: Gateway, called: str) -> None:
    with pytest.raises(AssociationRejected) as rejected:
        await call(gateway, called)
    found = rejected.value
    assert (found.result, found.source, found.reason) == (1, 1, 7)
    assert files(gateway) == []


async def test_changes_are_followed(gateway: Gateway, directory: Directory) -> None:
    directory.add_account("alice")
    directory.put_called_title(CalledTitle("TRIAL"))
    await live(gateway)
    for called in ("RVU-alice", "TRIAL", "RAIVEN", "HILUM"):
        async with await call(gateway, called, contexts=ECHO) as association:
            assert (await association.c_echo()).status == 0
    directory.disable_account("alice")
    directory.remove_called_title("TRIAL")
    await live(gateway)
    for called in ("RVU-alice", "TRIAL"):
        with pytest.raises(AssociationRejected):
            await call(gateway, called)


async def test_an_association_in_progress_is_not_disturbed_by_changes(
    gateway: Gateway, directory: Directory
) -> None:
    directory.add_account("alice")
    await live(gateway)
    async with await call(gateway, "RVU-alice") as association:
        directory.remove_account("alice")
        await live(gateway)
        response = await association.c_store(
            (encode(image()),),
            sop_class_uid=CT,
            sop_instance_uid="1.2.3",
            transfer_syntax_uid=EXPLICIT,
        )
    assert response.status == 0
    assert seen(gateway) == []


async def test_callers_are_let_in_as_peers_and_refused_without(
    gateway: Gateway, directory: Directory
) -> None:
    gateway.config = replace(gateway.config, access=Access(allow_local=False))
    directory.put_peer(Peer("other", "OTHER", "127.0.0.1"))
    await live(gateway)
    with pytest.raises(AssociationRejected) as rejected:
        await call(gateway)
    assert rejected.value.reason == 3
    assert (await call_and_echo(gateway, calling="OTHER")).status == 0
    directory.put_peer(Peer("ct", "CT1", "127.0.0.1", services=("echo",)))
    await live(gateway)
    assert (await call_and_echo(gateway)).status == 0
    directory.remove_peer("ct")
    await live(gateway)
    with pytest.raises(AssociationRejected):
        await call(gateway)


async def call_and_echo(gateway: Gateway, **where: Any) -> Response:
    async with await call(gateway, contexts=ECHO, **where) as association:
        return await association.c_echo()


# ── listeners ─────────────────────────────────────────────────────────────────────────────────


async def test_a_peers_name_is_looked_up_again(
    gateway: Gateway, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "LOOK_UP_NAMES", 0.05)
    gateway._task(gateway._follow_names(), "names, sooner")
    gateway.config = replace(gateway.config, access=Access(allow_local=False))
    found = ["198.51.100.7"]
    resolve = socket.getaddrinfo

    def resolver(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve(found[0] if host == "scanner.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    directory.put_peer(Peer("scanner", "CT1", "scanner.example"))
    await live(gateway)
    with pytest.raises(AssociationRejected):
        await call(gateway)
    found[0] = "127.0.0.1"
    is_local = lambda: any(  # noqa: E731
        network.is_loopback for network in gateway._router.networks.get("scanner.example", ())
    )
    await until(is_local, "the name is not looked up again")
    async with await call(gateway, contexts=ECHO) as association:
        assert (await association.c_echo()).status == 0


async def test_a_slow_resolver_holds_up_no_change(
    gateway: Gateway, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "LOOK_UP_WITHIN", 0.05)
    answers = threading.Event()
    resolve = socket.getaddrinfo

    def resolver(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "slow.example":
            answers.wait(10)
            return resolve("127.0.0.1", *rest, **more)
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    directory.put_peer(Peer("slow", "CT1", "slow.example"))
    await live(gateway)
    assert gateway._router.networks == {"slow.example": ()}
    answers.set()
    await until(lambda: gateway._router.networks["slow.example"], "the answer is not used")


async def test_listeners_open_and_close_while_running(
    gateway: Gateway, directory: Directory
) -> None:
    directory.put_listener(Listener("dose", 0, "127.0.0.1", any_title=True, default_title="RAIVEN"))
    await live(gateway)
    await until(lambda: "dose" in gateway.servers, "the listener is not open")
    assert (await store(gateway, image(), "STOREOPENREM", listener="dose")).status == 0
    with pytest.raises(AssociationRejected):
        await call(gateway, "RVU-nobody", listener="dose")
    port = gateway.servers["dose"][1].port
    directory.remove_listener("dose")
    await live(gateway)
    await until(lambda: "dose" not in gateway.servers, "the listener is not closed")
    # What the kernel had accepted already is closed with the listener.
    with pytest.raises((ConnectFailed, ConnectionLost)):
        await connect("127.0.0.1", port, called="RAIVEN", calling="CT1", contexts=ECHO)
    assert seen(gateway) == ["1.2.3"]


async def test_a_listener_changes_its_host_on_the_same_port(
    gateway: Gateway, directory: Directory, free_port: int
) -> None:
    directory.put_listener(Listener("dose", free_port, "127.0.0.1"))
    await until(lambda: "dose" in gateway.servers, "the listener is not open")
    directory.put_listener(Listener("dose", free_port, "0.0.0.0"))
    await until(
        lambda: "dose" in gateway.servers and gateway.servers["dose"][0].host == "0.0.0.0",
        "the listener has not moved",
    )
    assert (await call_and_echo(gateway, listener="dose")).status == 0
    # A name may go and another take the address, in one change seen by the gateway.
    directory.remove_listener("dose")
    directory.put_listener(Listener("other", free_port, "127.0.0.1"))
    await until(lambda: "other" in gateway.servers, "the listener is not open")
    assert (await call_and_echo(gateway, listener="other")).status == 0


async def test_a_port_that_is_taken_is_tried_again(
    gateway: Gateway, directory: Directory, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    taken = await asyncio.start_server(refuse, "127.0.0.1", free_port)
    directory.put_listener(Listener("dose", free_port, "127.0.0.1"))
    await until(lambda: gateway._not_open, "the listener was not tried")
    taken.close()
    await taken.wait_closed()
    await until(lambda: "dose" in gateway.servers, "the listener was not tried again")
    assert (await call_and_echo(gateway, listener="dose")).status == 0
    assert len([r for r in caplog.records if "listener dose" in r.getMessage()]) == 1


@pytest.fixture
def free_port() -> int:
    from tests.peers import free_port

    return free_port()


# ── what is stored ────────────────────────────────────────────────────────────────────────────


async def test_duplicates_by_the_policy_of_each_title(
    gateway: Gateway, directory: Directory
) -> None:
    for policy in DuplicatePolicy:
        directory.put_called_title(CalledTitle(policy.name, duplicates=policy))
    await live(gateway)
    expected = {"KEEP_BOTH": (0, "2"), "KEEP_FIRST": (0xC001, "1"), "REPLACE": (0, "2")}
    for number, (title, (status, current)) in enumerate(expected.items()):
        sop = f"1.2.3.{number}"
        first, other = image(sop, AccessionNumber="1"), image(sop, AccessionNumber="2")
        assert (await store(gateway, first, title)).status == 0
        assert (await store(gateway, first, title)).status == 0
        assert (await store(gateway, first, title, transfer_syntax=IMPLICIT)).status == 0
        response = await store(gateway, other, title)
        assert response.status == status
        if status:
            assert response.command.error_comment
        (row,) = (
            row
            for row in queries.list_instances(gateway._storage.database, Viewer()).rows
            if row.sop_uid == sop
        )
        file, _ = gateway._storage.blobs.open_read(row.path)
        with file:
            assert (b"SH\x02\x00%s " % current.encode()) in file.read()
    await until(lambda: len(files(gateway)) == 4, "1 + 1 versions, the first, the newest")


@pytest.mark.parametrize(
    "elements",
    [
        {"StudyInstanceUID": None},
        {"SeriesInstanceUID": None},
        {"SOPInstanceUID": "9.9"},
        {"SOPClassUID": PRIVATE_CLASS},
    ],
)
async def test_what_does_not_fit_is_a900(gateway: Gateway, elements: dict[str, Any]) -> None:
    response = await store(gateway, image(**elements), sop="1.2.3")
    assert response.status == 0xA900
    assert response.command.error_comment
    assert seen(gateway) == []
    assert files(gateway) == []


async def test_quarantine_where_the_title_says_so(gateway: Gateway, directory: Directory) -> None:
    title = CalledTitle("TRIAL", missing_uids=MissingUidPolicy.QUARANTINE)
    directory.put_called_title(title)
    await live(gateway)
    assert (await store(gateway, image(StudyInstanceUID=None), "TRIAL")).status == 0
    assert seen(gateway) == []
    assert seen(gateway, Viewer(all=True)) == []
    assert seen(gateway, Viewer(quarantine=True)) == ["1.2.3"]


async def test_objects_of_no_patient_are_kept_and_listed_apart(
    gateway: Gateway, directory: Directory
) -> None:
    alice = directory.add_account("alice")
    await live(gateway)
    nobodys = {"PatientID": None, "PatientName": None, "StudyInstanceUID": None,
               "SeriesInstanceUID": None, "Modality": None, "StudyDate": None}  # fmt: skip
    palette = image(SOPClassUID=PALETTE, **nobodys)
    options = {"sop_class": PALETTE}
    assert (await store(gateway, palette, **options)).status == 0
    assert (await store(gateway, palette, "RVU-alice", **options)).status == 0
    assert (await store(gateway, image("1.2.4"))).status == 0
    database = gateway._storage.database
    for viewer in (Viewer(), Viewer(account_id=alice.id), Viewer(all=True)):
        assert sorted(seen(gateway, viewer)) == ["1.2.3", "1.2.4"]
        assert [row.study_uid for row in studies(gateway, viewer)] == ["1.2"]
        assert len(queries.list_patients(database, viewer).rows) == 1
        assert [row.series_uid for row in queries.list_series(database, viewer).rows] == ["1.2.1"]
    everything = queries.list_instances(database, Viewer(all=True), every_owner=True).rows
    assert sorted((row.sop_uid, row.owner_id, row.study_uid) for row in everything) == [
        ("1.2.3", 0, ""), ("1.2.3", alice.id, ""), ("1.2.4", 0, "1.2")
    ]  # fmt: skip
    totals = queries.statistics(database, Viewer())
    assert (totals.patients, totals.studies, totals.series, totals.instances) == (1, 1, 1, 2)


async def test_a_private_sop_class_is_kept(gateway: Gateway) -> None:
    private = image(SOPClassUID=PRIVATE_CLASS)
    assert (await store(gateway, private, sop_class=PRIVATE_CLASS)).status == 0
    (row,) = queries.list_instances(gateway._storage.database, Viewer()).rows
    assert row.sop_class == PRIVATE_CLASS


async def test_the_best_of_several_syntaxes_is_chosen(gateway: Gateway) -> None:
    jpeg, lossless = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
    contexts = (
        (CT, (jpeg, IMPLICIT, EXPLICIT)),
        (CT, (jpeg, lossless)),
        (CT, (jpeg, lossless, IMPLICIT)),
    )
    async with await call(gateway, contexts=contexts) as association:
        chosen = [c.transfer_syntax for c in association.contexts.values()]
    assert chosen == [EXPLICIT, lossless, IMPLICIT]


async def test_empty_patient_ids_never_merge(gateway: Gateway) -> None:
    for number in (1, 2):
        anonymous = image(f"1.{number}", PatientID="", StudyInstanceUID=f"1.2.{number}")
        assert (await store(gateway, anonymous)).status == 0
    missing = image("1.3", PatientID=None, StudyInstanceUID="1.2.3")
    assert (await store(gateway, missing)).status == 0
    patients = queries.list_patients(gateway._storage.database, Viewer()).rows
    assert [(row.patient_id, row.n_studies) for row in patients] == [("", 1)] * 3
    known = image("1.4", StudyInstanceUID="1.2.4"), image("1.5", StudyInstanceUID="1.2.5")
    for each in known:
        assert (await store(gateway, each)).status == 0
    patients = queries.list_patients(gateway._storage.database, Viewer()).rows
    assert {(row.patient_id, row.n_studies) for row in patients} == {("", 1), ("P1", 2)}


async def test_one_study_under_two_patients_is_kept_and_flagged(gateway: Gateway) -> None:
    assert (await store(gateway, image("1.1"))).status == 0
    assert [row.conflict for row in studies(gateway)] == [False]
    assert (await store(gateway, image("1.2", PatientID="P2"))).status == 0
    issuer = image("1.3", IssuerOfPatientID="ELSEWHERE")
    assert (await store(gateway, issuer)).status == 0
    found = {(row.patient_id, row.issuer, row.conflict) for row in studies(gateway)}
    assert found == {("P1", "", True), ("P2", "", True), ("P1", "ELSEWHERE", True)}


JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"


@pytest.mark.parametrize(
    ("charset", "raw", "shown"),
    [
        (None, b"Doe^Jane", "Doe^Jane"),
        ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        ("ISO_IR 192", "Ωμέγα^Ñandú".encode(), "Ωμέγα^Ñandú"),
        ("GB18030", "王^小東".encode("gb18030"), "王^小東"),
        ("\\ISO 2022 IR 87", JAPANESE, "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
async def test_names_are_read_by_their_character_set(
    gateway: Gateway, charset: str | None, raw: bytes, shown: str
) -> None:
    assert (await store(gateway, image(), raw=named(charset, raw))).status == 0
    assert [row.patient_name for row in studies(gateway)] == [shown]


async def test_text_without_a_character_set_is_read_by_the_peers(
    gateway: Gateway, directory: Directory
) -> None:
    directory.put_peer(Peer("wang", "WANG", "127.0.0.1", fallback_charset="GB18030"))
    directory.put_called_title(CalledTitle("GREEK", fallback_charset="ISO_IR 126"))
    await live(gateway)
    chinese = named(None, "王^小東".encode("gb18030"))
    elsewhere = {"StudyInstanceUID": "1.3", "PatientID": "P2"}
    greek = named(None, "Ωμέγα".encode("iso8859-7"), SOPInstanceUID="1.2.4", **elsewhere)
    assert (await store(gateway, image(), raw=chinese, calling="WANG")).status == 0
    assert (await store(gateway, image("1.2.4"), "GREEK", raw=greek)).status == 0
    assert {row.patient_name for row in studies(gateway)} == {"王^小東", "Ωμέγα"}


def named(charset: str | None, raw: bytes, **elements: Any) -> bytes:
    """An image with that name, in bytes that no library has touched."""
    data = encode(image(PatientName="@" * (len(raw) + len(raw) % 2), **elements))
    data = data.replace(b"@" * (len(raw) + len(raw) % 2), raw + b" " * (len(raw) % 2))
    if charset is None:
        return data
    value = charset.encode() + b" " * (len(charset) % 2)
    return b"\x08\0\x05\0CS" + len(value).to_bytes(2, "little") + value + data


async def test_a_mislabelled_object_is_flagged(gateway: Gateway) -> None:
    raw = encode(image(), IMPLICIT)
    assert (await store(gateway, image(), raw=raw)).status == 0
    (row,) = queries.list_instances(gateway._storage.database, Viewer()).rows
    assert row.flags == InstanceFlag.MISLABELLED


# ── the end ───────────────────────────────────────────────────────────────────────────────────


async def test_stop_finishes_what_is_in_progress_also_on_a_listener_that_was_removed(
    gateway: Gateway, directory: Directory
) -> None:
    directory.put_listener(Listener("dose", 0, "127.0.0.1"))
    await until(lambda: "dose" in gateway.servers, "the listener is not open")
    association = await call(gateway, listener="dose")
    slow = encode(image(pixels=3_000_000))
    begun = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(slow), 100_000):
            yield slow[start : start + 100_000]
            begun.set()
            await asyncio.sleep(0.01)

    storing = asyncio.ensure_future(
        association.c_store(
            pieces(), sop_class_uid=CT, sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT
        )
    )
    await begun.wait()
    directory.remove_listener("dose")
    await until(lambda: "dose" not in gateway.servers, "the listener is not closed")
    await gateway.stop()
    assert (await storing).status == 0
    association.abort()
