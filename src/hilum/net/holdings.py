"""What an archive holds of what is to be retrieved: its SOP classes, asked by C-FIND.

A C-GET's requestor proposes presentation contexts before it knows what will come; see
``services/retrieve_contexts.py``. ::

    async with await connect(..., contexts=[(STUDY_ROOT_FIND, NATIVE)]) as association:
        find = find_on(association, STUDY_ROOT_FIND)
        known = {uid async for uid in held_classes(find, "STUDY", {0x0020000D: study_uid})}

Standard: PS3.4 C.4.1, C.6.1.1, C.6.2.1.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing

from hilum.net.association import Association
from hilum.services.identifier import Attribute, encode_attributes, read_attributes, vr_of
from hilum.services.sop_classes import may_store

__all__ = ["Find", "find_on", "held_classes"]

Find = Callable[[str, Mapping[int, str]], AsyncGenerator[Mapping[int, str], None]]
"""Queries one level with these keys, and gives what each response says, by tag."""

LEVEL = 0x00080052
PATIENT_ID, STUDY_UID, SERIES_UID, SOP_UID = 0x00100020, 0x0020000D, 0x0020000E, 0x00080018
SOP_CLASS_UID, SOP_CLASSES_IN_STUDY = 0x00080016, 0x00080062

# A series has one class, or a few: that many of its images tell them, and of huge studies so many
# series are looked at. What is overlooked still has the contexts of the usual classes.
MOST_IMAGES = 100
MOST_SERIES = 200

_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)


def find_on(association: Association, sop_class_uid: str) -> Find:
    """Queries over an association; a response that is no success ends one quietly.

    Args:
        association: with a context for it.
        sop_class_uid: of the information model, such as ``STUDY_ROOT_FIND``.

    Raises:
        NoPresentationContext: it has none.
    """
    syntax = association.context_for(sop_class_uid).transfer_syntax

    async def find(level: str, keys: Mapping[int, str]) -> AsyncGenerator[Mapping[int, str], None]:
        attributes = [Attribute(tag, vr_of(tag), value) for tag, value in sorted(keys.items())]
        identifier = encode_attributes([Attribute(LEVEL, "CS", level), *attributes], syntax)
        async with association.c_find(identifier, sop_class_uid=sop_class_uid) as responses:
            async for response in responses:
                if response.is_pending and response.data is not None:
                    assert response.context is not None
                    yield {
                        one.tag: one.value.strip(" \0")
                        for one in read_attributes(response.data, response.context.transfer_syntax)
                        if isinstance(one.value, str)
                    }

    return find


async def held_classes(
    find: Find, level: str, keys: Mapping[int, str]
) -> AsyncGenerator[str, None]:
    """The storage classes of what an identifier names, as far as the archive says, some repeatedly.

    SOP Classes in Study (0008,0062) is asked for first; few archives know it, and of what others
    name, series and images are asked.

    Args:
        find: such as ``find_on`` gives.
        level: Query/Retrieve Level of the identifier.
        keys: its unique keys; what else there is does not matter.

    Raises:
        AssociationError: it ended.
        InvalidDicom: a response cannot be read.
    """
    unique = {
        tag: keys[tag] for tag in (PATIENT_ID, STUDY_UID, SERIES_UID, SOP_UID) if keys.get(tag)
    }
    if not unique:
        return  # everything would match
    parts: list[Mapping[int, str]] = [unique]
    if level in ("PATIENT", "STUDY"):
        parts = []
        wanted = {STUDY_UID: "", **unique, SOP_CLASSES_IN_STUDY: ""}
        async with aclosing(find("STUDY", wanted)) as studies:
            async for study in studies:
                told = study.get(SOP_CLASSES_IN_STUDY, "")
                for uid in told.split("\\"):
                    if _may_be_proposed(uid):
                        yield uid
                if not told and study.get(STUDY_UID) and len(parts) < MOST_SERIES:
                    parts.append({**unique, STUDY_UID: study[STUDY_UID]})
        parts = [series async for series in _series(find, parts)]
    elif level == "SERIES":
        parts = [{**unique, SERIES_UID: uid} for uid in keys.get(SERIES_UID, "").split("\\")]
    for part in parts[:MOST_SERIES]:
        wanted = {SERIES_UID: "", SOP_UID: "", **part, SOP_CLASS_UID: ""}
        async for image in _first(find, "IMAGE", wanted, MOST_IMAGES):
            if _may_be_proposed(uid := image.get(SOP_CLASS_UID, "")):
                yield uid


async def _series(
    find: Find, studies: Iterable[Mapping[int, str]]
) -> AsyncIterator[Mapping[int, str]]:
    """The keys of each series, of so many studies as make ``MOST_SERIES``."""
    left = MOST_SERIES
    for study in studies:
        if left <= 0:
            return
        async for series in _first(find, "SERIES", {**study, SERIES_UID: ""}, left):
            left -= 1
            yield {**study, SERIES_UID: series.get(SERIES_UID, "")}


async def _first(
    find: Find, level: str, keys: Mapping[int, str], most: int
) -> AsyncIterator[Mapping[int, str]]:
    """That many answers; what still comes is cancelled."""
    async with aclosing(find(level, keys)) as answers:
        async for one in answers:
            yield one
            most -= 1
            if not most:
                return


def _may_be_proposed(uid: str) -> bool:
    return _UID.fullmatch(uid) is not None and may_store(uid)
