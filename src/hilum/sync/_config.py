"""Switches of the whole process, under the names of ``pynetdicom._config``.

They are read when something happens, not when an association is made: assign to the module's
attributes, ``_config.STORE_RECV_CHUNKED_DATASET = True``. Settings of one AE or one association
belong on those; these exist for programs that come from pynetdicom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hilum.sync._validators import validate_ae, validate_ui

__all__ = [
    "CODECS",
    "ENFORCE_UID_CONFORMANCE",
    "LOG_HANDLER_LEVEL",
    "LOG_REQUEST_IDENTIFIERS",
    "LOG_RESPONSE_IDENTIFIERS",
    "MAX_WAITING_RESPONSES",
    "PASS_CONTEXTVARS",
    "STORE_MEMORY_LIMIT",
    "STORE_RECV_CHUNKED_DATASET",
    "STORE_SEND_CHUNKED_DATASET",
    "UNRESTRICTED_STORAGE_SERVICE",
    "UNTAKEN_RESPONSES_TIMEOUT",
    "USE_SHORT_DIMSE_AET",
    "VALIDATORS",
    "WINDOWS_TIMER_RESOLUTION",
]

LOG_HANDLER_LEVEL = "standard"
"""``"none"`` keeps associations and messages out of the log; errors are logged all the same."""

ENFORCE_UID_CONFORMANCE = False
"""Whether ``set_uid`` and contexts refuse UIDs that PS3.5 9.1 does not allow."""

USE_SHORT_DIMSE_AET = True
"""Accepted and ignored: AE titles in command sets are never padded beyond an even length."""

LOG_RESPONSE_IDENTIFIERS = True
"""Whether identifiers of responses are logged, at DEBUG: they hold patients' data."""

LOG_REQUEST_IDENTIFIERS = True
"""The same for identifiers of requests."""

STORE_SEND_CHUNKED_DATASET = False
"""Whether ``send_c_store`` with a path sends the file's bytes undecoded, in the context that
accepted exactly their transfer syntax."""

STORE_RECV_CHUNKED_DATASET = False
"""Whether every data set received is put into a file at once, ``event.dataset_path``, which is
removed when the handler has returned."""

STORE_MEMORY_LIMIT = 64 << 20
"""Data sets over so many bytes are kept in a temporary file until their handler has returned, and
not in memory. One association receives one at a time. Ours; pynetdicom keeps all in memory."""

MAX_WAITING_RESPONSES = 256
"""Responses received that a program has not yet taken from its iterator; reading from the peer
pauses when so many wait. Ours; pynetdicom keeps all in memory."""

UNTAKEN_RESPONSES_TIMEOUT: float | None = 600.0
"""Seconds for which a program may leave ``MAX_WAITING_RESPONSES`` untaken, not one of them taken,
before the operation is cancelled and its iterator ends as when the association is lost; None waits
for ever. Ours: a program may look at one response for minutes, but one that has forgotten its
iterator would keep the peer waiting for ever."""

PASS_CONTEXTVARS = False
"""Whether handlers run in a copy of the context in which the server was started, or the
association requested."""

WINDOWS_TIMER_RESOLUTION: float | None = 1
"""Accepted and ignored: nothing here polls."""

CODECS: tuple[str, ...] = ("ascii",)
"""Accepted and ignored: AE titles and UIDs of peers are read so that no byte can fail."""

VALIDATORS: dict[str, Callable[[Any], tuple[bool, str]]] = {"AE": validate_ae, "UI": validate_ui}
"""What ``AE`` and ``PresentationContext`` check their values with: value → (valid, why not)."""

UNRESTRICTED_STORAGE_SERVICE = False
"""Whether servers accept every storage class, private and unknown ones too, with any transfer
syntax, whatever contexts they were given for storage."""
