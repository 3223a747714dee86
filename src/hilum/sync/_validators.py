"""Whether a value may be an AE title or a UID."""

from __future__ import annotations

import unicodedata
from typing import Any

from pydicom.uid import UID

__all__ = ["validate_ae", "validate_ui"]


def validate_ae(value: Any) -> tuple[bool, str]:
    """Whether a value may be an AE title (PS3.5 6.2, VR AE), and else why not."""
    if not isinstance(value, str):
        return False, "must be str"
    if len(value) > 16:
        return False, "must not exceed 16 characters"
    if not value.isascii():
        return False, "must only contain ASCII characters"
    if "\\" in value or any(unicodedata.category(c).startswith("C") for c in value):
        return False, "must not contain control characters or backslashes"
    return True, ""


def validate_ui(value: Any) -> tuple[bool, str]:
    """Whether a value may be a UID (PS3.5 9.1), and else why not.

    Real peers use UIDs that the standard forbids; unless ``_config.ENFORCE_UID_CONFORMANCE`` is
    set, only the length counts.
    """
    from hilum.sync import _config

    if not isinstance(value, str):
        return False, "must be pydicom.uid.UID"
    if _config.ENFORCE_UID_CONFORMANCE:
        return (True, "") if UID(value).is_valid else (False, "UID is non-conformant")
    if not value:
        return False, "must not be an empty str"
    if len(value) > 64:
        return False, "must not exceed 64 characters"
    return True, ""
