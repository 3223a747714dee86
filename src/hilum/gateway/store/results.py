"""Who asks the index, and the rows that it answers with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement

from hilum.gateway.store import schema
from hilum.gateway.store.states import GLOBAL_OWNER

__all__ = [
    "FOUND",
    "Cursor",
    "Found",
    "InstanceRow",
    "Page",
    "PatientRow",
    "SeriesRow",
    "Statistics",
    "StudyRow",
    "Version",
    "Viewer",
]

Cursor = tuple[Any, ...]
"""Where a page ended; opaque."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks.

    Args:
        account_id: sees what is everyone's and what is this account's; None: only everyone's.
        others: accounts of a group that it sees too.
        all: sees every owner's, but not the quarantine.
        quarantine: sees the quarantine, and nothing else.
        only: sees what is this owner's, and nothing else.
    """

    account_id: int | None = None
    all: bool = False
    quarantine: bool = False
    others: tuple[int, ...] = ()
    only: int | None = None

    @property
    def sees_several(self) -> bool:
        """Whether one thing may be seen from several owners, to be told once."""
        if self.only is not None:
            return False
        return self.all or self.quarantine or self.account_id is not None or bool(self.others)

    def may_see(self, owner: ColumnElement[int]) -> ColumnElement[bool]:
        """The condition on an owner column: the one place where SQL decides who sees what."""
        if self.only is not None:
            return owner == self.only
        if self.quarantine:
            return owner < 0
        if self.all:
            return owner >= 0
        own = () if self.account_id is None else (self.account_id,)
        owners = {GLOBAL_OWNER, *own, *self.others}
        return owner.in_(sorted(owners)) if len(owners) > 1 else owner == GLOBAL_OWNER


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list.

    Args:
        rows: in order.
        next: what to give as `after` for the next page; None after the last.
    """

    rows: tuple[T, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class PatientRow:
    """A patient with counts for the viewer. `attributes` by DICOM keyword."""

    id: int
    owner_id: int
    patient_id: str
    issuer: str
    name: str
    n_studies: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study with its patient and counts for the viewer. `attributes` by DICOM keyword."""

    id: int
    owner_id: int
    study_uid: str
    patient_id: str
    issuer: str
    patient_name: str
    n_series: int
    n_instances: int
    total_bytes: int
    modalities: tuple[str, ...]
    sop_classes: tuple[str, ...]
    conflict: bool
    first_received: int
    last_received: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A series with counts for the viewer. `attributes` by DICOM keyword."""

    id: int
    owner_id: int
    study_uid: str
    series_uid: str
    n_instances: int
    total_bytes: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """The current version of an instance. `attributes` by DICOM keyword."""

    id: int
    owner_id: int
    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    path: str
    data_offset: int
    size: int
    flags: int
    received_at: int
    sending_ae: str
    receiving_ae: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """Where an instance's data set is."""

    id: int
    owner_id: int
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    path: str
    data_offset: int
    size: int


FOUND = tuple(schema.instance.c[field.name] for field in fields(Found))
"""The columns of a `Found`, in its order."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an instance."""

    id: int
    owner_id: int
    current: bool
    received_at: int
    size: int
    digest: bytes
    transfer_syntax: str
    path: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Totals of what a viewer sees; an instance that two owners have counts twice here."""

    patients: int
    studies: int
    series: int
    instances: int
    total_bytes: int
