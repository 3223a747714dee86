"""The web process over HTTP: real uvicorn, real heartbeat file, real store and database."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.gateway.store.index_world import make, put

import hilum
from hilum.errors import ConfigurationError, StorageFailed
from hilum.gateway import heartbeat
from hilum.gateway.heartbeat import FRESH, Heartbeat
from hilum.gateway.store import schema
from hilum.gateway.store.blobs import MARKER, BlobStore
from hilum.gateway.store.database import Database, open_database, upgrade
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.entries import CalledTitle
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.observe import open_to_look, recent_events
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.web import app as web
from hilum.gateway.web import metrics

PATHS = ("/", "/style.css", "/healthz", "/readyz", "/metrics")


def beat(data: Path, **fields: object) -> None:
    heartbeat.write(data, Heartbeat(version="1.2.3", **fields))  # type: ignore[arg-type]


def silence(data: Path) -> None:
    """Make the last heartbeat an old one."""
    found = heartbeat.read(data)
    assert found is not None
    file = data / "run" / "receiver.json"
    file.write_text(
        file.read_text().replace(str(found.written), str(time.time() - FRESH - 60)),
        encoding="utf-8",
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory as a running gateway leaves it."""
    data = tmp_path / "data"
    BlobStore.create(data)
    database = open_database(data / "hilum.db", role="receiver", create=True)
    upgrade(database)
    directory = Directory(database, actor="gateway")
    directory.create_defaults()
    directory.add_account("alice")
    directory.put_called_title(CalledTitle("SECRETLAB", enabled=False))
    writer = IndexWriter(database)
    put(
        writer,
        make("1.5.1", content=b"x" * 1000),
        make("1.5.2", content=b"y" * 24),
        make("1.5.3", patient="P2", study="1.2", series="1.2.1", content=b"z" * 1024),
    )
    writer.close()
    remove(database, Scope(sop_uid="1.5.2"), by="bob", reason="Doe^Jane asked for it")
    database.close()
    beat(data, listeners=["127.0.0.1:11112"], associations=3, stored=7, free_bytes=5 << 30)
    return data


@asynccontextmanager
async def served(
    data: Path, database: str | Path | None = None, **options: object
) -> AsyncIterator[httpx.AsyncClient]:
    listening = socket.create_server(("127.0.0.1", 0))
    application = web.create_app(data, database or data / "hilum.db", **options)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, access_log=False))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        await task
        listening.close()


def samples(text: str) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Text(HTMLParser):
    """What a reader sees, and which elements there are."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


# Routes -------------------------------------------------------------------------------------------


async def test_ready_and_healthy(data: Path) -> None:
    async with served(data) as client:
        health, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (health.status_code, health.text) == (200, "ok")
    assert (ready.status_code, ready.json()) == (200, [])


async def test_status_page(data: Path) -> None:
    async with served(data, reserve=1 << 30) as client:
        answer = await client.get("/")
    assert answer.status_code == 200
    page = Text(answer.text)
    for expected in (
        f"Hilum {hilum.__version__}",
        "Ready",
        "Version 1.2.3",
        "127.0.0.1:11112",
        "Associations now 3",
        "7 stored",
        "5.0 GiB, 1.0 GiB of it reserved",
        "Patients 2",
        "Studies 2",
        "Series 2",
        "Instances 2",
        "Size 2.0 KiB",
        "HILUM everyone",
        "each of 1 user",
        "dicom *:11112",
        "remove bob",
        "add account gateway",
    ):
        assert expected in page.text, expected
    assert '<meta http-equiv="refresh"' in answer.text
    assert "script" not in page.tags


async def test_nothing_about_patients_and_users(data: Path) -> None:
    async with served(data) as client:
        seen = "".join([(await client.get(path)).text for path in PATHS])
    # Patient, UIDs, reason of the removal, user, a title that is not served.
    for hidden in ("Doe", "Jane", "P1", "1.5.", "1.2.1", "asked", "alice", "SECRETLAB", "20240229"):
        assert hidden not in seen, hidden


async def test_metrics(data: Path) -> None:
    beat(
        data, associations=3, associations_accepted=11, associations_rejected=2, stored=7,
        stored_bytes=700, duplicates=1, refused=4, failed=5, waiting=6, batches=8,
        connections_refused=9, free_bytes=12, started=1000.0,
    )  # fmt: skip
    async with served(data, reserve=10) as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.text)
    assert found == {
        "hilum_build_info": 1,
        "hilum_ready": 1,
        "hilum_receiver_up": 1,
        "hilum_receiver_start_time_seconds": 1000,
        "hilum_database_up": 1,
        "hilum_associations": 3,
        "hilum_commit_waiting": 6,
        "hilum_store_free_bytes": 12,
        "hilum_store_reserve_bytes": 10,
        "hilum_associations_accepted_total": 11,
        "hilum_associations_rejected_total": 2,
        "hilum_connections_refused_total": 9,
        "hilum_instances_stored_total": 7,
        "hilum_instances_duplicate_total": 1,
        "hilum_instances_refused_total": 4,
        "hilum_instances_failed_total": 5,
        "hilum_stored_bytes_total": 700,
        "hilum_commit_batches_total": 8,
        "hilum_archive_patients": 2,
        "hilum_archive_studies": 2,
        "hilum_archive_series": 2,
        "hilum_archive_instances": 2,
        "hilum_archive_bytes": 2024,
    }
    documented = metrics.__doc__ or ""
    assert [name for name in found if name not in documented and "archive" not in name] == []


async def test_metrics_of_a_silent_receiver_keep_counters_only(data: Path) -> None:
    silence(data)
    async with served(data) as client:
        found = samples((await client.get("/metrics")).text)
    assert found["hilum_receiver_up"] == found["hilum_ready"] == 0
    assert found["hilum_instances_stored_total"] == 7
    assert "hilum_associations" not in found
    assert found["hilum_archive_instances"] == 2


# Not ready ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (lambda data: (data / "run" / "receiver.json").unlink(), "no receiver has reported"),
        (
            lambda data: (data / "run" / "receiver.json").write_text("[1"),
            "no receiver has reported",
        ),
        (silence, "silent for 65 s"),
        (lambda data: beat(data, accepting=False), "accepts no associations"),
        (lambda data: (data / MARKER).unlink(), "is missing"),
        (lambda data: (data / "hilum.db").unlink(), "no database at"),
        (lambda data: (data / "hilum.db").write_bytes(b"not SQLite" * 1000), "cannot be read"),
    ],
    ids=["none", "garbage", "silent", "stopping", "marker", "no database", "damaged database"],
)
async def test_not_ready(data: Path, broken, problem: str) -> None:  # type: ignore[no-untyped-def]
    broken(data)
    async with served(data) as client:
        ready, page = await client.get("/readyz"), await client.get("/")
        health, numbers = await client.get("/healthz"), await client.get("/metrics")
    assert ready.status_code == 503
    assert len(ready.json()) == 1
    assert problem in ready.json()[0]
    assert problem in Text(page.text).text
    assert "Not ready" in Text(page.text).text
    assert (health.status_code, page.status_code, numbers.status_code) == (200, 200, 200)


async def test_everything_that_is_wrong_is_listed(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        ready, page = await client.get("/readyz"), await client.get("/")
    assert len(ready.json()) == 3
    assert "has never reported" in Text(page.text).text


async def test_a_database_that_comes_later_is_found(data: Path) -> None:
    (data / "hilum.db").rename(data / "away.db")
    async with served(data) as client:
        assert (await client.get("/readyz")).status_code == 503
        (data / "away.db").rename(data / "hilum.db")
        async with asyncio.timeout(20):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
                beat(data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_a_disk_that_hangs_makes_it_not_ready_and_holds_nothing_else(data: Path) -> None:
    file = data / "run" / "receiver.json"
    content = file.read_bytes()
    file.unlink()
    os.mkfifo(file)  # reading it hangs until someone writes
    async with served(data, patience=1.0) as client:
        first, second = await asyncio.gather(client.get("/readyz"), client.get("/readyz"))
        assert first.status_code == second.status_code == 503
        assert "did not answer within 1 s" in first.json()[0]
        assert (await client.get("/healthz")).status_code == 200
        numbers = samples((await client.get("/metrics")).text)
        assert numbers["hilum_receiver_up"] == 0
        assert numbers["hilum_archive_instances"] == 2
        with file.open("wb") as pipe:
            pipe.write(content)
        file.unlink()
        file.write_bytes(content)
        beat(data)
        async with asyncio.timeout(20):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
                beat(data)


# Protection ---------------------------------------------------------------------------------------


async def test_only_get_and_head(data: Path) -> None:
    async with served(data) as client:
        for path in PATHS:
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                assert (await client.request(method, path)).status_code == 405, (method, path)


async def test_headers_of_every_answer(data: Path) -> None:
    async with served(data) as client:
        answers = [await client.get(path) for path in (*PATHS, "/none", "/../../etc/passwd")]
        answers.append(await client.post("/"))
        answers.append(await client.get("/", headers={"host": "evil.example"}))
    assert [answer.status_code for answer in answers] == [200] * 5 + [404] * 2 + [405, 421]
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("bound", "host", "served_there"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST:8484", True),
        ("127.0.0.1", "localhost.", True),
        ("127.0.0.1", "127.0.0.1:1", True),
        ("127.0.0.1", "[::1]:8484", True),
        ("127.0.0.1", "pacs.example", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "10.0.0.1", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "[::1]evil", False),
        ("127.0.0.1", "*", False),
        ("127.0.0.1", "", False),
        ("10.0.0.1", "10.0.0.1:8484", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("0.0.0.0", "10.0.0.2:8484", True),
        ("::", "[fe80::1]:8484", True),
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", "*", False),
    ],
)
async def test_host_header(data: Path, bound: str, host: str, served_there: bool) -> None:
    async with served(data, bound=bound, hosts=["PACS.example"]) as client:
        answer = await client.get("/healthz", headers={"host": host})
    assert answer.status_code == (200 if served_there else 421)


async def test_two_hosts_or_none_are_not_served(data: Path) -> None:
    async with served(data) as client:
        port = client.base_url.port
        for hosts in (b"Host: localhost\r\nHost: evil.example\r\n", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\n" + hosts + b"\r\n")
            line = await asyncio.wait_for(reader.readline(), 20)
            assert line.split()[1] in (b"400", b"421")
            writer.close()
            await writer.wait_closed()


async def test_what_is_shown_is_escaped(data: Path) -> None:
    database = open_database(data / "hilum.db", role="command")
    Directory(database, actor="<script>alert(1)</script>").add_account("carol")
    database.close()
    async with served(data) as client:
        html = (await client.get("/")).text
    assert "&lt;script&gt;" in html
    assert "script" not in Text(html).tags


# Cost ---------------------------------------------------------------------------------------------


async def test_requests_share_one_look(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = Database.read

    def counted(self: Database):  # type: ignore[no-untyped-def]
        reads.append(self)
        return read(self)

    monkeypatch.setattr(Database, "read", counted)
    # Looks are a second apart at least; the answers come from the first one or two.
    async with served(data) as client:
        await client.get("/")
        once = len(reads)
        began = time.monotonic()
        await asyncio.gather(*(client.get(path) for path in PATHS * 4))
        looks = 1 + int(time.monotonic() - began + 1)
    assert once <= 5  # the version, directory, events, totals
    assert len(reads) <= once * looks


async def test_the_database_is_opened_for_reading(data: Path) -> None:
    database = open_to_look(data / "hilum.db")
    try:
        assert [event.action for event in recent_events(database, 2)] == [
            "remove",
            "put called title",
        ]
        with pytest.raises(StorageFailed, match="readonly"), database.write() as connection:
            connection.execute(schema.event.delete())
        assert recent_events(database, 1)
    finally:
        database.close()


# The process --------------------------------------------------------------------------------------

RUN = (
    "import sys; from pathlib import Path; from hilum.gateway.web.app import run; "
    "run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), stop_on_stdin_eof=True)"
)


def start(
    data: Path, host: str = "127.0.0.1", port: int = 0, *, before: str = "pass"
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}; {RUN}", str(data), host, str(port)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def url(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    found = re.search(r"http://\S+/", line)
    assert found, line
    return found[0]


def wait_until_ready(data: Path, address: str) -> None:
    """A process that took long to start finds the fixture's heartbeat stale."""
    deadline = time.monotonic() + 30
    while True:
        beat(data)
        answer = httpx.get(address + "readyz", timeout=20)
        if answer.status_code == 200:
            return
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    try:
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    return process.returncode, errors


def test_the_process_ends_with_its_parent(data: Path) -> None:
    process = start(data)
    try:
        wait_until_ready(data, url(process))
    except BaseException:
        process.kill()
        process.communicate()
        raise
    # communicate() closes its standard input, as the parent's death would.
    assert end(process) == (0, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_by_signal_while_something_hangs(data: Path, number: int) -> None:
    file = data / "run" / "receiver.json"
    file.unlink()
    os.mkfifo(file)
    process = start(data)
    try:
        address = url(process)
        assert httpx.get(address + "readyz", timeout=20).status_code == 503
        process.send_signal(number)
    except BaseException:
        process.kill()
        process.wait()
        raise
    assert end(process) == (0, b"")


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHost: local"])
def test_silent_connections_keep_nobody_out(data: Path, said: bytes) -> None:
    process = start(data)
    with ExitStack() as open_sockets:
        try:
            address = url(process)
            port = int(address.rstrip("/").rpartition(":")[2])
            for _ in range(2 * web.MAX_REQUESTS):
                silent = open_sockets.enter_context(socket.create_connection(("127.0.0.1", port)))
                silent.sendall(said)
            assert httpx.get(address + "healthz", timeout=20).status_code == 200
        except BaseException:
            process.kill()
            raise
        assert end(process) == (0, b"")


def test_a_connection_without_a_request_is_closed(data: Path) -> None:
    process = start(data, before="from hilum.gateway.web import connection as c; "
                                 "c.REQUEST_WITHIN = 0.3")  # fmt: skip
    try:
        address = url(process)
        port = int(address.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            silent.sendall(b"GET /healthz HTTP/1.1\r\n")
            with suppress(ConnectionResetError):
                assert silent.recv(1) == b""
        assert httpx.get(address + "healthz", timeout=20).status_code == 200
    except BaseException:
        process.kill()
        raise
    assert end(process) == (0, b"")


def test_an_address_in_use_is_said(data: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match=r"cannot listen on 127\.0\.0\.1"),
    ):
        web.run(data, "127.0.0.1", taken.getsockname()[1])


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_every_reason_to_end_at_once_is_no_hurry(data: Path) -> None:
    process = start(data)
    try:
        wait_until_ready(data, url(process))
        assert process.stdin is not None
        process.send_signal(signal.SIGSTOP)
        process.stdin.close()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        process.stdin = None
    except BaseException:
        process.kill()
        process.wait()
        raise
    assert end(process) == (0, b"")
