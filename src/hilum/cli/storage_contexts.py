"""Presentation contexts of ``hilum get``, whose storage classes may be named by its user.

Standard: PS3.8 9.3.2.2 (128 contexts).
"""

from __future__ import annotations

from collections.abc import Iterable

from hilum.errors import ConfigurationError
from hilum.services.dictionary import uid_dictionary
from hilum.services.retrieve_contexts import (
    MAX_CONTEXTS,
    UNCOMPRESSED,
    Contexts,
    storage_contexts,
)
from hilum.services.sop_classes import STORAGE_SOP_CLASSES, is_private_class

__all__ = ["retrieve_contexts"]


def retrieve_contexts(
    model: str,
    classes: Iterable[str] = (),
    *,
    known: Iterable[str] = (),
    compressed: bool = True,
    compressed_first: bool = False,
) -> Contexts:
    """Contexts for a C-GET: its own first, then those of storage classes.

    Args:
        model: SOP class of the C-GET.
        classes: UIDs or keywords of storage classes, and no others; empty for those in use.
        known: UIDs of classes that the peer holds; they come before the others.
        compressed: whether compressed transfer syntaxes are proposed.
        compressed_first: see ``storage_contexts``.

    Raises:
        ConfigurationError: what is no storage class, or too many of them.
    """
    named = [_uid(word) for word in classes]
    if len(named) >= MAX_CONTEXTS:
        raise ConfigurationError(f"{len(named)} storage classes; one association has room for 127")
    found = storage_contexts(
        named or known,
        others=not named,
        compressed=compressed,
        compressed_first=compressed_first,
    )
    return ((model, UNCOMPRESSED), *found)


def _uid(word: str) -> str:
    for uid, (_, _, _, _, keyword) in uid_dictionary().items():
        if keyword and word == keyword:
            word = uid
            break
    if word in STORAGE_SOP_CLASSES or (is_private_class(word) and word[:1].isdigit()):
        return word
    raise ConfigurationError(f"'{word}' is no storage SOP class, by UID or keyword of PS3.6")
