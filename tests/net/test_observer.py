"""The observer sees every byte of both directions, and the beginning and end."""

from __future__ import annotations

from tests.net.conftest import Listen
from tests.net.peer import until
from tests.net.sinks import Store
from tests.net.test_association import dial, image

from hilum.net.link import Link


class Diary:
    def __init__(self) -> None:
        self.opens = 0
        self.closes: list[Exception | None] = []
        self.received_bytes = bytearray()
        self.sent_bytes = bytearray()

    def opened(self, link: Link) -> None:
        self.opens += 1

    def received(self, link: Link, data: memoryview) -> None:
        self.received_bytes += data

    def sent(self, link: Link, data: list[bytes | bytearray | memoryview]) -> None:
        for buffer in data:
            self.sent_bytes += buffer

    def closed(self, link: Link, error: Exception | None) -> None:
        self.closes.append(error)


async def test_an_observer(listen: Listen) -> None:
    ours, theirs = Diary(), Diary()
    server = await listen(Store().authorise, observer=theirs)
    async with await dial(server, observer=ours) as association:
        await association.c_store([bytes(300_000)], **image())
        link = association.link
    await until(lambda: theirs.closes, "the end")
    assert (ours.opens, theirs.opens) == (1, 1)
    assert ours.closes == theirs.closes == [None]
    assert ours.sent_bytes == theirs.received_bytes
    assert ours.received_bytes == theirs.sent_bytes
    assert link.bytes_sent == len(ours.sent_bytes) > 300_000
    assert link.bytes_received == len(ours.received_bytes)
    assert ours.sent_bytes[:1] == b"\1"
    assert ours.sent_bytes[-10:-9] == b"\5"
