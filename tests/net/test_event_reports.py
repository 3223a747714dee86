"""N-EVENT-REPORT comes when it likes (field notes A 22)."""

from __future__ import annotations

import asyncio

import pytest
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.test_association import status
from tests.net.test_hostile_provider import Provider, provider
from tests.net.test_services import COMMITMENT, dial, keys, serving
from tests.unit.wire.playbook import IMPLICIT, PDV, an_rq, command_pdv, pdata

from hilum.net.client import connect
from hilum.net.service import Reply, Request
from hilum.services.datasets import encode
from hilum.services.sop_classes import STORAGE_COMMITMENT_PUSH_MODEL
from hilum.wire.command import Command, CommandField
from hilum.wire.pdu import PresentationContext, ReleaseRP, ReleaseRQ

__all__ = ["provider"]


class Reports:
    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.noted: list[str] = []

    async def __call__(self, request: Request) -> Reply:
        self.seen.append(request)
        await asyncio.sleep(0)
        self.noted.append(request.dataset().PatientName)
        return Reply(0)

    @property
    def handlers(self) -> dict[CommandField, Reports]:
        return {CommandField.N_EVENT_REPORT_RQ: self}


def report(number: int = 1) -> Command:
    return Command(
        CommandField.N_EVENT_REPORT_RQ,
        has_data_set=True,
        message_id=number,
        affected_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        affected_sop_instance_uid="1.2.840.10008.1.20.1.1",
        event_type_id=1,
    )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_around_the_response_to_the_action(listen: Listen, after: bool) -> None:
    reports = Reports()
    later: list[asyncio.Task[object]] = []

    async def act(request: Request) -> Reply:
        reporting = request.association.n_event_report(keys("R"), event_type_id=1, **COMMITMENT)
        if after:
            later.append(asyncio.ensure_future(reporting))
        else:
            await reporting
        return Reply(0)

    server = await listen(serving({CommandField.N_ACTION_RQ: act}))
    async with await dial(server, handlers=reports.handlers) as association:
        response = await association.n_action(keys(), action_type_id=1, **COMMITMENT)
        assert response.status == 0
        await until(lambda: reports.noted, "the report")
        await asyncio.gather(*later)
    assert reports.noted == ["R"]


async def test_during_our_release(provider: Provider) -> None:
    """It is noted, though it can no longer be answered."""
    reports = Reports()
    peer, association = await provider.associate(handlers=reports.handlers)
    releasing = asyncio.create_task(association.release())
    assert await peer.hear() == ReleaseRQ()
    peer.send(pdata(command_pdv(1, report()), PDV(1, encode(keys("LATE"), IMPLICIT))), ReleaseRP())
    await releasing
    await until(lambda: reports.noted, "the report")
    assert reports.noted == ["LATE"]
    assert reports.seen[0].is_cancelled  # nobody waits for the answer


async def test_on_an_association_of_its_own_without_role_selection(listen: Listen) -> None:
    """In Implicit VR Little Endian alone, as some peers have it."""
    reports = Reports()
    server = await listen(serving(reports.handlers))
    contexts = (PresentationContext(1, STORAGE_COMMITMENT_PUSH_MODEL, (IMPLICIT,)),)
    async with await RawPeer.associate(server.port, an_rq(contexts)) as peer:
        peer.send(pdata(command_pdv(1, report()), PDV(1, encode(keys("OWN"), IMPLICIT))))
        assert await status(peer) == 0
    assert reports.noted == ["OWN"]
    # And ours goes out where the peer answered no role.
    async with await connect(
        "127.0.0.1", server.port, contexts=[(STORAGE_COMMITMENT_PUSH_MODEL, (IMPLICIT,))]
    ) as association:
        response = await association.n_event_report(keys("OURS"), event_type_id=1, **COMMITMENT)
        assert response.status == 0
    assert reports.noted[1] == "OURS"
