"""``hilum find``, ``get`` and ``move`` against providers that lie, are silent, or speak TLS."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests import samples
from tests.net.certificates import Authority

from hilum.net.server import Server, serve
from hilum.net.service import Accept, Handler, Reply, Request, service_policy
from hilum.net.tls import server_context
from hilum.services.sop_classes import (
    STORAGE_SOP_CLASSES,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from hilum.services.suboperations import encode_failed_uids
from hilum.services.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from hilum.wire.command import CommandField

CT = "1.2.840.10008.5.1.4.1.1.2"
HOST = "127.0.0.1"


async def hilum(*words: object) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hilum", *map(str, words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    except TimeoutError:
        process.kill()
        raise
    return process.returncode or 0, out.decode(), err.decode()


async def provider(field: CommandField, handler: Handler, **more: Any) -> Server:
    accept = Accept(
        policy=service_policy([STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE]),
        roles=dict.fromkeys(STORAGE_SOP_CLASSES, (True, True)),
        handlers={field: handler},
    )
    return await serve(HOST, 0, lambda rq, peer: accept, **more)


def at(server: Server) -> str:
    return f"{HOST}:{server.addresses[0][1]}"


async def test_files_stay_in_the_folder_whatever_they_are_called(tmp_path: Path) -> None:
    data = samples.named("CT_small.dcm").data
    names = ["../../evil", "/tmp/evil", "..", ".", "a/b\\c", "1.2.3", "CON", "x" * 64]

    async def get(request: Request) -> AsyncIterator[list[Reply]]:
        for name in names:
            response = await request.association.c_store(
                [data], sop_class_uid=CT, sop_instance_uid=name,
                transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            )  # fmt: skip
            assert response.status == 0
        # A provider that lies about what it did.
        yield [Reply(0, elements={"number_of_completed_suboperations": 65_535})]

    (folder := tmp_path / "deep" / "out").mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if path != folder}
    server = await provider(CommandField.C_GET_RQ, get)
    code, out, err = await hilum("get", at(server), "-od", folder, "--json", "-k", "PatientID=1",
                                 "--sop-class", CT)  # fmt: skip
    await server.close(grace=1)
    assert code == 0, err
    assert json.loads(out)["received"] == len(names)
    files = set(folder.iterdir())
    assert len(files) == len(names)
    assert all(path.is_file() and path.suffix == ".dcm" for path in files)
    assert {path for path in tmp_path.rglob("*") if path != folder} - files == before


async def test_failed_uids_of_a_peer_do_not_reach_the_terminal_raw() -> None:
    async def get(request: Request) -> AsyncIterator[list[Reply]]:
        data = encode_failed_uids(["1.2\x1b[31m"], request.context.transfer_syntax)
        elements = {"number_of_failed_suboperations": 1, "error_comment": "no\x1b[2J"}
        yield [Reply(0xB000, data, elements)]

    server = await provider(CommandField.C_GET_RQ, get)
    code, out, err = await hilum("get", at(server), "--no-output", "-k", "PatientID=1")
    await server.close(grace=1)
    assert code == 1
    assert "failed 1.2\\x1b[31m" in err
    assert "\x1b" not in out + err


@pytest.mark.parametrize("command", ["find", "get", "move"])
async def test_a_silent_provider_is_left(command: str) -> None:
    async def silent(request: Request) -> AsyncIterator[list[Reply]]:
        await request.cancelled()
        yield []

    field = CommandField[f"C_{command.upper()}_RQ"]
    server = await provider(field, silent)
    code, _, err = await hilum(command, at(server), "-td", "0.5", "-k", "PatientID=1")
    await server.close(grace=1)
    assert code == 1
    assert "no response" in err


async def test_endless_answers_end_with_cancel() -> None:
    count = 0

    async def find(request: Request) -> AsyncIterator[list[Reply]]:
        nonlocal count
        while True:
            count += 1
            yield [Reply(0xFF00, b"\x10\0\x20\0LO\2\0ab")]

    server = await provider(CommandField.C_FIND_RQ, find)
    code, out, err = await hilum(
        "find", at(server), "-k", "PatientID", "--csv", "-q", "--cancel-after", "5"
    )
    await server.close(grace=1)
    assert code == 0, err
    assert out.splitlines()[:6] == ["PatientID", *["ab"] * 5]
    assert count < 100_000


async def test_answers_that_are_no_data_sets() -> None:
    async def find(request: Request) -> AsyncIterator[list[Reply]]:
        yield [Reply(0xFF00, b"\xff" * 11), Reply(0xFF00), Reply(0)]

    server = await provider(CommandField.C_FIND_RQ, find)
    for words in ((), ("--csv",), ("--json",)):
        code, out, err = await hilum("find", at(server), "-k", "PatientID", *words)
        assert code == 0, out + err
    await server.close(grace=1)


async def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def find(request: Request) -> AsyncIterator[list[Reply]]:
        yield [Reply(0)]

    certificate, key = authority.issue("server")
    server = await provider(CommandField.C_FIND_RQ, find, tls=server_context(certificate, key))
    code, _, err = await hilum("find", at(server), "--tls-ca", authority.ca, "-k", "PatientID")  # fmt: skip
    assert code == 0, err
    code, _, err = await hilum("find", at(server), "--tls", "-k", "PatientID")
    assert (code, "certificate" in err) == (1, True)
    code, _, err = await hilum("find", at(server), "-k", "PatientID", "-td", "2", "-ta", "2")
    assert code == 1
    await server.close(grace=1)
