"""The Query/Retrieve information models: levels, unique keys, and what a query must have.

Standard: PS3.4 C.6.1 (Patient Root), C.6.2 (Study Root), C.6.3 (Patient/Study Only, retired),
C.4.1.2 (hierarchical and relational queries), C.4.2.1, C.4.3.1 (retrieve).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hilum.services import sop_classes
from hilum.services.matching import (
    QUERY_RETRIEVE_LEVEL,
    InvalidIdentifier,
    Key,
    Level,
    Query,
)
from hilum.services.predicates import Texts

__all__ = ["FIND_MODELS", "RETRIEVE_MODELS", "UNIQUE_KEYS", "Model", "uids_to_retrieve"]

PATIENT_ID = 0x00100020
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
SOP_INSTANCE_UID = 0x00080018

UNIQUE_KEYS: Mapping[Level, int] = MappingProxyType(
    {
        Level.PATIENT: PATIENT_ID,
        Level.STUDY: STUDY_INSTANCE_UID,
        Level.SERIES: SERIES_INSTANCE_UID,
        Level.IMAGE: SOP_INSTANCE_UID,
    }
)
"""The unique key of each level."""

_NAMES = {
    PATIENT_ID: "Patient ID",
    STUDY_INSTANCE_UID: "Study Instance UID",
    SERIES_INSTANCE_UID: "Series Instance UID",
    SOP_INSTANCE_UID: "SOP Instance UID",
}


@dataclass(frozen=True, slots=True)
class Model:
    """An information model.

    Args:
        levels: from the top.
    """

    levels: tuple[Level, ...]

    def check(self, query: Query, *, relational: bool = False, strict: bool = False) -> Level:
        """Whether the query may be asked in this model; returns its level.

        Not strict, a query goes through that the standard refuses without harm: one of the Study
        level without Patient ID, and any that names something by a unique key or asks for
        something else at least. What is refused always is a query of series or images that asks
        for everything there is, because nobody means it.

        Standard: PS3.4 C.4.1.2.1, C.4.1.3.1.

        Raises:
            InvalidIdentifier: A900H.
        """
        level = self.level(query)
        if relational:
            return level
        above = self.levels[: self.levels.index(level)]
        if strict:
            for other in above:
                tag = UNIQUE_KEYS[other]
                if not _is_single(query.key(tag)):
                    raise InvalidIdentifier(
                        f"{_NAMES[tag]} is needed above the {level} level", offending=(tag,)
                    )
        elif level in (Level.SERIES, Level.IMAGE) and all(key.is_universal for key in query.keys):
            tag = UNIQUE_KEYS[above[-1]]
            raise InvalidIdentifier(
                f"{_NAMES[tag]} is needed above the {level} level", offending=(tag,)
            )
        return level

    def level(self, query: Query) -> Level:
        """The level of a query, which has to be one of the model's.

        Raises:
            InvalidIdentifier: A900H.
        """
        if query.level is None:
            raise InvalidIdentifier(
                "Query/Retrieve Level is missing", offending=(QUERY_RETRIEVE_LEVEL,)
            )
        if query.level not in self.levels:
            raise InvalidIdentifier(
                f"the model has no level {query.level}", offending=(QUERY_RETRIEVE_LEVEL,)
            )
        return query.level


def _is_single(key: Key | None) -> bool:
    if key is None or not isinstance(key.predicate, Texts):
        return False
    return len(key.predicate.literals) == 1 and not key.predicate.wild


_PATIENT_ROOT = Model(tuple(Level))
_STUDY_ROOT = Model((Level.STUDY, Level.SERIES, Level.IMAGE))
_PATIENT_STUDY_ONLY = Model((Level.PATIENT, Level.STUDY))
_IMAGE_ONLY = Model((Level.IMAGE,))

FIND_MODELS: Mapping[str, Model] = MappingProxyType(
    {
        sop_classes.PATIENT_ROOT_FIND: _PATIENT_ROOT,
        sop_classes.STUDY_ROOT_FIND: _STUDY_ROOT,
        sop_classes.PATIENT_STUDY_ONLY_FIND: _PATIENT_STUDY_ONLY,
    }
)
"""By SOP class of C-FIND."""

RETRIEVE_MODELS: Mapping[str, Model] = MappingProxyType(
    {
        sop_classes.PATIENT_ROOT_MOVE: _PATIENT_ROOT,
        sop_classes.PATIENT_ROOT_GET: _PATIENT_ROOT,
        sop_classes.STUDY_ROOT_MOVE: _STUDY_ROOT,
        sop_classes.STUDY_ROOT_GET: _STUDY_ROOT,
        sop_classes.PATIENT_STUDY_ONLY_MOVE: _PATIENT_STUDY_ONLY,
        sop_classes.PATIENT_STUDY_ONLY_GET: _PATIENT_STUDY_ONLY,
        sop_classes.COMPOSITE_INSTANCE_ROOT_MOVE: _IMAGE_ONLY,
        sop_classes.COMPOSITE_INSTANCE_ROOT_GET: _IMAGE_ONLY,
        sop_classes.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET: _IMAGE_ONLY,
    }
)
"""By SOP class of C-MOVE and C-GET; of the composite instance classes, whole instances only."""


def uids_to_retrieve(model: Model, query: Query) -> dict[int, tuple[str, ...]]:
    """What a retrieve names: values of the unique keys from its level up, by tag.

    Unique keys above the level may be missing, as many peers leave them out; where they are
    there, they narrow. A list is taken at every level.

    Standard: PS3.4 C.4.2.1.4, C.4.3.1.3, Y.4.1.

    Raises:
        InvalidIdentifier: A900H: no level, or nothing named at it.
    """
    level = model.level(query)
    named: dict[int, tuple[str, ...]] = {}
    levels = tuple(Level)
    for other in levels[: levels.index(level) + 1]:
        tag = UNIQUE_KEYS[other]
        key = query.key(tag)
        if key is not None and isinstance(key.predicate, Texts):
            if key.predicate.wild:
                raise InvalidIdentifier(
                    f"{_NAMES[tag]} has wildcards in a retrieve", offending=(tag,)
                )
            named[tag] = tuple(sorted(key.predicate.literals))
    if UNIQUE_KEYS[level] not in named:
        tag = UNIQUE_KEYS[level]
        raise InvalidIdentifier(f"{_NAMES[tag]} is needed at the {level} level", offending=(tag,))
    return named
