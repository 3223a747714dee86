"""Presentation contexts of a requestor that does not know yet what it will be sent.

128 contexts do not hold every storage class with every transfer syntax. The classes in use come
first; those that are compressed most often have two contexts, one for uncompressed and one for
compressed transfer syntaxes, of each of which the peer chooses one. Where the classes are named,
each compressed transfer syntax has a context of its own.

Standard: PS3.8 9.3.2.2 (128 contexts), 9.3.3.2 (one transfer syntax each); PS3.7 D.3.3.4 (roles).
"""

from __future__ import annotations

from collections.abc import Iterable

from hilum.errors import ConfigurationError
from hilum.services.dictionary import uid_dictionary
from hilum.services.sop_classes import STORAGE_SOP_CLASSES, is_private_class
from hilum.services.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = ["retrieve_contexts"]

MAX_CONTEXTS = 128
_NATIVE = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
# JPEG lossless, JPEG 2000, JPEG-LS, RLE, JPEG baseline and extended: what images are kept in. All 60
# would make an A-ASSOCIATE-RQ of 100 KB, which DCMTK drops the connection over.
_COMPRESSED = tuple(
    EXPLICIT_VR_LITTLE_ENDIAN.removesuffix(".1") + suffix
    for suffix in (".4.70", ".4.90", ".4.80", ".5", ".4.91", ".4.50", ".4.51", ".4.81")
)

_ARC = "1.2.840.10008.5.1.4.1.1."
# CT, MR, CR, DX, mammography, ultrasound, nuclear medicine, PET, X-ray angiography and RF,
# secondary capture, visible light, whole slides, tomosynthesis, OCT.
_OFTEN = tuple(
    _ARC + number
    for number in (
    "2", "2.1", "4", "4.1", "1", "1.1", "1.1.1", "1.2", "1.2.1", "6.1", "3.1", "20", "128",
    "12.1", "12.1.1", "12.2", "12.2.1", "7", "7.1", "7.2", "7.3", "7.4", "77.1.1", "77.1.1.1",
    "77.1.2", "77.1.4", "77.1.4.1", "77.1.5.1", "77.1.6", "13.1.3", "77.1.5.4", "130",
    )
)  # fmt: skip
# Reports, radiotherapy, documents, segmentations, presentation states, waveforms: before the rest.
_THEN = tuple(
    _ARC + number
    for number in (
    "88.11", "88.22", "88.33", "88.34", "88.35", "88.40", "88.50", "88.59", "88.65", "88.67",
    "88.68", "88.71", "88.73", "88.74", "88.76", "481.1", "481.2", "481.3", "481.4", "481.5",
    "481.6", "481.7", "481.8", "481.9", "104.1", "104.2", "104.3", "66", "66.1", "66.2", "66.4",
    "66.5", "66.7", "11.1", "11.2", "11.3", "11.4", "9.1.1", "9.1.2", "9.1.3", "9.2.1", "9.3.1",
    "9.4.1", "9.5.1", "9.7.1", "9.7.2", "67", "4.2", "30",
    )
)  # fmt: skip
# Industry: DICOS (security) and DICONDE (material testing).
_NOT_MEDICAL = (_ARC + "501.", _ARC + "601.")


def retrieve_contexts(
    model: str, classes: Iterable[str] = (), *, compressed: bool = True
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Contexts for a C-GET: its own first, then those of storage classes.

    Args:
        model: SOP class of the C-GET.
        classes: UIDs or keywords of storage classes; empty for those in use.
        compressed: whether compressed transfer syntaxes are proposed.

    Raises:
        ConfigurationError: what is no storage class, or too many of them.
    """
    named = [_uid(word) for word in classes]
    found: list[tuple[str, tuple[str, ...]]] = [(model, _NATIVE)]
    if len(named) >= MAX_CONTEXTS:
        raise ConfigurationError(f"{len(named)} storage classes; one association has room for 127")
    if named:
        found += [(uid, _NATIVE) for uid in named]
        if compressed:
            # Few classes: a context for each compressed transfer syntax, as long as there is room.
            found += [(uid, (syntax,)) for syntax in _COMPRESSED for uid in named]
    elif compressed:
        found += [(uid, syntaxes) for uid in _OFTEN for syntaxes in (_NATIVE, _COMPRESSED)]
        found += [
            (uid, _NATIVE) for uid in dict.fromkeys((*_THEN, *_in_use())) if uid not in _OFTEN
        ]
    else:
        found += [(uid, _NATIVE) for uid in dict.fromkeys((*_OFTEN, *_THEN, *_in_use()))]
    return tuple(found[:MAX_CONTEXTS])


def _uid(word: str) -> str:
    for uid, (_, _, _, _, keyword) in uid_dictionary().items():
        if keyword and word == keyword:
            word = uid
            break
    if word in STORAGE_SOP_CLASSES or (is_private_class(word) and word[:1].isdigit()):
        return word
    raise ConfigurationError(f"'{word}' is no storage SOP class, by UID or keyword of PS3.6")


def _in_use() -> list[str]:
    """Current storage classes of medicine, in the order of their numbers."""
    dictionary = uid_dictionary()
    return sorted(
        (
            uid
            for uid in STORAGE_SOP_CLASSES
            if dictionary.get(uid, ("", "", "", ""))[3] != "Retired"
            if not uid.startswith(_NOT_MEDICAL)
        ),
        key=lambda uid: tuple(map(int, uid.split("."))),
    )
