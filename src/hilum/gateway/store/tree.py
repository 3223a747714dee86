"""Patients, studies and series as the index writer remembers them between batches.

Entries hold what the writer needs to place an instance and to keep counts without asking the
database. They are true only while nobody else has written: `Tree.clear` forgets them.

The first value received for an attribute stands; what was empty is filled by later instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hilum.gateway.store.keys import PATIENT_KEYS, SERIES_KEYS, STUDY_KEYS, Key

__all__ = ["PatientEntry", "SeriesEntry", "StudyEntry", "Tree"]

# Some 3 KB each. More series than this are never open at once on one gateway.
REMEMBERED = 4096

MODALITY_AT = [key.column for key in SERIES_KEYS].index("modality")


class _Entry:
    """A row.

    Args:
        id: of the row.
        row: the row to be inserted; None once it is.
        keys: its query keys.
        columns: their values.
    """

    __slots__ = ("_columns", "_gaps", "_keys", "id", "row")

    def __init__(
        self, id: int, row: list[object] | None, keys: tuple[Key, ...], columns: Sequence[object]
    ) -> None:
        self.id, self.row = id, row
        self._keys, self._columns = keys, columns
        self._gaps: dict[str, Key] | None = None

    @property
    def gaps(self) -> dict[str, Key]:
        """The keys that have no value yet, by keyword; mutable."""
        # Found when first needed: most entries of single-image studies are never seen again.
        if self._gaps is None:
            pairs = zip(self._keys, self._columns, strict=True)
            self._gaps = {key.keyword: key for key, value in pairs if value == key.empty}
            self._columns = ()
        return self._gaps

    def take_row(self) -> list[object]:
        """The row to insert; from now on it counts as written."""
        row, self.row = self.row, None
        assert row is not None
        return row


class PatientEntry(_Entry):
    """A patient's row."""

    __slots__ = ()

    def __init__(self, id: int, row: list[object] | None, columns: Sequence[object]) -> None:
        super().__init__(id, row, PATIENT_KEYS, columns)


class StudyEntry(_Entry):
    """A study's row with its counts."""

    __slots__ = (
        "last_received",
        "modalities",
        "n_instances",
        "n_series",
        "patient",
        "sop_classes",
        "total_bytes",
    )

    def __init__(
        self, id: int, patient: PatientEntry, row: list[object] | None, columns: Sequence[object]
    ) -> None:
        super().__init__(id, row, STUDY_KEYS, columns)
        self.patient = patient
        self.n_series = self.n_instances = self.total_bytes = self.last_received = 0
        self.modalities: set[str] = set()
        self.sop_classes: set[str] = set()

    @classmethod
    def known(cls, row: tuple[Any, ...], patient: PatientEntry) -> StudyEntry:
        """From a row of `Statements.find_study`."""
        study = cls(row[0], patient, None, row[9:])
        study.n_series, study.n_instances, study.total_bytes, study.last_received = row[3:7]
        study.modalities = set(filter(None, row[7].split("\\")))
        study.sop_classes = set(filter(None, row[8].split("\\")))
        return study

    def counts(self) -> tuple[Any, ...]:
        """The parameters of `Statements.count_study`."""
        return (
            self.n_series,
            self.n_instances,
            self.total_bytes,
            "\\".join(sorted(self.modalities)),
            "\\".join(sorted(self.sop_classes)),
            self.last_received,
            self.id,
        )

    def take_row(self) -> list[object]:
        """As above, with the counts of this moment."""
        row = super().take_row()
        *counts, last_received, _ = self.counts()
        row[-9:-4] = counts
        row[-2] = last_received
        return row


class SeriesEntry(_Entry):
    """A series' row with its counts."""

    __slots__ = ("modality", "n_instances", "study", "total_bytes")

    def __init__(
        self, id: int, study: StudyEntry, row: list[object] | None, columns: Sequence[object]
    ) -> None:
        super().__init__(id, row, SERIES_KEYS, columns)
        self.study = study
        self.n_instances = self.total_bytes = 0
        self.modality = ""

    @classmethod
    def known(cls, row: tuple[Any, ...], study: StudyEntry) -> SeriesEntry:
        """From a row of `Statements.find_series`."""
        series = cls(row[0], study, None, row[3:])
        series.n_instances, series.total_bytes = row[1:3]
        series.modality = row[3 + MODALITY_AT]
        return series

    def counts(self) -> tuple[Any, ...]:
        """The parameters of `Statements.count_series`."""
        return self.n_instances, self.total_bytes, self.id

    def take_row(self) -> list[object]:
        """As above, with the counts of this moment."""
        row = super().take_row()
        row[-4:-2] = self.n_instances, self.total_bytes
        return row

    def count(self, size: int, sop_class: str, received_at: int) -> None:
        """Count one more current instance, here and in the study."""
        study = self.study
        if not self.n_instances:
            study.n_series += 1
            if self.modality:
                study.modalities.add(self.modality)
        self.n_instances += 1
        self.total_bytes += size
        study.n_instances += 1
        study.total_bytes += size
        study.sop_classes.add(sop_class)
        if received_at > study.last_received:
            study.last_received = received_at


class Tree:
    """The entries by identity.

    They are forgotten all together, never one by one: two entries for one row would count apart.
    """

    def __init__(self) -> None:
        self.patients: dict[tuple[int, str, str, str], PatientEntry] = {}
        self.studies: dict[tuple[int, str], StudyEntry] = {}
        self.series: dict[tuple[int, str], SeriesEntry] = {}
        # By raw identifying values, which saves decoding them.
        self.places: dict[tuple[object, ...], SeriesEntry] = {}

    @property
    def full(self) -> bool:
        """Time to forget; the caller does so between batches."""
        return len(self.places) >= REMEMBERED

    def clear(self) -> None:
        """Forget everything."""
        self.patients.clear()
        self.studies.clear()
        self.series.clear()
        self.places.clear()
