"""A database in a folder, instances to put in it, and a recount to compare it with."""

from __future__ import annotations

import hashlib
import tempfile
import time
from functools import cache
from pathlib import Path

from sqlalchemy import text

from hilum.gateway.store.database import Database, open_database, upgrade
from hilum.gateway.store.index import Incoming, IndexWriter, Outcome

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


@cache
def _new_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(Path(folder) / "new.db", role="command", create=True)
        upgrade(database)
        database.close()
        return (Path(folder) / "new.db").read_bytes()


def make_database(folder: Path) -> Database:
    (folder / "hilum.db").write_bytes(_new_database())
    return open_database(folder / "hilum.db", role="receiver")


def soon() -> float:
    return time.monotonic() + 20


def make(
    sop: str,
    *,
    patient: str = "P1",
    study: str = "1.1",
    series: str = "1.1.1",
    content: bytes | None = None,
    owner: int = 0,
    received_at: int = 1_700_000_000_000_000,
    values: dict[str, bytes] | None = None,
    **more: object,
) -> Incoming:
    content = sop.encode() if content is None else content
    digest = hashlib.md5(content).digest()
    header = {
        "SpecificCharacterSet": b"ISO_IR 100",
        "PatientID": patient.encode(),
        "PatientName": b"Doe^Jane",
        "StudyInstanceUID": study.encode(),
        "SeriesInstanceUID": series.encode(),
        "StudyDate": b"20240229",
        "Modality": b"CT",
        "InstanceNumber": b"1 ",
        **(values or {}),
    }
    fields: dict[str, object] = {
        "sop_class_uid": CT,
        "transfer_syntax_uid": EXPLICIT,
        "path": f"objects/{owner}/{sop}-{digest.hex()[:8]}.dcm",
        "data_offset": 400,
        "size": len(content),
        **more,
    }
    return Incoming(
        owner_id=owner,
        sop_instance_uid=sop,
        digest=digest,
        values=header,
        received_at=received_at,
        **fields,  # type: ignore[arg-type]
    )


def put(writer: IndexWriter, *items: Incoming) -> list[Outcome]:
    return writer.commit(items, deadline=soon())


def rows(database: Database, sql: str, **parameters: object) -> list[tuple[object, ...]]:
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(text(sql), parameters)]


def assert_counts_are_a_recount(database: Database) -> None:
    wrong = rows(
        database,
        """
        SELECT series.id FROM series LEFT JOIN instance
          ON instance.series_ref = series.id AND superseded = 0
        GROUP BY series.id
        HAVING count(instance.id) <> n_instances OR coalesce(sum(size), 0) <> total_bytes
        """,
    )
    assert wrong == []
    wrong = rows(
        database,
        """
        SELECT study.id FROM study LEFT JOIN series
          ON series.study_ref = study.id AND series.n_instances > 0
        GROUP BY study.id
        HAVING count(series.id) <> n_series
          OR coalesce(sum(series.n_instances), 0) <> study.n_instances
          OR coalesce(sum(series.total_bytes), 0) <> study.total_bytes
        """,
    )
    assert wrong == []
    for study_id, modalities, classes in rows(
        database, "SELECT id, modalities, sop_classes FROM study"
    ):
        found = rows(
            database,
            "SELECT DISTINCT modality, sop_class FROM series JOIN instance ON series_ref = series.id "
            "WHERE study_ref = :study AND superseded = 0",
            study=study_id,
        )
        assert {m for m in str(modalities).split("\\") if m} == {m for m, _ in found if m}
        assert {c for c in str(classes).split("\\") if c} == {c for _, c in found}
    # Nothing is left that holds nothing.
    assert (
        rows(database, "SELECT id FROM series WHERE id NOT IN (SELECT series_ref FROM instance)")
        == []
    )
    assert (
        rows(database, "SELECT id FROM study WHERE id NOT IN (SELECT study_ref FROM series)") == []
    )
    assert (
        rows(database, "SELECT id FROM patient WHERE id NOT IN (SELECT patient_ref FROM study)")
        == []
    )
    conflicts = rows(
        database,
        "SELECT id FROM study s WHERE conflict <> (SELECT CASE WHEN count(*) > 1 THEN 1 ELSE 0 END FROM study o "
        "WHERE o.study_uid = s.study_uid AND o.owner_id = s.owner_id)",
    )
    assert conflicts == []
