"""The command-line tools with providers that lie: names that lead out, floods, silence, control characters."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests import peers
from tests.unit.gateway.store.archive_world import CT, EXPLICIT, encode, image

from hilum.net.client import connect
from hilum.net.server import Server, serve
from hilum.net.service import Accept, Reply, Request
from hilum.services.transfer_syntaxes import choose
from hilum.wire.command import CommandField
from hilum.wire.items import RoleSelection

EVIL = ["../../evil", "/tmp/evil-hilum", "..", ".", "a/../../evil", "C:\\evil", "evil\0.dcm",
        "\x1b]0;evil\x07", "x" * 300, " "]  # fmt: skip
STUDY = ("-k", "StudyInstanceUID=1.2")


class Lying:
    """A provider that runs in this process; the tools are processes of their own."""

    def __init__(self, **handlers: Any) -> None:
        self.handlers = {CommandField[name]: handler for name, handler in handlers.items()}

    async def __aenter__(self) -> Server:
        def authorise(rq: Any, peer: Any) -> Accept:
            roles = {item.sop_class_uid: (True, True) for item in rq.all_items(RoleSelection)}
            return Accept(
                policy=lambda context: choose(context.transfer_syntaxes, None) or 4,
                roles=roles, handlers=self.handlers,
            )  # fmt: skip

        self.server = await serve("127.0.0.1", 0, authorise)
        return self.server

    async def __aexit__(self, *exc: object) -> None:
        await self.server.close(0)


async def tool(
    command: str, server: Server, *words: object, seconds: float = 30, memory: int = 0
) -> tuple[int, str, str]:
    """Run a tool; its exit code and what it said. With ``memory``, bytes that it may never exceed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hilum", command, f"LIAR@127.0.0.1:{server.port}", *map(str, words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told = asyncio.create_task(process.communicate())
    deadline = time.monotonic() + seconds
    try:
        while not told.done():
            assert time.monotonic() < deadline, f"hilum {command} does not end"
            if memory:
                try:
                    used = psutil.Process(process.pid).memory_info().rss
                except psutil.NoSuchProcess:
                    used = 0
                assert used < memory, f"{used >> 20} MiB"
            await asyncio.wait([told], timeout=0.05)
        out, errors = told.result()
    finally:
        if process.returncode is None:
            process.kill()
            await told
    assert process.returncode is not None
    assert b"Traceback" not in errors, errors.decode()
    return process.returncode, out.decode(), errors.decode()


async def store_all(request: Request, uids: Sequence[str]) -> list[int]:
    statuses = []
    for uid in uids:
        response = await request.association.c_store(
            (encode(image()),), sop_class_uid=CT, sop_instance_uid=uid,
            transfer_syntax_uid=EXPLICIT,
        )  # fmt: skip
        statuses.append(response.status)
    return statuses


# ── names ───────────────────────────────────────────────────────────────────────────────────────


async def test_names_of_a_get_stay_in_the_folder(tmp_path: Path) -> None:
    statuses: list[int] = []

    async def get(request: Request) -> AsyncIterator[Sequence[Reply]]:
        statuses.extend(await store_all(request, EVIL))
        yield [Reply(0, elements={"number_of_completed_suboperations": len(EVIL)})]

    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    async with Lying(C_GET_RQ=get) as server:
        code, said, _ = await tool("get", server, *STUDY, "-od", out, "--sop-class", CT, "--json")
    document = json.loads(said)
    assert document["received"] == statuses.count(0)
    check_contained(tmp_path, out, statuses.count(0))
    assert code in (0, 1)


def check_contained(top: Path, out: Path, count: int) -> None:
    """Everything that was answered with success is in the folder, and nothing anywhere else."""
    assert {path for path in top.rglob("*") if path.is_file()} == set(out.iterdir())
    assert len(list(out.iterdir())) == count
    assert all(path.is_file() and path.name.isprintable() for path in out.iterdir())
    assert not Path("/tmp/evil-hilum").exists()
    assert not Path("/tmp/evil-hilum.dcm").exists()


async def test_names_of_a_move_stay_in_the_folder(tmp_path: Path) -> None:
    port = peers.free_port()
    statuses: list[int] = []

    async def move(request: Request) -> AsyncIterator[Sequence[Reply]]:
        contexts = [(CT, (EXPLICIT,))]
        async with await connect("127.0.0.1", port, contexts=contexts) as other:
            for uid in EVIL:
                response = await other.c_store(
                    (encode(image()),), sop_class_uid=CT, sop_instance_uid=uid,
                    transfer_syntax_uid=EXPLICIT,
                )  # fmt: skip
                statuses.append(response.status)
        yield [Reply(0)]

    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    async with Lying(C_MOVE_RQ=move) as server:
        await tool("move", server, *STUDY, "+P", port, "-od", out, "--json")
    assert len(statuses) == len(EVIL)
    check_contained(tmp_path, out, statuses.count(0))


# ── counts ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_get_that_claims_more_than_it_sent(tmp_path: Path) -> None:
    async def get(request: Request) -> AsyncIterator[Sequence[Reply]]:
        await store_all(request, ["1.2.3"])
        yield [Reply(0, elements={"number_of_completed_suboperations": 100})]

    async with Lying(C_GET_RQ=get) as server:
        _, said, _ = await tool("get", server, *STUDY, "-od", tmp_path, "--sop-class", CT, "--json")
    assert json.loads(said)["received"] == 1


# ── words ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [(), ("-v",), ("--csv",), ("--json",)])
async def test_control_characters_do_not_reach_the_terminal(options: tuple[str, ...]) -> None:
    async def find(request: Request) -> AsyncIterator[Sequence[Reply]]:
        evil = image(PatientName="Doe\x1b]0;owned\x07", PatientID="\x9b31m", StudyID="a\r\nb")
        yield [Reply(0xFF00, encode(evil, request.context.transfer_syntax))]
        yield [Reply(0xC001, elements={"error_comment": "no\x1b[2J"})]

    async with Lying(C_FIND_RQ=find) as server:
        code, said, errors = await tool("find", server, "-k", "PatientName", *options)
    assert code == 1
    for text in (said, errors):
        assert not any(c in text for c in "\x1b\x07\x9b"), text


# ── floods and silence ──────────────────────────────────────────────────────────────────────────


async def _endless(request: Request) -> AsyncIterator[Sequence[Reply]]:
    large = image(pixels=0, ImageComments="x" * 10_000)
    match = Reply(0xFF00, encode(large, request.context.transfer_syntax))
    while True:
        yield [match] * 50
        await asyncio.sleep(0)


async def test_a_flood_of_answers_to_a_program_ends(tmp_path: Path) -> None:
    async with Lying(C_FIND_RQ=_endless) as server:
        code, said, _ = await tool(
            "find", server, "-k", "PatientName", "--json", seconds=60, memory=400 << 20
        )
    assert code == 1
    assert "answers of over" in json.loads(said)["error"]


async def test_a_flood_of_answers_takes_no_memory(tmp_path: Path) -> None:
    """Printed as they come; the reader of our output goes away in the end."""
    async with Lying(C_FIND_RQ=_endless) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hilum", "find", f"127.0.0.1:{server.port}", "-k", "PatientName",
            "--csv", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        read = 0
        while read < 100_000:
            read += len(await process.stdout.read(65536))
        assert psutil.Process(process.pid).memory_info().rss < 200 << 20
        process.kill()
        await process.communicate()


async def test_a_cancel_that_is_ignored_does_not_hold_us() -> None:
    async with Lying(C_FIND_RQ=_ignoring) as server:
        code, _, _ = await tool(
            "find", server, "-k", "PatientName", "--cancel-after", 5, "-td", 1, "-q"
        )
    assert code == 1


async def _ignoring(request: Request) -> AsyncIterator[Sequence[Reply]]:
    match = Reply(0xFF00, encode(image(pixels=0), request.context.transfer_syntax))
    yield [match] * 20
    await asyncio.sleep(3600)


@pytest.mark.parametrize("command", ["find", "get", "move"])
async def test_silence(command: str, tmp_path: Path) -> None:
    async def never(request: Request) -> AsyncIterator[Sequence[Reply]]:
        await asyncio.sleep(3600)
        yield []

    handlers = {"C_FIND_RQ": never, "C_GET_RQ": never, "C_MOVE_RQ": never}
    words = ("--sop-class", CT, "-od", tmp_path) if command == "get" else ()
    async with Lying(**handlers) as server:
        code, _, errors = await tool(command, server, *STUDY, "-td", 1, *words)
    assert code == 1
    assert "no response" in errors
    assert list(tmp_path.iterdir()) == []


async def test_a_store_that_is_cut_off_leaves_no_file(tmp_path: Path) -> None:
    async def get(request: Request) -> AsyncIterator[Sequence[Reply]]:
        async def pieces() -> AsyncIterator[bytes]:
            yield bytes(300_000)
            raise OSError("gone")

        await request.association.c_store(
            pieces(), sop_class_uid=CT, sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT
        )
        yield [Reply(0)]

    async with Lying(C_GET_RQ=get) as server:
        code, _, errors = await tool("get", server, *STUDY, "-od", tmp_path, "--sop-class", CT)
    assert code == 1
    assert errors
    assert list(tmp_path.iterdir()) == []
