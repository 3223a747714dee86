"""A data directory with everything open, data sets to put in it, and a look at what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from hilum.gateway.app import Storage, initialise
from hilum.gateway.config import Config, Store
from hilum.gateway.store import queries
from hilum.gateway.store.commit import Arrival, Committer, Destination
from hilum.gateway.store.file_meta import ObjectMeta
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.results import InstanceRow, Viewer
from hilum.net.service import Outcome

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
LARGE = 200_000


def encode(data_set: Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    """The bytes of a data set, without file meta."""
    file = DicomBytesIO()
    syntax = UID(transfer_syntax)
    file.is_little_endian, file.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(file, data_set)
    return file.getvalue()


def image(sop: str = "1.2.3", *, pixels: int = 64, **elements: Any) -> Dataset:
    """A CT image; an element given as None is left out."""
    data_set = Dataset()
    values = {
        "SOPClassUID": CT,
        "SOPInstanceUID": sop,
        "StudyDate": "20260301",
        "Modality": "CT",
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.1",
        "InstanceNumber": 1,
        **elements,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(data_set, keyword, value)
    if pixels:
        data_set.add_new(
            0x7FE00010, "OW", bytes(range(256)) * (pixels // 256) + bytes(pixels % 256)
        )
    return data_set


class World:
    """A data directory and its open parts; without a spool, so that files can be looked at."""

    def __init__(self, data: Path, *, spool: int = 0) -> None:
        self.data = data
        store = Store(strategy="fsync", reserve=0, spool=spool)
        self.config = Config(data=str(data), store=store)
        if not data.exists():
            initialise(data)
        self.storage = Storage(self.config)

    def committer(self, **options: Any) -> Committer:
        """A started committer; needs a running loop."""
        arguments: dict[str, Any] = {
            "blobs": self.storage.blobs,
            "writer": IndexWriter(self.storage.database),
            "scanner": self.storage.scanner,
            "fatal": lambda error: None,
            **options,
        }
        committer = Committer(
            arguments.pop("blobs"), arguments.pop("writer"), arguments.pop("scanner"), **arguments
        )
        committer.start()
        return committer

    def listed(self, viewer: Viewer = Viewer(all=True)) -> list[InstanceRow]:  # noqa: B008
        return list(queries.list_instances(self.storage.database, viewer).rows)

    def seen(self, viewer: Viewer = Viewer(all=True)) -> list[str]:  # noqa: B008
        return sorted(row.sop_uid for row in self.listed(viewer))

    def files(self) -> set[str]:
        """Every file, relative to the data directory."""
        top = self.data / "objects"
        return {str(p.relative_to(self.data)) for p in top.rglob("*") if p.is_file()}

    def content(self, path: str) -> bytes:
        file, _ = self.storage.blobs.open_read(path)
        with file:
            return file.read()

    def crash(self) -> None:
        """Close without what a graceful end would write: buckets stay open, as after a kill."""
        self.storage.blobs._report_closed = lambda name: None
        self.storage.close()

    def close(self) -> None:
        self.storage.close()


EVERYONE = Destination()


@cache
def destination(**rules: Any) -> Destination:
    return Destination(**rules)


def arrival(
    data: bytes,
    sop: str = "1.2.3",
    *,
    where: Destination = EVERYONE,
    transfer_syntax: str = EXPLICIT,
    sop_class: str = CT,
) -> Arrival:
    """A whole object in memory, as a sink would have it."""
    meta = ObjectMeta(sop_class, sop, transfer_syntax, "RAIVEN", "SENDER", arrived_us=_tick())
    meta.owner = where.owner
    return Arrival(meta, where, "127.0.0.1", [data], len(data))


_ticks = [1_700_000_000_000_000]


def _tick() -> int:
    _ticks[0] += 1
    return _ticks[0]


def submit(committer: Committer, what: Arrival) -> asyncio.Future[Outcome]:
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    committer.submit(what, done)
    return done


async def spill(committer: Committer, data: bytes, sop: str, **where: Any) -> Arrival:
    """An object that goes to its file while it arrives."""
    what = arrival(b"", sop, **where)
    what.parts = []
    for start in range(0, len(data), 70_000):
        await committer.spill(what, [memoryview(data)[start : start + 70_000]])
    return what


async def keep(committer: Committer, *sent: tuple[bytes, str], **rules: Any) -> list[int]:
    """Commit objects together; their statuses."""
    done = [submit(committer, arrival(data, sop, **rules)) for data, sop in sent]
    return [outcome.status for outcome in await asyncio.gather(*done)]


async def until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Wait for what another thread does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, what
        await asyncio.sleep(0.002)
