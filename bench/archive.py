"""How an archive does as it grows: ``python -m bench.archive [PART …] [--folder DIR]``.

Rows of a million instances in 20,000 studies are written with the gateway's own writer, no files.

fill      the index is written; said is the rate by what is there already
storing   rows into the full index and into an empty one, by turns
gateway   C-STORE to a gateway on the full index and to one on an empty one, by turns
queries   study-level queries of the index
peers     the same queries as C-FIND of gateways, dcmqrscp and Orthanc that hold the same studies,
          as many as dcmqrscp can (see `bench.archive_peers`), and of a gateway on the full index
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from hilum.gateway.app import initialise
from hilum.gateway.store.database import Checkpointer, Database, open_database, upgrade
from hilum.gateway.store.find import Finder
from hilum.gateway.store.incoming import Incoming
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.results import Viewer
from hilum.services.answers import AnswerWriter
from hilum.services.identifier import Attribute
from hilum.services.matching import QUERY_RETRIEVE_LEVEL, Level, Query

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
FAMILIES = ("Smith", "Müller", "Garcia", "Nguyen", "Kowalski", "Ivanov", "Rossi", "Sato", "Dubois")
PER_STUDY, PER_SERIES, BATCH = 50, 25, 100

LANES = 10
"""Studies that arrive at the same time."""

RETURNED = {
    0x00080020: "DA", 0x00080030: "TM", 0x00080050: "SH", 0x00080061: "CS", 0x00081030: "LO",
    0x00100010: "PN", 0x00100020: "LO", 0x0020000D: "UI", 0x00201206: "IS", 0x00201208: "IS",
}  # fmt: skip


def uid_of(*numbers: int) -> str:
    """A UID as UUIDs make them, in no order: what is hardest on an index."""
    digest = blake2b(repr(numbers).encode(), digest_size=16).digest()
    return f"2.25.{int.from_bytes(digest, 'big')}"


def attributes(study: int, series: int, place: int) -> dict[str, bytes]:
    """What identifies an instance, and what is asked for, by keyword."""
    patient, day = study // 2, study % 3650
    name = f"{FAMILIES[patient % len(FAMILIES)]}^P{patient:06}"
    return {
        "SpecificCharacterSet": b"ISO_IR 100", "PatientName": name.encode("latin-1"),
        "PatientID": b"PID%07d" % patient, "StudyInstanceUID": uid_of(study).encode(),
        "SeriesInstanceUID": uid_of(study, series).encode(),
        "AccessionNumber": b"ACC%07d" % study, "StudyID": b"%d" % study,
        "StudyDate": b"%04d%02d%02d" % (2015 + day // 365, day % 365 // 31 + 1, day % 28 + 1),
        "StudyTime": b"%02d%02d00" % (study % 24, study % 60),
        "StudyDescription": b"CT THORAX", "Modality": b"CT", "SeriesNumber": b"%d" % series,
        "InstanceNumber": b"%d" % place, "ImageType": b"ORIGINAL\\PRIMARY\\AXIAL",
        "Manufacturer": b"ACME", "StationName": b"CT1",
    }  # fmt: skip


def rows(count: int, start: int = 0) -> Iterator[Incoming]:
    """Instances as they come from scanners: a few studies at a time."""
    for number in range(start, start + count):
        group, rest = divmod(number, LANES * PER_STUDY)
        place, lane = divmod(rest, LANES)
        study, series = group * LANES + lane, place // PER_SERIES
        values = attributes(study, series, place)
        uid = uid_of(study, series, place)
        folder = f"{uid_of(study)}/{uid_of(study, series)}"
        yield Incoming(
            owner_id=0, sop_class_uid=CT, sop_instance_uid=uid, transfer_syntax_uid=EXPLICIT,
            path=f"objects/2026/01/01-{number // 10_000:03}/global/{folder}/{uid}.dcm",
            data_offset=512, size=524_288, digest=number.to_bytes(16, "big"), values=values,
            received_at=1_700_000_000_000_000 + number,
        )  # fmt: skip


def store(database: Database, count: int, start: int = 0) -> float:
    """Write rows in batches; returns instances per second."""
    writer, checkpointer = IndexWriter(database), Checkpointer(database)
    batch: list[Incoming] = []
    spent = 0.0
    for number, item in enumerate(rows(count, start), 1):
        batch.append(item)
        if len(batch) == BATCH or number == count:
            began = time.perf_counter()
            writer.commit(batch, deadline=time.monotonic() + 30)
            spent += time.perf_counter() - began
            batch = []
        if number % 20_000 == 0:
            checkpointer.run()
    checkpointer.run()
    writer.close()
    checkpointer.close()
    return count / spent


def asked(**values: str) -> Query:
    """A study-level query that wants the usual keys back."""
    return Query.of(
        [Attribute(QUERY_RETRIEVE_LEVEL, "CS", "STUDY")]
        + [Attribute(tag, vr, keys_of(values).get(tag, "")) for tag, vr in RETURNED.items()]
    )


def keys_of(values: dict[str, str]) -> dict[int, str]:
    """Tags and values of keys by their short names."""
    tags = {"uid": 0x0020000D, "accession": 0x00080050, "name": 0x00100010, "date": 0x00080020,
            "patient": 0x00100020}  # fmt: skip
    return {tags[key]: value for key, value in values.items()}


def answer(database: Database, query: Query) -> int:
    """All the answers, encoded; returns how many."""
    finder = Finder(database, Viewer(), query, Level.STUDY)
    writer = AnswerWriter(finder.columns, {QUERY_RETRIEVE_LEVEL: ("CS", "STUDY")}, EXPLICIT)
    after, count, size = None, 0, 100
    while True:
        page = finder.page(after, limit=size)
        for row in page.rows:
            writer.encode(row)
        count += len(page.rows)
        after, size = page.next, min(4 * size, 2000)
        if after is None:
            return count


def questions(studies: int) -> dict[str, dict[str, str]]:
    """What is asked of so many studies: keys by their short names."""
    some = studies // 2
    return {
        "Study Instance UID": {"uid": uid_of(some)},
        "Accession Number": {"accession": f"ACC{some:07}"},
        "Patient ID": {"patient": f"PID{some // 2:07}"},
        "name, whole prefix": {"name": f"Smith^P{some // 2 // 9 * 9:06}*"},
        "name, family": {"name": "Kowal*"},
        "a week": {"date": "20160104-20160110"},
        "a year": {"date": "20160101-20161231"},
        "all studies": {},
    }


def queries(studies: int) -> dict[str, Query]:
    """The questions as queries."""
    return {name: asked(**keys) for name, keys in questions(studies).items()}


# ── the parts ─────────────────────────────────────────────────────────────────────────────────


class Archive:
    """The data directories of a run: a full archive and empty ones.

    Args:
        folder: holds them; what is there is used again.
        instances: of the full one.
    """

    def __init__(self, folder: Path, instances: int) -> None:
        self.folder, self.instances = folder, instances
        self.data = folder / "full" / "data"

    @property
    def studies(self) -> int:
        """Studies of the full one."""
        return self.instances // PER_STUDY

    def database(self, data: Path) -> Database:
        """The database of a data directory, which is made where it is missing."""
        if not data.exists():
            initialise(data)
        database = open_database(data / "hilum.db", role="receiver", create=True)
        upgrade(database)
        return database

    def fill(self) -> None:
        """Write what is not there yet."""
        database = self.database(self.data)
        there = count_of(database)
        step = max(self.instances // 10, BATCH)
        for start in range(there, self.instances, step):
            rate = store(database, min(step, self.instances - start), start)
            print(f"storing, {start:>9,} there: {rate:8,.0f} instances/s", flush=True)
        database.close()


def count_of(database: Database) -> int:
    """Instances in an index."""
    with database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM instance").scalar_one())


ROUNDS, PORTION, WARM = 18, 5_000, 6


def storing(archive: Archive) -> None:
    """Rows into the full index and into an empty one, by turns; the first turns fill the caches."""
    with tempfile.TemporaryDirectory(dir=archive.folder) as folder:
        full = archive.database(archive.data)
        empty = archive.database(Path(folder) / "empty")
        # Beyond what `fill` writes, and other rows in each round.
        start = max(archive.instances, 10**9)
        start += count_of(full)
        rates: dict[str, list[float]] = {"empty": [], "full": []}
        for turn in range(ROUNDS):
            for name in ("empty", "full") if turn % 2 else ("full", "empty"):
                database = full if name == "full" else empty
                rates[name].append(store(database, PORTION, start + turn * PORTION))
        say_rates(rates, f"index rows, {count_of(full):,} there", WARM)
        full.close()
        empty.close()


def say_rates(rates: dict[str, list[float]], what: str, warm: int = 1) -> None:
    """The medians, and the median ratio of the pairs."""
    empty, full = rates["empty"][warm:], rates["full"][warm:]
    ratio = statistics.median(b / a for a, b in zip(empty, full, strict=True))
    print(
        f"{what}: {statistics.median(empty):8,.0f}/s when empty, "
        f"{statistics.median(full):8,.0f}/s when full, {ratio:.2f} of it "
        f"({min(full):,.0f}-{max(full):,.0f})",
        flush=True,
    )


def gateway(archive: Archive) -> None:
    """C-STORE to gateways on the full index and on an empty one."""
    from bench.archive_peers import COLD, stored_by_turns

    say_rates(stored_by_turns(archive), "C-STORE of 10 KB, 16 associations", COLD)


def asking(archive: Archive) -> None:
    """Study-level queries of the full index."""
    database = archive.database(archive.data)
    for name, query in queries(archive.studies).items():
        times = []
        for _ in range(5):
            began = time.perf_counter()
            found = answer(database, query)
            times.append(time.perf_counter() - began)
        median = statistics.median(times)
        print(f"{name:20} {found:7,} studies in {median * 1000:9.2f} ms", flush=True)
    database.close()


def peers(archive: Archive) -> None:
    """The same questions of us and of others."""
    from bench.archive_peers import compared

    for line in compared(archive):
        print(line, flush=True)


PARTS: dict[str, Callable[[Archive], None]] = {
    "fill": Archive.fill,
    "storing": storing,
    "gateway": gateway,
    "queries": asking,
    "peers": peers,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts."""
    options = argparse.ArgumentParser(
        prog="python -m bench.archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all")
    options.add_argument("--instances", type=int, default=1_000_000, help="default %(default)s")
    options.add_argument("--folder", type=Path, help="kept, and used again; default: a new one")
    said = options.parse_args(argv)
    if unknown := set(said.parts) - set(PARTS):
        options.error(f"no part {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = said.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for part in said.parts or PARTS:
            PARTS[part](Archive(folder, said.instances))
    return 0


if __name__ == "__main__":
    sys.exit(main())
