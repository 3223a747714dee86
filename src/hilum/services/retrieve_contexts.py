"""Presentation contexts of a C-GET's requestor, who is to receive what an archive holds.

An acceptor chooses one transfer syntax of a context, and its provider then has to convert what it
holds in others. So the uncompressed syntaxes share a context, and each other one has its own. 128
contexts do not hold every class with every syntax: what is known to be there comes first, with
every syntax; then what archives keep, each class with the syntaxes it is found in.

Standard: PS3.8 9.3.2.2 (128 contexts), 9.3.3.2 (one transfer syntax each); PS3.4 C.5.3;
PS3.7 D.3.3.4 (roles).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

from hilum.services.dictionary import uid_dictionary
from hilum.services.sop_classes import STORAGE_SOP_CLASSES
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = ["COMPRESSED", "MAX_CONTEXTS", "UNCOMPRESSED", "Contexts", "storage_contexts"]

MAX_CONTEXTS = 128
"""Odd context ids from 1 to 255."""

Contexts = tuple[tuple[str, tuple[str, ...]], ...]
"""SOP class and transfer syntaxes of each."""

UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""In one context: whichever is chosen, the other is converted to it without loss."""

_UID = "1.2.840.10008.1.2"
COMPRESSED = tuple(
    _UID + tail
    for tail in (
        *(".4.70", ".4.90", ".4.50", ".4.91", ".5", ".4.80", ".4.51", ".4.57", ".4.81"),
        *(".4.201", ".4.202", ".4.203"),
        *(".4.100", ".4.101", ".4.102", ".4.103", ".4.107", ".4.108"),
    )
)
"""What images and videos are kept in, the most frequent first."""

_ARC = "1.2.840.10008.5.1.4.1.1."
# In which syntaxes archives keep which images: JPEG lossless, JPEG 2000 (lossless or not), JPEG-LS,
# RLE, JPEG baseline, H.264.
_JPEG, _J2K, _J2K_LOSSY, _LS, _RLE = ".4.70", ".4.90", ".4.91", ".4.80", ".5"
_LOSSY, _VIDEO = ".4.50", ".4.102"
_FOUND_IN: dict[str, tuple[str, ...]] = {
    # CT, MR, enhanced
    "2": (_JPEG, _J2K, _J2K_LOSSY, _LS, _RLE),
    "4": (_JPEG, _J2K, _LS, _RLE),
    "2.1": (_JPEG, _J2K),
    "4.1": (_JPEG, _J2K),
    # CR, DX, mammography, tomosynthesis
    "1": (_JPEG, _J2K, _J2K_LOSSY),
    "1.1": (_JPEG, _J2K, _J2K_LOSSY),
    "1.2": (_JPEG, _J2K, _LS),
    "13.1.3": (_J2K, _JPEG),
    # ultrasound, angiography and fluoroscopy
    "6.1": (_LOSSY, _RLE, _JPEG, _J2K),
    "3.1": (_LOSSY, _RLE, _JPEG),
    "12.1": (_JPEG, _LOSSY, _J2K),
    "12.2": (_JPEG, _J2K),
    # nuclear medicine, PET
    "20": (_RLE, _JPEG),
    "128": (_JPEG, _J2K),
    # secondary capture
    "7": (_LOSSY, _JPEG, _J2K, _RLE),
    "7.4": (_LOSSY,),
    # visible light, whole slides, video
    "77.1.1": (_LOSSY,),
    "77.1.4": (_LOSSY, _J2K),
    "77.1.6": (_LOSSY, _J2K_LOSSY),
    "77.1.1.1": (_VIDEO,),
    "77.1.4.1": (_VIDEO,),
}
# Reports, documents, presentation states, radiotherapy, segmentations, waveforms, further images.
_THEN = (
    *("88.67", "88.22", "88.33", "88.11", "88.59", "88.65", "88.34", "88.50", "88.68", "88.76"),
    *("104.1", "11.1", "481.1", "481.2", "481.3", "481.5", "66.4", "66", "66.1", "9.1.1", "9.1.2"),
    *("1.1.1", "1.2.1", "12.1.1", "12.2.1", "130", "7.1", "7.2", "7.3", "77.1.2", "13.1.1"),
    *("13.1.2", "481.4", "481.6", "481.7", "481.8", "481.9", "88.35", "88.40", "88.71", "88.73"),
    *("88.74", "66.2", "66.5", "77.1.5.1", "77.1.5.4", "11.2", "11.4", "9.1.3", "9.2.1", "104.2"),
    *("4.2", "30", "67", "104.3", "66.7", "11.3", "9.3.1", "9.4.1", "9.5.1", "9.7.1", "9.7.2"),
)
# Names of classes with pixel data, as far as they are compressed.
_WITH_PIXELS = ("Image Storage", "Segmentation Storage", "Parametric Map", "US Volume", "RT Dose")
# Industry: DICOS (security) and DICONDE (material testing).
_NOT_MEDICAL = (_ARC + "501.", _ARC + "601.")


def storage_contexts(
    known: Iterable[str] = (),
    *,
    room: int = MAX_CONTEXTS - 1,
    others: bool = True,
    compressed: bool = True,
    compressed_first: bool = False,
) -> Contexts:
    """Contexts for the C-STOREs of a C-GET, the most needed first.

    Args:
        known: storage classes of what will be sent, as far as is known: all of them uncompressed,
            then each in the most frequent compressed syntaxes, and so on.
        room: contexts that there may be; without more, one is left for the C-GET.
        others: whether the usual classes are proposed in the room that is left.
        compressed: whether other transfer syntaxes than the uncompressed are proposed.
        compressed_first: whether they come before the uncompressed. There are providers that send
            all of a class by its first context, and fail where they cannot convert (dcmqrscp).
    """
    first = dict.fromkeys(known)
    native: list[tuple[str, tuple[str, ...]]] = [(uid, UNCOMPRESSED) for uid in first]
    # Once more alone, so that what is kept in implicit VR comes as it is.
    native += [(uid, UNCOMPRESSED[1:]) for uid in first]
    single = [
        (uid, (syntax,))
        for syntax in (*COMPRESSED, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
        for uid in first
        if compressed and (syntax not in COMPRESSED or _is_image(uid))
    ]
    del single[max(0, room - len(native)) :]
    contexts = dict.fromkeys([*single, *native] if compressed_first else [*native, *single])
    if others:
        usual = _usual(compressed)
        if compressed_first:
            usual = tuple(sorted(usual, key=lambda one: one[1] == UNCOMPRESSED))
        contexts |= dict.fromkeys(usual)
    return tuple(islice(contexts, room))


@lru_cache(maxsize=2)
def _usual(compressed: bool) -> Contexts:
    """Images with what they are found in, then everything in use without pixels or compression."""
    contexts: list[tuple[str, tuple[str, ...]]] = []
    for number, tails in _FOUND_IN.items():
        contexts.append((_ARC + number, UNCOMPRESSED))
        if compressed:
            contexts += [(_ARC + number, (_UID + tail,)) for tail in tails]
    rest = dict.fromkeys((*(_ARC + number for number in _THEN), *_in_use()))
    contexts += [(uid, UNCOMPRESSED) for uid in rest]
    return tuple(dict.fromkeys(contexts))


def _is_image(uid: str) -> bool:
    """Whether it may be compressed; of a private class anything may be."""
    found = uid_dictionary().get(uid)
    return found is None or any(word in found[0] for word in _WITH_PIXELS)


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
