"""PS3.6's tables as pydicom carries them, without importing pydicom.

Importing pydicom brings numpy and its pixel handlers: 150 ms and 25 MB that a receiver, or
``hilum echo``, has no use for. The modules read here are plain tables and import nothing.

Standard: PS3.6 (data dictionary, Annex A for UIDs).
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

__all__ = [
    "dictionary_entry",
    "dictionary_vr",
    "keyword_for_tag",
    "private_entry",
    "tag_for_keyword",
    "uid_dictionary",
]


@cache
def _table(name: str) -> ModuleType:
    """One module of pydicom's by its file; the one that is imported already, if it is."""
    full_name = f"pydicom.{name}"
    if full_name in sys.modules:
        return sys.modules[full_name]
    package = find_spec("pydicom")
    if package is None or package.origin is None:
        raise ImportError("pydicom is not installed")
    spec = spec_from_file_location(full_name, Path(package.origin).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(f"pydicom has no {name}; Hilum needs pydicom 3")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def uid_dictionary() -> dict[str, tuple[str, str, str, str, str]]:
    """UID → (name, type, information, retired, keyword), a copy of its own."""
    return dict(_table("_uid_dict").UID_dictionary)


@cache
def _elements() -> dict[int, tuple[str, str, str, str, str]]:
    found: dict[int, tuple[str, str, str, str, str]] = _table("_dicom_dict").DicomDictionary
    return found


@cache
def _keywords() -> dict[str, int]:
    return {entry[4]: tag for tag, entry in _elements().items() if entry[4]}


def tag_for_keyword(keyword: str) -> int | None:
    """The tag as a 32-bit number; None where PS3.6 has no such keyword."""
    return _keywords().get(keyword)


def dictionary_entry(tag: int) -> tuple[str, str, str] | None:
    """VR, value multiplicity and keyword of an element; None where PS3.6 has no such element."""
    entry = _elements().get(tag)
    return None if entry is None else (str(entry[0]), str(entry[1]), str(entry[4]))


def _repeating(tag: int) -> tuple[str, str, str, str, str]:
    digits = f"{tag:08X}"
    found: tuple[str, str, str, str, str] = _table("_dicom_dict").RepeatersDictionary[
        f"{digits[:2]}xx{digits[4:]}"
    ]
    return found


def dictionary_vr(tag: int) -> str:
    """The VR of an element, such as ``US or SS``; of repeating groups (60xx) too.

    Raises:
        KeyError: PS3.6 has no such element.
    """
    return str((_elements().get(tag) or _repeating(tag))[0])


def keyword_for_tag(tag: int) -> str:
    """The keyword of an element, of repeating groups too; empty where PS3.6 has none."""
    try:
        return str((_elements().get(tag) or _repeating(tag))[4])
    except KeyError:
        return ""


def private_entry(creator: str, tag: int) -> tuple[str, str] | None:
    """VR and name of a private element that pydicom's private dictionary knows; None otherwise."""
    block = _table("_private_dict").private_dictionaries.get(creator)
    if block is None:
        return None
    digits = f"{tag:08X}"
    entry = block.get(f"{digits[:4]}xx{digits[6:]}") or block.get(digits)
    return None if entry is None else (str(entry[0]), str(entry[2]))
