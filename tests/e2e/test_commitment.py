"""Commitment across kill -9 of the gateway and a client that is away.

A hundred transactions (``HILUM_TRANSACTIONS``) for each way of delivery and each chain: every one
gets its result, no result ever differs from the first that came, and nothing stalls.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from tests import peers
from tests.e2e.gateway import Gateway, hilum, prepare

from hilum.errors import HilumError
from hilum.gateway.app import Storage
from hilum.gateway.config import Config
from hilum.gateway.store.commitments import Commitments as Kept
from hilum.gateway.store.commitments import Entry
from hilum.gateway.store.database import open_database
from hilum.gateway.store.directory import Peer
from hilum.net import Timeouts
from hilum.net.commitment import Commitments, Destination
from hilum.services.commitment import Failure, Reference, Result

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CT = "1.2.840.10008.5.1.4.1.1.2"
TRANSACTIONS = int(os.environ.get("HILUM_TRANSACTIONS", "100"))
KILLS = max(2, TRANSACTIONS // 25)
CLIENTS = 6
LONGEST = 50.0 + TRANSACTIONS
SETTINGS = {"HILUM_COMMITMENT_RETRY_LEAST": "0.2", "HILUM_COMMITMENT_RETRY_MOST": "1"}
HERE = tuple(Reference(CT, f"1.2.3.{n}") for n in range(1, 6))
MISSING = Reference(CT, "1.2.3.404")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store of five images."""
    made = tmp_path / "data"
    prepare(made)
    folder = tmp_path / "images"
    folder.mkdir()
    image = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    for each in HERE:
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = each.sop_instance_uid
        image.save_as(folder / f"{each.sop_instance_uid}.dcm")
    with Gateway(made) as gateway:
        peers.storescu("HILUM", gateway.port, sorted(folder.iterdir())).check()
        gateway.stop()
    return made


class Storm:
    """A gateway that is killed, and a client that is away every other second."""

    def __init__(self, data: Path, ways: str, port: int) -> None:
        self.data = data
        self.ways = ways
        self.port = port
        self.results: dict[str, list[Result]] = defaultdict(list)
        self.client = Commitments(
            lambda result: self.results[result.transaction_uid].append(result)
        )
        self.gateway = self._start()
        self.asked: set[str] = set()
        self.over = False

    def _start(self) -> Gateway:
        return Gateway(self.data, settings={**SETTINGS, "HILUM_COMMITMENT_DELIVERY": self.ways})

    @property
    def to(self) -> Destination:
        quick = Timeouts(connect=5, associate=5, dimse=20, release=5)
        return Destination("127.0.0.1", self.gateway.port, "HILUM", "CT1", timeouts=quick)

    async def run(self) -> None:
        tasks = [asyncio.create_task(self._ask(n)) for n in range(CLIENTS)]
        background = [asyncio.create_task(self._be_away()), asyncio.create_task(self._come_again())]
        try:
            async with asyncio.timeout(LONGEST):
                for _ in range(KILLS):
                    await asyncio.sleep(random.uniform(0.3, 1.5))
                    self.gateway.kill()
                    self.gateway._log.close()
                    self.gateway = await asyncio.to_thread(self._start)
                await asyncio.gather(*tasks)
                while set(self.results) < self.asked or self._undelivered():
                    await asyncio.sleep(0.2)
        except TimeoutError:
            missing = self.asked - set(self.results)
            raise AssertionError(
                f"{len(missing)} of {len(self.asked)} results are missing, states {self.states()}\n"
                + self.gateway.log[-3000:]
            ) from None
        finally:
            self.over = True
            self.gateway.kill()
            self.gateway._log.close()
            for task in (*tasks, *background):
                task.cancel()
            await asyncio.gather(*tasks, *background, return_exceptions=True)
            await self.client.close()

    async def _ask(self, number: int) -> None:
        for n in range(number, TRANSACTIONS, CLIENTS):
            uid = f"2.25.{n + 1}"
            self.asked.add(uid)
            await asyncio.sleep(random.uniform(0.0, 0.5))  # so that they last as long as the kills
            references = (HERE[n % 5], HERE[(n + 1) % 5], *((MISSING,) if n % 3 == 0 else ()))
            while True:
                # Where nothing is known of the request, the same one is made again.
                with suppress(HilumError):
                    await self.client.commit_instances(
                        self.to, references, uid=uid, stay=self._stay
                    )
                    if self.ways != "same:20" or self.results[uid]:
                        break
                await asyncio.sleep(0.1)

    @property
    def _stay(self) -> float:
        return 10.0 if self.ways == "same:20" else random.choice([0.0, 0.0, 0.1])

    async def _be_away(self) -> None:
        if "new" not in self.ways:
            return
        while True:
            await self.client.listen("127.0.0.1", self.port)
            await asyncio.sleep(1.0)
            if not self.over:
                servers, self.client._servers = self.client._servers, []
                for server in servers:
                    await server.close(0)  # as roughly as a console that is switched off
            await asyncio.sleep(1.0)

    async def _come_again(self) -> None:
        while "next" in self.ways:
            await asyncio.sleep(0.5)
            with suppress(HilumError):
                await self.client.collect(self.to, listen=0.3)

    def entries(self) -> list[Entry]:
        database = open_database(self.data / "hilum.db", role="command")
        try:
            return Kept(database).listed(limit=TRANSACTIONS + 1)
        finally:
            database.close()

    def states(self) -> Counter[str]:
        return Counter(entry.state for entry in self.entries())

    def _undelivered(self) -> bool:
        return bool(set(self.states()) - {"delivered", "given up"})


@pytest.mark.parametrize(
    "ways",
    ["same:20", "new", "next", "same:20,new", "same:20,next", "new,next", "same:20,new,next"],
)
async def test_a_hundred_transactions(data: Path, ways: str) -> None:
    storage = Storage(Config(data=str(data)))
    port = peers.free_port()
    storage.directory.put_peer(Peer("ct1", "CT1", "127.0.0.1", port))
    storage.close()
    storm = Storm(data, ways, port)
    await storm.run()
    entries = storm.entries()
    assert len(storm.asked) == TRANSACTIONS
    assert {entry.transaction_uid for entry in entries} == storm.asked
    for n in range(TRANSACTIONS):
        results = storm.results[f"2.25.{n + 1}"]
        assert results, f"no result of {n}"
        failed = (Failure(*MISSING, 0x0112),) if n % 3 == 0 else ()
        expected = Result(f"2.25.{n + 1}", (HERE[n % 5], HERE[(n + 1) % 5]), failed)
        assert set(results) == {expected}
    if ways != "same:20":
        assert {entry.state for entry in entries} == {"delivered"}
    repeated = sum(len(results) - 1 for results in storm.results.values())
    print(f"{ways}: {repeated} repeated, by {Counter(entry.way for entry in entries)}")


def test_a_request_outlives_its_gateway(data: Path) -> None:
    """Answered, killed at once, started again: the result is found and waits for the client."""
    with Gateway(data, settings={"HILUM_COMMITMENT_DELIVERY": "next"}) as gateway:

        async def ask() -> None:
            to = Destination("127.0.0.1", gateway.port, "HILUM", "CT1")
            await Commitments().commit_instances(to, HERE, uid="2.25.1")

        asyncio.run(ask())
        gateway.kill()
    with Gateway(data, settings={"HILUM_COMMITMENT_DELIVERY": "next"}) as gateway:
        results: list[Result] = []

        async def collect() -> None:
            client = Commitments(results.append)
            to = Destination("127.0.0.1", gateway.port, "HILUM", "CT1")
            for _ in range(20):
                await client.collect(to, listen=0.5)
                if results:
                    return

        asyncio.run(collect())
        assert results == [Result("2.25.1", HERE)]
        assert gateway.stop() == 0
    assert hilum("ls", "--level", "instance", "--data", data)
