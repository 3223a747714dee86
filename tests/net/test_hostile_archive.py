"""Archives that lie to a fetch: answers without end, answers that are too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count

import pytest

from hilum.gateway.flow.archive import ArchiveFailed, opened
from hilum.gateway.flow.criteria import Criteria
from hilum.gateway.store.entries import Peer
from hilum.net import serve
from hilum.net.service import Accept, Reply, Request, service_policy
from hilum.services.identifier import Attribute, encode_attributes
from hilum.services.sop_classes import STUDY_ROOT_FIND, VERIFICATION
from hilum.services.status import Status
from hilum.wire.command import CommandField

MOST = 50


def answer(request: Request, number: int, length: int) -> Reply:
    found = [
        Attribute(0x00080018, "UI", f"1.2.{number}"),
        Attribute(0x00081030, "LO", "x" * length),
        Attribute(0x0020000D, "UI", "1.1" if number % 2 else f"1.{number}"),
        Attribute(0x0020000E, "UI", f"1.2.{number}"),
    ]
    return Reply(Status.PENDING, encode_attributes(found, request.context.transfer_syntax))


class Liar:
    """Answers every query without end, with a description of some length."""

    def __init__(self, length: int) -> None:
        self.length = length

    async def find(self, request: Request) -> AsyncIterator[Sequence[Reply]]:
        for number in count():
            yield [answer(request, 2 * number + 1, self.length)]

    def accept(self, *_: object) -> Accept:
        return Accept(
            policy=service_policy((STUDY_ROOT_FIND, VERIFICATION)),
            handlers={CommandField.C_FIND_RQ: self.find},
        )


@pytest.mark.parametrize(("length", "why"), [(4, "more series"), (5000, "more series"),
                                             (100_000, "at most")])  # fmt: skip
@pytest.mark.parametrize("level", ["series", "images"])
async def test_what_an_archive_names_of_a_study_has_an_end(
    length: int, why: str, level: str
) -> None:
    liar = Liar(length)
    async with await serve("127.0.0.1", 0, liar.accept) as server, asyncio.timeout(30):
        peer = Peer("liar", "LIAR", "127.0.0.1", port=server.port)
        async with opened(peer, max_instances=MOST) as archive:
            with pytest.raises(ArchiveFailed, match=why):
                if level == "series":
                    await archive.series("1.1", "")
                else:
                    await archive.images("1.1", "1.2", "")


async def test_a_study_has_no_description_of_a_hundred_thousand_characters() -> None:
    liar = Liar(100_000)
    async with await serve("127.0.0.1", 0, liar.accept) as server, asyncio.timeout(30):
        peer = Peer("liar", "LIAR", "127.0.0.1", port=server.port)
        async with opened(peer) as archive:
            with pytest.raises(ArchiveFailed, match="at most"):
                async for _ in archive.studies(Criteria()):
                    pass
