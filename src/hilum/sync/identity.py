"""Who an application entity says it is in associations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.sync.pdu_primitives import (
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    ServiceParameter,
)

if TYPE_CHECKING:
    from hilum.sync.ae import ApplicationEntity

__all__ = ["identity_of"]


def identity_of(ae: ApplicationEntity, maximum_length: int | None) -> list[ServiceParameter]:
    """Maximum length, if given, and the two implementation items."""
    made: list[ServiceParameter] = []
    if maximum_length is not None:
        length = MaximumLengthNotification()
        length.maximum_length_received = maximum_length
        made.append(length)
    uid = ImplementationClassUIDNotification()
    uid.implementation_class_uid = ae.implementation_class_uid
    made.append(uid)
    if ae.implementation_version_name:
        name = ImplementationVersionNameNotification()
        name.implementation_version_name = ae.implementation_version_name
        made.append(name)
    return made
