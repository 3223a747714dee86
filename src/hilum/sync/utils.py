"""Checking the values that programs set."""

from __future__ import annotations

import logging

from pydicom.uid import UID

__all__ = ["decode_bytes", "set_ae", "set_uid", "validate_uid"]

log = logging.getLogger("hilum.sync")


def decode_bytes(encoded_value: bytes) -> str:
    """ASCII bytes as text.

    Raises:
        ValueError: they are not ASCII.
    """
    try:
        return encoded_value.decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"not ASCII: {encoded_value!r}") from error


def set_ae(
    value: str | None, name: str, allow_empty: bool = True, allow_none: bool = True
) -> str | None:
    """The value if it may be an AE title.

    Args:
        value: what to check with ``_config.VALIDATORS["AE"]``.
        name: of the parameter, for the message.
        allow_empty: whether nothing but spaces is fine.
        allow_none: whether None is fine.

    Raises:
        ValueError: it may not.
        TypeError: it is no text.
    """
    from hilum.sync import _config

    if value is None and allow_none:
        return None
    if not isinstance(value, str):
        kinds = "str or None" if allow_none else "str"
        raise TypeError(f"'{name}' must be {kinds}, not '{type(value).__name__}'")
    if not allow_empty and not value.strip():
        why = "must not consist entirely of spaces" if value else "must not be an empty str"
        raise ValueError(f"Invalid '{name}' value - {why}")
    if value:
        valid, why = _config.VALIDATORS["AE"](value)
        if not valid:
            raise ValueError(f"Invalid '{name}' value '{value}' - {why}")
    return value


def set_uid(
    value: str | bytes | UID | None,
    name: str,
    allow_empty: bool = True,
    allow_none: bool = True,
    validate: bool = True,
) -> UID | None:
    """The value as a UID.

    Args:
        value: what to check with ``_config.VALIDATORS["UI"]``.
        name: of the parameter, for the message.
        allow_empty: whether an empty one is fine.
        allow_none: whether None is fine.
        validate: whether to check it at all.

    Raises:
        ValueError: it may not be a UID.
        TypeError: it is neither text nor bytes.
    """
    from hilum.sync import _config

    if value is None and allow_none:
        return None
    if isinstance(value, bytes):
        value = decode_bytes(value)
    if not isinstance(value, str):
        kinds = "str, bytes, UID or None" if allow_none else "str, bytes or UID"
        raise TypeError(f"'{name}' must be {kinds}, not '{type(value).__name__}'")
    uid = value if isinstance(value, UID) else UID(value)
    if not uid and not allow_empty:
        raise ValueError(f"Invalid '{name}' value - must not be an empty str")
    if validate and uid:
        valid, why = _config.VALIDATORS["UI"](uid)
        if not valid:
            raise ValueError(f"Invalid '{name}' value '{uid}' - {why}")
        if not uid.is_valid:
            log.warning("Non-conformant '%s' value '%s'", name, uid)
    return uid


def validate_uid(uid: UID) -> bool:
    """Whether a UID passes ``_config.VALIDATORS["UI"]``."""
    from hilum.sync import _config

    return _config.VALIDATORS["UI"](uid)[0]
