"""What of an entity is returned: the attributes that a query's keys ask for.

Standard: PS3.4 C.4.1.1.3.2, K.4.1.1.3.2 (response identifiers), C.2.2.2.6 (sequences).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hilum.services.identifier import Attribute
from hilum.services.matching import Key

__all__ = ["select"]


def select(keys: Iterable[Key], attributes: Mapping[int, Any]) -> tuple[Attribute, ...]:
    """The attributes asked for, with their values or without one where the entity has none.

    Of a sequence, every item with what is asked of it; the whole items where nothing is.

    Args:
        keys: of the query.
        attributes: values by tag: text, numbers, bytes, items, None.
    """
    return tuple(_selected(key, attributes.get(key.tag)) for key in keys)


def _selected(key: Key, value: Any) -> Attribute:
    if key.vr == "SQ":
        items = value if isinstance(value, tuple) else ()
        if key.items:
            items = tuple(select(key.items, {one.tag: one.value for one in item}) for item in items)
        return Attribute(key.tag, "SQ", items)
    if value is None or isinstance(value, tuple):
        return Attribute(key.tag, key.vr, "")
    return Attribute(key.tag, key.vr, value if isinstance(value, bytes) else str(value))
