"""Senders that remember what they were told, and the check that the archive holds exactly that.

A `Ledger` keeps, for every SOP Instance UID that was sent, whose it is, the digest of its bytes and
the status that was answered, None where none came. `check` holds an archive against it::

    ledger = Ledger()
    crowd = Crowd(gateway.port, ledger)
    ...                       # gateway.kill(), a power cut, an error
    await crowd.over()
    check(data, ledger)
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from hilum.errors import AssociationError, HilumError
from hilum.gateway.store import queries
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database, open_database
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.layout import SPOOL, spooled
from hilum.gateway.store.results import InstanceRow, Viewer
from hilum.gateway.store.verify import verify
from hilum.net import Association, Timeouts, connect

__all__ = [
    "CT",
    "OUT_OF_RESOURCES",
    "TITLES",
    "Crowd",
    "Image",
    "Ledger",
    "Sent",
    "check",
    "images",
    "open_association",
    "opened",
    "send",
    "store",
    "write_file",
]

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
OUT_OF_RESOURCES = 0xA700

TITLES = {"RAIVEN": None, "RVU-alice": "alice", "RVU-bob": "bob"}
"""Called AE titles and whose the images are; None: everyone's."""

SMALL, LARGE = 10_000, 300_000
# A gateway that does not answer within a sender's usual minute has failed a test.
PATIENCE = Timeouts(connect=10.0, associate=20.0, dimse=60.0, release=10.0)

_NOISE = os.urandom(LARGE)
_root = f"2.25.{random.SystemRandom().randrange(10**20, 10**21)}"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Image:
    """An encoded CT data set, Explicit VR Little Endian."""

    sop_instance_uid: str
    study_instance_uid: str
    data: bytes

    @property
    def digest(self) -> bytes:
        """XXH3-128 of the data set."""
        return xxhash.xxh3_128_digest(self.data)


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    head = struct.pack("<HH2s", group, element, vr)
    if vr == b"OW":
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def image(size: int, study: str = "", series: str = "") -> Image:
    """A CT image of its own content; in a study of its own unless that is given."""
    number = next(_numbers)
    uid = f"{_root}.{number}"
    study = study or f"{uid}.1"
    header = b"".join(
        (
            _element(0x0008, 0x0016, b"UI", CT.encode()),
            _element(0x0008, 0x0018, b"UI", uid.encode()),
            _element(0x0008, 0x0020, b"DA", b"20260301"),
            _element(0x0008, 0x0060, b"CS", b"CT"),
            _element(0x0010, 0x0010, b"PN", b"Crash^Proof"),
            _element(0x0010, 0x0020, b"LO", study.encode()[-60:]),
            _element(0x0020, 0x000D, b"UI", study.encode()),
            _element(0x0020, 0x000E, b"UI", (series or f"{study}.1").encode()),
            _element(0x0020, 0x0013, b"IS", b"%d" % number),
        )
    )
    start = number * 7919 % (LARGE - SMALL) if size <= SMALL else 0
    noise = _NOISE * (size // LARGE + 1)
    pixels = number.to_bytes(8, "little") + noise[start : start + size - 8]
    return Image(uid, study, header + _element(0x7FE0, 0x0010, b"OW", pixels))


def images(size: int | None = None, *, share_series: float = 0.5) -> Iterator[Image]:
    """Endlessly: each in a new study, or a series of up to 30 in one.

    Args:
        size: bytes of pixel data; None for 10 KB and now and then 300 KB.
        share_series: how often a series begins instead of a lone image.
    """
    while True:
        study = f"{_root}.{next(_numbers)}.9"
        many = random.randrange(2, 30) if random.random() < share_series else 0
        for _ in range(many or 1):
            chosen = size or (LARGE if random.random() < 0.15 else SMALL)
            yield image(chosen, study if many else "")


@dataclass
class Sent:
    """What was sent, to whom, and what was answered; None: nothing."""

    title: str
    digest: bytes
    length: int
    study: str
    status: int | None = None


@dataclass
class Ledger:
    """Everything that was ever sent to one archive."""

    sent: dict[str, Sent] = field(default_factory=dict)
    ends: list[AssociationError] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)

    @property
    def acknowledged(self) -> dict[str, Sent]:
        """What was answered with success and not removed since."""
        return {
            uid: sent
            for uid, sent in self.sent.items()
            if sent.status == 0 and uid not in self.removed
        }

    def statuses(self) -> Counter[int | None]:
        """How often each status was answered."""
        return Counter(sent.status for sent in self.sent.values())


async def store(
    association: Association,
    title: str,
    image: Image,
    ledger: Ledger,
    parts: AsyncIterator[bytes] | None = None,
) -> int:
    """Send one image, written down before and after; returns the status.

    Args:
        association: one for that title.
        title: the called AE title.
        image: what to send.
        ledger: is written.
        parts: yields the data set, at its own pace; None: at once.
    """
    sent = _written_down(title, image, ledger)
    response = await association.c_store(
        parts or (image.data,),
        sop_class_uid=CT,
        sop_instance_uid=image.sop_instance_uid,
        transfer_syntax_uid=EXPLICIT,
    )
    sent.status = response.status
    return response.status


def write_file(path: Path, image: Image, title: str, ledger: Ledger) -> Sent:
    """An image as a PS3.10 file, to be sent by someone else; its status is the caller's to set."""
    meta = b"".join(
        (
            _element(0x0002, 0x0002, b"UI", CT.encode()),
            _element(0x0002, 0x0003, b"UI", image.sop_instance_uid.encode()),
            _element(0x0002, 0x0010, b"UI", EXPLICIT.encode()),
        )
    )
    length = _element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta)))
    path.write_bytes(bytes(128) + b"DICM" + length + meta + image.data)
    return _written_down(title, image, ledger)


def _written_down(title: str, image: Image, ledger: Ledger) -> Sent:
    sent = Sent(title, image.digest, len(image.data), image.study_instance_uid)
    ledger.sent[image.sop_instance_uid] = sent
    return sent


async def send(port: int, title: str, what: Sequence[Image], ledger: Ledger) -> list[int | None]:
    """Send images over one association; None for those without an answer when it ended early."""
    try:
        association = await open_association(port, title)
        async with association:
            for each in what:
                await store(association, title, each, ledger)
    except AssociationError as error:
        ledger.ends.append(error)
    sent = (ledger.sent.get(each.sop_instance_uid) for each in what)
    return [one.status if one is not None else None for one in sent]


async def open_association(port: int, title: str) -> Association:
    """An association as a CT scanner opens it."""
    return await connect(
        "127.0.0.1",
        port,
        called=title,
        calling="SENDER",
        contexts=((CT, (EXPLICIT,)),),
        timeouts=PATIENCE,
    )


class Crowd:
    """Senders that go on until the gateway is gone, or `limit` images each were answered.

    Args:
        port: where the gateway listens.
        ledger: is written.
        senders: how many associations at once, over the titles in turn.
        limit: images per sender; a bound, should nobody end the gateway.
        size: see `images`.
        share_series: see `images`.
    """

    def __init__(
        self,
        port: int,
        ledger: Ledger,
        *,
        senders: int = 8,
        limit: int = 400,
        size: int | None = None,
        share_series: float = 0.5,
    ) -> None:
        self._port = port
        self._ledger = ledger
        self._limit = limit
        self._images = images(size, share_series=share_series)
        self._answered = 0
        self._progress = asyncio.Condition()
        titles = itertools.cycle(TITLES)
        self._tasks = [
            asyncio.create_task(self._send(next(titles)), name=f"sender {number}")
            for number in range(senders)
        ]

    async def _send(self, title: str) -> None:
        try:
            async with await open_association(self._port, title) as association:
                for _ in range(self._limit):
                    await store(association, title, next(self._images), self._ledger)
                    async with self._progress:
                        self._answered += 1
                        self._progress.notify_all()
        except AssociationError as error:
            self._ledger.ends.append(error)

    async def answered(self, count: int) -> None:
        """Wait until so many answers came in."""
        async with asyncio.timeout(60), self._progress:
            await self._progress.wait_for(lambda: self._answered >= count)

    async def over(self, seconds: float = 90) -> None:
        """Wait until every sender has ended; a sender that hangs is a failure."""
        async with asyncio.timeout(seconds):
            await asyncio.gather(*self._tasks)


# ── the archive against the ledger ──────────────────────────────────────────────────────────


def opened(data: Path) -> Database:
    """The database of a data directory, as a command opens it."""
    return open_database(data / "hilum.db", role="command")


def rows(database: Database, viewer: Viewer) -> list[InstanceRow]:
    """Every instance that a viewer sees."""
    found, after = [], None
    while True:
        page = queries.list_instances(database, viewer, limit=1000, after=after)
        found += page.rows
        after = page.next
        if after is None:
            return found


def check(data: Path, ledger: Ledger, *, quiet: bool = True) -> list[InstanceRow]:
    """What was acknowledged is there once, intact, its owner's; nothing partial is visible.

    Args:
        data: the data directory.
        ledger: everything that was sent to it.
        quiet: nothing is in flight, so every file must have its row.

    Returns:
        Everything that is listed.
    """
    database = opened(data)
    blobs = BlobStore.open(data, "fsync")
    try:
        names = {a.id: a.name for a in Directory(database).snapshot().accounts} | {0: None}
        listed = rows(database, Viewer(all=True))
        times = Counter(row.sop_uid for row in listed)
        acknowledged = ledger.acknowledged
        missing = acknowledged.keys() - times.keys()
        assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged are gone"
        assert not [uid for uid, count in times.items() if count != 1], "listed more than once"
        _check_viewers(database, names, acknowledged)
        for row in listed:
            sent = ledger.sent[row.sop_uid]
            assert row.sop_uid not in ledger.removed
            assert names[row.owner_id] == TITLES[sent.title], f"{row.path} belongs to the wrong one"
            assert row.receiving_ae == sent.title
            assert row.study_uid == sent.study
            assert row.size == sent.length
            assert _digest(blobs, row.path) == sent.digest, f"{row.path} is not what was sent"
        if quiet:
            files = _files(data)
            places = [spooled(row.path) for row in listed]
            # What is being moved may have its file before its row says so.
            assert files - {place.own for place in places if place is not None} == {
                row.path for row in listed if spooled(row.path) is None
            }, "files without rows"
            assert not verify(database, blobs).findings
        return listed
    finally:
        blobs.close()
        database.close()


def _digest(blobs: BlobStore, path: str) -> bytes | None:
    try:
        file, _ = blobs.open_read(path)
    except HilumError:
        return None
    with file:
        return xxhash.xxh3_128_digest(file.read())


def _check_viewers(
    database: Database, names: dict[int, str | None], acknowledged: dict[str, Sent]
) -> None:
    """Each user sees what is everyone's and what is their own."""
    for number, name in names.items():
        viewer = Viewer(account_id=number) if name is not None else Viewer()
        seen = {row.sop_uid for row in rows(database, viewer)}
        for uid, sent in acknowledged.items():
            assert (uid in seen) == (TITLES[sent.title] in (None, name))


def _files(data: Path) -> set[str]:
    """Everything that is in a file of its own."""
    found = set()
    for folder, _, names in os.walk(data / "objects"):
        if Path(folder).name != SPOOL:
            found |= {str(Path(folder, name).relative_to(data)) for name in names}
    return found
