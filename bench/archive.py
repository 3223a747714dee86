"""How the index does as it grows: ``python -m bench.archive [--instances N] [--folder DIR]``.

Rows of N instances in N / 50 studies are written with the gateway's own writer, no files; said are
the rate of storing by what is there already, and the time of study-level queries.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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

RETURNED = {
    0x00080020: "DA", 0x00080030: "TM", 0x00080050: "SH", 0x00080061: "CS", 0x00081030: "LO",
    0x00100010: "PN", 0x00100020: "LO", 0x0020000D: "UI", 0x00201206: "IS", 0x00201208: "IS",
}  # fmt: skip


def rows(count: int, start: int = 0) -> Iterator[Incoming]:
    """Instances as they come from scanners: study after study."""
    for number in range(start, start + count):
        study, place = divmod(number, PER_STUDY)
        series = place // PER_SERIES
        patient = study // 2
        name = f"{FAMILIES[patient % len(FAMILIES)]}^P{patient:06}"
        day = study % 3650
        values = {
            "SpecificCharacterSet": b"ISO_IR 100", "PatientName": name.encode("latin-1"),
            "PatientID": b"PID%07d" % patient, "StudyInstanceUID": b"1.2.3.%d" % study,
            "SeriesInstanceUID": b"1.2.3.%d.%d" % (study, series),
            "AccessionNumber": b"ACC%07d" % study, "StudyID": b"%d" % study,
            "StudyDate": b"%04d%02d%02d" % (2015 + day // 365, day % 365 // 31 + 1, day % 28 + 1),
            "StudyTime": b"%02d%02d00" % (study % 24, study % 60),
            "StudyDescription": b"CT THORAX", "Modality": b"CT", "SeriesNumber": b"%d" % series,
            "InstanceNumber": b"%d" % place, "ImageType": b"ORIGINAL\\PRIMARY\\AXIAL",
            "Manufacturer": b"ACME", "StationName": b"CT1",
        }  # fmt: skip
        uid = f"1.2.3.{study}.{series}.{place}"
        yield Incoming(
            owner_id=0, sop_class_uid=CT, sop_instance_uid=uid, transfer_syntax_uid=EXPLICIT,
            path=f"objects/2026/01/01-000/global/{study}/{series}/{uid}.dcm", data_offset=512,
            size=524_288, digest=number.to_bytes(16, "big"), values=values,
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
    tags = {"uid": 0x0020000D, "accession": 0x00080050, "name": 0x00100010, "date": 0x00080020,
            "patient": 0x00100020}  # fmt: skip
    given = {tags[key]: value for key, value in values.items()}
    return Query.of(
        [Attribute(QUERY_RETRIEVE_LEVEL, "CS", "STUDY")]
        + [Attribute(tag, vr, given.get(tag, "")) for tag, vr in RETURNED.items()]
    )


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


def queries(studies: int) -> dict[str, Query]:
    """What is measured, for so many studies."""
    some = studies // 2
    return {
        "Study Instance UID": asked(uid=f"1.2.3.{some}"),
        "Accession Number": asked(accession=f"ACC{some:07}"),
        "Patient ID": asked(patient=f"PID{some // 2:07}"),
        "name, whole prefix": asked(name=f"SMITH^P{some // 2 // 9 * 9:06}*"),
        "name, family": asked(name="kowal*"),
        "a week": asked(date="20160104-20160110"),
        "a year": asked(date="20160101-20161231"),
        "all studies": asked(),
    }


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--instances", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path)
    said = options.parse_args()
    with tempfile.TemporaryDirectory(dir=said.folder) as folder:
        database = open_database(Path(folder) / "hilum.db", role="receiver", create=True)
        upgrade(database)
        step = max(said.instances // 10, BATCH)
        for start in range(0, said.instances, step):
            rate = store(database, min(step, said.instances - start), start)
            print(f"storing, {start:>9,} there: {rate:8,.0f} instances/s", flush=True)
        for name, query in queries(said.instances // PER_STUDY).items():
            times = []
            for _ in range(5):
                began = time.perf_counter()
                found = answer(database, query)
                times.append(time.perf_counter() - began)
            median = statistics.median(times)
            print(f"{name:20} {found:7,} studies in {median * 1000:9.2f} ms", flush=True)
        database.close()


if __name__ == "__main__":
    main()
