"""What ``hilum scp qr`` serves: a folder of DICOM files as a query/retrieve archive.

The headers of all files are held in memory; it is for tests and for handing over a few studies.
``hilum serve`` is for more.

Standard: PS3.4 C.4 (C-FIND, C-GET, C-MOVE), C.6 (information models).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, cast

from hilum.cli.received import Folder
from hilum.errors import InvalidDicom, Refused
from hilum.net.retrieve import Destination, move_to, retrieve_on
from hilum.net.service import Handler, Reply, Request, storage_policy
from hilum.net.sources import READ_ERRORS, FileSource, Source, find_sources, why
from hilum.services.dictionary import tag_for_keyword
from hilum.services.identifier import Attribute, encode_attributes, read_attributes
from hilum.services.matching import QUERY_RETRIEVE_LEVEL, InvalidIdentifier, Level, Query
from hilum.services.query_model import FIND_MODELS, RETRIEVE_MODELS, UNIQUE_KEYS, uids_to_retrieve
from hilum.services.selection import select
from hilum.services.status import Status
from hilum.services.transfer_syntaxes import choose
from hilum.wire.command import Command, CommandField
from hilum.wire.negotiation import ContextPolicy
from hilum.wire.pdu import PresentationContext

__all__ = ["Archive", "Kept", "handlers_of"]

log = logging.getLogger("hilum.cli")

PAGE = 64
"""Answers that are written at once."""


def _tags(names: str) -> frozenset[int]:
    return frozenset(tag for name in names.split() if (tag := tag_for_keyword(name)) is not None)


_PATIENT = "PatientID PatientName PatientBirthDate PatientSex IssuerOfPatientID PatientComments"
_STUDY = """StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber StudyDescription
    ReferringPhysicianName PatientAge PatientSize PatientWeight NameOfPhysiciansReadingStudy
    AdmittingDiagnosesDescription Occupation AdditionalPatientHistory InstitutionName
    TimezoneOffsetFromUTC ProcedureCodeSequence IssuerOfAccessionNumberSequence"""
_SERIES = """SeriesInstanceUID SeriesNumber Modality SeriesDescription SeriesDate SeriesTime
    BodyPartExamined Laterality ProtocolName StationName Manufacturer ManufacturerModelName
    InstitutionalDepartmentName PerformingPhysicianName OperatorsName PerformedProcedureStepID
    PerformedProcedureStepStartDate PerformedProcedureStepStartTime RequestAttributesSequence"""
_IMAGE = """SOPInstanceUID SOPClassUID InstanceNumber ContentDate ContentTime AcquisitionDate
    AcquisitionTime AcquisitionNumber ImageType Rows Columns BitsAllocated NumberOfFrames
    ImageComments ConceptNameCodeSequence DocumentTitle SliceLocation InstanceCreationDate
    InstanceCreationTime"""
INDEXED = _tags(" ".join((_PATIENT, _STUDY, _SERIES, _IMAGE)))
"""What of a header is held in memory and can be asked for."""

(_MODALITY, _CLASS, _MODALITIES, _CLASSES, _ONLINE, _TITLE) = (
    tag_for_keyword(name) or 0
    for name in (
        "Modality", "SOPClassUID", "ModalitiesInStudy", "SOPClassesInStudy",
        "InstanceAvailability", "RetrieveAETitle",
    )
)  # fmt: skip
_COUNTED = {
    tag_for_keyword(f"NumberOf{above}Related{below}") or 0: (holder, counted)
    for above, holder in (
        ("Patient", Level.PATIENT), ("Study", Level.STUDY), ("Series", Level.SERIES),
    )
    for below, counted in (
        ("Studies", Level.STUDY), ("Series", Level.SERIES), ("Instances", Level.IMAGE),
    )
    if tag_for_keyword(f"NumberOf{above}Related{below}") is not None
}  # fmt: skip

_SAID = frozenset({_ONLINE, _TITLE})
"""Of every answer, asked for or not."""
_KNOWN = INDEXED | _SAID | _COUNTED.keys() | {_MODALITIES, _CLASSES}

Header = Mapping[int, Any]


class _Instance:
    """A file and what its header says."""

    __slots__ = ("header", "source")

    def __init__(self, source: Source, header: Header) -> None:
        self.source = source
        self.header = header

    def uid(self, level: Level) -> str:
        """The value of a level's unique key."""
        return str(self.header.get(UNIQUE_KEYS[level]) or "")


class Archive:
    """The instances of a folder.

    Args:
        path: folders and files.
        title: our AE title, for Retrieve AE Title.
    """

    def __init__(self, paths: Iterable[Path], title: str) -> None:
        self.problems: list[tuple[str, str]] = []
        self._title = title
        self._instances: dict[str, _Instance] = {}
        self._arrived: list[str] = []
        self._lock = asyncio.Lock()
        self._opened = ExitStack()
        found = self._opened.enter_context(find_sources([os.fspath(path) for path in paths]))
        self.problems += found.failed
        for source in found.sources:
            self._add(source)

    def __len__(self) -> int:
        return len(self._instances)

    @property
    def sop_classes(self) -> frozenset[str]:
        """The SOP classes of the instances."""
        return frozenset(one.source.head.sop_class_uid for one in self._instances.values())

    def policy(self) -> ContextPolicy:
        """Storage contexts, for what comes in and for what a C-GET sends.

        Of several transfer syntaxes the one is taken in which most instances of the class are.
        """
        held: dict[str, dict[str, int]] = {}
        for one in self._instances.values():
            syntaxes = held.setdefault(one.source.head.sop_class_uid, {})
            syntax = one.source.head.transfer_syntax_uid
            syntaxes[syntax] = syntaxes.get(syntax, 0) + 1
        otherwise = storage_policy()

        def policy(context: PresentationContext) -> str | int:
            syntaxes = held.get(context.abstract_syntax, {})
            best = choose(context.transfer_syntaxes, sorted(syntaxes, key=lambda s: -syntaxes[s]))
            return best if best is not None else otherwise(context)

        return policy

    def close(self) -> None:
        """Close archives of files."""
        self._opened.close()

    def arrived(self, name: str) -> None:
        """A file was received; it is looked at before the next answer."""
        self._arrived.append(name)

    def _add(self, source: Source) -> None:
        try:
            header = _header_of(source)
        except READ_ERRORS as error:
            self.problems.append((source.name, why(error)))
            return
        if header.get(UNIQUE_KEYS[Level.STUDY]):
            self._instances[source.head.sop_instance_uid] = _Instance(source, header)

    async def _current(self) -> list[_Instance]:
        """The instances, what has just been received among them."""
        async with self._lock:
            arrived, self._arrived = self._arrived, []
            if arrived:
                await asyncio.to_thread(self._look_at, arrived)
        return list(self._instances.values())

    def _look_at(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                self._add(FileSource.open(name))
            except READ_ERRORS as error:
                log.warning("%s: %s", ascii(name), why(error))

    # ── answers ─────────────────────────────────────────────────────────────────────────────

    async def answers(
        self, query: Query, level: Level
    ) -> AsyncGenerator[tuple[Attribute, ...], None]:
        """What matches, in the order of coming, an answer for each patient, study, … once."""
        instances = await self._current()
        groups: dict[tuple[str, ...], list[_Instance]] = {}
        held = _Held(instances)
        path = [other for other in Level if _rank(other) <= _rank(level)]
        for instance in instances:
            groups.setdefault(tuple(map(instance.uid, path)), []).append(instance)
        for number, group in enumerate(groups.values()):
            if number % 256 == 255:
                await asyncio.sleep(0)  # a large folder does not stall other associations
            if not group[0].uid(level):
                continue
            values = _values(query, level, group[0], held)
            values |= {_ONLINE: "ONLINE", _TITLE: self._title}
            if query.matches(values):
                yield (
                    *select((key for key in query.keys if key.tag not in _SAID), values),
                    Attribute(QUERY_RETRIEVE_LEVEL, "CS", str(level)),
                    Attribute(_ONLINE, "CS", "ONLINE"),
                    Attribute(_TITLE, "AE", self._title),
                )

    async def named(self, named: Mapping[int, Sequence[str]]) -> list[Source]:
        """The files that a retrieve names."""
        wanted = {tag: frozenset(values) for tag, values in named.items()}
        return [
            one.source
            for one in await self._current()
            if all(str(one.header.get(tag) or "") in values for tag, values in wanted.items())
        ]


class _Held:
    """Instances by what they belong to; each level is sorted when it is first asked for."""

    def __init__(self, instances: Sequence[_Instance]) -> None:
        self._instances = instances
        self._by: dict[Level, dict[str, list[_Instance]]] = {}

    def beside(self, one: _Instance, level: Level) -> list[_Instance]:
        """All that belong to the same patient, study or series."""
        if level not in self._by:
            groups: dict[str, list[_Instance]] = {}
            for instance in self._instances:
                groups.setdefault(instance.uid(level), []).append(instance)
            self._by[level] = groups
        return self._by[level][one.uid(level)]


def _values(query: Query, level: Level, one: _Instance, held: _Held) -> dict[int, Any]:
    """The attributes of an entity, with those that are counted if they are asked for."""
    values = dict(one.header)
    for key in query.keys:
        if key.tag in (_MODALITIES, _CLASSES):
            tag = _MODALITY if key.tag == _MODALITIES else _CLASS
            study = held.beside(one, Level.STUDY)
            values[key.tag] = _joined(other.header.get(tag) for other in study)
        elif key.tag in _COUNTED:
            holder, counted = _COUNTED[key.tag]
            if _rank(holder) <= _rank(level):
                below = {other.uid(counted) for other in held.beside(one, holder)}
                values[key.tag] = str(len(below))
    return values


def _rank(level: Level) -> int:
    return list(Level).index(level)


def _joined(values: Iterable[Any]) -> str:
    return "\\".join(dict.fromkeys(str(value) for value in values if value))


def _header_of(source: Source) -> dict[int, Any]:
    syntax = source.head.transfer_syntax_uid
    if source.content is not None or not isinstance(source, FileSource):
        data = source.content if source.content is not None else b"".join(source.pieces())
        found = read_attributes(data, syntax, wanted=INDEXED)
    else:
        with (
            open(source.name, "rb") as file,
            mmap(file.fileno(), 0, access=ACCESS_READ) as mapped,
            memoryview(mapped) as view,
            view[source.head.data_set_offset :] as data_set,
        ):
            found = read_attributes(data_set, syntax, wanted=INDEXED)
    return {one.tag: one.value for one in found}


class Kept(Folder):
    """A folder that tells its archive what it has received."""

    def __init__(self, path: Path, archive: Archive) -> None:
        super().__init__(path)
        self._archive = archive

    def count(self, command: Command, length: int) -> None:
        """One data set more."""
        super().count(command, length)
        self._archive.arrived(self.final_name(command))


def handlers_of(
    archive: Archive, destinations: Mapping[str, Destination]
) -> dict[CommandField, Handler]:
    """The services of an archive.

    Args:
        archive: what is served.
        destinations: of C-MOVE, by AE title.
    """

    async def find(request: Request) -> AsyncIterator[list[Reply]]:
        query = _query(request)
        try:
            model = FIND_MODELS[request.command.affected_sop_class_uid]
            level = model.check(query)
        except InvalidIdentifier as error:
            raise _refused(error) from None
        page: list[Reply] = []
        syntax = request.context.transfer_syntax
        # Optional keys that are not held are passed over, and the requestor is told.
        unknown = {key.tag for key in query.keys} - _KNOWN
        query = query.without(unknown)
        status = Status.PENDING_WITHOUT_OPTIONAL_KEYS if unknown else Status.PENDING
        async with aclosing(archive.answers(query, level)) as answers:
            async for answer in answers:
                data = encode_attributes(answer, syntax, preferred=query.charset)
                page.append(Reply(status, data))
                if len(page) == PAGE:
                    yield page
                    page = []
        yield [*page, Reply(Status.SUCCESS)]

    async def get(request: Request) -> AsyncIterator[Sequence[Reply]]:
        sources = await wanted(request)
        async with aclosing(_closed(retrieve_on(request, sources))) as pages:
            async for page in pages:
                yield page

    async def move(request: Request) -> AsyncIterator[Sequence[Reply]]:
        sources = await wanted(request)
        destination = destinations.get(request.command.move_destination)
        async with aclosing(_closed(move_to(request, sources, destination))) as pages:
            async for page in pages:
                yield page

    async def wanted(request: Request) -> list[Source]:
        query = _query(request)
        try:
            model = RETRIEVE_MODELS[request.command.affected_sop_class_uid]
            return await archive.named(uids_to_retrieve(model, query))
        except InvalidIdentifier as error:
            raise _refused(error) from None

    return {
        CommandField.C_FIND_RQ: find,
        CommandField.C_GET_RQ: get,
        CommandField.C_MOVE_RQ: move,
    }


def _closed(pages: AsyncIterator[list[Reply]]) -> AsyncGenerator[list[Reply], None]:
    """Pages are made by generators, whose end is waited for."""
    return cast("AsyncGenerator[list[Reply], None]", pages)


def _query(request: Request) -> Query:
    if request.data is None:
        raise Refused(Status.CANNOT_UNDERSTAND, "a request without identifier")
    try:
        return Query.parse(request.data, request.context.transfer_syntax)
    except InvalidIdentifier as error:
        raise _refused(error) from None
    except InvalidDicom as error:
        raise Refused(Status.CANNOT_UNDERSTAND, str(error)) from None


def _refused(error: InvalidIdentifier) -> Refused:
    return Refused(error.status, str(error), error.offending or None)
