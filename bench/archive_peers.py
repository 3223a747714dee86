"""Gateways, dcmqrscp and Orthanc holding the same studies: what `bench.archive` asks of them.

dcmqrscp keeps 500 studies at most and reads its whole index for every instance that it stores, so
that it gets few of each; Orthanc and a gateway hold 50,000 instances too, and the gateway a
million rows; of these two it has the index rows only.
"""

from __future__ import annotations

import itertools
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests import peers

from bench import servers
from bench.archive import (
    CT,
    EXPLICIT,
    PER_SERIES,
    PER_STUDY,
    RETURNED,
    attributes,
    keys_of,
    store,
    uid_of,
)
from bench.archive import questions as all_questions
from bench.dimse_programs import run
from bench.objects import Identities
from bench.scenarios import Bench, Scenario
from hilum.net import Association, connect
from hilum.services.identifier import Attribute, encode_attributes, vr_of
from hilum.services.sop_classes import STUDY_ROOT_FIND

if TYPE_CHECKING:
    from bench.archive import Archive

T = TypeVar("T")

GATEWAY = servers.KINDS[0]
STUDIES, FEW = 500, 10
"""What dcmqrscp holds: its limit of studies, and instances of each."""
MANY = 1_000
"""Studies of 50 instances that Orthanc holds: 50,000 instances."""

REPEAT = 5
SECONDS = 300.0

_TAGS = {
    "PatientName": 0x00100010, "PatientID": 0x00100020, "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E, "AccessionNumber": 0x00080050, "StudyID": 0x00200010,
    "StudyDate": 0x00080020, "StudyTime": 0x00080030, "StudyDescription": 0x00081030,
    "Modality": 0x00080060, "SeriesNumber": 0x00200011, "InstanceNumber": 0x00200013,
    "ImageType": 0x00080008, "Manufacturer": 0x00080070, "StationName": 0x00081010,
}  # fmt: skip


def data_set(study: int, series: int, place: int) -> tuple[str, bytes]:
    """An instance as `bench.archive` has it, without pixels: its UID, and its encoding."""
    uid = uid_of(study, series, place)
    values = attributes(study, series, place)
    kept = [
        Attribute(tag, vr_of(tag), values[name].decode("latin-1")) for name, tag in _TAGS.items()
    ]
    kept += [Attribute(0x00080016, "UI", CT), Attribute(0x00080018, "UI", uid)]
    return uid, encode_attributes(kept, EXPLICIT, preferred=b"ISO_IR 100")


def instances(studies: int, each: int) -> Iterator[tuple[str, bytes]]:
    """So many instances of so many studies."""
    for study, place in itertools.product(range(studies), range(each)):
        yield data_set(study, place // PER_SERIES, place)


async def _filled(server: peers.Server, studies: int, each: int) -> float:
    """Instances per second."""
    began = time.perf_counter()
    async with await _associated(server) as association:
        for uid, data in instances(studies, each):
            response = await association.c_store(
                [data], sop_class_uid=CT, sop_instance_uid=uid, transfer_syntax_uid=EXPLICIT
            )
            assert response.status == 0, response
    return studies * each / (time.perf_counter() - began)


async def _asked(server: peers.Server, keys: dict[str, str]) -> tuple[int, float, float]:
    """How many responses a query has, its median seconds, and those until the first response."""
    given = keys_of(keys)
    identifier = encode_attributes(
        [Attribute(0x00080052, "CS", "STUDY")]
        + [Attribute(tag, vr, given.get(tag, "")) for tag, vr in RETURNED.items()]
    )
    times, firsts, count = [], [], 0
    async with await _associated(server) as association:
        for _ in range(REPEAT):
            began, count = time.perf_counter(), 0
            async with association.c_find(
                identifier, sop_class_uid=STUDY_ROOT_FIND, timeout=SECONDS
            ) as responses:
                async for response in responses:
                    count += response.is_pending
                    if count == 1:
                        firsts.append(time.perf_counter() - began)
            assert responses.final is not None and responses.final.status == 0, responses.final
            times.append(time.perf_counter() - began)
    return count, statistics.median(times), statistics.median(firsts or [0.0])


def _associated(server: peers.Server) -> Awaitable[Association]:
    return connect(
        peers.HOST,
        server.port,
        called=server.ae_title,
        contexts=[(STUDY_ROOT_FIND, (EXPLICIT,)), (CT, (EXPLICIT,))],
    )


def _await(coroutine: Awaitable[T]) -> T:
    found: list[T] = []

    async def main() -> None:
        found.append(await coroutine)

    run(main())
    return found[0]


def _orthanc(folder: Path) -> AbstractContextManager[peers.Server]:
    return peers.orthanc(folder, settings={"LimitFindResults": 0, "LimitFindInstances": 0})


def _gateway(folder: Path) -> AbstractContextManager[peers.Server]:
    return servers.running(GATEWAY, folder, nodelay=True)


_HOLDERS: tuple[tuple[str, Callable[[Path], AbstractContextManager[peers.Server]], int, int], ...]
_HOLDERS = (
    ("dcmqrscp", peers.dcmqrscp, STUDIES, FEW),
    ("Orthanc", _orthanc, STUDIES, FEW),
    ("gateway", _gateway, STUDIES, FEW),
    ("Orthanc", _orthanc, MANY, PER_STUDY),
    ("gateway", _gateway, MANY, PER_STUDY),
)


def compared(archive: Archive) -> Iterator[str]:
    """Lines of the table, as they are measured; what was filled before is used again."""
    for name, start, studies, each in _HOLDERS:
        folder = archive.folder / f"{name}-{studies}"
        held = f"{name}, {studies * each:,} in {studies:,}"
        done = folder.with_suffix(".filled")
        if start is _gateway and studies == MANY and not done.exists():
            folder.mkdir()
            database = archive.database(folder / "data")
            store(database, studies * each)  # as index rows: over one association it takes long
            database.close()
            done.touch()
        with start(folder) as server:
            if not done.exists():
                yield f"{held:32} filled at {_await(_filled(server, studies, each)):6,.0f}/s"
                done.touch()
            yield from _lines(server, held, studies)
    if archive.data.exists():
        held = f"gateway, {archive.instances:,} in {archive.studies:,}"
        with _gateway(archive.data.parent) as server:
            yield from _lines(server, held, archive.studies)


def _lines(server: peers.Server, held: str, studies: int) -> Iterator[str]:
    for what, keys in all_questions(studies).items():
        count, seconds, first = _await(_asked(server, keys))
        yield (
            f"{held:32} {what:20} {count:7,} studies in {seconds * 1000:9.2f} ms, "
            f"the first in {first * 1000:8.2f} ms"
        )


TURNS, COLD = 13, 4
"""Turns, and the first ones, in which caches fill."""


class Scattered(Identities):
    """Identities whose UIDs are in no order, as those that are made of UUIDs."""

    def _uid(self) -> bytes:
        return b"2.25.%d" % (10**38 + secrets.randbelow(9 * 10**38))


def stored_by_turns(archive: Archive) -> dict[str, list[float]]:
    """C-STORE per second to a gateway on an empty index and to one on the full index."""
    bench = Bench(archive.folder, Scattered())
    scenario = Scenario("10k-16", "store", "10k", 16, 2400)
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    with ExitStack() as stack:
        running = {
            "empty": stack.enter_context(_gateway(archive.folder / f"empty-{time.time_ns()}")),
            "full": stack.enter_context(_gateway(archive.data.parent)),
        }
        for server in running.values():
            bench.warm_up(scenario, GATEWAY, server)
        for turn in range(TURNS):
            for name in ("empty", "full") if turn % 2 else ("full", "empty"):
                sample = bench.sample(scenario, GATEWAY, running[name], turn)
                rates[name].append(sample.rate)
    return rates
