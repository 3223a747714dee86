"""Every DIMSE service between our two roles: handlers, pages of responses, cancel, roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydicom import Dataset
from tests.net.conftest import Listen
from tests.net.peer import until
from tests.net.sinks import Store
from tests.net.test_association import BOTH_ROLES, image
from tests.unit.wire.playbook import CT_IMAGE, EXPLICIT, IMPLICIT, VERIFICATION

from hilum.errors import AssociationAborted, InvalidDicom, NoPresentationContext, Refused
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.server import Server
from hilum.net.service import Accept, Handler, Reply, Request, service_policy
from hilum.services.datasets import decode, encode
from hilum.services.sop_classes import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from hilum.wire.command import CommandField

CLASSES = (STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE, STORAGE_COMMITMENT_PUSH_MODEL)
CONTEXTS = (
    (VERIFICATION, (EXPLICIT, IMPLICIT)),
    (CT_IMAGE, (EXPLICIT,)),
    *((uid, (EXPLICIT, IMPLICIT)) for uid in CLASSES),
)
COMMITMENT = {
    "sop_class_uid": STORAGE_COMMITMENT_PUSH_MODEL,
    "sop_instance_uid": STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
}


def serving(handlers: dict[CommandField, Handler], **arguments: Any) -> Any:
    accept = Accept(
        policy=service_policy(CLASSES),
        roles={CT_IMAGE: (True, True)},
        handlers=handlers,
        **arguments,
    )
    return lambda rq, peer: accept


async def dial(server: Server, **arguments: Any) -> Association:
    return await connect("127.0.0.1", server.port, **{"contexts": CONTEXTS} | arguments)


def keys(name: str = "*") -> Dataset:
    dataset = Dataset()
    dataset.QueryRetrieveLevel = "STUDY"
    dataset.PatientName = name
    return dataset


def pages_of(*pages: Sequence[Reply]) -> Handler:
    async def pages_for(request: Request) -> AsyncIterator[Sequence[Reply]]:
        for page in pages:
            yield page

    return pages_for


def matches(count: int) -> list[Reply]:
    return [Reply(0xFF00, b"%06d" % number) for number in range(count)]


@pytest.mark.parametrize("final", [[], [Reply(0x0000)]], ids=["implied", "given"])
@pytest.mark.parametrize("sizes", [(0,), (1,), (3, 0, 2), (2500, 2500)])
async def test_find(listen: Listen, sizes: tuple[int, ...], final: list[Reply]) -> None:
    pages = [matches(size) for size in sizes]
    pages[-1] = pages[-1] + final
    server = await listen(serving({CommandField.C_FIND_RQ: pages_of(*pages)}))
    async with await dial(server) as association:
        responses = association.c_find(keys(), sop_class_uid=STUDY_ROOT_FIND)
        assert responses.final is None
        found = [response async for response in responses]
        assert (await association.c_echo()).status == 0
    expected = [b"%06d" % number for size in sizes for number in range(size)]
    assert [response.data for response in found] == [*expected, None]
    assert [response.status for response in found] == [0xFF00] * len(expected) + [0]
    assert responses.final == found[-1]


async def test_what_a_handler_sees(listen: Listen) -> None:
    seen: list[Request] = []

    async def find(request: Request) -> AsyncIterator[Sequence[Reply]]:
        seen.append(request)
        answer = request.dataset()
        answer.StudyInstanceUID = "1.2.3"
        yield [Reply(0xFF01, encode(answer, request.context.transfer_syntax))]

    server = await listen(serving({CommandField.C_FIND_RQ: find}))
    async with await dial(server) as association:
        responses = association.c_find(keys("DOE*"), sop_class_uid=STUDY_ROOT_FIND, priority=1)
        first = await anext(responses)
        final = await responses.last()
    (request,) = seen
    assert request.command.affected_sop_class_uid == STUDY_ROOT_FIND
    assert request.command.priority == 1
    assert request.command.message_id == responses.message_id
    assert request.context.transfer_syntax == EXPLICIT
    assert first.is_pending
    assert (first.status, first.dataset().StudyInstanceUID) == (0xFF01, "1.2.3")
    assert first.dataset().PatientName == "DOE*"
    assert final.status == 0
    with pytest.raises(InvalidDicom, match="without a data set"):
        final.dataset()


async def test_what_is_logged_holds_no_patients_data(listen: Listen) -> None:
    reply = Reply(0xFF00, b"DOE^JOHN")
    server = await listen(serving({CommandField.C_FIND_RQ: pages_of([reply])}))
    async with await dial(server) as association:
        first, final = [
            response async for response in association.c_find(b"", sop_class_uid=STUDY_ROOT_FIND)
        ]
    for shown in map(repr, (reply, first)):
        assert "<8 bytes>" in shown
        assert "DOE" not in shown
    for shown in map(repr, (Reply(0), final)):
        assert "data=none" in shown


async def test_a_cancelled_find_ends(listen: Listen) -> None:
    closed = asyncio.Event()

    async def endless(request: Request) -> AsyncIterator[Sequence[Reply]]:
        try:
            while True:
                yield matches(10)
        finally:
            closed.set()

    server = await listen(serving({CommandField.C_FIND_RQ: endless}))
    async with await dial(server) as association:
        responses = association.c_find(b"", sop_class_uid=STUDY_ROOT_FIND)
        await anext(responses)
        await responses.cancel()
        assert (await responses.last()).status == 0xFE00
        await responses.cancel()
        assert closed.is_set()
        assert (await association.c_echo()).status == 0


@pytest.mark.parametrize("how", ["break", "aclose", "forgotten"])
async def test_an_abandoned_find_is_cancelled(listen: Listen, how: str) -> None:
    cancelled = asyncio.Event()

    async def waiting(request: Request) -> AsyncIterator[Sequence[Reply]]:
        yield matches(10)
        await request.cancelled()
        cancelled.set()
        yield [Reply(0xFE00)]

    server = await listen(serving({CommandField.C_FIND_RQ: waiting}))
    async with await dial(server) as association:
        if how == "break":
            async with association.c_find(b"", sop_class_uid=STUDY_ROOT_FIND) as responses:
                async for _ in responses:
                    break
        else:
            responses = association.c_find(b"", sop_class_uid=STUDY_ROOT_FIND)
            await anext(responses)
            if how == "aclose":
                await responses.aclose()
            del responses
        # Its place is free once the peer has ended it.
        assert (await association.c_echo()).status == 0
        assert cancelled.is_set()


async def refuse(request: Request) -> Reply:
    raise Refused(0xA900, "x" * 100, (0x00080052,))


async def refuse_later(request: Request) -> AsyncIterator[Sequence[Reply]]:
    yield matches(1)
    raise Refused(0xA900, "x" * 100, (0x00080052,))


async def fail(request: Request) -> Reply:
    raise LookupError


async def fail_later(request: Request) -> AsyncIterator[Sequence[Reply]]:
    yield matches(1)
    raise LookupError


def fail_at_once(request: Request) -> Any:
    raise LookupError


async def cancel_itself(request: Request) -> Reply:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (refuse, 0xA900),
        (refuse_later, 0xA900),
        (fail, 0xC000),
        (fail_later, 0xC000),
        (fail_at_once, 0xC000),
        (cancel_itself, 0x0110),
    ],
)
async def test_handlers_that_do_not_succeed(listen: Listen, handler: Any, status: int) -> None:
    server = await listen(serving({CommandField.C_FIND_RQ: handler}))
    async with await dial(server) as association:
        for _ in range(2):
            final = await association.c_find(b"", sop_class_uid=STUDY_ROOT_FIND).last()
            assert final.status == status
        if status == 0xA900:
            assert final.command.error_comment == "x" * 64
            assert final.command.offending_element == (0x00080052,)


async def test_no_handler(listen: Listen) -> None:
    async with await dial(await listen(serving({}))) as association:
        final = await association.c_find(keys(), sop_class_uid=STUDY_ROOT_FIND).last()
        assert final.status == 0x0211
        assert (await association.n_get(**COMMITMENT)).status == 0x0211
        with pytest.raises(NoPresentationContext):
            association.c_find(keys(), sop_class_uid="1.2.3")
    with pytest.raises(Exception, match="released"):
        association.c_find(keys(), sop_class_uid=STUDY_ROOT_FIND)


N_SERVICES = {
    CommandField.N_EVENT_REPORT_RQ: ("n_event_report", {"event_type_id": 2}, True),
    CommandField.N_GET_RQ: ("n_get", {"attributes": (0x00100010, 0x00100020)}, False),
    CommandField.N_SET_RQ: ("n_set", {}, True),
    CommandField.N_ACTION_RQ: ("n_action", {"action_type_id": 1}, True),
    CommandField.N_CREATE_RQ: ("n_create", {}, True),
    CommandField.N_DELETE_RQ: ("n_delete", {}, False),
}


@pytest.mark.parametrize("field", N_SERVICES, ids=lambda field: field.name)
@pytest.mark.parametrize("with_reply", [True, False])
async def test_n_services(listen: Listen, field: CommandField, with_reply: bool) -> None:
    seen: list[Request] = []

    async def handle(request: Request) -> Reply:
        seen.append(request)
        return Reply(0x0000, encode(keys("REPLY"), EXPLICIT) if with_reply else None)

    name, arguments, has_data = N_SERVICES[field]
    server = await listen(serving({field: handle}))
    async with await dial(server) as association:
        call = getattr(association, name)
        data = (keys("DATA"),) if has_data else ()
        response = await call(*data, **COMMITMENT, **arguments)
    (request,) = seen
    command = request.command
    assert command.command_field == field
    if has_data:
        assert request.data is not None
        assert decode(request.data, EXPLICIT).PatientName == "DATA"
    assert response.status == 0
    assert response.command.command_field == field | 0x8000
    assert response.command.affected_sop_class_uid == STORAGE_COMMITMENT_PUSH_MODEL
    assert response.command.affected_sop_instance_uid == STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
    if with_reply:
        assert response.dataset().PatientName == "REPLY"
        for sent in ("event_type_id", "action_type_id"):
            assert response.command.get(sent) == arguments.get(sent)


async def test_a_created_instance_gets_its_uid_from_the_provider(listen: Listen) -> None:
    async def create(request: Request) -> Reply:
        assert "affected_sop_instance_uid" not in request.command
        return Reply(0, elements={"affected_sop_instance_uid": "1.2.3.4"})

    server = await listen(serving({CommandField.N_CREATE_RQ: create}))
    async with await dial(server) as association:
        response = await association.n_create(None, sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL)
        assert response.command.affected_sop_instance_uid == "1.2.3.4"


async def test_an_event_report_crosses_our_request(listen: Listen) -> None:
    """The peer's request while we wait for a response stalls nobody (field notes A 22)."""
    reported = asyncio.Event()
    seen: list[Request] = []

    async def act(request: Request) -> Reply:
        response = await request.association.n_event_report(keys(), event_type_id=1, **COMMITMENT)
        assert response.status == 0
        reported.set()
        return Reply(0)

    async def report(request: Request) -> Reply:
        seen.append(request)
        return Reply(0)

    server = await listen(serving({CommandField.N_ACTION_RQ: act}))
    async with await dial(server, handlers={CommandField.N_EVENT_REPORT_RQ: report}) as association:
        response = await association.n_action(keys(), action_type_id=1, **COMMITMENT)
        assert response.status == 0
        assert reported.is_set()
    assert seen[0].command.event_type_id == 1


async def get_two(request: Request) -> AsyncIterator[Sequence[Reply]]:
    for number in (1, 2):
        response = await request.association.c_store([b"abcd"], **image(f"1.{number}"))
        assert response.status == 0
        yield [Reply(0xFF00, elements={"number_of_completed_suboperations": number})]


async def test_get_brings_its_stores_over_the_same_association(listen: Listen) -> None:
    store = Store()
    server = await listen(serving({CommandField.C_GET_RQ: get_two}))
    async with await dial(server, roles=(BOTH_ROLES,), open_store=store) as association:
        responses = association.c_get(keys(), sop_class_uid=STUDY_ROOT_GET)
        assert not association.is_retrieving
        first = await anext(responses)
        assert association.is_retrieving
        assert first.command.number_of_completed_suboperations == 1
        assert (await responses.last()).status == 0
        assert not association.is_retrieving
    assert [command.affected_sop_instance_uid for command in store.commands] == ["1.1", "1.2"]


async def test_get_without_the_role(listen: Listen) -> None:
    store = Store()
    server = await listen(serving({CommandField.C_GET_RQ: get_two}))
    async with await dial(server, open_store=store) as association:
        assert (await association.c_get(b"", sop_class_uid=STUDY_ROOT_GET).last()).status == 0xC000
    assert not store.commands


async def test_move_names_its_destination(listen: Listen) -> None:
    async def move(request: Request) -> Reply:
        return Reply(0xA801 if request.command.move_destination != "WS" else 0)

    server = await listen(serving({CommandField.C_MOVE_RQ: move}))
    async with await dial(server) as association:
        for destination, status in (("WS", 0), ("NOWHERE", 0xA801)):
            responses = association.c_move(
                keys(), sop_class_uid=STUDY_ROOT_MOVE, destination=destination
            )
            assert (await responses.last()).status == status


async def test_a_handler_is_ended_with_its_association(listen: Listen) -> None:
    fates: list[str] = []

    async def stuck(request: Request) -> AsyncIterator[Sequence[Reply]]:
        try:
            yield matches(1)
            await asyncio.Event().wait()
        finally:
            fates.append("closed")

    server = await listen(serving({CommandField.C_FIND_RQ: stuck}))
    association = await dial(server)
    responses = association.c_find(b"", sop_class_uid=STUDY_ROOT_FIND)
    await anext(responses)
    association.abort()
    with pytest.raises(AssociationAborted):
        await anext(responses)
    await until(lambda: fates == ["closed"], "the handler's end")
