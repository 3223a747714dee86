"""A peer as an archive: what it has, and how it is got from there.

Identifiers are encoded and read without pydicom. Every answer is taken as a claim: keys that were
not asked for, missing, or of another study are told apart by whoever asked. A peer that does not
have the Study Root model is asked by Patient Root: patient after patient, with the Patient ID
beside the Study Instance UID.

Standard: PS3.4 C.4.1 (C-FIND), C.4.2 (C-MOVE), C.4.3 (C-GET), C.6.1 (Patient Root), C.6.2 (Study
Root).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from hilum.errors import ConfigurationError, HilumError, InvalidDicom
from hilum.gateway.flow.criteria import Criteria, Study
from hilum.gateway.flow.peers import address_of, server_name
from hilum.gateway.flow.selection import Image, Series
from hilum.gateway.store.entries import Peer
from hilum.net import connect
from hilum.net.association import Association
from hilum.net.client import NATIVE, VERIFICATION_CONTEXTS
from hilum.net.limits import Timeouts
from hilum.net.requests import Responses
from hilum.net.service import OpenStore
from hilum.services.identifier import Attribute, encode_attributes, read_attributes, vr_of
from hilum.services.retrieve_contexts import MAX_CONTEXTS, Contexts, storage_contexts
from hilum.services.sop_classes import (
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from hilum.services.suboperations import Counts
from hilum.services.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from hilum.wire.items import RoleSelection

__all__ = [
    "FIND_CONTEXTS",
    "GET_CONTEXTS",
    "MOVE_CONTEXTS",
    "OUR_TITLE",
    "Archive",
    "ArchiveFailed",
    "Retrieved",
    "Wanted",
    "get_contexts",
    "opened",
]

OUR_TITLE = "HILUM"
"""Our AE title towards a peer that says no other."""

LEVEL = 0x00080052
STUDY_UID, SERIES_UID, SOP_UID = 0x0020000D, 0x0020000E, 0x00080018
STUDY_DATE, STUDY_TIME = 0x00080020, 0x00080030
ACCESSION_NUMBER, PATIENT_ID = 0x00080050, 0x00100020
MODALITIES_IN_STUDY, STUDY_DESCRIPTION = 0x00080061, 0x00081030
MODALITY, SERIES_DESCRIPTION, SERIES_NUMBER = 0x00080060, 0x0008103E, 0x00200011
STATION_NAME = 0x00081010
SOP_CLASS_UID, INSTANCE_NUMBER = 0x00080016, 0x00200013

MAX_INSTANCES = 100_000
"""Where no setting says another: some 40 MB while a study is looked at."""

# An answer with our dozen keys has some 300 bytes. A longer one counts as several.
_LONG_ANSWER, _LONGEST_ANSWER = 1 << 10, 64 << 10

_SUCCESS, _CANCELLED = 0x0000, 0xFE00
_MOST_PATIENTS = 1_000_000
"""Some 100 MB of Patient IDs; a peer that names more does not end."""


class ArchiveFailed(HilumError):
    """The peer answered with a failure, or with what cannot be read; the text says which."""


class Wanted(NamedTuple):
    """What one C-MOVE or C-GET asks for.

    Args:
        study_uid: Study Instance UID.
        series_uid: Series Instance UID; "" for the whole study.
        sop_uids: SOP Instance UIDs; empty for the whole series.
        patient_id: Patient ID, for peers that want it.
    """

    study_uid: str
    series_uid: str = ""
    sop_uids: Sequence[str] = ()
    patient_id: str = ""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What the peer says that a C-MOVE or C-GET did.

    Args:
        status: of the final response.
        completed: sub-operations, with warnings; as far as it says.
        failed: sub-operations; as far as it says.
        comment: its Error Comment.
    """

    status: int
    completed: int
    failed: int
    comment: str

    @property
    def was_refused(self) -> bool:
        """Nothing was, or will be, sent: more of the same is pointless."""
        return self.status not in (_SUCCESS, 0xB000, 0xA702) and self.completed == 0

    def __str__(self) -> str:
        comment = f" ({self.comment})" if self.comment else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.status:04X}H{comment}, {self.completed} completed{failed}"


@asynccontextmanager
async def opened(
    peer: Peer,
    *,
    contexts: Sequence[tuple[str, tuple[str, ...]]] = (),
    roles: Iterable[RoleSelection] = (),
    open_store: OpenStore | None = None,
    tls: ssl.SSLContext | None = None,
    timeouts: Timeouts | None = None,
    max_instances: int = MAX_INSTANCES,
) -> AsyncIterator[Archive]:
    """An association with a peer, for queries and what `contexts` add.

    Args:
        max_instances: see `Archive`.

    Raises:
        ConfigurationError: the peer only calls us.
        AssociationError: it could not be reached, or said no.
    """
    address = address_of(peer)
    if address is None:
        raise ConfigurationError(f"peer {peer.name!r} has no port; it can only call us")
    async with await connect(
        *address,
        called=peer.ae_title,
        calling=peer.calling_ae or OUR_TITLE,
        contexts=(*VERIFICATION_CONTEXTS, *FIND_CONTEXTS, *contexts),
        roles=roles,
        open_store=open_store,
        tls=tls,
        server_hostname=server_name(peer),
        timeouts=timeouts,
    ) as association:
        yield Archive(association, peer, max_instances)


FIND_CONTEXTS = ((STUDY_ROOT_FIND, NATIVE), (PATIENT_ROOT_FIND, NATIVE))
MOVE_CONTEXTS = ((STUDY_ROOT_MOVE, NATIVE), (PATIENT_ROOT_MOVE, NATIVE))
GET_CONTEXTS = ((STUDY_ROOT_GET, NATIVE), (PATIENT_ROOT_GET, NATIVE))


def get_contexts(
    sop_classes: Iterable[str], *, compressed_first: bool = False
) -> tuple[Contexts, list[RoleSelection]]:
    """Contexts and roles for a C-GET of instances of these SOP classes.

    Standard: PS3.4 C.5.3, PS3.7 D.3.3.4.

    Args:
        sop_classes: of what is wanted; with "" among them, or none, any is.
        compressed_first: see ``storage_contexts``.
    """
    said = set(sop_classes)
    known = sorted(said - {""})
    found = storage_contexts(
        known,
        room=MAX_CONTEXTS - 1 - len(FIND_CONTEXTS) - len(GET_CONTEXTS),  # 1: Verification
        others=not known or "" in said,
        compressed_first=compressed_first,
    )
    roles = [RoleSelection(uid, scu=False, scp=True) for uid in dict(found)]
    return (*GET_CONTEXTS, *found), roles


class Archive:
    """Queries and retrievals on one association; one at a time.

    Args:
        association: established.
        peer: whom it is with.
        max_instances: series and instances that it may name here.
    """

    def __init__(
        self, association: Association, peer: Peer, max_instances: int = MAX_INSTANCES
    ) -> None:
        self._association = association
        self._peer = peer
        self._max_instances = max_instances
        self._named = 0

    @property
    def address(self) -> str:
        """The peer's address as it was connected to."""
        return self._association.peer.address

    async def echo(self) -> None:
        """Ask whether it answers.

        Raises:
            ArchiveFailed: it answered something else than success.
        """
        response = await self._association.c_echo()
        if response.status:
            raise ArchiveFailed(f"{self._peer.ae_title} answers C-ECHO with {response.status:04X}H")

    # ── queries ───────────────────────────────────────────────────────────────────────────────

    async def studies(self, criteria: Criteria, modality: str = "") -> AsyncIterator[Study]:
        """The studies that fit, by the peer's own lights.

        Args:
            criteria: with absolute moments.
            modality: one that a study must have; "" for any.
        """
        if not self._is_by_patient(STUDY_ROOT_FIND, PATIENT_ROOT_FIND):
            patients = [criteria.patient_id]
        else:
            patients = await self._patients(criteria.patient_id)
        for patient_id in patients:
            async for study in self._studies_of(patient_id, criteria, modality):
                yield study

    async def _patients(self, patient_id: str) -> list[str]:
        """The Patient IDs that a peer knows, or this one of them, each once."""
        found: dict[str, None] = {}
        async for one in self._find("PATIENT", {PATIENT_ID: patient_id}):
            found.setdefault(one.get(PATIENT_ID, ""))
            if len(found) > _MOST_PATIENTS:
                raise ArchiveFailed(
                    f"{self._peer.ae_title} names more than {_MOST_PATIENTS} patients"
                )
        return list(found)

    async def _studies_of(
        self, patient_id: str, criteria: Criteria, modality: str
    ) -> AsyncIterator[Study]:
        keys = {
            STUDY_DATE: criteria.dates,
            STUDY_TIME: "",
            ACCESSION_NUMBER: criteria.accession_number,
            MODALITIES_IN_STUDY: modality,
            STUDY_DESCRIPTION: "",
            PATIENT_ID: patient_id,
            STUDY_UID: "\\".join(criteria.study_uids),
        }
        async for found in self._find("STUDY", keys):
            if not found.get(STUDY_UID):
                raise ArchiveFailed(f"{self._peer.ae_title} names a study without its UID")
            told = [name for name in found.get(MODALITIES_IN_STUDY, "").split("\\") if name]
            yield Study(
                uid=found[STUDY_UID],
                date=found.get(STUDY_DATE, "").replace(".", ""),
                time=found.get(STUDY_TIME, ""),
                modalities=tuple(told) or None,
                description=found.get(STUDY_DESCRIPTION, ""),
                patient_id=found.get(PATIENT_ID, patient_id),
            )

    async def series(self, study_uid: str, patient_id: str) -> list[Series]:
        """The series of a study, each once."""
        keys = self._patient(patient_id, STUDY_ROOT_FIND, PATIENT_ROOT_FIND) | {
            STUDY_UID: study_uid,
            SERIES_UID: "",
            MODALITY: "",
            SERIES_DESCRIPTION: "",
            SERIES_NUMBER: "",
            STATION_NAME: "",
        }
        found: dict[str, Series] = {}
        async for one in self._find("SERIES", keys):
            uid = one.get(SERIES_UID, "")
            if uid and one.get(STUDY_UID, study_uid) == study_uid:
                found.setdefault(
                    uid,
                    Series(
                        uid,
                        one.get(MODALITY, "").upper(),
                        one.get(SERIES_DESCRIPTION, ""),
                        _number(one.get(SERIES_NUMBER, "")),
                        one.get(STATION_NAME, ""),
                    ),
                )
        return list(found.values())

    async def images(self, study_uid: str, series_uid: str, patient_id: str) -> list[Image]:
        """The instances of a series, each once."""
        keys = self._patient(patient_id, STUDY_ROOT_FIND, PATIENT_ROOT_FIND) | {
            STUDY_UID: study_uid,
            SERIES_UID: series_uid,
            SOP_UID: "",
            SOP_CLASS_UID: "",
            INSTANCE_NUMBER: "",
        }
        found: dict[str, Image] = {}
        async for one in self._find("IMAGE", keys):
            uid = one.get(SOP_UID, "")
            if uid and one.get(SERIES_UID, series_uid) == series_uid:
                number = _number(one.get(INSTANCE_NUMBER, ""))
                found.setdefault(uid, Image(uid, one.get(SOP_CLASS_UID, ""), number))
        return list(found.values())

    async def _find(self, level: str, keys: Mapping[int, str]) -> AsyncIterator[dict[int, str]]:
        sop_class = self._model(STUDY_ROOT_FIND, PATIENT_ROOT_FIND)
        identifier = self._identifier(sop_class, {LEVEL: level, **keys})
        responses = self._association.c_find(identifier, sop_class_uid=sop_class)
        async with responses:
            async for response in responses:
                if response.is_pending and response.data is not None:
                    self._check_size(level, len(response.data))
                    assert response.context is not None
                    yield _read(response.data, response.context.transfer_syntax)
        final = responses.final
        if final is None or final.status != _SUCCESS:
            status = "nothing" if final is None else f"{final.status:04X}H"
            comment = (final.command.get("error_comment") or "") if final else ""
            raise ArchiveFailed(
                f"{self._peer.ae_title} answers C-FIND at level {level} with {status} {comment}".rstrip()
            )

    def _check_size(self, level: str, length: int) -> None:
        """Studies are counted by whoever asks for them; what is below is all kept until the end."""
        if length > _LONGEST_ANSWER:
            raise ArchiveFailed(
                f"{self._peer.ae_title} answers C-FIND with {length} bytes, at most "
                f"{_LONGEST_ANSWER} are read"
            )
        if level in ("SERIES", "IMAGE"):
            self._named += 1 + length // _LONG_ANSWER
            if self._named > self._max_instances:
                raise ArchiveFailed(
                    f"{self._peer.ae_title} names more series and instances than "
                    f"fetch.max_instances = {self._max_instances}"
                )

    # ── retrieval ─────────────────────────────────────────────────────────────────────────────

    async def move(
        self,
        wanted: Wanted,
        destination: str,
        message_id: int,
        *,
        progress: Callable[[int], object],
        timeout: float,
    ) -> Retrieved:
        """Have instances sent to an AE title of ours.

        Args:
            wanted: what.
            destination: our AE title as the peer knows it.
            message_id: of the request; the C-STOREs carry it as Move Originator Message ID.
            progress: told how many sub-operations are completed.
            timeout: seconds without any response after which the association is aborted.
        """
        sop_class = self._model(STUDY_ROOT_MOVE, PATIENT_ROOT_MOVE)
        patient = self._patient(wanted.patient_id, STUDY_ROOT_MOVE, PATIENT_ROOT_MOVE)
        return await self._follow(
            self._association.c_move(
                self._identifier(sop_class, patient | _named(wanted)),
                sop_class_uid=sop_class,
                destination=destination,
                timeout=timeout,
                message_id=message_id,
            ),
            progress,
        )

    async def get(
        self, wanted: Wanted, *, progress: Callable[[int], object], timeout: float
    ) -> Retrieved:
        """Get instances on this association; see `move`."""
        sop_class = self._model(STUDY_ROOT_GET, PATIENT_ROOT_GET)
        patient = self._patient(wanted.patient_id, STUDY_ROOT_GET, PATIENT_ROOT_GET)
        return await self._follow(
            self._association.c_get(
                self._identifier(sop_class, patient | _named(wanted)),
                sop_class_uid=sop_class,
                timeout=timeout,
            ),
            progress,
        )

    async def _follow(self, responses: Responses, progress: Callable[[int], object]) -> Retrieved:
        last = Counts(None, None, None, None)
        async with responses:
            async for response in responses:
                counts = Counts.of(response.command)
                if counts.completed is not None or counts.failed is not None:
                    last = counts
                    progress((counts.completed or 0) + (counts.warning or 0))
        final = responses.final
        assert final is not None
        return Retrieved(
            final.status,
            (last.completed or 0) + (last.warning or 0),
            last.failed or 0,
            final.command.get("error_comment") or "",
        )

    # ── the peer's information model ──────────────────────────────────────────────────────────

    def _model(self, study_root: str, patient_root: str) -> str:
        """The SOP class of a service that the peer has: Study Root where it has both."""
        by_patient = self._is_by_patient(study_root, patient_root)
        return patient_root if by_patient else study_root

    def _is_by_patient(self, study_root: str, patient_root: str) -> bool:
        accepted = {each.abstract_syntax for each in self._association.contexts.values()}
        return study_root not in accepted and patient_root in accepted

    def _patient(self, patient_id: str, study_root: str, patient_root: str) -> dict[int, str]:
        """The unique key of the level above the study, where the model has that level.

        Standard: PS3.4 C.4.1.3.1, C.4.2.2.1.
        """
        return {PATIENT_ID: patient_id} if self._is_by_patient(study_root, patient_root) else {}

    def _identifier(self, sop_class: str, keys: Mapping[int, str]) -> bytes:
        syntax = self._association.context_for(sop_class).transfer_syntax
        attributes = [Attribute(tag, vr_of(tag), value) for tag, value in keys.items()]
        encoded = encode_attributes(attributes, syntax)
        if any(not value.isascii() for value in keys.values()):
            return encoded
        # (0008,0005), empty: there are peers that wait for it.
        explicit = syntax != IMPLICIT_VR_LITTLE_ENDIAN
        return b"\x08\x00\x05\x00" + (b"CS\0\0" if explicit else b"\0\0\0\0") + encoded


def _named(wanted: Wanted) -> dict[int, str]:
    keys = {STUDY_UID: wanted.study_uid}
    if not wanted.series_uid:
        return {LEVEL: "STUDY", **keys}
    keys[SERIES_UID] = wanted.series_uid
    if not wanted.sop_uids:
        return {LEVEL: "SERIES", **keys}
    return {LEVEL: "IMAGE", **keys, SOP_UID: "\\".join(wanted.sop_uids)}


def _read(data: bytes, transfer_syntax: str) -> dict[int, str]:
    try:
        attributes = read_attributes(data, transfer_syntax)
    except InvalidDicom as error:
        raise ArchiveFailed(f"a response to C-FIND cannot be read: {error}") from error
    return {one.tag: one.value.strip(" \0") for one in attributes if isinstance(one.value, str)}


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
