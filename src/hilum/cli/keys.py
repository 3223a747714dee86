"""What is asked for on a command line: keys of a query, its information model, its level.

::

    -k PatientName=DOE*                               a keyword
    -k 0010,0010=DOE*     -k "(0010,0010)=DOE*"       a tag
    -k "ScheduledProcedureStepSequence[0].Modality=CT"
    -k "0040,0100[0].0008,0060=CT"                    inside an item, as DCMTK writes it
    -k StudyDescription                               to be returned

Standard: PS3.4 C.4.1.1.3 (request identifier), K.4.1.1.3; PS3.6.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hilum.errors import ConfigurationError, InvalidDicom
from hilum.services import sop_classes
from hilum.services.dictionary import tag_for_keyword
from hilum.services.identifier import (
    SPECIFIC_CHARACTER_SET,
    Attribute,
    Writer,
    deflated,
    encode_attributes,
    read_attributes,
    texts_of,
    vr_of,
)
from hilum.services.part10 import data_set_start
from hilum.services.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN, properties

__all__ = [
    "DEFAULT_KEYS",
    "LEVEL",
    "MODELS",
    "Identifier",
    "Model",
    "QueryKey",
    "identifier_of",
    "key",
    "key_options",
    "level_option",
    "model_options",
]

LEVEL = 0x00080052
_MOST_ITEMS = 64

_STEP = re.compile(
    r"""(?: \(?\s*(?P<group>[0-9A-Fa-f]{4})\s*,\s*(?P<element>[0-9A-Fa-f]{4})\s*\)?
        | (?P<digits>[0-9A-Fa-f]{8}) (?![A-Za-z0-9])
        | (?P<keyword>[A-Za-z][A-Za-z0-9]*) )
        (?: \[ (?P<item>\d{1,4}) \] )?""",
    re.VERBOSE,
)


class QueryKey(NamedTuple):
    """One key as it was typed.

    Args:
        path: tags and item numbers that lead to it; of the last one the item is not used.
        value: None to ask for the attribute only.
    """

    path: tuple[tuple[int, int], ...]
    value: str | None


def key(word: str) -> QueryKey:
    """A key from the command line; for ``argparse``."""
    path: list[tuple[int, int]] = []
    position = 0
    while True:
        match = _STEP.match(word, position)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"'{word}' cannot be read at character {position + 1}; write KEYWORD=VALUE, "
                "gggg,eeee=VALUE or SEQUENCE[0].KEYWORD=VALUE"
            )
        path.append((_tag(match, word), int(match["item"] or 0)))
        position = match.end()
        if word[position : position + 1] != ".":
            break
        position += 1
    rest = word[position:]
    if rest and rest[0] != "=":
        raise argparse.ArgumentTypeError(f"'{word}': '=' was expected before '{rest}'")
    if any(item >= _MOST_ITEMS for _, item in path):
        raise argparse.ArgumentTypeError(f"'{word}': more items than {_MOST_ITEMS}")
    for tag, _ in path[:-1]:
        if vr_of(tag) not in ("SQ", "UN"):
            raise argparse.ArgumentTypeError(
                f"'{word}': ({tag >> 16:04X},{tag & 0xFFFF:04X}) is no sequence"
            )
    return QueryKey(tuple(path), rest[1:] if rest else None)


def _tag(match: re.Match[str], word: str) -> int:
    if match["keyword"] is not None:
        tag = tag_for_keyword(match["keyword"])
        if tag is None:
            raise argparse.ArgumentTypeError(
                f"'{word}': '{match['keyword']}' is no keyword of PS3.6; write the tag as gggg,eeee"
            )
    else:
        tag = int(match["digits"] or match["group"] + match["element"], 16)
    if tag >> 16 in (0x0000, 0x0002, 0xFFFE):
        raise argparse.ArgumentTypeError(f"'{word}': group {tag >> 16:04X} is in no data set")
    return tag


# ── models ──────────────────────────────────────────────────────────────────────────────────────


class Model(NamedTuple):
    """An information model, by the SOP classes of its operations; empty where it has none."""

    find: str
    get: str = ""
    move: str = ""


MODELS = {
    "study": Model(
        sop_classes.STUDY_ROOT_FIND, sop_classes.STUDY_ROOT_GET, sop_classes.STUDY_ROOT_MOVE
    ),
    "patient": Model(
        sop_classes.PATIENT_ROOT_FIND, sop_classes.PATIENT_ROOT_GET, sop_classes.PATIENT_ROOT_MOVE
    ),
    "psonly": Model(
        sop_classes.PATIENT_STUDY_ONLY_FIND,
        sop_classes.PATIENT_STUDY_ONLY_GET,
        sop_classes.PATIENT_STUDY_ONLY_MOVE,
    ),
    "worklist": Model(sop_classes.MODALITY_WORKLIST_FIND),
    "composite": Model(
        "", sop_classes.COMPOSITE_INSTANCE_ROOT_GET, sop_classes.COMPOSITE_INSTANCE_ROOT_MOVE
    ),
}
"""By name; the options that choose them are ``model_options``."""


def model_options(parser: argparse.ArgumentParser, *, worklist: bool, composite: bool) -> None:
    """``-S``, ``-P``, ``-O`` and where they make sense ``-W`` or ``--composite``."""
    group = parser.add_mutually_exclusive_group()
    add = group.add_argument
    add("-S", "--study", dest="model", action="store_const", const="study", default="study",
        help="Study Root (default)")  # fmt: skip
    add("-P", "--patient", dest="model", action="store_const", const="patient", help="Patient Root")
    add("-O", "--psonly", dest="model", action="store_const", const="psonly",
        help="Patient/Study Only (retired)")  # fmt: skip
    if worklist:
        add("-W", "--worklist", dest="model", action="store_const", const="worklist",
            help="Modality Worklist (as hilum mwl)")  # fmt: skip
    if composite:
        add("--composite", dest="model", action="store_const", const="composite",
            help="Composite Instance Root: instances by their UIDs alone")  # fmt: skip


def key_options(parser: argparse.ArgumentParser) -> None:
    """``-k`` and ``-f``."""
    add = parser.add_argument
    add("-k", "--key", "--keyword", dest="keys", type=key, action="append", default=[],
        metavar="KEY[=VALUE]",
        help="an attribute to match or return; keyword, gggg,eeee or SEQUENCE[0].KEY")  # fmt: skip
    add("-f", "--file", type=Path, action="append", default=[], metavar="FILE",
        help="a DICOM file that holds keys; -k adds to them")  # fmt: skip


def level_option(parser: argparse.ArgumentParser) -> None:
    """``--level``."""
    parser.add_argument(
        "--level", type=str.upper, choices=("PATIENT", "STUDY", "SERIES", "IMAGE"),
        metavar="LEVEL",
        help="PATIENT, STUDY, SERIES or IMAGE; the same as -k QueryRetrieveLevel=LEVEL (STUDY)",
    )  # fmt: skip


# ── the identifier ──────────────────────────────────────────────────────────────────────────────

DEFAULT_KEYS: dict[str, tuple[str, ...]] = {
    "PATIENT": ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    "STUDY": (
        "PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "StudyTime",
        "StudyDescription", "AccessionNumber", "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
    ),
    "SERIES": (
        "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "SeriesDescription",
        "NumberOfSeriesRelatedInstances",
    ),
    "IMAGE": (
        "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "InstanceNumber",
    ),
    "worklist": (
        "AccessionNumber", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
        "StudyInstanceUID", "RequestedProcedureID", "RequestedProcedureDescription",
        "ScheduledProcedureStepSequence[0].Modality",
        "ScheduledProcedureStepSequence[0].ScheduledStationAETitle",
        "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime",
        "ScheduledProcedureStepSequence[0].ScheduledPerformingPhysicianName",
        "ScheduledProcedureStepSequence[0].ScheduledProcedureStepDescription",
        "ScheduledProcedureStepSequence[0].ScheduledProcedureStepID",
    ),
}  # fmt: skip
"""What is returned at a level when the command line asks for nothing in particular."""


@dataclass(slots=True)
class _Item:
    """A data set that is being put together: values, and items of sequences, by tag."""

    values: dict[int, tuple[str, str | bytes]] = field(default_factory=dict)
    sequences: dict[int, list[_Item]] = field(default_factory=dict)

    def put(self, path: Sequence[tuple[int, int]], value: str | None) -> None:
        """Set a value, or ask for it where there is none yet."""
        (tag, number), *rest = path
        if rest:
            self.values.pop(tag, None)
            items = self.sequences.setdefault(tag, [])
            while len(items) <= number:
                items.append(_Item())
            items[number].put(rest, value)
        elif vr_of(tag) == "SQ":
            self.sequences.setdefault(tag, [])
        elif value is not None or tag not in self.values:
            text = value or ""
            vr = vr_of(tag)
            self.values[tag] = (vr, text.encode() if vr == "UN" else text)

    def take(self, attributes: Iterable[Attribute]) -> None:
        """Put in what was read."""
        for one in attributes:
            if isinstance(one.value, tuple):
                items = self.sequences[one.tag] = [_Item() for _ in one.value]
                for item, inner in zip(items, one.value, strict=True):
                    item.take(inner)
            else:
                self.values[one.tag] = (one.vr, one.value)

    def attributes(self) -> tuple[Attribute, ...]:
        """All of it, in the order of tags."""
        found = [Attribute(tag, vr, value) for tag, (vr, value) in self.values.items()]
        found += [
            Attribute(tag, "SQ", tuple(item.attributes() for item in items))
            for tag, items in self.sequences.items()
        ]
        return tuple(sorted(found, key=lambda one: one.tag))


@dataclass(frozen=True, slots=True)
class Identifier:
    """The keys of a request.

    Args:
        attributes: in the order of tags.
    """

    attributes: tuple[Attribute, ...]

    def encode(self, transfer_syntax: str) -> bytes:
        """The data set; with an empty (0008,0005) where everything is ASCII.

        Some peers wait for that before they answer with anything else than ASCII.
        """
        charset = next((o for o in self.attributes if o.tag == SPECIFIC_CHARACTER_SET), None)
        preferred = str(charset.value).encode("ascii", "replace") if charset else None
        if not "".join(texts_of([self.attributes])).isascii():
            return encode_attributes(self.attributes, transfer_syntax, preferred=preferred)
        syntax = properties(transfer_syntax)
        writer = Writer(explicit=syntax.explicit, little_endian=syntax.little_endian)
        added = () if charset else (Attribute(SPECIFIC_CHARACTER_SET, "CS", ""),)
        return deflated(writer.data_set((*self.attributes, *added)), transfer_syntax)

    @property
    def columns(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """The paths of everything that is asked for, for a table of the answers."""
        return tuple(_paths(self.attributes))


def _paths(attributes: Iterable[Attribute]) -> Iterable[tuple[tuple[int, int], ...]]:
    for one in attributes:
        if one.tag in (SPECIFIC_CHARACTER_SET, LEVEL):
            continue  # what the request says of itself
        if not isinstance(one.value, tuple):
            yield ((one.tag, 0),)
        for number, item in enumerate(one.value if isinstance(one.value, tuple) else ()):
            yield from (((one.tag, number), *path) for path in _paths(item))


def identifier_of(
    options: argparse.Namespace, *, returned: bool, extra: Iterable[QueryKey] = ()
) -> Identifier:
    """The identifier that a command line describes.

    Args:
        options: of ``key_options`` and ``model_options``.
        returned: add what is usually wanted of the level if no key asks for a return value.
        extra: keys that come before those of ``-k``.

    Raises:
        ConfigurationError: a query file cannot be read.
    """
    top = _Item()
    for path in options.file:
        top.take(_read(path))
    keys = [*extra, *options.keys]
    for one in keys:
        top.put(one.path, one.value)
    worklist = options.model == "worklist"
    if not worklist:
        level = options.level or top.values.get(LEVEL, ("", ""))[1] or (
            "IMAGE" if options.model == "composite" else "STUDY"
        )  # fmt: skip
        top.values[LEVEL] = ("CS", level)
    if returned and not options.file and all(one.value for one in keys):
        defaults = DEFAULT_KEYS.get("worklist" if worklist else str(top.values[LEVEL][1]), ())
        for word in defaults:
            top.put(key(word).path, None)
    return Identifier(top.attributes())


def _read(path: Path) -> tuple[Attribute, ...]:
    try:
        raw = path.read_bytes()
        offset, syntax = data_set_start(raw)
        return read_attributes(raw[offset:], syntax or IMPLICIT_VR_LITTLE_ENDIAN)
    except (OSError, InvalidDicom) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"query file {path}: {why}") from error
